"""What the page at `/` says, worked out from one reading: typed, frozen, without clock or I/O.

Facts about the Hub are in a view only while the last poll was good, as on `/metrics`: stale
numbers look like facts. Times are seconds, or seconds since 1970 where they are moments. No
user's name is in a view unless the reading holds judged servers (`--per-server-metrics`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import nlargest
from typing import TypeVar

from ..domain.census import Census, Judged, Spread
from ..domain.gate import GateState
from ..domain.labels import Asked, Cause, CullFailure, Withheld
from ..domain.policy import Policy, Reason, Rules, State
from ..domain.scopes import PURPOSE, Scope

# All of them are bounds of the census: what lies beyond them can be counted.
IDLE_LIMITS = (900, 1800, 3600, 7200, 14400, 28800, 86400)
AGE_LIMITS = (28800, 43200, 86400, 172800, 604800)
MOST_SERVERS = 50
INTERVALS_UNTIL_STALE = 3
_REFRESH_SECONDS = (5, 60)

MODES = {
    GateState.OFF: "Monitoring",
    GateState.GRACE: "Waiting",
    GateState.SUSPENDED: "Suspended",
    GateState.ON: "Enforcing",
}
SPARED = {
    Withheld.ACTIVE_AGAIN: "in use again when looked at",
    Withheld.BUSY: "a kernel was computing",
    Withheld.PROBE_FAILED: "could not be asked or looked at",
    Withheld.PENDING: "starting or stopping",
    Withheld.RESTARTED: "started anew meanwhile",
    Withheld.GONE: "not there any more",
    Withheld.LIMIT: "over --max-culls",
    Withheld.GATE: "stops were forbidden meanwhile",
}
FAILED = {
    CullFailure.HTTP: "the Hub refused",
    CullFailure.TIMEOUT: "the Hub did not answer in time",
    CullFailure.CONNECTION: "the Hub could not be reached",
    CullFailure.NOT_STOPPED: "the Hub said yes, the server lives",
    CullFailure.SLOW: "still stopping when given up",
}
SAID = {
    Asked.IDLE: "at rest",
    Asked.BUSY: "a kernel is computing",
    Asked.ACTIVE: "in use",
    Asked.NO_JUPYTER: "no Jupyter there",
    Asked.FAILED: "no answer that can be used",
}
UNREAD = {
    Cause.CONNECTION: "the Hub could not be reached",
    Cause.TIMEOUT: "the Hub did not answer in time",
    Cause.HTTP: "the Hub answered with an error",
    Cause.AUTH: "the Hub does not know the token",
    Cause.SCOPE: "the token lacks a scope",
    Cause.RESPONSE: "not what a JupyterHub answers",
}

_Value = TypeVar("_Value", bound=StrEnum)
Counts = Mapping[tuple[str, ...], float]


class Sight(StrEnum):
    """What the page may say of the Hub."""

    FIRST = "first"  # no poll has ended yet
    FAILED = "failed"
    STALE = "stale"  # facts that are getting old: a poll hangs
    FRESH = "fresh"


@dataclass(frozen=True)
class Totals:
    """Our own counters: the values of the labels → how often since the start."""

    polls: float
    poll_failures: Counts
    culls: Counts  # policy, reason
    withheld: Counts
    cull_failures: Counts
    busy_checks: Counts
    idle_server_seconds: Counts  # policy


@dataclass(frozen=True)
class Reading:
    """Everything the page is made from, as it was at the moment `now` of our clock."""

    now: float
    exporter_version: str
    url: str
    interval: float
    rules: Rules
    settings: Mapping[str, str]
    busy_check: str  # auto, require, off
    gate: GateState
    why: str
    hub_version: str | None  # it and the census: None unless the last poll was good
    census: Census | None
    judged: Sequence[Judged]
    last_success_age: float | None
    failing_for: float | None
    error: str | None
    policy_refused: bool  # the policy file as it is now; the last good one holds
    poll_seconds: float
    clock_skew: float
    granted: Mapping[str, bool]
    asks: bool
    totals: Totals


@dataclass(frozen=True)
class Bar:
    """A count of servers, with the share (0 to 1) of the longest bar, and whether it stands out."""

    label: tuple[float | None, float | None]  # from, to: seconds; None is open
    count: int
    length: float
    share: float  # of all ready servers
    marked: bool


@dataclass(frozen=True)
class PolicyRow:
    """One policy; what its servers do is None unless the last poll was good."""

    policy: Policy
    servers: Mapping[State, int] | None
    stops: int | None
    idle_seconds: float


@dataclass(frozen=True)
class ServerRow:
    """One server, only where per-server metrics are asked for."""

    user: str
    server: str
    state: State
    idle: float | None
    age: float | None
    policy: str
    why: str


@dataclass(frozen=True)
class Facts:
    """What the last poll saw of the Hub."""

    hub_version: str
    default: Policy
    states: Mapping[State, int]
    stops: Mapping[Reason, int]
    spread: tuple[Bar, ...]
    idle_limits: tuple[Bar, ...]
    age_limits: tuple[Bar, ...]
    most_idle: tuple[ServerRow, ...]
    servers_known: int

    @property
    def running(self) -> int:
        """Count all servers."""
        return sum(self.states.values())

    @property
    def idle_kept(self) -> int:
        """Count idle servers that are not to be stopped for it: exempt, or out of reach."""
        return max(0, self.states[State.IDLE] - self.stops[Reason.IDLE])


@dataclass(frozen=True)
class Count:
    """How often something came out, and what that means."""

    value: str
    meaning: str
    count: int


@dataclass(frozen=True)
class Culls:
    """What came of culling since the start."""

    stopped: tuple[tuple[str, Mapping[Reason, int]], ...]  # by policy
    spared: tuple[Count, ...]
    failed: tuple[Count, ...]
    asked: tuple[Count, ...]

    @property
    def total(self) -> int:
        """Count all servers that were stopped."""
        return sum(sum(reasons.values()) for _, reasons in self.stopped)


class Standing(StrEnum):
    """How it is with a scope."""

    GRANTED = "granted"
    MISSING = "missing"
    UNUSED = "not granted, not needed"
    UNKNOWN = "not known yet"


@dataclass(frozen=True)
class View:
    """The page, before it is put into HTML."""

    reading: Reading
    sight: Sight
    mode: str
    facts: Facts | None
    policies: tuple[PolicyRow, ...]
    culls: Culls | None  # None: nothing is ever stopped
    poll_failures: tuple[Count, ...]
    scopes: tuple[tuple[Scope, str, Standing], ...]
    asking: str
    refresh: int

    @property
    def why(self) -> str:
        """Say why the mode is what it is; not again what the page says of a failed poll."""
        if self.sight is Sight.FAILED and self.reading.gate is GateState.SUSPENDED:
            return "nothing is stopped until the Hub can be read again"
        return self.reading.why

    @property
    def title(self) -> str:
        """Say the one thing that a browser's tab has room for."""
        if self.sight is Sight.FAILED:
            return "Hub not seen"
        if self.facts is None:
            return "First poll"
        return f"{self.facts.states[State.IDLE]:,} idle of {self.facts.running:,}"


