"""Wire the parts of one sidecar together, run it, and end it promptly."""

import os
import signal
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics

from . import __version__, log
from .clocks import read_clocks
from .config import server_tls, shown_settings
from .culling.enforcement import Enforcement, enforcement_of
from .culling.gatekeeper import Gatekeeper
from .culling.later import Later
from .deleting.deleter import Deleter
from .deleting.listing import UserLister
from .deleting.trail import DeletionTrail
from .domain.durations import shown
from .domain.labels import Outcome, Withheld
from .domain.poll_state import LatestState, PollState
from .domain.settings import ConfigError, Settings, SpareQuerySettings, WebSettings
from .ending import Ending
from .hub.client import Hub
from .hub.token import Token, find_token, token_in_file
from .metrics import Metrics
from .notifying.notifier import Notifier
from .notifying.notify_file import NotifyFile
from .notifying.teller import Teller
from .observer import Observer, rules_of
from .parent import OrphanWatch
from .people.desk import Desk
from .people.promises import Promises
from .people.state_file import StateFile
from .people.tells import OnThePage
from .policy_file import PolicySource
from .poller import LIST_CHANGED, Poller, heartbeat_seconds, warn_of_policies
from .prometheus.client import Prometheus
from .prometheus.second_opinion import SecondOpinion
from .scheduler import Scheduler
from .serving.access import Access
from .serving.application import Site
from .serving.page import Page
from .serving.port import Port
from .serving.server import WebServer
from .serving.web_config import WebConfig, WebConfigSource
from .watched_file import FileError, exposed_to_others

# A single run has failed if a candidate was withheld for one of these: not because it is in use.
_UNSURE = (
    Withheld.PROBE_FAILED,
    Withheld.GATE,
    Withheld.UNASKED,
    Withheld.STALE,
    Withheld.QUERY_FAILED,
)
# A poll that is about to end is waited for, so that nothing is logged after the last line.
_LAST_POLL_SECONDS = 0.5
# How often it is looked whether idle users are to be listed; they are listed once an hour.
_USERS_SECONDS = 2.0
_LOOK_AROUND_SECONDS = 1.0
# A single run waits that long for what it has to tell people.
_DELIVERY_SECONDS = 600.0
_MONITORS = "Nothing is stopped here, so there is nothing to keep a server from."

_Built = TypeVar("_Built")
logger = structlog.get_logger()


@dataclass(frozen=True)
class Sidecar:
    """The parts of one sidecar, wired but not running; `stopping` is set when it shuts down.

    `enforcement` is None in monitor mode, `users` unless idle users are to be deleted.
    """

    settings: Settings
    latest: LatestState
    hub: Hub
    gatekeeper: Gatekeeper
    metrics: Metrics
    observer: Observer
    enforcement: Enforcement | None
    poller: Poller
    users: UserLister | None
    trail: DeletionTrail
    promises: Promises
    notifier: Notifier | None
    desk: Desk
    stopping: threading.Event

    def start(self) -> None:
        """Start the threads that stop servers and tell people, if any are to be stopped."""
        if self.notifier is not None:
            self.notifier.start()
        if self.enforcement is not None:
            self.enforcement.start()

    def release(self) -> None:
        """Let another exporter of this Hub stop servers."""
        if self.enforcement is not None:
            self.enforcement.release()
        self.trail.cut_short()
        self.promises.file.close()

    def announce(self) -> None:
        """Log the configuration, and warn about risky policies."""
        logger.info("starting", version=__version__, **shown_settings(self.settings))
        self._warn_of_exposed_files()
        for name in self.settings.unknown_variables:
            logger.warning("variable_unknown", name=name, why="no option has this variable")
        warn_of_policies(self.latest.state.rules.policies)
        self._announce_deletions()
        self.gatekeeper.tell_of_grace()

    def _warn_of_exposed_files(self) -> None:
        token, of_prometheus, notify = map(exposed_to_others, self.settings.secret_files)
        if token is not None:
            logger.warning("token_file_exposed", why=token)
        if of_prometheus is not None:
            logger.warning("prometheus_token_file_exposed", why=of_prometheus)
        if notify is not None:
            logger.warning("notify_file_exposed", why=notify)

    def _announce_deletions(self) -> None:
        cull = self.settings.cull
        if cull.users.delete and cull.enforce:
            admins = "administrators too" if cull.users.admins else "administrators are kept"
            why = (
                f"users idle for {shown(cull.users.timeout)} are deleted, {admins}; some spawners "
                "delete their data, too (KubeSpawner.delete_pvc, on by default)"
            )
            logger.warning("users_are_deleted", why=why)

    def serve(
        self, is_polling: Callable[[], bool], config: WebConfigSource | None = None
    ) -> WebServer:
        """Open the port; raise ConfigError if it is not available.

        `is_polling` tells whether the poll loop runs.
        """
        page = Page(self.latest, self.gatekeeper, self.metrics, self.settings)

        def current() -> WebConfig:
            return WebConfig() if config is None else config.value

        site = Site(
            self.metrics.exposition,
            healthy=lambda: None if is_polling() else "the poll loop has ended",
            ready=self.not_ready,
            page=page.render,
            access=Access(current, self.metrics.count_web_refusal),
        )
        web = self.settings.web
        port = Port(web.host, web.port, site.application(), lambda: current().tls)
        try:
            port.listen()
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"--web.listen-address: cannot listen on {web.host}:{web.port}: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from None
        return WebServer([port], config, self.metrics.web_config_read)

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


