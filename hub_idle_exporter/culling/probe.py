"""The busy check: ask a user's server whether it is in use, right before its stop.

The request goes to the address in the proxy's route: through the public proxy it would itself
count as activity. Its token is minted for this one server and revoked right after. Each request has
a deadline, because the server is run by its user: it may hang, trickle or flood.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import structlog

from ..domain.busy_check import (
    KINDS,
    ProbeAnswer,
    Reply,
    ServerKind,
    active_within,
    interpret,
    of_no_kind,
)
from ..domain.labels import ProbeResult
from ..domain.model import Route
from ..hub.client import Hub
from ..hub.errors import HubError

DEADLINE_SECONDS = 5.0
_LARGEST_BODY = 1 << 20

log = structlog.get_logger()


class ServerUnreachableError(Exception):
    """A user's server gave no usable HTTP answer; `str()` says what happened."""


class Prober:
    """Asks servers, with tokens owned by the Hub user `owner`.

    Args:
        hub: mints and revokes the tokens.
        owner: the Hub user who owns the tokens; its role must have `access:servers`.
        tls: for servers behind internal_ssl; None trusts the system's CAs.
        kinds: what to ask servers, and how to read their replies.
    """

    def __init__(
        self,
        hub: Hub,
        owner: str,
        tls: ssl.SSLContext | None,
        kinds: Sequence[ServerKind] = KINDS,
    ) -> None:
        self._hub, self._owner, self._tls, self._kinds = hub, owner, tls, kinds

    def ask(
        self, user: str, server: str, route: Route | None, now: float, limit: float
    ) -> ProbeAnswer:
        """Ask one server; `now` is the Hub's clock, `limit` the idle limit in seconds."""
        if route is None:
            return ProbeAnswer(ProbeResult.FAILED, "the proxy has no route to it")
        recent = active_within([route.data.last_activity], now, limit)
        if recent is not None:
            return ProbeAnswer(ProbeResult.ACTIVE, f"the proxy saw traffic {recent:.0f} s ago")
        try:
            return self._answer(user, server, route, now, limit)
        except (HubError, ServerUnreachableError) as error:
            return ProbeAnswer(ProbeResult.FAILED, str(error))
        except (http.client.HTTPException, ValueError) as error:
            return ProbeAnswer(
                ProbeResult.FAILED, f"its route cannot be used: {type(error).__name__}"
            )

    def _answer(
        self, user: str, server: str, route: Route, now: float, limit: float
    ) -> ProbeAnswer:
        """Ask a server as one kind after another, until it is of that kind."""
        minted = self._hub.mint_token(self._owner, user, server)
        try:
            for kind in self._kinds:
                replies = [self._get(route, path, kind.query, minted.token) for path in kind.paths]
                answer = interpret(kind, replies, now, limit)
                if answer is not None:
                    return answer
            return of_no_kind(self._kinds)
        finally:
            self._revoke(minted.id)

    def _revoke(self, token_id: str) -> None:
        try:
            self._hub.revoke_token(self._owner, token_id)
        except HubError as error:
            log.warning("probe_token_not_revoked", owner=self._owner, error=str(error))

    def _get(self, route: Route, path: str, query: str, token: str) -> Reply:
        """Send one GET to the server."""
        base = "/" + route.routespec.partition("/")[2].rstrip("/")
        url = quote(f"{base.rstrip('/')}/{path}", safe="/%~@!$&'()*+,;=:") + f"?{query}"
        connection = self._connection(route.target)
        timer = threading.Timer(DEADLINE_SECONDS, _cut, [connection])
        try:
            timer.start()
            connection.connect()
            connection.request("GET", url, headers={"Authorization": f"token {token}"})
            response = connection.getresponse()
            return Reply(response.status, _body(response))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerUnreachableError(
                f"no answer from /{path}: {type(error).__name__}"
            ) from None
        finally:
            timer.cancel()
            connection.close()

    def _connection(self, target: str) -> "_Connection":
        try:
            parts = urlsplit(target)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ServerUnreachableError("its route is not a valid address") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ServerUnreachableError(
                f"its route is not an http or https address (scheme {parts.scheme!r})"
            )
        tls = None if parts.scheme == "http" else self._tls or ssl.create_default_context()
        return _Connection(host, port or (443 if tls else 80), tls)


class _Connection(http.client.HTTPConnection):
    """A connection that keeps its socket, so that a timer can cut it at any moment."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=DEADLINE_SECONDS)
        self._tls = tls
        self.wire: socket.socket | None = None
        self.late = False

    def connect(self) -> None:
        super().connect()
        self.wire = self.sock
        if self._tls is not None:
            self.sock = self.wire = self._tls.wrap_socket(
                self.wire, server_hostname=self.host, do_handshake_on_connect=False
            )
        if self.late:
            raise TimeoutError
        if isinstance(self.wire, ssl.SSLSocket):
            self.wire.do_handshake()


def _cut(connection: _Connection) -> None:
    connection.late = True
    try:
        if connection.wire is not None:
            connection.wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # already closed


def _body(response: http.client.HTTPResponse) -> bytes:
    body = response.read(_LARGEST_BODY + 1)
    if len(body) > _LARGEST_BODY:
        raise ValueError("too large")
    return body
