"""How much of a list is asked for at once, and for how long the Hub is then left to others.

A Hub answers one request at a time: while it puts a page of a list together, everybody else waits.
"""

from collections.abc import Callable

from ..clocks import steady
from ..domain.labels import Operation

# Seconds that a page may keep the Hub busy: not much longer than other small requests do.
_PAGE_SECONDS = 0.010
# A smaller page hardly costs less: most of it is the request itself.
_FEWEST_USERS = 50
# Pages show that the Hub is up: an outage of a minute is to be noticed in the middle of a list.
_LONGEST_PAUSE = 5.0


class Throttle:
    """Bounds what the lists that all threads read cost everybody else at the Hub.

    Args:
        share: the most of the Hub's time to take, above 0; 1 is all of it.
        most_users: the most users a page.
        wait: waits so many seconds, or until the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        share: float,
        most_users: int,
        wait: Callable[[float], object],
        clock: Callable[[], float] = steady,
    ) -> None:
        self._share, self._most, self._wait, self._clock = share, most_users, wait, clock
        self._fewest = min(_FEWEST_USERS, most_users)
        self._sizes: dict[Operation, int] = {}
        self._not_before = 0.0

    def page_size(self, operation: Operation) -> int:
        """Return how many users the next page of such a list is to have."""
        return self._sizes.get(operation, self._fewest)

    def resize(self, operation: Operation, users: int, seconds: float) -> None:
        """Choose the size of the next page by what a page of so many users took."""
        fitting = users * _PAGE_SECONDS / max(seconds, 1e-6)
        self._sizes[operation] = int(min(max(fitting, self._fewest), self._most))

    def pause(self, until: float) -> None:
        """Leave the Hub to others after the page before, but not beyond `until` by our clock."""
        seconds = min(self._not_before, until) - self._clock()
        if seconds > 0:
            self._wait(seconds)

    def page_took(self, seconds: float) -> None:
        """Record that the Hub was busy so many seconds with a page."""
        pause = seconds / self._share - seconds
        self._not_before = self._clock() + min(pause, _LONGEST_PAUSE)
