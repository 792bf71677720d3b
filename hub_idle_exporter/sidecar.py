"""Wire the parts of one sidecar together, run it, and end it promptly."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics

from . import __version__, log
from .clocks import read_clocks
from .config import server_tls, shown_settings
from .culling.enforcement import Enforcement, enforcement_of
from .culling.gatekeeper import Gatekeeper
from .culling.later import Later
from .domain.durations import shown
from .domain.labels import Withheld
from .domain.poll_state import LatestState, PollState
from .domain.settings import ConfigError, Settings
from .hub.client import Hub
from .hub.token import Token, find_token
from .metrics import Metrics
from .observer import Observer, rules_of
from .parent import OrphanWatch
from .policy_file import PolicyError, PolicySource
from .poller import LIST_CHANGED, Poller, heartbeat_seconds, warn_of_policies
from .scheduler import Scheduler
from .serving.page import Page
from .serving.server import Application, WebServer

# A single run has failed if a candidate was withheld for one of these: not because it is in use.
_UNSURE = (Withheld.PROBE_FAILED, Withheld.GATE, Withheld.UNASKED, Withheld.STALE)

logger = structlog.get_logger()


@dataclass(frozen=True)
class Sidecar:
    """The parts of one sidecar, wired but not running; `stopping` is set when it shuts down.

    `enforcement` is None in monitor mode.
    """

    settings: Settings
    latest: LatestState
    hub: Hub
    gatekeeper: Gatekeeper
    metrics: Metrics
    observer: Observer
    enforcement: Enforcement | None
    poller: Poller
    stopping: threading.Event

    def start(self) -> None:
        """Start the threads that stop servers, if any are to be stopped."""
        if self.enforcement is not None:
            self.enforcement.start()

    def release(self) -> None:
        """Let another exporter of this Hub stop servers."""
        if self.enforcement is not None:
            self.enforcement.release()

    def announce(self) -> None:
        """Log the configuration, and warn about risky policies."""
        logger.info("starting", version=__version__, **shown_settings(self.settings))
        warn_of_policies(self.latest.state.rules.policies)

    def serve(self, is_polling: Callable[[], bool]) -> WebServer:
        """Open the port; raise ConfigError if it is not available.

        `is_polling` tells whether the poll loop runs.
        """
        page = Page(self.latest, self.gatekeeper, self.metrics, self.settings)
        application = Application(
            self.metrics.exposition,
            healthy=lambda: None if is_polling() else "the poll loop has ended",
            ready=self.not_ready,
            page=page.render,
        )
        host, port = self.settings.web.host, self.settings.web.port
        server = WebServer(host, port, application)
        try:
            server.listen()
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"--web.listen-address: cannot listen on {host}:{port}: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from None
        return server

    def not_ready(self) -> str | None:
        """Say why the facts are missing or stale; None if they are current."""
        state, now = self.latest.state, read_clocks()
        if not state.is_stale(now, self.settings.poll.interval):
            return None
        age, error = state.seconds_since_success(now), state.error
        if age is None:
            problem = error.sentence if error else "the first one is under way"
            return f"no poll has succeeded yet: {problem}"
        problem = error.sentence if error else "no poll has finished since"
        return f"the last successful poll was {shown(age)} ago: {problem}"


def assemble(settings: Settings, token: Token, stopping: threading.Event | None = None) -> Sidecar:
    """Wire a sidecar together; raise ConfigError if a file that it needs cannot be used.

    This waits for the policy file: half a second, and up to 5 s until it can be used.
    """
    stopping = stopping or threading.Event()
    poll, cull = settings.poll, settings.cull
    source = None
    if settings.policy_file is not None:
        source = PolicySource.load(Path(settings.policy_file), poll.default, stopping.wait)
    latest = LatestState(PollState.at_start(rules_of(source, poll), cull))
    gatekeeper = Gatekeeper(cull.enforce, cull.grace, latest, orphaned=OrphanWatch(os.environ))
    metrics = Metrics(CollectorRegistry(), latest, gatekeeper.state, poll, gatekeeper.stands_by)
    hub = Hub(settings.connection, token, gatekeeper.hub_answered, metrics.observe_request)
    enforcement = None
    if cull.enforce:
        tls = server_tls(settings.tls_directory)
        enforcement = enforcement_of(
            hub,
            gatekeeper,
            latest,
            metrics,
            cull,
            poll.interval,
            tls,
            Later(stopping, cull.concurrency),
            stopping,
        )
    observer = Observer(hub, source, poll, cull, gatekeeper)
    poller = Poller(observer, source, latest, poll, gatekeeper, enforcement, metrics)
    return Sidecar(
        settings, latest, hub, gatekeeper, metrics, observer, enforcement, poller, stopping
    )


def prepared(settings: Settings, environ: Mapping[str, str]) -> Token:
    """Find the token and set up the log that masks it."""
    token = find_token(settings.token_file, environ)
    # In the text format they would double the number of series.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    log.configure(settings.log.level, settings.log.format, token.mask)
    return token


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the sidecar until SIGTERM, SIGINT or the end of the Hub that started it."""
    stopping = threading.Event()
    crashes = _watch_threads(stopping)
    _stop_on_signals(stopping)
    sidecar = _assembled(settings, environ, stopping)
    if sidecar is None:
        return 0
    polling = threading.Thread(target=_poll_loop, args=[sidecar], name="poller", daemon=True)
    # First, because a Hub does not wait long for the port of a service.
    web = sidecar.serve(lambda: polling.is_alive() or not polling.ident)
    sidecar.announce()
    web.start()
    logger.info("listening", address=web.address)
    sidecar.start()
    polling.start()
    try:
        _wait(stopping)
    finally:
        stopping.set()
        web.stop()
        sidecar.release()
    logger.info("stopped", crashed=bool(crashes))
    return 1 if crashes else 0


