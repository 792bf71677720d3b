"""What these settings require of the token and the Hub, and which requirements are not met.

Computed once per poll. Log, `check` and page show the same findings; the metrics show what follows:
whether stops are suspended, and whether servers are asked first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from msgspec import UnsetType

from .labels import Cause
from .model import User, version_numbers
from .policy import Rules
from .scopes import PURPOSE, Granted, Scope
from .settings import BusyCheck, CullSettings

OLDEST_HUB = (2, 0)
OLDEST_HUB_TO_ENFORCE = (3, 0)
# Before 6.1 a service that mints a token is checked against `tokens!service=`, not `tokens!user=`.
_TOKENS_BY_USER = (6, 1)
# The scopes without which no server can be asked whether it is busy.
TO_ASK = (Scope.PROXY, Scope.TOKENS)


class Severity(IntEnum):
    """How serious it is if a requirement is not met."""

    NOTE = 0  # these settings do not need it
    WARNING = 1  # servers are stopped with less protection
    SUSPENDS = 2  # nothing is stopped
    FATAL = 3  # the Hub cannot be monitored


_WITHOUT = {
    Severity.NOTE: "these settings do not need it",
    Severity.WARNING: "servers are stopped by last_activity alone, and computations that print "
    "nothing look idle",
    Severity.SUSPENDS: "nothing is stopped until then",
    Severity.FATAL: "the Hub cannot be monitored until then",
}


class Subject(StrEnum):
    """What a finding is about."""

    VERSION = "version"
    SCOPE = "scope"
    HIDDEN_SERVERS = "hidden_servers"
    HIDDEN_POLICY_DATA = "hidden_policy_data"


@dataclass(frozen=True)
class Requirement:
    """A scope that the exporter can use.

    `grants` are the scopes that a role must list, with their filters; `severity` says how serious
    it is if one of them is missing.
    """

    scope: Scope
    grants: tuple[str, ...]
    severity: Severity

    @property
    def purpose(self) -> str:
        """Say what the scope is for."""
        return PURPOSE[self.scope]

    def missing(self, granted: Granted) -> tuple[str, ...]:
        """List what the token lacks; a scope that is granted with a filter is not missing."""
        if self.grants == (self.scope,):
            return () if granted.has(self.scope) else self.grants
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
    def consequence(self) -> str:
        """Say what happens because of it."""
        return _WITHOUT[self.severity]

    @property
    def cause(self) -> Cause:
        """Return the failure cause of a poll that fails because of it."""
        return Cause.RESPONSE if self.subject is Subject.VERSION else Cause.SCOPE


def requirements(version: str, cull: CullSettings, rules: Rules) -> tuple[Requirement, ...]:
    """Return a requirement for each scope, in the order in which people grant them."""
    groups = Severity.SUSPENDS if rules.need_groups else Severity.NOTE
    stops = Severity.SUSPENDS if cull.enforce else Severity.NOTE
    asks = _severity_of_asking(cull)
    return (
        Requirement(Scope.LIST_USERS, (Scope.LIST_USERS,), Severity.FATAL),
        Requirement(Scope.READ_SERVERS, (Scope.READ_SERVERS,), Severity.FATAL),
        Requirement(Scope.READ_GROUPS, (Scope.READ_GROUPS,), groups),
        Requirement(Scope.DELETE_SERVERS, (Scope.DELETE_SERVERS,), stops),
        Requirement(Scope.PROXY, (Scope.PROXY,), asks),
        Requirement(Scope.TOKENS, _token_grants(version, cull.probe_user), asks),
    )


def _severity_of_asking(cull: CullSettings) -> Severity:
    if not cull.enforce or cull.busy_check is BusyCheck.OFF:
        return Severity.NOTE
    return Severity.SUSPENDS if cull.busy_check is BusyCheck.REQUIRE else Severity.WARNING


def _token_grants(version: str, probe_user: str) -> tuple[str, ...]:
    by_user, by_service = f"tokens!user={probe_user}", f"tokens!service={probe_user}"
    newer = version_numbers(version) >= _TOKENS_BY_USER
    return (by_user,) if newer else (by_user, by_service)


def can_ask(needed: Iterable[Requirement], granted: Granted, cull: CullSettings) -> bool:
    """Tell whether the busy check is wanted, and possible with this token."""
    possible = not any(one.missing(granted) for one in needed if one.scope in TO_ASK)
    return cull.busy_check is not BusyCheck.OFF and possible


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
    scopes = f"scope{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    needed = "which would be" if requirement.severity is Severity.NOTE else "which is"
    return f"the token lacks the {scopes}, {needed} needed {requirement.purpose}"


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
