"""The gate that all threads share: updated by each answer of the Hub, asked before each stop."""

import threading
import time
from collections.abc import Callable

from ..domain.gate import ClockReading, Gate, GateState
from ..domain.poll_state import LatestState, PollState


def read_clocks() -> ClockReading:
    """Read our clocks now."""
    return ClockReading(time.monotonic(), time.time())


class Gatekeeper:
    """A gate under a lock, together with the newest poll state.

    Args:
        enforce: whether `--enforce` is set.
        grace: seconds without stops after the start and after an outage.
        latest: what the last poll found.
        clocks: reads our clocks.
        orphaned: tells whether the Hub that started this process has ended.
    """

    def __init__(
        self,
        enforce: bool,
        grace: float,
        latest: LatestState,
        clocks: Callable[[], ClockReading] = read_clocks,
        orphaned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._latest, self._clocks, self._orphaned = latest, clocks, orphaned
        self._lock = threading.Lock()
        self._gate = Gate.at_start(enforce, grace, clocks())

    def hub_answered(self, hub_time: float | None) -> None:
        """Record that the Hub answered, and the time by its clock."""
        with self._lock:
            self._gate = self._gate.answered(self._clocks(), hub_time)

    def seconds_since_answer(self) -> float:
        """Tell how long ago the Hub last answered."""
        return self._clocks().monotonic - self._gate.last_answer

    def clock_skew(self) -> float | None:
        """Return the Hub's clock minus ours, in seconds; None before the Hub's was read."""
        return self._gate.clock_skew()

    def state(self, after: PollState | None = None) -> GateState:
        """Return the state now, given the newest poll state or another one."""
        return self._gate.state(self._clocks(), (after or self._latest.state).suspended_by)

    def why(self, after: PollState | None = None) -> str:
        """Explain the state in words."""
        return self._gate.why(self._clocks(), (after or self._latest.state).suspended_by)

    def closed(self) -> str | None:
        """Say why no stop may be sent right now; None if one may."""
        if self._orphaned():
            return "the Hub that started this exporter has ended"
        return None if self.state() is GateState.ON else self.why()
