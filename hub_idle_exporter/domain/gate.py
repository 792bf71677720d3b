"""Whether anything may be stopped now: a state machine over the Hub's answers and the clocks.

After an outage everybody looks idle: what servers report while the Hub is down is lost, and the
next report comes some minutes after it is back. So nothing is stopped during a grace period after
the start, after an outage of over a minute, and after a clock jumped. What the last poll found (a
failure, a missing scope, a policy that cannot be decided) suspends culling until a poll finds it
fixed.
"""

from dataclasses import dataclass, replace

from .durations import shown
from .str_enum import StrEnum

# After an outage of the Hub, until everybody's activity is known again.
UNTIL_ALL_REPORTED = 330.0
OUTAGE_SECONDS = 60.0
JUMP_SECONDS = 60.0

# Why the last poll forbids stops, as sentences; None before the end of the first poll.
SuspendedBy = tuple[str, ...] | None


class GateState(StrEnum):
    """The states of `hub_idle_exporter_enforcement`; servers are stopped only in `on`."""

    OFF = "off"
    GRACE = "grace"
    SUSPENDED = "suspended"
    ON = "on"


@dataclass(frozen=True)
class ClockReading:
    """One reading of our clocks, in seconds: monotonic, and wall (since 1970)."""

    monotonic: float
    wall: float


@dataclass(frozen=True)
class GateReading:
    """The state at one moment, and in words for people why it is so.

    `grace_left` is how many seconds of a grace period are left, at least; `opens_in` after how many
    seconds stops are allowed unless something happens, None if that is not known.
    """

    state: GateState
    why: str
    grace_left: float = 0.0
    opens_in: float | None = None


@dataclass(frozen=True)
class Gate:
    """What is known so far about the Hub and the clocks; `answered` returns a new gate."""

    enforce: bool
    grace: float
    grace_until: float
    last_answer: float  # when the Hub last answered, monotonic; the start, before any answer
    wall_offset: float  # wall clock minus monotonic clock
    grace_since: float  # when the last grace period began, monotonic
    grace_why: str
    hub_offset: float | None = None  # Hub's clock minus monotonic clock

    @classmethod
    def at_start(cls, enforce: bool, grace: float, now: ClockReading) -> "Gate":
        """Begin with a grace period: the sidecar may have started together with its Hub."""
        return cls(
            enforce,
            grace,
            grace_until=now.monotonic + grace,
            last_answer=now.monotonic,
            wall_offset=now.wall - now.monotonic,
            grace_since=now.monotonic,
            grace_why="the exporter has started",
        )

    def answered(self, now: ClockReading, hub_time: float | None, took: float = 0.0) -> "Gate":
        """Record that the Hub answered.

        Args:
            now: our clocks when the answer was there.
            hub_time: the `Date` header of the answer; None if unreadable.
            took: seconds between the request and its answer.
        """
        jumped, hub_offset = False, self.hub_offset
        if hub_time is not None:
            jumped, hub_offset = self._hub_offset_by(now, hub_time, took)
        grace = self.grace if jumped or self._interrupted(now) else 0.0
        return replace(
            self,
            grace_until=max(self.grace_until, now.monotonic + grace),
            last_answer=max(self.last_answer, now.monotonic),
            wall_offset=now.wall - now.monotonic,
            hub_offset=hub_offset,
            grace_since=now.monotonic if grace else self.grace_since,
            grace_why=self._why_grace(now) if grace else self.grace_why,
        )

    def _hub_offset_by(self, now: ClockReading, hub_time: float, took: float) -> tuple[bool, float]:
        """Return whether the Hub's clock has jumped, and its offset by an answer.

        The `Date` was written at some time between the request and the answer, and is cut to the
        second. So it gives a range, and an offset within the range is as good as ever.
        """
        least, most = hub_time - now.monotonic, hub_time + 1.0 - (now.monotonic - took)
        if self.hub_offset is None:
            return False, (least + most) / 2
        nearest = min(max(self.hub_offset, least), most)
        return abs(nearest - self.hub_offset) > JUMP_SECONDS, nearest

    def taken_over(self, now: ClockReading) -> "Gate":
        """Begin a grace period: another exporter has enforced until now."""
        return replace(
            self,
            grace_until=max(self.grace_until, now.monotonic + self.grace),
            grace_since=now.monotonic,
            grace_why="another exporter stopped servers until now",
        )

    def clock_skew(self) -> float | None:
        """Return the Hub's clock minus ours, in seconds; None before a `Date` was read."""
        return None if self.hub_offset is None else self.hub_offset - self.wall_offset

    def read(self, now: ClockReading, suspended_by: SuspendedBy) -> GateReading:
        """Return the state at this moment, given what the last poll found, and why it is so."""
        interrupted = self._interrupted(now)
        left = max(0.0, self.grace_until - now.monotonic)
        if not self.enforce:
            return GateReading(
                GateState.OFF, "monitoring only: nothing is stopped without --enforce"
            )
        if interrupted:  # it begins when the Hub answers
            left = max(left, self.grace)
        if suspended_by:
            return GateReading(GateState.SUSPENDED, "; ".join(suspended_by), left)
        if interrupted:
            why = "the Hub has not answered for over a minute, or a clock jumped"
            return GateReading(GateState.GRACE, why, left)
        if left:
            why = f"grace period, because {self.grace_why}: {left:.0f} s left"
            return GateReading(GateState.GRACE, why, left, opens_in=left)
        if suspended_by is None:
            return GateReading(GateState.GRACE, "the first poll has not ended yet")
        return GateReading(GateState.ON, "servers past their limit are stopped")

    def _why_grace(self, now: ClockReading) -> str:
        """Say what was noticed with an answer: an outage, or a clock that jumped."""
        unseen = now.monotonic - self.last_answer
        if unseen > OUTAGE_SECONDS:
            return f"the Hub had not answered for {shown(unseen)}"
        jump = now.wall - now.monotonic - self.wall_offset
        ours = abs(jump) > JUMP_SECONDS
        return "the clock of this machine jumped" if ours else "the Hub's clock jumped"

    def _interrupted(self, now: ClockReading) -> bool:
        """Tell whether there was an outage, or our clock jumped, since the last answer."""
        if now.monotonic - self.last_answer > OUTAGE_SECONDS:
            return True
        return abs(now.wall - now.monotonic - self.wall_offset) > JUMP_SECONDS
