"""What is served at --web.listen-address while the sidecar cannot start: why, and `suspended`."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import structlog
from jinja2 import Template
from prometheus_client import CollectorRegistry

from ..domain.gate import GateReading, GateState
from ..domain.policy import DEFAULT, Policy, Rules
from ..domain.poll_state import LatestState, PollState
from ..domain.settings import CullSettings, PollSettings, WebSettings
from ..metrics import Metrics
from ..watched_file import FileError
from .access import Access
from .application import Site
from .assets import STYLE, TEMPLATES
from .port import Port
from .server import WebServer
from .templating import environment
from .web_config import WebConfig, WebConfigSource

_HIDDEN = "the exporter cannot start; its log says why, and its page inside the Hub"
_DEFAULT = Policy(DEFAULT, 3600.0)

log = structlog.get_logger()


class FailureServer:
    """Serves from the first `say` to `stop`.

    Args:
        web: where, and who may read it.
        wait: waits for some seconds; returns True, at once, when the exporter is to end.
    """

    def __init__(self, web: WebSettings, wait: Callable[[float], bool]) -> None:
        self._web, self._wait = web, wait
        self._problem = ""
        # Without the passwords of the file nobody is told more than that it fails.
        self._config, self._hides = WebConfig(), web.config_file is not None
        self._server: WebServer | None = None
        self._said = ""

    def say(self, problem: str) -> None:
        """Say what is wrong, from now on."""
        self._problem = problem
        if self._hides:
            self._read_config()
        if self._server is None:
            self._server = self._opened()

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.stop()

    def _read_config(self) -> None:
        """Serve by the web configuration file as soon as it can be used."""
        source = WebConfigSource(Path(self._web.config_file or ""), self._wait)
        with suppress(FileError):
            self._config, self._hides = source.read_first().value, False

    def _opened(self) -> WebServer | None:
        """Open the port, unless somebody else has it: then it is tried again the next time."""
        site = _site(self._sentence, lambda: self._config)
        web = self._web
        port = Port(web.host, web.port, site.application(), lambda: self._config.tls)
        try:
            port.listen()
        except (OSError, UnicodeError) as error:
            self._warn(getattr(error, "strerror", None) or str(error))
            return None
        server = WebServer([port])
        server.start()
        log.info("listening", address=server.address)
        return server

    def _sentence(self) -> str:
        return _HIDDEN if self._hides else self._problem

    def _warn(self, problem: str) -> None:
        if problem != self._said:
            address = f"{self._web.host}:{self._web.port}"
            log.warning("port_unavailable", address=address, error=problem)
        self._said = problem


def _site(said: Callable[[], str], config: Callable[[], WebConfig]) -> Site:
    """Return what is served: the metrics of an exporter that knows nothing and stops nothing."""
    latest = LatestState(PollState.at_start(Rules((_DEFAULT,)), CullSettings()))
    metrics = Metrics(
        CollectorRegistry(),
        latest,
        lambda _state: GateReading(GateState.SUSPENDED, said()),
        PollSettings(_DEFAULT),
    )
    return Site(
        metrics.exposition,
        healthy=lambda: None,  # to start it again would mend nothing
        ready=said,
        page=lambda _asked: _template().render(problem=said(), style=STYLE),
        access=Access(config, metrics.count_web_refusal),
    )


@cache
def _template() -> Template:
    return environment(TEMPLATES).get_template("failure.html")
