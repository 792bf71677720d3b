"""The HTTP side: what each path answers, and that no client keeps others from `/metrics`."""

import asyncio
import errno
import gzip
import http.client
import os
import re
import select
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fake_hub import FakeHub, hang
from prometheus_client import make_wsgi_app
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from structlog.testing import capture_logs
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPMessageDelegate
from tornado.iostream import IOStream
from web_service import Service, serving

from hub_idle_exporter import cli
from hub_idle_exporter.clocks import read_clocks
from hub_idle_exporter.config import settings_from
from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.settings import ConfigError
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.serving import application, connections, port
from hub_idle_exporter.serving.crowd import Limits
from hub_idle_exporter.serving.rendering import MOST_FILTERED
from hub_idle_exporter.sidecar import Sidecar, assemble

# Seconds: how long a test waits for what must come, and a limit that is not reached meanwhile.
PATIENCE, NEVER = 30.0, 3600.0
PATHS = ["/", "/metrics", "/-/healthy", "/-/ready"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with serving() as running:
        yield running


@pytest.fixture
def service(shared: Service) -> Service:
    """The module's one service, as it was at first."""
    shared.dead = shared.unready = None
    shared.page = lambda: "<!doctype html><title>ü</title>"
    return shared


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that waits for slow clients for ever."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(connections, name, NEVER)
    with serving() as running:
        yield running


# ---- paths and methods --------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_each_path_answers(service: Service, path: str) -> None:
    response, body = service.ask(path)
    assert response.status == 200
    assert response.headers["Content-Length"] == str(len(body))
    assert body


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    path += "?name[]=jupyterhub_up" * (path == "/metrics")  # not what changes all the time
    whole, body = service.ask(path)
    response, nothing = service.ask(path, "HEAD")
    assert (response.status, nothing) == (200, b"")
    for name in ("Content-Type", "Content-Length"):
        assert response.headers[name] == whole.headers[name]
    assert body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CULL"])
def test_other_methods_are_not_allowed(service: Service, path: str, method: str) -> None:
    response, _ = service.ask(path, method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    ["/metrics/", "/Metrics", "/-/", "/-/healthy/", "/favicon.ico", "/../etc/passwd",
     "/%2e%2e/etc/passwd", "/metrics%00", "/%FF", "/-/quit", "/" + "x" * 7_000],
)  # fmt: skip
def test_anything_else_is_not_found(service: Service, path: str) -> None:
    response, _ = service.ask(path)
    assert response.status == 404


def test_a_query_does_not_matter(service: Service) -> None:
    assert service.ask("/metrics?name=x&format=json")[0].status == 200
    assert service.ask("/-/ready?")[0].status == 200


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_browsers_are_told_to_trust_nothing(service: Service, path: str) -> None:
    response, _ = service.ask(path)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


# ---- health and readiness -----------------------------------------------------------------------


def test_health_and_readiness_say_why_not(service: Service) -> None:
    service.dead, service.unready = "the poll loop has ended", "the Hub is ünreachable"
    response, body = service.ask("/-/healthy")
    assert (response.status, body) == (503, b"the poll loop has ended\n")
    response, body = service.ask("/-/ready")
    assert (response.status, body.decode()) == (503, "the Hub is ünreachable\n")
    assert service.ask("/metrics")[0].status == 200


@pytest.fixture
def sidecar(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Sidecar]:
    """Put a sidecar together that is polled by hand."""
    monkeypatch.chdir(tmp_path)

    def make(*arguments: str) -> Sidecar:
        context = cli.cli.make_context("x", cli.spelled_out([f"--url={fake_hub.url}", *arguments]))
        return assemble(settings_from(context.params), Token.read_by(lambda: fake_hub.token))

    return make


def aged(one: Sidecar, seconds: float) -> None:
    """Let the last good poll be so long ago."""
    now = read_clocks()
    then = ClockReading(now.monotonic - seconds, now.wall - seconds)
    one.latest.state = replace(one.latest.state, last_success=then)


@pytest.mark.parametrize(
    ("intervals", "ready"), [(0.0, True), (2.9, True), (3.0, False), (3.1, False), (100, False)]
)
def test_ready_while_the_last_good_poll_is_younger_than_three_intervals(
    sidecar: Callable[..., Sidecar], intervals: float, ready: bool
) -> None:
    one = sidecar("--interval=20m")
    assert "no poll has succeeded yet" in (one.not_ready() or "")
    assert one.poller.poll()
    aged(one, intervals * 1200)
    assert (one.not_ready() is None) is ready


def test_one_failed_poll_is_no_reason_to_be_unready(
    fake_hub: FakeHub, sidecar: Callable[..., Sidecar]
) -> None:
    one = sidecar()
    assert one.poller.poll()
    fake_hub.hang_up()
    assert not one.poller.poll()
    assert one.not_ready() is None
    aged(one, 180)
    assert "cannot be reached" in (one.not_ready() or "")


def test_a_scrape_does_not_wait_for_a_poll_that_hangs(
    fake_hub: FakeHub, sidecar: Callable[..., Sidecar]
) -> None:
    released = threading.Event()
    fake_hub.plan("GET", "/users", hang(released))
    one = sidecar("--web.listen-address=127.0.0.1:0")
    polling = threading.Thread(target=one.poller.poll)
    server = one.serve(polling.is_alive)
    server.start()
    polling.start()
    try:
        fake_hub.wait_for("GET", "/users")
        host, port = server.address.removeprefix("http://").split(":")
        for path, status in (("/metrics", 200), ("/-/ready", 503), ("/-/healthy", 200), ("/", 200)):
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            with closing(connection):
                connection.request("GET", path)
                assert connection.getresponse().status == status
        assert polling.is_alive()
    finally:
        released.set()
        polling.join(10)
    try:
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        with closing(connection):
            connection.request("GET", "/-/healthy")  # the poll loop has ended
            assert connection.getresponse().status == 503
    finally:
        server.stop()


# ---- formats ------------------------------------------------------------------------------------

OPENMETRICS = "application/openmetrics-text"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;"
    "escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize("accept", [PROMETHEUS_2_42, PROMETHEUS_3, OPENMETRICS])
def test_openmetrics_where_it_is_asked_for(service: Service, accept: str) -> None:
    response, body = service.ask(Accept=accept)
    assert response.headers["Content-Type"].startswith(OPENMETRICS)
    names = {family.name for family in openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"jupyterhub_up", "hub_idle_exporter_polls"} <= names


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html", "text/plain", "text/plain;version=0.0.4", ",,;;==", "é".encode() * 3,
     "application/openmetrics-text;version=abc", "application/openmetrics-text;version=",
     "text/plain;version=x.y", "text/plain;version=-1", "a" * 7_000, "text/plain;" * 700,
     "application/openmetrics-text;version=9.9.9", "text/plain;version=2.0.0",
     "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"],
)  # fmt: skip
def test_a_weird_accept_header_gets_a_format_that_can_be_read(
    service: Service, accept: str | bytes
) -> None:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=15)
    with closing(connection):
        connection.putrequest("GET", "/metrics")
        connection.putheader("Accept", accept)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read().decode()
    assert response.status == 200
    read = openmetrics if "openmetrics" in response.headers["Content-Type"] else prometheus
    assert "jupyterhub_up" in {family.name for family in read(body)}


