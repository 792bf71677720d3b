"""What must hold for the recording and alerting rules, beside what promtool checks."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import promql_checks
import yaml
from promql_checks import Vocabulary

Rule = dict[str, Any]

SEVERITIES = frozenset({"critical", "warning", "info"})
RUNBOOK = "docs/runbooks/README.md"
HARM = "**Is anybody harmed?**"
# The labels of a target that tell whose exporter it is, where there are several.
WHOSE = ("cluster", "namespace", "hub")
OF_KUBERNETES = {
    "kube_pod_labels": {"label_component": {"hub", "singleuser-server"}},
    "kube_pod_status_phase": {"phase": {"Running"}},
}
# What an alert is about, and so must be named: most are about an exporter.
NAMED = ("instance", "hub", "cluster")
NAMED_ELSE = {
    "HubIdleExporterGone": ("job", "hub", "namespace", "cluster"),
    "HubIdleOrphanPods": ("namespace", "cluster"),
    "HubIdleExporterAbsent": (),
}


def rules(text: str) -> list[Rule]:
    """Give all rules of a file."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def part_for(fault: Iterable[Rule], right: Iterable[Rule], fires: Iterable[str]) -> list[Rule]:
    """Give the rules that a fault can make a difference to, with what they and `fires` read.

    All others do the same as without it: to play them takes most of the time.
    """
    fault, right = list(fault), list(right)
    reads = {_bare_name(rule): set(re.findall(r"[\w:]+", rule["expr"])) for rule in fault}
    touched = {_bare_name(rule) for rule in fault if rule not in right}
    while more := {name for name, read in reads.items() if read & touched} - touched:
        touched |= more
    needed = touched | set(fires)
    while more := {name for name in reads if any(name in reads[by] for by in needed)} - needed:
        needed |= more
    return [rule for rule in fault if _bare_name(rule) in needed]


def of_kubernetes(rule: Rule) -> bool:
    """Tell whether a rule needs kube-state-metrics, which not everybody has."""
    return "kube_" in rule["expr"] or "jupyterhub_server_pods" in rule["expr"]


def asked_for(expression: str) -> Iterator[str]:
    """Give the series that an expression reads, as of now; not the alerts that it looks at."""
    for selector, _ in promql_checks.selectors(promql_checks.parsed(expression)):
        if selector.name != "ALERTS":
            yield str(selector).partition(" offset ")[0]


def faults(text: str, vocabulary: Vocabulary, repo: Path) -> list[str]:
    """Say everything that is wrong with a file of rules; runbooks are looked for in `repo`."""
    found = rules(text)
    alerts = [rule for rule in found if "alert" in rule]
    known = with_records(vocabulary, found)
    names = [rule["alert"] for rule in alerts]
    sections = runbook_sections(repo)
    return [
        *(f"alert {name} is there twice" for name in names if names.count(name) > 1),
        *(f"runbook section {name} is of no alert" for name in sorted(set(sections) - set(names))),
        *(f"{_name(rule)}: {fault}" for rule in found for fault in _faults(rule, known)),
        *(f"{_name(rule)}: {fault}" for rule in alerts for fault in _alert_faults(rule, sections)),
    ]


def runbook_sections(repo: Path) -> dict[str, str]:
    """Give the sections of the runbooks that are about an alert, with their text."""
    parts = re.split(r"^## (\w+)$", (repo / RUNBOOK).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def with_records(vocabulary: Vocabulary, found: list[Rule]) -> Vocabulary:
    """Know what rules read besides: recorded series, alerts, Kubernetes, and labels of targets."""
    known = Vocabulary(dict(vocabulary.types), dict(vocabulary.labels))
    for rule in found:
        if "record" in rule:
            known.types[rule["record"]] = "gauge"
            known.labels[rule["record"]] = {"job": set(), "instance": set(), "state": set()}
    for name, labels in OF_KUBERNETES.items():
        known.types[name] = "gauge"
        known.labels[name] = {"pod": set(), "exported_namespace": {""}, **labels}
    of_alerts = {rule["alert"] for rule in found if "alert" in rule}
    known.labels["ALERTS"] = {
        "alertname": of_alerts,
        "alertstate": {"firing"},
        "severity": set(SEVERITIES),
    }
    for name, labels in known.labels.items():
        known.labels[name] = {**{label: set() for label in WHOSE}, **labels}
    return known


def _name(rule: Rule) -> str:
    return f"rule {_bare_name(rule)}"


def _bare_name(rule: Rule) -> str:
    return str(rule.get("alert") or rule.get("record"))


def _faults(rule: Rule, vocabulary: Vocabulary) -> Iterator[str]:
    yield from promql_checks.faults(rule["expr"], vocabulary)
    yield from _mixing_faults(rule["expr"])
    if "record" in rule and not re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9]+", rule["record"]):
        yield "record is not named level:metric:operation"


def _mixing_faults(expression: str) -> Iterator[str]:
    """Find joins and sums that mix exporters of the same job and instance up."""
    try:
        tree = promql_checks.parsed(expression)
    except ValueError:
        return  # which is said elsewhere
    for node, _ in promql_checks.nodes(tree):
        modifier = getattr(node, "modifier", None)
        if promql_checks.is_a(node, "AggregateExpr"):
            yield from _unlike(node, modifier, "By", "Without")
        elif matching := getattr(modifier, "matching", None):
            yield from _unlike(node, matching, "Include", "Exclude")


def _unlike(node: Any, modifier: Any, only: str, without: str) -> Iterator[str]:
    kind = str(modifier.type).rpartition(".")[2] if modifier else only
    labels = set(modifier.labels) if modifier else set()
    by_nothing = not labels and "absent" in str(node)  # of all exporters there is none
    if kind == only and not by_nothing and not {"cluster", "namespace"} <= labels:
        yield f"leaves cluster and namespace out, and mixes clusters up: {node}"
    if kind == without and {*WHOSE, "job", "instance"} & labels:
        yield f"mixes exporters up: {node}"


def _alert_faults(rule: Rule, sections: dict[str, str]) -> Iterator[str]:
    name, annotations = rule["alert"], rule["annotations"]
    if not re.fullmatch(r"HubIdle[A-Z][A-Za-z]+", name):
        yield "the name of an alert begins with HubIdle, in camel case"
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        yield f"severity is none of {', '.join(sorted(SEVERITIES))}"
    if not annotations.get("summary", "").endswith("."):
        yield "summary is no sentence"
    for key in ("summary", "description"):
        for label in NAMED_ELSE.get(name, NAMED):
            if f"$labels.{label}" not in annotations.get(key, ""):
                yield f"{key} does not name the {label}"
    runbook = annotations.get("runbook_url", "")
    path, _, anchor = runbook.partition("#")
    if path != RUNBOOK:
        yield f"runbook_url {runbook!r} is not in {RUNBOOK}"
    elif anchor != name.lower() or name not in sections:
        yield f"runbook has no section {name} at {runbook}"
    elif HARM not in sections[name]:
        yield "runbook does not say whether anybody is harmed"
