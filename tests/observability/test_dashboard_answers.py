"""What the dashboard answers in trouble: histories of simulated Hubs, asked of a real Prometheus.

Each Hub is a cluster of its own, so that one can be chosen. Panels are read as Grafana reads them:
the cells of a table by their labels, and words in place of numbers.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dashboard_checks
import pytest
from conftest import tool_or_skip
from planted_faults import DASHBOARD
from prometheus_process import PrometheusServer

pytestmark = pytest.mark.slow("answers of the dashboard in trouble")

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tools"))

import history  # noqa: E402
from scenarios import HOUR, SimulatedHub  # noqa: E402

LENGTH, DOWN = 40 * 60.0, 20 * 60.0
UNKNOWN = "\N{EN DASH}"
NOW = ("Idle now", "In use now", "Would stop now")


def hub(cluster: str, people: int = 60, enforced_for: float = HOUR, **what: Any) -> SimulatedHub:
    """Simulate one, enforcing all the time."""
    labels = {"cluster": cluster, "hub": "h"}
    return SimulatedHub(people, extra=labels, enforced_for=enforced_for, **what)


HUBS = (
    hub("healthy"),
    hub("exporter-down", exporter_down_for=DOWN),
    hub("forgotten", exporter_forgotten_for=DOWN),
    hub("hub-down", hub_down_for=DOWN),
    hub("hangs", polls_hang_for=DOWN),
    hub("monitoring", enforced_for=0),
    hub("not-asking", asks=False),
    hub("policy-broken", policy_broken_for=DOWN),
    hub("nobody", people=0),
    hub("slow", interval=900),
    SimulatedHub(40, instance="alone:9899", enforced_for=0),
)
Samples = Mapping[str, float]

OWN = "hub_idle_exporter_"
SAFEGUARDS = ("busy_check", "stop_token", "lease")


def enforcing(state: str) -> Samples:
    """Say that an exporter is in a state of enforcement."""
    states = ("off", "grace", "suspended", "on")
    return {f'{OWN}enforcement{{state="{each}"}}': int(each == state) for each in states}


def without(*missing: str) -> Samples:
    """Say which safeguards are in place; the first has a metric of its own."""
    gauges = {f'{OWN}safeguard{{safeguard="{each}"}}': each not in missing for each in SAFEGUARDS}
    return {**gauges, f"{OWN}busy_check": "busy_check" not in missing}


def started(ago: float, failed: int = 0) -> Samples:
    """Say that a process has not read the Hub since its start."""
    return {
        "jupyterhub_up": 0,
        f"{OWN}last_poll_success_timestamp_seconds": 0,
        f'{OWN}poll_failures_total{{cause="connection"}}': failed,
        f'{OWN}poll_failures_total{{cause="scope"}}': 0,
        "process_start_time_seconds": END - ago,
        **enforcing("suspended" if failed else "grace"),
        **without(*SAFEGUARDS),
    }


def well(when: float) -> Samples:
    """Give what an exporter says of itself when all is well, as far as the table needs it."""
    return {
        "up": 1,
        "jupyterhub_up": 1,
        f'{OWN}build_info{{version="1"}}': 1,
        f"{OWN}poll_interval_seconds": 60,
        f"{OWN}last_poll_success_timestamp_seconds": when - 10,
        **enforcing("on"),
        **without(),
    }


def past_their_limit(**candidates: int) -> Samples:
    """Say how many candidates each policy has."""
    name = 'jupyterhub_cull_candidates{{policy="{}",reason="idle"}}'
    return {name.format(policy): count for policy, count in candidates.items()}


def spared(**servers: int) -> Samples:
    """Say how many candidates of each policy the second opinion spares."""
    name = 'jupyterhub_cull_candidates_spared{{policy="{}",cause="in_use"}}'
    return {name.format(policy): count for policy, count in servers.items()}


# Half a minute off the whole ones, at which the dashboard samples its range: no sample is exactly
# at the edge of what still counts, where a pod and the one in its place would both be there.
END = time.time() // 60 * 60 - 30
# What the simulated Hubs do not come to.
STATES: dict[str, Samples] = {
    "standby": {f"{OWN}standby": 1, **enforcing("suspended"), **without("lease")},
    "suspended": {**enforcing("suspended"), **without(*SAFEGUARDS)},
    "grace": enforcing("grace"),
    "less-safe": without("stop_token"),
    "not-told": {f"{OWN}notices_undelivered_since_timestamp_seconds": END - 2000},
    "told-later": {f"{OWN}notices_undelivered_since_timestamp_seconds": END - 1600},
    "all-told": {f"{OWN}notices_undelivered_since_timestamp_seconds": 0},
    "spares": {**past_their_limit(gpu=2, default=3), **spared(gpu=2, default=1)},
    "spares-nobody": {**past_their_limit(gpu=2, default=3), **spared(gpu=0, default=0)},
    "no-spare-query": past_their_limit(gpu=2, default=3),
    "first-poll": started(90),
    "first-poll-failed": started(90, failed=1),
    "first-poll-hangs": started(HOUR),
}


@dataclass(frozen=True)
class Pod:
    """An exporter of a Hub: 40 of 100 servers are always idle, 12 are stopped in an hour.

    A policy was exempt until ten minutes before the end. An exporter that ends left a server
    running three hours before the end, and failed nine times within the last hour. Times are
    seconds before the end.
    """

    instance: str
    labels: str
    since: float
    until: float = 0.0

    def told(self) -> Iterator[str]:
        """Write what it said all along, each minute."""
        for before_end in range(int(self.since), int(self.until) - 1, -60):
            yield from told(self._samples(before_end), END - before_end, self.labels, self.instance)

    def _samples(self, before_end: float) -> Samples:
        lived = self.since - before_end
        return {
            **well(END - before_end),
            'jupyterhub_servers{policy="staff",state="idle"}': 40,
            'jupyterhub_servers{policy="staff",state="active"}': 60,
            'jupyterhub_servers_over_limit{limit="900"}': 40,
            'jupyterhub_policy_exempt{policy="staff"}': int(before_end > 600),
            f'{OWN}idle_server_seconds_total{{policy="staff"}}': 40 * lived,
            f'{OWN}culls_total{{policy="staff",reason="idle"}}': lived // 300,
            f'{OWN}cull_attempts_total{{policy="staff",reason="idle"}}': lived // 300,
            f'{OWN}cull_failures_total{{cause="not_stopped"}}': self._failed(before_end, 3 * HOUR),
            f'{OWN}cull_failures_total{{cause="http"}}': 9 * self._failed(before_end, HOUR),
        }

    def _failed(self, before_end: float, since: float) -> bool:
        return self.until > 0 and before_end < since


# A target that is gone counts for five minutes here; Prometheus itself forgets it at once.
FORGOTTEN = 300


def replaced(labels: str) -> tuple[Pod, ...]:
    """Let a pod replace another, four hours and half an hour before the end."""
    return (
        Pod("10.0.0.1:9899", labels, 6 * HOUR, 4 * HOUR),
        Pod("10.0.0.2:9899", labels, 4 * HOUR - FORGOTTEN, HOUR / 2),
        Pod("10.0.0.3:9899", labels, HOUR / 2 - FORGOTTEN),
    )


def of_hub(cluster: str) -> str:
    """Give the labels of a Hub."""
    return f'job="hub-idle-exporter",cluster="{cluster}",hub="h"'


PODS = (
    *replaced(of_hub("replaced")),
    *replaced('job="nameless"'),
    Pod("10.0.0.1:9899", of_hub("retired"), 6 * HOUR, 4 * HOUR),
    # Down for a third of the time.
    Pod("10.0.0.1:9899", of_hub("back"), 6 * HOUR, 4 * HOUR),
    Pod("10.0.0.1:9899", of_hub("back"), 2 * HOUR),
    # One of two is gone; without the name of a Hub it may have been the only one of its Hub.
    Pod("10.0.0.1:9899", of_hub("one-of-two"), 6 * HOUR, HOUR / 2),
    Pod("10.0.0.2:9899", of_hub("one-of-two"), 6 * HOUR),
    Pod("10.0.0.1:9899", 'job="one-of-two"', 6 * HOUR, HOUR / 2),
    Pod("10.0.0.2:9899", 'job="one-of-two"', 6 * HOUR),
)


def told(samples: Samples, when: float, labels: str, instance: str) -> Iterator[str]:
    """Write samples with the labels of a target."""
    for key, value in samples.items():
        name, _, own = key.rstrip("}").partition("{")
        target = ",".join(filter(None, (labels, f'instance="{instance}"', own)))
        yield f"{name}{{{target}}} {float(value)} {when:.0f}\n"


def all_told() -> Iterator[str]:
    """Write everything that Prometheus is to know."""
    for cluster, samples in STATES.items():
        yield from told({**well(END), **samples}, END, of_hub(cluster), "hub:9899")
    for pod in PODS:
        yield from pod.told()
    yield from history.history(END, HUBS, LENGTH)


@dataclass
class Dashboard:
    """The dashboard over those histories, at their end."""

    prometheus: PrometheusServer
    board: dict[str, Any]

    def answers(
        self,
        title: str,
        cost: str = "",
        window: str = "30m",
        before_end: float = 0.0,
        **chosen: str,
    ) -> list[dict[str, Any]]:
        """Give all series that the queries of a panel find at a moment, the end unless given."""
        return [
            series | {"legend": target["legendFormat"]}
            for target in self._panel(title)["targets"]
            for series in self.prometheus.instant(
                dashboard_checks.expanded(target["expr"], window, cost, **chosen), END - before_end
            )
        ]

    def numbers(self, title: str, cost: str = "", **asked: Any) -> dict[str, float]:
        """Give legend → number."""
        found = self.answers(title, cost, **asked)
        return {series["legend"]: float(series["value"][1]) for series in found}

    def table(self, title: str, key: str = "name", **asked: Any) -> dict[str, dict[str, Any]]:
        """Give the rows of a table: key → column → what is shown."""
        rows: dict[str, dict[str, Any]] = {}
        for series in self.answers(title, **asked):
            column = series["metric"]["column"]
            cells = rows.setdefault(series["metric"][key], {})
            assert column not in cells, (title, column, "two exporters in one cell")
            cells[column] = self._shown(title, column, float(series["value"][1]))
        return rows

    def _shown(self, title: str, column: str, value: float) -> Any:
        if math.isnan(value):
            return UNKNOWN
        for override in self._panel(title)["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == column:
                for one in override["properties"]:
                    words = one["value"][0]["options"] if one["id"] == "mappings" else {}
                    if f"{value:g}" in words:
                        return words[f"{value:g}"]["text"]
        return value

    def _panel(self, title: str) -> dict[str, Any]:
        (panel,) = [one for one in dashboard_checks.panels(self.board) if one["title"] == title]
        return panel


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Let Prometheus answer for all the Hubs."""
    program, promtool = tool_or_skip("prometheus"), tool_or_skip("promtool")
    folder = tmp_path_factory.mktemp("answers")
    with (folder / "history.om").open("w") as output:
        output.writelines(all_told())
    create = [promtool, "tsdb", "create-blocks-from", "openmetrics", "-q", "history.om", "data"]
    subprocess.run(create, cwd=folder, check=True, capture_output=True)
    board = json.loads((REPO / DASHBOARD).read_text())
    with PrometheusServer(program, folder, {}) as prometheus:
        yield Dashboard(prometheus, board)


