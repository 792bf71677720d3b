"""Tells people about their servers, in the background: nothing here is ever waited for.

Notices wait in memory. One that a server will be stopped is tried until it was delivered or is
cancelled, since the stop waits for it; one that a server was stopped, three times.
"""

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

import structlog

from ..clocks import steady
from ..domain.labels import NotificationEvent, NotificationResult
from ..domain.messages import Words
from ..domain.text import printable
from .notify_file import NotifyFile
from .sender import Failure, Pace, Sender
from .target import Target

ATTEMPTS_AFTERWARDS = 3
_MOST_AFTERWARDS = 1000
_TICK = 1.0
_LONGEST_WHY = 300
log = structlog.get_logger()


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
class _Waiting:
    """A notice that has not been delivered, the targets that took it, and when it is tried."""

    notice: Notice
    delivered: Callable[[], None]
    due: float
    failures: int = 0
    problem: str | None = None
    took: set[str] = field(default_factory=set)

    @property
    def is_afterwards(self) -> bool:
        return self.notice.event is NotificationEvent.STOPPED

    def is_delivered(self, targets: tuple[Target, ...]) -> bool:
        """Tell whether a target counts as told: where some are personal, one of those."""
        personal = [target for target in targets if target.is_personal]
        return any(target.text in self.took for target in personal or targets)


