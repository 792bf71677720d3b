"""Bound what our requests cost everybody else at the Hub.

A Hub answers one request at a time: while it puts a page of a list together, everybody else waits,
and so they do while it works through what we send at once.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..clocks import steady
from ..domain.labels import Operation

# Seconds that a page may keep the Hub busy: not much longer than other small requests do.
_PAGE_SECONDS = 0.010
# Below this a page hardly gets cheaper: most of it is the request itself.
_FEWEST_USERS = 40
# Pages show that the Hub is up: an outage of a minute is to be noticed in the middle of a list.
_LONGEST_PAUSE = 5.0
# The Hub answers one request at a time, so more of them under way gain nothing. After a second one
# is sent anyway: those before it may hang.
_MOST_UNDER_WAY, _LONGEST_WAIT = 2, 1.0


class Throttle:
    """Bounds the size of pages, the time that lists take, and how many requests are under way.

    One instance serves all threads.

    Args:
        share: the most of the Hub's time to take, above 0; 1 is all of it.
        most_users: the most users a page.
        list_seconds: how long a list may take, with its pauses.
        wait: waits so many seconds, or until the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        share: float,
        most_users: int,
        list_seconds: float,
        wait: Callable[[float], object],
        clock: Callable[[], float] = steady,
    ) -> None:
        self._share, self._most, self._list_seconds = share, most_users, list_seconds
        self._wait, self._clock = wait, clock
        self._fewest = min(_FEWEST_USERS, most_users)
        self._sizes: dict[Operation, int] = {}
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._turns, self._own = threading.BoundedSemaphore(_MOST_UNDER_WAY), threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until few other requests of ours are under way, but not for long.

        A thread that has a turn does not wait for another one.
        """
        if getattr(self._own, "has_turn", False):
            yield
            return
        is_free = self._turns.acquire(timeout=_LONGEST_WAIT)
        self._own.has_turn = True
        try:
            yield
        finally:
            self._own.has_turn = False
            if is_free:
                self._turns.release()

    def page_size(self, operation: Operation) -> int:
        """Return how many users the next page of such a list is to have."""
        return self._sizes.get(operation, self._fewest)

    def resize(self, operation: Operation, users: int, seconds: float, total: int) -> None:
        """Choose the size of the next page by what a page of so many users took.

        A page is to be quick, but a list of `total` users must come to its end.
        """
        seconds = max(seconds, 1e-6)
        quick = users * _PAGE_SECONDS / seconds
        pages = self._list_seconds * self._share / seconds
        wanted = max(quick, total / pages, self._fewest)
        self._sizes[operation] = int(min(wanted, self._most))

    def pause(self, until: float) -> None:
        """Leave the Hub to others after the page before, but not beyond `until` by our clock."""
        seconds = min(self._not_before, until) - self._clock()
        if seconds > 0:
            self._wait(seconds)

    def page_took(self, seconds: float) -> None:
        """Record that the Hub was busy so many seconds with a page."""
        pause = min(seconds / self._share - seconds, _LONGEST_PAUSE)
        with self._lock:
            self._not_before = max(self._not_before, self._clock()) + pause