WORDS = ("Exporter", "Hub", "Culling", "Asks first", "Problem")


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ("healthy", ("up", "read", "on", "yes", "none")),
        ("exporter-down", ("DOWN", UNKNOWN, UNKNOWN, UNKNOWN, "exporter down")),
        ("forgotten", ("GONE", UNKNOWN, UNKNOWN, UNKNOWN, "exporter gone")),
        ("hub-down", ("up", "NOT READ", "waits for Hub", "yes", "Hub not read")),
        ("hangs", ("up", "STALE", "on", "yes", "data stale")),
        ("monitoring", ("up", "read", "off", "not needed", "none")),
        ("not-asking", ("up", "read", "on, not asking", "NO", "servers not asked")),
        ("policy-broken", ("up", "read", "on", "yes", "policy file broken")),
        ("nobody", ("up", "read", "on", "yes", "none")),
        ("slow", ("up", "read", "on", "yes", "none")),
        ("standby", ("up", "read", "standby", "yes", "none")),
        ("suspended", ("up", "read", "SUSPENDED", "NO", "suspended")),
        ("grace", ("up", "read", "grace", "yes", "none")),
        ("less-safe", ("up", "read", "on, less safe", "yes", "less protection")),
        ("not-told", ("up", "read", "on", "yes", "people not told")),
        ("told-later", ("up", "read", "on", "yes", "none")),
        ("all-told", ("up", "read", "on", "yes", "none")),
        ("first-poll", ("up", "first poll", "grace", UNKNOWN, "none")),
        ("first-poll-failed", ("up", "NOT READ", "waits for Hub", UNKNOWN, "Hub not read")),
        ("first-poll-hangs", ("up", "NOT READ", "grace", UNKNOWN, "Hub not read")),
    ],
)
def test_first_table_says_whether_it_works(
    dashboard: Dashboard, cluster: str, words: tuple[str, ...]
) -> None:
    row = dashboard.table("Hubs: does it work?", cluster=cluster)[f"{cluster} / h / hub:9899"]
    assert tuple(row[column] for column in WORDS) == words


