"""A real Prometheus scrapes the real exporter while it culls on a real Hub.

Every query of the dashboard and of the rules is asked and has to find data, and what the panels
show has to be what the Hub and the exporter's log say.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dashboard_checks
import promql_checks
import pytest
import rules_checks
from conftest import cleaned, tool_or_skip
from exporter_process import Exporter
from fake_hub import Jupyter
from planted_faults import DASHBOARD, RULES
from prometheus_process import PrometheusServer, Scraped
from real_hub import RealHub

from hub_idle_exporter.demo.launch import free_ports

REPO = Path(__file__).resolve().parents[2]
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
POLICIES = """
policies:
  - {name: staff, match: {groups: [watched-staff]}, exempt: true}
  - {name: gpu, match: {user_options: {profile: "gpu-*"}}, timeout: 2h, max_age: 1d}
"""
POLICY_OF = {"eve": "staff", "fay": "gpu", "gil": "gpu"}
LIMIT_OF = {"staff": HOUR, "gpu": 2 * HOUR, "default": HOUR}
LIMITS = {"15 min": 15, "30 min": 30, "1 h": 60, "2 h": 120, "4 h": 240, "8 h": 480, "1 d": 1440}


@dataclass(frozen=True)
class Seen:
    """What the Hub says of one server; idle time and age in seconds."""

    policy: str
    pending: bool
    idle: float
    age: float

    @property
    def state(self) -> str:
        if self.pending:
            return "pending"
        return "idle" if self.idle >= LIMIT_OF[self.policy] else "active"


@dataclass
class Run:
    """A run with culling, as Prometheus, the Hub and the log have it.

    `before` and `after` are moments, since 1970, before the first cull and after the last.
    """

    prometheus: PrometheusServer
    start: float
    before: float
    after: float
    servers_before: list[Seen]
    servers_after: list[Seen]
    log: list[dict[str, str]]

    def expand(self, expression: str) -> str:
        """Put values where Grafana does: everything chosen, the run as the range.

        The run lasts seconds: where the dashboard samples its range every minute, here it is
        every second.
        """
        expression = expression.replace("[$__range:1m]) / 60", "[$__range:1s]) / 3600")
        values = {
            "__range": f"{math.ceil(self.after - self.start)}s",
            "__rate_interval": "10s",
            **dict.fromkeys(("job", "instance", "hub_job"), ".+"),
        }
        return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)

    def panel(self, title: str, at: float | None = None) -> dict[str, float]:
        """Give what a panel shows at a moment: legend → value."""
        shown = {}
        for target in panel_of(title)["targets"]:
            for series in self.prometheus.instant(self.expand(target["expr"]), at or self.after):
                legend = re.sub(
                    r"\{\{(\w+)\}\}",
                    lambda found, of=series: of["metric"][found[1]],  # type: ignore[misc]
                    target["legendFormat"],
                )
                shown[legend] = float(series["value"][1])
        return shown

    def number(self, title: str, at: float | None = None) -> float:
        """Give the one number of a panel."""
        (value,) = self.panel(title, at).values()
        return value

    def gained(self, counter: str) -> float:
        """Give what a counter gained between its first scrape and its last."""
        samples = numbers(self.prometheus.over(counter, self.start, self.after))
        return samples[-1] - samples[0]

    def logged(self, event: str, *keys: str) -> Counter[tuple[str, ...]]:
        """Count a log's events by some of their fields."""
        found = [line for line in self.log if line.get("event") == event]
        return Counter(tuple(line[key] for key in keys) for line in found)


def board() -> dict[str, Any]:
    """Read the dashboard."""
    found: dict[str, Any] = json.loads((REPO / DASHBOARD).read_text())
    return found


def panel_of(title: str) -> dict[str, Any]:
    """Find a panel."""
    (panel,) = [one for one in dashboard_checks.panels(board()) if one["title"] == title]
    return panel