def _assembled(
    settings: Settings, environ: Mapping[str, str], stopping: threading.Event
) -> Sidecar | None:
    """Assemble; return None if stopped while waiting for a policy file that can be used."""
    try:
        return assemble(settings, prepared(settings, environ), stopping)
    except PolicyError:
        if stopping.is_set():
            return None
        raise


def _poll_loop(sidecar: Sidecar) -> None:
    """Poll, and check that the Hub answers, until stopped."""
    interval = sidecar.settings.poll.interval
    scheduler = Scheduler(sidecar.stopping)
    scheduler.every(interval, sidecar.poller.poll)
    scheduler.every(heartbeat_seconds(interval), sidecar.poller.heartbeat)
    scheduler.run()


def _wait(stopping: threading.Event) -> None:
    """Wait until stopped, or until the Hub that started this process has ended."""
    orphaned = OrphanWatch(os.environ)
    while not stopping.wait(1.0):
        if orphaned():
            what = "the Hub that started this exporter has ended, so the exporter ends too"
            logger.warning("parent_hub_ended", what=what)
            stopping.set()


def _stop_on_signals(stopping: threading.Event) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _watch_threads(stopping: threading.Event) -> list[str]:
    """End the process when a thread crashes: that is a bug, and the supervisor restarts us."""
    crashes: list[str] = []

    def crashed(arguments: threading.ExceptHookArgs) -> None:
        crashes.append(str(arguments.exc_type))
        sys.excepthook(
            arguments.exc_type, arguments.exc_value or Exception(), arguments.exc_traceback
        )
        stopping.set()

    threading.excepthook = crashed
    return crashes


def run_once(settings: Settings, environ: Mapping[str, str]) -> int:
    """Poll once, cull once with --enforce; return 0 if all of it worked, else 1."""
    stopping = threading.Event()
    _watch_threads(stopping)
    _stop_on_signals(stopping)
    sidecar = _assembled(settings, environ, stopping)
    if sidecar is None:
        return 1
    sidecar.announce()
    if settings.cull.enforce and settings.cull.remove_named_servers:
        why = "records are removed minutes after the stop, when a single run has ended"
        logger.warning("named_servers_not_removed", why=why)
    sidecar.start()
    worked: list[bool] = []

    def work() -> None:
        worked.append(_single_pass(sidecar))
        stopping.set()

    # On its own thread, so that a signal ends the process even while that thread waits for the Hub.
    threading.Thread(target=work, name="poller", daemon=True).start()
    stopping.wait()
    sidecar.release()
    return 0 if worked == [True] else 1


def _single_pass(sidecar: Sidecar) -> bool:
    """Poll once, cull once; tell whether all of it worked."""
    if not sidecar.poller.poll():
        return False
    if sidecar.enforcement is None:
        return True
    begun = sidecar.poller.last_pass
    if begun is None:
        why = sidecar.gatekeeper.closed() or LIST_CHANGED
        logger.error("nothing_culled", why=why)
        return False
    begun.done.wait()
    return not begun.failed and not any(begun.withheld[cause] for cause in _UNSURE)
