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
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from fake_hub import FakeHub, FakeServer, Jupyter, Server
from prometheus_client import CollectorRegistry

from hub_idle_exporter.culling.audit import Audit
from hub_idle_exporter.culling.clearance import Clearance
from hub_idle_exporter.culling.cull_pass import CullPass
from hub_idle_exporter.culling.culler import Culler
from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.culling.probe import Prober
from hub_idle_exporter.culling.stopping import Stopper
from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.labels import Cause
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.poll_state import LatestState, PollError, PollState
from hub_idle_exporter.domain.settings import (
    BusyCheck,
    ConnectionSettings,
    CullSettings,
    PollSettings,
)
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.observer import Observer, rules_of
from hub_idle_exporter.policy_file import PolicySource, parse
from hub_idle_exporter.poller import Poller

START = 1_800_000_000.0
HOUR = 3600.0
PREFIX = "hub_idle_exporter_"


class FixedPolicies(PolicySource):
    """The policies of a file that is not there and never changes."""

    def __init__(self, policies: Sequence[dict[str, Any]], default: Policy) -> None:
        text = json.dumps({"policies": list(policies)}, ensure_ascii=False).encode()
        self.policies = parse(text, "policies.yaml", default)
        self.error = None

    def refresh(self) -> bool:
        return False


class Rig:
    """One sidecar's inner parts against one fake Hub."""

    def __init__(
        self,
        hub: FakeHub,
        *,
        timeout: float = HOUR,
        max_age: float = 0.0,
        policies: Sequence[dict[str, Any]] = (),
        enforce: bool = True,
        grace: float = 0.0,
        token: str | None = None,
        request_timeout: float = 10.0,
        page_size: int = 200,
        poll: Mapping[str, Any] | None = None,
        orphaned: Callable[[], bool] = lambda: False,
        **cull: Any,
    ) -> None:
        self.time, self.wall_ahead = START, 0.0
        self.hub = hub
        hub.clock = lambda: self.time
        self.target = FakeServer()
        self.stopping = threading.Event()
        default = Policy("default", timeout, max_age)
        self.poll_settings = PollSettings(default, **poll or {})
        busy_check = BusyCheck(cull.pop("busy_check", "auto"))
        cull |= {"concurrency": cull.get("concurrency", 4), "busy_check": busy_check}
        self.settings = CullSettings(enforce, grace, **cull)
        self.source = source = FixedPolicies(policies, default) if policies else None
        rules = rules_of(source, self.poll_settings)
        self.latest = LatestState(PollState.at_start(rules, self.settings))
        self.gatekeeper = Gatekeeper(enforce, grace, self.latest, self._clocks, orphaned)
        self.metrics = Metrics(
            CollectorRegistry(), self.latest, self.gatekeeper.state, self.poll_settings
        )
        value = hub.token if token is None else token
        connection = ConnectionSettings(hub.url, timeout=request_timeout, page_size=page_size)
        self.client = Hub(connection, Token.read_by(lambda: value), self.gatekeeper.hub_answered)
        self.culler = self._wired_culler()
        self.culler.start()
        observer = Observer(
            self.client, source, self.poll_settings, self.settings, self.gatekeeper, self._clocks
        )
        self.poller = Poller(
            observer,
            source,
            self.latest,
            self.poll_settings,
            self.gatekeeper,
            self.culler if enforce else None,
            self.metrics,
            self._clocks,
        )

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        self.target.close()

    def _wired_culler(self) -> Culler:
        hub, settings, stopping = self.client, self.settings, self.stopping
        gatekeeper, latest, metrics = self.gatekeeper, self.latest, self.metrics

        def clock() -> float:
            return self.time

        prober, audit = Prober(hub, settings.probe_user, None), Audit(metrics)
        clearance = Clearance(hub, prober, gatekeeper, latest, metrics, settings, stopping, clock)
        stopper = Stopper(hub, gatekeeper, audit, settings, stopping, clock)
        return Culler(hub, clearance, stopper, audit, settings, stopping)

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

    def jupyter(self, server: Server) -> Jupyter:
        """Give what stands behind a server's route."""
        said = self.target.at[server.routespec]
        assert said is not None
        return said

    def poll(self, within: float = 10) -> bool:
        """Poll once, and wait for the end of the pass that it began."""
        worked = self.poller.poll()
        if self.poller.last_pass is not None:
            self.finish(self.poller.last_pass, within)
        return worked

    def begin(self) -> CullPass:
        """Poll once; give the culling pass that it began."""
        assert self.poller.poll()
        assert self.poller.last_pass is not None
        return self.poller.last_pass

    def finish(self, begun: CullPass, within: float = 10) -> None:
        """Wait for the end of a pass."""
        assert begun.done.wait(within), "the culling pass does not end"

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


def _server_of(path: str) -> str:
    parts = [unquote(part) for part in path.split("/")]
    return f"{parts[2]}/{parts[4] if len(parts) > 4 else ''}"


def _text(seconds: float) -> str:
    """Write a time as Jupyter servers do."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