def steady_lines(body: bytes) -> list[bytes]:
    """Leave out what differs from one moment to the next."""
    return [line for line in body.splitlines() if not line.startswith(b"process_")]


def test_it_is_compressed_where_the_client_takes_it(service: Service) -> None:
    plain_response, plain = service.ask(Accept=PROMETHEUS_3)
    response, body = service.ask(Accept=PROMETHEUS_3, Accept_Encoding="deflate, gzip;q=0.5")
    assert plain_response.headers["Content-Encoding"] is None
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Content-Length"] == str(len(body))
    assert len(body) < len(plain) / 4
    unpacking = zlib.decompressobj(wbits=31)
    assert steady_lines(unpacking.decompress(body)) == steady_lines(plain)
    assert (unpacking.eof, unpacking.unused_data) == (True, b"")  # one stream, whole


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize(
    "names",
    [
        ["jupyterhub_servers"],
        ["hub_idle_exporter_polls_total", "hub_idle_exporter_scope_granted", "nothing"],
        ["jupyterhub_server_idle_seconds_bucket"],
        ["nothing"],
    ],
)
def test_only_the_metrics_that_are_named_as_the_librarys_own_application(
    service: Service, names: list[str], encoding: str
) -> None:
    query = urlencode([("name[]", name) for name in names])
    response, body = service.ask(f"/metrics?{query}", Accept_Encoding=encoding)
    library: list[Any] = []
    environ = {"PATH_INFO": "/metrics", "QUERY_STRING": query, "REQUEST_METHOD": "GET"}
    app = make_wsgi_app(service.metrics.registry)
    expected = b"".join(app(environ, lambda *given: library.extend(given)))
    assert response.status == 200
    assert sorted((gzip.decompress(body) if encoding else body).splitlines()) == sorted(
        expected.splitlines()
    )


