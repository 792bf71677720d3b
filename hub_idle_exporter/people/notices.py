"""Announcing stops: who was told, when, and what became of it."""

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol

import structlog

from ..clocks import steady
from ..domain.notices import (
    Announcement,
    Announcements,
    NoticeKey,
    deadline,
    key_of,
    near_limits,
    standing,
    stop_from,
    waits,
)
from ..domain.policy import JudgedServer, Reason
from .state_file import StateFile, StateLostError

log = structlog.get_logger()


class Tells(Protocol):
    """Tells people; it never waits."""

    def due(
        self,
        server: JudgedServer,
        key: Hashable,
        left: Callable[[], float],
        told: Callable[[], None],
    ) -> None:
        """Tell of a stop in `left()` seconds, as soon as that is possible; then call `told`."""

    def stopped(self, server: JudgedServer) -> None:
        """Tell of a stop that was carried out."""

    def cancel(self, key: Hashable) -> None:
        """Tell no longer, unless that is done."""

    def problem(self, key: Hashable) -> str | None:
        """Say why somebody could not be told yet; None if nothing went wrong so far."""


class Notices:
    """Announces stops, and knows which servers may be stopped by now.

    Args:
        file: where announcements are remembered.
        tells: tells people.
        hub_time: reads the Hub's clock, in seconds since 1970.
        clock: our clock, which never jumps.
    """

    def __init__(
        self,
        file: StateFile,
        tells: Tells,
        hub_time: Callable[[], float],
        clock: Callable[[], float] = steady,
    ) -> None:
        self._file, self._tells = file, tells
        self._hub_time, self._clock = hub_time, clock
        self._told_at: dict[NoticeKey, float] = {}  # by our clock, since the start
        self._lock = threading.RLock()
        self._being_told: dict[NoticeKey, JudgedServer] = {}

    @property
    def announcements(self) -> Announcements:
        """Return what was announced."""
        return self._file.announcements

    def is_needed(self, server: JudgedServer, now: float) -> bool:
        """Tell whether a server, judged as a candidate, is to be announced yet."""
        reason = server.reason
        if not server.policy.notice or reason is None:
            return False
        with self._lock:
            if key_of(server, reason) in self._being_told:
                return False
        return standing(self.announcements, server, reason, now) is None

    def announce(self, server: JudgedServer, now: float) -> None:
        """Announce the stop of a server that is not in use; it counts once people were told."""
        reason = server.reason
        if reason is None or not self.is_needed(server, now):
            return
        key, until = key_of(server, reason), deadline(server, reason, now)
        wait = waits(server.policy, reason)
        with self._lock:
            self._being_told[key] = server

        def left() -> float:
            return max(until - self._hub_time(), wait)

        self._tells.due(server, key, left, lambda: self._told(key, until))

    def not_yet(self, server: JudgedServer, now: float) -> str | None:
        """Say why a candidate may not be stopped yet; None if it was announced long enough ago.

        The maximum age is not held up.
        """
        notice = server.policy.notice
        if not notice or server.reason is not Reason.IDLE:
            return None
        made = standing(self.announcements, server, Reason.IDLE, now)
        if made is None:
            problem = self._tells.problem(key_of(server, Reason.IDLE))
            why = f": {problem}" if problem else ""
            return f"nobody could be told of its stop yet{why}"
        left = max(stop_from(made, notice) - now, self._left_by_our_clock(server, notice))
        return f"its stop was announced, and is due in {left:.0f} s" if left > 0 else None

    def told_for(self, server: JudgedServer, now: float) -> float:
        """Return since how many seconds people know of the stop of a candidate; 0 if they do not.

        For so long the server must not have been used: else they were told of another deadline.
        """
        made = self.announcements.get(key_of(server, Reason.IDLE))
        return 0.0 if made is None else now - made.announced

    def _left_by_our_clock(self, server: JudgedServer, notice: float) -> float:
        """Return what is left of a notice by our clock: the Hub's may have jumped meanwhile."""
        told_at = self._told_at.get(key_of(server, Reason.IDLE))
        return 0.0 if told_at is None else told_at + notice - self._clock()

    def update(self, due: Iterable[JudgedServer], now: float) -> None:
        """Take back what was announced of servers that are not due any more, by the newest poll.

        Args:
            due: the candidates, and those that will be when their notice has passed.
            now: when they were judged.
        """
        near = {key_of(one, reason): one for one in due for reason in near_limits(one, now)}
        with self._lock:
            gone = [
                key
                for key in [*self.announcements, *self._being_told]
                if (one := near.get(key)) is None
                or (
                    key in self.announcements
                    and standing(self.announcements, one, key[1], now) is None
                )
            ]
            for key in gone:
                self._drop(key, "it is no longer due")

    def take_back(self, server: JudgedServer, why: str) -> None:
        """Take back what was announced of a server that turned out to be in use."""
        self._drop(key_of(server, Reason.IDLE), why)

    def stopped(self, server: JudgedServer) -> None:
        """Tell that a server was stopped; what was announced of it is over."""
        for reason in Reason:
            self._drop(key_of(server, reason), None)
        self._tells.stopped(server)

    def _told(self, key: NoticeKey, until: float) -> None:
        """Remember an announcement, unless it was taken back while people were told."""
        with self._lock:
            server = self._being_told.pop(key, None)
            if server is None:
                return
            now = self._hub_time()
            made = Announcement.made(until, waits(server.policy, key[1]), now)
            try:
                self._file.save_announcement(key, made)
            except StateLostError as error:  # announced anew when the file works again
                log.warning("announcement_not_saved", **_who(key), error=str(error))
                return
            self._told_at[key] = self._clock()
        seconds = made.due - now
        log.info("stop_announced", **_who(key), policy=server.policy.name, due_seconds=seconds)

    def _drop(self, key: NoticeKey, why: str | None) -> None:
        with self._lock:
            known = self._being_told.pop(key, None) is not None or key in self.announcements
            self._told_at.pop(key, None)
            if key in self.announcements:
                self._file.drop_announcement(key)
            if known:  # before it can be announced anew: that would be cancelled
                self._tells.cancel(key)
        if known and why is not None:
            log.info("announcement_taken_back", **_who(key), why=why)


def _who(key: NoticeKey) -> dict[str, object]:
    (user, server, _), reason = key
    return {"user": user, "server": server, "reason": str(reason)}
