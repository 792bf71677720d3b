"""What a token may do: scopes with their filters, as `GET /user` lists them.

A scope may be filtered (`read:servers!group=g`, `delete:servers!user=u`,
`delete:servers!server=u/name`). The Hub sends scopes expanded, so that `admin:users` or `servers`
show here as the smaller scopes they contain.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import UnsetType


class Scope(StrEnum):
    """The scopes that this program can make use of, in the order people grant them."""

    LIST_USERS = "list:users"
    READ_SERVERS = "read:servers"
    READ_GROUPS = "read:users:groups"
    DELETE_SERVERS = "delete:servers"
    PROXY = "proxy"
    TOKENS = "tokens"


PURPOSE = {
    Scope.LIST_USERS: "to list the Hub's users",
    Scope.READ_SERVERS: "to see their servers and when they were last active",
    Scope.READ_GROUPS: "to match policies by group",
    Scope.DELETE_SERVERS: "to stop servers",
    Scope.PROXY: "to find where a server listens, to ask it whether it is busy",
    Scope.TOKENS: "to mint a token for asking one server (tokens!user=PROBE-USER is enough)",
}


@dataclass(frozen=True)
class Granted:
    """The scopes of one token: name of the scope → its filters, none meaning everywhere."""

    filters: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, scopes: Iterable[str]) -> "Granted":
        """Read scopes as the Hub spells them; an unfiltered one swallows its filtered twins."""
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
        """Tell whether the scope is granted for some users or servers only."""
        return bool(self.filters.get(scope))

    def allows(self, scope: str) -> bool:
        """Tell whether a scope with a filter (`tokens!user=u`) is granted, or is part of one."""
        name, _, condition = scope.partition("!")
        conditions = self.filters.get(name)
        return conditions is not None and (not conditions or condition in conditions)

    def may_stop(self, user: str, groups: tuple[str, ...] | UnsetType, server: str) -> bool:
        """Tell whether `delete:servers` reaches this server; in doubt it does not.

        Groups that the token cannot see are no doubt where `read:servers` has the same filters:
        then a server that is seen is one that may be stopped.
        """
        conditions = self.filters.get(Scope.DELETE_SERVERS)
        if not conditions:
            return True  # everywhere; or nowhere, which is the gate's business, not a server's
        if {f"user={user}", f"server={user}/{server}"} & conditions:
            return True
        if isinstance(groups, UnsetType):
            seen = self.filters.get(Scope.READ_SERVERS, frozenset())
            return bool(seen) and seen <= conditions
        return any(f"group={group}" in conditions for group in groups)
