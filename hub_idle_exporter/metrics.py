"""`/metrics`: facts about the Hub from the poll state, and counters of what the exporter did.

`jupyterhub_*` are facts *as of the last successful poll*. After a failed poll only `jupyterhub_up`
stays, because stale numbers look like facts. `hub_idle_exporter_*` are about the exporter itself;
every label value exists from the first scrape, so that `increase()` misses no event. One scrape
reads one poll state, which is immutable: it never sees half of a poll. What became of stops is
counted and read under one lock, so that attempts, culls and failures add up in every scrape.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from . import __version__
from .domain.census import Census, SecondsHistogram, census_of
from .domain.gate import GateReading, GateState
from .domain.idle_users import CANDIDATE, IdleUsers
from .domain.labels import (
    LISTED,
    OF_OPINION,
    Cause,
    CullFailure,
    NotificationEvent,
    NotificationResult,
    Operation,
    Outcome,
    ProbeResult,
    QueryResult,
    UserKept,
    WebRefusal,
    Withheld,
)
from .domain.model import epoch
from .domain.notices import Undelivered, stop_due
from .domain.policy import Policy, Reason, State
from .domain.poll_state import LatestState, PollState, Snapshot
from .domain.scopes import Granted, Scope
from .domain.settings import PollSettings
from .domain.spare_query import Opinion
from .domain.str_enum import StrEnum
from .domain.totals import Counts, Totals
from .exposition import Exposition, FactsText, Families, Text, encoded, encoder_for
from .journal import Journal

SINCE = " As of the last successful poll."
_PREFIX = "hub_idle_exporter_"
CULL_SECONDS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_Own = TypeVar("_Own", Counter, Histogram)


def _hub_facts(state: PollState, per_server: bool) -> Iterator[Metric]:
    """Yield the facts about the Hub; without a snapshot there is only one."""
    snapshot = state.snapshot
    yield _value("jupyterhub_up", "Whether the last poll of the Hub succeeded.", bool(snapshot))
    if snapshot is not None:
        yield _labelled(
            "jupyterhub_info",
            "The version of the Hub." + SINCE,
            "version",
            {state.version or "": 1},
        )
        yield from _server_facts(snapshot.census)
        yield _kept_facts(snapshot.census)
        yield from _policy_facts(snapshot.census)
        yield from _limit_facts(snapshot.census)
        if state.opinion is not None:
            yield _spared_facts(snapshot.census)
        if per_server and snapshot.census.named:
            yield from _per_server_facts(state, snapshot)


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


def _histogram(name: str, text: str, histogram: SecondsHistogram) -> Metric:
    bounds = [*map(float, histogram.bounds), "+Inf"]
    buckets = [(str(le), float(n)) for le, n in zip(bounds, histogram.cumulative, strict=True)]
    return GaugeHistogramMetricFamily(
        name, text + SINCE, buckets=buckets, gsum_value=histogram.total_seconds
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
    exempt = GaugeMetricFamily(
        "jupyterhub_policy_exempt",
        "Whether the servers of a policy are never stopped." + SINCE,
        labels=["policy"],
    )
    counts = census.candidate_counts
    for policy in census.policies:
        timeout.add_metric([policy.name], policy.timeout)
        max_age.add_metric([policy.name], policy.max_age)
        exempt.add_metric([policy.name], float(policy.exempt))
        for reason in Reason:
            candidates.add_metric([policy.name, reason], counts.get((policy.name, reason), 0))
    yield from (candidates, timeout, max_age, exempt)


def _limit_facts(census: Census) -> Iterator[Metric]:
    yield _labelled(
        "jupyterhub_servers_over_limit",
        "What --timeout, set to this limit in seconds, would make candidates now; policies with a "
        "timeout of their own and exemptions as they are." + SINCE,
        "limit",
        {f"{limit}": count for limit, count in census.over_limit.items()},
    )


def _spared_facts(census: Census) -> Metric:
    """Count what the second opinion spares: it says so before anything is enforced."""
    family = GaugeMetricFamily(
        "jupyterhub_cull_candidates_spared",
        "Candidates that the second opinion spares now, enforcing or not." + SINCE,
        labels=["policy", "cause"],
    )
    for policy, cause in product(census.policies, OF_OPINION):
        count = census.spared.get((policy.name, cause), 0)
        family.add_metric([policy.name, cause], count)
    return family


def _kept_facts(census: Census) -> Metric:
    return _labelled(
        "jupyterhub_servers_kept",
        "Servers that their people keep now." + SINCE,
        "policy",
        {policy.name: census.kept.get(policy.name, 0) for policy in census.policies},
    )


def _per_server_facts(state: PollState, snapshot: Snapshot) -> Iterator[Metric]:
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
    due = GaugeMetricFamily(
        "jupyterhub_server_stop_due_timestamp_seconds",
        "When a server will be past its limit unless it is used, the end of a keep and a notice "
        "included; only what could be a candidate." + SINCE,
        labels=["user", "server"],
    )
    value = GaugeMetricFamily(
        "jupyterhub_server_spare_query_value",
        "What the spare query says of a server: the first value that is not 0, else 0; none if the "
        "query has no series for it." + SINCE,
        labels=["user", "server"],
    )
    asked = state.opinion or Opinion("")
    for one in snapshot.census.named:
        for family, number in (
            (value, asked.value(one.user, one.server)),
            (last_activity, epoch(one.seen.last_activity)),
            (started, epoch(one.seen.started)),
            (due, stop_due(one, state.announcements, snapshot.read_at)),
        ):
            if number is not None:
                family.add_metric([one.user, one.server], number)
    yield from (last_activity, started, due)
    if state.opinion is not None:
        yield value


def _user_facts(found: IdleUsers) -> Metric:
    return _labelled(
        "jupyterhub_idle_users",
        "Users past --user-timeout, or of whom that is not known: those who are to be deleted "
        "(candidate), and what keeps the others. As of the last listing of users.",
        "verdict",
        {verdict: found.counts.get(verdict, 0) for verdict in (CANDIDATE, *LISTED)},
    )


def _undelivered(found: Undelivered) -> Iterator[Metric]:
    yield _value(
        f"{_PREFIX}notices_undelivered",
        "Announcements of stops that could not be delivered yet, and are tried again.",
        found.count,
    )
    yield _value(
        f"{_PREFIX}notices_undelivered_since_timestamp_seconds",
        "When the oldest of them could not be delivered for the first time, 0: there is none.",
        found.since or 0,
    )


def _value(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _value_if_known(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family


OwnMetrics = Callable[[PollState], Iterable[Metric]]


class Metrics(Collector):
    """All metrics of one sidecar; a collector of the registry that is given.

    Args:
        registry: where it is registered.
        latest: the newest poll state.
        gate: reads the gate for a poll state; safe to call from any thread.
        settings: the interval, and whether there are series by server.
        stands_by: tells whether nothing but another exporter's lease forbids stops.

    `counting` is held while an outcome of a stop is counted, and while what must fit together is
    read; never while anything is waited for.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        latest: LatestState,
        gate: Callable[[PollState], GateReading],
        settings: PollSettings,
        stands_by: Callable[[PollState], bool] = lambda _state: False,
    ) -> None:
        self.registry, self.latest, self._settings = registry, latest, settings
        self._gate, self._stands_by = gate, stands_by
        self.counting, self.journal = threading.RLock(), Journal()
        self._current = latest.state, FactsText(self._families_of(latest.state))
        self._ahead = self._current
        self._own: list[OwnMetrics] = [self._enforcement]
        self._process = ProcessCollector(registry=None)
        self._platform = PlatformCollector(registry=None)
        self._of_polls()
        self._of_the_token()
        self._of_culls()
        self._of_users()
        self._of_notifications()
        self._of_policies()
        self._of_the_web()
        self.preregister_policies(latest.state.rules.policies)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Name all metrics, including those that exist only after a successful poll."""
        rules = self.latest.state.rules
        seen = PollState(rules, snapshot=Snapshot(0.0, census_of([], rules)), opinion=Opinion(""))
        yield from _hub_facts(seen, per_server=False)
        yield from _per_server_facts(seen, Snapshot(0.0, census_of([], rules)))
        yield _user_facts(IdleUsers(0.0, ()))
        yield from self._own_families(self.latest.state)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as of one poll state."""
        state = self.latest.state
        yield from _hub_facts(state, self._settings.per_server_metrics)
        yield from self._own_families(state)

    def exposition(self, accept: str, gzip: bool = False, names: Sequence[str] = ()) -> Exposition:
        """Render text, or OpenMetrics if `accept` asks for it; with `names` only those metrics."""
        encode, content_type = encoder_for(accept)
        encoding = "gzip" if gzip else ""
        if names:
            text = Text(encode(self.registry.restricted_registry(names)))
            return Exposition(content_type, encoding, text.followed_by(b"", gzip))
        state = self.latest.state
        own = encoded(encode, lambda: self._own_families(state))
        facts = self._facts_of(state).text(content_type)
        return Exposition(content_type, encoding, facts.followed_by(own, gzip))

    def render_ahead(self, state: PollState) -> None:
        """Render a state's facts in the formats of the last scrapes, before it is swapped in.

        With series for 10,000 servers this takes 0.26 s, for which no scrape should wait.
        """
        self._ahead = state, FactsText(self._families_of(state), self._current[1].asked)

    def _facts_of(self, state: PollState) -> FactsText:
        """Return the text of a state's facts; scrapes of two states may come at the same time."""
        for rendered_for, text in (self._current, self._ahead):
            if rendered_for is state:
                self._current = rendered_for, text
                return text
        text = FactsText(self._families_of(state))
        self._current = state, text
        return text

    def _families_of(self, state: PollState) -> Families:
        return partial(_hub_facts, state, self._settings.per_server_metrics)

    def _own_families(self, state: PollState) -> list[Metric]:
        """Collect our own metrics, what became of stops as of one moment."""
        with self.counting:
            own = [family for families in self._own for family in families(state)]
        return [*own, *self._process.collect(), *self._platform.collect()]

    def totals(self) -> Totals:
        """Read our own counters."""
        with self.counting:
            return Totals(
                polls=_counts(self.polls)[()],
                poll_failures=_counts(self.poll_failures),
                culls=_counts(self.culls),
                withheld=_counts(self.withheld),
                cull_failures=_counts(self.cull_failures),
                busy_checks=_counts(self.busy_checks),
                idle_server_seconds=_counts(self.idle_server_seconds),
                users_deleted=_counts(self.users_deleted)[()],
                deletions_withheld=_counts(self.deletions_withheld),
                deletion_failures=_counts(self.deletion_failures),
            )

    def _enforcement(self, state: PollState) -> Iterable[Metric]:
        now = self._gate(state)
        yield _labelled(
            f"{_PREFIX}enforcement",
            "Whether servers past their limit are stopped; exactly one state is 1.",
            "state",
            {each: each is now.state for each in GateState},
        )
        yield _value(
            f"{_PREFIX}grace_seconds",
            "How much of a grace period is left, at least; 0 outside of one.",
            now.grace_left,
        )
        yield _value(
            f"{_PREFIX}standby",
            "Whether another exporter of this Hub stops servers, and this one waits.",
            self._stands_by(state),
        )

    def _of_polls(self) -> None:
        self._gauges(
            lambda _: _labelled(
                f"{_PREFIX}build_info", "The version of this exporter.", "version", {__version__: 1}
            )
        )
        self.polls = self._counter("polls", "Polls attempted.")
        self.poll_failures = self._counter("poll_failures", "Polls that failed.", cause=Cause)
        self._gauges(
            lambda state: _value(
                f"{_PREFIX}poll_duration_seconds", "How long the last poll took.", state.duration
            ),
            lambda _: _value(
                f"{_PREFIX}poll_interval_seconds",
                "The time between polls, as configured.",
                self._settings.interval,
            ),
            lambda state: _value(
                f"{_PREFIX}last_poll_success_timestamp_seconds",
                "When a poll last succeeded, 0: never.",
                state.last_success.wall if state.last_success else 0,
            ),
            lambda state: _value_if_known(
                f"{_PREFIX}list_timestamp_seconds",
                "The Hub's clock when it sent the first page of the last poll's list.",
                state.snapshot.read_at if state.snapshot else None,
            ),
            lambda state: _value_if_known(
                f"{_PREFIX}full_list_timestamp_seconds",
                "The Hub's clock when it sent the first page of the newest full list, the one that "
                "later polls bring up to date.",
                state.snapshot.read_at - state.snapshot.full_list_age if state.snapshot else None,
            ),
            lambda state: _value(
                f"{_PREFIX}clock_skew_seconds",
                "The Hub's clock minus the exporter's.",
                state.clock_skew or 0,
            ),
            lambda state: _value(
                f"{_PREFIX}unreadable_users",
                "Users who cannot be decoded: their servers are not counted and not stopped."
                + SINCE,
                state.unreadable_users,
            ),
        )
        self._requests = self._histogram(
            "hub_request_duration_seconds",
            "How long the Hub took to answer, failures included.",
            REQUEST_SECONDS,
            operation=Operation,
        )

    def _of_the_token(self) -> None:
        self._gauges(
            lambda state: _labelled(
                f"{_PREFIX}scope_granted",
                "Whether the token has a scope, filtered or not.",
                "scope",
                {scope: (state.granted or Granted()).has(scope) for scope in Scope},
            ),
            lambda state: _labelled(
                f"{_PREFIX}scope_filtered",
                "Whether the token has a scope for some users, groups or servers only.",
                "scope",
                {scope: (state.granted or Granted()).filtered(scope) for scope in Scope},
            ),
            lambda state: _value(
                f"{_PREFIX}busy_check",
                "Whether servers are asked whether they are busy before a stop.",
                state.safeguards.asks_servers,
            ),
            lambda state: _labelled(
                f"{_PREFIX}safeguard",
                "What protects people when servers are stopped: 1 if it is in place. All are 0 in "
                "monitor mode.",
                "safeguard",
                {
                    "busy_check": state.safeguards.asks_servers,
                    "stop_token": state.safeguards.stop_tokens,
                    "lease": state.safeguards.lease,
                },
            ),
        )
        self.busy_checks = self._counter(
            "busy_checks", "Servers asked before a stop.", result=ProbeResult
        )

    def _of_culls(self) -> None:
        labels = ["policy", "reason"]
        self.attempts = self._counter(
            "cull_attempts",
            "Stops sent to the Hub, each counted once; not those that it refused as too late.",
            *labels,
        )
        self.culls = self._counter("culls", "Servers stopped, verified.", *labels)
        self.spare_queries = self._counter(
            "spare_queries", "Evaluations of --spare-query.", result=QueryResult
        )
        self.cull_failures = self._counter(
            "cull_failures", "Stops that failed, or whose result is not known.", cause=CullFailure
        )
        self.withheld = self._counter(
            "culls_withheld",
            "Candidates that were not stopped after all, once a poll each.",
            cause=Withheld,
        )
        self._gauges(lambda _: self._last_pass())
        self.cull_duration = self._histogram(
            "cull_duration_seconds",
            "From sending a stop to knowing that the server stopped.",
            CULL_SECONDS,
        )
        self.idle_server_seconds = self._counter(
            "idle_server_seconds",
            "Server-seconds spent idle past the limit: increase()/3600 is idle server-hours.",
            "policy",
        )

    def _last_pass(self) -> Metric:
        found = self.journal.last_pass().outcomes
        return _labelled(
            f"{_PREFIX}last_pass_candidates",
            "What became of the candidates of the last culling pass.",
            "outcome",
            {outcome: found.get(outcome, 0) for outcome in (*Outcome, *Withheld)},
        )

    def _of_users(self) -> None:
        self._own.append(self._idle_users)
        self.users_deleted = self._counter("users_deleted", "Idle users deleted, verified.")
        self.deletions_withheld = self._counter(
            "user_deletions_withheld",
            "Users past --user-timeout who were not deleted, once a listing of users each.",
            cause=UserKept,
        )
        self.deletion_failures = self._counter(
            "user_deletion_failures",
            "Deletions of users that failed, or whose result is not known.",
            cause=Cause,
        )

    def _idle_users(self, state: PollState) -> Iterable[Metric]:
        """Yield who is idle, unless it is not known, or was not asked for."""
        found = self.latest.idle_users
        if found is not None and state.snapshot is not None:
            yield _user_facts(found)

    def _of_notifications(self) -> None:
        self._notifications = self._counter(
            "notifications",
            "Attempts to tell people that their server will be stopped, or was stopped.",
            event=NotificationEvent,
            result=NotificationResult,
        )
        self.undelivered: Callable[[], Undelivered] = Undelivered
        self._own.append(lambda _state: _undelivered(self.undelivered()))

    def count_notification(self, event: NotificationEvent, result: NotificationResult) -> None:
        """Count one attempt to tell a person."""
        self._notifications.labels(event, result).inc()

    def count_query(self, result: QueryResult) -> None:
        """Count one evaluation of the spare query."""
        self.spare_queries.labels(result).inc()

    def count_announced(self) -> None:
        """Count a stop that was announced by the page and the metric alone."""
        self.count_notification(NotificationEvent.DUE, NotificationResult.SENT)

    def _of_policies(self) -> None:
        self._gauges(
            lambda state: _value(
                f"{_PREFIX}policy_file_valid",
                "Whether the current version of the policy file is in use; 1 without a file.",
                state.policy_error is None,
            )
        )
        self.reloads = self._counter("policy_reloads", "New policy files put to use.")
        self.reload_failures = self._counter(
            "policy_reload_failures", "Changed policy files that could not be used."
        )

    def _of_the_web(self) -> None:
        self.web_config_valid = True
        self._gauges(
            lambda _: _value(
                f"{_PREFIX}web_config_file_valid",
                "Whether the current version of the web configuration file is in use; 1 without.",
                self.web_config_valid,
            )
        )
        self.web_refusals = self._counter(
            "web_refusals", "Requests to this exporter that were refused.", cause=WebRefusal
        )

    def web_config_read(self, valid: bool) -> None:
        """Take note whether the web configuration file can be used."""
        self.web_config_valid = valid

    def count_web_refusal(self, cause: WebRefusal) -> None:
        """Count one request that was refused."""
        self.web_refusals.labels(cause).inc()

    def preregister_policies(self, policies: Iterable[Policy]) -> None:
        """Make the label values of policies appear before anything is counted for them."""
        for policy in policies:
            self.idle_server_seconds.labels(policy.name)
            for reason in Reason:
                self.attempts.labels(policy.name, reason)
                self.culls.labels(policy.name, reason)

    def observe_request(self, operation: Operation, seconds: float) -> None:
        """Count one request to the Hub."""
        self._requests.labels(operation).observe(seconds)

    def _gauges(self, *gauges: Callable[[PollState], Metric]) -> None:
        """Add gauges that are read from the poll state."""
        self._own += [partial(_only, gauge) for gauge in gauges]

    def _counter(self, name: str, text: str, *labels: str, **enums: type[StrEnum]) -> Counter:
        """Add a counter; a label given with its enum has all its values from the start."""
        counter = Counter(_PREFIX + name, text, [*labels, *enums], registry=None)
        return self._with_all_values(counter, enums)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], **enums: type[StrEnum]
    ) -> Histogram:
        histogram = Histogram(_PREFIX + name, text, [*enums], buckets=buckets, registry=None)
        return self._with_all_values(histogram, enums)

    def _with_all_values(self, metric: _Own, enums: Mapping[str, type[StrEnum]]) -> _Own:
        for values in product(*enums.values()) if enums else ():
            metric.labels(*values)
        self._own.append(lambda _state: metric.collect())
        return metric


def _only(gauge: Callable[[PollState], Metric], state: PollState) -> Iterable[Metric]:
    return [gauge(state)]


def _counts(counter: Counter) -> Counts:
    """Read a counter: the values of its labels → its value."""
    (family,) = counter.collect()
    return {
        tuple(sample.labels.values()): sample.value
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
