"""Poll states made by hand: what is known after polls that went this way or that."""

from hub_idle_exporter.domain.census import census_of
from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.labels import Cause
from hub_idle_exporter.domain.policy import Policy, Rules
from hub_idle_exporter.domain.poll_state import PollError, PollState, Snapshot
from hub_idle_exporter.domain.requirements import Finding, Severity, Subject
from hub_idle_exporter.domain.settings import CullSettings

RULES = Rules((Policy("default", 3600.0),))
SOMETIME = ClockReading(0.0, 0.0)


def at_start(rules: Rules = RULES) -> PollState:
    """Before the first poll."""
    return PollState.at_start(rules, CullSettings())


def good(
    *sentences: str, snapshot: Snapshot | None = None, now: ClockReading = SOMETIME
) -> PollState:
    """After a good poll; each sentence is a requirement not met that suspends culling."""
    seen = snapshot or Snapshot(now.wall, census_of([], RULES))
    found = tuple(Finding(Subject.SCOPE, Severity.SUSPENDS, sentence) for sentence in sentences)
    rules = Rules(seen.census.policies)
    return PollState(rules, version="6.1.1", findings=found).succeeded(seen, now)


def failed(
    sentence: str = "it failed", before: PollState | None = None, now: ClockReading = SOMETIME
) -> PollState:
    """After a failed poll."""
    return (before or at_start()).failed(PollError(Cause.HTTP, sentence), now)