def web_config(web: WebSettings, wait: Callable[[float], bool]) -> WebConfigSource | None:
    """Read the web configuration file; None without one. Raise FileError if it cannot be used."""
    return WebConfigSource(Path(web.config_file), wait).read_first() if web.config_file else None


def assemble(
    settings: Settings,
    token: Token,
    stopping: threading.Event | None = None,
    only_reads: bool = False,
) -> Sidecar:
    """Wire a sidecar together; raise ConfigError if a file that it needs cannot be used.

    This waits for the policy file: half a second, and up to 5 s until it can be used. With
    `only_reads` the state file is left to the exporter that runs.
    """
    stopping = stopping or threading.Event()
    poll, cull = settings.poll, settings.cull
    files = _read_files(settings, stopping, only_reads)
    source, file = files.policies, files.state
    latest = LatestState(PollState.at_start(rules_of(source, poll), cull))
    gatekeeper = Gatekeeper(
        cull.enforce, cull.grace, latest, orphaned=OrphanWatch(os.environ), state_lost=file.lost
    )
    metrics = Metrics(CollectorRegistry(), latest, gatekeeper.read, poll, gatekeeper.stands_by)
    hub = Hub(
        settings.connection,
        token,
        gatekeeper.hub_answered,
        metrics.observe_request,
        stopping.wait,
    )
    enforcement = None

    def keeps_nothing() -> str | None:
        return _MONITORS if enforcement is None else enforcement.election.not_ours()

    notifier = None
    if files.targets is not None:
        notifier = Notifier(files.targets, metrics.count_notification, stopping)
        metrics.undelivered = notifier.undelivered
    tells = Teller(notifier, _page_address()) if notifier else OnThePage(metrics.count_announced)
    promises = Promises.of(file, tells, gatekeeper.hub_time, keeps_nothing)
    opinion, asked = None, settings.spare_query
    if asked is not None:
        opinion = SecondOpinion(asked.query, prometheus_of(asked), metrics.count_query)
    if cull.enforce:
        enforcement = enforcement_of(
            hub,
            gatekeeper,
            promises,
            latest,
            metrics,
            cull,
            poll.interval,
            files.tls,
            Later(stopping, cull.concurrency),
            stopping,
            second_opinion=opinion,
        )
    observer = Observer(hub, source, poll, cull, gatekeeper, file, second_opinion=opinion)
    poller = Poller(observer, source, latest, poll, gatekeeper, enforcement, metrics)
    trail, deleter = DeletionTrail(metrics), None
    if enforcement is not None:
        election = enforcement.election
        deleter = Deleter(hub, gatekeeper, election, latest, source, trail, cull, stopping)
    users = UserLister(hub, latest, cull, deleter) if cull.users.delete else None
    return Sidecar(
        settings=settings,
        latest=latest,
        hub=hub,
        gatekeeper=gatekeeper,
        metrics=metrics,
        observer=observer,
        enforcement=enforcement,
        poller=poller,
        users=users,
        trail=trail,
        promises=promises,
        notifier=notifier,
        desk=Desk(hub, latest, gatekeeper.read, promises, metrics.journal),
        stopping=stopping,
    )


