"""The Hub user who owns the minted tokens: what it may do, and whether somebody signed in as it.

Whoever can sign in as this user can open and stop every server. Nobody should be able to, and a
sign-in leaves no token to see; what can be seen is looked at before anything is stopped.
"""

from dataclasses import dataclass

from msgspec import UnsetType

from .model import Server, User
from .requirements import PROBE_USER_SCOPES, Finding, Severity, Subject
from .scopes import Granted, Scope
from .settings import BusyCheck, CullSettings

# Scopes that a Hub may give to everybody by its role `user`, and that change nothing at the Hub.
_OF_EVERYBODY = ("access:services", "list:", "read:groups", "read:services", "read:users:name")
_CUSTOM = "custom:"  # of other services: this Hub does nothing with them


@dataclass(frozen=True)
class ProbeUser:
    """The probe user as the Hub describes it.

    `user` lists its stopped servers too; None if there is no such user, or the token cannot see it.
    `scopes` is all that its roles grant; None, with the reason in `refused`, if no token of it
    could be minted.
    """

    name: str
    user: User | None
    scopes: tuple[str, ...] | None
    refused: str = ""

    def may(self, scope: str) -> bool:
        """Tell whether tokens of this user may do something to the servers of others.

        The role `user`, which everybody has, grants each scope for the user itself.
        """
        conditions = Granted.of(self.scopes or ()).filters.get(scope)
        return conditions is not None and conditions != {f"user={self.name}"}


@dataclass(frozen=True)
class Safeguards:
    """What protects people when servers are stopped; without one of them less is certain."""

    asks_servers: bool = False  # each server is asked before it is stopped
    stop_tokens: bool = False  # a stop is good for seconds only, by the Hub's own clock
    lease: bool = False  # one exporter per Hub stops servers
    deletion_tokens: bool = False  # a deletion of a user is good for seconds only

    @property
    def complete(self) -> bool:
        """Tell whether nothing is missing."""
        return self.asks_servers and self.stop_tokens and self.lease

    @property
    def lacks(self) -> tuple[str, ...]:
        """Say what is missing, as sentences for people."""
        sentences = {
            "servers are not asked before they are stopped: last_activity alone decides, and a "
            "computation that prints nothing looks idle": self.asks_servers,
            "no stop token: a stop that is delayed on its way to the Hub still works, however old "
            "what it was based on": self.stop_tokens,
            "no lease: another exporter of this Hub may stop servers too": self.lease,
        }
        return tuple(sentence for sentence, given in sentences.items() if not given)


NO_SAFEGUARDS = Safeguards()


def safeguards(
    cull: CullSettings, may_find: bool, may_mint: bool, probe_user: ProbeUser | None
) -> Safeguards:
    """Decide what protects people; `may_find` addresses of servers, `may_mint` tokens."""
    if not cull.enforce or not may_mint or probe_user is None or probe_user.scopes is None:
        return NO_SAFEGUARDS
    wanted = cull.busy_check is not BusyCheck.OFF
    return Safeguards(
        asks_servers=wanted and may_find and probe_user.may("access:servers"),
        stop_tokens=probe_user.may("delete:servers"),
        lease=True,
        deletion_tokens=probe_user.may(Scope.DELETE_USERS),
    )


def unseen(cull: CullSettings, why: str) -> Finding:
    """Return the finding that the probe user could not be looked at: it suspends in every mode."""
    problem = f"the user {cull.probe_user} could not be looked at: {why}"
    return Finding(Subject.PROBE_USER, Severity.SUSPENDS, problem)


def probe_user_findings(seen: ProbeUser, cull: CullSettings) -> tuple[Finding, ...]:
    """Find what is wrong with the probe user; what makes it dangerous suspends in every mode."""
    unusable = Severity.SUSPENDS if cull.busy_check is BusyCheck.REQUIRE else Severity.WARNING
    return (
        *(Finding(Subject.PROBE_USER_ROLE, unusable, text) for text in _unusable(seen)),
        *(Finding(Subject.PROBE_USER, Severity.SUSPENDS, text) for text in _dangerous(seen)),
        *_of_deletions(seen, cull),
    )


def _of_deletions(seen: ProbeUser, cull: CullSettings) -> list[Finding]:
    """Say that deletions have no token that expires; without --cull-users, that none is needed."""
    if not cull.users.delete and seen.may(Scope.DELETE_USERS):
        needless = f"the role of the user {seen.name} has {Scope.DELETE_USERS}, which is not needed"
        return [Finding(Subject.DELETIONS, Severity.NOTE, needless)]
    if not cull.users.delete or seen.scopes is None or seen.may(Scope.DELETE_USERS):
        return []
    problem = (
        f"the role of the user {seen.name} lacks {Scope.DELETE_USERS}: a deletion that is delayed "
        "on its way to the Hub still works, however old what it was based on"
    )
    return [Finding(Subject.DELETIONS, Severity.WARNING, problem)]


def _unusable(seen: ProbeUser) -> list[str]:
    """Say why no token of the user can be used."""
    name = seen.name
    if seen.user is None:
        return [
            f"the Hub shows no user {name}: add a role for it to load_roles and restart the Hub, "
            f"or grant read:servers!user={name} if the token's scopes are filtered"
        ]
    if seen.scopes is None:
        return [f"no token of the user {name} can be minted: {seen.refused}"]
    missing = [scope for scope in PROBE_USER_SCOPES if not seen.may(scope)]
    return [f"the role of the user {name} lacks {' and '.join(missing)}"] if missing else []


def _dangerous(seen: ProbeUser) -> list[str]:
    """Say why somebody may sign in as this user, or already did."""
    name, user, problems = seen.name, seen.user, list[str]()
    if user is None:
        return problems
    if isinstance(user.admin, UnsetType) or isinstance(user.servers, UnsetType):
        problems.append(
            f"the token cannot see whether somebody signed in as {name}: grant "
            f"read:servers!user={name}"
        )
    if user.admin is True:
        problems.append(f"the user {name} is an administrator of the Hub: make it an ordinary user")
    if any(_was_used(server_name, one) for server_name, one in user.seen_servers.items()):
        problems.append(
            f"somebody signed in as {name}, or opened its page as an administrator: refuse its "
            "sign-in (docs/probe-user.md), delete the user and restart the Hub"
        )
    wide = too_wide(seen.scopes or (), name)
    if wide:
        problems.append(f"the user {name} has more scopes than it needs: {', '.join(wide)}")
    return problems


def _was_used(name: str, server: Server) -> bool:
    """Tell whether somebody has used a server of this user, or came to the page that starts it.

    The Hub lists a stopped default server even if there never was one: without activity, and with
    `user_options` only once somebody signed in.
    """
    unused = server.last_activity is None and not server.ready and not server.pending
    return bool(name) or not unused or bytes(server.user_options) != b"null"


def too_wide(scopes: tuple[str, ...], name: str) -> list[str]:
    """List the scopes that tokens of this user should not have.

    Those of the role `user`, which everybody has, are filtered to the user itself.
    """
    needed = (*PROBE_USER_SCOPES, Scope.DELETE_USERS)
    return sorted(
        scope
        for scope in scopes
        if scope.partition("!")[0] not in needed
        and not scope.startswith((*_OF_EVERYBODY, _CUSTOM))
        and not scope.endswith(f"!user={name}")
    )
