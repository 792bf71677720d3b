"""Everything that decides whether an idle user is to be deleted lives here.

A deletion cannot be undone, so any doubt keeps the user. As in `policy.py`, a user is judged at one
moment of the Hub's clock, twice: over a whole list, and again right before the deletion. No clock,
no I/O, no log.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeGuard

import msgspec
from msgspec import UnsetType

from .labels import UserKept
from .model import Account, seconds
from .policy import Judge, Policy
from .settings import UserSettings

CANDIDATE = "candidate"
# What each reads on after "the user".
_WORDS: Mapping[UserKept, str] = {
    UserKept.UNKNOWN: "has neither a last activity nor a known time of creation",
    UserKept.OWN: "owns tokens of the exporter",
    UserKept.HIDDEN: "has data that the token cannot see",
    UserKept.SERVER: "has a server that runs, starts or stops",
    UserKept.ADMIN: "is an administrator of the Hub (see --cull-admin-users)",
    UserKept.EXEMPT: "may match a policy that exempts",
    UserKept.SCOPE: "is outside the filter of the token's delete:users",
}


class JudgedUser(msgspec.Struct, frozen=True, gc=False):
    """A user who is past the limit, or of whom that is not known, with the judgement.

    `idle` is in seconds, None if unknown. `kept` is what protects the user; None if nothing does:
    then it is a candidate.
    """

    name: str
    idle: float | None
    kept: UserKept | None
    why: str


@dataclass(frozen=True)
class IdleUsers:
    """What one listing found at `read_at` by the Hub's clock: users past the limit or unknown.

    `complete` is False if the list changed so much while it was read that it may be wrong.
    `unreadable` is how many users could not be decoded.
    """

    read_at: float
    users: tuple[JudgedUser, ...]
    complete: bool = True
    unreadable: int = 0

    @cached_property
    def candidates(self) -> tuple[JudgedUser, ...]:
        """Return those whom nothing protects, most idle first."""
        return tuple(one for one in self.users if one.kept is None)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Count them by what keeps them, and the candidates."""
        return Counter(one.kept or CANDIDATE for one in self.users)


@dataclass(frozen=True)
class UserJudge:
    """Judges users; `own` are the names of those who own tokens of the exporter."""

    judge: Judge
    settings: UserSettings
    own: frozenset[str]

    def all(self, accounts: Iterable[Account], now: float) -> tuple[JudgedUser, ...]:
        """Judge many, most idle first; left out is whoever was active within the limit."""
        judged = (self.verdict(account, now) for account in accounts)
        found = [one for one in judged if one is not None]
        return tuple(sorted(found, key=lambda one: (-(one.idle or 0.0), one.name)))

    def verdict(self, account: Account, now: float) -> JudgedUser | None:
        """Judge one user by the Hub's clock; None if it was active within the limit."""
        hidden = isinstance(account.last_activity, UnsetType)
        idle = _idle(account, now)
        if not hidden and idle is not None and idle < self.settings.timeout:
            return None
        if hidden:
            kept: UserKept | None = UserKept.HIDDEN
        elif idle is None:
            kept = UserKept.UNKNOWN
        else:
            kept = self._protection(account)
        if kept is not None:
            return JudgedUser(account.name, idle, kept, _WORDS[kept])
        protected = self._protected_server(account)
        if protected is not None:
            return JudgedUser(account.name, idle, UserKept.PROTECTED, protected)
        return JudgedUser(account.name, idle, None, "is past --user-timeout")

    def _protection(self, account: Account) -> UserKept | None:
        """Say what protects the user whatever its servers are; None if nothing does."""
        if account.name in self.own:
            return UserKept.OWN
        if isinstance(account.servers, UnsetType):
            return UserKept.HIDDEN
        if not all(server.is_at_rest for server in account.servers.values()):
            return UserKept.SERVER
        if not self.settings.admins and account.admin is not False:
            return UserKept.HIDDEN if isinstance(account.admin, UnsetType) else UserKept.ADMIN
        if any(one.exempt and one.match.may_hold_for(account) for one in self._policies):
            return UserKept.EXEMPT
        if not self.judge.granted.may_delete(account.name, account.groups):
            return UserKept.SCOPE
        return None

    @property
    def _policies(self) -> Iterable[Policy]:
        return self.judge.rules.policies

    def _protected_server(self, account: Account) -> str | None:
        """Say which of the user's servers could not be stopped; None if all could be."""
        for name, server in account.seen_servers.items():
            protection = self.judge.protection(account, name, server)
            if protection is not None:
                return f"has a server, {name or '(default)'}, that {protection}"
        return None


def _idle(account: Account, now: float) -> float | None:
    """Return how long neither user nor servers were active; if they never were, since creation.

    A stopped server that is active has outlived its stop, and the Hub does not tell of its user.
    """
    servers = (server.last_activity for server in account.seen_servers.values())
    active = [seconds(one) for one in (account.last_activity, *servers) if _is_known(one)]
    since = active or [seconds(one) for one in (account.created,) if _is_known(one)]
    return max(0.0, now - max(since)) if since else None


def _is_known(moment: datetime | UnsetType | None) -> TypeGuard[datetime]:
    return not isinstance(moment, UnsetType) and moment is not None
