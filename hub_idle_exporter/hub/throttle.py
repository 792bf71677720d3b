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
PAGE_SECONDS = 0.010
# Below this a page hardly gets cheaper: most of it is the request itself.
_FEWEST_USERS = 30
# Pages show that the Hub is up: an outage of a minute is to be noticed in the middle of a list.
_LONGEST_PAUSE = 5.0
# The Hub answers one request at a time, so more of them under way gain nothing. After a second one
# is sent anyway: those before it may hang.
_MOST_UNDER_WAY, _LONGEST_WAIT = 2, 1.0


class Throttle:
    """Bounds the size of pages, and the share of the Hub's time that lists take.

    One instance serves all threads.

    Args:
        share: the most of the Hub's time to take, above 0; 1 is all of it.
        most_users: the most users a page.
        list_seconds: how long a list is to take, pauses included; after that it has none.
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
        self._share, self._most, self.list_seconds = share, most_users, list_seconds
        self._wait, self.clock = wait, clock
        self._fewest = min(_FEWEST_USERS, most_users)
        self._sizes: dict[Operation, int] = {}
        self._took: dict[Operation, float] = {}
        self._not_before = 0.0
        self._lock = threading.Lock()

    def page_size(self, operation: Operation) -> int:
        """Return how many users the next page of such a list is to have."""
        return self._sizes.get(operation, self._fewest)

    def resize(self, operation: Operation, users: int, seconds: float, total: int) -> None:
        """Choose the size of the next page by what a page of so many users took.

        A page is to be quick: one that took long makes the next one smaller. But where two in a
        row took long, a list of `total` users must be made of fewer pages to come to its end.
        """
        seconds = max(seconds, 1e-6)
        before, self._took[operation] = self._took.get(operation, 1e-6), seconds
        quick = users * PAGE_SECONDS / seconds
        pages = self.list_seconds * self._share / min(seconds, before)
        wanted = max(quick, total / pages, self._fewest)
        self._sizes[operation] = int(min(wanted, self._most))

    def pause(self, until: float) -> float:
        """Leave the Hub to others after the page before, but not beyond `until` by our clock.

        Return for how many seconds.
        """
        begun = self.clock()
        seconds = min(self._not_before, until) - begun
        if seconds > 0:
            self._wait(seconds)
        return self.clock() - begun

    def page_took(self, seconds: float) -> None:
        """Record that the Hub was busy so many seconds with a page."""
        pause = seconds / self._share - seconds
        with self._lock:
            now = self.clock()
            # What a list had no time to wait for is not put on the next one.
            self._not_before = min(max(self._not_before, now) + pause, now + _LONGEST_PAUSE)


class ListTime:
    """The time of one list: from now on so many seconds, and pauses besides.

    Args:
        throttle: whose pauses are made.
        seconds: for all pages, pauses not counted.
        pausing: for how long there are pauses at most.
    """

    def __init__(self, throttle: Throttle, seconds: float, pausing: float) -> None:
        now = throttle.clock()
        self._throttle, self._ends = throttle, now + seconds
        self._pauses_end = now + min(pausing, throttle.list_seconds)

    def left_after_pause(self) -> float:
        """Make a pause if there is to be one; return the seconds left for the next page."""
        self._ends += self._throttle.pause(self._pauses_end)
        return self._ends - self._throttle.clock()


class Turns:
    """Bounds how many small requests are under way; one instance serves all threads."""

    def __init__(self) -> None:
        self._free, self._own = threading.BoundedSemaphore(_MOST_UNDER_WAY), threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until few other requests of ours are under way, but not for long.

        A thread that has a turn does not wait for another one.
        """
        if getattr(self._own, "has_turn", False):
            yield
            return
        is_free = self._free.acquire(timeout=_LONGEST_WAIT)
        self._own.has_turn = True
        try:
            yield
        finally:
            self._own.has_turn = False
            if is_free:
                self._free.release()
