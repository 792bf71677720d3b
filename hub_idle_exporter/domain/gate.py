"""May anything be stopped now? One state machine over what was seen of the Hub and of the clocks.

After an outage everybody looks idle: what servers report while the Hub is away is lost, and the
next report comes up to 330 s after its return. So nothing is stopped for a grace time after the
start, after the Hub was not seen for over a minute, and after a clock jumped. A failed poll, a
missing scope or a policy that cannot be decided suspend it until they are mended.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

OUTAGE_SECONDS = 60.0
JUMP_SECONDS = 60.0


class GateState(StrEnum):
    """The states of `hub_idle_exporter_enforcement`; servers are stopped in `on` alone."""

    OFF = "off"
    GRACE = "grace"
    SUSPENDED = "suspended"
    ON = "on"


@dataclass(frozen=True)
class Moment:
    """One reading of our clocks, in seconds: the monotonic one, and the wall's (since 1970)."""

    monotonic: float
    wall: float


@dataclass(frozen=True)
class Gate:
    """What was seen so far. Every method that learns something gives a new gate."""

    enforce: bool
    grace: float
    grace_until: float
    seen: float  # when the Hub last answered, monotonic; at first the start
    wall_offset: float  # wall clock minus monotonic clock
    hub_offset: float | None = None  # Hub's clock minus monotonic clock
    polled: bool = False  # a poll has ended, well or not
    obstacles: tuple[str, ...] = ()  # why the last poll forbids stops: sentences

    @classmethod
    def at_start(cls, enforce: bool, grace: float, now: Moment) -> "Gate":
        """Begin with a grace time: the sidecar may have started together with its Hub."""
        until = now.monotonic + grace
        return cls(enforce, grace, until, now.monotonic, now.wall - now.monotonic)

    def answered(self, now: Moment, hub_time: float | None) -> "Gate":
        """Note that the Hub answered; `hub_time` is its `Date` header where it was readable."""
        hub_offset = self.hub_offset if hub_time is None else hub_time - now.monotonic
        grace = self.grace if self._broken(now, hub_offset) else 0.0
        return replace(
            self,
            grace_until=max(self.grace_until, now.monotonic + grace),
            seen=max(self.seen, now.monotonic),
            wall_offset=now.wall - now.monotonic,
            hub_offset=hub_offset,
        )

    def after_poll(self, obstacles: tuple[str, ...]) -> "Gate":
        """Note a poll's end; `obstacles` says why nothing may be stopped (nothing: empty)."""
        return replace(self, polled=True, obstacles=obstacles)

    def state(self, now: Moment) -> GateState:
        """Tell what holds at this moment."""
        if not self.enforce:
            return GateState.OFF
        if self.obstacles:
            return GateState.SUSPENDED
        if not self.polled or now.monotonic < self.grace_until or self._broken(now):
            return GateState.GRACE
        return GateState.ON

    def why(self, now: Moment) -> str:
        """Say in words for people why the state is what it is."""
        match self.state(now):
            case GateState.OFF:
                return "monitoring only: nothing is stopped without --enforce"
            case GateState.SUSPENDED:
                return "; ".join(self.obstacles)
            case GateState.GRACE if self._broken(now):
                return "the Hub has not been seen for over a minute, or a clock jumped"
            case GateState.GRACE:
                left = max(0.0, self.grace_until - now.monotonic)
                return f"{left:.0f} s of grace left after the start or an outage"
            case _:
                return "servers past their limit are stopped"

    def _broken(self, now: Moment, hub_offset: float | None = None) -> bool:
        """Tell whether sight was lost since the last answer: an outage, or a clock's jump."""
        if now.monotonic - self.seen > OUTAGE_SECONDS:
            return True
        if abs(now.wall - now.monotonic - self.wall_offset) > JUMP_SECONDS:
            return True
        known = self.hub_offset is not None and hub_offset is not None
        return known and abs((hub_offset or 0) - (self.hub_offset or 0)) > JUMP_SECONDS