def test_each_exporter_has_a_row_though_job_and_instance_are_the_same(dashboard: Dashboard) -> None:
    rows = dashboard.table("Hubs: does it work?", job="hub-idle-exporter")
    names = {f"{of.extra['cluster']} / h / hub:9899" if of.extra else of.instance for of in HUBS}
    names |= {f"{cluster} / h / hub:9899" for cluster in STATES}
    assert rows.keys() == names | {
        "replaced / h / 10.0.0.3:9899",
        "back / h / 10.0.0.1:9899",
        "one-of-two / h / 10.0.0.2:9899",
    }
    chosen = dashboard.table("Hubs: does it work?", cluster="healthy|nobody")
    assert chosen.keys() == {"healthy / h / hub:9899", "nobody / h / hub:9899"}


@pytest.mark.parametrize(
    ("cluster", "shown"),
    [
        ("spares", {"gpu": 0, "default": 2}),
        ("spares-nobody", {"gpu": 2, "default": 3}),
        ("no-spare-query", {"gpu": 2, "default": 3}),
        ("spares|no-spare-query", None),
    ],
)
def test_who_is_spared_is_not_among_those_that_would_be_stopped(
    dashboard: Dashboard, cluster: str, shown: dict[str, int] | None
) -> None:
    """Whether each Hub has a spare query, or only one of them, or none."""
    total = sum(shown.values()) if shown else 2 + 5
    assert dashboard.numbers("Would stop now", cluster=cluster) == {"would stop": total}
    rows = dashboard.table("Hubs: does it work?", cluster=cluster)
    assert sum(row["Would stop"] for row in rows.values()) == total
    if shown:
        policies = dashboard.table("Policies", "policy", cluster=cluster)
        assert {name: row["Would stop now"] for name, row in policies.items()} == shown


