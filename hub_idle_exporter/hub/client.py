"""The Hub's REST API: the only place that knows its URLs and holds its token.

Every failure of a request is a `HubError` with a cause and a sentence for people. The token is sent
only to the configured address: no redirect and no `next.url` is followed, no proxy and no .netrc of
the environment is used, no cookie is kept.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar
from urllib.parse import quote

import requests
from msgspec import UNSET
from requests.adapters import HTTPAdapter
from requests.utils import default_headers
from urllib3.exceptions import HTTPError

from ..domain.labels import Cause, Operation
from ..domain.model import (
    Identity,
    MintedToken,
    Next,
    Route,
    RoutePage,
    Server,
    User,
    UserPage,
    Version,
    version_numbers,
)
from ..domain.settings import ConnectionSettings
from .decoding import date_of, decode, seconds_of
from .errors import HubError, refusal, unreachable
from .token import Token

PAGINATED = "application/jupyterhub-pagination+json"
PROBE_TOKEN_SECONDS = 60
_ROUTES_PER_PAGE = 200
_HEADERS = {**default_headers(), "Accept": PAGINATED}
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class UserListing:
    """All users with running or pending servers, by name.

    `now` is the Hub's clock when the first page was sent. `complete` is False if the list changed
    so much while it was read that servers may be missing.
    """

    users: Mapping[str, User]
    now: float
    complete: bool

    @cached_property
    def hidden_users(self) -> int:
        """Count users whose servers are hidden from the token."""
        return sum(user.servers is UNSET for user in self.users.values())


@dataclass(frozen=True)
class UserReading:
    """One user as described by the Hub at the time `now` of its clock."""

    user: User
    now: float

    def server(self, name: str) -> Server | None:
        """Return a server of the user; None if it does not exist, or is hidden from the token."""
        return self.user.seen_servers.get(name)


@dataclass(frozen=True)
class _Response:
    status: int
    body: bytes
    now: float | None
    version: str | None
    retry_after: float


class Hub:
    """The Hub; safe to use from many threads.

    Args:
        connection: address and limits.
        token: the sidecar's own.
        on_answer: called with the Hub's clock (None if unreadable) whenever the Hub answered.
        on_request: called with an operation and the seconds it took, errors included.
    """

    def __init__(
        self,
        connection: ConnectionSettings,
        token: Token,
        on_answer: Callable[[float | None], None] = lambda _now: None,
        on_request: Callable[[Operation, float], None] = lambda _operation, _seconds: None,
    ) -> None:
        self._connection, self._token = connection, token
        self._base = connection.url.rstrip("/")
        self._on_answer, self._on_request = on_answer, on_request
        self._adapter = HTTPAdapter(pool_maxsize=connection.max_connections)
        self._rotating = threading.Lock()
        self.version: str | None = None

    def ask_version(self) -> str:
        """Ask for the Hub's version (`GET /`), which needs no scope."""
        response = self._send(Operation.VERSION, "GET", "/", with_token=False)
        self.version = self._decode(response, Version).version
        return self.version

    def identity(self) -> Identity:
        """Ask whose token this is and what it may do (`GET /user`)."""
        return self._decode(self._send(Operation.IDENTITY, "GET", "/user"), Identity)

    def users(self) -> UserListing:
        """Read all users with running or pending servers, page by page (`GET /users`).

        The next page is requested by offset, under our own base URL. If users disappeared between
        two pages, the next users may have moved up past the offset. The page is then requested
        again, starting earlier by that many.
        """
        users: dict[str, User] = {}
        offset, now, totals = 0, 0.0, list[int]()
        while True:
            query = f"/users?state=active&limit={self._connection.page_size}&offset={offset}"
            response = self._send(Operation.LIST_USERS, "GET", query)
            page = self._decode(response, UserPage)
            now = now or self._clock(response)
            for user in page.items:
                users[user.name] = user
            totals.append(page.pagination.total)
            vanished = max(0, totals[-2] - totals[-1]) if len(totals) > 1 else 0
            if vanished and offset and _is_steady(totals):
                offset = max(0, offset - vanished)
            elif page.pagination.next is None:
                return UserListing(users, now, self._is_complete(len(users), totals))
            else:
                offset = self._next_offset(offset, page.pagination.next)

    def user(self, name: str, stopped_servers: bool = False) -> UserReading | None:
        """Ask for one user (`GET /users/{name}`); None if it does not exist, or is hidden.

        With `stopped_servers` stopped servers are listed too (from JupyterHub 3.0).
        """
        query = "?include_stopped_servers=1" if stopped_servers else ""
        path = f"/users/{_quoted(name)}{query}"
        response = self._send(Operation.GET_USER, "GET", path, accept=(200, 404))
        if response.status == 404:
            return None
        return UserReading(self._decode(response, User), self._clock(response))

    def stop(self, user: str, server: str) -> None:
        """Ask the Hub to stop a server.

        That it agrees (204 done, 202 still stopping) proves nothing: it also answers 204 to a
        failed stop.
        """
        self._send(Operation.STOP_SERVER, "DELETE", _server_path(user, server), accept=(202, 204))

    def remove(self, user: str, server: str) -> None:
        """Remove a named server that is stopped."""
        path, body = _server_path(user, server), {"remove": True}
        self._send(Operation.REMOVE_SERVER, "DELETE", path, body, accept=(202, 204))

    def routes(self) -> list[Route]:
        """Read all routes of the proxy, page by page (`GET /proxy`)."""
        routes: dict[str, Route] = {}
        offset = 0
        while True:
            query = f"/proxy?limit={_ROUTES_PER_PAGE}&offset={offset}"
            response = self._send(Operation.LIST_ROUTES, "GET", query)
            page = self._decode(response, RoutePage)
            routes.update(page.items)
            if page.pagination.next is None:
                return list(routes.values())
            offset = self._next_offset(offset, page.pagination.next)

    def mint_token(self, prober: str, user: str, server: str) -> MintedToken:
        """Mint a token of `prober` for this one server, valid for a minute."""
        body = {
            "scopes": [f"access:servers!server={user}/{server}"],
            "expires_in": PROBE_TOKEN_SECONDS,
            "note": "hub-idle-exporter: busy check",
        }
        path = f"/users/{_quoted(prober)}/tokens"
        response = self._send(Operation.MINT_TOKEN, "POST", path, body, accept=(200, 201))
        return self._decode(response, MintedToken)

    def revoke_token(self, prober: str, token_id: str) -> None:
        """Revoke a minted token; one that has already expired is no error."""
        path = f"/users/{_quoted(prober)}/tokens/{_quoted(token_id)}"
        self._send(Operation.REVOKE_TOKEN, "DELETE", path, accept=(204, 404))

    def _decode(self, response: _Response, shape: type[_Answer]) -> _Answer:
        answer = decode(response.body, shape, self._base, self._token.mask)
        if response.version is None:  # a proxy removed the header, but the answer is the Hub's
            self._on_answer(response.now)
        return answer

    def _clock(self, response: _Response) -> float:
        if response.now is None:
            raise HubError(Cause.RESPONSE, f"{self._base} answered without a readable Date header")
        return response.now

    def _is_complete(self, users: int, totals: list[int]) -> bool:
        """Tell whether no user is missing from a list.

        Before JupyterHub 5 `total` counts servers, not users, and cannot be compared.
        """
        counts_users = version_numbers(self.version or "") >= (5, 0)
        return _is_steady(totals) and (users >= totals[-1] or not counts_users)

    def _next_offset(self, offset: int, following: Next) -> int:
        if following.offset <= offset:
            why = f"{self._base} names a next page that does not advance past offset {offset}"
            raise HubError(Cause.RESPONSE, why)
        return following.offset

    def _send(
        self,
        operation: Operation,
        method: str,
        path: str,
        body: object = None,
        accept: tuple[int, ...] = (200,),
        with_token: bool = True,
    ) -> _Response:
        sent = self._token.header if with_token else None
        response = self._exchange(operation, method, path, body, sent)
        if response.status in (401, 403) and sent is not None and self._rotated_since(sent):
            response = self._exchange(operation, method, path, body, self._token.header)
        if response.version is not None:  # a proxy in front may answer too, but not with this
            self._on_answer(response.now)
            self.version = self._token.mask(response.version)
        if response.status not in accept:
            request = f"{method} {self._base}{path.partition('?')[0]}"
            raise refusal(operation, request, response.status, response.body, response.retry_after)
        return response

    def _rotated_since(self, sent: str) -> bool:
        """Tell whether the token has changed; another thread may already have read it again."""
        with self._rotating:
            return self._token.header != sent or self._token.reread()

    def _exchange(
        self, operation: Operation, method: str, path: str, body: object, authorization: str | None
    ) -> _Response:
        headers = _HEADERS if authorization is None else _HEADERS | {"Authorization": authorization}
        request = requests.Request(method, self._base + path, headers=headers, json=body)
        connection = self._connection
        begun = time.monotonic()
        try:
            # Without a session: no redirect is followed, no cookie kept, and no proxy or .netrc of
            # the environment used.
            with self._adapter.send(
                request.prepare(),
                timeout=(min(10.0, connection.timeout), connection.timeout),
                stream=True,
                verify=connection.ca_file or True,
                cert=connection.client_certificate,
            ) as answer:
                # Read at once; by default it would be joined from pieces of 10 kB.
                content = b"".join(answer.iter_content(None))
        except (OSError, HTTPError) as error:  # requests does not wrap every error of urllib3
            raise unreachable(error, self._base, connection.timeout) from None
        finally:
            self._on_request(operation, time.monotonic() - begun)
        return _Response(
            answer.status_code,
            content,
            date_of(answer.headers.get("Date")),
            answer.headers.get("X-JupyterHub-Version"),
            seconds_of(answer.headers.get("Retry-After")),
        )


def _quoted(name: str) -> str:
    if name in (".", ".."):  # clients and proxies resolve these, even quoted
        raise HubError(Cause.RESPONSE, f"the name {name!r} cannot be used in a URL of the Hub")
    return quote(name, safe="")


def _server_path(user: str, server: str) -> str:
    if server:
        return f"/users/{_quoted(user)}/servers/{_quoted(server)}"
    return f"/users/{_quoted(user)}/server"


def _is_steady(totals: list[int]) -> bool:
    """Tell whether only a few users left while the list was read; if more did, it may have gaps."""
    vanished = sum(max(0, before - after) for before, after in pairwise(totals))
    return vanished <= 10 + max(totals) / 100
