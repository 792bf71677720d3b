"""Count judged servers: states by policy, histograms of idle time and age, candidates.

Also answers what another `--timeout` would do, and which servers reach their limit next.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappush, heapreplace
from math import inf

from .labels import Withheld
from .model import User
from .notices import due_soon
from .policy import WITHIN_LIMITS, Judge, JudgedServer, Policy, Reason, Rules, State

# Seconds. The usual limits (15 min ... 1 d) are all bounds.
IDLE_BOUNDS = (60, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800)
AGE_BOUNDS = (900, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800, 1209600, 2592000)
# The values of `--timeout` for which it is told how many servers they would stop, in seconds.
LIMITS = (900, 1800, 3600, 7200, 14400, 28800, 86400)
# How many of the servers that reach their limit next are kept.
MOST_NEXT = 10


@dataclass(frozen=True)
class SecondsHistogram:
    """Counts of values by range; the last of `counts` is for those over every bound (seconds)."""

    bounds: tuple[int, ...]
    counts: tuple[int, ...]
    total_seconds: float

    @classmethod
    def of(cls, values: Iterable[float], bounds: tuple[int, ...]) -> "SecondsHistogram":
        """Count values; one that equals a bound belongs below it (`le`)."""
        ordered = sorted(values)
        below = [bisect_right(ordered, bound) for bound in bounds] + [len(ordered)]
        counts = [high - low for low, high in zip([0, *below], below, strict=False)]
        return cls(bounds, tuple(counts), sum(ordered))

    @property
    def cumulative(self) -> list[int]:
        """Return the number of values at or below each bound, and finally of all."""
        sums, running = [], 0
        for count in self.counts:
            running += count
            sums.append(running)
        return sums


@dataclass(frozen=True)
class NextServer:
    """A server that will be past a limit in `seconds` unless it is used; its limit is `reason`."""

    seconds: float
    reason: Reason
    judged: JudgedServer


@dataclass(frozen=True)
class Census:
    """Servers judged and counted.

    `idle_past` are the idle times of those that count as idle. `past_limit` are those past a limit,
    candidates or not, and `named` all, only where they are kept for series by server and for lists;
    both the most idle first. `over_limit` tells for each of `LIMITS` how many candidates there
    would be if that were the `--timeout`; `next_due` are the first that will become candidates, and
    `due_soon` those that are to be announced by now, judged as they will be when they are due.
    `kept` counts by policy those that people keep.
    """

    policies: tuple[Policy, ...]
    servers: Mapping[tuple[str, State], int]
    idle: SecondsHistogram
    idle_past: SecondsHistogram
    age: SecondsHistogram
    past_limit: tuple[JudgedServer, ...]
    idle_kept: int  # idle, and no candidates
    over_limit: Mapping[int, int]
    next_due: tuple[NextServer, ...]
    due_soon: tuple[JudgedServer, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)
    named: tuple[JudgedServer, ...] = ()

    @cached_property
    def candidates(self) -> tuple[JudgedServer, ...]:
        """Give what is to be stopped, the most idle first."""
        return tuple(one for one in self.past_limit if one.reason)

    @cached_property
    def candidate_counts(self) -> Mapping[tuple[str, Reason], int]:
        """Candidates by policy and reason, counted once for all scrapes."""
        return Counter((one.policy.name, one.reason) for one in self.candidates if one.reason)

    @cached_property
    def would_stop(self) -> Mapping[tuple[str, Reason], int]:
        """Count by policy and reason the candidates that nothing known spares."""
        return Counter(
            (one.policy.name, one.reason)
            for one in self.candidates
            if one.reason and one.would_stop
        )

    @cached_property
    def spared(self) -> Mapping[tuple[str, Withheld], int]:
        """Count by policy and cause the candidates that the second opinion spares."""
        return Counter(
            (one.policy.name, one.spared.cause) for one in self.candidates if one.spared is not None
        )

    @property
    def total(self) -> int:
        """Count all servers."""
        return sum(self.servers.values())


def judge_all(judge: Judge, users: Iterable[User], now: float) -> Iterator[JudgedServer]:
    """Judge every server that the list shows; `now` is the Hub's clock, seconds since 1970."""
    verdict = judge.verdict
    return (
        verdict(user, name, server, now)
        for user in users
        if (servers := user.servers)
        for name, server in servers.items()
    )


