"""One cell of the fault matrix: one kind of fault at one step, what came of it, and the recovery.

    cell = run(kind, step)
    cell.outcome      "poll fails: timeout", "withheld: probe_failed", "stopped", ...

The exporter's parts are the real ones, and so is HTTP; the clocks are the rig's. One server is
forgotten, one person types, and one computes without a word to the Hub: these two are at work, and
never stopped, whatever happens.
"""

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from culling_rig import Rig, resting
from fake_hub import FakeHub, FakeServer, Request, Server
from fault_steps import (
    HUB_NAME,
    SERVER,
    SERVER_NAME,
    USER,
    Certificates,
    FaultKind,
    Names,
    Scene,
    Step,
    looked_up,
)
from structlog.testing import capture_logs

from hub_idle_exporter.domain.labels import Cause, CullFailure, Withheld
from hub_idle_exporter.domain.settings import ConnectionSettings, Settings
from hub_idle_exporter.people.state_file import StateFile
from hub_idle_exporter.serving.page import Page
from hub_idle_exporter.serving.reading import ServerFilter
from hub_idle_exporter.sidecar import single_pass

TYPING, COMPUTING = "zoe", "kim"
_PATIENCE = 60.0
# What is logged without any fault as well.
_USUAL = {"poll_succeeded", "safeguards_complete", "lease_taken", "stopping_server", "culled",
          "named_server_removed"}  # fmt: skip
_ROUNDS = 80
WITHHELD = set(Withheld) - {Withheld.BUSY}  # the one that computes is spared in any case


@dataclass
class Cell:
    """What came of a fault.

    `events` are those above debug that a good pass has not, `code` is the exit code of `--once`,
    `ready` what `/-/ready` says after three intervals.
    """

    outcome: str
    events: frozenset[str]
    code: int
    ready: bool
    recovered: bool = False
    problems: list[str] = field(default_factory=list)


class Trial:
    """One exporter, one Hub, and one fault."""

    def __init__(self, kind: FaultKind, step: Step) -> None:
        self._stack = ExitStack()
        self.kind, self.step = kind, step
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self.hub = self._stack.enter_context(FakeHub())
        names = Names()
        self._stack.enter_context(looked_up(names))
        certificates = {
            to_server: Certificates(folder, name)
            for to_server, name in ((False, HUB_NAME), (True, SERVER_NAME))
            if kind.tls
        }
        state_path = folder / "state.sqlite"
        state = StateFile.opened(state_path if kind.state_file else None, lambda _seconds: False)
        self._stack.callback(state.close)
        self.scheme = "https" if kind.tls else "http"
        self.rig = self._stack.enter_context(
            Rig(
                self.hub,
                url=f"{self.scheme}://{HUB_NAME}:{self.hub.port}/hub/api",
                ca_file=certificates[False].authority if kind.tls else None,
                tls=ssl.create_default_context(cafile=certificates[True].authority)
                if kind.tls
                else None,
                request_timeout=kind.patience,
                page_size=1,
                concurrency=1,  # who computes is idle for longest, and so is asked first
                later_speed=0.0,
                remove_named_servers=True,
                state=state,
            )
        )
        for to_server, certificate in certificates.items():
            certificate.serve(self.rig.target if to_server else self.hub)
        self.elsewhere = self._stack.enter_context(FakeServer())
        self.scene = Scene(
            self.rig, self.hub, self.rig.target, names, certificates, self.elsewhere, state_path
        )
        self.own_tokens, self.crashes = {self.hub.token}, list[BaseException]()
        self._stack.enter_context(self._watch_threads())
        self.forgotten = [self._run(USER, SERVER)]
        self.working = [
            self._run(TYPING, idle=0.0),
            self._run(COMPUTING, idle=10_000.0, kernels=["busy"]),
        ]
        self.names = names

    def _run(self, user: str, name: str = "", **more: Any) -> Server:
        server = self.rig.run(user, name, **more)
        target = f"{self.scheme}://{SERVER_NAME}:{self.rig.target.port}"
        data = {"user": user, "server_name": name, "last_activity": None}
        route = {"routespec": server.routespec, "target": target, "data": data}
        self.hub.routes[server.routespec] = route
        return server

    @contextmanager
    def _watch_threads(self) -> Iterator[None]:
        """Keep what ends a thread: in the exporter it would end the process."""
        before = threading.excepthook

        def crashed(arguments: threading.ExceptHookArgs) -> None:
            self.crashes.append(arguments.exc_value or Exception(str(arguments.exc_type)))

        threading.excepthook = crashed
        try:
            yield
        finally:
            threading.excepthook = before

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *error: object) -> None:
        self.scene.released.set()
        self._stack.close()

    def pass_once(self) -> bool:
        """Poll and cull as `--once` does; tell whether it worked.

        Time goes on while nothing else happens.
        """
        rig = self.rig
        rig.poller.last_pass = None
        rig.enforcement.election.renew()
        worked: list[bool] = []

        def work() -> None:
            worked.append(single_pass(rig.poller, rig.gatekeeper, enforcing=True))

        working = threading.Thread(target=work)
        working.start()
        until = time.monotonic() + _PATIENCE
        while working.is_alive():
            assert time.monotonic() < until, "the pass does not end"
            working.join(0.02)
            begun = rig.poller.last_pass
            if begun is not None:
                with resting(begun) as rests:
                    self._later(3.0 if rests else 0.0)
        return worked == [True]

    def _later(self, seconds: float) -> None:
        self.rig.time += seconds
        self.rig.later_ahead += seconds

    def _watch(self, seconds: float) -> None:
        """Let time go by with the Hub in sight."""
        self.rig.watch(seconds)
        self.rig.later_ahead += seconds

    @property
    def is_removed(self) -> bool:
        return SERVER not in self.hub.users[USER].servers

    def wait_for_removal(self) -> None:
        """Let so much time go by that the record is removed, if that works."""
        for _ in range(4):
            self._watch(61.0)
            until = time.monotonic() + 0.2
            while time.monotonic() < until and not self.is_removed:
                time.sleep(0.005)

    def recover(self) -> bool:
        """Let time go by without faults; tell whether all is as if there had been none.

        The server is gone, another one that is forgotten too, and the Hub is polled and culled.
        Where the removal of a record failed, that is gone as well.
        """
        self.forgotten.append(self._run("eve"))
        for _ in range(_ROUNDS):
            self._watch(60.0)
            self.pass_once()
            if not any(server.ready for server in self.forgotten):
                break
        if self.step.name == "removal":
            self.wait_for_removal()
        gone = not any(server.ready for server in self.forgotten)
        up = self.rig.metrics.registry.get_sample_value("jupyterhub_up")
        works = up == self.rig.counted("enforcement", state="on") == 1
        return gone and works and (self.step.name != "removal" or self.is_removed)

    def is_ready_later(self) -> bool:
        """Tell whether it is ready after the fault has lasted for three more intervals."""
        for _ in range(3):
            self._later(self.rig.poll_settings.interval)
            self.pass_once()
        return not self.rig.latest.state.is_stale(
            self.rig._clocks(), self.rig.poll_settings.interval
        )

    def results(self) -> float:
        """Count the results of stops."""
        return self.rig.culled() + sum(self.rig.failed(cause) for cause in CullFailure)

    def outcome(self) -> str:
        """Say what the exporter counted."""
        rig = self.rig
        found = [f"poll fails: {c}" for c in Cause if rig.counted("poll_failures_total", cause=c)]
        found += [f"withheld: {cause}" for cause in sorted(WITHHELD) if rig.withheld(cause)]
        found += [f"stop fails: {cause}" for cause in CullFailure if rig.failed(cause)]
        found += ["stopped"] if rig.culled() else []
        if not found and not rig.counted("enforcement", state="on"):
            found = ["suspended"]
        return ", ".join(found) or "nothing"


