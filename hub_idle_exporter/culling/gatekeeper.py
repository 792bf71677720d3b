"""The gate that all threads share: updated by each answer of the Hub, asked before each stop."""

import threading
from collections.abc import Callable

from ..clocks import read_clocks
from ..domain.gate import ClockReading, Gate, GateReading, GateState
from ..domain.poll_state import LatestState, PollState


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

    def read(self, after: PollState | None = None) -> GateReading:
        """Return the state now and why, given the newest poll state or another one."""
        return self._gate.read(self._clocks(), (after or self._latest.state).suspended_by)

    def state(self, after: PollState | None = None) -> GateState:
        """Return the state alone."""
        return self.read(after).state

    def closed(self) -> str | None:
        """Say why no stop may be sent right now; None if one may."""
        if self._orphaned():
            return "the Hub that started this exporter has ended"
        now = self.read()
        return None if now.state is GateState.ON else now.why
