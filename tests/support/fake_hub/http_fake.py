"""A threaded HTTP server with a request log and planned faults."""

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from fnmatch import fnmatchcase
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from .exchange import Fault, Reply, Request, reply

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on


@dataclass
class _Plan:
    method: str
    path: str
    fault: Fault
    after: int
    times: int | None

    def takes(self, request: Request) -> bool:
        if self.method not in ("*", request.method) or not fnmatchcase(request.path, self.path):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
            return self.times >= 0
        return True


class HttpFake:
    """A threaded HTTP/1.1 server with a request log and planned faults; a context manager."""

    def __init__(self, port: int = 0, start: bool = True) -> None:
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # of this fake or of a test's fault
        self._arrived = threading.Condition()
        self.under_way: list[Request] = []
        self._plans: list[_Plan] = []
        self.closing = threading.Event()
        self._http: _HttpServer | None = None
        self.port = port
        if start:
            self.listen()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
        assert error is not None or not self.errors, f"while answering: {self.errors}"

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        assert self._http is not None
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Open the port (the same one again after `hang_up`)."""
        self._http = _HttpServer(("127.0.0.1", self.port), self)
        self.port = self._http.server_address[1]
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def hang_up(self) -> None:
        """Be down: refuse connections and cut the open ones, until `listen`."""
        if self._http is not None:
            self._http.stop()
            self._http = None

    def close(self) -> None:
        self.closing.set()
        self.hang_up()

    def plan(
        self, method: str, path: str, fault: Fault, *, after: int = 0, times: int | None = None
    ) -> None:
        """Let `fault` answer requests whose method ("*": any) and quoted path (glob) match.

        The first `after` matches are answered truly, the next `times` (None: all) by the fault;
        of several plans for one request the latest wins.
        """
        self._plans.append(_Plan(method, path, fault, after, times))

    def heal(self) -> None:
        """Forget all plans."""
        self._plans.clear()

    def log(self, method: str = "*", path: str = "*") -> list[Request]:
        """Return the requests so far that match, in order of arrival."""
        return [r for r in list(self.requests) if _matches(r, method, path)]

    def wait_for(
        self, method: str = "*", path: str = "*", count: int = 1, timeout: float = 10
    ) -> list[Request]:
        """Wait until `count` such requests have arrived; AssertionError after `timeout` s."""
        with self._arrived:
            seen = self._arrived.wait_for(lambda: len(self.log(method, path)) >= count, timeout)
        assert seen, f"no {count} requests {method} {path} in {timeout} s: {self.log()[-20:]}"
        return self.log(method, path)

    def relative(self, path: str) -> str | None:
        """Return the path as logged and planned, None when nothing is there."""
        return path

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def headers(self) -> dict[str, str]:
        return {}

    def now(self) -> float:
        return time.time()

    def take(self, request: Request) -> Reply:
        """Log a request and answer it, by a fault where one is planned."""
        with self._arrived:
            self.requests.append(request)
            self.under_way.append(request)
            self._arrived.notify_all()
            plan = next((p for p in reversed(self._plans) if p.takes(request)), None)
        try:
            if plan is None:
                return self.answer(request)
            return plan.fault(request, lambda: self.answer(request))
        finally:
            with self._arrived:
                self.under_way.remove(request)


def _matches(request: Request, method: str, path: str) -> bool:
    return method in ("*", request.method) and fnmatchcase(request.path, path)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], fake: HttpFake) -> None:
        self.fake = fake
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self.connections.discard(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep what is wrong; clients that go away are not."""
        error = sys.exc_info()[1]
        if error is not None and not (isinstance(error, OSError) or self.fake.closing.is_set()):
            self.fake.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def _handle(self) -> None:
        fake, url = self.server.fake, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = fake.relative(url.path)
        request = Request(
            self.command,
            url.path if path is None else path,
            {name: values[-1] for name, values in parse_qs(url.query, True).items()},
            {name.lower(): value for name, value in self.headers.items()},
            body,
            time.monotonic(),
            fake.closing,
        )
        missing = reply(404, {"status": 404, "message": "Not Found"})
        self._send(missing if path is None else fake.take(request))

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _handle  # noqa: N815

    def _send(self, answer: Reply) -> None:
        headers = {"Content-Length": str(len(answer.body))} | self.server.fake.headers()
        if answer.date is not None:
            now = formatdate(self.server.fake.now(), usegmt=True)
            headers["Date"] = now if answer.date == "now" else answer.date
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in (headers | answer.headers).items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if answer.cut is not None:
            self.close_connection = True
            self.connection.sendall((head + answer.body[: answer.cut]) if answer.cut >= 0 else b"")
            self.connection.shutdown(socket.SHUT_RDWR)
        elif answer.drip:
            self._drip(head, answer)
        else:
            self.connection.sendall(head + answer.body)

    def _drip(self, head: bytes, answer: Reply) -> None:
        if not answer.drip_head:
            self.connection.sendall(head)
        for byte in head + answer.body if answer.drip_head else answer.body:
            if self.server.fake.closing.wait(answer.drip):
                return
            self.connection.sendall(bytes([byte]))

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Keep quiet: the fake has its own log."""


@contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port at which connections are refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
