"""The Hub's state, and how a test builds it."""

import itertools
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .exchange import Refused
from .http_fake import HttpFake
from .records import Server, Token, User, timestamp
from .scopes import ADMIN, ENFORCE, OF_PROBER, PROBER, View
from .user_server import FakeServer


class HubState(HttpFake):
    """The Hub's users, servers and tokens, its clock and settings; `url` is the API's base."""

    def __init__(self, version: str = "6.1.1", port: int = 0) -> None:
        self.version = version
        self.users: dict[str, User] = {}
        self.tokens: dict[str, Token] = {}
        self.revoked: list[Token] = []
        self.clock: Callable[[], float] = time.time
        self.clock_offset = 0.0  # seconds the Hub's clock is ahead
        self.page_limit = 50
        self.page_limit_max = 200
        self.slow_stop_timeout = 10.0
        self.next_origin = "http://hub.invalid:1"  # where `next.url` wrongly points
        self.routes: dict[str, dict[str, Any]] = {}  # more routes of the proxy, by routespec
        self.changes = 0
        self.rendered: dict[tuple[str, tuple[bool, ...]], tuple[int, bytes]] = {}
        self._lists: dict[tuple[str | None, str], tuple[int, list[User]]] = {}
        self._values = itertools.count(1)
        self.lock = threading.RLock()
        super().__init__(port)
        self.admin_token = self.add_token(ADMIN)
        self.add_user(PROBER, scopes=OF_PROBER)
        self.token = self.add_token(ENFORCE)

    @property
    def url(self) -> str:
        return f"{self.origin}/hub/api"

    def now(self) -> float:
        """Return the Hub's time, epoch seconds."""
        return self.clock() + self.clock_offset

    def headers(self) -> dict[str, str]:
        return {"X-JupyterHub-Version": self.version}

    # -- building

    def add_user(
        self,
        name: str,
        admin: bool = False,
        groups: Sequence[str] = (),
        scopes: Sequence[str] = (),
    ) -> User:
        """Register a user."""
        user = User(name, admin, tuple(groups), tuple(scopes), hub=self)
        user.created = self.now()
        self.users[name] = user
        return user

    def add_server(
        self,
        user: str,
        name: str = "",
        idle: float | None = 3600,
        age: float | None = 7200,
        ready: bool = True,
        pending: str | None = None,
        user_options: dict[str, Any] | None = None,
        target: "FakeServer | None" = None,
        **more: Any,
    ) -> Server:
        """Run a server (of a user who is registered when new); None for an unknown time."""
        owner = self.users.get(user) or self.add_user(user)
        now = self.now()
        server = Server(
            owner,
            name,
            ready=ready and pending is None,
            pending=pending,
            started=None if age is None else now - age,
            last_activity=None if idle is None else now - idle,
            user_options=user_options,
            target=target,
            **more,
        )
        with self.lock:
            owner.servers[name] = server
            owner.changed()
            if server.last_activity is not None:
                seen = owner.last_activity
                moments = [server.last_activity, *([seen] if isinstance(seen, float) else [])]
                owner.last_activity = max(moments)
        if target is not None:
            target.serve(server, lambda token: self.may_access(token, user, name))
        return server

    def add_servers(self, count: int, idle: float = 3600, **more: Any) -> None:
        """Run `count` default servers of users named u000000, u000001, ..."""
        for number in range(count):
            self.add_server(f"u{number:06d}", idle=idle, **more)

    def remove_user(self, name: str) -> None:
        """Delete a user with all servers."""
        with self.lock:
            self.users.pop(name).changed()

    def add_token(
        self,
        scopes: Sequence[str],
        user: str | None = None,
        service: str = "hub-idle-exporter",
        expires: float | None = None,
    ) -> str:
        """Make a token; without `user` it is the service's."""
        with self.lock:
            # As with SQLite: once the newest is gone, the next one gets its id.
            number = max((int(token.id[1:]) for token in self.tokens.values()), default=0) + 1
            value = f"{next(self._values):04d}" + "f4ke" * 7
            owner = None if user is not None else service
            token = Token(value, f"a{number}", list(scopes), user, owner, expires)
            token.created = self.now()
            self.tokens[value] = token
        return value

    def server(self, user: str, name: str = "") -> Server:
        return self.users[user].servers[name]

    def may_access(self, token: str, user: str, server: str) -> bool:
        """Tell whether this token opens this user's server now."""
        known = self.find_token(token)
        owner = self.users.get(user)
        return known is not None and View(known).may("access:servers", owner, server)

    def find_token(self, value: str) -> Token | None:
        token = self.tokens.get(value)
        expired = token is not None and token.expires is not None and token.expires <= self.now()
        return None if expired else token

    @property
    def release(self) -> tuple[int, int]:
        """The version's first two numbers."""
        numbers = [int(part) for part in re.findall(r"\d+", self.version)[:2]]
        return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)

    def users_in_state(self, state: str | None, sort: str = "") -> list[User]:
        if state not in (None, "inactive", "active", "ready"):
            raise Refused(400, f"Unrecognized state filter: {state!r}")
        changes, users = self._lists.get((state, sort), (-1, []))
        if changes != self.changes:
            changes = self.changes
            active = state in ("active", "ready")
            users = [u for u in self.users.values() if state is None or _is_active(u) == active]
            self._lists[state, sort] = (changes, _sorted(users, sort))
        return self._lists[state, sort][1]


def _is_active(user: User) -> bool:
    return any(not server.stopped for server in user.servers.values())


def _sorted(users: list[User], sort: str) -> list[User]:
    """Sort as a Hub does: those who were never active come first, or last."""
    if sort not in ("last_activity", "-last_activity"):
        return users
    newest_first = sort[0] == "-"
    never = [user for user in users if user.last_activity is None]
    others = [user for user in users if user.last_activity is not None]
    others.sort(key=lambda user: timestamp(user.last_activity) or "", reverse=newest_first)
    return others + never if newest_first else never + others
