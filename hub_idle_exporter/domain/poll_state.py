"""Everything that is known after a poll: one frozen state, replaced as a whole when a poll ends.

Metrics, page, readiness, `check` and `servers` read only this, so that none of them can see half of
a poll.
"""

from dataclasses import dataclass, field, replace

from .census import Census
from .gate import ClockReading
from .idle_users import IdleUsers, UserJudge
from .keeping import Keeps
from .labels import Cause
from .model import Identity
from .notices import Announcements
from .policy import Judge, Rules
from .probe_user import NO_SAFEGUARDS, ProbeUser, Safeguards
from .requirements import Finding, Requirement, Severity, requirements
from .roles import roles
from .scopes import Granted, Scope
from .settings import CullSettings
from .spare_query import Opinion

INTERVALS_UNTIL_STALE = 3
# The name of the service in the roles to paste, if the Hub has not said whose token this is.
DEFAULT_SERVICE = "idle-exporter"
_MOST_NAMES, _LONGEST_NAME = 5, 60


@dataclass(frozen=True)
class Snapshot:
    """What one successful poll found at `read_at` by the Hub's clock (seconds since 1970).

    `complete` is False if the list changed so much while it was read that many servers may be
    missing. `hidden_users` counts users whose servers the token may not see. `unreadable` names
    users who cannot be decoded: their servers are not counted, not judged and not stopped.
    `full_list_age` is the seconds between this list and the newest full one: 0 if this one is.
    """

    read_at: float
    census: Census
    complete: bool = True
    hidden_users: int = 0
    unreadable: tuple[str, ...] = ()
    full_list_age: float = 0.0

    @property
    def some_unreadable(self) -> list[str]:
        """Return the first few names of those who cannot be decoded, cut to a usual length."""
        return [name[:_LONGEST_NAME] for name in self.unreadable[:_MOST_NAMES]]


@dataclass(frozen=True)
class PollError:
    """Why a poll failed; `retry_after` is how many seconds the Hub asked us to wait.

    `finding` is the requirement that is not met, if that is the reason.
    """

    cause: Cause
    sentence: str
    retry_after: float = 0.0
    finding: Finding | None = None


@dataclass(frozen=True)
class PollState:
    """What is known after a poll; `snapshot` is None before the first and after a failed one.

    What the Hub last said about itself and the token (`version`, `identity`, `granted`) is kept
    after a failed poll, and so is the number of `unreadable_users`. `keeps` and `announcements` are
    what people had been promised when it began, `opinion` is the second one, None without any.
    `duration` and `clock_skew` (the Hub's clock minus ours) are seconds.
    """

    rules: Rules
    policy_error: str | None = None
    version: str | None = None
    identity: Identity | None = None
    granted: Granted | None = None
    requirements: tuple[Requirement, ...] = ()
    probe_user_name: str = ""
    probe_user: ProbeUser | None = None  # None: not looked at yet, or not needed
    safeguards: Safeguards = NO_SAFEGUARDS
    findings: tuple[Finding, ...] = ()
    snapshot: Snapshot | None = None
    error: PollError | None = None
    last_success: ClockReading | None = None
    failing_since: ClockReading | None = None
    duration: float = 0.0
    clock_skew: float | None = None
    unreadable_users: int = 0
    keeps: Keeps = field(default_factory=dict)
    announcements: Announcements = field(default_factory=dict)
    opinion: Opinion | None = None

    @classmethod
    def at_start(cls, rules: Rules, cull: CullSettings) -> "PollState":
        """Return the state before the first poll, when the Hub's version is not known."""
        needed = requirements("", cull, rules)
        return cls(rules, requirements=needed, probe_user_name=cull.probe_user)

    @property
    def roles(self) -> str:
        """Return the roles to add to jupyterhub_config.py; empty if none would help."""
        if not any(one.is_about_roles and one.severity > Severity.NOTE for one in self.findings):
            return ""
        service = (self.identity.name if self.identity else "") or DEFAULT_SERVICE
        granted = self.granted or Granted()
        of_prober = Granted.of(self.probe_user.scopes or ()) if self.probe_user else Granted()
        return roles(service, self.requirements, granted, self.probe_user_name, of_prober)

    @property
    def judge(self) -> Judge:
        """Return the judge that decides on servers now."""
        return Judge(self.rules, self.granted or Granted(), self.keeps, self.opinion)

    @property
    def suspended_by(self) -> tuple[str, ...] | None:
        """Say why nothing may be stopped (empty: no reason); None before the first poll's end."""
        if self.error is not None:
            return (f"the last poll failed: {self.error.sentence}",)
        if self.snapshot is None:
            return None
        return tuple(str(one) for one in self.findings if one.severity >= Severity.SUSPENDS)

    def user_judge(self, cull: CullSettings) -> UserJudge:
        """Return the judge that decides on users now."""
        own = {self.probe_user_name}
        if self.identity is not None and self.identity.kind == "user":
            own.add(self.identity.name)
        return UserJudge(self.judge, cull.users, frozenset(own))

    @property
    def sees_activity(self) -> bool:
        """Tell whether the token may see when users were last active."""
        return (self.granted or Granted()).has(Scope.READ_ACTIVITY)

    @property
    def keeps_users(self) -> tuple[str, ...]:
        """Say why no idle user is found or deleted (empty: no reason)."""
        return tuple(str(one) for one in self.findings if one.severity >= Severity.KEEPS_USERS)

    def seconds_since_success(self, now: ClockReading) -> float | None:
        """Return the age of the last successful poll; None if there was none."""
        return _since(self.last_success, now)

    def seconds_failing(self, now: ClockReading) -> float | None:
        """Return how long polls have been failing; None if the last one succeeded."""
        return _since(self.failing_since, now)

    def is_stale(self, now: ClockReading, interval: float) -> bool:
        """Tell whether the last successful poll is three intervals old, or there was none."""
        age = self.seconds_since_success(now)
        return age is None or age >= INTERVALS_UNTIL_STALE * interval

    def failed(self, error: PollError, now: ClockReading) -> "PollState":
        """Return the state after a failed poll: what was known about servers is dropped."""
        since = self.failing_since or now
        return replace(self, snapshot=None, error=error, failing_since=since)

    def succeeded(self, snapshot: Snapshot, now: ClockReading) -> "PollState":
        """Return the state after a successful poll."""
        return replace(
            self,
            snapshot=snapshot,
            error=None,
            last_success=now,
            failing_since=None,
            unreadable_users=len(snapshot.unreadable),
        )


def _since(then: ClockReading | None, now: ClockReading) -> float | None:
    return None if then is None else max(0.0, now.monotonic - then.monotonic)


@dataclass
class LatestState:
    """Holds the newest poll state; one assignment replaces it for every reader.

    `idle_users` is what the newest listing of idle users found; None if that failed
    (`listing_failed`), or before it.
    """

    state: PollState
    idle_users: IdleUsers | None = None
    listing_failed: bool = False

    def users_listed(self, found: IdleUsers | None) -> None:
        """Publish what a listing of idle users found; None if it failed."""
        self.idle_users, self.listing_failed = found, found is None
