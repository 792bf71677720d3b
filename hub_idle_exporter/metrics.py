"""The whole of `/metrics`: facts about the Hub from the snapshot, and counters of our own doings.

`jupyterhub_*` are facts *as of the last successful poll*, given by a collector over one immutable
snapshot that is swapped in whole: no scrape ever sees half of a poll. After a failed poll they
vanish, for stale numbers look like facts; `jupyterhub_up` alone stays. `hub_idle_exporter_*` are
our own; every label value is there from the first sample, so that `increase()` misses no event.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import __version__
from .domain.census import Census, Judged, Spread
from .domain.gate import GateState
from .domain.labels import Asked, Cause, CullFailure, Operation, Withheld
from .domain.model import epoch
from .domain.policy import Policy, Reason, State
from .domain.scopes import Granted, Scope

SINCE = " As of the last successful poll."
_END = b"# EOF\n"  # of a text in the format OpenMetrics
_MOST_FORMATS = 2  # kept rendered: text and OpenMetrics
CULL_SECONDS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True)
class Snapshot:
    """What one good poll saw; `judged` is kept for per-server series only."""

    version: str
    census: Census
    judged: tuple[Judged, ...] = ()


def exposition(registry: Collector, accept: str) -> tuple[str, bytes]:
    """Render text, or OpenMetrics where it is asked for; give the format (MIME) and the text."""
    try:
        encode, kind = choose_encoder(accept)
    except (ValueError, TypeError):  # it asks for a version that is none
        encode, kind = choose_encoder("")
    return kind, encode(registry)


class HubFacts(Collector):
    """Gives the snapshot as metrics; `snapshot` is swapped whole, None after a failed poll.

    What a snapshot says does not change: it is rendered once for each format, and in those that
    the last one was asked for already before it is swapped in, so that no scrape waits for it.
    """

    def __init__(self) -> None:
        self._facts = _Facts(None)

    @property
    def snapshot(self) -> Snapshot | None:
        """Give what the last poll saw, None when it failed."""
        return self._facts.snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot | None) -> None:
        self._facts = _Facts(snapshot, tuple(self._facts.asked))

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: what is there depends on the snapshot."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give the facts of the snapshot that is there now."""
        return self._facts.collect()

    def text(self, kind: str) -> bytes:
        """Give the facts of the snapshot that is there now in a format (MIME)."""
        return self._facts.text(kind)


class _Facts(Collector):
    """The facts of one snapshot, and their texts by format (MIME)."""

    def __init__(self, snapshot: Snapshot | None, formats: Iterable[str] = ()) -> None:
        self.snapshot = snapshot
        self.asked: dict[str, bytes] = {}
        self._ahead = {kind: exposition(self, kind)[1] for kind in formats}

    def text(self, kind: str) -> bytes:
        """Give the text in a format, and keep it unless clients make up ever more of them."""
        text = self.asked.get(kind) or self._ahead.get(kind) or exposition(self, kind)[1]
        if len(self.asked) < _MOST_FORMATS:
            self.asked[kind] = text
        return text

    def collect(self) -> Iterator[Metric]:
        """Give the facts of this snapshot."""
        snapshot = self.snapshot
        yield GaugeMetricFamily(
            "jupyterhub_up",
            "Whether the last poll of the Hub succeeded.",
            value=0 if snapshot is None else 1,
        )
        if snapshot is not None:
            yield _info(snapshot)
            yield from _server_facts(snapshot.census)
            yield from _policy_facts(snapshot.census)
            if snapshot.judged:
                yield from _per_server_facts(snapshot.judged)


def _info(snapshot: Snapshot) -> Metric:
    info = GaugeMetricFamily(
        "jupyterhub_info", "The version of the Hub." + SINCE, labels=["version"]
    )
    info.add_metric([snapshot.version], 1)
    return info