def run(kind: FaultKind, step: Step) -> Cell:
    """Do a fault at a step, heal it, and see it recover."""
    with capture_logs() as events, Trial(kind, step) as trial:
        kind.begin(trial.scene, step)
        code = 0 if trial.pass_once() else 1
        if step.name == "removal":
            trial.wait_for_removal()
        outcome = trial.outcome()
        if step.name == "removal":
            outcome += ", removed" if trial.is_removed else ", not removed"
        told = {event["event"] for event in events if _is_unusual(event)}
        cell = Cell(outcome, frozenset(told), code, trial.is_ready_later())
        cell.problems += _leaks(trial, events)
        trial.scene.heal()
        cell.recovered = trial.recover()
        cell.problems += _problems(trial, events)
        return cell


def _is_unusual(event: Mapping[str, Any]) -> bool:
    """Tell whether an event above debug is none that a pass without a fault has, too."""
    spared = event.get("cause") == Withheld.BUSY
    return event["log_level"] != "debug" and event["event"] not in _USUAL and not spared


def _problems(trial: Trial, events: list[Any]) -> Iterator[str]:
    rig = trial.rig
    stopped = {stop.partition("/")[0] for stop in rig.stops()}
    if stopped & {TYPING, COMPUTING} or not all(server.ready for server in trial.working):
        yield "somebody at work was stopped"
    if trial.names.asked - {HUB_NAME, SERVER_NAME}:
        yield f"it connected to another host: {trial.names.asked}"
    if trial.elsewhere.requests:
        yield f"something was sent elsewhere: {trial.elsewhere.requests}"
    if rig.attempted() != trial.results():
        yield f"{rig.attempted()} attempts, but {trial.results()} results"
    yield from map(repr, trial.crashes)
    if any(request.token in trial.own_tokens for request in rig.target.requests):
        yield "a user's server got the exporter's own token"
    yield from _leaks(trial, events)


def _leaks(trial: Trial, events: list[Any]) -> Iterator[str]:
    """Look for tokens, ours and minted ones, in all that others can read."""
    exposed = trial.rig.metrics.exposition("").body.decode()
    rig, error = trial.rig, trial.rig.latest.state.error
    asked = [*trial.hub.requests, *rig.target.requests]
    settings = Settings(ConnectionSettings(trial.hub.url), rig.poll_settings, rig.settings)
    page = Page(rig.latest, rig.gatekeeper, rig.metrics, settings).render(ServerFilter())
    told = {
        "log": repr(events),
        "metrics": exposed,
        "page": page,
        "answer of /-/ready": f"{error!r} {error.sentence if error else ''}",
        "request beside its Authorization": repr([_without_authorization(one) for one in asked]),
    }
    tokens = {token.value for token in trial.hub.revoked} | set(trial.hub.tokens) | trial.own_tokens
    for where, text in told.items():
        if any(token in text for token in tokens):
            yield f"a token in {where}"


def _without_authorization(request: Request) -> tuple[object, ...]:
    headers = {name: text for name, text in request.headers.items() if name != "authorization"}
    return request.method, request.path, request.query, headers, request.body