def view_of(reading: Reading) -> View:
    """Work out the page."""
    least, most = _REFRESH_SECONDS
    return View(
        reading=reading,
        sight=_sight(reading),
        mode=MODES[reading.gate],
        facts=_facts(reading),
        policies=_policies(reading),
        culls=None if reading.gate is GateState.OFF else _culls(reading.totals),
        poll_failures=_counted(UNREAD, reading.totals.poll_failures),
        scopes=_scopes(reading),
        asking=_asking(reading),
        refresh=int(max(least, min(most, reading.interval))),
    )


def _sight(reading: Reading) -> Sight:
    if reading.census is None:
        return Sight.FIRST if reading.error is None else Sight.FAILED
    age = reading.last_success_age or 0.0
    return Sight.STALE if age >= INTERVALS_UNTIL_STALE * reading.interval else Sight.FRESH


def _facts(reading: Reading) -> Facts | None:
    census = reading.census
    if census is None:
        return None
    states = {s: sum(census.servers.get((p.name, s), 0) for p in census.policies) for s in State}
    counts, default = census.candidate_counts, census.policies[-1]
    stops = {r: sum(counts.get((p.name, r), 0) for p in census.policies) for r in Reason}
    return Facts(
        hub_version=reading.hub_version or "",
        states=states,
        stops=stops,
        default=default,
        spread=spread_bars(census.idle, default.timeout),
        idle_limits=limit_bars(census.idle, IDLE_LIMITS, default.timeout),
        age_limits=limit_bars(census.age, AGE_LIMITS, default.max_age),
        most_idle=tuple(_server_row(one) for one in _most_idle(reading.judged)),
        servers_known=len(reading.judged),
    )


