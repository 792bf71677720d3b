"""The dashboard as files: what its generator says, the linter's rules, every name and query."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dashboard_checks
import planted_faults
import promql_checks
import pytest
import rules_checks
from planted_faults import DASHBOARD, RULES, Fault

from hub_idle_exporter.domain import census

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def vocabulary() -> promql_checks.Vocabulary:
    """What the exporter has; skips, or fails in CI, where PromQL cannot be parsed."""
    return promql_checks.vocabulary_or_skip()


def generated_differs(directory: Path) -> str:
    """Run the generator's check; give what it says."""
    finished = subprocess.run(
        [sys.executable, directory / "grafana" / "dashboard.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode in (0, 1), finished.stderr
    assert bool(finished.returncode) == bool(finished.stderr)
    return finished.stderr


def test_dashboard_is_what_its_generator_says() -> None:
    assert generated_differs(REPO) == ""


def test_dashboard_has_no_fault(vocabulary: promql_checks.Vocabulary) -> None:
    board = json.loads((REPO / DASHBOARD).read_text())
    assert dashboard_checks.faults(board, vocabulary) == []


def test_dashboard_opens_on_what_people_ask_first() -> None:
    board = json.loads((REPO / DASHBOARD).read_text())
    assert [panel["title"] for panel in board["panels"]] == [
        "Hubs: does it work?",
        "Idle now",
        "In use now",
        "Would stop now",
        "Idle cost, range",
        "Idle cost per month",
        "Computing, spared",
        "Servers by state",
        "What a limit would have given back",
        "Idle servers by policy",
        "Limits and policies",
        "Idle times and ages",
        "Culls",
        "Second opinion",
        "Keeps and notices",
        "Idle users",
        "Cost of idle servers",
        "The exporter itself",
    ]


def test_panel_too_many_is_caught(vocabulary: promql_checks.Vocabulary) -> None:
    board = json.loads((REPO / DASHBOARD).read_text())
    row = board["panels"][-1]
    panel = row["panels"].pop()
    panel["gridPos"]["y"] = 1000
    board["panels"].append(panel)
    assert dashboard_checks.faults(board, vocabulary) == [
        "dashboard: 11 panels are open, more than 10"
    ]


def test_limits_are_those_that_the_exporter_counts() -> None:
    by_title = {
        panel["title"]: panel
        for panel in dashboard_checks.panels(json.loads((REPO / DASHBOARD).read_text()))
    }
    past = by_title["Servers past each limit"]["targets"]
    asked = [re.findall(r'limit="(\d+)"', target["expr"]) for target in past]
    assert asked == [[str(limit)] for limit in census.LIMITS]
    (names,) = [
        one["value"][0]["options"]
        for override in by_title["What a limit would have given back"]["fieldConfig"]["overrides"]
        for one in override["properties"]
        if override["matcher"]["options"] == "Limit" and one["id"] == "mappings"
    ]
    texts = {int(limit): name["text"] for limit, name in names.items()}
    assert texts == {
        limit: target["legendFormat"] for limit, target in zip(census.LIMITS, past, strict=True)
    }


def test_each_verdict_on_users_is_explained(vocabulary: promql_checks.Vocabulary) -> None:
    board = json.loads((REPO / DASHBOARD).read_text())
    titled = {panel["title"]: panel for panel in dashboard_checks.panels(board)}
    said = re.findall(r"\w+", titled["Idle users, by verdict"]["description"])
    assert vocabulary.labels["jupyterhub_idle_users"]["verdict"] <= set(said)


def test_classes_of_idle_time_cover_every_server(vocabulary: promql_checks.Vocabulary) -> None:
    """Neighbouring classes share a bound, the first begins at 0 and the last has no end."""
    board = json.loads((REPO / DASHBOARD).read_text())
    for title in ("Idle times, now", "Ages, now"):
        (panel,) = [panel for panel in dashboard_checks.panels(board) if panel["title"] == title]
        bounds = [
            [
                promql_checks.matchers(selector)["le"][1]
                for selector, _ in promql_checks.selectors(promql_checks.parsed(target["expr"]))
                if selector.name.endswith("_bucket")
            ]
            for target in panel["targets"]
        ]
        assert len(bounds[0]) == 1
        assert [lower for _, lower in bounds[1:]] == [pair[0] for pair in bounds[:-1]]
        assert bounds[-1][0] == "+Inf"


@pytest.mark.slow("faults planted in the dashboard")
@pytest.mark.parametrize("fault", planted_faults.IN_DASHBOARD, ids=lambda fault: fault.name)
def test_planted_fault_is_caught(
    fault: Fault, vocabulary: promql_checks.Vocabulary, tmp_path: Path
) -> None:
    shutil.copytree(REPO / "grafana", tmp_path / "grafana")
    planted = tmp_path / fault.file
    planted.write_text(fault.planted(planted.read_text()))
    said = dashboard_checks.faults(json.loads(planted.read_text()), vocabulary)
    if fault.caught == "differs from":
        said.append(generated_differs(tmp_path))
    assert any(fault.caught in line for line in said), said


def test_documentation_names_every_panel_and_row() -> None:
    text = (REPO / "docs" / "dashboards.md").read_text()
    named = re.findall(r"^\| (?:\*\*)?([^|*]+?)(?:\*\*)? \|", text, re.MULTILINE)
    board = json.loads((REPO / DASHBOARD).read_text())
    titles = [panel["title"] for panel in dashboard_checks.everything(board)]
    table = named[named.index("panel") + 1 : named.index("column")]
    assert table == titles


def test_documentation_names_no_panel_that_is_not_there() -> None:
    """In a paragraph on the dashboard, what begins with a capital in italics is its title."""
    board = json.loads((REPO / DASHBOARD).read_text())
    titles = {panel["title"] for panel in dashboard_checks.panels(board)}
    titles |= {row["title"] for row in board["panels"]}
    titles |= {one.get("label") for one in board["templating"]["list"]}
    others = {"Dashboards → New → Import"}
    unknown = {
        f"{page.name}: {name}"
        for page in (REPO / "docs").rglob("*.md")
        for paragraph in page.read_text().split("\n\n")
        if "dashboard" in paragraph.lower()
        for name in re.findall(
            r"(?<![*\w])\*([A-Z][^*]{2,60})\*(?!\*)", " ".join(paragraph.split())
        )
        if name not in titles | others
    }
    assert not unknown


def test_documentation_explains_what_the_first_table_says() -> None:
    """All words but those for what is well."""
    text = (REPO / "docs" / "dashboards.md").read_text()
    board = json.loads((REPO / DASHBOARD).read_text())
    said = set(re.findall(r"^\| \w* ?\| ([\w, ]+) \| ", text, re.MULTILINE))
    for override in board["panels"][0]["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] in ("Exporter", "Hub", "Culling"):
            (words,) = [one["value"] for one in override["properties"] if one["id"] == "mappings"]
            texts = {word["text"] for word in words[0]["options"].values()}
            assert texts - {"up", "read", "on"} <= said


def test_documentation_names_every_alert_with_its_severity() -> None:
    text = (REPO / "docs" / "dashboards.md").read_text()
    alerts = re.findall(r"^\| (HubIdle\w+) \| (\w+) \|", text, re.MULTILINE)
    rules = rules_checks.rules((REPO / RULES).read_text())
    assert alerts == [
        (rule["alert"], rule["labels"]["severity"]) for rule in rules if "alert" in rule
    ]


def test_mixin_has_the_same_dashboard_and_rules() -> None:
    jsonnet = promql_checks.module_or_skip("_jsonnet", "jsonnet")
    snippet = (
        "local m = (import 'prometheus/mixin.libsonnet')"
        " + {_config+:: {runbookBase: 'https://example.org/'}};"
        "{dashboards: m.grafanaDashboards, rules: m.prometheusRules, alerts: m.prometheusAlerts}"
    )
    made = json.loads(jsonnet.evaluate_snippet("test", snippet, jpathdir=[str(REPO)]))
    assert made["dashboards"] == {"idle-servers.json": json.loads((REPO / DASHBOARD).read_text())}
    groups = made["rules"]["groups"] + made["alerts"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    originals = rules_checks.rules((REPO / RULES).read_text())
    assert [rule["expr"] for rule in rules] == [rule["expr"] for rule in originals]
    runbooks = [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]
    assert all(url.startswith("https://example.org/docs/runbooks/") for url in runbooks)
