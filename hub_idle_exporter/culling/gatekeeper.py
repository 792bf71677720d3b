"""Keeps the one gate that all threads share: hands it what was seen, asks it before each stop."""

import threading
import time
from collections.abc import Callable

from ..domain.gate import Gate, GateState, Moment


def read_clocks() -> Moment:
    """Read our clocks now."""
    return Moment(time.monotonic(), time.time())


class Gatekeeper:
    """A gate under a lock; the clocks and the look at the parent process are arguments.

    Args:
        enforce: whether stops are wanted at all.
        grace: seconds without stops after the start and after an outage.
        clocks: reads our clocks.
        orphaned: tells whether the Hub that started this process is gone.
    """

    def __init__(
        self,
        enforce: bool,
        grace: float,
        clocks: Callable[[], Moment] = read_clocks,
        orphaned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clocks, self._orphaned = clocks, orphaned
        self._lock = threading.Lock()
        self._gate = Gate.at_start(enforce, grace, clocks())

    def hub_answered(self, hub_time: float | None) -> None:
        """Note that the Hub answered, and what its clock said."""
        with self._lock:
            self._gate = self._gate.answered(self._clocks(), hub_time)

    def poll_ended(self, *obstacles: str) -> None:
        """Note the end of a poll, and what it found against stopping anything."""
        with self._lock:
            self._gate = self._gate.after_poll(obstacles)

    def seconds_since_answer(self) -> float:
        """Tell how long the Hub has not been seen."""
        return self._clocks().monotonic - self._gate.seen

    def state(self) -> GateState:
        """Tell the state now."""
        return self._gate.state(self._clocks())

    def why(self) -> str:
        """Say in words why the state is what it is."""
        return self._gate.why(self._clocks())

    def closed(self) -> str | None:
        """Say why nothing may be stopped at this very moment; None when a stop may be sent."""
        if self._orphaned():
            return "the Hub that started this process is gone"
        return None if self.state() is GateState.ON else self.why()
