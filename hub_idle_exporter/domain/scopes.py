"""What a token may do: scopes with their filters, as `GET /user` lists them.

A scope may be filtered (`read:servers!group=g`, `delete:servers!user=u`,
`delete:servers!server=u/name`). The Hub sends scopes expanded: `admin:users` or `servers` appear
here as the smaller scopes that they contain.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import UnsetType

from .str_enum import StrEnum


class Scope(StrEnum):
    """The scopes that this program can use, in the order in which people grant them."""

    LIST_USERS = "list:users"
    READ_SERVERS = "read:servers"
    READ_GROUPS = "read:users:groups"
    DELETE_SERVERS = "delete:servers"
    PROXY = "proxy"
    TOKENS = "tokens"
    READ_ACTIVITY = "read:users:activity"
    DELETE_USERS = "delete:users"


PURPOSE = {
    Scope.LIST_USERS: "to list the Hub's users",
    Scope.READ_SERVERS: "to see users' servers and when they were last active",
    Scope.READ_GROUPS: "to match policies by group",
    Scope.DELETE_SERVERS: "to stop servers",
    Scope.PROXY: "to find the address of a server for the busy check",
    Scope.TOKENS: "to mint the tokens that ask a server, that stop it, and that elect one exporter",
    Scope.READ_ACTIVITY: "to see when users were last active",
    Scope.DELETE_USERS: "to delete idle users",
}


@dataclass(frozen=True)
class Granted:
    """The scopes of one token: name of the scope → its filters; no filters means everywhere."""

    filters: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, scopes: Iterable[str]) -> "Granted":
        """Parse scopes as the Hub lists them; an unfiltered one overrides filtered ones."""
        found: dict[str, set[str]] = {}
        for text in scopes:
            name, _, condition = text.partition("!")
            found.setdefault(name, set()).add(condition)
        return cls(
            {name: frozenset() if "" in seen else frozenset(seen) for name, seen in found.items()}
        )

    def has(self, scope: str) -> bool:
        """Tell whether the scope is granted at all, filtered or not."""
        return scope in self.filters

    def filtered(self, scope: str) -> bool:
        """Tell whether the scope is granted only for some users or servers."""
        return bool(self.filters.get(scope))

    def allows(self, scope: str) -> bool:
        """Tell whether a scope with a filter (`tokens!user=u`) is covered by a granted scope."""
        name, _, condition = scope.partition("!")
        conditions = self.filters.get(name)
        return conditions is not None and (not conditions or condition in conditions)

    def may_stop(self, user: str, groups: tuple[str, ...] | UnsetType, server: str) -> bool:
        """Tell whether `delete:servers` covers this server; when in doubt, it does not.

        Hidden groups leave no doubt if `read:servers` has the same filters: then every server that
        is visible may be stopped.
        """
        conditions = self.filters.get(Scope.DELETE_SERVERS)
        if not conditions:
            return True  # not filtered; or not granted, which suspends culling as a whole
        if {f"user={user}", f"server={user}/{server}"} & conditions:
            return True
        if isinstance(groups, UnsetType):
            seen = self.filters.get(Scope.READ_SERVERS, frozenset())
            return bool(seen) and seen <= conditions
        return any(f"group={group}" in conditions for group in groups)

    def may_delete(self, user: str, groups: tuple[str, ...] | UnsetType) -> bool:
        """Tell whether `delete:users` covers this user; when in doubt, it does not."""
        conditions = self.filters.get(Scope.DELETE_USERS)
        if not conditions:
            return True  # not filtered; or not granted, and then nobody is deleted
        known = () if isinstance(groups, UnsetType) else groups
        return not {f"user={user}", *(f"group={group}" for group in known)}.isdisjoint(conditions)
