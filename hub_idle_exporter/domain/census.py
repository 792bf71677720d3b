"""Count judged servers: states by policy, histograms of idle time and age, candidates."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from .model import User
from .policy import WITHIN_LIMITS, Judge, JudgedServer, Policy, Reason, Rules, State

# Seconds. The usual limits (15 min ... 1 d) are all bounds, so that a dashboard can tell from the
# buckets how many servers such a limit would stop.
IDLE_BOUNDS = (60, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800)
AGE_BOUNDS = (900, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800, 1209600, 2592000)


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
class Census:
    """Servers judged and counted.

    `past_limit` are those past a limit, candidates or not, the most idle first; `named` are all,
    only where they are kept for series by server and for lists.
    """

    policies: tuple[Policy, ...]
    servers: Mapping[tuple[str, State], int]
    idle: SecondsHistogram
    age: SecondsHistogram
    past_limit: tuple[JudgedServer, ...]
    idle_kept: int  # idle, and no candidates
    named: tuple[JudgedServer, ...] = ()

    @cached_property
    def candidates(self) -> tuple[JudgedServer, ...]:
        """Give what is to be stopped, the most idle first."""
        return tuple(one for one in self.past_limit if one.reason)

    @cached_property
    def candidate_counts(self) -> Mapping[tuple[str, Reason], int]:
        """Candidates by policy and reason, counted once for all scrapes."""
        return Counter((one.policy.name, one.reason) for one in self.candidates if one.reason)

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
    past_limit, named = list[JudgedServer](), list[JudgedServer]()
    pending = State.PENDING
    for one in judged:
        counts[one.policy.name, one.state] += 1
        if one.state is not pending:
            if one.idle is not None:
                idle.append(one.idle)
            if one.age is not None:
                age.append(one.age)
        if one.not_candidate not in WITHIN_LIMITS:
            past_limit.append(one)
        if keep_all:
            named.append(one)
    return Census(
        policies=rules.policies,
        servers=dict(counts),
        idle=SecondsHistogram.of(idle, IDLE_BOUNDS),
        age=SecondsHistogram.of(age, AGE_BOUNDS),
        past_limit=tuple(sorted(past_limit, key=lambda one: -(one.idle or 0.0))),
        idle_kept=sum(one.state is State.IDLE and not one.reason for one in past_limit),
        named=tuple(named),
    )


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