# ---- clients that misbehave ---------------------------------------------------------------------

GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # a TLS handshake
    b"\x00" * 1000 + b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n" * 500,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_ends_its_own_connection_alone(service: Service, garbage: bytes) -> None:
    answer = service.tell(garbage)
    assert answer == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d ", answer), answer
    assert b"Traceback" not in answer
    assert service.ask()[0].status == 200


def test_what_is_wrong_with_a_request_is_told_at_debug(service: Service) -> None:
    with capture_logs() as events:
        service.tell(b"GET /metrics\r\n\r\n")
        assert service.ask()[0].status == 200
    (event,) = [event for event in events if event["event"] == "http_message"]
    assert event["log_level"] == "debug"
    assert "Malformed HTTP" in event["message"]


def test_headers_without_end_are_refused(service: Service) -> None:
    huge = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n"
    many = b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X-Many: y\r\n" * 20_000 + b"\r\n"
    for sent in (huge, many):
        answer = service.tell(sent)
        assert answer == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer[:100]
    assert service.ask()[0].status == 200


def test_what_fails_inside_is_not_shown(service: Service) -> None:
    def broken() -> str:
        raise RuntimeError("s3cret")

    service.page = broken
    response, body = service.ask("/")
    assert response.status == 500
    assert b"s3cret" not in body
    assert b"Traceback" not in body
    assert service.ask()[0].status == 200


def test_idle_connections_do_not_keep_others_from_metrics(patient: Service) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(patient.connect())
        assert patient.ask(timeout=PATIENCE)[0].status == 200


def test_one_too_many_cuts_the_one_that_has_waited_longest() -> None:
    with serving(limits=Limits(total=20)) as service, ExitStack() as stack:
        waiting = [stack.enter_context(service.connect()) for _ in range(30)]
        assert [connection.recv(1) for connection in waiting[:10]] == [b""] * 10
        assert service.ask()[0].status == 200  # and one more is cut
        assert waiting[10].recv(1) == b""
        waiting[11].sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert waiting[11].recv(100).startswith(b"HTTP/1.1 200")


