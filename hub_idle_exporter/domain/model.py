"""Users and servers as the Hub's REST API sends them, typed, and decoded straight from bytes.

Only what is needed is kept: `user_info` and `auth_state` are personal data and are skipped while
decoding. A key that the token may not see is *missing* from the Hub's answer, which is not the
same as empty: such a field is `UNSET`.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

# Bytes. What a user chose is decoded only up to here: a hundred times what a profile needs.
LARGEST_OPTIONS = 1 << 20
_Name = Annotated[str, Meta(min_length=1)]


class Server(msgspec.Struct, frozen=True, gc=False):
    """One server of one user, as in the `servers` of a user model."""

    ready: bool = False
    pending: str | None = None
    started: datetime | None = None
    last_activity: datetime | None = None
    # Free-form and chosen by the user: read only where a policy matches on it, never exported.
    user_options: msgspec.Raw = msgspec.Raw(b"null")

    def options(self) -> Mapping[str, object] | None:
        """Decode `user_options`, {} if they are no object; None if they cannot be read.

        By Python's json, which reads what the Hub's own writes (NaN, half a surrogate pair).
        Numbers are not needed: as floats they may be of any length.
        """
        if memoryview(self.user_options).nbytes > LARGEST_OPTIONS:
            return None
        try:
            options: object = json.loads(bytes(self.user_options), parse_int=float)
        except (ValueError, RecursionError):
            return None
        return options if isinstance(options, dict) else {}


class User(msgspec.Struct, frozen=True, gc=False):
    """One user; `servers` maps a server's name (`""` is the default server) to the server."""

    name: _Name
    admin: bool | UnsetType = UNSET
    # A tuple, which the garbage collector need not walk: a poll may have ten thousand of them.
    groups: tuple[str, ...] | UnsetType = UNSET
    servers: dict[str, Server] | UnsetType = UNSET
    last_activity: datetime | UnsetType | None = UNSET

    @property
    def seen_servers(self) -> dict[str, Server]:
        """Return the servers that the token may see."""
        return {} if isinstance(self.servers, UnsetType) else self.servers


class AccountServer(Server, frozen=True, gc=False):
    """A server of an account; a Hub that lists stopped ones says so."""

    stopped: bool = False

    @property
    def is_at_rest(self) -> bool:
        """Tell whether it is certain that nothing runs, starts or stops."""
        return self.stopped and not self.ready and self.pending is None


class Account(User, frozen=True, gc=False):
    """A user with what tells how long it has been idle.

    `servers` are those that run or are pending, and the stopped ones too if these were asked for.
    """

    servers: dict[str, AccountServer] | UnsetType = UNSET  # type: ignore[assignment]
    created: datetime | UnsetType | None = UNSET


AnyUser = TypeVar("AnyUser", bound=User)


class Next(msgspec.Struct, frozen=True):
    """Where the Hub says the next page begins. Its `url` is ignored on purpose."""

    offset: int


class Pagination(msgspec.Struct, frozen=True):
    """The `_pagination` of a page; `total` counts users, or routes, on all pages."""

    total: int
    next: Next | None


class UserPage(msgspec.Struct, Generic[AnyUser], frozen=True):
    """A page of `GET /users`."""

    items: list[AnyUser]
    pagination: Pagination = msgspec.field(name="_pagination")


class RouteData(msgspec.Struct, frozen=True):
    """The Hub's data of a route; `last_activity` is the proxy's, in UTC without a time zone."""

    user: str | None = None
    server_name: str | None = None
    last_activity: datetime | None = None


class Route(msgspec.Struct, frozen=True):
    """One route of the proxy; `target` is the internal address behind `routespec`."""

    routespec: str
    target: str
    data: RouteData = RouteData()


class RoutePage(msgspec.Struct, frozen=True):
    """A page of `GET /proxy`."""

    items: dict[str, Route]
    pagination: Pagination = msgspec.field(name="_pagination")


class Identity(msgspec.Struct, frozen=True):
    """Whose token this is, and its scopes with their filters (`GET /user`)."""

    name: _Name
    kind: _Name
    scopes: list[str]


class Version(msgspec.Struct, frozen=True):
    """The answer to `GET /`."""

    version: Annotated[str, Meta(pattern=r"^\d+\.\d+[\w.+-]*\Z", max_length=50)]


class MintedToken(msgspec.Struct, frozen=True):
    """The answer to `POST /users/{name}/tokens`; times are the Hub's.

    `scopes` are what the token may do: all that its owner may, if none were asked for.
    """

    id: str
    token: str
    created: datetime
    expires_at: datetime
    scopes: list[str] = []

    def __repr__(self) -> str:
        return f"MintedToken(id={self.id!r}, token=masked)"


class ListedToken(msgspec.Struct, frozen=True):
    """One token in the answer to `GET /users/{name}/tokens`, which lists no expired ones."""

    id: str
    created: datetime
    note: str | None = None
    expires_at: datetime | None = None


class TokenList(msgspec.Struct, frozen=True):
    """The answer to `GET /users/{name}/tokens`."""

    api_tokens: list[ListedToken]


def utc(moment: datetime) -> datetime:
    """Read a time of the Hub; one without a time zone is UTC (older Hubs)."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def seconds(moment: datetime) -> float:
    """Turn a time of the Hub that is always there into seconds since 1970."""
    return utc(moment).timestamp()


def epoch(moment: datetime | None) -> float | None:
    """Turn a time of the Hub into seconds since 1970."""
    return None if moment is None else seconds(moment)


def version_numbers(version: str) -> tuple[int, ...]:
    """Read the `6.1` of `6.1.1` as numbers, up to the first part that is not a number."""
    numbers: list[int] = []
    for part in version.split(".")[:2]:
        if not (part.isascii() and part.isdigit() and len(part) < 10):
            break
        numbers.append(int(part))
    return tuple(numbers)