@pytest.mark.parametrize("cluster", ["exporter-down", "forgotten", "hub-down", "hangs"])
def test_nothing_is_shown_where_nothing_is_known(dashboard: Dashboard, cluster: str) -> None:
    row = dashboard.table("Hubs: does it work?", cluster=cluster)[f"{cluster} / h / hub:9899"]
    assert [row[column] for column in ("Servers", "Idle", "Would stop")] == [UNKNOWN] * 3
    assert row["Data age"] == pytest.approx(DOWN, abs=61)
    for title in (*NOW, "Computing, spared"):
        assert dashboard.answers(title, cluster=cluster) == []
    limits = dashboard.table("What a limit would have given back", "limit", cluster=cluster)
    assert {row["Would stop now"] for row in limits.values()} == {UNKNOWN}
    assert all(row["Server-hours"] > 0 for row in limits.values())
    assert dashboard.numbers("Idle cost, range", cluster=cluster)["server-hours"] > 0


def test_numbers_on_top_are_the_sums_of_the_table(dashboard: Dashboard) -> None:
    rows = dashboard.table("Hubs: does it work?", job="hub-idle-exporter").values()
    for title, column in (("Idle now", "Idle"), ("Would stop now", "Would stop")):
        (shown,) = dashboard.numbers(title, job="hub-idle-exporter").values()
        assert shown == sum(row[column] for row in rows if row[column] != UNKNOWN) > 0


def test_hub_without_servers_shows_zeros(dashboard: Dashboard) -> None:
    for title in (*NOW, "Computing, spared", "Idle cost, range", "Idle cost per month"):
        assert list(dashboard.numbers(title, cluster="nobody").values()) == [0]


