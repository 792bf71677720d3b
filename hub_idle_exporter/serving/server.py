"""The HTTP server: `/metrics`, health, readiness and the page. It never waits for the Hub."""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qs

import structlog
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server
from prometheus_client.exposition import gzip_accepted

from ..exposition import Exposition
from ..log import printable

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True)
class Answer:
    """An HTTP response; `headers` are added to the default ones."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Exposes(Protocol):
    """Renders `/metrics`."""

    def __call__(self, accept: str, gzip: bool, names: Sequence[str]) -> Exposition:
        """Render for an `Accept` header; with `names` only these metrics."""


PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    ("Referrer-Policy", "no-referrer"),
]

# The time limits to read one request, and to send its answer.
READ_SECONDS = 2.0
ANSWER_SECONDS = 20.0
_WATCH_EVERY = 0.25
# Open connections without a request: fewer than the usual limit of open files (1024).
MOST_WAITING = 500

log = structlog.get_logger()


class Application:
    """The WSGI application.

    Args:
        metrics: renders `/metrics`.
        healthy: says why the poll loop does not run, None while it does.
        ready: says why the facts are missing or stale, None if they are current.
        page: renders the page for people.
    """

    def __init__(
        self,
        metrics: Exposes,
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
        page: Callable[[], str],
    ) -> None:
        self._routes: dict[str, Callable[[Environ], Answer]] = {
            "/": lambda _: Answer(HTTPStatus.OK, HTML, page().encode()),
            "/metrics": lambda environ: _scrape(metrics, environ),
            "/-/healthy": lambda _: _health(healthy()),
            "/-/ready": lambda _: _health(ready()),
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        answer = self._answer(environ)
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
            *_HEADERS,
        ]
        start_response(f"{answer.status.value} {answer.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: Environ) -> Answer:
        route = self._routes.get(environ.get("PATH_INFO") or "/")
        if route is None:
            return Answer(HTTPStatus.NOT_FOUND, PLAIN, b"Not found. Try / or /metrics.\n")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            allowed = (("Allow", "GET, HEAD"),)
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, PLAIN, b"Only GET and HEAD.\n", allowed)
        return route(environ)


def _health(problem: str | None) -> Answer:
    if problem is None:
        return Answer(HTTPStatus.OK, PLAIN, b"OK\n")
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, PLAIN, f"{problem}\n".encode())


def _scrape(metrics: Exposes, environ: Environ) -> Answer:
    """Answer a scrape as client_python's own application does: compressed, filtered by `name[]`."""
    exposed = metrics(
        environ.get("HTTP_ACCEPT", ""),
        gzip=gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")),
        names=parse_qs(environ.get("QUERY_STRING", "")).get("name[]", []),
    )
    headers = (("Content-Encoding", exposed.encoding),) if exposed.encoding else ()
    return Answer(HTTPStatus.OK, exposed.content_type, exposed.body, headers)


class _Request(HTTPRequest):
    """One request; once it has been read there is more time to answer it."""

    def respond(self) -> None:
        """Answer it."""
        self.server.busy[self.conn] = time.monotonic() + ANSWER_SECONDS
        super().respond()


class _Connection(HTTPConnection):
    """One connection, which is cut if it holds a thread for too long."""

    RequestHandlerClass = _Request

    def communicate(self) -> bool:
        """Read one request and answer it; tell whether to keep the connection."""
        self.server.busy[self] = time.monotonic() + READ_SECONDS
        try:
            return bool(super().communicate())  # type: ignore[no-untyped-call]
        finally:
            del self.server.busy[self]


class _Server(Server):
    """The server: it writes errors to our log, and cuts slow clients.

    A connection that has sent nothing holds no thread. One that sends or reads byte by byte is cut
    at its deadline: otherwise eight of them would block `/metrics` for everybody.
    """

    ConnectionClass = _Connection

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.keep_alive_conn_limit = MOST_WAITING
        self.busy: dict[_Connection, float] = {}  # connections that hold a thread → deadline
        self.last_call = math.inf  # the deadline of all connections

    def process_conn(self, conn: _Connection) -> None:
        """Hand a connection to a thread; a new one only when it has sent something."""
        if conn.last_used is not None:
            super().process_conn(conn)
        elif self.can_add_keepalive_connection:
            self.put_conn(conn)
        else:
            conn.close()

    def cut_late(self) -> None:
        """Cut the connections that are past their deadline."""
        for connection, deadline in list(self.busy.items()):
            if min(deadline, self.last_call) <= time.monotonic():
                with suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Log a message of cheroot."""
        write = log.warning if traceback else log.debug
        write("http_error", error=printable(msg), severity=level)


class WebServer:
    """Serves the application at an address."""

    def __init__(self, host: str, port: int, application: Application) -> None:
        self._server = _Server((host, port), application, numthreads=8, request_queue_size=128)
        self._server.max_request_header_size = 64 * 1024
        self._server.max_request_body_size = 1024
        self._server.shutdown_timeout = 1
        self._stopped = threading.Event()

    def listen(self) -> None:
        """Open the port; raise OSError if it is taken."""
        self._server.prepare()

    @property
    def address(self) -> str:
        """Return the bound address as a URL, with the actual port if 0 was requested."""
        host, port = self._server.bind_addr[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def start(self) -> None:
        """Serve on threads of its own."""
        threading.Thread(target=self._server.serve, name="web", daemon=True).start()
        threading.Thread(target=self._watch, name="web-watch", daemon=True).start()

    def _watch(self) -> None:
        while not self._stopped.wait(_WATCH_EVERY):
            self._server.cut_late()

    def stop(self) -> None:
        """Stop serving; requests in progress have one more second."""
        self._server.last_call = time.monotonic() + 1
        self._server.stop()
        self._stopped.set()