def people(hub: RealHub) -> None:
    """Fill a Hub: somebody for each thing that can come of a server."""
    hub.add_users(["eve"], group="watched-staff")
    idle = {
        "ana": 30,
        "bo": 125,
        "dan": 190,
        "eve": 550,
        "fay": 90,
        "gil": 10,
        "hal": 130,
        "jo": 70,
    }
    options: dict[str, dict[str, Any]] = {
        "fay": {"profile": "gpu-a"},
        "gil": {"profile": "gpu-b"},
        "hal": {"stop_fails": True},
    }
    for name, minutes in idle.items():
        hub.start_server(name, user_options=options.get(name))
        hub.backdate(name, idle=minutes * MINUTE, age=minutes * MINUTE + 600)
    hub.start_server("cy", "thesis")
    hub.backdate("cy", "thesis", idle=5 * HOUR, age=3 * DAY)
    hub.backdate("gil", age=2 * DAY)
    hub.start_server("ida", user_options={"start_until": "/nowhere/never"}, wait=None)
    busy, active = Jupyter(), Jupyter(last_activity=time.time())
    busy.add_kernel("busy")
    hub.paper.at |= {"/user/dan/": busy, "/user/jo/": active}


def seen(hub: RealHub) -> list[Seen]:
    """Ask the Hub what runs."""

    def since(text: str | None) -> float:
        if text is None:
            return 0.0
        return time.time() - time_of(text)

    return [
        Seen(
            POLICY_OF.get(user, "default"),
            not server["ready"] or bool(server["pending"]),
            since(server["last_activity"] or server["started"]),
            since(server["started"]),
        )
        for (user, _), server in hub.servers().items()
    ]


