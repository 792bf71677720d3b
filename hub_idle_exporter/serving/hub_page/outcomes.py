"""What became of the form that a session sent last: shown on the page that it is led back to.

Kept here, not in the address, so that no link can put words into the page.
"""

from collections import OrderedDict
from dataclasses import dataclass

_MOST = 1000


@dataclass(frozen=True)
class Outcome:
    """What became of a wish, in a sentence; `good` if it was granted."""

    sentence: str
    good: bool = False


class Outcomes:
    """The newest outcome of each session, until it is shown."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, Outcome] = OrderedDict()

    def put(self, session: str, outcome: Outcome) -> None:
        """Keep an outcome; the oldest one gives way if there are too many."""
        self._of[session] = outcome
        self._of.move_to_end(session)
        if len(self._of) > _MOST:
            self._of.popitem(last=False)

    def take(self, session: str) -> Outcome | None:
        """Return the outcome of a session, once."""
        return self._of.pop(session, None)
