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
from exporter_process import Exporter, Metrics
from fake_hub import Jupyter
from page_readings import text_of_source
from planted_faults import DASHBOARD, RULES
from prometheus_process import PrometheusServer, Scraped
from real_hub import ENFORCE, RealHub

from hub_idle_exporter.demo.launch import free_ports
from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.people.state_file import StateFile

pytestmark = pytest.mark.slow("a Prometheus that scrapes an exporter on a real Hub")

REPO = Path(__file__).resolve().parents[2]
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SCOPES = (*ENFORCE, "admin:users")
POLICIES = """
policies:
  - {name: staff, match: {groups: [watched-staff]}, exempt: true}
  - {name: gpu, match: {user_options: {profile: "gpu-*"}}, timeout: 2h, max_age: 1d}
"""
POLICY_OF = {"eve": "staff", "fay": "gpu", "gil": "gpu"}
LIMIT_OF = {"staff": HOUR, "gpu": 2 * HOUR, "default": HOUR}
# As the dashboard names them; exempt ones are told apart.
NAME_OF = {"staff": "staff (exempt)", "gpu": "gpu", "default": "default"}
ON, GRACE = 1, 2  # as the column Culling has them
# The query needs a scrape of what it asks for: so the first polls spare everybody, in grace.
NOBODY_WORKS = "0 * max by (user, server) (jupyterhub_server_started_timestamp_seconds)"
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

    @property
    def is_candidate(self) -> bool:
        if self.pending or self.policy == "staff":
            return False
        return self.state == "idle" or (self.policy == "gpu" and self.age >= DAY)


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
    metrics: Metrics
    page: str

    def expand(self, expression: str) -> str:
        """Put values where Grafana does: everything chosen, the run as the range.

        The run lasts seconds: where the dashboard samples its range every minute, here it is
        every second.
        """
        expression = expression.replace("[$__range:1m]) / 60", "[$__range:1s]) / 3600")
        expression = expression.replace("[$__range:1m]", "[$__range:1s]")
        expression = expression.replace("[1h:1m]", "[2m:1s]")
        window = f"{math.ceil(self.after - self.start)}s"
        return dashboard_checks.expanded(expression, window, "0.12")

    def panel(self, title: str, at: float | None = None) -> dict[str, float]:
        """Give what a panel shows at a moment: legend → value."""
        shown = {}
        for target in panel_of(title)["targets"]:
            for series in self.prometheus.instant(self.expand(target["expr"]), at or self.after):
                legend = re.sub(
                    r"\{\{(\w+)\}\}",
                    lambda found, of=series: of["metric"].get(found[1], ""),  # type: ignore[misc]
                    target["legendFormat"],
                )
                shown[legend.strip()] = float(series["value"][1])
        return shown

    def number(self, title: str, at: float | None = None) -> float:
        """Give the one number of a panel."""
        (value,) = self.panel(title, at).values()
        return value

    def table(self, title: str, key: str, at: float | None = None) -> dict[str, dict[str, float]]:
        """Give the rows of a table: the value of the label `key` → column → number."""
        rows: dict[str, dict[str, float]] = {}
        for target in panel_of(title)["targets"]:
            for series in self.prometheus.instant(self.expand(target["expr"]), at or self.after):
                row = rows.setdefault(series["metric"][key], {})
                row[series["metric"]["column"]] = float(series["value"][1])
        return rows

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
    hub.add_users(["eve", "lee"], group="watched-staff")
    hub.add_users(["kim"])
    hub.age_users(["kim", "lee"], idle=40 * DAY, age=400 * DAY)
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
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@pytest.fixture(scope="module")
def run(paper_hub: RealHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Let the exporter cull once, with Prometheus looking on."""
    program = tool_or_skip("prometheus")
    folder = tmp_path_factory.mktemp("observed")
    hub = cleaned(paper_hub)  # other files may have left servers, and faults that were planned
    people(hub)
    (folder / "policies.yaml").write_text(POLICIES)
    state = folder / "state.sqlite"
    keep("eve", hub, state)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    jobs = {
        "idle": Scraped(address),
        "hub": Scraped(f"127.0.0.1:{hub.ports.hub}", "/hub/metrics", hub.admin_token),
    }
    start = time.time()
    options = (
        *("--enforce", "--interval=2s", "--grace=10s", f"--policy-file={folder}/policies.yaml"),
        *("--cull-users", f"--web.listen-address={address}"),
        *("--notice=1s", f"--state-file={state}"),
        *("--per-server-metrics", f"--spare-query={NOBODY_WORKS}"),
    )
    with (
        PrometheusServer(program, folder / "prometheus", jobs, REPO / RULES) as prometheus,
        Exporter(
            hub.url,
            hub.add_token(SCOPES),
            (*options, f"--prometheus-url={prometheus.url}"),
            directory=folder,
        ) as exporter,
    ):
        yield observed(start, hub, prometheus, exporter)
    cleaned(hub)


def keep(user: str, hub: RealHub, state: Path) -> None:
    """Keep a default server for an hour, as somebody did before the exporter was started anew."""
    started = hub.servers()[user, ""]["started"]
    file = StateFile.opened(state, lambda _seconds: False)
    start = (user, "", datetime.fromisoformat(started.replace("Z", "+00:00")))
    file.save_keep(start, Keep(time.time() + HOUR, user))
    file.close()


def observed(start: float, hub: RealHub, prometheus: PrometheusServer, exporter: Exporter) -> Run:
    """Wait for all that is to happen, and a little longer."""

    def scraped(expression: str) -> Callable[[], bool]:
        return lambda: bool(prometheus.instant(expression, time.time()))

    in_grace = (
        'sum(jupyterhub_servers) > 0 and on () hub_idle_exporter_enforcement{state="grace"} == 1'
        " and on () jupyterhub_running_servers"
        " and on () sum(jupyterhub_cull_candidates_spared) == 0"
    )
    prometheus.wait(scraped(in_grace), 30, "scraped in grace")
    before, servers_before = time.time(), seen(hub)
    exporter.wait_event("culled", count=3, timeout=60)
    exporter.wait_event("cull_failed", timeout=60)
    exporter.wait_event("user_deleted", user="kim")
    for cause in ("busy", "active_again"):
        exporter.wait_event("cull_withheld", cause=cause, count=3)
    # A poll later the facts are those after the culls; the counters have long been scraped.
    exporter.wait_polls(2)
    prometheus.wait(scraped("sum(hub_idle_exporter_culls_total) == 3"), 10, "culls scraped")
    prometheus.wait(scraped("sum(jupyterhub_servers) == 6"), 10, "servers scraped")
    # One scrape more, so that gauges and counters are of the same moment.
    polls = exporter.metrics().value("hub_idle_exporter_polls_total")
    prometheus.wait(scraped(f"hub_idle_exporter_polls_total > {polls}"), 10, "scraped again")
    after, metrics = settled(prometheus, exporter)
    return Run(
        prometheus,
        start,
        before,
        after,
        servers_before,
        seen(hub),
        exporter.events(),
        metrics,
        page_between_passes(hub, exporter),
    )


def page_between_passes(hub: RealHub, exporter: Exporter) -> str:
    """Give the page of a moment without a culling pass under way, when its last one is whole."""
    pages = list[str]()

    def of_one_moment() -> bool:
        before = exporter.metrics()
        pages.append(text_of_source(exporter.get("/").text))
        after = exporter.metrics()
        under_way = "hub_idle_exporter_last_pass_candidates"
        if any(one.value(under_way, outcome="under_way") for one in (before, after)):
            return False
        asked = "hub_idle_exporter_busy_checks_total"  # a whole pass in between asks somebody
        return before.by("result", asked) == after.by("result", asked)

    hub.wait(of_one_moment, 30, "between two passes")
    return pages[-1]


def settled(prometheus: PrometheusServer, exporter: Exporter) -> tuple[float, Metrics]:
    """Wait for a moment without a culling pass under way; give it, and /metrics in one."""
    moments = list[float]()

    def nothing_is_under_way() -> bool:
        moments.append(time.time())
        outcomes = 'hub_idle_exporter_last_pass_candidates{outcome=~"busy|active_again"}'
        return bool(prometheus.instant(f"sum({outcomes}) == 2", moments[-1]))

    prometheus.wait(nothing_is_under_way, 30, "scraped between two passes")
    name = "hub_idle_exporter_last_pass_candidates"
    metrics = exporter.wait_for(lambda found: found.value(name, outcome="under_way") == 0)
    return moments[-1], metrics


def numbers(answer: list[dict[str, Any]]) -> list[float]:
    """Give all numbers of an answer."""
    values = [value for series in answer for value in series.get("values") or [series["value"]]]
    return [float(value) for _, value in values]


# -- every query finds data

# There is a price here.
NONE_HERE = {"Idle cost, range server-hours", "Idle cost per month server-hours"}


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
            where = f"{panel['title']} {target['legendFormat']}"
            if all(math.isnan(value) for value in numbers(answer)) and where not in NONE_HERE:
                empty.append(f"{where}: {expression}")
    for annotation in board()["annotations"]["list"]:
        expression = run.expand(annotation["target"]["expr"])
        if not run.prometheus.over(expression, run.start, run.after):
            empty.append(f"{annotation['name']}: {expression}")
    assert empty == []


def test_every_query_works_with_one_exporter_chosen(run: Run) -> None:
    r"""Grafana escapes what is chosen: `127\\.0\\.0\\.1:9899`."""
    (series,) = run.prometheus.instant("hub_idle_exporter_build_info", run.after)
    instance = series["metric"]["instance"].replace(".", "\\\\.")
    query = panel_of("Idle now")["targets"][0]["expr"]
    chosen = query.replace("$instance", f"({instance})").replace("$job", "idle")
    answer = run.prometheus.instant(run.expand(chosen), run.after)
    assert numbers(answer) == [run.number("Idle now")]


def test_every_variable_has_values(run: Run) -> None:
    for variable in board()["templating"]["list"]:
        # This Prometheus adds no labels cluster and hub.
        if variable["type"] == "query" and variable["name"] not in ("cluster", "hub"):
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
        if "record" in rule and not rules_checks.of_kubernetes(rule):
            assert run.prometheus.instant(rule["record"], run.after), rule["record"]


def test_every_series_that_an_alert_asks_for_is_there(run: Run) -> None:
    """An alert that is silent finds nothing; what it compares is there all the same."""
    promql_checks.module_or_skip("promql_parser", "promql-parser")
    for rule in rules_checks.rules((REPO / RULES).read_text()):
        if "alert" in rule and not rules_checks.of_kubernetes(rule):
            for series in rules_checks.asked_for(rule["expr"]):
                assert run.prometheus.instant(series, run.after), (rule["alert"], series)


def test_alerts_fire_for_what_happened_and_nothing_else(run: Run) -> None:
    firing = run.prometheus.instant('ALERTS{alertstate="firing"}', run.after)
    names = [series["metric"]["alertname"] for series in firing]
    assert names == ["HubIdleServersNotStopping"]


# -- panels show what the Hub says


@pytest.mark.parametrize("moment", ["before", "after"])
def test_counts_of_servers_are_the_hubs(run: Run, moment: str) -> None:
    at, servers = getattr(run, moment), getattr(run, f"servers_{moment}")
    states = Counter(one.state for one in servers)
    assert run.number("Idle now", at) == states["idle"]
    assert run.number("In use now", at) == states["active"]
    assert run.panel("Servers by state", at) == states
    (row,) = run.table("Hubs: does it work?", "name", at).values()
    assert (row["Servers"], row["Idle"]) == (len(servers), states["idle"])
    for title, counted in (
        ("Servers by policy", servers),
        ("Idle servers by policy", [one for one in servers if one.state == "idle"]),
    ):
        by_policy = Counter(one.policy for one in counted)
        assert run.panel(title, at) == {name: by_policy[of] for of, name in NAME_OF.items()}
    counts = run.panel("The Hub's own count and the actual count", at)
    assert counts["listed"] == len(servers)


def over(servers: list[Seen], minutes: float) -> int:
    """Count what a limit would stop.

    Only those under `default` follow `--timeout`; the others are stopped anyway, or never.
    """
    anyway = sum(one.is_candidate for one in servers if one.policy == "gpu")
    ours = [one for one in servers if one.policy == "default" and not one.pending]
    return anyway + sum(one.idle >= minutes * MINUTE for one in ours)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_limit_would_do_is_what_the_hub_says(run: Run, moment: str) -> None:
    at, servers = getattr(run, moment), getattr(run, f"servers_{moment}")
    expected = {str(round(minutes * MINUTE)): over(servers, minutes) for minutes in LIMITS.values()}
    rows = run.table("What a limit would have given back", "limit", at)
    assert {limit: row["Would stop now"] for limit, row in rows.items()} == expected
    assert expected["900"] > expected["3600"] > expected["28800"] >= expected["86400"]


def test_server_hours_and_money_of_a_limit_are_what_was_over_it(run: Run) -> None:
    rows = run.table("What a limit would have given back", "limit")
    assert rows.keys() == {str(round(minutes * MINUTE)) for minutes in LIMITS.values()}
    for limit, row in rows.items():
        over = run.prometheus.over(
            f'jupyterhub_servers_over_limit{{limit="{limit}"}}', run.start, run.after
        )
        assert row["Server-hours"] == pytest.approx(sum(numbers(over)) / 3600, rel=0.1, abs=0.001)
        assert row["Money"] == pytest.approx(row["Server-hours"] * 0.12)


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
    table = run.table("Policies", "policy", run.before)
    assert table.keys() == LIMIT_OF.keys()
    for policy, limit in LIMIT_OF.items():
        row = table[policy]
        assert row["Idle limit"] == limit
        assert row["Maximum age"] == (DAY if policy == "gpu" else 0)
        assert row["Exempt"] == (policy == "staff")
        states = Counter(one.state for one in run.servers_before if one.policy == policy)
        for column, state in (("Active", "active"), ("Idle", "idle"), ("Pending", "pending")):
            assert row[column] == states[state], (policy, column)
    would_stop = {policy: row["Would stop now"] for policy, row in table.items()}
    assert would_stop == {"default": 5, "gpu": 1, "staff": 0}
    assert run.number("Would stop now", run.before) == 6


def test_the_page_shows_the_same_numbers_as_the_dashboard_and_the_hub(run: Run) -> None:
    states = Counter(one.state for one in run.servers_after)
    candidates = sum(one.is_candidate for one in run.servers_after)
    assert candidates == run.number("Would stop now") > 0
    for words in (
        f"Servers {len(run.servers_after)} In use {states['active']} Idle {states['idle']} ",
        f"Would stop now {candidates} ",
        f"Starting or stopping {states['pending']}",
        "a kernel was busy, or a terminal was open 1",
        "1 server may still be running although it was stopped.",
        "Since the start: 3 stopped, 1 failed",
    ):
        assert words in run.page, words
    for words, minutes in LIMITS.items():
        in_force = " (in force)" if minutes == 60 else ""
        expected = over(run.servers_after, minutes)
        assert f" {words}{in_force} {expected} " in run.page, words


def test_the_pages_policies_and_idle_times_are_the_hubs(run: Run) -> None:
    for policy in LIMIT_OF:
        ours = [one for one in run.servers_after if one.policy == policy]
        states, would_stop = Counter(one.state for one in ours), sum(o.is_candidate for o in ours)
        exempt = " exempt" if policy == "staff" else ""
        limits = rf"{policy}{exempt} [\w ]+? (none|[\w ]+?) "
        numbers_of = f"{states['active']} {states['idle']} {would_stop} "
        assert re.search(limits + numbers_of, run.page), policy
    spread = run.page.partition("past the limit of their policy.")[2].partition("Policies:")[0]
    bars = re.findall(r"(?:min|h|d|longer) (\d+)", spread)
    assert sum(map(int, bars)) == sum(not one.pending for one in run.servers_after), spread


# -- panels show what the exporter's own /metrics says


def test_numbers_on_top_are_those_of_the_exporters_metrics(run: Run) -> None:
    """Not by Prometheus: scraped by hand, when everything had happened."""
    metrics = run.metrics
    (row,) = run.table("Hubs: does it work?", "name").values()
    idle = metrics.value("jupyterhub_servers", state="idle")
    candidates = metrics.value("jupyterhub_cull_candidates")
    assert run.number("Idle now") == row["Idle"] == idle
    assert run.number("In use now") == metrics.value("jupyterhub_servers", state="active")
    assert run.number("Would stop now") == row["Would stop"] == candidates
    busy = metrics.value("hub_idle_exporter_last_pass_candidates", outcome="busy")
    assert run.number("Computing, spared") == busy == 1
    assert round(row["Stopped"]) == metrics.value("hub_idle_exporter_culls_total") == 3
    assert round(row["Failed"]) == metrics.value("hub_idle_exporter_cull_failures_total") == 1
    limits = run.table("What a limit would have given back", "limit")
    for limit, of in limits.items():
        shown = metrics.value("jupyterhub_servers_over_limit", limit=limit)
        assert of["Would stop now"] == shown


# -- panels show what the log says


def test_culls_are_those_of_the_log(run: Run) -> None:
    logged = run.logged("culled", "policy", "reason")
    assert logged == {("default", "idle"): 2, ("gpu", "max_age"): 1}
    by_policy = run.panel("Stopped, by policy")
    assert {name: round(value) for name, value in by_policy.items()} == {
        "default": 2,
        "gpu": 1,
        "staff (exempt)": 0,
    }
    by_reason = run.panel("Stopped, by reason")
    assert {name: round(value) for name, value in by_reason.items()} == {"idle": 2, "max_age": 1}
    assert run.panel("How long a stop takes").keys() == {"median", "95th percentile"}


def test_failures_are_those_of_the_log(run: Run) -> None:
    assert run.logged("cull_failed", "cause") == {("not_stopped",): 1}
    shown = {name: round(value) for name, value in run.panel("Failed, by cause").items() if value}
    assert shown == {"not_stopped": 1}


def test_last_pass_is_that_of_the_log(run: Run) -> None:
    """Two are spared at each poll since culling is on, and counted once."""
    shown = run.panel("Last culling pass, by outcome")
    spared = {outcome: count for outcome, count in shown.items() if outcome != "failed"}
    assert spared == {"busy": 1, "active_again": 1}
    causes = run.logged("cull_withheld", "cause").keys()
    assert causes == {("busy",), ("active_again",), ("notice",)}
    asked = run.panel("Servers asked, by answer")
    assert {answer for answer, value in asked.items() if value} == {"idle", "busy", "active"}


def test_what_the_query_says_and_spares_is_told(run: Run) -> None:
    """It says 0 of everybody, once it has been scraped."""
    spared = run.panel("Would stop now, and spared")
    assert spared.pop("would stop") == run.number("Would stop now")
    assert spared == {"spared: in_use": 0, "spared: query_failed": 0}
    answers = run.panel("Answers to the spare query")
    assert answers["ok"] > 0 == answers["failed"]
    rows = run.table("What the query says of each server", "who", run.before)
    assert {"cy/thesis", "dan", "eve"} <= rows.keys()
    assert rows["eve"]["Idle"] == pytest.approx(550 * MINUTE, abs=2 * MINUTE)
    after = run.table("What the query says of each server", "who")
    for row in after.values():
        assert row["Query, now"] == row["Query, highest in 1 h"] == 0


def test_keeps_and_notices_are_those_of_the_state_file_and_the_log(run: Run) -> None:
    """Without a notify file what the page says counts as told."""
    assert run.panel("Kept servers, by policy") == {"staff (exempt)": 1, "gpu": 0, "default": 0}
    policies = run.table("Policies", "policy")
    assert {policy: row["Kept"] for policy, row in policies.items()} == {
        "staff": 1,
        "gpu": 0,
        "default": 0,
    }
    shown = run.panel("Notices, sent and failed")
    announced = run.logged("stop_announced", "user").total()
    assert {name: round(value) for name, value in shown.items() if value} == {
        "due: sent": announced
    }
    assert set(run.panel("Announcements not delivered yet").values()) == {0}


def test_idle_users_are_those_of_the_log_and_of_metrics(run: Run) -> None:
    """One is deleted once culling is on; of the others a policy keeps one."""
    name, shown = "Idle users, by verdict", run.panel("Idle users, by verdict")
    assert (run.panel(name, run.before)["candidate"], shown["candidate"]) == (1, 0)
    told = {
        verdict: run.metrics.value("jupyterhub_idle_users", verdict=verdict) for verdict in shown
    }
    assert shown == told
    assert shown["exempt"] == 1
    assert run.logged("user_deleted", "user") == {("kim",): 1}
    deleted = run.panel("Users deleted, and failures by cause")
    assert round(deleted.pop("deleted")) == 1
    assert set(deleted.values()) == {0}


def test_idle_server_hours_are_the_exporters(run: Run) -> None:
    """What the counter gained, but that increase() goes on to the edges of its window."""
    hours = run.gained("sum(hub_idle_exporter_idle_server_seconds_total)") / 3600
    assert hours > 0
    (row,) = run.table("Hubs: does it work?", "name").values()
    assert row["Idle hours"] == pytest.approx(hours, rel=0.25)
    assert run.number("Idle cost, range") == pytest.approx(row["Idle hours"] * 0.12)
    idle = numbers(
        run.prometheus.over('sum(jupyterhub_servers{state="idle"})', run.start, run.after)
    )
    a_month = sum(idle) / len(idle) * 730 * 0.12
    assert run.number("Idle cost per month") == pytest.approx(a_month, rel=0.1)
    assert sum(run.panel("Idle server-hours by policy").values()) == pytest.approx(hours, rel=0.25)
    assert 0.2 < run.number("Idle share of server-hours") < 1


def test_health_is_told(run: Run) -> None:
    problems = run.panel("Problems, one by one")
    assert {name for name, count in problems.items() if count} == {"still running"}
    up, read = 1, 1
    for moment, culling in ((run.before, GRACE), (run.after, ON)):
        (row,) = run.table("Hubs: does it work?", "name", moment).values()
        assert (row["Exporter"], row["Hub"], row["Asks first"]) == (up, read, 1)
        assert row["Culling"] == culling
        assert row["Data age"] < 10


def test_safeguards_are_told(run: Run) -> None:
    (row,) = run.table("Scopes, safeguards, files", "name").values()
    assert set(row.values()) == {1}
    assert {"busy_check", "stop_token", "lease", "tokens", "policy file"} <= row.keys()