def time_of(text: str) -> float:
    """Read a time of the Hub's."""
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture(scope="module")
def run(paper_hub: RealHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Let the exporter cull once, with Prometheus looking on."""
    program = tool_or_skip("prometheus")
    folder = tmp_path_factory.mktemp("observed")
    hub = cleaned(paper_hub)  # other files may have left servers, and faults that were planned
    people(hub)
    (folder / "policies.yaml").write_text(POLICIES)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    jobs = {
        "idle": Scraped(address),
        "hub": Scraped(f"127.0.0.1:{hub.ports.hub}", "/hub/metrics", hub.admin_token),
    }
    start = time.time()
    options = (
        *("--enforce", "--interval=2s", "--grace=10s", f"--policy-file={folder}/policies.yaml"),
        f"--web.listen-address={address}",
    )
    with (
        PrometheusServer(program, folder / "prometheus", jobs, REPO / RULES) as prometheus,
        Exporter(hub.url, hub.token, options, directory=folder) as exporter,
    ):
        yield observed(start, hub, prometheus, exporter)
    cleaned(hub)


def observed(start: float, hub: RealHub, prometheus: PrometheusServer, exporter: Exporter) -> Run:
    """Wait for all that is to happen, and a little longer."""

    def scraped(expression: str) -> Callable[[], bool]:
        return lambda: bool(prometheus.instant(expression, time.time()))

    in_grace = (
        'sum(jupyterhub_servers) > 0 and on () hub_idle_exporter_enforcement{state="grace"} == 1'
    )
    prometheus.wait(scraped(in_grace), 30, "scraped in grace")
    before, servers_before = time.time(), seen(hub)
    exporter.wait_event("culled", count=3, timeout=60)
    exporter.wait_event("cull_failed", timeout=60)
    for cause in ("busy", "active_again"):
        exporter.wait_event("cull_withheld", cause=cause, count=3)
    # A poll later the facts are those after the culls; the counters have long been scraped.
    exporter.wait_polls(2)
    prometheus.wait(scraped("sum(hub_idle_exporter_culls_total) == 3"), 10, "culls scraped")
    prometheus.wait(scraped("sum(jupyterhub_servers) == 6"), 10, "servers scraped")
    # One scrape more, so that gauges and counters are of the same moment.
    polls = exporter.metrics().value("hub_idle_exporter_polls_total")
    prometheus.wait(scraped(f"hub_idle_exporter_polls_total > {polls}"), 10, "scraped again")
    return Run(
        prometheus,
        start,
        before,
        time.time(),
        servers_before,
        seen(hub),
        exporter.events(),
    )


def numbers(answer: list[dict[str, Any]]) -> list[float]:
    """Give all numbers of an answer."""
    values = [value for series in answer for value in series.get("values") or [series["value"]]]
    return [float(value) for _, value in values]


# -- every query finds data


def test_every_query_of_panels_and_annotations_finds_data(run: Run) -> None:
    """None may be empty here, and none may be NaN all along."""
    empty = []
    for panel in dashboard_checks.panels(board()):
        for target in panel["targets"]:
            expression = run.expand(target["expr"])
            if target["instant"]:
                answer = run.prometheus.instant(expression, run.after)
            else:
                answer = run.prometheus.over(expression, run.start, run.after)
            if all(math.isnan(value) for value in numbers(answer)):
                empty.append(f"{panel['title']} {target['refId']}: {expression}")
    for annotation in board()["annotations"]["list"]:
        expression = run.expand(annotation["target"]["expr"])
        if not run.prometheus.over(expression, run.start, run.after):
            empty.append(f"{annotation['name']}: {expression}")
    assert empty == []


def test_every_query_works_with_one_exporter_chosen(run: Run) -> None:
    r"""Grafana escapes what is chosen: `127\\.0\\.0\\.1:9899`."""
    (series,) = run.prometheus.instant("hub_idle_exporter_build_info", run.after)
    instance = series["metric"]["instance"].replace(".", "\\\\.")
    query = panel_of("Idle servers")["targets"][0]["expr"]
    chosen = query.replace("$instance", f"({instance})").replace("$job", "idle")
    assert numbers(run.prometheus.instant(chosen, run.after)) == [run.number("Idle servers")]


def test_every_variable_has_values(run: Run) -> None:
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = dashboard_checks.label_values(variable)
            match = {"match[]": run.expand(selector)}
            values = run.prometheus.get(f"label/{label}/values", **match)
            assert values, variable["name"]


def test_every_recording_rule_has_data_and_every_rule_is_healthy(run: Run) -> None:
    groups = run.prometheus.get("rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    unwell = [(rule["name"], rule["lastError"]) for rule in evaluated if rule["health"] != "ok"]
    assert unwell == []
    for rule in rules_checks.rules((REPO / RULES).read_text()):
        if "record" in rule:
            assert run.prometheus.instant(rule["record"], run.after), rule["record"]


def test_every_series_that_an_alert_asks_for_is_there(run: Run) -> None:
    """An alert that is silent finds nothing; what it compares is there all the same."""
    promql_checks.module_or_skip("promql_parser", "promql-parser")
    for rule in rules_checks.rules((REPO / RULES).read_text()):
        if "alert" in rule:
            for selector, _ in promql_checks.selectors(promql_checks.parsed(rule["expr"])):
                assert run.prometheus.instant(str(selector), run.after), (rule["alert"], selector)


def test_alerts_fire_for_what_happened_and_nothing_else(run: Run) -> None:
    firing = run.prometheus.instant('ALERTS{alertstate="firing"}', run.after)
    names = [series["metric"]["alertname"] for series in firing]
    assert names == ["HubIdleServersNotStopping"]


# -- panels show what the Hub says


@pytest.mark.parametrize("moment", ["before", "after"])
def test_counts_of_servers_are_the_hubs(run: Run, moment: str) -> None:
    at, servers = getattr(run, moment), getattr(run, f"servers_{moment}")
    states = Counter(one.state for one in servers)
    assert run.number("Idle servers", at) == states["idle"]
    assert run.number("Active servers", at) == states["active"]
    assert run.number("Pending servers", at) == states["pending"] == 1
    assert run.number("Idle share", at) == pytest.approx(states["idle"] / len(servers))
    assert run.panel("Servers by state", at) == states
    by_policy = Counter(one.policy for one in servers)
    assert run.panel("Servers by policy", at) == {name: by_policy[name] for name in LIMIT_OF}
    counts = run.panel("The Hub's own count beside the true one", at)
    assert counts["listed by the Hub"] == len(servers)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_limit_would_do_is_what_the_hub_says(run: Run, moment: str) -> None:
    at, servers = getattr(run, moment), getattr(run, f"servers_{moment}")
    ready = [one.idle for one in servers if not one.pending]
    expected = {name: sum(idle > m * MINUTE for idle in ready) for name, m in LIMITS.items()}
    assert run.panel("Servers past each limit, now", at) == expected
    assert expected["15 min"] > expected["1 h"] > expected["8 h"] > expected["1 d"] == 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_spreads_of_idle_times_and_ages_are_the_hubs(run: Run, moment: str) -> None:
    at, servers = getattr(run, moment), getattr(run, f"servers_{moment}")
    ready = [one for one in servers if not one.pending]
    idle = run.panel("Idle times, now", at)
    assert sum(idle.values()) == len(ready)
    assert idle["8-24 h"] == sum(8 * HOUR < one.idle <= DAY for one in ready) == 1
    assert idle["1-2 h"] == sum(HOUR < one.idle <= 2 * HOUR for one in ready)
    ages = run.panel("Ages, now", at)
    assert sum(ages.values()) == len(ready)
    assert ages["2-7 d"] == sum(2 * DAY < one.age <= 7 * DAY for one in ready)
    assert ages["2-4 h"] == sum(2 * HOUR < one.age <= 4 * HOUR for one in ready)


def test_policies_are_those_of_the_file_and_the_servers_under_each(run: Run) -> None:
    (target,) = panel_of("Policies")["targets"]
    answer = run.prometheus.instant(run.expand(target["expr"]), run.before)
    table = {
        (one["metric"]["policy"], one["metric"]["column"]): float(one["value"][1]) for one in answer
    }
    assert {policy for policy, _ in table} == set(LIMIT_OF)
    for policy, limit in LIMIT_OF.items():
        assert table[policy, "Idle limit"] == limit
        assert table[policy, "Maximum age"] == (DAY if policy == "gpu" else 0)
        states = Counter(one.state for one in run.servers_before if one.policy == policy)
        for column, state in (("Active", "active"), ("Idle", "idle"), ("Pending", "pending")):
            assert table[policy, column] == states[state], (policy, column)
    would_stop = {policy: table[policy, "Would stop now"] for policy in LIMIT_OF}
    assert would_stop == {"default": 5, "gpu": 1, "staff": 0}
    assert run.number("Would stop now", run.before) == 6


# -- panels show what the log says


def test_culls_are_those_of_the_log(run: Run) -> None:
    logged = run.logged("culled", "policy", "reason")
    assert logged == {("default", "idle"): 2, ("gpu", "max_age"): 1}
    assert round(run.number("Culled")) == 3
    shown = run.panel("Culled, by policy and reason")
    assert {name: round(value) for name, value in shown.items() if value} == {
        f"{policy}: {reason}": count for (policy, reason), count in logged.items()
    }
    assert run.panel("How long a stop takes").keys() == {"half within", "95 % within"}


def test_failures_are_those_of_the_log(run: Run) -> None:
    assert run.logged("cull_failed", "cause") == {("not_stopped",): 1}
    assert round(run.number("Failed culls")) == 1
    shown = {name: round(value) for name, value in run.panel("Failed, by cause").items() if value}
    assert shown == {"not_stopped": 1}


def test_spared_ones_are_those_of_the_log(run: Run) -> None:
    """Two are spared at each poll since culling is on, so the average over all polls is less."""
    shown = {name: value for name, value in run.panel("Spared, by cause").items() if value}
    logged = run.logged("cull_withheld", "cause")
    assert shown.keys() == {cause for (cause,) in logged} == {"busy", "active_again"}
    polls = run.gained("hub_idle_exporter_polls_total")
    for (cause,), count in logged.items():
        scraped = run.gained(f'hub_idle_exporter_culls_withheld_total{{cause="{cause}"}}')
        # Over so short a run the two increases reach differently far beyond their samples.
        assert shown[cause] == pytest.approx(scraped / polls, rel=0.25)
        assert 0 <= count - scraped <= 2  # the log goes on while the last scrape is asked for
    asked = run.panel("Servers asked, by answer")
    assert {answer for answer, value in asked.items() if value} == {"idle", "busy", "active"}


def test_idle_server_hours_are_the_exporters(run: Run) -> None:
    """What the counter gained, but that increase() goes on to the edges of its window."""
    hours = run.gained("sum(hub_idle_exporter_idle_server_seconds_total)") / 3600
    assert hours > 0
    assert run.number("Idle server-hours") == pytest.approx(hours, rel=0.25)
    assert sum(run.panel("Idle server-hours by policy").values()) == pytest.approx(hours, rel=0.25)
    assert 0.2 < run.number("Idle part of all server-hours") < 1


def test_health_is_told(run: Run) -> None:
    expected = {
        "exporter down": 0,
        "no exporter": 0,
        "Hub not read": 0,
        "data stale": 0,
        "suspended": 0,
        "less protection": 0,
        "culls failed": 1,
    }
    assert run.panel("Problems, one by one") == expected
    assert run.number("Problems") == 1
    assert run.panel("Culling", run.before) == {"grace": 1}
    assert run.panel("Culling") == {"on": 1}


def test_safeguards_are_told(run: Run) -> None:
    (target,) = panel_of("What protects people")["targets"]
    answer = run.prometheus.instant(run.expand(target["expr"]), run.after)
    shown = {one["metric"]["safeguard"]: float(one["value"][1]) for one in answer}
    assert shown == {"busy_check": 1, "stop_token": 1, "lease": 1}
