"""How quickly the Hub answers: on a slow one, what is good for seconds must be good for longer."""

from collections import deque
from collections.abc import Callable

from ..clocks import steady

# Of the answers of the last two minutes; a pause of the Hub, or of ours, makes a few of them slow.
_SECONDS, _MOST, _LEAST = 120.0, 100, 3


class Pace:
    """The quickest answer of late; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = steady) -> None:
        self._clock = clock
        self._answers: deque[tuple[float, float]] = deque(maxlen=_MOST)  # when, seconds

    def answered(self, seconds: float) -> None:
        """Record that an answer took so many seconds."""
        self._answers.append((self._clock(), seconds))

    def quickest(self) -> float:
        """Return the seconds of the quickest answer of late; 0 if there were too few to tell."""
        since = self._clock() - _SECONDS
        recent = [seconds for when, seconds in list(self._answers) if when >= since]
        return min(recent) if len(recent) >= _LEAST else 0.0