@dataclass(frozen=True)
class _Files:
    """The files of a sidecar, read or opened."""

    policies: PolicySource | None
    targets: NotifyFile | None
    tls: ssl.SSLContext | None
    state: StateFile


def _read_files(settings: Settings, stopping: threading.Event, only_reads: bool) -> _Files:
    """Read them; raise ConfigError.

    The state file comes last: what fails after it would keep it from whoever tries again.
    """
    policies = targets = tls = None
    if settings.policy_file is not None:
        path, may_keep = Path(settings.policy_file), settings.state_file is not None
        policies = PolicySource(path, settings.poll.default, stopping.wait, may_keep)
        policies.read_first()
    if settings.cull.enforce:
        tls = server_tls(settings.tls_directory)
        if not only_reads and settings.notify_file is not None:
            targets = notify_file(settings.notify_file, stopping.wait)
    path_of_state = None if settings.state_file is None else Path(settings.state_file)
    if only_reads:
        return _Files(policies, targets, tls, StateFile.reading(path_of_state))
    return _Files(policies, targets, tls, StateFile.opened(path_of_state, stopping.wait))


def notify_file(path: str, wait: Callable[[float], bool]) -> NotifyFile:
    """Read the notify file, and mask its secrets in the log; raise ConfigError."""
    file = NotifyFile(Path(path), wait).read_first()
    log.mask_also(file.mask)
    return file


def prometheus_of(settings: SpareQuerySettings) -> Prometheus:
    """Make what asks the Prometheus; raise ConfigError if the token for it cannot be used."""
    if settings.token_file is None:
        return Prometheus(settings, None)
    token = token_in_file("--prometheus-token-file", Path(settings.token_file))
    log.mask_also(token.mask)
    return Prometheus(settings, token)


def _page_address() -> str:
    """Return the public address of the page inside the Hub; "" where the Hub does not say it."""
    return os.environ.get("JUPYTERHUB_PUBLIC_URL", "")


def prepared(settings: Settings, environ: Mapping[str, str]) -> Token:
    """Find the token and set up the log that masks it."""
    token = find_token(settings.token_file, environ)
    # In the text format they would double the number of series.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    log.configure(settings.log.level, settings.log.format, token.mask)
    return token


