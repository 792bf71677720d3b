"""`/metrics`: names, types and labels are the contract's; facts are one snapshot, or none.

The golden files are what a person sees; run this file with `UPDATE_GOLDEN=1` to write them.
"""

import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import poll_states
import pytest
import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from prometheus_client.samples import Sample

from hub_idle_exporter import __version__
from hub_idle_exporter.culling.audit import Audit
from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import ClockReading, GateReading, GateState
from hub_idle_exporter.domain.idle_users import IdleUsers, JudgedUser
from hub_idle_exporter.domain.labels import (
    Cause,
    CullFailure,
    Operation,
    ProbeResult,
    QueryResult,
    UserKept,
    Withheld,
)
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Judge, JudgedServer, Policy, Rules
from hub_idle_exporter.domain.poll_state import LatestState, PollState, Snapshot
from hub_idle_exporter.domain.probe_user import Safeguards
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import PollSettings
from hub_idle_exporter.domain.spare_query import Opinion, Series
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.policy_file import parse

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT, OPENMETRICS = "text/plain", "application/openmetrics-text"
POLICIES = parse(
    b"""
policies:
  - {name: staff, match: {users: s*}, exempt: true}
  - {name: 'gpu "big"', match: {users: g*}, timeout: 2h, max_age: 1d}
""",
    "p.yaml",
    Policy("default", 3600.0),
)
NOW = 1_763_800_000.0
HOUR = 3600.0
OPINION = Opinion.of("q", 0.0, [Series({"user": "ana"}, 0.0), Series({"user": "gina"}, 0.5)])

# The contract's tables: name, type, labels with all their values (None: whatever there is).
Labels = Mapping[str, Iterable[str] | None]
STATES = ("active", "idle", "pending")
REASONS = ("idle", "max_age")
SCOPES = ("list:users", "read:servers", "read:users:groups", "delete:servers", "proxy", "tokens",
          "read:users:activity", "delete:users")  # fmt: skip
CAUSES = ("connection", "timeout", "http", "auth", "scope", "response")
LISTED = ("unknown", "own", "hidden", "server", "admin", "exempt", "scope", "protected")
WITHHELD = ("active_again", "busy", "probe_failed", "pending", "restarted", "gone", "limit", "gate",
            "policy", "list", "unasked", "stale", "in_use", "query_failed", "kept",
            "notice")  # fmt: skip
