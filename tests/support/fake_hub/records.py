"""What the fake Hub knows: users, their servers, tokens."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from .state import HubState
    from .user_server import FakeServer


class _Watched:
    """Tell the owner that something was assigned, so that what it rendered is made anew."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.changed()

    def changed(self) -> None:
        raise NotImplementedError


@dataclass(eq=False)
class Server(_Watched):
    """A server as the Hub knows it; its user's name and its own (`""`: the default server)."""

    user: "User" = field(repr=False)
    name: str = ""
    ready: bool = True
    pending: str | None = None  # spawn, stop, check, rename
    stopped: bool = False
    started: float | str | None = None  # epoch seconds; a str is sent as it stands
    last_activity: float | str | None = None
    user_options: dict[str, Any] | None = None  # None: none given; {} while it is not stopped
    target: "FakeServer | None" = None
    route_activity: float | str | None = None  # in the proxy's data; None: as last_activity
    stop_fails: bool = False  # the spawner's stop() raises; the process lives on
    stop_takes: float | threading.Event = 0.0  # seconds, or until the event is set
    process_alive: bool = True  # what the Hub cannot see
    extra: dict[str, Any] = field(default_factory=dict)  # merged into what is sent

    def __setattr__(self, name: str, value: object) -> None:
        if name == "started" and value is not None:
            self.__dict__["process_started"] = value  # which an orphan goes on saying
        super().__setattr__(name, value)

    def changed(self) -> None:
        self.__dict__["user"].changed()

    @property
    def process_started(self) -> float | str | None:
        """When the process was started, which outlives what the Hub knows."""
        return self.__dict__.get("process_started")

    @property
    def routespec(self) -> str:
        spec = f"/user/{quote(self.user.name, safe='@~')}/"
        return f"{spec}{quote(self.name, safe='@~')}/" if self.name else spec


@dataclass(eq=False)
class User(_Watched):
    """A registered user; `scopes` are what the user's own roles hold (for tokens minted)."""

    name: str
    admin: bool = False
    groups: Sequence[str] = ()
    scopes: Sequence[str] = ()
    last_activity: float | str | None = None
    created: float | str | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    hub: "HubState | None" = field(default=None, repr=False)

    def changed(self) -> None:
        own = self.__dict__
        own["version"] = own.get("version", 0) + 1
        hub = own.get("hub")
        if hub is not None:
            hub.changes += 1


@dataclass
class Token:
    """An API token: of a service (`user` None) or of a user; times are the Hub's."""

    value: str
    id: str
    scopes: list[str]
    user: str | None = None
    service: str | None = None
    expires: float | None = None
    note: str = ""
    created: float = 0.0


def timestamp(value: float | str | None) -> str | None:
    """Return a time as the Hub writes it; a str as it stands."""
    if value is None or isinstance(value, str):
        return value
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
