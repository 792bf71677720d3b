"""What the page says of the Hub's servers: counts, limits, what comes next, the list of servers.

Facts exist only if the last poll succeeded, as on `/metrics`: stale numbers look like facts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..domain.census import Census, NextServer
from ..domain.policy import JudgedServer, Policy, Reason, State
from ..domain.poll_state import Snapshot
from .reading import Reading

MOST_SERVERS, MOST_NEXT = 50, 5


@dataclass(frozen=True)
class IdleBar:
    """The ready servers whose idle time is between two bounds (seconds; None: no bound).

    `length` is relative to the longest bar, `idle_length` that of its idle part (0 to 1).
    """

    low: float
    high: float | None
    count: int
    idle: int
    length: float
    idle_length: float


@dataclass(frozen=True)
class LimitBar:
    """How many servers an idle limit (seconds) would make candidates now; `ours` is in force.

    `length` is relative to the longest bar (0 to 1).
    """

    limit: float
    count: int
    length: float
    ours: bool


@dataclass(frozen=True)
class PolicyRow:
    """One policy; the counts of its servers are None unless the last poll succeeded."""

    policy: Policy
    servers: Mapping[State, int] | None
    would_stop: int | None
    idle_seconds: float


@dataclass(frozen=True)
class NextRow:
    """A server that reaches its limit at a time of our clock unless it is used: in `seconds`."""

    at: float
    seconds: float
    judged: JudgedServer
    reason: Reason


@dataclass(frozen=True)
class Facts:
    """What the last poll found.

    `would_stop_by_reason` are candidates without those that the second opinion spares (`spared`).
    `next_due` are the servers that reach a limit next; `listed` those that were asked for, as far
    as `listable` ones are kept, and `matching` how many there are.
    """

    hub_version: str
    states: Mapping[State, int]
    would_stop_by_reason: Mapping[Reason, int]
    spared: int
    idle_kept: int  # idle servers that are no candidates
    limits: tuple[LimitBar, ...]
    idle_times: tuple[IdleBar, ...]
    next_due: tuple[NextRow, ...]
    listed: tuple[JudgedServer, ...]
    matching: int
    unreadable_users: int

    @property
    def running(self) -> int:
        """Count all servers."""
        return sum(self.states.values())

    @property
    def would_stop(self) -> int:
        """Count the servers that would be stopped."""
        return sum(self.would_stop_by_reason.values())


def facts_of(reading: Reading) -> Facts | None:
    """Compute the facts; None unless the last poll succeeded."""
    snapshot = reading.state.snapshot
    return None if snapshot is None else _facts(reading, snapshot)


def _facts(reading: Reading, snapshot: Snapshot) -> Facts:
    census = snapshot.census
    matching = _known(reading, census)
    if reading.asked:
        matching = [one for one in matching if reading.asked.holds(one)]
    return Facts(
        hub_version=reading.state.version or "",
        states={s: sum(_states(census, p)[s] for p in census.policies) for s in State},
        would_stop_by_reason={
            reason: sum(_would_stop(census, policy, [reason]) for policy in census.policies)
            for reason in Reason
        },
        spared=sum(census.spared.values()),
        idle_kept=census.idle_kept,
        limits=limit_bars(census),
        idle_times=idle_bars(census),
        next_due=tuple(_next_row(reading, one) for one in census.next_due[:MOST_NEXT]),
        listed=tuple(matching[:MOST_SERVERS]),
        matching=len(matching),
        unreadable_users=len(snapshot.unreadable),
    )


def _next_row(reading: Reading, one: NextServer) -> NextRow:
    """Tell when it will be: what is left counts from the poll."""
    seconds = one.seconds - (reading.last_success_age or 0.0)
    return NextRow(reading.now.wall + seconds, seconds, one.judged, one.reason)


def _known(reading: Reading, census: Census) -> Sequence[JudgedServer]:
    """Return what can be listed: all servers if they are kept, else those past a limit."""
    return census.named if reading.names_servers else census.past_limit


def limit_bars(census: Census) -> tuple[LimitBar, ...]:
    """Return a bar for each limit, with what it would make candidates; ours is among them."""
    ours = census.policies[-1].timeout
    counts = {float(limit): n for limit, n in census.over_limit.items()}
    counts[ours] = len(census.candidates)
    longest = max(counts.values())
    return tuple(
        LimitBar(limit, n, _part(n, longest), limit == ours) for limit, n in sorted(counts.items())
    )


def idle_bars(census: Census) -> tuple[IdleBar, ...]:
    """Return a bar for each range of idle times that has servers, the idle ones apart."""
    edges = [0.0, *map(float, census.idle.bounds), None]
    longest = max(census.idle.counts)
    classes = zip(edges, edges[1:], census.idle.counts, census.idle_past.counts, strict=False)
    return tuple(
        IdleBar(low or 0.0, high, count, idle, _part(count, longest), _part(idle, longest))
        for low, high, count, idle in classes
        if count
    )


def _part(count: int, whole: int) -> float:
    return count / whole if whole else 0.0


def policy_rows(reading: Reading) -> tuple[PolicyRow, ...]:
    """Return the policies by which the facts were judged; without facts, the current ones."""
    census = reading.census
    policies = reading.state.rules.policies if census is None else census.policies
    return tuple(
        PolicyRow(
            policy,
            None if census is None else _states(census, policy),
            None if census is None else _would_stop(census, policy, Reason),
            reading.totals.idle_server_seconds.get((policy.name,), 0.0),
        )
        for policy in policies
    )


def _states(census: Census, policy: Policy) -> Mapping[State, int]:
    return {state: census.servers.get((policy.name, state), 0) for state in State}


def _would_stop(census: Census, policy: Policy, reasons: Iterable[Reason]) -> int:
    return sum(census.would_stop.get((policy.name, reason), 0) for reason in reasons)
