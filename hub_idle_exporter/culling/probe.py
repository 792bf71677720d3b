"""The busy check: ask a user's server whether it is in use, before its stop and right before.

The request goes to the address in the proxy's route: through the public proxy it would itself
count as activity. Its token is minted for this one server, and revoked or left to expire. Each
round of questions has a deadline, because the server is run by its user: it may hang, trickle or
flood.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import quote, urlsplit

import structlog

from ..clocks import steady
from ..domain.busy_check import (
    KINDS,
    Activity,
    ProbeAnswer,
    Reply,
    ServerKind,
    address_of,
    judge_activity,
    judge_work,
)
from ..domain.labels import ProbeResult
from ..domain.model import MintedToken, Route
from ..domain.stop_result import Address
from ..hub.client import Hub
from ..hub.decoding import date_of
from ..hub.errors import HubError

DEADLINE_SECONDS = 5.0
# After a stop: on Kubernetes nothing answers at the address of a pod that is gone.
ADDRESS_SECONDS = 2.0
_HEAD_START_SECONDS = 0.25
TOKEN_SECONDS = 60
# A token is revoked only in the first half of its life: a request to revoke it that is delayed
# must not arrive when the Hub has given its id to another token.
_REVOKED_WITHIN = TOKEN_SECONDS / 2
_LARGEST_BODY = 1 << 20
_LEAST_SECONDS = 0.05  # a timeout of 0 would not wait at all

log = structlog.get_logger()


class ServerUnreachableError(Exception):
    """A user's server gave no usable HTTP answer; `str()` says what happened.

    `refused` tells that nothing listens at its address, `connected` that something does.
    """

    def __init__(self, why: str, refused: bool = False, connected: bool = False) -> None:
        super().__init__(why)
        self.refused, self.connected = refused, connected


class Prober:
    """Asks servers, with tokens owned by the Hub user `owner`.

    Args:
        hub: mints and revokes the tokens.
        owner: the Hub user who owns the tokens; its role must have `access:servers`.
        tls: for servers behind internal_ssl; None trusts the system's CAs.
        kinds: what to ask servers, and how to read their replies.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        owner: str,
        tls: ssl.SSLContext | None,
        kinds: Sequence[ServerKind] = KINDS,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._owner, self.tls = hub, owner, tls
        self.kinds, self.clock = kinds, clock

    def interview(self, user: str, server: str, route: Route) -> "Interview":
        """Mint a token for one server; raise HubError if that fails. Close the interview."""
        asked = self.clock()
        scope = f"access:servers!server={user}/{server}"
        minted = self._hub.mint_token(self._owner, [scope], TOKEN_SECONDS, "busy check")
        return Interview(self, route, minted, asked)

    def revoke(self, minted: MintedToken, asked: float) -> None:
        """Revoke a token that was asked for at that time of our clock, unless it is too old."""
        if self.clock() - asked > _REVOKED_WITHIN:
            return
        try:
            self._hub.revoke_token(self._owner, minted.id)
        except HubError as error:
            log.warning("probe_token_not_revoked", owner=self._owner, error=str(error))


