"""What the page at `/` says, computed from one poll state: typed, frozen, without clock or I/O.

A view has facts about the Hub only if the last poll succeeded, as on `/metrics`: stale numbers look
like facts. Durations are seconds, times are seconds since 1970. A view has no user names without
`--per-server-metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import nlargest
from typing import TypeVar

from ..domain.census import Census, SecondsHistogram
from ..domain.gate import ClockReading, GateState
from ..domain.policy import JudgedServer, Policy, Reason, State
from ..domain.poll_state import PollState
from ..domain.requirements import Requirement, Severity
from ..domain.settings import BusyCheck, Settings
from ..domain.totals import Counts, Totals
from .wording import ANSWERS, FAILED, MODES, POLL_FAILURES, WITHHELD

# All of these are bounds of the census, so that the servers beyond them can be counted.
IDLE_LIMITS = (900, 1800, 3600, 7200, 14400, 28800, 86400)
AGE_LIMITS = (28800, 43200, 86400, 172800, 604800)
MOST_SERVERS = 50
_REFRESH_SECONDS = (5, 60)

_Value = TypeVar("_Value", bound=StrEnum)


class Freshness(StrEnum):
    """How current the facts about the Hub are."""

    FIRST = "first"  # no poll has finished yet
    FAILED = "failed"
    STALE = "stale"  # no poll has finished for three intervals
    FRESH = "fresh"


class Tone(StrEnum):
    """The colour of the mode: green only if servers are stopped with every protection."""

    CALM = "calm"  # monitoring only
    GOOD = "good"
    WARN = "warn"


@dataclass(frozen=True)
class Reading:
    """Everything the page is made from, as of the time `now` of our clocks."""

    now: ClockReading
    exporter_version: str
    settings: Settings
    shown: Mapping[str, str]  # options and their values, for people
    state: PollState
    gate: GateState
    why: str
    totals: Totals

    @property
    def census(self) -> Census | None:
        """Return the counts of the last poll; None unless it succeeded."""
        return self.state.snapshot.census if self.state.snapshot else None

    @property
    def judged(self) -> Sequence[JudgedServer]:
        """Return the servers whose names may be shown."""
        census = self.census
        return census.named if census and self.settings.poll.per_server_metrics else ()

    @property
    def last_success_age(self) -> float | None:
        """Return the age of the last successful poll."""
        return self.state.seconds_since_success(self.now)

    @property
    def failing_for(self) -> float | None:
        """Return how long polls have been failing."""
        return self.state.seconds_failing(self.now)


@dataclass(frozen=True)
class Bar:
    """A count of servers as a bar; `length` is relative to the longest bar (0 to 1)."""

    label: tuple[float | None, float | None]  # from, to: seconds; None: no bound
    count: int
    length: float
    share: float  # of all ready servers
    marked: bool


@dataclass(frozen=True)
class PolicyRow:
    """One policy; the counts of its servers are None unless the last poll succeeded."""

    policy: Policy
    servers: Mapping[State, int] | None
    stops: int | None
    idle_seconds: float


@dataclass(frozen=True)
class ServerRow:
    """One server, only with per-server metrics."""

    user: str
    server: str
    state: State
    idle: float | None
    age: float | None
    policy: str
    why: str


@dataclass(frozen=True)
class Facts:
    """What the last poll found."""

    hub_version: str
    default: Policy
    states: Mapping[State, int]
    stops: Mapping[Reason, int]
    histogram: tuple[Bar, ...]
    idle_limits: tuple[Bar, ...]
    age_limits: tuple[Bar, ...]
    most_idle: tuple[ServerRow, ...]
    servers_known: int
    idle_kept: int  # idle servers that are not to be stopped
    unreadable_users: int

    @property
    def running(self) -> int:
        """Count all servers."""
        return sum(self.states.values())


@dataclass(frozen=True)
class Count:
    """How often an outcome was counted, and what it means."""

    value: str
    meaning: str
    count: int


@dataclass(frozen=True)
class Culls:
    """The outcomes of culling since the start."""

    stopped: tuple[tuple[str, Mapping[Reason, int]], ...]  # by policy
    withheld: tuple[Count, ...]
    failed: tuple[Count, ...]
    answers: tuple[Count, ...]

    @property
    def total(self) -> int:
        """Count all servers that were stopped."""
        return sum(sum(reasons.values()) for _, reasons in self.stopped)


class ScopeStatus(StrEnum):
    """Whether the token has a scope, and whether that matters."""

    GRANTED = "granted"
    MISSING = "missing"
    UNUSED = "not granted, not needed"
    UNKNOWN = "not known yet"


@dataclass(frozen=True)
class Unmet:
    """What is missing, as sentences.

    `findings` are requirements that are not met, `lacks` is what protects people only if they are,
    and `roles` is what to paste into jupyterhub_config.py; empty if other roles would not help.
    """

    findings: tuple[str, ...]
    lacks: tuple[str, ...]
    roles: str


@dataclass(frozen=True)
class View:
    """The page, before it is rendered."""

    reading: Reading
    freshness: Freshness
    mode: str
    tone: Tone
    unmet: Unmet
    facts: Facts | None
    policies: tuple[PolicyRow, ...]
    culls: Culls | None  # None: nothing is ever stopped
    poll_failures: tuple[Count, ...]
    scopes: tuple[tuple[Requirement, ScopeStatus], ...]
    asking: str
    refresh: int

    @property
    def why(self) -> str:
        """Explain the mode, without repeating what the page says further down."""
        if self.reading.gate is GateState.SUSPENDED and self.reading.state.suspended_by:
            failed = self.freshness is Freshness.FAILED
            until = "the Hub can be read again" if failed else "the requirements below are met"
            return f"nothing is stopped until {until}"
        if self.reading.gate is GateState.ON and self.unmet.lacks:
            return f"{self.reading.why}, with less protection than is possible"
        return self.reading.why

    @property
    def light(self) -> str:
        """Return the colour of the browser's tab: green only if all is well."""
        if self.freshness is Freshness.FAILED:
            return "red"
        return (
            "green" if self.freshness is Freshness.FRESH and self.tone is not Tone.WARN else "amber"
        )

    @property
    def title(self) -> str:
        """Return the text of the browser's tab."""
        if self.freshness is Freshness.FAILED:
            return "Poll failed"
        if self.facts is None:
            return "First poll"
        return f"{self.facts.states[State.IDLE]:,} idle of {self.facts.running:,}"


