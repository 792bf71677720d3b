"""The sidecar as a service of the Hub with a page inside it: nothing ends the process at its start.

A Hub ends when such a service ends early, or does not answer. So what is wrong with the
configuration is said by the page, the log and `/-/ready`, nothing is polled or stopped, and what
can be mended in a file is tried again.
"""

import signal
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import structlog
from prometheus_client import disable_created_metrics

from . import log, service_port
from .domain.settings import ConfigError, Settings, WebSettings
from .ending import Ending
from .hub.token import find_token
from .serving.failure import FailureServer
from .serving.hub_page.front import Front
from .serving.hub_page.ports import page_server
from .serving.hub_page.service import Service
from .serving.web_config import WebConfigSource
from .sidecar import Sidecar, assemble, operate, prepared, serve, web_config

_AGAIN_SECONDS = 2.0
_PORT_AGAIN_SECONDS = 0.2
_PAGE_END_SECONDS = 3.0

_Built = TypeVar("_Built")
logger = structlog.get_logger()


def run(
    read: Callable[[], Settings],
    web: WebSettings,
    environ: Mapping[str, str],
    listener: socket.socket | None,
) -> int:
    """Run until SIGTERM, SIGINT or the end of the Hub; return the exit code.

    Args:
        read: reads the settings, or raises ConfigError.
        web: where to say that they cannot be read.
        environ: the environment of the process.
        listener: the port of the page inside the Hub if it is open already.
    """
    ending = Ending()
    ending.watch()
    log.configure("info", "logfmt", _mask(environ))
    disable_created_metrics()  # type: ignore[no-untyped-call]
    front = Front(Service.of(environ))
    inside = threading.Thread(
        target=_serve_page, args=[front, environ, listener, ending], name="page", daemon=True
    )
    inside.start()
    try:
        return _Start(front, environ, ending).run(read, web)
    finally:
        ending.stopping.set()
        inside.join(_PAGE_END_SECONDS)
        signal.alarm(0)


def _for_the_page(settings: Settings) -> Settings:
    """Let each poll keep all servers: administrators see them there."""
    return replace(settings, poll=replace(settings.poll, lists_all=True))


def _mask(environ: Mapping[str, str]) -> Callable[[str], str]:
    """Mask the token before the settings say which one is used."""
    try:
        return find_token(None, environ).mask
    except ConfigError:
        return str


def _serve_page(
    front: Front, environ: Mapping[str, str], listener: socket.socket | None, ending: Ending
) -> None:
    """Serve the page inside the Hub until the process is to end."""
    listener = listener or _opened_when_free(environ, ending)
    if listener is None:
        return
    server = page_server(front, listener, environ)
    server.start()
    logger.info("listening_inside_hub", address=server.address, prefix=front.service.prefix)
    ending.stopping.wait()
    server.stop()


def _opened_when_free(environ: Mapping[str, str], ending: Ending) -> socket.socket | None:
    """Open its port as soon as that is possible: the service of a killed Hub may still hold it."""
    said = ""
    while not ending.stopping.is_set():
        try:
            return service_port.opened(environ)
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            if problem != said:
                address = environ.get("JUPYTERHUB_SERVICE_URL", "")
                logger.warning("service_port_unavailable", address=address, error=problem)
            said = problem
        ending.stopping.wait(_PORT_AGAIN_SECONDS)
    return None


class _Start:
    """Starts the sidecar, as often as it takes."""

    def __init__(self, front: Front, environ: Mapping[str, str], ending: Ending) -> None:
        self._front, self._environ, self._ending = front, environ, ending
        self._said = ""

    def run(self, read: Callable[[], Settings], web: WebSettings) -> int:
        """Run the sidecar, or say why that cannot be done; return the exit code."""
        try:
            settings = _for_the_page(read())
        except ConfigError as error:
            return self._wait_with(str(error), web)
        failure = FailureServer(settings.web, self._ending.stopping.wait)
        found = self._until_done(partial(self._assembled, settings), failure.say)
        failure.stop()
        served = None if found is None else self._until_done(partial(serve, *found))
        if served is None:
            return self._code()
        running = served.sidecar
        self._front.open(running.desk, running.not_ready, running.promises.file.cookie_key)
        return operate(served, self._ending)

    def _wait_with(self, problem: str, web: WebSettings) -> int:
        """Say what is wrong until the process is to end: options do not change."""
        failure = FailureServer(web, self._ending.stopping.wait)
        self._say(problem, failure.say)
        while not self._ending.wait(_AGAIN_SECONDS):
            failure.say(problem)  # its port may have been in use, or its file not be there
        failure.stop()
        return self._code()

    def _assembled(self, settings: Settings) -> tuple[Sidecar, WebConfigSource | None]:
        token, stopping = prepared(settings, self._environ), self._ending.stopping
        config = web_config(settings.web, stopping.wait)
        return assemble(settings, token, stopping), config

    def _until_done(
        self, build: Callable[[], _Built], also_say: Callable[[str], object] = str
    ) -> _Built | None:
        """Build something as soon as that is possible; None if the process is to end first."""
        while not self._ending.stopping.is_set():
            try:
                return build()
            except ConfigError as error:
                if self._ending.stopping.is_set():  # it waited for a file that can be used
                    return None
                self._say(str(error), also_say)
            self._ending.wait(_AGAIN_SECONDS)
        return None

    def _say(self, problem: str, also_say: Callable[[str], object]) -> None:
        """Say why it does not run, in the log once, and last: then it can be seen everywhere."""
        self._front.fail(problem)
        also_say(problem)
        if problem != self._said:
            logger.error("start_failed", error=problem)
        self._said = problem

    def _code(self) -> int:
        logger.info("stopped", crashed=bool(self._ending.crashes))
        return 1 if self._ending.crashes else 0
