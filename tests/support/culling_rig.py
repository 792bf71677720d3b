"""A poller with all that stands behind it, in this process, on clocks that only a test moves.

    rig = Rig(fake_hub, timeout=3600, policies=[...])
    rig.run("ana", kernels=["busy"])           # an idle server with a Jupyter behind its route
    rig.poll()
    assert rig.withheld("busy") == 1
    assert rig.stops() == []

Hub, route and servers are real HTTP servers; nothing of the code under test is replaced but its
clocks: the Hub's, the wall's and the monotonic one all read `rig.time`.
"""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

import fake_hub as faults
from fake_hub import FakeHub, FakeServer, Jupyter, Reply, Request, Server
from prometheus_client import CollectorRegistry

from hub_idle_exporter.clocks import steady
from hub_idle_exporter.culling.cull_pass import CullPass
from hub_idle_exporter.culling.enforcement import enforcement_of
from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.culling.later import Later
from hub_idle_exporter.deleting.deleter import Deleter
from hub_idle_exporter.deleting.listing import UserLister
from hub_idle_exporter.deleting.trail import DeletionTrail
from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.labels import Cause
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.poll_state import LatestState, PollError, PollState
from hub_idle_exporter.domain.settings import (
    BusyCheck,
    ConnectionSettings,
    CullSettings,
    PollSettings,
    SpareQuerySettings,
)
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.observer import Observer, rules_of
from hub_idle_exporter.people.notices import Tells
from hub_idle_exporter.people.promises import Promises
from hub_idle_exporter.people.state_file import StateFile
from hub_idle_exporter.people.tells import OnThePage
from hub_idle_exporter.policy_file import PolicySource, parse
from hub_idle_exporter.poller import Poller
from hub_idle_exporter.prometheus.client import Prometheus
from hub_idle_exporter.prometheus.second_opinion import SecondOpinion

START = 1_800_000_000.0
# What is due later (following slow stops, removals) is not waited for in the rig's time.
LATER_SPEED = 100.0
HOUR = 3600.0
PREFIX = "hub_idle_exporter_"
# How long a request that hangs is waited for: all others are answered by then, also when many tests
# run at once.
HANG_SECONDS = 2.0
SPARE_QUERY, PROMETHEUS_TOKEN = "rate(cpu[5m]) > bool 0.1", "s3cret-bearer"


@contextmanager
def resting(begun: CullPass) -> Iterator[bool]:
    """Tell whether a pass has begun and no worker is busy with it; none begins meanwhile."""
    with begun._lock:
        yield bool(begun._taken) and not begun._handled


def _is_stop(request: Request) -> bool:
    return request.method == "DELETE" and "/server" in request.path


class FixedPolicies(PolicySource):
    """The policies of a file that is not there and never changes."""

    def __init__(self, policies: Sequence[dict[str, Any]], default: Policy) -> None:
        text = json.dumps({"policies": list(policies)}, ensure_ascii=False).encode()
        self.value = parse(text, "policies.yaml", default)
        self.error = None

    current = True

    def refresh(self) -> bool:
        return False

    def is_current(self) -> bool:
        return self.current


