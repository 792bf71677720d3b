"""The Prometheus rules: promtool's checks and tests, names, runbooks, planted faults."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import planted_faults
import promql_checks
import pytest
import rules_checks
import yaml
from planted_faults import RULES, Fault

REPO = Path(__file__).resolve().parents[2]
TESTS = "prometheus/rules.test.yml"


@pytest.fixture(scope="module")
def vocabulary() -> promql_checks.Vocabulary:
    """What the exporter has; skips, or fails in CI, where PromQL cannot be parsed."""
    return promql_checks.vocabulary_or_skip()


@pytest.fixture
def promtool(require_tool: Callable[[str], str]) -> str:
    """The checker that comes with Prometheus."""
    return require_tool("promtool")


def promtool_says(promtool: str, directory: Path) -> list[str]:
    """Check and test the rules in a directory; give the lines when something is wrong."""
    check = [promtool, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml"]
    lines: list[str] = []
    for command in (check, [promtool, "test", "rules", "rules.test.yml"]):
        finished = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=False
        )
        if finished.returncode:
            lines += (finished.stdout + finished.stderr).splitlines()
    return lines


def test_rules_pass_promtools_checks_and_tests(promtool: str) -> None:
    assert promtool_says(promtool, REPO / "prometheus") == []


def test_rules_have_no_fault(vocabulary: promql_checks.Vocabulary) -> None:
    text = (REPO / RULES).read_text()
    assert rules_checks.faults(text, vocabulary, REPO) == []


def test_every_alert_is_tested_firing_and_silent() -> None:
    alerts = {
        rule["alert"] for rule in rules_checks.rules((REPO / RULES).read_text()) if "alert" in rule
    }
    cases = [
        case
        for test in yaml.safe_load((REPO / TESTS).read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


@pytest.mark.slow("faults planted in the rules")
@pytest.mark.parametrize("fault", planted_faults.IN_RULES, ids=lambda fault: fault.name)
def test_planted_fault_is_caught(
    fault: Fault, vocabulary: promql_checks.Vocabulary, promtool: str, tmp_path: Path
) -> None:
    shutil.copytree(REPO / "prometheus", tmp_path / "prometheus")
    planted = tmp_path / fault.file
    planted.write_text(fault.planted(planted.read_text()))
    said: list[str] = []
    if fault.caught not in ("FAILED", "duplicate"):  # which promtool alone can say, in seconds
        said += rules_checks.faults(planted.read_text(), vocabulary, REPO)
    else:
        said += promtool_says(promtool, tmp_path / "prometheus")
    assert any(fault.caught in line for line in said), said
