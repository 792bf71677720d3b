"""The Hub's REST API: the only place that knows its URLs and holds its token.

Every failure of a request is a `HubError` with a cause and a sentence for people. The token is sent
only to the configured address: no redirect and no `next.url` is followed, no proxy and no .netrc of
the environment is used, no cookie is kept.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar
from urllib.parse import quote

import requests
from msgspec import UNSET, UnsetType
from requests.utils import default_headers
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from ..clocks import steady
from ..domain.labels import Cause, Operation
from ..domain.model import (
    Account,
    AnyUser,
    Identity,
    ListedToken,
    MintedToken,
    Route,
    RoutePage,
    Server,
    TokenList,
    User,
    Version,
    epoch,
    version_numbers,
)
from ..domain.settings import ConnectionSettings
from .bounded import BoundedAdapter, read_whole
from .changes import FEWEST_READ, Changes, Order
from .decoding import DecodedUsers, date_of, decode, decode_users, seconds_of
from .errors import HubError, refusal, unreachable
from .listing import UserPages, next_offset
from .pace import Pace
from .throttle import PAGE_SECONDS, ListTime, Throttle, Turns
from .token import Token

PAGINATED = "application/jupyterhub-pagination+json"
NOTE_PREFIX = "hub-idle-exporter: "
LISTING_SECONDS = 300.0  # for all pages of a list together, pauses not counted
_ROUTES_PAUSING_SECONDS = 1.0  # routes must be young when a server is stopped
_ROUTES_PER_PAGE = 200
_IF_LARGE = "lower --api-page-size, or look for users with huge user_options"
# What the Hub answers at once, if it can.
_QUICK = frozenset(
    {Operation.VERSION, Operation.IDENTITY, Operation.GET_USER, Operation.MINT_TOKEN}
)
# What was decided before the first try may be too old at the second.
_NEVER_AGAIN = frozenset({Operation.STOP_SERVER, Operation.REMOVE_SERVER, Operation.DELETE_USER})
# Those of which a cull needs many, and the Hub answers quickly.
_IN_TURN = frozenset({Operation.GET_USER, Operation.MINT_TOKEN, Operation.REVOKE_TOKEN})
# How often it is tried to bring a list up to date while servers start and stop.
_TRIES = 2
# Not compressed: how much memory an answer needs is to be known before it is read.
_HEADERS = {**default_headers(), "Accept": PAGINATED, "Accept-Encoding": "identity"}
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class UserListing:
    """All users with running or pending servers, by name.

    `now` is the Hub's clock when the first page was sent, `full_at` the same for the newest full
    list. `complete` is False if the list changed so much while it was read that many servers may be
    missing. `unreadable` names the users who cannot be decoded, and gives their number in the list
    where there is no name.
    """

    users: Mapping[str, User]
    now: float
    full_at: float
    complete: bool
    unreadable: tuple[str, ...]

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
class AccountListing:
    """Users without a running or pending server at the time `now` of the Hub's clock.

    `complete` is False if the list changed so much while it was read that it may be wrong.
    `unreadable` is how many users cannot be decoded, and are left out.
    """

    accounts: Sequence[Account]
    now: float
    complete: bool
    unreadable: int


@dataclass(frozen=True)
class AccountReading:
    """One user, with all its servers, as described by the Hub at the time `now` of its clock."""

    account: Account
    now: float


@dataclass(frozen=True)
class TokenReading:
    """The tokens of a user that had not expired at the time `now` of the Hub's clock."""

    tokens: Sequence[ListedToken]
    now: float


@dataclass(frozen=True)
class _Response:
    status: int
    body: bytes
    now: float | None
    version: str | None
    retry_after: float
    took: float  # seconds