def test_one_address_does_not_cut_those_of_others() -> None:
    with serving(limits=Limits(total=20, per_address=15)) as service, ExitStack() as stack:
        other = stack.enter_context(service.connect(source="127.0.0.2"))
        waiting = [stack.enter_context(service.connect()) for _ in range(40)]
        assert [connection.recv(1) for connection in waiting[:25]] == [b""] * 25
        other.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_many_addresses_cut_those_of_the_one_that_has_most() -> None:
    with serving(limits=Limits(total=20, per_address=15)) as service, ExitStack() as stack:
        most = [stack.enter_context(service.connect()) for _ in range(15)]
        others = [
            stack.enter_context(service.connect(source=f"127.0.0.{2 + number % 5}"))
            for number in range(10)
        ]
        assert [connection.recv(1) for connection in most[:5]] == [b""] * 5
        for other in others:
            other.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_a_crowd_does_not_cut_a_request_that_is_being_answered() -> None:
    released, asked = threading.Event(), threading.Event()

    def page() -> str:
        asked.set()
        assert released.wait(PATIENCE)
        return "answered"

    with serving(limits=Limits(total=10)) as service, ExitStack() as stack:
        service.page = page
        asking = stack.enter_context(service.connect())
        asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(PATIENCE)
        waiting = [stack.enter_context(service.connect()) for _ in range(30)]
        assert waiting[0].recv(1) == b""
        released.set()
        assert asking.recv(10_000).startswith(b"HTTP/1.1 200")


def test_those_whose_body_does_not_come_do_not_keep_others_from_health() -> None:
    head = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    with serving(limits=Limits(total=10)) as service, ExitStack() as stack:
        begun = [stack.enter_context(service.connect()) for _ in range(10)]
        for connection in begun:
            connection.sendall(head)
        assert [service.ask("/-/healthy")[0].status for _ in range(3)] == [200] * 3
        with suppress(ConnectionResetError):
            assert begun[0].recv(1) == b""


def test_those_whose_body_does_not_come_are_cut_before_those_who_came_later() -> None:
    with serving(limits=Limits(total=10)) as service, ExitStack() as stack:
        begun = [stack.enter_context(service.connect()) for _ in range(3)]
        for connection in begun:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert service.ask("/-/healthy")[0].status == 200, "by now what was sent before is read"
        later = [stack.enter_context(service.connect()) for _ in range(7)]
        assert service.ask("/-/healthy")[0].status == 200
        with suppress(ConnectionResetError):
            assert begun[0].recv(1) == b""
        later[0].sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert later[0].recv(100).startswith(b"HTTP/1.1 200")


@dataclass
class SlowPage:
    """A page that is rendered when it is released; it says for how many times it was rendered."""

    service: Service
    released: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    renderings: int = 0

    def __post_init__(self) -> None:
        self.service.page = self.render

    def render(self) -> str:
        self.renderings += 1
        self.begun.set()
        assert self.released.wait(PATIENCE)
        return f"rendering {self.renderings}."

    def ask(self, path: str = "/") -> socket.socket:
        """Ask on a new connection, and see that the request was read."""
        connection = self.service.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert self.service.ask("/-/healthy")[0].status == 200
        return connection


def test_what_many_ask_for_at_once_is_rendered_once_for_all(service: Service) -> None:
    """Otherwise a scrape waits for as many renderings as somebody else has asked for."""
    page = SlowPage(service)
    with ExitStack() as stack:
        first = stack.enter_context(page.ask())
        assert page.begun.wait(PATIENCE)
        others = [stack.enter_context(page.ask()) for _ in range(20)]
        page.released.set()
        assert b"rendering 1." in first.recv(10_000)
        # What was begun before they asked may hold what was true before.
        assert all(b"rendering 2." in other.recv(10_000) for other in others)


def test_different_metrics_without_end_do_not_hold_up_a_scrape_of_all(service: Service) -> None:
    page = SlowPage(service)
    with ExitStack() as stack:
        stack.enter_context(page.ask())
        assert page.begun.wait(PATIENCE)
        for number in range(MOST_FILTERED):
            stack.enter_context(page.ask(f"/metrics?name[]=m{number}"))
        refused, _ = service.ask("/metrics?name[]=one_too_many")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        scrape = stack.enter_context(page.ask("/metrics"))
        page.released.set()
        assert scrape.recv(100).startswith(b"HTTP/1.1 200")
    assert service.ask("/metrics?name[]=jupyterhub_up")[0].status == 200