def _server_facts(census: Census) -> Iterator[Metric]:
    servers = GaugeMetricFamily(
        "jupyterhub_servers",
        "Servers by policy and state: active, idle (ready, at or past its policy's limit), "
        "pending (spawning, stopping or not ready)." + SINCE,
        labels=["policy", "state"],
    )
    for policy in census.policies:
        for state in State:
            servers.add_metric([policy.name, state], census.servers.get((policy.name, state), 0))
    yield servers
    yield _histogram(
        "jupyterhub_server_idle_seconds", "Time since the last activity of ready servers.",
        census.idle,
    )  # fmt: skip
    yield _histogram(
        "jupyterhub_server_age_seconds", "Time since the start of ready servers.", census.age
    )


def _histogram(name: str, text: str, spread: Spread) -> Metric:
    bounds = [*map(float, spread.bounds), "+Inf"]
    buckets = [(str(le), float(n)) for le, n in zip(bounds, spread.cumulative, strict=True)]
    return GaugeHistogramMetricFamily(
        name, text + SINCE, buckets=buckets, gsum_value=spread.total_seconds
    )


def _policy_facts(census: Census) -> Iterator[Metric]:
    candidates = GaugeMetricFamily(
        "jupyterhub_cull_candidates",
        "Servers that the policy would stop now, enforcing or not." + SINCE,
        labels=["policy", "reason"],
    )
    timeout = GaugeMetricFamily(
        "jupyterhub_policy_timeout_seconds", "Idle limit of a policy." + SINCE, labels=["policy"]
    )
    max_age = GaugeMetricFamily(
        "jupyterhub_policy_max_age_seconds",
        "Age limit of a policy, 0 for none." + SINCE,
        labels=["policy"],
    )
    counts = census.candidate_counts
    for policy in census.policies:
        timeout.add_metric([policy.name], policy.timeout)
        max_age.add_metric([policy.name], policy.max_age)
        for reason in Reason:
            candidates.add_metric([policy.name, reason], counts.get((policy.name, reason), 0))
    yield from (candidates, timeout, max_age)


def _per_server_facts(judged: Iterable[Judged]) -> Iterator[Metric]:
    last_activity = GaugeMetricFamily(
        "jupyterhub_server_last_activity_timestamp_seconds",
        "When a server was last active." + SINCE,
        labels=["user", "server"],
    )
    started = GaugeMetricFamily(
        "jupyterhub_server_started_timestamp_seconds",
        "When a server was started." + SINCE,
        labels=["user", "server"],
    )
    for one in judged:
        for family, moment in (
            (last_activity, one.seen.last_activity),
            (started, one.seen.started),
        ):
            seconds = epoch(moment)
            if seconds is not None:
                family.add_metric([one.user, one.server], seconds)
    yield from (last_activity, started)