class Hub:
    """The Hub; safe to use from many threads.

    Args:
        connection: address and limits.
        token: the sidecar's own.
        on_answer: called whenever the Hub answered, with its clock (None if unreadable) and the
            seconds that the answer took.
        on_request: called with an operation and the seconds it took, errors included.
        wait: waits so many seconds between the pages of a list, or until the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        connection: ConnectionSettings,
        token: Token,
        on_answer: Callable[[float | None, float], None] = lambda _now, _took: None,
        on_request: Callable[[Operation, float], None] = lambda _operation, _seconds: None,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._connection, self._token = connection, token
        self._base = connection.url.rstrip("/")
        self._on_answer, self._on_request = on_answer, on_request
        self._steady = clock
        self._adapter = BoundedAdapter(pool_maxsize=connection.max_connections)
        self._throttle = Throttle(
            connection.max_share / 100,
            connection.page_size,
            min(connection.list_seconds, LISTING_SECONDS / 2),
            wait,
            clock,
        )
        self._turns = Turns()
        self._rotating = threading.Lock()
        self.pace = Pace(clock)
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

        The next page is requested by offset, under our own base URL.
        """
        pages, now = self._list(Operation.LIST_USERS, "?state=active", User)
        # Before JupyterHub 5 `total` counts servers, not users.
        complete = pages.is_complete(counts_users=self.sorts_users)
        return UserListing(pages.users, now, now, complete, pages.unreadable)

    def changed_users(self, before: UserListing, order: Order) -> UserListing | None:
        """Bring a complete list up to date, from the users last active (`GET /users`).

        The Hub must sort users. None if only the full list can tell who has servers now. `order` is
        as of the poll before, and becomes that of this one.
        """
        list_time, now = self._list_time(), 0.0
        users = before.users
        for _ in range(_TRIES):
            changes, clock = self._changes(users, order, list_time)
            now, users = now or clock, changes.users
            if changes.is_doubtful:
                return None
            wanted = "?state=active&limit=1"
            page, _ = self._user_page(Operation.LIST_USERS, wanted, 0, list_time, User)
            if page.pagination.total == len(users):
                return replace(before, users=users, now=now)
        return None

    def ask_order(self, order: Order) -> None:
        """Ask who was active last (`GET /users`), before changes are read for the first time."""
        wanted = f"?sort=-last_activity&limit={self._throttle.page_size(Operation.LIST_USERS)}"
        page, _ = self._user_page(Operation.LIST_USERS, wanted, 0, self._list_time(), User)
        order.put_in_front([one.name for one in page.users])

    def _changes(
        self, known: Mapping[str, User], order: Order, list_time: ListTime
    ) -> tuple[Changes, float]:
        """Read the users last active until all come as before; give the Hub's clock at first."""
        changes, now = Changes(known, order), 0.0
        offset: int | None = 0
        size = min(FEWEST_READ, self._connection.page_size)
        while offset is not None:
            wanted = f"?sort=-last_activity&limit={size}"
            page, response = self._user_page(Operation.LIST_USERS, wanted, offset, list_time, User)
            now = now or self._clock(response)
            size = self._throttle.page_size(Operation.LIST_USERS)
            if page.unreadable or not page.users:
                changes.is_doubtful = True
                break
            is_enough = changes.take(page.users)
            offset = None if is_enough else next_offset(offset, page.pagination.next, self._base)
        order.put_in_front(changes.read)
        return changes, now

    @property
    def sorts_users(self) -> bool:
        """Tell whether the Hub sorts users if asked to; it then also counts users, not servers."""
        return version_numbers(self.version or "") >= (5, 0)

    def in_turn(self) -> AbstractContextManager[None]:
        """Wait once for several requests that belong together, such as a mint and a look.

        Only small ones wait, a second at most: a Hub that gets many at once keeps everybody else
        waiting.
        """
        return self._turns.turn()

    def idle_users(self, limit: float, stopped_servers: bool = False) -> AccountListing:
        """Read the users without a running or pending server, page by page (`GET /users`).

        From JupyterHub 5.0 it sorts them: then only those are read who were not active in the last
        `limit` seconds, and a page more. With `stopped_servers` stopped servers are listed too: a
        Hub keeps a user in memory for each, so it is not to be asked for without need.
        """
        in_order = self.sorts_users
        wanted = "?state=inactive" + ("&sort=last_activity" if in_order else "")
        wanted += "&include_stopped_servers=1" if stopped_servers else ""
        pages, now = self._list(
            Operation.LIST_IDLE_USERS,
            wanted,
            Account,
            lambda page, now: in_order and _is_past(page, now - limit),
        )
        accounts = list(pages.users.values())
        return AccountListing(accounts, now, not pages.crowd_left, len(pages.unreadable))

    def account(self, name: str) -> AccountReading | None:
        """Ask for one user with all its servers; None if it does not exist, or is hidden."""
        response = self._user(name, "?include_stopped_servers=1")
        if response is None:
            return None
        return AccountReading(self._decode(response, Account), self._clock(response))

    def delete_user(self, name: str, token: str | None = None) -> None:
        """Delete a user (`DELETE /users/{name}`), which cannot be undone.

        A Hub stops the user's default server first if it is ready, whatever runs in it. It refuses
        with 400 while that server is stopping. With another server active it fails with 500, after
        it has had authenticator and spawner delete what they keep of the user.

        Args:
            name: of the user.
            token: one that was minted for this; None for our own.
        """
        path = f"/users/{_quoted(name)}"
        self._send(Operation.DELETE_USER, "DELETE", path, accept=(204,), token=token)

    def user(self, name: str, stopped_servers: bool = False) -> UserReading | None:
        """Ask for one user (`GET /users/{name}`); None if it does not exist, or is hidden.

        With `stopped_servers` stopped servers are listed too (from JupyterHub 3.0). A 404 counts
        only with the Hub's own header: a proxy in front may send one while the Hub is away.
        """
        response = self._user(name, "?include_stopped_servers=1" if stopped_servers else "")
        if response is None:
            return None
        return UserReading(self._decode(response, User), self._clock(response))

    def stop(self, user: str, server: str, token: str | None = None) -> None:
        """Ask the Hub to stop a server, with a token that was minted for this or with our own.

        That it agrees (204 done, 202 still stopping) proves nothing: it also answers 204 to a
        failed stop.
        """
        path = _server_path(user, server)
        self._send(Operation.STOP_SERVER, "DELETE", path, accept=(202, 204), token=token)

    def remove(self, user: str, server: str, token: str | None = None) -> None:
        """Remove a named server that is stopped; the Hub stops it first if it is not."""
        path, body = _server_path(user, server), {"remove": True}
        self._send(Operation.REMOVE_SERVER, "DELETE", path, body, accept=(202, 204), token=token)

    def routes(self) -> list[Route]:
        """Read all routes of the proxy, page by page (`GET /proxy`)."""
        routes: dict[str, Route] = {}
        list_time = self._list_time(_ROUTES_PAUSING_SECONDS)
        offset: int | None = 0
        while offset is not None:
            query = f"?limit={_ROUTES_PER_PAGE}&offset={offset}"
            response = self._page(Operation.LIST_ROUTES, "/proxy", query, list_time)
            page = self._decode(response, RoutePage)
            routes.update(page.items)
            offset = next_offset(offset, page.pagination.next, self._base)
        return list(routes.values())

    def mint_token(
        self, owner: str, scopes: Sequence[str] | None, seconds: int, note: str
    ) -> MintedToken:
        """Mint a token of the user `owner` that expires by itself (`POST /users/{name}/tokens`).

        Without `scopes` it may do all that its owner may; an empty list only identifies.
        """
        body = {"scopes": scopes, "expires_in": seconds, "note": f"{NOTE_PREFIX}{note}"}
        path = f"/users/{_quoted(owner)}/tokens"
        response = self._send(Operation.MINT_TOKEN, "POST", path, body, accept=(200, 201))
        return self._decode(response, MintedToken)

    def tokens(self, owner: str) -> TokenReading:
        """List a user's tokens that have not expired (`GET /users/{name}/tokens`)."""
        response = self._send(Operation.LIST_TOKENS, "GET", f"/users/{_quoted(owner)}/tokens")
        listed = self._decode(response, TokenList).api_tokens
        return TokenReading(listed, self._clock(response))

    def revoke_token(self, owner: str, token_id: str) -> None:
        """Revoke a token that has not expired; one that is gone is no error.

        The Hub gives the id of an expired token to a new one: never revoke what may have expired.
        """
        path = f"/users/{_quoted(owner)}/tokens/{_quoted(token_id)}"
        self._send(Operation.REVOKE_TOKEN, "DELETE", path, accept=(204, 404))

    def owner_of(self, token: str) -> Identity:
        """Ask the Hub whose token this is, by using it (`GET /user`)."""
        return self._decode(self._send(Operation.IDENTITY, "GET", "/user", token=token), Identity)

    def _user(self, name: str, query: str) -> _Response | None:
        path = f"/users/{_quoted(name)}{query}"
        response = self._send(Operation.GET_USER, "GET", path, accept=(200, 404))
        if response.status == 404 and response.version is None:
            why = f"{self._base} answered with HTTP 404, but it was not the Hub that answered"
            raise HubError(Cause.RESPONSE, why)
        return None if response.status == 404 else response

    def _list(
        self,
        operation: Operation,
        wanted: str,
        kind: type[AnyUser],
        is_enough: Callable[[Sequence[AnyUser], float], bool] = lambda _page, _now: False,
    ) -> tuple[UserPages[AnyUser], float]:
        """List users until a page is enough; return them, and the Hub's clock at the first page."""
        pages, list_time = UserPages[AnyUser](self._base), self._list_time()
        offset: int | None = 0
        now = 0.0
        while offset is not None:
            query = f"{wanted}&limit={self._throttle.page_size(operation)}"
            page, response = self._user_page(operation, query, offset, list_time, kind)
            now = now or self._clock(response)
            offset = pages.take(page, offset)
            # The last page is seldom a full one: that it was quick says nothing.
            if page.pagination.next is not None or response.took > PAGE_SECONDS:
                users, total = len(page.users), page.pagination.total
                self._throttle.resize(operation, users, response.took, total)
            if is_enough(page.users, now):
                break
        return pages, now

    def _user_page(
        self,
        operation: Operation,
        wanted: str,
        offset: int,
        list_time: ListTime,
        kind: type[AnyUser],
    ) -> tuple[DecodedUsers[AnyUser], _Response]:
        """Read a page of a list of users."""
        response = self._page(operation, "/users", f"{wanted}&offset={offset}", list_time)
        page = decode_users(response.body, offset + 1, self._base, self._token.mask, kind)
        self._believed(response)
        return page, response

    def _list_time(self, pausing: float = math.inf) -> ListTime:
        """Begin a list, with pauses for so many seconds at most."""
        return ListTime(self._throttle, LISTING_SECONDS, pausing)

    def _page(self, operation: Operation, path: str, query: str, list_time: ListTime) -> _Response:
        """Request one page of a list, after a pause."""
        left = list_time.left_after_pause()
        try:
            if left > 0:
                response = self._send(operation, "GET", path + query, within=left)
                self._throttle.page_took(response.took)
                return response
        except HubError as error:
            if error.cause is not Cause.TIMEOUT or left > self._connection.timeout:
                raise
        why = f"{self._base}{path} could not be read to its end within {LISTING_SECONDS:g} s"
        raise HubError(Cause.TIMEOUT, why)

    def _decode(self, response: _Response, shape: type[_Answer]) -> _Answer:
        answer = decode(response.body, shape, self._base, self._token.mask)
        self._believed(response)
        return answer

    def _believed(self, response: _Response) -> None:
        """Take what was decoded for the Hub's, though a proxy may have removed its header."""
        if response.version is None:
            self._on_answer(response.now, response.took)

    def _clock(self, response: _Response) -> float:
        if response.now is None:
            raise HubError(Cause.RESPONSE, f"{self._base} answered without a readable Date header")
        return response.now

    def _send(
        self,
        operation: Operation,
        method: str,
        path: str,
        body: object = None,
        accept: tuple[int, ...] = (200,),
        with_token: bool = True,
        token: str | None = None,
        within: float = math.inf,
    ) -> _Response:
        """Send a request with our own token, with the given one, or with none."""
        seconds = min(within, self._connection.timeout)
        own = self._token.header if with_token and token is None else None
        sent = own if token is None else f"token {token}"
        with self.in_turn() if operation in _IN_TURN else nullcontext():
            response = self._exchange(operation, method, path, body, sent, seconds)
            refused = response.status in (401, 403) and operation not in _NEVER_AGAIN
            if refused and own is not None and self._rotated_since(own):
                fresh = self._token.header
                response = self._exchange(operation, method, path, body, fresh, seconds)
        if response.version is not None:  # a proxy in front may answer too, but not with this
            self._on_answer(response.now, response.took)
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
        self,
        operation: Operation,
        method: str,
        path: str,
        body: object,
        authorization: str | None,
        seconds: float,
    ) -> _Response:
        headers = _HEADERS if authorization is None else _HEADERS | {"Authorization": authorization}
        connection = self._connection
        begun = self._steady()
        try:
            request = requests.Request(method, self._base, headers=headers, json=body).prepare()
            # Added afterwards: requests would turn %2E%2E into "..", which leads elsewhere.
            request.url = (request.url or "").rstrip("/") + path
            # Without a session: no redirect is followed, no cookie kept, and no proxy or .netrc of
            # the environment used.
            with self._adapter.send(
                request,
                timeout=Timeout(seconds, min(10.0, seconds), seconds),  # type: ignore[arg-type]
                stream=True,
                verify=connection.ca_file or True,
                cert=connection.client_certificate,
            ) as answer:
                content = read_whole(answer, self._base, _IF_LARGE)
        except (OSError, HTTPError) as error:  # requests does not wrap every error of urllib3
            raise unreachable(error, self._base, seconds) from None
        finally:
            took = self._steady() - begun
            self._on_request(operation, took)
            if operation in _QUICK:
                self.pace.answered(took)
        return _Response(
            answer.status_code,
            content,
            date_of(answer.headers.get("Date")),
            answer.headers.get("X-JupyterHub-Version"),
            seconds_of(answer.headers.get("Retry-After")),
            took,
        )


def _is_past(page: Sequence[Account], moment: float) -> bool:
    """Tell whether a page ends with somebody who was active after a moment."""
    last = page[-1].last_activity if page else None
    return not isinstance(last, UnsetType) and (epoch(last) or moment) > moment


def _quoted(name: str) -> str:
    if name in (".", ".."):  # unquoted they lead elsewhere: DELETE /users/ana/servers/..
        return "%2E" * len(name)
    return quote(name, safe="")


def _server_path(user: str, server: str) -> str:
    if server:
        return f"/users/{_quoted(user)}/servers/{_quoted(server)}"
    return f"/users/{_quoted(user)}/server"
