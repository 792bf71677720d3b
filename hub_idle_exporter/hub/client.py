"""The Hub's REST API: the only place that knows its URLs and holds its token.

Every way in which a request can go wrong ends in one `HubError` with a cause and a sentence for
people. The token goes to the configured address alone: no redirect and no `next.url` is followed,
no proxy and no .netrc of the environment is used, no cookie is kept.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from itertools import pairwise
from typing import TypeVar
from urllib.parse import quote

import msgspec
import requests
from msgspec import UNSET
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from ..domain.labels import Cause, Operation
from ..domain.model import (
    Identity,
    MintedToken,
    Next,
    Route,
    RoutePage,
    User,
    UserPage,
    Version,
)

PAGINATED = "application/jupyterhub-pagination+json"
PROBE_TOKEN_SECONDS = 60
LONGEST_RETRY_AFTER = 600.0  # seconds; a page for a day's maintenance must not blind us for a day
_ROUTES_A_PAGE = 200
_Answer = TypeVar("_Answer")


class HubError(Exception):
    """A request to the Hub that did not work; `str()` is one sentence for people.

    `status` is the HTTP status where there was one, `retry_after` the seconds that the Hub asked
    to be left alone.
    """

    def __init__(
        self, cause: Cause, sentence: str, status: int | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(sentence)
        self.cause, self.status, self.retry_after = cause, status, retry_after


class Token:
    """The sidecar's token; read again from its file when the Hub refuses it (rotation)."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._value = read()

    def __repr__(self) -> str:
        return "Token(masked)"

    @property
    def header(self) -> str:
        """Give the `Authorization` header."""
        return f"token {self._value}"

    def mask(self, text: str) -> str:
        """Take the token out of a text that is to be shown."""
        return text.replace(self._value, "***")

    def reread(self) -> bool:
        """Read the token again; tell whether it changed. An unreadable file keeps the old one."""
        try:
            fresh = self._read()
        except (OSError, ValueError):
            return False
        changed, self._value = fresh != self._value, fresh
        return changed


@dataclass(frozen=True)
class Connection:
    """Where the Hub is and how to talk to it; times in seconds."""

    url: str
    timeout: float = 60.0
    page_size: int = 200
    ca_file: str | None = None
    client_certificate: tuple[str, str] | None = None  # certificate, key (internal_ssl)
    most_connections: int = 16


@dataclass(frozen=True)
class Listing:
    """All users with running or pending servers, by name.

    `now` is the Hub's clock when the first page was sent. `whole` is False when the list changed
    so much while it was read that servers may be missing from it. `unseen` counts users whose
    servers the token may not see.
    """

    users: Mapping[str, User]
    now: float
    whole: bool

    @cached_property
    def unseen(self) -> int:
        """Count users whose servers are hidden from the token."""
        return sum(user.servers is UNSET for user in self.users.values())


