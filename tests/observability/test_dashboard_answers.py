"""What the dashboard answers in trouble: histories of simulated Hubs, asked of a real Prometheus.

Each Hub is a cluster of its own, so that one can be chosen. Panels are read as Grafana reads them:
the cells of a table by their labels, and words in place of numbers.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dashboard_checks
import pytest
from conftest import tool_or_skip
from planted_faults import DASHBOARD
from prometheus_process import PrometheusServer

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
# What these Hubs do not come to, told by as few series as the table needs.
STATES = {
    "standby": ("suspended", 1, {"busy_check": 1, "stop_token": 1, "lease": 0}),
    "suspended": ("suspended", 0, {"busy_check": 0, "stop_token": 0, "lease": 0}),
    "grace": ("grace", 0, {"busy_check": 1, "stop_token": 1, "lease": 1}),
    "less-safe": ("on", 0, {"busy_check": 1, "stop_token": 0, "lease": 1}),
}


def told(cluster: str, when: float) -> Iterator[str]:
    """Write what an exporter in such a state says of itself."""
    state, standby, safeguards = STATES[cluster]
    own = "hub_idle_exporter_"
    samples = {
        ("up", ""): 1,
        ("jupyterhub_up", ""): 1,
        (f"{own}build_info", ',version="1"'): 1,
        (f"{own}poll_interval_seconds", ""): 60,
        (f"{own}last_poll_success_timestamp_seconds", ""): when - 10,
        (f"{own}standby", ""): standby,
        (f"{own}busy_check", ""): safeguards["busy_check"],
        **{
            (f"{own}enforcement", f',state="{each}"'): int(each == state)
            for each in ("off", "grace", "suspended", "on")
        },
        **{
            (f"{own}safeguard", f',safeguard="{name}"'): value for name, value in safeguards.items()
        },
    }
    target = f'job="hub-idle-exporter",instance="hub:9899",cluster="{cluster}",hub="h"'
    for (name, labels), value in samples.items():
        yield f"{name}{{{target}{labels}}} {value} {when:.0f}\n"


@dataclass
class Dashboard:
    """The dashboard over those histories; `end` is their last moment."""

    prometheus: PrometheusServer
    end: float
    board: dict[str, Any]

    def answers(self, title: str, cost: str = "", **chosen: str) -> list[dict[str, Any]]:
        """Give all series that the queries of a panel find at the end."""
        return [
            series | {"legend": target["legendFormat"]}
            for target in self._panel(title)["targets"]
            for series in self.prometheus.instant(
                dashboard_checks.expanded(target["expr"], "30m", cost, **chosen), self.end
            )
        ]

    def numbers(self, title: str, cost: str = "", **chosen: str) -> dict[str, float]:
        """Give legend → number."""
        found = self.answers(title, cost, **chosen)
        return {series["legend"]: float(series["value"][1]) for series in found}

    def table(self, title: str, key: str = "name", **chosen: str) -> dict[str, dict[str, Any]]:
        """Give the rows of a table: key → column → what is shown."""
        rows: dict[str, dict[str, Any]] = {}
        for series in self.answers(title, **chosen):
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
    folder, end = tmp_path_factory.mktemp("answers"), float(int(time.time()))
    with (folder / "history.om").open("w") as output:
        for cluster in STATES:
            output.writelines(told(cluster, end))
        output.writelines(history.history(end, HUBS, LENGTH))
    create = [promtool, "tsdb", "create-blocks-from", "openmetrics", "-q", "history.om", "data"]
    subprocess.run(create, cwd=folder, check=True, capture_output=True)
    board = json.loads((REPO / DASHBOARD).read_text())
    with PrometheusServer(program, folder, {}) as prometheus:
        yield Dashboard(prometheus, end, board)


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
    ],
)
def test_first_table_says_whether_it_works(
    dashboard: Dashboard, cluster: str, words: tuple[str, ...]
) -> None:
    row = dashboard.table("Hubs: does it work?")[f"{cluster} / h / hub:9899"]
    assert tuple(row[column] for column in WORDS) == words


def test_each_exporter_has_a_row_though_job_and_instance_are_the_same(dashboard: Dashboard) -> None:
    rows = dashboard.table("Hubs: does it work?")
    names = {f"{of.extra['cluster']} / h / hub:9899" if of.extra else of.instance for of in HUBS}
    assert rows.keys() == names | {f"{cluster} / h / hub:9899" for cluster in STATES}
    chosen = dashboard.table("Hubs: does it work?", cluster="healthy|nobody")
    assert chosen.keys() == {"healthy / h / hub:9899", "nobody / h / hub:9899"}


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
    rows = dashboard.table("Hubs: does it work?").values()
    for title, column in (("Idle now", "Idle"), ("Would stop now", "Would stop")):
        (shown,) = dashboard.numbers(title).values()
        assert shown == sum(row[column] for row in rows if row[column] != UNKNOWN) > 0


def test_hub_without_servers_shows_zeros(dashboard: Dashboard) -> None:
    for title in (*NOW, "Computing, spared", "Idle cost, range", "Idle cost, a month"):
        assert list(dashboard.numbers(title, cluster="nobody").values()) == [0]


def test_computing_servers_are_unknown_where_nobody_asks(dashboard: Dashboard) -> None:
    assert dashboard.numbers("Computing, spared", cluster="healthy") != {}
    for cluster in ("monitoring", "not-asking"):
        assert dashboard.answers("Computing, spared", cluster=cluster) == []


@pytest.mark.parametrize(("typed", "price"), [("0.12", 0.12), ("12", 12), ("012", 12), (".5", 0.5)])
def test_price_turns_server_hours_into_money(
    dashboard: Dashboard, typed: str, price: float
) -> None:
    for title in ("Idle cost, range", "Idle cost, a month"):
        hours = dashboard.numbers(title)["server-hours"]
        assert hours > 0
        assert dashboard.numbers(title, typed) == {"money": pytest.approx(hours * price)}


@pytest.mark.parametrize("typed", ["", "0", "much", "0,12", "1 000", "-1", 'a"b', "$1"])
def test_without_a_price_there_is_no_money_and_no_error(dashboard: Dashboard, typed: str) -> None:
    for title in ("Idle cost, range", "Idle cost, a month"):
        assert dashboard.numbers(title, typed).keys() == {"server-hours"}
    found = dashboard.answers("What a limit would have given back", typed)
    assert {series["metric"]["column"] for series in found} == {"Would stop now", "Server-hours"}


def test_problem_is_counted_once(dashboard: Dashboard) -> None:
    found = dashboard.numbers("Problems, one by one")
    assert {name: count for name, count in found.items() if count} == {
        "exporter down": 1,
        "exporter gone": 1,
        "Hub not read": 1,
        "data stale": 1,
        "servers not asked": 1,
        "suspended": 1,
        "less protection": 1,
        "policy file broken": 1,
    }


def test_own_count_is_compared_with_that_of_the_same_hub_alone(dashboard: Dashboard) -> None:
    """One series of each kind for each Hub: without labels only where there is but one of both."""
    found = dashboard.answers("The Hub's own count beside the true one", cluster="healthy|nobody")
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
