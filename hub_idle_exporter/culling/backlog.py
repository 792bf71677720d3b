"""Which candidate is next: the most idle first, and no user keeps the workers from the others."""

import threading
from collections import Counter, deque

from ..domain.policy import JudgedServer
from .cull_pass import CullPass

Item = tuple[CullPass, JudgedServer]


class Backlog:
    """The candidates of all passes that wait for a worker.

    One user's servers occupy at most `share` workers. If one of them does not answer when it is
    asked, or answers too slowly, the user's other servers go to the end of the line: a user may
    have sixty that hang.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._waiting: deque[Item] = deque()
        self._working: Counter[str] = Counter()
        self._changed = threading.Condition()

    def add(self, current: CullPass, candidates: list[JudgedServer]) -> None:
        """Add the candidates of a pass, most idle first."""
        with self._changed:
            self._waiting.extend((current, candidate) for candidate in candidates)
            self._changed.notify_all()

    def take(self) -> Item:
        """Wait for the next candidate that may be worked on."""
        with self._changed:
            while (found := self._eligible()) is None:
                self._changed.wait()
            self._waiting.remove(found)
            self._working[found[1].user] += 1
            return found

    def done(self, user: str, quick: bool) -> None:
        """Record that a worker is done with a server of a user, and whether that was quick."""
        with self._changed:
            self._working[user] -= 1
            if not self._working[user]:
                del self._working[user]
            if not quick:
                hanging = [item for item in self._waiting if item[1].user == user]
                others = [item for item in self._waiting if item[1].user != user]
                self._waiting = deque([*others, *hanging])
            self._changed.notify_all()

    def drop(self, current: CullPass) -> list[JudgedServer]:
        """Take out what is left of a pass."""
        with self._changed:
            left = [candidate for one, candidate in self._waiting if one is current]
            self._waiting = deque(item for item in self._waiting if item[0] is not current)
            return left

    def _eligible(self) -> Item | None:
        for current, candidate in self._waiting:
            if self._working[candidate.user] < self._share and current.claim_room():
                return current, candidate
        return None
