"""Scopes: what they imply, and what a token's may do to whom."""

from collections.abc import Iterable

from .records import Token, User

SUBSCOPES = {
    "admin:users": ["users", "admin:auth_state", "delete:users", "read:roles:users"],
    "users": ["read:users", "list:users", "users:activity"],
    "read:users": ["read:users:name", "read:users:groups", "read:users:activity"],
    "users:activity": ["read:users:activity"],
    "list:users": ["read:users:name"],
    "read:users:groups": ["read:users:name"],
    "read:users:activity": ["read:users:name"],
    "admin:servers": ["admin:server_state", "servers"],
    "servers": ["read:servers", "start:servers", "delete:servers"],
    "read:servers": ["read:users:name"],
    "tokens": ["read:tokens"],
}
ADMIN = ["admin:users", "admin:servers", "tokens", "proxy", "access:servers", "read:metrics"]
MONITOR = ["list:users", "read:servers"]
PROBER = "idle-prober"
MINT = [f"tokens!user={PROBER}", f"tokens!service={PROBER}"]
ENFORCE = [*MONITOR, "read:users:groups", "delete:servers", "proxy", *MINT]
OF_PROBER = ["access:servers", "delete:servers"]
# What the default role `user` grants, filtered to the user itself (JupyterHub 6.1).
OF_SELF = ["servers", "tokens", "users:activity", "read:users", "read:users:shares"]


def expand(scopes: Iterable[str]) -> set[str]:
    """Return the scopes with all they imply, filters carried along."""
    expanded: set[str] = set()
    todo = list(scopes)
    while todo:
        scope = todo.pop()
        if scope not in expanded:
            expanded.add(scope)
            name, mark, limit = scope.partition("!")
            todo += [sub + mark + limit for sub in SUBSCOPES.get(name, [])]
    return expanded


class View:
    """What one token may do to whom."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.expanded = expand(token.scopes)
        self.filters: dict[str, list[str]] = {}
        for scope in self.expanded:
            name, _, limit = scope.partition("!")
            self.filters.setdefault(name, []).append(limit)

    def may(self, scope: str, user: User | None, server: str | None = None) -> bool:
        """Tell whether the scope is held and its filters let this user (and server) pass."""
        return any(self._passes(limit, user, server) for limit in self.filters.get(scope, []))

    def _passes(self, limit: str, user: User | None, server: str | None) -> bool:
        kind, _, value = limit.partition("=")
        if not limit or user is None:
            return not limit
        if kind == "group":
            return value in user.groups
        if kind == "server":
            return server is not None and value == f"{user.name}/{server}"
        return kind == "user" and user.name == (value or self.token.user)

    def key(self, user: User) -> tuple[bool, ...]:
        """Return what decides how a user is rendered, or () where that is not simple."""
        scopes = (
            "read:users:name",
            "read:servers",
            "read:users:groups",
            "read:users:activity",
            "read:users",
        )
        if any("server=" in limit for scope in scopes for limit in self.filters.get(scope, [])):
            return ()
        return tuple(self.may(scope, user) for scope in scopes)