def view_of(reading: Reading) -> View:
    """Compute the page."""
    least, most = _REFRESH_SECONDS
    return View(
        reading=reading,
        freshness=_freshness(reading),
        mode=MODES[reading.gate],
        tone=_tone(reading),
        unmet=_unmet(reading),
        facts=_facts(reading),
        policies=_policies(reading),
        culls=None if reading.gate is GateState.OFF else _culls(reading.totals),
        poll_failures=_counted(POLL_FAILURES, reading.totals.poll_failures),
        scopes=_scopes(reading),
        asking=_asking(reading),
        refresh=int(max(least, min(most, reading.settings.poll.interval))),
    )


def _freshness(reading: Reading) -> Freshness:
    if reading.census is None:
        return Freshness.FIRST if reading.state.error is None else Freshness.FAILED
    stale = reading.state.is_stale(reading.now, reading.settings.poll.interval)
    return Freshness.STALE if stale else Freshness.FRESH


def _tone(reading: Reading) -> Tone:
    if reading.gate is GateState.OFF:
        return Tone.CALM
    whole = reading.gate is GateState.ON and reading.state.safeguards.complete
    return Tone.GOOD if whole else Tone.WARN


def _unmet(reading: Reading) -> Unmet:
    """Say what is missing; if it is what made the poll fail, the page says so elsewhere."""
    state = reading.state
    fatal = state.error is not None and state.error.finding is not None
    if state.snapshot is None and not fatal:
        return Unmet((), (), "")
    found = (Severity.WARNING, Severity.SUSPENDS)
    sentences = tuple(str(one) for one in state.findings if one.severity in found)
    enforcing = reading.gate is not GateState.OFF and state.suspended_by == ()
    lacks = state.safeguards.lacks if enforcing else ()
    return Unmet(sentences, lacks, state.roles)


def _facts(reading: Reading) -> Facts | None:
    snapshot = reading.state.snapshot
    if snapshot is None:
        return None
    census = snapshot.census
    states = {s: sum(census.servers.get((p.name, s), 0) for p in census.policies) for s in State}
    counts, default = census.candidate_counts, census.policies[-1]
    stops = {r: sum(counts.get((p.name, r), 0) for p in census.policies) for r in Reason}
    return Facts(
        hub_version=reading.state.version or "",
        states=states,
        stops=stops,
        default=default,
        histogram=histogram_bars(census.idle, default.timeout),
        idle_limits=limit_bars(census.idle, IDLE_LIMITS, default.timeout),
        age_limits=limit_bars(census.age, AGE_LIMITS, default.max_age),
        most_idle=tuple(_server_row(one) for one in _most_idle(reading.judged)),
        servers_known=len(reading.judged),
        idle_kept=census.idle_kept,
        unreadable_users=len(snapshot.unreadable),
    )


