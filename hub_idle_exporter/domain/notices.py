"""Notices: with `--notice` a server is stopped only when it was announced that long before.

Each deadline is announced once. What moves the deadline (activity, a keep, a longer limit) makes
the announcement void, and the new deadline is announced when it is near. The maximum age is
announced too, but never held up by that. Times are the Hub's clock, in seconds since 1970.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

import msgspec

from .keeping import Start
from .policy import JudgedServer, Policy, Reason, State

# Deadlines are added up from parts of a second; activity moves them by more than this.
_SAME_SECONDS = 1.0


@dataclass(frozen=True)
class Announcement:
    """That people were told of a stop.

    `deadline` is when the server was to pass its limit, `due` when it is stopped at the earliest
    (as people were told), `announced` when they were told.
    """

    deadline: float
    due: float
    announced: float

    @classmethod
    def made(cls, deadline: float, notice: float, now: float) -> "Announcement":
        """Return an announcement made now."""
        return cls(deadline, max(deadline, now + notice), now)


@dataclass(frozen=True)
class Undelivered:
    """The announcements that could not be delivered yet.

    `since` is when the first attempt of the oldest failed, by our clock; None without any.
    """

    count: int = 0
    since: float | None = None


NoticeKey = tuple[Start, Reason]
Announcements = Mapping[NoticeKey, Announcement]


def key_of(one: JudgedServer, reason: Reason) -> NoticeKey:
    """Return what an announcement is about: one start of a server, and one of its limits."""
    return one.start, reason


def deadline(one: JudgedServer, reason: Reason, now: float) -> float:
    """Return when a server passes a limit unless it is used; infinite if that is not known."""
    policy = one.policy
    if reason is Reason.MAX_AGE:
        known = bool(policy.max_age) and one.age is not None
        return now + policy.max_age - (one.age or 0.0) if known else inf
    if one.idle is None:
        return inf
    left = policy.timeout - one.idle
    return now + (left if one.kept is None else max(left, one.kept))


def standing(
    found: Announcements, one: JudgedServer, reason: Reason, now: float
) -> Announcement | None:
    """Return the announcement that counts for a server's deadline as it is now."""
    made = found.get(key_of(one, reason))
    if made is None or deadline(one, reason, now) > made.deadline + _SAME_SECONDS:
        return None
    return made


def stop_from(made: Announcement, notice: float) -> float:
    """Return from when on a server may be stopped that was announced, by the notice of now."""
    return max(made.due, made.announced + notice)


def waits(policy: Policy, reason: Reason) -> float:
    """Return how long a stop is held up by its announcement; by age it is not, in seconds."""
    return policy.notice if reason is Reason.IDLE else 0.0


def near_limits(one: JudgedServer, now: float) -> Iterator[Reason]:
    """Yield the limits that a server has passed, or will have when its notice is over."""
    for reason in Reason:
        if one.reason is reason or deadline(one, reason, now) <= now + one.policy.notice:
            yield reason


def due_soon(one: JudgedServer) -> Iterator[JudgedServer]:
    """Yield a server as it will be judged when its notice has passed, for each of its limits.

    Nothing is yielded for a limit that it has passed already, or will not have passed by then.
    """
    policy, notice = one.policy, one.policy.notice
    if not notice or one.protection or one.state is State.PENDING or one.reason is Reason.MAX_AGE:
        return
    if policy.max_age and one.age is not None and one.age + notice >= policy.max_age:
        yield _as_candidate(one, Reason.MAX_AGE)
    is_due = one.idle is not None and one.idle + notice >= policy.timeout
    if is_due and one.reason is None and (one.kept or 0.0) <= notice:
        yield _as_candidate(one, Reason.IDLE)


def _as_candidate(one: JudgedServer, reason: Reason) -> JudgedServer:
    return msgspec.structs.replace(one, reason=reason, not_candidate=None, spared=None)


def stop_due(one: JudgedServer, found: Announcements, now: float) -> float | None:
    """Return when a server will be stopped unless it is used; None if it could be no candidate.

    That is the latest of its limit, the end of its keep, and its notice, or its maximum age. While
    the second opinion spares it, only its maximum age counts.
    """
    if one.protection is not None or one.state is State.PENDING:
        return None
    idle = deadline(one, Reason.IDLE, now) if one.spared is None else inf
    made = standing(found, one, Reason.IDLE, now)
    if made is not None:
        idle = max(idle, stop_from(made, one.policy.notice))
    first = min(idle, deadline(one, Reason.MAX_AGE, now))
    return None if first == inf else first