FACTS: dict[str, tuple[str, Labels]] = {
    "jupyterhub_info": ("gauge", {"version": None}),
    "jupyterhub_idle_users": ("gauge", {"verdict": ("candidate", *LISTED)}),
    "jupyterhub_servers": ("gauge", {"policy": None, "state": STATES}),
    "jupyterhub_server_idle_seconds": ("gaugehistogram", {"le": None}),
    "jupyterhub_server_age_seconds": ("gaugehistogram", {"le": None}),
    "jupyterhub_cull_candidates": ("gauge", {"policy": None, "reason": REASONS}),
    "jupyterhub_cull_candidates_spared": (
        "gauge", {"policy": None, "cause": ("in_use", "query_failed")},
    ),
    "jupyterhub_policy_timeout_seconds": ("gauge", {"policy": None}),
    "jupyterhub_policy_max_age_seconds": ("gauge", {"policy": None}),
    "jupyterhub_policy_exempt": ("gauge", {"policy": None}),
    "jupyterhub_servers_kept": ("gauge", {"policy": None}),
    "jupyterhub_servers_over_limit": (
        "gauge", {"limit": ("900", "1800", "3600", "7200", "14400", "28800", "86400")},
    ),
}  # fmt: skip
PER_SERVER: dict[str, tuple[str, Labels]] = {
    "jupyterhub_server_last_activity_timestamp_seconds": ("gauge", {"user": None, "server": None}),
    "jupyterhub_server_started_timestamp_seconds": ("gauge", {"user": None, "server": None}),
    "jupyterhub_server_stop_due_timestamp_seconds": ("gauge", {"user": None, "server": None}),
    "jupyterhub_server_spare_query_value": ("gauge", {"user": None, "server": None}),
}
OWN: dict[str, tuple[str, Labels]] = {
    "jupyterhub_up": ("gauge", {}),
    "hub_idle_exporter_build_info": ("gauge", {"version": None}),
    "hub_idle_exporter_polls": ("counter", {}),
    "hub_idle_exporter_poll_failures": (
        "counter", {"cause": ("connection", "timeout", "http", "auth", "scope", "response")},
    ),
    "hub_idle_exporter_poll_duration_seconds": ("gauge", {}),
    "hub_idle_exporter_poll_interval_seconds": ("gauge", {}),
    "hub_idle_exporter_last_poll_success_timestamp_seconds": ("gauge", {}),
    "hub_idle_exporter_list_timestamp_seconds": ("gauge", {}),
    "hub_idle_exporter_full_list_timestamp_seconds": ("gauge", {}),
    "hub_idle_exporter_clock_skew_seconds": ("gauge", {}),
    "hub_idle_exporter_unreadable_users": ("gauge", {}),
    "hub_idle_exporter_web_config_file_valid": ("gauge", {}),
    "hub_idle_exporter_web_refusals": (
        "counter", {"cause": ("wrong_password", "too_many_attempts", "certificate")},
    ),
    "hub_idle_exporter_scope_granted": ("gauge", {"scope": SCOPES}),
    "hub_idle_exporter_scope_filtered": ("gauge", {"scope": SCOPES}),
    "hub_idle_exporter_enforcement": ("gauge", {"state": ("off", "grace", "suspended", "on")}),
    "hub_idle_exporter_grace_seconds": ("gauge", {}),
    "hub_idle_exporter_standby": ("gauge", {}),
    "hub_idle_exporter_busy_check": ("gauge", {}),
    "hub_idle_exporter_safeguard": (
        "gauge", {"safeguard": ("busy_check", "stop_token", "lease")},
    ),
    "hub_idle_exporter_busy_checks": (
        "counter", {"result": ("idle", "busy", "active", "no_jupyter", "failed")},
    ),
    "hub_idle_exporter_spare_queries": ("counter", {"result": ("ok", "failed")}),
    "hub_idle_exporter_cull_attempts": ("counter", {"policy": None, "reason": REASONS}),
    "hub_idle_exporter_culls": ("counter", {"policy": None, "reason": REASONS}),
    "hub_idle_exporter_cull_failures": (
        "counter", {"cause": ("http", "timeout", "connection", "not_stopped", "slow")},
    ),
    "hub_idle_exporter_culls_withheld": (
        "counter",
        {"cause": WITHHELD},
    ),
    "hub_idle_exporter_last_pass_candidates": (
        "gauge", {"outcome": ("stopped", "failed", "under_way", *WITHHELD)},
    ),
    "hub_idle_exporter_users_deleted": ("counter", {}),
    "hub_idle_exporter_user_deletions_withheld": (
        "counter",
        {
            "cause": (
                *LISTED, "active_again", "gone", "look_failed", "policy", "stale", "gate", "list",
                "limit", "failures",
            ),
        },
    ),
    "hub_idle_exporter_user_deletion_failures": ("counter", {"cause": CAUSES}),
    "hub_idle_exporter_cull_duration_seconds": ("histogram", {"le": None}),
    "hub_idle_exporter_idle_server_seconds": ("counter", {"policy": None}),
    "hub_idle_exporter_notifications": (
        "counter", {"event": ("due", "stopped"), "result": ("sent", "failed")},
    ),
    "hub_idle_exporter_notices_undelivered": ("gauge", {}),
    "hub_idle_exporter_notices_undelivered_since_timestamp_seconds": ("gauge", {}),
    "hub_idle_exporter_policy_file_valid": ("gauge", {}),
    "hub_idle_exporter_policy_reloads": ("counter", {}),
    "hub_idle_exporter_policy_reload_failures": ("counter", {}),
    "hub_idle_exporter_hub_request_duration_seconds": (
        "histogram",
        {"operation": ("version", "identity", "list_users", "get_user", "stop_server",
                       "remove_server", "list_routes", "mint_token", "revoke_token",
                       "list_tokens", "list_idle_users", "delete_user"),
         "le": None},
    ),
}  # fmt: skip

# The process's own, as client_python has them: their values are in no golden file.
PROCESS: dict[str, tuple[str, Labels]] = {
    "process_virtual_memory_bytes": ("gauge", {}),
    "process_resident_memory_bytes": ("gauge", {}),
    "process_start_time_seconds": ("gauge", {}),
    "process_cpu_seconds": ("counter", {}),
    "process_open_fds": ("gauge", {}),
    "process_max_fds": ("gauge", {}),
    "python_info": (
        "gauge",
        dict.fromkeys(("implementation", "major", "minor", "patchlevel", "version")),
    ),
}
OWN |= PROCESS


@pytest.fixture(autouse=True, scope="module")
def _as_the_sidecar_does() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]


