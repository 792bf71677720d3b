"""The notices that were not delivered yet, each with when it is tried next. Any thread may ask."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ..clocks import read_clocks
from ..domain.labels import NotificationEvent
from ..domain.messages import Words
from ..domain.notices import Undelivered
from .sender import Pace
from .target import Target

MOST_AFTERWARDS = 1000


@dataclass(frozen=True)
class Notice:
    """A message for one person; `words` are made at each attempt, since time passes.

    `key` tells notices apart: the same one again is ignored while it waits.
    """

    event: NotificationEvent
    user: str
    server: str
    key: Hashable
    words: Callable[[], Words]


@dataclass(eq=False)
class Waiting:
    """A notice that has not been delivered, the targets that took it, and when it is tried."""

    notice: Notice
    delivered: Callable[[], None]
    due: float
    failures: int = 0
    failing_since: float | None = None  # seconds since 1970
    problem: str | None = None
    took: set[str] = field(default_factory=set)

    @property
    def is_afterwards(self) -> bool:
        """Tell whether nothing depends on it, because the server was stopped already."""
        return self.notice.event is NotificationEvent.STOPPED

    def is_delivered(self, targets: tuple[Target, ...]) -> bool:
        """Tell whether a target counts as told: where some are personal, one of those."""
        personal = [target for target in targets if target.is_personal]
        return any(target.text in self.took for target in personal or targets)


class WaitingRoom:
    """The notices that wait; one at a time is in hand.

    Args:
        pace: the pauses between attempts.
        clock: seconds that never jump.
    """

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace, self._clock = pace, clock
        self._waiting: dict[Hashable, Waiting] = {}
        self._in_hand: Waiting | None = None
        self._changed = threading.Condition()

    def add(self, notice: Notice, delivered: Callable[[], None]) -> Waiting | None:
        """Let a notice wait, unless it does; return one that has to make room for it."""
        with self._changed:
            if notice.key in self._waiting:
                return None
            waiting = Waiting(notice, delivered, self._clock())
            crowded_out = self._oldest_of_too_many() if waiting.is_afterwards else None
            self._waiting[notice.key] = waiting
            self._changed.notify_all()
            return crowded_out

    def _oldest_of_too_many(self) -> Waiting | None:
        afterwards = [one for one in self._waiting.values() if one.is_afterwards]
        return afterwards[0] if len(afterwards) >= MOST_AFTERWARDS else None

    def cancel(self, key: Hashable) -> None:
        """Remove a notice."""
        with self._changed:
            self._waiting.pop(key, None)
            self._changed.notify_all()

    def take(self, seconds: float) -> Waiting | None:
        """Take the notice in hand that is due first; None if none is after a wait."""
        with self._changed:
            self._in_hand = None
            self._changed.notify_all()
            first = min(self._waiting.values(), key=lambda one: one.due, default=None)
            left = first.due - self._clock() if first else seconds
            if left > 0:
                self._changed.wait(min(left, seconds))
                return None
            self._in_hand = first
            return first

    def holds(self, waiting: Waiting) -> bool:
        """Tell whether a notice still waits: it may have been cancelled."""
        with self._changed:
            return self._waiting.get(waiting.notice.key) is waiting

    def forget(self, waiting: Waiting) -> bool:
        """Remove a notice; tell whether it still waited."""
        with self._changed:
            waits = self.holds(waiting)
            if waits:
                del self._waiting[waiting.notice.key]
            return waits

    def put_off(self, waiting: Waiting, why: str, was_tried: bool) -> None:
        """Let a notice wait for its next attempt."""
        with self._changed:
            waiting.failures += was_tried
            waiting.problem = why
            waiting.failing_since = waiting.failing_since or read_clocks().wall
            waiting.due = self._clock() + self._pace.pause_after(max(waiting.failures, 1))

    def problem(self, key: Hashable) -> str | None:
        """Say why the last attempt of a notice failed; None if none has."""
        with self._changed:
            waiting = self._waiting.get(key)
            return waiting.problem if waiting else None

    def undelivered(self) -> Undelivered:
        """Tell of the announcements whose last attempt failed."""
        with self._changed:
            before = [one for one in self._waiting.values() if not one.is_afterwards]
        since = [one.failing_since for one in before if one.failing_since is not None]
        return Undelivered(len(since), min(since, default=None))

    def is_empty_after(self, seconds: float) -> bool:
        """Wait, at most so long, until all notices were tried; tell whether none is left."""
        with self._changed:
            self._changed.wait_for(self._all_were_tried, seconds)
            return not self._waiting

    def _all_were_tried(self) -> bool:
        waiting = self._waiting.values()
        return self._in_hand is None and all(one.problem is not None for one in waiting)