class Rig:
    """One sidecar's inner parts against one fake Hub.

    With `after` it takes the place of a sidecar that has ended: the same clocks, from the first
    moment on, and the same servers.
    """

    def __init__(
        self,
        hub: FakeHub,
        *,
        timeout: float = HOUR,
        max_age: float = 0.0,
        notice: float = 0.0,
        keep_max: float = 0.0,
        state: StateFile | None = None,
        tells: Tells | None = None,
        policies: Sequence[dict[str, Any]] = (),
        enforce: bool = True,
        grace: float = 0.0,
        token: str | None = None,
        request_timeout: float = 10.0,
        page_size: int = 200,
        poll: Mapping[str, Any] | None = None,
        orphaned: Callable[[], bool] = lambda: False,
        later_speed: float = LATER_SPEED,
        url: str | None = None,
        ca_file: str | None = None,
        tls: ssl.SSLContext | None = None,
        after: "Rig | None" = None,
        prometheus: str | None = None,
        spare_query: str = SPARE_QUERY,
        query_timeout: float = 10.0,
        **cull: Any,
    ) -> None:
        self.time: float = after.time if after else START
        self.wall_ahead: float = after.wall_ahead if after else 0.0
        self.later_ahead = 0.0
        self.hub = hub
        hub.clock = lambda: self.time
        self.target: FakeServer = after.target if after else FakeServer()
        self.target.clock = lambda: self.time
        self.stopping = threading.Event()
        default = Policy("default", timeout, max_age, notice=notice, keep_max=keep_max)
        self.poll_settings = PollSettings(default, **poll or {})
        busy_check = BusyCheck(cull.pop("busy_check", "require"))
        cull |= {"concurrency": cull.get("concurrency", 4), "busy_check": busy_check}
        self.settings = CullSettings(enforce, grace, **cull)
        self.source = source = FixedPolicies(policies, default) if policies else None
        rules = rules_of(source, self.poll_settings)
        self.latest = LatestState(PollState.at_start(rules, self.settings))
        self.file = StateFile(None) if state is None else state
        self.gatekeeper = Gatekeeper(
            enforce, grace, self.latest, self._clocks, orphaned, self.file.lost
        )
        self.promises = Promises.of(
            self.file,
            tells or OnThePage(),
            self.gatekeeper.hub_time,
            lambda: self.enforcement.election.not_ours(),
            lambda: self.time,
        )
        self.metrics = Metrics(
            CollectorRegistry(), self.latest, self.gatekeeper.read, self.poll_settings
        )
        self.own_token = hub.token if token is None else token
        connection = ConnectionSettings(
            url or hub.url, timeout=request_timeout, page_size=page_size, ca_file=ca_file
        )
        self.client = Hub(
            connection,
            Token.read_by(lambda: self.own_token),
            self.gatekeeper.hub_answered,
            wait=lambda _seconds: None,
            clock=lambda: self.time,
        )
        opinion = None
        if prometheus is not None:
            asked = SpareQuerySettings(spare_query, prometheus, timeout=query_timeout)
            asks = Prometheus(asked, Token.read_by(lambda: PROMETHEUS_TOKEN))
            opinion = SecondOpinion(spare_query, asks, self.metrics.count_query, self._steady)
        self.enforcement = enforcement_of(
            self.client,
            self.gatekeeper,
            self.promises,
            self.latest,
            self.metrics,
            self.settings,
            self.poll_settings.interval,
            tls=tls,
            later=Later(
                self.stopping,
                2,
                lambda: steady() * later_speed + self.later_ahead,
                wake_every=0.005,
            ),
            stopping=self.stopping,
            clock=lambda: self.time,
            second_opinion=opinion,
        )
        self.enforcement.culler.start()
        self.trail = DeletionTrail(self.metrics)
        election = self.enforcement.election
        clock = self._steady
        self.deleter = Deleter(
            self.client,
            self.gatekeeper,
            election,
            self.latest,
            source,
            self.trail,
            self.settings,
            self.stopping,
            clock,
        )
        deleter = self.deleter if enforce else None
        self.lister = UserLister(self.client, self.latest, self.settings, deleter, clock)
        observer = Observer(
            self.client,
            source,
            self.poll_settings,
            self.settings,
            self.gatekeeper,
            self.file,
            self._clocks,
            opinion,
        )
        self.poller = Poller(
            observer,
            source,
            self.latest,
            self.poll_settings,
            self.gatekeeper,
            self.enforcement if enforce else None,
            self.metrics,
            self._clocks,
        )

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        self.target.close()

    def _steady(self) -> float:
        return self.time

    def _clocks(self) -> ClockReading:
        return ClockReading(self.time, self.time + self.wall_ahead)

    def run(
        self,
        user: str,
        name: str = "",
        *,
        idle: float = 2 * HOUR,
        own_idle: float | None = None,
        kernels: Sequence[str] = (),
        jupyter: bool = True,
        **more: Any,
    ) -> Server:
        """Run a server; by its own word it was idle for `own_idle` (None: as the Hub says)."""
        server = self.hub.add_server(user, name, idle=idle, target=self.target, **more)
        last = self.time - (idle if own_idle is None else own_idle)
        said = Jupyter(last_activity=_text(last)) if jupyter else None
        for state in kernels if said else ():
            said.add_kernel(state, last_activity=_text(last))  # type: ignore[union-attr]
        self.target.at[unquote(server.routespec)] = said
        self.target.at[server.routespec] = said
        return server

    def after_work(self, happening: Callable[[], object]) -> None:
        """Let something happen once, after a server has said what runs in it.

        Both its kernels and its terminals were asked for, and the kernels are known.
        """
        answered = threading.Event()

        def last(_request: Request, answer: Callable[[], Reply]) -> Reply:
            true = answer()
            assert answered.wait(10)
            happening()
            return true

        self.target.plan("GET", "*/kernels", faults.after(answered.set), times=1)
        self.target.plan("GET", "*/terminals", last, times=1)

    def jupyter(self, server: Server) -> Jupyter:
        """Give what stands behind a server's route."""
        said = self.target.at[server.routespec]
        assert said is not None
        return said

    def poll(self, within: float = 10) -> bool:
        """Poll once, and wait for the end of the pass that it began."""
        if self.settings.enforce:
            self.enforcement.election.renew()
        worked = self.poller.poll()
        for begun in (self.poller.last_pass, self.poller.last_announcing):
            if begun is not None:
                self.finish(begun, within)
        return worked

    def minted(self, note: str) -> list[dict[str, Any]]:
        """List what was asked for with the tokens of this note (`busy check`, `stop`, ...)."""
        asked = [request.json() for request in self.hub.log("POST", "/users/*/tokens")]
        return [body for body in asked if note in body["note"]]

    def begin(self) -> CullPass:
        """Poll once; give the culling pass that it began."""
        assert self.poller.poll()
        assert self.poller.last_pass is not None
        return self.poller.last_pass

    def finish(self, begun: CullPass, within: float = 10) -> None:
        """Wait for the end of a pass; time goes on while there is nothing but slow stops."""
        deadline = steady() + within
        while not begun.done.wait(0.03):
            assert steady() < deadline, "the culling pass does not end"
            with resting(begun) as rests:
                waits = rests and all(map(_is_stop, list(self.hub.under_way)))
                self.time += 1.0 if waits else 0.0

    def suspend(self, why: str) -> None:
        """Let a poll fail meanwhile."""
        error = PollError(Cause.HTTP, why)
        self.latest.state = self.latest.state.failed(error, self._clocks())

    def watch(self, seconds: float) -> None:
        """Let time go by with the Hub in sight."""
        while seconds > 0:
            step = min(30.0, seconds)
            self.time += step
            seconds -= step
            self.gatekeeper.hub_answered(self.hub.now())
            self.enforcement.election.renew()

    def counted(self, name: str, **labels: str) -> float:
        """Read one of our counters (its name without prefix)."""
        value = self.metrics.registry.get_sample_value(PREFIX + name, labels)
        assert value is not None, f"no {name} {labels}"
        return value

    def withheld(self, cause: str) -> float:
        return self.counted("culls_withheld_total", cause=cause)

    def failed(self, cause: str) -> float:
        return self.counted("cull_failures_total", cause=cause)

    def asked(self, result: str) -> float:
        return self.counted("busy_checks_total", result=result)

    def culled(self, policy: str = "default", reason: str = "idle") -> float:
        return self.counted("culls_total", policy=policy, reason=reason)

    def attempted(self, policy: str = "default", reason: str = "idle") -> float:
        return self.counted("cull_attempts_total", policy=policy, reason=reason)

    def stops(self) -> list[str]:
        """List the servers (`user/server`) that the Hub was asked to stop, in order."""
        asked = self.hub.log("DELETE", "/users/*/server*")
        return [_server_of(request.path) for request in asked if not request.body.strip()]


MakeRig = Callable[..., Rig]


def _server_of(path: str) -> str:
    parts = [unquote(part) for part in path.split("/")]
    return f"{parts[2]}/{parts[4] if len(parts) > 4 else ''}"


def _text(seconds: float) -> str:
    """Write a time as Jupyter servers do."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