def new(
    state: GateState = GateState.OFF, policies: tuple[Policy, ...] = POLICIES, **settings: Any
) -> Metrics:
    poll = PollSettings(policies[-1], **{"interval": 0.0} | settings)
    latest = LatestState(poll_states.at_start(Rules(policies)))
    return Metrics(CollectorRegistry(), latest, lambda _state: GateReading(state, ""), poll)


def exposed(metrics: Metrics, kind: str = TEXT) -> str:
    """Give what a scrape gets."""
    encode, _ = choose_encoder(kind)
    return encode(metrics.registry).decode()


def samples(metrics: Metrics) -> list[Sample]:
    return [sample for family in prometheus(exposed(metrics)) for sample in family.samples]


def server(
    idle: float | None,
    age: float | None = 5 * HOUR,
    ready: bool = True,
    pending: str | None = None,
) -> Server:
    """Give a server that was last active and started so many seconds ago."""
    return Server(ready=ready, pending=pending, started=_ago(age), last_activity=_ago(idle))


def _ago(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(NOW - seconds, timezone.utc)


def hub() -> list[User]:
    """Give users with servers in every state, on every bound."""
    return [
        User("ana", servers={"": server(0), "my srv": server(HOUR)}),
        User("bob", servers={"": server(HOUR - 1)}),
        User("staffan", servers={"": server(100 * HOUR, 200 * HOUR)}),
        User("gina", servers={"": server(2 * HOUR), "old": server(10, 24 * HOUR)}),
        User("ünï\n\"q\" \\ <b>", servers={"a b": server(1)}),
        User("unseen", servers={"": server(None, None)}),
        User("new", servers={"": server(None, 10, ready=False, pending="spawn")}),
        User("odd", servers={"": server(-500, 60)}),
    ]  # fmt: skip


def judged(users: list[User] | None = None) -> list[JudgedServer]:
    rules = Rules(POLICIES)
    return list(
        judge_all(Judge(rules, Granted(), opinion=OPINION), hub() if users is None else users, NOW)
    )


def snapshot(users: list[User] | None = None) -> Snapshot:
    found = judged(users)
    census = census_of(found, Rules(POLICIES), keep_all=True)
    return Snapshot(NOW, census, unreadable=("deep-diver",))


def show(metrics: Metrics, state: PollState) -> None:
    """Swap in the state of a poll."""
    metrics.latest.state = state


def busy(per_server: bool = False) -> Metrics:
    """Give the metrics of a sidecar that has been through something."""
    metrics = new(GateState.ON, interval=60.0, per_server_metrics=per_server)
    state = poll_states.good(snapshot=snapshot(), now=ClockReading(0.0, NOW))
    scopes = ["list:users", "read:servers!group=staff", "read:users:name"]
    show(
        metrics,
        replace(
            state,
            opinion=OPINION,
            granted=Granted.of(scopes),
            safeguards=Safeguards(asks_servers=True, stop_tokens=True, lease=True),
            duration=0.25,
            clock_skew=-1.5,
        ),
    )
    metrics.polls.inc(42)
    metrics.poll_failures.labels(Cause.SCOPE).inc(2)
    metrics.busy_checks.labels(ProbeResult.BUSY).inc(3)
    metrics.spare_queries.labels(QueryResult.FAILED).inc(2)
    metrics.attempts.labels("default", "idle").inc(5)
    metrics.culls.labels("default", "idle").inc(4)
    metrics.cull_failures.labels(CullFailure.NOT_STOPPED).inc()
    metrics.withheld.labels(Withheld.BUSY).inc(3)
    metrics.cull_duration.observe(1.5)
    metrics.idle_server_seconds.labels("default").inc(7200)
    metrics.reloads.inc()
    metrics.reload_failures.inc(2)
    metrics.observe_request(Operation.LIST_USERS, 0.03)
    metrics.latest.idle_users = IdleUsers(NOW, idle_users())
    metrics.users_deleted.inc(2)
    metrics.deletions_withheld.labels(UserKept.EXEMPT).inc(3)
    metrics.deletion_failures.labels(Cause.TIMEOUT).inc()
    return metrics


def idle_users() -> tuple[JudgedUser, ...]:
    kept = [None, None, UserKept.SERVER, UserKept.UNKNOWN]
    return tuple(JudgedUser(f"u{n}", 90 * 24 * HOUR, one, "") for n, one in enumerate(kept))


# ---- golden -------------------------------------------------------------------------------------


_OF_THE_PROCESS = re.compile(r"(# \w+ )?(process_|python_info)")


def assert_golden(name: str, text: str) -> None:
    """Compare with the file of that name, in which the version is left open."""
    named = text.replace(f'version="{__version__}"', 'version="VERSION"')
    ours = (line for line in named.splitlines(keepends=True) if not _OF_THE_PROCESS.match(line))
    shown = "".join(ours)
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(shown)
    assert shown == file.read_text()


def test_golden_at_start() -> None:
    assert_golden("at-start.txt", exposed(new()))


def test_golden_at_work() -> None:
    assert_golden("at-work.txt", exposed(busy()))
    assert_golden("at-work.openmetrics", exposed(busy(), OPENMETRICS))


def test_golden_per_server() -> None:
    assert_golden("per-server.txt", exposed(busy(per_server=True)))


# ---- the contract -------------------------------------------------------------------------------


def families(metrics: Metrics) -> dict[str, tuple[str, list[Sample]]]:
    """Give type and samples of each metric, as OpenMetrics tells them."""
    found = openmetrics(exposed(metrics, OPENMETRICS))  # type: ignore[no-untyped-call]
    return {family.name: (family.type, family.samples) for family in found}


@pytest.mark.parametrize(
    ("metrics", "table"),
    [
        (new(), OWN),
        (busy(), OWN | FACTS),
        (busy(per_server=True), OWN | FACTS | PER_SERVER),
    ],
    ids=["at start", "at work", "per server"],
)
def test_names_types_and_labels_are_the_contracts(
    metrics: Metrics, table: dict[str, tuple[str, Labels]]
) -> None:
    found = families(metrics)
    assert set(found) == set(table)
    for name, (kind, labels) in table.items():
        assert found[name][0] == kind, name
        seen = {label for sample in found[name][1] for label in sample.labels}
        assert seen == set(labels), name
        for label, values in labels.items():
            there = {s.labels[label] for s in found[name][1] if label in s.labels}
            assert values is None or there == set(values), name


def test_names_in_the_text_format_are_the_contracts() -> None:
    text = exposed(busy())
    types = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE"))
    for name, (kind, _) in (OWN | FACTS).items():
        shown = f"{name}_total" if kind == "counter" else name
        assert types[shown] == kind.removeprefix("gauge") or (kind, types[shown]) == (
            "gauge", "gauge",
        )  # fmt: skip
    for name in ("jupyterhub_server_idle_seconds", "jupyterhub_server_age_seconds"):
        assert {f"{name}_bucket", f"{name}_gcount", f"{name}_gsum"} <= {
            sample.name for sample in samples(busy())
        }
    assert "_created" not in text


def test_no_name_of_the_hubs_own_is_taken() -> None:
    taken = {
        "running_servers", "total_users", "active_users", "server_spawn_duration_seconds",
        "server_stop_seconds", "server_poll_duration_seconds", "proxy_poll_duration_seconds",
        "proxy_add_duration_seconds", "proxy_delete_duration_seconds", "request_duration_seconds",
        "check_routes_duration_seconds", "hub_startup_duration_seconds",
        "init_spawners_duration_seconds", "event_loop_interval_seconds", "login_duration_seconds",
        "logout_duration_seconds", "csp_reports_total",
    }  # fmt: skip
    assert not {f"jupyterhub_{name}" for name in taken} & set(OWN | FACTS | PER_SERVER)


def test_every_policy_has_every_label_value_from_the_first_sample() -> None:
    names = {policy.name for policy in POLICIES}
    for name in ("cull_attempts", "culls"):
        pairs = {
            (sample.labels["policy"], sample.labels["reason"])
            for sample in samples(new())
            if sample.name == f"hub_idle_exporter_{name}_total"
        }
        assert pairs == {(policy, reason) for policy in names for reason in REASONS}
    for label, shown in (("state", "jupyterhub_servers"), ("reason", "jupyterhub_cull_candidates")):
        found = [s.labels for s in samples(busy()) if s.name == shown]
        values = STATES if label == "state" else REASONS
        assert len(found) == len(names) * len(values)
    hours = {s.labels["policy"] for s in samples(new()) if "idle_server_seconds" in s.name}
    assert hours == names


def test_policies_of_a_new_file_have_their_label_values_too() -> None:
    metrics = new(policies=(Policy("default", 60.0),))
    metrics.preregister_policies([Policy("new", 60.0), Policy("default", 60.0)])
    assert 'hub_idle_exporter_culls_total{policy="new",reason="max_age"} 0.0' in exposed(metrics)


@pytest.mark.parametrize("state", GateState)
def test_exactly_one_state_of_enforcement_is_one(state: GateState) -> None:
    shown = {
        sample.labels["state"]: sample.value
        for sample in samples(new(state))
        if sample.name == "hub_idle_exporter_enforcement"
    }
    assert shown == {each: float(each == state) for each in GateState}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (Safeguards(), (0, 0, 0)),
        (Safeguards(asks_servers=True), (1, 0, 0)),
        (Safeguards(stop_tokens=True), (0, 1, 0)),
        (Safeguards(lease=True), (0, 0, 1)),
    ],
)
def test_each_safeguard_has_its_own_series(given: Safeguards, shown: tuple[int, ...]) -> None:
    metrics = new(GateState.ON)
    show(metrics, replace(poll_states.good(), safeguards=given))
    name = "hub_idle_exporter_safeguard"
    series = ("busy_check", "stop_token", "lease")
    assert tuple(value(metrics, name, safeguard=one) for one in series) == shown
    assert value(metrics, "hub_idle_exporter_busy_check") == shown[0]