def test_computing_servers_are_unknown_where_nobody_asks(dashboard: Dashboard) -> None:
    assert dashboard.numbers("Computing, spared", cluster="healthy") != {}
    for cluster in ("monitoring", "not-asking"):
        assert dashboard.answers("Computing, spared", cluster=cluster) == []


@pytest.mark.parametrize(("typed", "price"), [("0.12", 0.12), ("12", 12), ("012", 12), (".5", 0.5)])
def test_price_turns_server_hours_into_money(
    dashboard: Dashboard, typed: str, price: float
) -> None:
    for title in ("Idle cost, range", "Idle cost per month"):
        hours = dashboard.numbers(title)["server-hours"]
        assert hours > 0
        assert dashboard.numbers(title, typed) == {"money": pytest.approx(hours * price)}


@pytest.mark.parametrize("typed", ["", "0", "much", "0,12", "1 000", "-1", 'a"b', "$1"])
def test_without_a_price_there_is_no_money_and_no_error(dashboard: Dashboard, typed: str) -> None:
    for title in ("Idle cost, range", "Idle cost per month"):
        assert dashboard.numbers(title, typed).keys() == {"server-hours"}
    found = dashboard.answers("What a limit would have given back", typed)
    assert {series["metric"]["column"] for series in found} == {"Would stop now", "Server-hours"}


def test_problem_is_counted_once(dashboard: Dashboard) -> None:
    found = dashboard.numbers("Problems, one by one", job="hub-idle-exporter")
    assert {name: count for name, count in found.items() if count} == {
        "exporter down": 1,
        "exporter gone": 1,
        "Hub not read": 3,
        "data stale": 1,
        "servers not asked": 1,
        "still running": 2,
        "suspended": 1,
        "less protection": 1,
        "people not told": 1,
        "policy file broken": 1,
    }


def test_own_count_is_compared_with_that_of_the_same_hub_alone(dashboard: Dashboard) -> None:
    """One series of each kind for each Hub: without labels only where there is but one of both."""
    found = dashboard.answers("The Hub's own count and the actual count", cluster="healthy|nobody")
    pairs = sorted((one["metric"]["cluster"], one["legend"].partition(" {")[0]) for one in found)
    both = ("its own count", "listed")
    assert pairs == [(cluster, kind) for cluster in ("healthy", "nobody") for kind in both]


def test_policies_are_those_of_each_hub(dashboard: Dashboard) -> None:
    found = dashboard.answers("Policies", cluster="healthy|nobody")
    exempt = {
        (one["metric"]["name"].partition(" ")[0], one["metric"]["policy"]): one["value"][1]
        for one in found
        if one["metric"]["column"] == "Exempt"
    }
    assert exempt == {
        (cluster, policy): "1" if policy == "staff" else "0"
        for cluster in ("healthy", "nobody")
        for policy in ("staff", "gpu", "scratch", "default")
    }


def test_exempt_policies_are_told_apart(dashboard: Dashboard) -> None:
    found = dashboard.answers("Idle servers by policy", cluster="healthy")
    named = {one["legend"].replace("{{policy}}", one["metric"]["policy"]) for one in found}
    assert named == {"default", "gpu", "scratch", "staff (exempt)"}


def test_policy_that_is_no_longer_exempt_is_shown_so_at_once(dashboard: Dashboard) -> None:
    """Counters too, which outlive the facts about a Hub that is not read."""
    for title in ("Idle servers by policy", "Idle server-hours by policy"):
        before = dashboard.answers(title, before_end=660.0, cluster="back")
        after = dashboard.answers(title, before_end=480.0, cluster="back")
        assert [one["legend"] for one in before] == ["{{policy}} (exempt)"]
        assert [one["legend"] for one in after] == ["{{policy}}"]


# ---- pods that replace each other ----

SIX_HOURS: dict[str, Any] = {"window": "6h"}
MONTH = 40 * 730


@pytest.mark.parametrize(
    ("what", "chosen"),
    [
        ("named Hub", {"cluster": "replaced"}),
        ("no name", {"job": "nameless"}),
        ("down for a third", {"cluster": "back"}),
    ],
)
def test_idle_cost_per_month_is_that_of_the_time_known(
    dashboard: Dashboard, what: str, chosen: dict[str, Any]
) -> None:
    found = dashboard.numbers("Idle cost per month", **SIX_HOURS, **chosen)
    assert found == {"server-hours": pytest.approx(MONTH)}, what