class Interview:
    """The questions to one server before its stop, and after."""

    def __init__(self, prober: Prober, route: Route, minted: MintedToken, asked: float) -> None:
        self._prober, self._route, self._minted, self._asked = prober, route, minted, asked
        self._kind: ServerKind | None = None
        self._answered = False
        self.activity: Activity | None = None
        self.work_asked = asked  # by our clock

    @property
    def is_known_kind(self) -> bool:
        """Tell whether the server has answered as one of the kinds of programs."""
        return self._kind is not None

    def close(self) -> None:
        """Revoke the token."""
        self._prober.revoke(self._minted, self._asked)

    def ask_work(self, limit: float, protects_terminals: bool = False) -> ProbeAnswer:
        """Ask what runs in the server; `limit` is the idle limit in seconds.

        `protects_terminals` tells whether an open terminal counts as work.
        """
        self._kind, self.work_asked = None, self._prober.clock()
        deadline = self.work_asked + DEADLINE_SECONDS
        try:
            for kind in self._prober.kinds:
                paths = kind.work_paths
                work = kind.read_work(
                    _together([partial(self._get, path, kind, deadline) for path in paths])
                )
                if work is not None:
                    self._kind = kind
                    return judge_work(work, limit, protects_terminals)
        except (ServerUnreachableError, ValueError) as error:
            return ProbeAnswer(ProbeResult.FAILED, str(error))
        names = " or ".join(kind.name for kind in self._prober.kinds)
        why = f"it is not a {names} server: last_activity decides"
        return ProbeAnswer(ProbeResult.NO_JUPYTER, why)

    def ask_activity(self, limit: float, deadline: float) -> ProbeAnswer | None:
        """Ask when the server was last active; None if that is past the idle limit (seconds).

        `deadline` is a time of our clock.
        """
        try:
            self.activity = self._activity(deadline)
        except (ServerUnreachableError, ValueError) as error:
            return ProbeAnswer(ProbeResult.FAILED, str(error))
        if (self.activity is None) != (self._kind is None):
            why = "its answers are those of different kinds of programs"
            return ProbeAnswer(ProbeResult.FAILED, why)
        return None if self.activity is None else judge_activity(self.activity, limit)

    def learn_start(self) -> None:
        """Ask when the server was started, as far as it says."""
        try:
            self.activity = self._activity(self._prober.clock() + DEADLINE_SECONDS)
        except (ServerUnreachableError, ValueError):
            self.activity = None

    def address(self) -> Address:
        """Ask whether the server still answers at its address, after its stop."""
        if not self._answered:
            return Address.UNKNOWN
        try:
            now = self._activity(self._prober.clock() + ADDRESS_SECONDS)
        except ServerUnreachableError as error:
            if error.connected:
                return Address.SILENT
            return Address.GONE if error.refused else Address.UNKNOWN
        except ValueError:
            return Address.SILENT
        if now is None and self.activity is None:
            return Address.UNKNOWN  # it was no known kind of program before
        return address_of(self.activity, now)

    def _activity(self, deadline: float) -> Activity | None:
        """Ask as one kind after another, until it is of that kind."""
        for kind in self._prober.kinds if self._kind is None else [self._kind]:
            activity = kind.read_activity(self._get(kind.activity_path, kind, deadline))
            if activity is not None:
                return activity
        return None

    def _get(self, path: str, kind: ServerKind, deadline: float) -> Reply:
        """Send one GET to the server, on a connection of its own."""
        url = self._url(path, kind.query)
        seconds = max(_LEAST_SECONDS, deadline - self._prober.clock())
        connection = self._connection(seconds)
        timer = threading.Timer(seconds, _cut, [connection])
        timer.daemon = True
        try:
            timer.start()
            connection.connect()
            headers = {"Authorization": f"token {self._minted.token}"}
            connection.request("GET", url, headers=headers)
            response = connection.getresponse()
            reply = Reply(response.status, _body(response), date_of(response.getheader("Date")))
        # RuntimeError: no thread is left for the timer.
        except (OSError, http.client.HTTPException, ValueError, RuntimeError) as error:
            why = f"no answer from /{path}: {type(error).__name__}"
            refused = isinstance(error, ConnectionRefusedError)
            connected = connection.wire is not None
            raise ServerUnreachableError(why, refused, connected) from None
        finally:
            timer.cancel()
            connection.close()
        self._answered = True
        return reply

    def _url(self, path: str, query: str) -> str:
        """Return the path at the address in the route."""
        base = "/" + self._route.routespec.partition("/")[2].rstrip("/")
        try:
            return quote(f"{base.rstrip('/')}/{path}", safe="/%~@!$&'()*+,;=:") + f"?{query}"
        except UnicodeError:
            raise ServerUnreachableError("its route is not a valid address") from None

    def _connection(self, seconds: float) -> "_Connection":
        """Prepare a connection to the address in the route; it waits no longer than this."""
        try:
            parts = urlsplit(self._route.target)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                what = f"is not an http or https address (scheme {parts.scheme!r})"
                raise ServerUnreachableError(f"its route {what}")
            secure = parts.scheme == "https"
            tls = (self._prober.tls or ssl.create_default_context()) if secure else None
            port = parts.port or (443 if secure else 80)
            return _Connection(parts.hostname, port, tls, seconds)
        except (ValueError, http.client.HTTPException):
            raise ServerUnreachableError("its route is not a valid address") from None


def _together(questions: Sequence[Callable[[], Reply]]) -> list[Reply]:
    """Ask everything at once: a slow server's first answer would be old when its last one comes.

    The first question has a head start: a server that has answered it knows our token, and need
    not ask the Hub about it again.
    """
    answers: list[Reply | ServerUnreachableError | None] = [None] * len(questions)
    first_is_answered = threading.Event()

    def ask(number: int) -> None:
        if number > 0:
            first_is_answered.wait(_HEAD_START_SECONDS)
        try:
            answers[number] = questions[number]()
        except ServerUnreachableError as error:
            answers[number] = error

    threads = [
        threading.Thread(target=ask, args=[number], daemon=True)
        for number in range(1, len(questions))
    ]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        raise ServerUnreachableError("it was not asked: no thread is left") from None
    ask(0)
    first_is_answered.set()
    for thread in threads:
        thread.join()
    for answer in answers:
        if isinstance(answer, ServerUnreachableError):
            raise answer
    return [answer for answer in answers if isinstance(answer, Reply)]


class _Connection(http.client.HTTPConnection):
    """A connection that keeps its socket, so that a timer can cut it at any moment."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
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
            try:
                self.wire.do_handshake()
            except AttributeError:  # of an SSLSocket that was cut just before
                raise TimeoutError from None


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