@pytest.mark.parametrize(
    ("name", "scopes"),
    [("granted", {"list:users", "read:servers"}), ("filtered", {"read:servers"})],
)
def test_a_filtered_scope_is_granted_and_told_apart(name: str, scopes: set[str]) -> None:
    shown = {
        sample.labels["scope"]: sample.value
        for sample in samples(busy())
        if sample.name == f"hub_idle_exporter_scope_{name}"
    }
    assert shown == {scope: float(scope in scopes) for scope in Scope}


# ---- facts --------------------------------------------------------------------------------------


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Sum the samples of that name with these labels."""
    return sum(
        sample.value
        for sample in samples(metrics)
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_states_sum_to_all_servers() -> None:
    assert value(busy(), "jupyterhub_servers") == len(judged())
    assert value(busy(), "jupyterhub_servers", state="pending") == 1
    assert value(busy(), "jupyterhub_servers", policy="default", state="idle") == 1


def test_a_value_on_a_bucket_s_bound_is_in_the_bucket() -> None:
    name = "jupyterhub_server_idle_seconds_bucket"
    assert value(busy(), name, le="3600.0") - value(busy(), name, le="1800.0") == 2
    assert value(busy(), name, le="+Inf") == value(busy(), "jupyterhub_server_idle_seconds_gcount")


def test_what_is_unknown_is_in_no_histogram_and_no_series() -> None:
    assert value(busy(), "jupyterhub_server_idle_seconds_gcount") == 8
    assert value(busy(), "jupyterhub_server_age_seconds_gcount") == 8
    assert 'user="unknown"' not in exposed(busy(per_server=True))


def test_a_hostile_name_is_one_series() -> None:
    shown = [
        sample.value
        for sample in samples(busy(per_server=True))
        if sample.labels == {"user": 'ünï\n"q" \\ <b>', "server": "a b"}
    ]
    assert shown == [NOW - 1, NOW - 5 * HOUR, NOW - 1 + HOUR]


def test_facts_vanish_after_a_failed_poll_and_up_stays() -> None:
    metrics = busy(per_server=True)
    show(metrics, poll_states.failed(before=metrics.latest.state))
    left = {sample.name for sample in samples(metrics) if sample.name.startswith("jupyterhub_")}
    assert left == {"jupyterhub_up"}
    assert value(metrics, "jupyterhub_up") == 0
    assert value(metrics, "hub_idle_exporter_polls_total") == 42


def test_a_hub_without_servers_still_has_every_series() -> None:
    metrics = new()
    show(metrics, poll_states.good(snapshot=snapshot([])))
    assert value(metrics, "jupyterhub_servers") == 0
    assert len([s for s in samples(metrics) if s.name == "jupyterhub_servers"]) == 9
    assert value(metrics, "jupyterhub_server_idle_seconds_gcount") == 0


def test_no_user_s_name_without_per_server_metrics() -> None:
    text = exposed(busy()) + exposed(busy(), OPENMETRICS)
    assert not [user.name for user in hub() if f'"{user.name}' in text]


OF_A_POLL = (
    "hub_idle_exporter_poll_duration_seconds",
    "hub_idle_exporter_last_poll_success_timestamp_seconds",
    "hub_idle_exporter_clock_skew_seconds",
)
OF_ITS_SERVERS = (
    'jupyterhub_servers{policy="default",state="idle"}',
    "jupyterhub_server_idle_seconds_gcount",
    "jupyterhub_server_age_seconds_gcount",
    'jupyterhub_cull_candidates{policy="default",reason="idle"}',
)


def polls_seen(text: str) -> tuple[tuple[float, float], list[object]]:
    """Return of which poll a scrape is (up, its number), and what in it is of another one."""
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    up = float(found["jupyterhub_up"])
    numbers = {found.get(name) for name in (*OF_A_POLL, *(OF_ITS_SERVERS if up else ()))}
    enforcing = float(found['hub_idle_exporter_enforcement{state="on"}'])
    there = {name in found for name in OF_ITS_SERVERS}
    torn = len(numbers) != 1 or there != {bool(up)} or enforcing != up
    return (up, float(found[OF_A_POLL[0]])), [(up, numbers, there, enforcing)] if torn else []


def test_no_reader_sees_half_of_a_poll() -> None:
    """Whatever a scrape says of the last poll, facts and own gauges, is of the same poll."""
    metrics = Metrics(
        CollectorRegistry(),
        LatestState(poll_states.at_start(Rules(POLICIES))),
        lambda state: GateReading(
            GateState.SUSPENDED if state.snapshot is None else GateState.ON, ""
        ),
        PollSettings(POLICIES[-1]),
    )
    sizes = (0, 300, 700)

    def after(size: int) -> PollState:
        users = [User(f"u{n}", servers={"": server(2 * HOUR)}) for n in range(size)]
        good = poll_states.good(snapshot=snapshot(users), now=ClockReading(0.0, float(size)))
        return replace(good, duration=float(size), clock_skew=float(size))

    states = [
        after(size) for size in sizes
    ]  # fmt: skip
    states.append(poll_states.failed(before=states[1]))
    stop = threading.Event()
    torn: list[object] = []
    seen: set[tuple[float, float]] = set()

    def scrape() -> None:
        while not stop.is_set():
            poll, wrong = polls_seen(metrics.exposition(TEXT).body.decode())
            torn.extend(wrong)
            seen.add(poll)

    scrapers = [threading.Thread(target=scrape, daemon=True) for _ in range(3)]
    for scraper in scrapers:
        scraper.start()
    wanted = {(1.0, float(size)) for size in sizes} | {(0.0, 300.0)}
    deadline = time.monotonic() + 20
    try:
        while not wanted <= seen and not torn and time.monotonic() < deadline:
            for number, one in enumerate(states):
                if number % 2:
                    metrics.render_ahead(one)
                show(metrics, one)
                stop.wait(0.002)
    finally:
        stop.set()
    for scraper in scrapers:
        scraper.join(10)
    assert torn == []
    assert wanted <= seen <= wanted | {(0.0, 0.0)}  # that of before the first poll


def outcomes(metrics: Metrics) -> tuple[float, float, float, float]:
    """Return of one scrape the stops sent, of known outcome, that worked, and that were timed."""
    totals = defaultdict[str, float](float)
    for family in metrics.collect():
        for one in family.samples:
            totals[one.name.removeprefix("hub_idle_exporter_")] += one.value
    culls = totals["culls_total"]
    known = culls + totals["cull_failures_total"]
    return totals["cull_attempts_total"], known, culls, totals["cull_duration_seconds_count"]


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    """Let threads take turns so often that one is interrupted wherever it can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_hasty_threads")
def test_attempts_culls_and_failures_add_up_in_every_scrape() -> None:
    """Each stop is counted when it is sent and when its outcome is known, never out of order."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    metrics, candidate = new(GateState.ON), judged()[0]
    audit, workers, stop = Audit(metrics), 2, threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            audit.sent(candidate)
            if number % 2:
                audit.stopped(candidate, 0.1)
            else:
                audit.failed(candidate, CullFailure.SLOW, "slow")

    threads = [threading.Thread(target=work, args=[n], daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        seen = [outcomes(metrics) for _ in range(500)]
    finally:
        stop.set()
    for thread in threads:
        thread.join(10)
    assert [one for one in seen if not 0 <= one[0] - one[1] <= workers or one[2] != one[3]] == []
    assert seen[-1][2] > 0
    sent, known, *_ = outcomes(metrics)
    assert sent == known


# ---- promtool -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metrics", [new(), busy(), busy(per_server=True)])
def test_promtool_has_nothing_to_say(metrics: Metrics, require_tool: Callable[[str], str]) -> None:
    done = subprocess.run(
        [require_tool("promtool"), "check", "metrics"], input=exposed(metrics), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
