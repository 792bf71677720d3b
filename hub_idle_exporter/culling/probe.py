"""Asks a user's server itself whether somebody is at work there, right before a stop.

It is asked at the address that the proxy's route names, not through the public proxy, where the
question itself would count as activity; with a token minted for this one server and revoked after;
and within a deadline, for what answers there is run by its user: it may hang, drip or flood.
"""

import http.client
import socket
import ssl
import threading
from urllib.parse import quote, urlsplit

import structlog

from ..domain.busy_check import (
    JUPYTER,
    ProbeAnswer,
    Reply,
    ServerKind,
    active_within,
    interpret,
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
        owner: the Hub user whose role `access:servers` the tokens are cut from.
        tls: for servers behind internal_ssl; None trusts the system's authorities.
        kind: what servers are asked, and how their replies are read.
    """

    def __init__(
        self, hub: Hub, owner: str, tls: ssl.SSLContext | None, kind: ServerKind = JUPYTER
    ) -> None:
        self._hub, self._owner, self._tls, self._kind = hub, owner, tls, kind

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
            return interpret(self._kind, self._replies(user, server, route), now, limit)
        except (HubError, ServerUnreachableError) as error:
            return ProbeAnswer(ProbeResult.FAILED, str(error))
        except (http.client.HTTPException, ValueError) as error:
            return ProbeAnswer(
                ProbeResult.FAILED, f"its route cannot be asked: {type(error).__name__}"
            )

    def _replies(self, user: str, server: str, route: Route) -> list[Reply]:
        minted = self._hub.mint_token(self._owner, user, server)
        try:
            return [self._get(route, path, minted.token) for path in self._kind.paths]
        finally:
            self._revoke(minted.id)

    def _revoke(self, token_id: str) -> None:
        try:
            self._hub.revoke_token(self._owner, token_id)
        except HubError as error:
            log.warning("probe_token_not_revoked", owner=self._owner, error=str(error))

    def _get(self, route: Route, path: str, token: str) -> Reply:
        """Send one GET to the server; without `no_track_activity` it would count as activity."""
        base = "/" + route.routespec.partition("/")[2].rstrip("/")
        url = quote(f"{base.rstrip('/')}/{path}", safe="/%~@!$&'()*+,;=:") + "?no_track_activity=1"
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
                f"/{path} gave no answer: {type(error).__name__}"
            ) from None
        finally:
            timer.cancel()
            connection.close()

    def _connection(self, target: str) -> "_Connection":
        try:
            parts = urlsplit(target)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ServerUnreachableError("its route leads to no valid address") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ServerUnreachableError(
                f"its route leads to {parts.scheme}:, which cannot be asked"
            )
        tls = None if parts.scheme == "http" else self._tls or ssl.create_default_context()
        return _Connection(host, port or (443 if tls else 80), tls)


class _Connection(http.client.HTTPConnection):
    """A connection that keeps hold of its socket, so that a timer can cut it at any moment."""

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
        pass  # it ended by itself at this very moment


def _body(response: http.client.HTTPResponse) -> bytes:
    body = response.read(_LARGEST_BODY + 1)
    if len(body) > _LARGEST_BODY:
        raise ValueError("too large")
    return body