def spread_bars(spread: Spread, limit: float) -> tuple[Bar, ...]:
    """Give one bar a class of idle times; marked are those that lie past the limit whole."""
    edges = [0.0, *map(float, spread.bounds), None]
    longest, total = max(spread.counts), sum(spread.counts)
    return tuple(
        Bar((low, high), count, _part(count, longest), _part(count, total), (low or 0.0) >= limit)
        for low, high, count in zip(edges, edges[1:], spread.counts, strict=False)
    )


def limit_bars(spread: Spread, limits: Sequence[int], ours: float) -> tuple[Bar, ...]:
    """Give for each of the limits how many servers lie beyond it; marked is ours."""
    at_most = dict(zip(spread.bounds, spread.cumulative, strict=False))
    total = sum(spread.counts)
    beyond = {limit: total - at_most[limit] for limit in limits}
    return tuple(
        Bar((limit, None), n, _part(n, total), _part(n, total), limit == ours)
        for limit, n in beyond.items()
    )


def _part(count: int, whole: int) -> float:
    return count / whole if whole else 0.0


def _most_idle(judged: Sequence[Judged]) -> list[Judged]:
    return nlargest(MOST_SERVERS, judged, key=lambda one: one.verdict.idle or 0.0)


def _server_row(one: Judged) -> ServerRow:
    verdict = one.verdict
    why = f"past its {verdict.reason} limit" if verdict.reason else f"{verdict.spared}"
    policy = verdict.policy.name
    return ServerRow(one.user, one.server, verdict.state, verdict.idle, verdict.age, policy, why)


def _policies(reading: Reading) -> tuple[PolicyRow, ...]:
    """Give the policies that the facts were judged by; without facts those that hold now."""
    census = reading.census
    policies = reading.rules.policies if census is None else census.policies
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
        spared=_counted(SPARED, totals.withheld),
        failed=_counted(FAILED, totals.cull_failures),
        asked=_counted(SAID, totals.busy_checks),
    )


def _counted(meanings: Mapping[_Value, str], counts: Counts) -> tuple[Count, ...]:
    return tuple(Count(v, meaning, int(counts.get((v,), 0))) for v, meaning in meanings.items())


def _scopes(reading: Reading) -> tuple[tuple[Scope, str, Standing], ...]:
    asked = reading.last_success_age is not None or reading.totals.poll_failures.get((Cause.SCOPE,))
    known = any(reading.granted.values()) or bool(asked)
    needed = _needed(reading)
    return tuple(
        (scope, PURPOSE[scope], _standing(reading.granted[scope], scope in needed, known))
        for scope in Scope
    )


def _standing(granted: bool, needed: bool, known: bool) -> Standing:
    if granted:
        return Standing.GRANTED
    if not known:
        return Standing.UNKNOWN
    return Standing.MISSING if needed else Standing.UNUSED


def _needed(reading: Reading) -> set[Scope]:
    needed = {Scope.LIST_USERS, Scope.READ_SERVERS}
    if reading.rules.need_groups:
        needed.add(Scope.READ_GROUPS)
    if reading.gate is not GateState.OFF:
        needed.add(Scope.DELETE_SERVERS)
        if reading.busy_check != "off":
            needed |= {Scope.PROXY, Scope.TOKENS}
    return needed


def _asking(reading: Reading) -> str:
    """Say whether servers are asked before a stop."""
    if reading.gate is GateState.OFF:
        return "no: while monitoring no user's server is touched"
    if reading.busy_check == "off":
        return "no: --busy-check off, last_activity alone decides"
    if reading.asks:
        return "yes: each server is asked before it is stopped"
    if reading.last_success_age is None:
        return "not known before the first good poll"
    return "no: the token cannot (see its scopes), last_activity alone decides"