def test_for_a_client_that_has_hung_up_nothing_is_done(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have sent hundreds of requests in one piece."""
    page, asked = SlowPage(service), list[object]()
    monkeypatch.setattr(application.Readiness, "problem", lambda one: asked.append(one))
    with service.connect() as connection:
        many = b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n" * 200
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + many)
        assert page.begun.wait(PATIENCE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert service.ask("/-/healthy")[0].status == 200
    page.released.set()
    assert service.ask("/")[0].status == 200
    assert asked == []


def test_of_many_requests_of_a_client_that_has_hung_up_few_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading them one by one would keep others waiting."""
    heads = list[object]()
    prepare = application.Handler.prepare

    async def counted(handler: application.Handler) -> None:
        heads.append(handler)
        await prepare(handler)

    monkeypatch.setattr(application.Handler, "prepare", counted)
    with serving() as service:
        page = SlowPage(service)
        with service.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 300)
            assert page.begun.wait(PATIENCE)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert service.ask("/-/healthy")[0].status == 200
        page.released.set()
        assert service.ask("/")[0].status == 200
    assert len(heads) == 3


def test_a_body_in_pieces_is_refused_unread(service: Service) -> None:
    """Its pieces may have one byte each."""
    head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with capture_logs() as events:
        answer = service.tell(head + b"1\r\na\r\n" * 2000 + b"0\r\n\r\n")
        assert answer == b"" or answer.startswith(b"HTTP/1.1 411 Length Required\r\n")
        with service.connect() as connection:
            connection.sendall(head)
            assert connection.recv(100).startswith(b"HTTP/1.1 411 Length Required\r\n")
    assert [event for event in events if event["log_level"] == "error"] == []


def test_a_body_that_comes_too_late_is_not_read_on() -> None:
    """Its reader is gone: it was told that the connection ended."""

    class Gone(HTTPMessageDelegate):
        def data_received(self, chunk: bytes) -> None:
            raise TypeError(chunk)

    with socket.socket() as wire:
        stream = IOStream(wire)
        stream.close()
        request = connections._Request(Gone(), HTTP1Connection(stream, False), lambda: None)
        assert request.data_received(b"x") is None


class Failing(socket.socket):
    """A port at which nobody can be accepted."""

    number = errno.EPERM

    def accept(self) -> tuple[socket.socket, Any]:
        raise OSError(self.number, os.strerror(self.number))


def nobody_is_cut_by(failing: Failing, times: int) -> None:
    """Accept so many times where that fails, with somebody connected."""

    async def accept(service: Service) -> None:
        for _ in range(times):
            service.listening._accept(failing)

    with failing, serving() as service, service.connect() as waiting:
        assert service.ask("/-/healthy")[0].status == 200
        asyncio.run_coroutine_threadsafe(accept(service), service.web._loop).result(PATIENCE)
        waiting.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")


def test_what_else_is_wrong_with_a_newcomer_cuts_nobody() -> None:
    nobody_is_cut_by(Failing(), 2 * port._SPARE_FILES)


def test_a_descriptor_in_reserve_that_another_thread_took_costs_nobody_the_connection() -> None:
    without = Failing()
    without.number = errno.EMFILE
    nobody_is_cut_by(without, 4)


def test_at_the_end_nothing_more_is_rendered() -> None:
    """It would hold up the end of the process."""
    with serving() as service, ExitStack() as stack:
        page = SlowPage(service)
        stack.enter_context(page.ask())
        assert page.begun.wait(PATIENCE)
        stack.enter_context(page.ask())
        service.web.stop()
        page.released.set()
        service.web._thread.join(PATIENCE)
    assert page.renderings == 1


def test_kept_alive_connections_do_not_keep_others_from_metrics(patient: Service) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            connection = http.client.HTTPConnection(patient.host, patient.port, timeout=PATIENCE)
            stack.enter_context(closing(connection))
            connection.request("GET", "/metrics")
            connection.getresponse().read()
        assert patient.ask(timeout=PATIENCE)[0].status == 200


