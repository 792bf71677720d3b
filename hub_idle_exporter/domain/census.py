"""Count judged servers: states by policy, histograms of idle time and age, candidates."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from .model import Server, User
from .policy import Judge, Policy, Reason, Rules, State, Verdict

# Seconds. The usual limits (15 min ... 1 d) are all bounds, so that a dashboard can tell from the
# buckets how many servers such a limit would stop.
IDLE_BOUNDS = (60, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800)
AGE_BOUNDS = (900, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 604800, 1209600, 2592000)


class Judged(msgspec.Struct, frozen=True, gc=False):
    """One server with its verdict."""

    user: str
    server: str
    seen: Server
    verdict: Verdict


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
    """The counts of one poll; `candidates` are sorted, most idle first."""

    policies: tuple[Policy, ...]
    servers: Mapping[tuple[str, State], int]
    candidates: tuple[Judged, ...]
    idle: SecondsHistogram
    age: SecondsHistogram

    @classmethod
    def empty(cls, rules: Rules) -> "Census":
        """Return the census of a Hub without servers."""
        return take([], rules)

    @cached_property
    def candidate_counts(self) -> Mapping[tuple[str, Reason], int]:
        """Candidates by policy and reason, counted once for all scrapes."""
        verdicts = (judged.verdict for judged in self.candidates)
        return Counter((v.policy.name, v.reason) for v in verdicts if v.reason)


def judge_all(judge: Judge, users: Iterable[User], now: float) -> list[Judged]:
    """Judge every server in the list."""
    verdict = judge.verdict
    return [
        Judged(user.name, name, server, verdict(user, name, server, now))
        for user in users
        if (servers := user.servers)
        for name, server in servers.items()
    ]


def take(judged: Iterable[Judged], rules: Rules) -> Census:
    """Count judged servers; unknown idle times and ages are in no histogram."""
    judged = tuple(judged)
    candidates = [one for one in judged if one.verdict.reason]
    ready = [one.verdict for one in judged if one.verdict.state is not State.PENDING]
    return Census(
        policies=rules.policies,
        servers=Counter((one.verdict.policy.name, one.verdict.state) for one in judged),
        candidates=tuple(sorted(candidates, key=lambda one: -(one.verdict.idle or 0.0))),
        idle=SecondsHistogram.of((v.idle for v in ready if v.idle is not None), IDLE_BOUNDS),
        age=SecondsHistogram.of((v.age for v in ready if v.age is not None), AGE_BOUNDS),
    )


def idle_server_seconds(
    judged: Iterable[Judged], since_last: float, longest: float
) -> Mapping[str, float]:
    """Sum per policy the seconds that servers spent idle past their limit since the last poll.

    Args:
        judged: the servers of this poll.
        since_last: seconds since the last successful poll.
        longest: the most that one server may add, in seconds (three intervals).
    """
    spent: defaultdict[str, float] = defaultdict(float)
    for one in judged:
        verdict = one.verdict
        if verdict.state is State.IDLE and verdict.idle is not None:
            past = verdict.idle - verdict.policy.timeout
            spent[verdict.policy.name] += min(past, since_last, longest)
    return spent
