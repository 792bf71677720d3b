"""The Prometheus rules: promtool's checks and tests, names, runbooks, planted faults."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import alert_cases
import alert_faults
import planted_faults
import promql_checks
import pytest
import rules_checks
import yaml
from alert_cases import ONE, PHYSICS, Case, Series
from planted_faults import RULES, Fault

REPO = Path(__file__).resolve().parents[2]
TESTS = ("rules.test.yml", "faults.test.yml")
ALONE = [*alert_faults.FAULTS, *alert_faults.of_a_hub(ONE)]
AMONG_THREE = [*alert_faults.FAULTS, *alert_faults.of_a_hub(PHYSICS)]
# Three Hubs take three times as long: for each alert the first fault that it is about, and what is
# no fault but joins by job and instance alone would make one of.
FIRST_OF_EACH_ALERT = {
    next(iter(case.fires)): case for case in reversed(AMONG_THREE) if len(case.fires) == 1
}
NEVER_AMONG_OTHERS = {"HubIdleExporterAbsent"}  # it is of all exporters that there is none


@pytest.fixture(scope="module")
def vocabulary() -> promql_checks.Vocabulary:
    """What the exporter has; skips, or fails in CI, where PromQL cannot be parsed."""
    return promql_checks.vocabulary_or_skip()


@pytest.fixture
def promtool(require_tool: Callable[[str], str]) -> str:
    """The checker that comes with Prometheus."""
    return require_tool("promtool")


def promtool_says(promtool: str, directory: Path, *arguments: str) -> list[str]:
    """Let promtool check or test in a directory; give the lines when something is wrong."""
    environment = os.environ | {"GOGC": "400"}  # a fifth less CPU time
    finished = subprocess.run(
        [promtool, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return (finished.stdout + finished.stderr).splitlines() if finished.returncode else []


def checked(promtool: str, directory: Path) -> list[str]:
    """Check the rules of a directory, with every lint."""
    return promtool_says(
        promtool, directory, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml"
    )


def played(
    promtool: str, rules: Path, directory: Path, case: Case, *, among_three: bool
) -> list[str]:
    """Play a case through the rules; give what promtool says against it."""
    labels, beside = (PHYSICS, alert_cases.neighbours()) if among_three else (ONE, Series())
    test = alert_cases.test_of(case, labels, beside)
    tests = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}
    file = directory / "case.test.yml"
    file.write_text(yaml.safe_dump(tests, sort_keys=False))
    return promtool_says(promtool, directory, "test", "rules", file.name)


def alerts() -> dict[str, str]:
    """Give all alerts with their severity."""
    found = rules_checks.rules((REPO / RULES).read_text())
    return {rule["alert"]: rule["labels"]["severity"] for rule in found if "alert" in rule}


def test_rules_pass_promtools_checks(promtool: str) -> None:
    assert checked(promtool, REPO / "prometheus") == []


@pytest.mark.parametrize("file", [pytest.param(one, marks=pytest.mark.slow(one)) for one in TESTS])
def test_rules_pass_promtools_tests(promtool: str, file: str) -> None:
    assert promtool_says(promtool, REPO / "prometheus", "test", "rules", file) == []


@pytest.mark.parametrize("file", TESTS)
def test_no_test_of_the_rules_is_there_twice(file: str) -> None:
    tests = yaml.safe_load((REPO / "prometheus" / file).read_text())["tests"]
    names = [test["name"] for test in tests]
    assert sorted(set(names)) == sorted(names)


def test_rules_have_no_fault(vocabulary: promql_checks.Vocabulary) -> None:
    text = (REPO / RULES).read_text()
    assert rules_checks.faults(text, vocabulary, REPO) == []


def test_only_what_harms_somebody_wakes_somebody() -> None:
    critical = {name for name, severity in alerts().items() if severity == "critical"}
    assert critical == {
        "HubIdleServersNotAsked",  # silent computations are stopped
        "HubIdleServersNotStopping",  # orphans, which cost until somebody ends them
        "HubIdleOrphanPods",
    }


def test_every_alert_has_a_text_that_is_tested_and_is_silent_before() -> None:
    tests = yaml.safe_load((REPO / "prometheus" / TESTS[0]).read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(alerts())
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(alerts())


@pytest.mark.parametrize("cases", [ALONE, AMONG_THREE], ids=["one Hub", "three Hubs"])
def test_every_alert_has_a_fault_that_it_is_about(cases: list[Case]) -> None:
    firing = {alert for case in cases for alert in case.fires}
    assert firing == set(alerts()) - NEVER_AMONG_OTHERS
    for alert in firing:
        assert any(case.silent for case in cases if alert in case.fires), f"{alert}: silent before"
    assert len({case.name for case in cases}) == len(cases)


@pytest.mark.slow("faults of one Hub")
@pytest.mark.parametrize("case", ALONE, ids=lambda case: case.name)
def test_a_fault_of_one_hub_is_alerted_once(case: Case, promtool: str, tmp_path: Path) -> None:
    assert played(promtool, REPO / RULES, tmp_path, case, among_three=False) == []


@pytest.mark.slow("faults of one Hub among three")
@pytest.mark.parametrize("case", FIRST_OF_EACH_ALERT.values(), ids=lambda case: case.name)
def test_a_fault_of_one_hub_is_alerted_for_no_other(
    case: Case, promtool: str, tmp_path: Path
) -> None:
    """Job and instance are the same in both clusters; the others are as different as can be."""
    assert played(promtool, REPO / RULES, tmp_path, case, among_three=True) == []


def test_three_hubs_of_one_job_and_instance_are_not_mixed_up(promtool: str, tmp_path: Path) -> None:
    """A quick one of those above: nothing is wrong, and joins by job and instance would fire."""
    assert set(FIRST_OF_EACH_ALERT) == set(alerts()) - NEVER_AMONG_OTHERS
    (case,) = [one for one in AMONG_THREE if one.name == "all is well"]
    assert played(promtool, REPO / RULES, tmp_path, case, among_three=True) == []


@pytest.mark.slow("faults planted in the rules")
@pytest.mark.parametrize("fault", planted_faults.IN_RULES, ids=lambda fault: fault.name)
def test_planted_fault_is_caught(
    fault: Fault, vocabulary: promql_checks.Vocabulary, promtool: str, tmp_path: Path
) -> None:
    shutil.copytree(REPO / "prometheus", tmp_path / "prometheus")
    planted = tmp_path / fault.file
    planted.write_text(fault.planted(planted.read_text()))
    said = _said(fault, planted, vocabulary, promtool)
    assert any(fault.caught in line for line in said), said


def _played(name: str, planted: Path, promtool: str, among_three: bool) -> list[str]:
    """Play a case; most mistakes show with one Hub, which takes a third of the time."""
    (case,) = [one for one in (AMONG_THREE if among_three else ALONE) if one.name == name]
    wrong, right = (rules_checks.rules(file.read_text()) for file in (planted, REPO / RULES))
    rules = planted.with_name("part.yml")
    part = rules_checks.part_for(wrong, right, case.fires)
    rules.write_text(yaml.safe_dump({"groups": [{"name": "part", "rules": part}]}))
    return played(promtool, rules, planted.parent, case, among_three=among_three)


def _said(
    fault: Fault, planted: Path, vocabulary: promql_checks.Vocabulary, promtool: str
) -> list[str]:
    if fault.case:
        said = _played(fault.case, planted, promtool, among_three=False)
        return said or _played(fault.case, planted, promtool, among_three=True)
    if fault.caught == "duplicate":  # which promtool alone can say
        return checked(promtool, planted.parent)
    return rules_checks.faults(planted.read_text(), vocabulary, REPO)