def histogram_bars(histogram: SecondsHistogram, limit: float) -> tuple[Bar, ...]:
    """Return one bar per range of idle times; those entirely past the limit are marked."""
    edges = [0.0, *map(float, histogram.bounds), None]
    longest, total = max(histogram.counts), sum(histogram.counts)
    return tuple(
        Bar((low, high), count, _part(count, longest), _part(count, total), (low or 0.0) >= limit)
        for low, high, count in zip(edges, edges[1:], histogram.counts, strict=False)
    )


def limit_bars(histogram: SecondsHistogram, limits: Sequence[int], ours: float) -> tuple[Bar, ...]:
    """Return one bar per limit, with the number of servers beyond it; ours is marked."""
    at_most = dict(zip(histogram.bounds, histogram.cumulative, strict=False))
    total = sum(histogram.counts)
    beyond = {limit: total - at_most[limit] for limit in limits}
    return tuple(
        Bar((limit, None), n, _part(n, total), _part(n, total), limit == ours)
        for limit, n in beyond.items()
    )


def _part(count: int, whole: int) -> float:
    return count / whole if whole else 0.0


def _most_idle(judged: Sequence[JudgedServer]) -> list[JudgedServer]:
    return nlargest(MOST_SERVERS, judged, key=lambda one: one.idle or 0.0)


def _server_row(one: JudgedServer) -> ServerRow:
    why = one.why
    policy = one.policy.name
    return ServerRow(one.user, one.server, one.state, one.idle, one.age, policy, why)


def _policies(reading: Reading) -> tuple[PolicyRow, ...]:
    """Return the policies by which the facts were judged; without facts, the current ones."""
    census = reading.census
    policies = reading.state.rules.policies if census is None else census.policies
    return tuple(
        PolicyRow(
            policy,
            None if census is None else _states(census, policy),
            None if census is None else _stops(census, policy),
            reading.totals.idle_server_seconds.get((policy.name,), 0.0),
        )
        for policy in policies
    )


def _states(census: Census, policy: Policy) -> Mapping[State, int]:
    return {state: census.servers.get((policy.name, state), 0) for state in State}


def _stops(census: Census, policy: Policy) -> int:
    return sum(census.candidate_counts.get((policy.name, reason), 0) for reason in Reason)


def _culls(totals: Totals) -> Culls:
    names = dict.fromkeys(policy for policy, _ in totals.culls)
    stopped = tuple(
        (name, {reason: int(totals.culls.get((name, reason), 0)) for reason in Reason})
        for name in names
    )
    return Culls(
        stopped,
        withheld=_counted(WITHHELD, totals.withheld),
        failed=_counted(FAILED, totals.cull_failures),
        answers=_counted(ANSWERS, totals.busy_checks),
    )


def _counted(meanings: Mapping[_Value, str], counts: Counts) -> tuple[Count, ...]:
    return tuple(Count(v, meaning, int(counts.get((v,), 0))) for v, meaning in meanings.items())


def _scopes(reading: Reading) -> tuple[tuple[Requirement, ScopeStatus], ...]:
    return tuple((one, _scope_status(one, reading.state)) for one in reading.state.requirements)


def _scope_status(requirement: Requirement, state: PollState) -> ScopeStatus:
    if state.granted is None:
        return ScopeStatus.UNKNOWN
    if all(finding.scope is not requirement.scope for finding in state.findings):
        return ScopeStatus.GRANTED
    needed = requirement.severity > Severity.NOTE
    return ScopeStatus.MISSING if needed else ScopeStatus.UNUSED


def _asking(reading: Reading) -> str:
    """Say whether the busy check is on, and why not."""
    state = reading.state
    if reading.gate is GateState.OFF:
        return "off: in monitor mode no user's server is contacted"
    if reading.settings.cull.busy_check is BusyCheck.OFF:
        return "off (--busy-check): last_activity alone decides"
    if state.safeguards.asks_servers:
        return "on: each server is asked whether it is busy before it is stopped"
    if state.granted is None:
        return "not known until a poll succeeds"
    return "not possible: the roles of the token or of the probe user do not allow it"
