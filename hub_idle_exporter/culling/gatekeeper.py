"""The gate that all threads share: updated by each answer of the Hub, asked before each stop."""

import threading
from collections.abc import Callable

import structlog

from ..clocks import machine_moment, read_clocks
from ..domain.gate import ClockReading, Gate, GateReading, GateState
from ..domain.poll_state import LatestState, PollState

log = structlog.get_logger()


class Gatekeeper:
    """A gate under a lock, together with the newest poll state.

    Args:
        enforce: whether `--enforce` is set.
        grace: seconds without stops after the start and after an outage.
        latest: what the last poll found.
        clocks: reads our clocks.
        orphaned: tells whether the Hub that started this process has ended.
        state_lost: says why what people were promised is not known, None if it is.
    """

    def __init__(
        self,
        enforce: bool,
        grace: float,
        latest: LatestState,
        clocks: Callable[[], ClockReading] = read_clocks,
        orphaned: Callable[[], bool] = lambda: False,
        state_lost: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._state_lost = state_lost
        self._latest, self._clocks, self._orphaned = latest, clocks, orphaned
        self._lock = threading.Lock()
        self._gate = Gate.at_start(enforce, grace, clocks())
        self._grace_told = False  # that it began, and not yet that it is over
        self._held_back: str | None = None
        self._other_enforces = False

    def hub_answered(self, hub_time: float | None, took: float = 0.0) -> None:
        """Record that the Hub answered after so many seconds, and the time by its clock."""
        with self._lock:
            since = self._gate.grace_since
            self._gate = self._gate.answered(self._clocks(), hub_time, took)
            anew = self._gate.grace_since != since
        if anew:
            self.tell_of_grace()

    def hold_back(
        self, why: str | None, after_another: bool = False, other_enforces: bool = False
    ) -> None:
        """Suspend stops because the lease is not held; None ends that.

        `after_another` begins a grace period: another exporter has enforced until now.
        `other_enforces` tells that another exporter holds the lease.
        """
        with self._lock:
            self._held_back, self._other_enforces = why, other_enforces
            if after_another:
                self._gate = self._gate.taken_over(self._clocks())
        if after_another:
            self.tell_of_grace()

    def tell_of_grace(self) -> None:
        """Log that a grace period begins; at the start nobody else does."""
        with self._lock:
            gate, now = self._gate, self._clocks()
            self._grace_told = gate.enforce and gate.grace > 0
        if self._grace_told:
            until = now.wall + gate.grace_until - now.monotonic
            log.info(
                "grace_started",
                why=gate.grace_why,
                seconds=gate.grace,
                until=machine_moment(until),
            )

    def tell_if_grace_is_over(self) -> None:
        """Log that a grace period is over, once, and whether culling starts."""
        reading = self.read()
        with self._lock:
            over = self._grace_told and not reading.grace_left
            over = over and reading.state is not GateState.GRACE
            self._grace_told = self._grace_told and not over
        if over:
            log.info("grace_ended", enforcement=str(reading.state), why=reading.why)

    def seconds_since_answer(self) -> float:
        """Tell how long ago the Hub last answered."""
        return self._clocks().monotonic - self._gate.last_answer

    def clock_skew(self) -> float | None:
        """Return the Hub's clock minus ours, in seconds; None before the Hub's was read."""
        return self._gate.clock_skew()

    def hub_time(self) -> float:
        """Return the time by the Hub's clock; by ours, before the Hub's was read."""
        now, offset = self._clocks(), self._gate.hub_offset
        return now.wall if offset is None else now.monotonic + offset

    def read(self, after: PollState | None = None) -> GateReading:
        """Return the state now and why, given the newest poll state or another one."""
        suspended_by = (after or self._latest.state).suspended_by
        if suspended_by is not None:
            others = (self._held_back, self._state_lost())
            suspended_by = (*suspended_by, *(why for why in others if why is not None))
        return self._gate.read(self._clocks(), suspended_by)

    def state(self, after: PollState | None = None) -> GateState:
        """Return the state alone."""
        return self.read(after).state

    def stands_by(self, after: PollState) -> bool:
        """Tell whether nothing forbids stops but that another exporter holds the lease."""
        return self._other_enforces and after.suspended_by == ()

    def closed(self) -> str | None:
        """Say why no stop may be sent right now; None if one may."""
        if self._orphaned():
            return "the Hub that started this exporter has ended"
        now = self.read()
        return None if now.state is GateState.ON else now.why
