"""A web server on a free port over the metrics of a good poll, and how to ask it.

with serving() as service:
response, body = service.ask("/metrics")
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import poll_states
from prometheus_client import CollectorRegistry

from hub_idle_exporter.domain.census import census_of
from hub_idle_exporter.domain.gate import GateReading, GateState
from hub_idle_exporter.domain.policy import Policy, Rules
from hub_idle_exporter.domain.poll_state import LatestState, Snapshot
from hub_idle_exporter.domain.settings import PollSettings
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.serving.access import Access
from hub_idle_exporter.serving.application import Site
from hub_idle_exporter.serving.crowd import Limits
from hub_idle_exporter.serving.port import Port
from hub_idle_exporter.serving.server import WebServer
from hub_idle_exporter.serving.web_config import WebConfig, WebConfigSource

USUAL = Limits()


class Service:
    """A web server on a free port over the metrics of a good poll."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        limits: Limits = USUAL,
        source: WebConfigSource | None = None,
    ) -> None:
        rules = Rules((Policy('quo"te\n\u00fc', 3600.0),))
        snapshot = Snapshot(0.0, census_of([], rules))
        latest = LatestState(poll_states.good(snapshot=snapshot))
        self.metrics = Metrics(
            CollectorRegistry(),
            latest,
            lambda _state: GateReading(GateState.OFF, ""),
            PollSettings(rules.policies[0]),
        )
        self.dead: str | None = None
        self.unready: str | None = None
        self.page: Callable[[], str] = lambda: "a page"
        self.config, self.source = WebConfig(), source
        site = Site(
            self.metrics.exposition,
            lambda: self.dead,
            lambda: self.unready,
            lambda _asked: self.page(),
            Access(self.current, self.metrics.count_web_refusal),
        )
        listening = Port(host, 0, site.application(), lambda: self.current().tls, limits)
        listening.listen()
        self.listening = listening
        self.web = WebServer([listening], source)
        self.address = self.web.address
        self.host, self.port = host, int(self.address.rpartition(":")[2])

    def ask(
        self,
        path: str = "/metrics",
        method: str = "GET",
        timeout: float = 15,
        source: str = "",
        **headers: str,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout, source_address=(source, 0) if source else None
        )
        with closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            return response, response.read()

    def current(self) -> WebConfig:
        return self.config if self.source is None else self.source.value

    def connect(self, source: str = "") -> socket.socket:
        from_there = (source, 0) if source else None
        return socket.create_connection((self.host, self.port), 15, from_there)

    def tell(self, sent: bytes, tls: ssl.SSLContext | None = None) -> bytes:
        """Send bytes and give all that comes back until the connection is closed.

        The other side may hang up at any step: while bytes are still sent, before our end of
        sending is told (ENOTCONN, which is no ConnectionError), in the middle of its answer.
        """
        answer = b""
        plain = self.connect()
        with plain if tls is None else tls.wrap_socket(plain, server_hostname=self.host) as wire:
            with suppress(OSError):
                wire.sendall(sent)
                if tls is None:
                    wire.shutdown(socket.SHUT_WR)
                else:
                    wire.settimeout(0.1)  # it cannot be told that nothing more will be sent
            with suppress(OSError):
                while piece := wire.recv(65536):
                    answer += piece
        return answer


@contextmanager
def serving(
    host: str = "127.0.0.1", limits: Limits = USUAL, source: WebConfigSource | None = None
) -> Iterator[Service]:
    service = Service(host, limits, source)
    service.web.start()
    try:
        yield service
    finally:
        service.web.stop()
