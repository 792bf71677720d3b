"""Delivers to one target at a time, for a bounded time: none can hold up the others."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..domain.messages import Words
from .target import Target


@dataclass(frozen=True)
class Pace:
    """How quickly notices are sent, and how patiently, in seconds.

    Args:
        between: between two deliveries, for the sake of mail servers.
        patience: for one delivery; timeouts of Apprise are for each answer, and add up.
        slow: a target that fails after so long rests, since each attempt holds up others.
        first_pause: before the second attempt, and the first rest.
        longest_pause: pauses double up to this.
        look: how often the notify file is read.
    """

    between: float = 0.2
    patience: float = 40.0
    slow: float = 5.0
    first_pause: float = 30.0
    longest_pause: float = 600.0
    look: float = 10.0

    def pause_after(self, failures: int) -> float:
        """Return the pause after so many failures in a row."""
        return min(self.first_pause * 2.0 ** min(failures - 1, 20), self.longest_pause)


@dataclass(frozen=True)
class Failure:
    """Why a target did not take a notice, and whether it was tried."""

    why: str
    was_tried: bool = True


class _Line:
    """What is known of a target: a delivery that has not ended, and until when it rests."""

    def __init__(self) -> None:
        self.under_way: threading.Thread | None = None
        self.slow_failures, self.rests_until, self.why = 0, 0.0, ""


class Sender:
    """Sends through targets. A delivery that takes too long is left to itself.

    Meanwhile nothing else is sent to its target, so there is at most one thread for each.
    """

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace, self._clock = pace, clock
        self._lines: dict[str, _Line] = {}

    def send(
        self, target: Target, words: Words, user: str, server: str, took: Callable[[], None]
    ) -> Failure | None:
        """Send; return how it failed. `took` is called on success, perhaps after the return."""
        line = self._lines.setdefault(target.text, _Line())
        if line.under_way is not None and line.under_way.is_alive():
            return Failure("an earlier delivery has not ended yet", was_tried=False)
        began = self._clock()
        if began < line.rests_until:
            return Failure(f"not tried again yet: {line.why}", was_tried=False)
        why = self._deliver(line, lambda: target.send(words, user, server), took)
        self._let_rest(line, why, self._clock() - began)
        return Failure(why) if why is not None else None

    def _deliver(
        self, line: _Line, send: Callable[[], str | None], took: Callable[[], None]
    ) -> str | None:
        patience = self._pace.patience
        result: list[str | None] = []

        def deliver() -> None:
            result.append(send())
            if result[0] is None:
                took()

        line.under_way = threading.Thread(target=deliver, name="notice", daemon=True)
        line.under_way.start()
        line.under_way.join(patience)
        return result[0] if result else f"it took longer than {patience:g} s"

    def _let_rest(self, line: _Line, why: str | None, seconds: float) -> None:
        if why is None or seconds < self._pace.slow:
            line.slow_failures = 0
            return
        line.slow_failures += 1
        line.why = why
        line.rests_until = self._clock() + self._pace.pause_after(line.slow_failures)