def census_of(judged: Iterable[JudgedServer], rules: Rules, keep_all: bool = False) -> Census:
    """Count judged servers in one pass; unknown idle times and ages are in no histogram.

    Only those past a limit are kept, unless it is to `keep_all`: on a large Hub to keep ten
    thousand others from poll to poll costs as much as judging them.
    """
    counts = defaultdict[tuple[str, State], int](int)
    idle, age = list[float](), list[float]()
    past_limit, kept = list[JudgedServer](), Counter[str]()
    movable, soonest = list[float](), _Soonest(MOST_NEXT)
    pending, too_old = State.PENDING, Reason.MAX_AGE
    servers = list(judged) if keep_all else judged
    for one in servers:
        counts[one.policy.name, one.state] += 1
        if one.state is not pending:
            if one.idle is not None:
                idle.append(one.idle)
                policy = one.policy
                if not (one.protection or one.kept or policy.own_timeout or one.reason is too_old):
                    movable.append(one.idle)
            if one.age is not None:
                age.append(one.age)
        if one.kept is not None:
            kept[one.policy.name] += 1
        if one.not_candidate not in WITHIN_LIMITS:
            past_limit.append(one)
        if one.reason is not too_old and one.state is not pending and one.protection is None:
            policy = one.policy
            # Asked here, because a call for each of ten thousand servers takes as long as the rest.
            near = policy.timeout - (one.idle or 0.0) < soonest.within
            if near or policy.max_age or policy.notice:
                soonest.offer(one)
    return Census(
        policies=rules.policies,
        servers=dict(counts),
        idle=SecondsHistogram.of(idle, IDLE_BOUNDS),
        idle_past=SecondsHistogram.of(_idle_times(past_limit), IDLE_BOUNDS),
        age=SecondsHistogram.of(age, AGE_BOUNDS),
        past_limit=_most_idle_first(past_limit),
        idle_kept=sum(one.state is State.IDLE and not one.reason for one in past_limit),
        over_limit=_over_limit(movable, past_limit),
        next_due=soonest.in_order(),
        due_soon=tuple(soonest.to_announce),
        kept=dict(kept),
        named=_most_idle_first(servers if keep_all else ()),
    )


def _most_idle_first(judged: Iterable[JudgedServer]) -> tuple[JudgedServer, ...]:
    return tuple(sorted(judged, key=lambda one: -(one.idle or 0.0)))


def _idle_times(past_limit: Iterable[JudgedServer]) -> Iterator[float]:
    """Give the idle times of those that are past their idle limit, not only past their max age."""
    return (one.idle for one in past_limit if one.state is State.IDLE and one.idle is not None)


def _over_limit(movable: list[float], past_limit: Iterable[JudgedServer]) -> Mapping[int, int]:
    """Count for each limit what it would make candidates, as `--timeout`.

    `movable` are the idle times of those whose limit it would be. Of `past_limit` those stay
    candidates whatever it is that are too old, or past a limit of their policy's own.
    """
    movable.sort()
    anyway = sum(
        one.reason is Reason.MAX_AGE or (one.reason is Reason.IDLE and one.policy.own_timeout)
        for one in past_limit
    )
    return {limit: anyway + len(movable) - bisect_left(movable, limit) for limit in LIMITS}


@dataclass
class _Soonest:
    """Keeps the few servers that will be past a limit next, of all that are offered.

    Only those that are closer than `within` seconds have a chance. All that are to be announced by
    now are in `to_announce`.
    """

    most: int
    to_announce: list[JudgedServer] = field(default_factory=list)
    within: float = inf
    _heap: list[tuple[float, int, Reason, JudgedServer]] = field(default_factory=list)
    _offered: int = 0

    def offer(self, one: JudgedServer) -> None:
        """Take a server that nothing protects, and that is not past its maximum age."""
        self.to_announce.extend(due_soon(one))
        left, reason = _nearest_limit(one)
        if left >= self.within or one.reason is not None:
            return
        self._offered += 1  # so that servers themselves are never compared
        entry = (-left, self._offered, reason, one)
        if len(self._heap) < self.most:
            heappush(self._heap, entry)
        else:
            heapreplace(self._heap, entry)
        if len(self._heap) == self.most:
            self.within = -self._heap[0][0]

    def in_order(self) -> tuple[NextServer, ...]:
        """Give them, the next one first."""
        ordered = sorted(self._heap, key=lambda entry: -entry[0])
        return tuple(NextServer(-left, reason, one) for left, _, reason, one in ordered)


def _nearest_limit(one: JudgedServer) -> tuple[float, Reason]:
    """Tell how many seconds a server is away from a limit, and which; infinite if unknown."""
    left, policy = inf if one.idle is None else one.policy.timeout - one.idle, one.policy
    if one.kept is not None:
        left = max(left, one.kept)
    if policy.max_age and one.age is not None and policy.max_age - one.age <= left:
        return policy.max_age - one.age, Reason.MAX_AGE
    return left, Reason.IDLE


def idle_server_seconds(
    judged: Iterable[JudgedServer], since_last: float, longest: float
) -> Mapping[str, float]:
    """Sum per policy the seconds that servers spent idle past their limit since the last poll.

    Args:
        judged: the servers of this poll.
        since_last: seconds since the last successful poll.
        longest: the most that one server may add, in seconds (three intervals).
    """
    spent: defaultdict[str, float] = defaultdict(float)
    for one in judged:
        if one.state is State.IDLE and one.idle is not None:
            past = one.idle - one.policy.timeout
            spent[one.policy.name] += min(past, since_last, longest)
    return spent