def test_idle_cost_per_month_of_hubs_is_the_sum_of_each(dashboard: Dashboard) -> None:
    """Though they were not known at the same time; one that is no longer there costs nothing."""
    several = "replaced|back|retired|healthy|exporter-down|monitoring"
    together = dashboard.numbers("Idle cost per month", cluster=several, **SIX_HOURS)
    each = [
        dashboard.numbers("Idle cost per month", cluster=cluster, **SIX_HOURS)
        for cluster in several.split("|")
    ]
    assert each[2] == {}
    assert sum(one.get("server-hours", 0.0) for one in each) == pytest.approx(
        together["server-hours"]
    )


@pytest.mark.parametrize("chosen", [{"cluster": "replaced"}, {"job": "nameless"}])
def test_hours_over_the_range_are_those_of_all_pods(
    dashboard: Dashboard, chosen: dict[str, Any]
) -> None:
    """Forty servers idle for six hours, but for a few minutes in which no pod is scraped."""
    hours = pytest.approx(240, rel=0.06)
    assert dashboard.numbers("Idle cost, range", **SIX_HOURS, **chosen) == {"server-hours": hours}
    limits = dashboard.table("What a limit would have given back", "limit", **SIX_HOURS, **chosen)
    assert limits["900"]["Server-hours"] == hours
    part = dashboard.numbers("Idle share of server-hours", **SIX_HOURS, **chosen)
    assert part == {"idle share": pytest.approx(0.4, rel=0.06)}
    by_policy = dashboard.answers("Idle server-hours by policy", **SIX_HOURS, **chosen)
    assert sum(float(one["value"][1]) for one in by_policy) == hours


def test_replaced_pod_has_no_row_and_leaves_its_numbers_to_the_next(dashboard: Dashboard) -> None:
    rows = dashboard.table("Hubs: does it work?", cluster="replaced", **SIX_HOURS)
    (row,) = rows.values()
    assert rows.keys() == {"replaced / h / 10.0.0.3:9899"}
    assert tuple(row[column] for column in WORDS) == ("up", "read", "on", "yes", "still running")
    assert row["Idle hours"] == pytest.approx(240, rel=0.06)
    assert row["Stopped"] == pytest.approx(72, rel=0.06)
    assert row["Failed"] == pytest.approx(1 + 9, rel=0.06)
    assert row["Data age"] == 10


def test_without_a_name_of_the_hub_each_pod_has_its_own_numbers(dashboard: Dashboard) -> None:
    """Whose successor it is, nobody knows. The sums are right all the same."""
    rows = dashboard.table("Hubs: does it work?", job="nameless", **SIX_HOURS)
    assert rows.keys() == {"10.0.0.3:9899"}
    assert rows["10.0.0.3:9899"]["Idle hours"] == pytest.approx(40 * 25 / 60, rel=0.06)
    problems = dashboard.numbers("Problems, one by one", job="nameless")
    assert {name for name, count in problems.items() if count} == {"still running"}


def test_exporter_is_gone_where_nothing_has_taken_its_place(dashboard: Dashboard) -> None:
    """An exporter that was there before is no successor, unless it is known to be of that Hub."""
    rows = dashboard.table("Hubs: does it work?", job="one-of-two")
    assert {name: (row["Exporter"], row["Problem"]) for name, row in rows.items()} == {
        "10.0.0.1:9899": ("GONE", "exporter gone"),
        "10.0.0.2:9899": ("up", "none"),
    }
    rows = dashboard.table("Hubs: does it work?", cluster="one-of-two")
    assert {name: row["Exporter"] for name, row in rows.items()} == {
        "one-of-two / h / 10.0.0.2:9899": "up"
    }


def test_age_of_data_has_no_line_of_a_replaced_pod(dashboard: Dashboard) -> None:
    ages = [
        one["metric"]["instance"]
        for one in dashboard.answers("Age of data", cluster="replaced")
        if not one["legend"].startswith("stale")
    ]
    assert ages == ["10.0.0.3:9899"]
