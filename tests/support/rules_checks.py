"""What must hold for the recording and alerting rules, beside what promtool checks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_checks
import yaml
from promql_checks import Vocabulary

Rule = dict[str, Any]

SEVERITIES = frozenset({"critical", "warning", "info"})
RUNBOOK = "docs/runbooks/README.md"


def rules(text: str) -> list[Rule]:
    """Give all rules of a file."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def faults(text: str, vocabulary: Vocabulary, repo: Path) -> list[str]:
    """Say everything that is wrong with a file of rules; runbooks are looked for in `repo`."""
    found = rules(text)
    alerts = [rule for rule in found if "alert" in rule]
    known = with_records(vocabulary, found)
    names = [rule["alert"] for rule in alerts]
    sections = set(re.findall(r"^## (\w+)$", (repo / RUNBOOK).read_text(), re.MULTILINE))
    return [
        *(f"alert {name} is there twice" for name in names if names.count(name) > 1),
        *(f"runbook section {name} is of no alert" for name in sorted(sections - set(names))),
        *(f"{_name(rule)}: {fault}" for rule in found for fault in _faults(rule, known)),
        *(f"{_name(rule)}: {fault}" for rule in alerts for fault in _alert_faults(rule, sections)),
    ]


def with_records(vocabulary: Vocabulary, found: list[Rule]) -> Vocabulary:
    """Know the recorded series too; what they are called after is where their labels come from."""
    known = Vocabulary(dict(vocabulary.types), dict(vocabulary.labels))
    for rule in found:
        if "record" in rule:
            known.types[rule["record"]] = "gauge"
            known.labels[rule["record"]] = {"job": set(), "instance": set(), "state": set()}
    return known


def _name(rule: Rule) -> str:
    return f"rule {rule.get('alert') or rule.get('record')}"


def _faults(rule: Rule, vocabulary: Vocabulary) -> Iterator[str]:
    yield from promql_checks.faults(rule["expr"], vocabulary)
    if "record" in rule and not re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9]+", rule["record"]):
        yield "record is not named level:metric:operation"


def _alert_faults(rule: Rule, sections: set[str]) -> Iterator[str]:
    name, annotations = rule["alert"], rule["annotations"]
    if not re.fullmatch(r"HubIdle[A-Z][A-Za-z]+", name):
        yield "the name of an alert begins with HubIdle, in camel case"
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        yield f"severity is none of {', '.join(sorted(SEVERITIES))}"
    summary = annotations.get("summary", "")
    if not summary.endswith(".") or "{{" in summary:
        yield "summary is no sentence, or not a fixed one"
    if "{{" not in annotations.get("description", "") and not rule["expr"].startswith("absent("):
        yield "description says nothing of the case at hand"
    runbook = annotations.get("runbook_url", "")
    path, _, anchor = runbook.partition("#")
    if path != RUNBOOK:
        yield f"runbook_url {runbook!r} is not in {RUNBOOK}"
    elif anchor != name.lower() or name not in sections:
        yield f"runbook has no section {name} at {runbook}"