class Notifier:
    """Sends notices from a thread of its own.

    Args:
        file: the targets.
        count: counts an attempt.
        stopping: set when the process is to end.
        clock: seconds that never jump.
        pace: how quickly and how patiently.
    """

    def __init__(
        self,
        file: NotifyFile,
        count: Callable[[NotificationEvent, NotificationResult], None],
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
        pace: Pace | None = None,
    ) -> None:
        self._file, self._count, self._stopping, self._clock = file, count, stopping, clock
        self._pace = pace or Pace()
        self._sender = Sender(self._pace, clock)
        self._waiting: dict[Hashable, _Waiting] = {}
        self._in_hand: _Waiting | None = None
        self._given_up = 0
        self._changed = threading.Condition()
        self._next_look = clock() + self._pace.look

    @property
    def error(self) -> str | None:
        """What is wrong with the current version of the notify file, None if it is valid."""
        return self._file.error

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._run, name="notifier", daemon=True).start()

    def tell(self, notice: Notice, delivered: Callable[[], None]) -> None:
        """Have a notice sent; `delivered` is called by the thread, once, unless it is cancelled."""
        with self._changed:
            if notice.key in self._waiting:
                return
            self._make_room(notice)
            self._waiting[notice.key] = _Waiting(notice, delivered, self._clock())
            self._changed.notify_all()

    def cancel(self, key: Hashable) -> None:
        """Do not send a notice, if it was not sent yet."""
        with self._changed:
            self._waiting.pop(key, None)
            self._changed.notify_all()

    def problem(self, key: Hashable) -> str | None:
        """Say on one line why the last attempt failed; None if none has."""
        with self._changed:
            waiting = self._waiting.get(key)
            return waiting.problem if waiting else None

    def undelivered(self) -> int:
        """Count the notices that wait for another attempt."""
        with self._changed:
            return sum(one.problem is not None for one in self._waiting.values())

    def drain(self, seconds: float) -> bool:
        """Wait until all notices were tried; tell whether all were delivered."""
        with self._changed:
            self._changed.wait_for(self._all_were_tried, seconds)
            return not self._waiting and not self._given_up

    def _all_were_tried(self) -> bool:
        waiting = self._waiting.values()
        return self._in_hand is None and all(one.problem is not None for one in waiting)

    def _make_room(self, notice: Notice) -> None:
        if notice.event is not NotificationEvent.STOPPED:
            return
        afterwards = [one for one in self._waiting.values() if one.is_afterwards]
        if len(afterwards) >= _MOST_AFTERWARDS:
            self._fail(afterwards[0], f"more than {_MOST_AFTERWARDS} wait")
            self._give_up(afterwards[0])

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look_at_file()
            waiting = self._next()
            if waiting is not None:
                self._attempt(waiting)
                with self._changed:
                    self._in_hand = None
                    self._changed.notify_all()

    def _look_at_file(self) -> None:
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + self._pace.look
        if self._file.refresh():
            if self._file.error is None:
                log.info("notify_file_reloaded", targets=len(self._file.value))
            else:
                log.error("notify_file_invalid", error=self._file.error, kept="the previous one")

    def _next(self) -> _Waiting | None:
        """Return the notice that is due first; wait a little if none is."""
        with self._changed:
            first = min(self._waiting.values(), key=lambda one: one.due, default=None)
            left = first.due - self._clock() if first else _TICK
            if left > 0:
                self._changed.wait(min(left, _TICK, self._pace.look))
                return None
            self._in_hand = first
            return first

    def _attempt(self, waiting: _Waiting) -> None:
        """Try all targets that have not taken a notice yet; after a success none again."""
        targets, words = self._file.value, waiting.notice.words()
        failures: dict[str, Failure] = {}
        for target in targets:
            if target.text in waiting.took:
                continue
            if not self._still_waits(waiting) or self._stopping.is_set():
                return
            failure = self._send(waiting, target, words)
            if failure is not None:
                failures[target.name] = failure
        if waiting.is_delivered(targets):
            self._settle(waiting)
        else:
            self._put_off(waiting, failures)

    def _send(self, waiting: _Waiting, target: Target, words: Words) -> Failure | None:
        """Send by one target; return how it failed, printable and without a secret."""
        notice = waiting.notice

        def took() -> None:
            waiting.took.add(target.text)

        found = self._sender.send(target, words, notice.user, notice.server, took)
        if found is None or found.was_tried:
            self._stopping.wait(self._pace.between)
        if found is None:
            return None
        why = printable(self._file.mask(found.why))[:_LONGEST_WHY]
        write = log.warning if found.was_tried else log.debug
        write(
            "notification_failed",
            notice=notice.event,
            user=notice.user,
            server=notice.server,
            target=target.name,
            why=why,
        )
        return Failure(why, found.was_tried)

    def _still_waits(self, waiting: _Waiting) -> bool:
        with self._changed:
            return self._waiting.get(waiting.notice.key) is waiting

    def _settle(self, waiting: _Waiting) -> None:
        """Forget a notice that was delivered, and tell so, unless it was cancelled meanwhile."""
        notice = waiting.notice
        self._count(notice.event, NotificationResult.SENT)
        log.info("notification_sent", notice=notice.event, user=notice.user, server=notice.server)
        if self._forget(waiting):
            waiting.delivered()

    def _put_off(self, waiting: _Waiting, failures: Mapping[str, Failure]) -> None:
        """Try again later, or give up; it was no attempt if no target could be tried."""
        why = "; ".join(f"{name}: {failure.why}" for name, failure in failures.items())
        self._fail(waiting, why, any(failure.was_tried for failure in failures.values()))
        if waiting.is_afterwards and waiting.failures >= ATTEMPTS_AFTERWARDS:
            self._give_up(waiting)

    def _fail(self, waiting: _Waiting, why: str, was_tried: bool = True) -> None:
        if was_tried:
            self._count(waiting.notice.event, NotificationResult.FAILED)
        with self._changed:
            waiting.failures += was_tried
            waiting.problem = why
            waiting.due = self._clock() + self._pace.pause_after(max(waiting.failures, 1))
            self._changed.notify_all()

    def _give_up(self, waiting: _Waiting) -> None:
        notice = waiting.notice
        log.error(
            "notification_given_up",
            user=notice.user,
            server=notice.server,
            why=waiting.problem,
        )
        self._given_up += 1
        self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> bool:
        """Forget a notice; tell whether it still waited."""
        with self._changed:
            waits = self._waiting.get(waiting.notice.key) is waiting
            if waits:
                del self._waiting[waiting.notice.key]
            self._changed.notify_all()
            return waits
