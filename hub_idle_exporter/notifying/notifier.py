"""Tells people about their servers, in the background: nothing here is ever waited for.

Notices wait in memory. One that a server will be stopped is tried until it was delivered or is
cancelled, since the stop waits for it; one that a server was stopped, three times.
"""

import threading
from collections.abc import Callable, Hashable, Mapping

import structlog

from ..clocks import steady
from ..domain.labels import NotificationEvent, NotificationResult
from ..domain.messages import Words
from ..domain.notices import Undelivered
from ..domain.text import printable
from .notify_file import NotifyFile
from .sender import Failure, Pace, Sender
from .target import Target
from .waiting import MOST_AFTERWARDS, Notice, Waiting, WaitingRoom

ATTEMPTS_AFTERWARDS = 3
_TICK = 1.0
_LONGEST_WHY = 300
log = structlog.get_logger()


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
        self._room = WaitingRoom(self._pace, clock)
        self._given_up = 0
        self._next_look = clock() + self._pace.look

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._run, name="notifier", daemon=True).start()

    def tell(self, notice: Notice, delivered: Callable[[], None]) -> None:
        """Have a notice sent; `delivered` is called by the thread, once, unless it is cancelled."""
        crowded_out = self._room.add(notice, delivered)
        if crowded_out is not None:
            self._count(crowded_out.notice.event, NotificationResult.FAILED)
            self._give_up(crowded_out, f"more than {MOST_AFTERWARDS} wait")

    def cancel(self, key: Hashable) -> None:
        """Do not send a notice, if it was not sent yet."""
        self._room.cancel(key)

    def problem(self, key: Hashable) -> str | None:
        """Say on one line why the last attempt failed; None if none has."""
        return self._room.problem(key)

    def undelivered(self) -> Undelivered:
        """Tell of the announcements whose last attempt failed."""
        return self._room.undelivered()

    def drain(self, seconds: float) -> bool:
        """Wait until all notices were tried; tell whether all were delivered."""
        return self._room.is_empty_after(seconds) and not self._given_up

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look_at_file()
            waiting = self._room.take(min(_TICK, self._pace.look))
            if waiting is not None:
                self._attempt(waiting)

    def _look_at_file(self) -> None:
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + self._pace.look
        if self._file.refresh():
            if self._file.error is None:
                log.info("notify_file_reloaded", targets=len(self._file.value))
            else:
                log.error("notify_file_invalid", error=self._file.error, kept="the previous one")

    def _attempt(self, waiting: Waiting) -> None:
        """Try all targets that have not taken a notice yet; after a success none again."""
        targets, words = self._file.value, waiting.notice.words()
        failures: dict[str, Failure] = {}
        for target in targets:
            if target.text in waiting.took:
                continue
            if not self._room.holds(waiting) or self._stopping.is_set():
                break
            failure = self._send(waiting, target, words)
            if failure is not None:
                failures[target.name] = failure
        if waiting.is_delivered(targets):
            self._settle(waiting)
        else:
            self._put_off(waiting, failures)

    def _send(self, waiting: Waiting, target: Target, words: Words) -> Failure | None:
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

    def _settle(self, waiting: Waiting) -> None:
        """Forget a notice that was delivered, and tell so, unless it was cancelled meanwhile."""
        notice = waiting.notice
        self._count(notice.event, NotificationResult.SENT)
        log.info("notification_sent", notice=notice.event, user=notice.user, server=notice.server)
        if self._room.forget(waiting):
            waiting.delivered()

    def _put_off(self, waiting: Waiting, failures: Mapping[str, Failure]) -> None:
        """Try again later, or give up; it was no attempt if no target could be tried."""
        why = "; ".join(f"{name}: {failure.why}" for name, failure in failures.items())
        was_tried = any(failure.was_tried for failure in failures.values())
        if was_tried:
            self._count(waiting.notice.event, NotificationResult.FAILED)
        self._room.put_off(waiting, why, was_tried)
        if waiting.is_afterwards and waiting.failures >= ATTEMPTS_AFTERWARDS:
            self._give_up(waiting, why)

    def _give_up(self, waiting: Waiting, why: str) -> None:
        notice = waiting.notice
        log.error("notification_given_up", user=notice.user, server=notice.server, why=why)
        self._given_up += 1
        self._room.forget(waiting)
