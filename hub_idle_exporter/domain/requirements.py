"""What these settings require of the token and the Hub, and which requirements are not met.

Computed once per poll. Log, `check` and page show the same findings; the metrics show what follows:
whether stops are suspended, and whether servers are asked first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from msgspec import UnsetType

from .labels import Cause
from .model import User, version_numbers
from .policy import Rules
from .scopes import PURPOSE, Granted, Scope
from .settings import BusyCheck, CullSettings
from .str_enum import StrEnum

OLDEST_HUB = (2, 0)
OLDEST_HUB_TO_ENFORCE = (3, 0)
_TOKENS_BY_USER = (6, 1)
MOST_SKEW_SECONDS = 60.0
# What the role of the probe user lists.
PROBE_USER_SCOPES = ("access:servers", "delete:servers")


class Severity(IntEnum):
    """How serious it is if a requirement is not met."""

    NOTE = 0  # these settings do not need it
    WARNING = 1  # servers are stopped, or users deleted, with less protection
    KEEPS_USERS = 2  # servers are stopped, but no idle user is found or deleted
    SUSPENDS = 3  # nothing is stopped
    FATAL = 4  # the Hub cannot be monitored


class Subject(StrEnum):
    """What a finding is about."""

    VERSION = "version"
    SCOPE = "scope"
    HIDDEN_SERVERS = "hidden_servers"
    HIDDEN_POLICY_DATA = "hidden_policy_data"
    PROBE_USER = "probe_user"
    PROBE_USER_ROLE = "probe_user_role"
    DELETIONS = "deletions"
    CLOCKS = "clocks"


@dataclass(frozen=True)
class Requirement:
    """A scope that the exporter can use.

    `grants` are the scopes that a role is to list, with their filters, and `enough` those of them
    that this Hub really needs; `severity` says how serious it is if one of these is missing.
    """

    scope: Scope
    grants: tuple[str, ...]
    severity: Severity
    enough: tuple[str, ...] = ()

    @property
    def purpose(self) -> str:
        """Say what the scope is for."""
        return PURPOSE[self.scope]

    def missing(self, granted: Granted) -> tuple[str, ...]:
        """List what the token lacks; a scope that is granted with a filter is not missing."""
        if self.grants == (self.scope,):
            return () if granted.has(self.scope) else self.grants
        if all(map(granted.allows, self.enough or self.grants)):
            return ()
        return tuple(grant for grant in self.grants if not granted.allows(grant))


@dataclass(frozen=True)
class Finding:
    """A requirement that is not met; `str()` is a sentence for people.

    `scope` is set if a scope is missing, and `missing` then names what a role has to grant.
    """

    subject: Subject
    severity: Severity
    problem: str
    scope: Scope | None = None
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.problem

    @property
    def is_about_roles(self) -> bool:
        """Tell whether other roles would meet it."""
        about_prober = self.subject in (Subject.PROBE_USER_ROLE, Subject.DELETIONS)
        return self.scope is not None or about_prober

    @property
    def is_about_users(self) -> bool:
        """Tell whether only deletions of users suffer from it, and no stop of a server."""
        return self.severity is Severity.KEEPS_USERS or self.subject is Subject.DELETIONS

    @property
    def cause(self) -> Cause:
        """Return the failure cause of a poll that fails because of it."""
        return Cause.RESPONSE if self.subject is Subject.VERSION else Cause.SCOPE


def requirements(version: str, cull: CullSettings, rules: Rules) -> tuple[Requirement, ...]:
    """Return a requirement for each scope, in the order in which people grant them."""
    groups = Severity.SUSPENDS if rules.need_groups else Severity.NOTE
    stops = Severity.SUSPENDS if cull.enforce else Severity.NOTE
    asks, mints = _severity_of_asking(cull), _severity_of_minting(cull)
    tokens = token_grants(cull.probe_user)
    # Before 6.1 a service that mints is checked against `tokens!service=`; later Hubs need only the
    # other.
    enough = tokens[:1] if version_numbers(version) >= _TOKENS_BY_USER else tokens
    found = [
        Requirement(Scope.LIST_USERS, (Scope.LIST_USERS,), Severity.FATAL),
        Requirement(Scope.READ_SERVERS, (Scope.READ_SERVERS,), Severity.FATAL),
        Requirement(Scope.READ_GROUPS, (Scope.READ_GROUPS,), groups),
        Requirement(Scope.DELETE_SERVERS, (Scope.DELETE_SERVERS,), stops),
        Requirement(Scope.PROXY, (Scope.PROXY,), asks),
        Requirement(Scope.TOKENS, tokens, mints, enough),
    ]
    if cull.users.delete:  # nobody else is asked to grant so much
        deletes = Severity.KEEPS_USERS if cull.enforce else Severity.NOTE
        found += [
            Requirement(Scope.READ_ACTIVITY, (Scope.READ_ACTIVITY,), Severity.KEEPS_USERS),
            Requirement(Scope.DELETE_USERS, (Scope.DELETE_USERS,), deletes),
        ]
    return tuple(found)


def _severity_of_asking(cull: CullSettings) -> Severity:
    if not cull.enforce or cull.busy_check is BusyCheck.OFF:
        return Severity.NOTE
    return Severity.SUSPENDS if cull.busy_check is BusyCheck.REQUIRE else Severity.WARNING


def _severity_of_minting(cull: CullSettings) -> Severity:
    """Return how serious it is if no token can be minted, to ask a server or to stop it."""
    if not cull.enforce:
        return Severity.NOTE
    return Severity.SUSPENDS if cull.busy_check is BusyCheck.REQUIRE else Severity.WARNING


def token_grants(probe_user: str) -> tuple[str, str]:
    """Return the scopes that let a service mint tokens of the probe user, on every Hub."""
    return f"tokens!user={probe_user}", f"tokens!service={probe_user}"


def grants(needed: Iterable[Requirement], scope: Scope, granted: Granted) -> bool:
    """Tell whether the token has a scope as far as this Hub needs it."""
    return not any(one.missing(granted) for one in needed if one.scope is scope)


def clock_findings(skew: float | None, cull: CullSettings) -> tuple[Finding, ...]:
    """Find out whether the Hub's clock and ours are too far apart to tell who is idle.

    Servers report their activity by their own clocks: if the Hub's is two hours ahead, a server
    that was active seconds ago looks idle for two hours.
    """
    if skew is None or abs(skew) <= MOST_SKEW_SECONDS:
        return ()
    side = "ahead of" if skew > 0 else "behind"
    problem = f"the Hub's clock is {abs(skew):.0f} s {side} the exporter's: set both by NTP"
    severity = Severity.SUSPENDS if cull.enforce else Severity.NOTE
    return (Finding(Subject.CLOCKS, severity, problem),)


def version_findings(version: str, cull: CullSettings) -> tuple[Finding, ...]:
    """Find out whether the Hub is too old; this is known before any scope is."""
    numbers = version_numbers(version)
    if numbers < OLDEST_HUB:
        problem = (
            f"JupyterHub {version!r} is too old: 2.0 or newer is needed to monitor it, and 3.0 or "
            "newer to cull"
        )
        return (Finding(Subject.VERSION, Severity.FATAL, problem),)
    if cull.enforce and numbers < OLDEST_HUB_TO_ENFORCE:
        problem = f"JupyterHub {version} is too old to cull: 3.0 or newer is needed"
        return (Finding(Subject.VERSION, Severity.SUSPENDS, problem),)
    return ()


def scope_findings(needed: Iterable[Requirement], granted: Granted) -> tuple[Finding, ...]:
    """Find each scope that the token lacks, those too that these settings do not need."""
    return tuple(
        Finding(Subject.SCOPE, one.severity, _lack(one, missing), one.scope, missing)
        for one in needed
        if (missing := one.missing(granted))
    )


def _lack(requirement: Requirement, missing: tuple[str, ...]) -> str:
    many = len(missing) > 1
    scopes = f"scope{'s' if many else ''} {' and '.join(missing)}"
    needed = "are" if many else "is"
    if requirement.severity is Severity.NOTE:
        needed = "would be"
    return f"the token lacks the {scopes}, which {needed} needed {requirement.purpose}"


def visibility_findings(
    users: Iterable[User], hidden_users: int, granted: Granted, rules: Rules
) -> tuple[Finding, ...]:
    """Find out what a listing hides that must be visible."""
    if hidden_users and not granted.filtered(Scope.READ_SERVERS):
        problem = f"the Hub hides the servers of {hidden_users} users from the token"
        return (Finding(Subject.HIDDEN_SERVERS, Severity.FATAL, problem),)
    if _hides_policy_data(users, granted, rules):
        problem = (
            "a policy matches on groups or admin, which the token cannot see for every user: "
            "grant read:users:groups without a filter"
        )
        return (Finding(Subject.HIDDEN_POLICY_DATA, Severity.SUSPENDS, problem),)
    return ()


def _hides_policy_data(users: Iterable[User], granted: Granted, rules: Rules) -> bool:
    """Tell whether a policy matches on data that is hidden for a user with visible servers."""
    groups = rules.need_groups and granted.has(Scope.READ_GROUPS)  # else the scope is the finding
    admin = rules.need_admin
    return (groups or admin) and any(
        (groups and isinstance(user.groups, UnsetType))
        or (admin and isinstance(user.admin, UnsetType))
        for user in users
        if user.seen_servers
    )