@dataclass(frozen=True)
class Served:
    """A sidecar whose port is open; `polling` is the thread that will poll."""

    sidecar: Sidecar
    polling: threading.Thread
    web: WebServer


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run the sidecar until SIGTERM, SIGINT or the end of the Hub that started it."""
    ending = Ending()
    ending.watch()
    found = _unless_stopped(
        ending.stopping,
        lambda: (
            assemble(settings, prepared(settings, environ), ending.stopping),
            web_config(settings.web, ending.stopping.wait),
        ),
    )
    return 0 if found is None else operate(serve(*found), ending)


def serve(sidecar: Sidecar, config: WebConfigSource | None) -> Served:
    """Open the port; raise ConfigError if it is not available."""
    polling = threading.Thread(target=_poll_loop, args=[sidecar], name="poller", daemon=True)
    web = sidecar.serve(lambda: polling.is_alive() or not polling.ident, config)
    return Served(sidecar, polling, web)


def operate(served: Served, ending: Ending) -> int:
    """Serve, poll and cull until the process is to end; return its exit code."""
    sidecar, web, polling = served.sidecar, served.web, served.polling
    sidecar.announce()
    web.start()
    logger.info("listening", address=web.address)
    sidecar.start()
    polling.start()
    if sidecar.users is not None:
        listing = [sidecar.users, ending.stopping]
        threading.Thread(target=_user_loop, args=listing, daemon=True).start()
    try:
        ending.wait()
    finally:
        ending.stopping.set()
        web.stop()
        sidecar.release()
        polling.join(_LAST_POLL_SECONDS)
    logger.info("stopped", crashed=bool(ending.crashes))
    signal.alarm(0)
    return 1 if ending.crashes else 0


def _unless_stopped(stopping: threading.Event, build: Callable[[], _Built]) -> _Built | None:
    """Build something; return None if stopped while waiting for a file that can be used."""
    try:
        return build()
    except FileError:
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


def _user_loop(users: UserLister, stopping: threading.Event) -> None:
    """Look every few seconds whether idle users are to be listed, until stopped."""
    scheduler = Scheduler(stopping)
    scheduler.every(_USERS_SECONDS, users.list_if_due)
    scheduler.run()


def run_once(settings: Settings, environ: Mapping[str, str]) -> int:
    """Poll once, cull once with --enforce; return 0 if all of it worked, else 1."""
    ending, begun = Ending(), read_clocks().monotonic
    ending.watch()
    stopping = ending.stopping
    sidecar = _unless_stopped(
        stopping, lambda: assemble(settings, prepared(settings, environ), stopping)
    )
    if sidecar is None:
        return 1
    sidecar.announce()
    if settings.cull.enforce and settings.cull.remove_named_servers:
        why = "records are removed minutes after the stop, when a single run has ended"
        logger.warning("named_servers_not_removed", why=why)
    sidecar.start()
    worked: list[bool] = []

    def work() -> None:
        enforcing = sidecar.enforcement is not None
        polled = single_pass(sidecar.poller, sidecar.gatekeeper, enforcing)
        if sidecar.notifier is not None:
            polled = sidecar.notifier.drain(_DELIVERY_SECONDS) and polled
        listed = sidecar.users is None or sidecar.users.list_if_due()
        worked.append(polled and listed)
        stopping.set()

    # On its own thread, so that a signal ends the process even while that thread waits for the Hub.
    threading.Thread(target=work, name="poller", daemon=True).start()
    while not stopping.wait(_LOOK_AROUND_SECONDS):
        pass  # a signal that arrives right before a wait is noticed only after it
    sidecar.release()
    _sum_up(sidecar, worked, read_clocks().monotonic - begun)
    return 0 if worked == [True] else 1


def _sum_up(sidecar: Sidecar, worked: list[bool], seconds: float) -> None:
    """Log how a single run ended, in numbers; they are unknown if the Hub could not be read."""
    snapshot = sidecar.latest.state.snapshot
    became = sidecar.metrics.journal.last_pass().outcomes
    withheld = {str(cause): became[cause] for cause in Withheld if cause in became}
    write = logger.info if worked == [True] else logger.error
    write(
        "single_run_ended",
        outcome=("worked" if worked[0] else "failed") if worked else "interrupted",
        servers=snapshot.census.total if snapshot else None,
        candidates=len(snapshot.census.candidates) if snapshot else None,
        stopped=became.get(Outcome.STOPPED, 0),
        failed=became.get(Outcome.FAILED, 0),
        withheld=sum(withheld.values()),
        under_way=became.get(Outcome.UNDER_WAY, 0),
        causes=" ".join(f"{cause}:{count}" for cause, count in withheld.items()),
        seconds=seconds,
    )


def single_pass(poller: Poller, gatekeeper: Gatekeeper, enforcing: bool) -> bool:
    """Poll once, cull once if servers are to be stopped; tell whether all of it worked."""
    if not poller.poll():
        return False
    if not enforcing:
        return True
    begun = poller.last_pass
    if begun is None:
        why = gatekeeper.closed() or LIST_CHANGED
        logger.error("nothing_culled", why=why)
        return False
    begun.done.wait()
    if poller.last_announcing is not None:
        poller.last_announcing.done.wait()
    return not begun.failed and not any(begun.withheld[cause] for cause in _UNSURE)