class GateFacts(Collector):
    """Gives the state of the gate at the moment of the scrape: exactly one is 1."""

    def __init__(self, state: Callable[[], GateState]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Give the one state that holds."""
        family = GaugeMetricFamily(
            "hub_idle_exporter_enforcement",
            "Whether servers past their limit are stopped; exactly one state is 1.",
            labels=["state"],
        )
        now = self._state()
        for state in GateState:
            family.add_metric([state], 1 if state is now else 0)
        yield family


class Metrics:
    """All metrics of one sidecar, on the registry that is given.

    Args:
        registry: where everything is registered.
        gate_state: tells the state of the gate, at any time and from any thread.
        policies: those known at the start, for their label values.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        gate_state: Callable[[], GateState],
        policies: Iterable[Policy],
    ) -> None:
        self.registry = registry
        self.facts = HubFacts()
        self._own = CollectorRegistry()
        registry.register(self.facts)
        registry.register(self._own)
        self._own.register(GateFacts(gate_state))
        self._of_polls(self._own)
        self._of_the_token(self._own)
        self._of_culls(self._own)
        self._of_policies(self._own)
        self.know(policies)

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """Render all, as `exposition` does of the registry; facts are not rendered anew."""
        kind, own = exposition(self._own, accept)
        return kind, self.facts.text(kind).removesuffix(_END) + own

    def _of_polls(self, registry: CollectorRegistry) -> None:
        _gauge(registry, "build_info", "The version of this exporter.", "version").labels(
            __version__
        ).set(1)
        self.polls = _counter(registry, "polls", "Polls attempted.")
        self.poll_failures = _counter(registry, "poll_failures", "Polls that failed.", cause=Cause)
        self.poll_duration = _gauge(
            registry, "poll_duration_seconds", "How long the last poll took."
        )
        self.poll_interval = _gauge(
            registry, "poll_interval_seconds", "The time between polls, as configured."
        )
        self.last_success = _gauge(
            registry, "last_poll_success_timestamp_seconds", "When a poll last succeeded, 0: never."
        )
        self.clock_skew = _gauge(
            registry, "clock_skew_seconds", "The Hub's clock minus the exporter's."
        )
        self._requests = Histogram(
            "hub_idle_exporter_hub_request_duration_seconds",
            "How long the Hub took to answer, failures included.",
            ["operation"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        for operation in Operation:
            self._requests.labels(operation)

    def _of_the_token(self, registry: CollectorRegistry) -> None:
        self.scopes = _gauge(
            registry, "scope_granted", "Whether the token has a scope, filtered or not.", "scope"
        )
        self.granted(Granted())
        self.busy_check = _gauge(
            registry, "busy_check", "Whether servers are asked for busy kernels before a stop."
        )
        self.busy_checks = _counter(
            registry, "busy_checks", "Servers asked before a stop.", result=Asked
        )

    def _of_culls(self, registry: CollectorRegistry) -> None:
        labels = ["policy", "reason"]
        self.attempts = _counter(registry, "cull_attempts", "Stops sent to the Hub.", *labels)
        self.culls = _counter(registry, "culls", "Servers stopped, verified.", *labels)
        self.cull_failures = _counter(
            registry, "cull_failures", "Stops that did not work.", cause=CullFailure
        )
        self.withheld = _counter(
            registry,
            "culls_withheld",
            "Candidates spared at the last moment, once a poll each.",
            cause=Withheld,
        )
        self.cull_duration = Histogram(
            "hub_idle_exporter_cull_duration_seconds",
            "From sending a stop to knowing that the server stopped.",
            buckets=CULL_SECONDS,
            registry=registry,
        )
        self.idle_server_seconds = _counter(
            registry,
            "idle_server_seconds",
            "Server-seconds spent idle past the limit: increase()/3600 is idle server-hours.",
            "policy",
        )

    def _of_policies(self, registry: CollectorRegistry) -> None:
        self.reloads = _counter(registry, "policy_reloads", "New policy files put to use.")
        self.reload_failures = _counter(
            registry, "policy_reload_failures", "Changed policy files that could not be used."
        )

    def know(self, policies: Iterable[Policy]) -> None:
        """Make the label values of policies appear before anything is counted for them."""
        for policy in policies:
            self.idle_server_seconds.labels(policy.name)
            for reason in Reason:
                self.attempts.labels(policy.name, reason)
                self.culls.labels(policy.name, reason)

    def granted(self, granted: Granted) -> None:
        """Show which scopes the token has."""
        for scope in Scope:
            self.scopes.labels(scope).set(granted.has(scope))

    def observe_request(self, operation: Operation, seconds: float) -> None:
        """Count one request to the Hub."""
        self._requests.labels(operation).observe(seconds)


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"hub_idle_exporter_{name}", text, labels, registry=registry)


def _counter(
    registry: CollectorRegistry, name: str, text: str, *labels: str, **enums: type[StrEnum]
) -> Counter:
    """Make a counter; a label given with its enum has all its values at once."""
    counter = Counter(f"hub_idle_exporter_{name}", text, [*labels, *enums], registry=registry)
    for values in enums.values():
        for value in values:
            counter.labels(value)
    return counter
