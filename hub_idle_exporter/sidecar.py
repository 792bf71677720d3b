"""Puts the parts of one sidecar together, runs it, and ends it promptly."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics

from . import __version__, log
from .config import Config, ConfigError, server_tls, token_of
from .culling.culler import Culler
from .culling.gatekeeper import Gatekeeper
from .culling.probe import Prober
from .domain.durations import shown
from .domain.policy import Policy
from .hub.client import Hub, Token
from .metrics import Metrics
from .parent import OrphanWatch
from .policy_file import PolicySource
from .poller import Poller, heartbeat_seconds, warn_of
from .scheduler import Scheduler
from .serving.page import Page
from .serving.server import Application, WebServer

_INTERVALS_UNTIL_STALE = 3

logger = structlog.get_logger()


class Sidecar:
    """One sidecar, put together and not yet running.

    Args:
        config: what the options say.
        token: the sidecar's own.
        stopping: set when it is to end.
        memory: False for a single pass, which is under no grace but stops only what it has asked.
    """

    def __init__(
        self, config: Config, token: Token, stopping: threading.Event, memory: bool = True
    ) -> None:
        terms = config.terms
        self.config = config
        self.source = _policies(config)
        policies: tuple[Policy, ...] = self.source.policies if self.source else (terms.default,)
        grace = config.grace if memory else 0.0
        self.gatekeeper = Gatekeeper(terms.enforce, grace, orphaned=OrphanWatch(os.environ))
        self.metrics = Metrics(CollectorRegistry(), self.gatekeeper.state, policies)
        self.hub = Hub(config.connection, token, self._answered, self.metrics.observe_request)
        self.culler = self._culler(stopping) if terms.enforce else None
        self.poller = Poller(
            self.hub, self.source, terms, self.gatekeeper, self.culler, self.metrics
        )
        self.ticking = True  # the poll loop lives
        self.clock_skew: float | None = None  # Hub minus us, in seconds
        self._stopping = stopping

    def _culler(self, stopping: threading.Event) -> Culler:
        prober = Prober(self.hub, self.config.terms.probe_user, server_tls(self.config))
        return Culler(self.hub, prober, self.gatekeeper, self.metrics, self.config.limits, stopping)

    def _answered(self, hub_time: float | None) -> None:
        self.gatekeeper.hub_answered(hub_time)
        if hub_time is not None:
            # The Date header is cut to the second: on average the Hub's clock is half on.
            self.clock_skew = hub_time + 0.5 - time.time()
            self.metrics.clock_skew.set(self.clock_skew)

    def announce(self) -> None:
        """Log the configuration, and what about it may surprise."""
        logger.info("starting", version=__version__, **self.config.shown())
        warn_of(self.poller.rules.policies)

    def serve(self) -> WebServer:
        """Open the port; raise ConfigError when it cannot be had."""
        page = Page(self.poller, self.gatekeeper, self.metrics, self.config)
        application = Application(self.metrics.exposition, self._dead, self._unready, page.render)
        try:
            return WebServer(self.config.host, self.config.port, application)
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"--web.listen-address: {self.config.host}:{self.config.port} cannot be "
                f"listened on: {getattr(error, 'strerror', None) or error}"
            ) from None

    def loop(self) -> None:
        """Poll, and see whether the Hub is there, until told to stop."""
        scheduler = Scheduler(self._stopping)
        scheduler.every(self.config.terms.interval, self.poller.poll)
        scheduler.every(heartbeat_seconds(self.config.terms.interval), self.poller.heartbeat)
        try:
            scheduler.run()
        finally:
            self.ticking = False

    def _dead(self) -> str | None:
        return None if self.ticking else "the poll loop has ended"

    def _unready(self) -> str | None:
        success, error = self.poller.last_success, self.poller.last_error
        if success is None:
            return f"no poll has succeeded yet: {error or 'the first one is under way'}"
        age = time.monotonic() - success
        if age >= _INTERVALS_UNTIL_STALE * self.config.terms.interval:
            return f"the last good poll was {shown(age)} ago: {error or 'none has ended since'}"
        return None


def _policies(config: Config) -> PolicySource | None:
    if config.policy_file is None:
        return None
    return PolicySource(config.policy_file, config.terms.default)


def prepared(config: Config, environ: Mapping[str, str]) -> Token:
    """Find the token and set up the log that masks it."""
    token = token_of(config, environ)
    # In the text format they would be twice as many series.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    log.configure(config.log_level, config.log_format, token.mask)
    return token


def run(config: Config, environ: Mapping[str, str]) -> int:
    """Run the sidecar until SIGTERM, SIGINT or the end of the Hub that started it."""
    stopping = threading.Event()
    crashes = _watch_threads(stopping)
    _stop_on_signals(stopping)
    sidecar = Sidecar(config, prepared(config, environ), stopping)
    web = sidecar.serve()  # first of all: a Hub waits for its services' ports, and not for long
    sidecar.announce()
    web.start()
    logger.info("listening", address=web.address)
    threading.Thread(target=sidecar.loop, name="poller", daemon=True).start()
    try:
        _wait(stopping)
    finally:
        web.stop()
    logger.info("stopped", crashed=bool(crashes))
    return 1 if crashes else 0


def _wait(stopping: threading.Event) -> None:
    """Wait until told to stop, or until the Hub that started this process is gone."""
    orphaned = OrphanWatch(os.environ)
    while not stopping.wait(1.0):
        if orphaned():
            logger.warning("hub_gone", what="the Hub that started this process ended: ending too")
            stopping.set()


def _stop_on_signals(stopping: threading.Event) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _watch_threads(stopping: threading.Event) -> list[str]:
    """End the process when a thread crashes: that is a bug, and the supervisor starts us anew."""
    crashes: list[str] = []

    def crashed(arguments: threading.ExceptHookArgs) -> None:
        crashes.append(str(arguments.exc_type))
        sys.excepthook(
            arguments.exc_type, arguments.exc_value or Exception(), arguments.exc_traceback
        )
        stopping.set()

    threading.excepthook = crashed
    return crashes


def once(config: Config, environ: Mapping[str, str]) -> int:
    """Poll once, cull once with --enforce; give 0 when all of it worked, else 1."""
    stopping = threading.Event()
    _watch_threads(stopping)
    _stop_on_signals(stopping)
    sidecar = Sidecar(config, prepared(config, environ), stopping, memory=config.grace == 0)
    sidecar.announce()
    worked: list[bool] = []

    def work() -> None:
        worked.append(_single_pass(sidecar))
        stopping.set()

    # On a thread of its own: a signal ends this one, whatever the Hub keeps that one waiting for.
    threading.Thread(target=work, name="poller", daemon=True).start()
    stopping.wait()
    return 0 if worked == [True] else 1


def _single_pass(sidecar: Sidecar) -> bool:
    """Poll once, cull once; tell whether all of it worked."""
    if not sidecar.poller.poll():
        return False
    if sidecar.culler is None:
        return True
    begun = sidecar.poller.last_pass
    if begun is None:
        why = sidecar.gatekeeper.closed() or "the list changed too much while it was read"
        logger.error("nothing_culled", why=why)
        return False
    begun.done.wait()
    return not (begun.failed or begun.unsure)