@pytest.mark.parametrize("limit", ["HEAD_SECONDS", "BODY_SECONDS"])
def test_one_that_sends_byte_by_byte_is_cut(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(connections, limit, 0.5)
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"
    with serving() as service, service.connect() as connection:
        connection.sendall(body if limit == "BODY_SECONDS" else b"GET ")
        connection.settimeout(0.2)
        assert is_cut(connection)


def is_cut(connection: socket.socket) -> bool:
    """Send byte after byte until the other side answers or hangs up; tell whether it did."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            connection.sendall(b"G")
            connection.recv(100)
        except TimeoutError:
            continue
        except ConnectionError:  # cut with bytes of ours unread
            return True
        return True
    return False


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /metrics HTTP/1.1\r\nX: "])
def test_those_who_send_no_whole_request_do_not_keep_others_from_metrics(
    patient: Service, sent: bytes
) -> None:
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(patient.connect()).sendall(sent)
        assert patient.ask(timeout=PATIENCE)[0].status == 200


LARGE = "x" * 30_000_000


def test_one_that_does_not_take_its_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.5)
    with serving() as service, service.connect() as connection:
        service.page = lambda: LARGE
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(read_to_end(connection)) < len(LARGE)


def test_one_that_takes_its_answer_may_ask_again(patient: Service) -> None:
    patient.page = lambda: LARGE
    connection = http.client.HTTPConnection(patient.host, patient.port, timeout=PATIENCE)
    with closing(connection):
        for _ in range(3):
            connection.request("GET", "/")
            assert len(connection.getresponse().read()) == len(LARGE)


def test_only_so_many_answers_are_held_for_those_who_do_not_take_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each may be megabytes."""
    monkeypatch.setattr(connections, "ANSWER_SECONDS", NEVER)
    with serving(limits=Limits(answers=3)) as service, ExitStack() as stack:
        service.page = lambda: LARGE
        takers = [stack.enter_context(service.connect()) for _ in range(4)]
        for taker in takers:
            taker.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert taker.recv(1) == b"H"
        assert len(read_to_end(takers[0])) < len(LARGE)
        assert service.ask()[0].status == 200


def read_to_end(connection: socket.socket) -> bytes:
    """Read what still comes, once the other side has hung up; it does so at some time."""
    connection.settimeout(PATIENCE)
    closed = select.poll()
    closed.register(connection, select.POLLRDHUP | select.POLLHUP)
    assert closed.poll(PATIENCE * 1000)
    read = b""
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            read += piece
    return read


def test_stopping_waits_for_nobody(patient: Service) -> None:
    patient.page = lambda: "x" * 30_000_000
    with ExitStack() as stack:
        for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") * 8:
            connection = stack.enter_context(patient.connect())
            connection.sendall(sent)
        stopping = threading.Thread(target=patient.web.stop)
        stopping.start()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_many_scrapers_at_once(service: Service) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(service.ask()[0].status)) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 50


# ---- where it listens ---------------------------------------------------------------------------


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with serving("::1") as service:
        assert service.address == f"http://[::1]:{service.port}"
        assert service.ask()[0].status == 200


def test_all_interfaces(sidecar: Callable[..., Sidecar]) -> None:
    one = sidecar("--web.listen-address=:0")
    server = one.serve(lambda: True)
    server.start()
    port = int(server.address.rpartition(":")[2])
    try:
        for host in ["127.0.0.1"] + (["::1"] if socket.has_dualstack_ipv6() else []):
            connection = http.client.HTTPConnection(host, port, timeout=10)
            with closing(connection):
                connection.request("GET", "/metrics")
                assert connection.getresponse().status == 200
    finally:
        server.stop()


def test_a_port_that_is_taken_is_one_sentence(sidecar: Callable[..., Sidecar]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = sidecar(f"--web.listen-address=127.0.0.1:{port}")
        listening = f"--web.listen-address: cannot listen on 127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=listening):
            one.serve(lambda: True)