@dataclass(frozen=True)
class Seen:
    """One user as the Hub describes it at the moment `now` of the Hub's clock."""

    user: User
    now: float


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
        connection: Connection,
        token: Token,
        on_answer: Callable[[float | None], None] = lambda _now: None,
        on_request: Callable[[Operation, float], None] = lambda _operation, _seconds: None,
    ) -> None:
        self._connection, self._token = connection, token
        self._base = connection.url.rstrip("/")
        self._on_answer, self._on_request = on_answer, on_request
        self._session = _session(connection)
        self._rotating = threading.Lock()
        self.version: str | None = None

    def ask_version(self) -> str:
        """Ask who is there (`GET /`): the Hub's version. Needs no scope."""
        response = self._send(Operation.VERSION, "GET", "/", with_token=False)
        self.version = self._decode(response, Version).version
        return self.version

    def identity(self) -> Identity:
        """Ask whose token this is and what it may do (`GET /user`)."""
        return self._decode(self._send(Operation.IDENTITY, "GET", "/user"), Identity)

    def users(self) -> Listing:
        """Read all users with running or pending servers, page by page (`GET /users`).

        The next page is asked for by offset, under our own base URL. Where users vanished before
        a page was sent, their successors may have moved up past it: it is asked for once more,
        beginning earlier by as many.
        """
        users: dict[str, User] = {}
        offset, now, totals = 0, 0.0, list[int]()
        while True:
            query = f"/users?state=active&limit={self._connection.page_size}&offset={offset}"
            response = self._send(Operation.LIST_USERS, "GET", query)
            page = self._decode(response, UserPage)
            now = now or self._clock(response)
            users |= {user.name: user for user in page.items}
            totals.append(page.pagination.total)
            vanished = max(0, totals[-2] - totals[-1]) if len(totals) > 1 else 0
            if vanished and offset and _is_steady(totals):
                offset = max(0, offset - vanished)
            elif page.pagination.next is None:
                return Listing(users, now, self._is_whole(len(users), totals))
            else:
                offset = self._next_offset(offset, page.pagination.next)

    def user(self, name: str, stopped_servers: bool = False) -> Seen | None:
        """Ask for one user (`GET /users/{name}`); None when the Hub knows none, or hides it.

        With `stopped_servers` its stopped servers are listed too (Hubs from 3.0).
        """
        query = "?include_stopped_servers=1" if stopped_servers else ""
        path = f"/users/{_quoted(name)}{query}"
        response = self._send(Operation.GET_USER, "GET", path, accept=(200, 404))
        if response.status == 404:
            return None
        return Seen(self._decode(response, User), self._clock(response))

    def stop(self, user: str, server: str) -> int:
        """Ask the Hub to stop a server; give its status: 204 done, 202 still stopping.

        Neither proves that the server is gone: a failed stop answers 204 too.
        """
        return self._send(
            Operation.STOP_SERVER, "DELETE", _server_path(user, server), accept=(202, 204)
        ).status

    def remove(self, user: str, server: str) -> None:
        """Remove the record of a named server that is stopped."""
        path, body = _server_path(user, server), {"remove": True}
        self._send(Operation.REMOVE_SERVER, "DELETE", path, body, accept=(202, 204))

    def routes(self) -> list[Route]:
        """Read all routes of the proxy, page by page (`GET /proxy`)."""
        routes: dict[str, Route] = {}
        offset = 0
        while True:
            query = f"/proxy?limit={_ROUTES_A_PAGE}&offset={offset}"
            response = self._send(Operation.LIST_ROUTES, "GET", query)
            page = self._decode(response, RoutePage)
            routes.update(page.items)
            if page.pagination.next is None:
                return list(routes.values())
            offset = self._next_offset(offset, page.pagination.next)

    def mint_token(self, prober: str, user: str, server: str) -> MintedToken:
        """Mint a token of `prober` that opens this one server, for a minute."""
        body = {
            "scopes": [f"access:servers!server={user}/{server}"],
            "expires_in": PROBE_TOKEN_SECONDS,
            "note": "hub-idle-exporter: busy check",
        }
        path = f"/users/{_quoted(prober)}/tokens"
        response = self._send(Operation.MINT_TOKEN, "POST", path, body, accept=(200, 201))
        return self._decode(response, MintedToken)

    def revoke_token(self, prober: str, token_id: str) -> None:
        """Revoke a minted token; one that has expired already is gone all the same."""
        path = f"/users/{_quoted(prober)}/tokens/{_quoted(token_id)}"
        self._send(Operation.REVOKE_TOKEN, "DELETE", path, accept=(204, 404))

    def _decode(self, response: _Response, shape: type[_Answer]) -> _Answer:
        answer = _decode(response.body, shape, self._base, self._token.mask)
        if response.version is None:  # taken out on the way, but this is the Hub's own
            self._on_answer(response.now)
        return answer

    def _clock(self, response: _Response) -> float:
        if response.now is None:
            raise HubError(Cause.RESPONSE, f"{self._base} answered without a readable Date header")
        return response.now

    def _is_whole(self, users: int, totals: list[int]) -> bool:
        """Tell whether nobody is missing from a list.

        Before JupyterHub 5 `total` counts a user once per server, and cannot be compared.
        """
        counts_users = version_numbers(self.version or "") >= (5, 0)
        return _is_steady(totals) and (users >= totals[-1] or not counts_users)

    def _next_offset(self, offset: int, following: Next) -> int:
        if following.offset <= offset:
            raise HubError(Cause.RESPONSE, f"{self._base} pages in circles at offset {offset}")
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
            raise _refusal(response, operation, f"{method} {self._base}{path.partition('?')[0]}")
        return response

    def _rotated_since(self, sent: str) -> bool:
        """Tell whether the token is another by now; another thread may have read it already."""
        with self._rotating:
            return self._token.header != sent or self._token.reread()

    def _exchange(
        self, operation: Operation, method: str, path: str, body: object, authorization: str | None
    ) -> _Response:
        headers = dict(self._session.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        # Prepared by itself: merging a session's settings into it would cost half as much again.
        request = requests.Request(method, self._base + path, headers=headers, json=body)
        begun = time.monotonic()
        try:
            with self._session.send(
                request.prepare(),
                timeout=(min(10.0, self._connection.timeout), self._connection.timeout),
                allow_redirects=False,
                stream=True,
            ) as answer:
                # All at once; by itself it would be put together from pieces of 10 kB.
                content = b"".join(answer.iter_content(None))
        except (OSError, HTTPError) as error:  # some of urllib3's own come through as they are
            raise _unreachable(error, self._base, self._connection.timeout) from None
        finally:
            self._on_request(operation, time.monotonic() - begun)
        return _Response(
            answer.status_code,
            content,
            _date(answer.headers.get("Date")),
            answer.headers.get("X-JupyterHub-Version"),
            _seconds(answer.headers.get("Retry-After")),
        )


def _session(connection: Connection) -> requests.Session:
    session = requests.Session()
    session.headers["Accept"] = PAGINATED
    session.trust_env = False  # no .netrc in place of our token, no proxy that would see it
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.verify = connection.ca_file or True
    session.cert = connection.client_certificate
    adapter = HTTPAdapter(pool_maxsize=connection.most_connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _quoted(name: str) -> str:
    if name in (".", ".."):  # a step up the path, however it is quoted
        raise HubError(Cause.RESPONSE, f"the Hub cannot be asked about something named {name!r}")
    return quote(name, safe="")


def _server_path(user: str, server: str) -> str:
    if server:
        return f"/users/{_quoted(user)}/servers/{_quoted(server)}"
    return f"/users/{_quoted(user)}/server"


def _is_steady(totals: list[int]) -> bool:
    """Tell whether a few at most left while the list was read; a crowd is no whole list."""
    vanished = sum(max(0, before - after) for before, after in pairwise(totals))
    return vanished <= 10 + max(totals) / 100


def _decode(body: bytes, shape: type[_Answer], where: str, mask: Callable[[str], str]) -> _Answer:
    try:
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.MsgspecError:
            return _decode_leniently(body, shape)
    except (ValueError, RecursionError) as error:
        raise HubError(
            Cause.RESPONSE,
            f"{where} answered what no JupyterHub answers ({error}{_quotation(body, mask)}): "
            "is --url the Hub's API, without a login page in front?",
        ) from None


def _decode_leniently(body: bytes, shape: type[_Answer]) -> _Answer:
    """Decode what a Hub may send that is no strict JSON; raise ValueError otherwise.

    A user's own `user_options` may hold what Python's json lets through (NaN, 1e400, half a
    surrogate pair), and the Hub repeats it in every listing: nobody may blind us with that.
    """
    answer = msgspec.convert(json.loads(body), shape)
    users = answer.items if isinstance(answer, UserPage) else [answer]
    for user in users:
        if isinstance(user, User):  # a name is asked for and written: it has to be text
            "".join([user.name, *(user.servers or ())]).encode()
    return answer


def _quotation(body: bytes, mask: Callable[[str], str]) -> str:
    """Quote how an answer begins, unless it may be a user: names belong on no page."""
    if body.lstrip()[:1] in (b"", b"{", b"["):
        return ""
    return f"; it begins {mask(body[:400].decode(errors='replace'))[:40]!r}"


def _date(header: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(header or "")
        return moment.astimezone(UTC).timestamp() if moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(header: str | None) -> float:
    if not (header and header.isascii() and header.isdigit()):
        return 0.0
    return min(float(header), LONGEST_RETRY_AFTER)


def _unreachable(error: Exception, base: str, timeout: float) -> HubError:
    """Tell apart what went wrong below HTTP. The library's text may hold URLs; it is not used."""
    if isinstance(error, requests.Timeout):
        return HubError(Cause.TIMEOUT, f"{base} did not answer within {timeout:g} s")
    if isinstance(error, requests.exceptions.SSLError):
        return HubError(Cause.CONNECTION, f"{base} {_tls_problem(error)}")
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return HubError(Cause.RESPONSE, f"{base} answered what cannot be unpacked")
    return HubError(Cause.CONNECTION, f"{base} cannot be reached: {_root(error)}")


def _tls_problem(error: BaseException) -> str:
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "has no TLS certificate that is trusted: see --ca-file"
    return "does not answer in TLS as it should: is it http://, or does it use internal_ssl?"


def _root(error: BaseException) -> str:
    """Find the operating system's word for it."""
    words = (cause.strerror for cause in _causes(error) if isinstance(cause, OSError))
    return next(filter(None, words), "the connection was lost")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what caused it, down to the root; libraries hide it in many places."""
    found: BaseException | None = error
    while found is not None:
        yield found
        inner = [part for part in found.args if isinstance(part, BaseException)]
        reason = getattr(found, "reason", None)
        inner += [reason] if isinstance(reason, BaseException) else []
        found = inner[-1] if inner else found.__cause__ or found.__context__


def _refusal(response: _Response, operation: Operation, asked: str) -> HubError:
    status = response.status
    if status in (401, 403):
        return _forbidden(response, operation, asked)
    if 300 <= status < 400:
        sentence = f"{asked} was redirected, which is not followed: --url must end in /hub/api"
    else:
        sentence = f"{asked} was answered with HTTP {status}"
    return HubError(Cause.HTTP, sentence, status, response.retry_after)


def _forbidden(response: _Response, operation: Operation, asked: str) -> HubError:
    """Tell a token that the Hub does not know from one that may not do this."""
    minting = operation is Operation.MINT_TOKEN and b"credentials" not in response.body
    if minting or (operation is not Operation.IDENTITY and b"scope" in response.body):
        sentence = f"{asked} was refused: the token lacks a scope for it"
        return HubError(Cause.SCOPE, sentence, response.status)
    return HubError(
        Cause.AUTH,
        f"{asked} was refused: the Hub does not know the token (wrong, expired or revoked)",
        response.status,
    )


def version_numbers(version: str) -> tuple[int, ...]:
    """Read the `6.1` of `6.1.1` as numbers; what is no number ends it."""
    numbers: list[int] = []
    for part in version.split(".")[:2]:
        if not (part.isascii() and part.isdigit() and len(part) < 10):
            break
        numbers.append(int(part))
    return tuple(numbers)
