"""What must hold for a PromQL expression over the exporter's metrics, in dashboards and in rules.

The names, labels and label values are read from the exporter's own registry.
"""

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import poll_states
import pytest
from poll_states import RULES
from prometheus_client import CollectorRegistry

from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import GateReading, GateState
from hub_idle_exporter.domain.idle_users import IdleUsers
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Judge
from hub_idle_exporter.domain.poll_state import LatestState, Snapshot
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.domain.settings import PollSettings
from hub_idle_exporter.domain.spare_query import Opinion, Series
from hub_idle_exporter.metrics import Metrics

OF_TARGETS = ("job", "instance", "cluster", "hub", "namespace")
OPEN_LABELS = frozenset({"policy", "version", "user", "server", *OF_TARGETS})
OF_PROMETHEUS = {"up": "gauge", "ALERTS": "gauge"}
OF_THE_HUB = {"jupyterhub_running_servers": "gauge"}
COUNTING = frozenset({"rate", "irate", "increase"})
GRAFANAS_OWN = {
    "__range": "6h",
    "__rate_interval": "5m",
    "__interval": "1m",
    "cost:doublequote": '"0.12"',
    "spare_query:raw": "vector(0.5)",
}
SINCE = datetime.fromtimestamp(0, timezone.utc)
ANA = User("ana", servers={"lab": Server(ready=True, started=SINCE, last_activity=SINCE)})
PASTED = GRAFANAS_OWN["spare_query:raw"]  # a query of somebody's own, by user and server


@dataclass
class Vocabulary:
    """Series that exist: name → type (`counter` or `gauge`), and name → label → values."""

    types: dict[str, str] = field(default_factory=dict)
    labels: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def add(self, name: str, type_: str, labels: Mapping[str, str]) -> None:
        """Know a series."""
        self.types[name] = type_
        known = self.labels.setdefault(name, {})
        for label, value in {**dict.fromkeys(OF_TARGETS, ""), **labels}.items():
            known.setdefault(label, set()).add(value)


def exporters_vocabulary() -> Vocabulary:
    """Read what the exporter has from its registry."""
    settings = PollSettings(RULES.policies[-1], per_server_metrics=True)
    census = census_of(judge_all(Judge(RULES, Granted()), [ANA], 0.0), RULES, keep_all=True)
    state = poll_states.good(snapshot=Snapshot(poll_states.SOMETIME.wall, census))
    opinion = Opinion.of("", 0.0, [Series({"user": ANA.name}, 0.0)])
    latest = LatestState(replace(state, opinion=opinion), IdleUsers(0.0, ()))
    metrics = Metrics(
        CollectorRegistry(), latest, lambda _state: GateReading(GateState.OFF, ""), settings
    )
    vocabulary = Vocabulary()
    for family in metrics.registry.collect():
        for sample in family.samples:
            counts = family.type == "counter" or family.type == "histogram"
            vocabulary.add(sample.name, "counter" if counts else "gauge", sample.labels)
    for name, type_ in (OF_PROMETHEUS | OF_THE_HUB).items():
        vocabulary.add(name, type_, {})
    return vocabulary


def vocabulary_or_skip() -> Vocabulary:
    """Give the vocabulary; skip the test, or fail it in CI, where PromQL cannot be parsed."""
    module_or_skip("promql_parser", "promql-parser")
    return exporters_vocabulary()


def module_or_skip(name: str, package: str) -> Any:
    """Import a tool for the tests; skip the test without it, or fail it in CI."""
    try:
        return importlib.import_module(name)
    except ImportError:
        said = f"{package} is not installed"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)


def parsed(expression: str) -> Any:
    """Parse an expression of a dashboard or a rule; ValueError when it is none."""
    for name, value in GRAFANAS_OWN.items():
        expression = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", value, expression)
    return importlib.import_module("promql_parser").parse(expression)


def nodes(node: Any, parents: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Walk an expression, each node with those around it."""
    yield node, parents
    inner = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    inner += getattr(node, "args", None) or []
    for child in inner:
        if child is not None:
            yield from nodes(child, (*parents, node))


def is_a(node: Any, kind: str) -> bool:
    """Tell the kind of a node by its class's name."""
    return type(node).__name__ == kind


def selectors(tree: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Give every selector of an expression with the nodes around it."""
    for node, parents in nodes(tree):
        if is_a(node, "VectorSelector"):
            yield node, parents


def matchers(selector: Any) -> dict[str, tuple[str, str]]:
    """Give a selector's label → (operator, value)."""
    return {
        matcher.name: (str(matcher.op).rpartition(".")[2], matcher.value)
        for matcher in selector.matchers.matchers
    }


def faults(expression: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Say what is wrong with an expression, wherever it stands."""
    try:
        tree = parsed(expression)
    except ValueError as error:
        yield f"no PromQL ({error}): {expression}"
        return
    for selector, parents in selectors(tree):
        yield from _selector_faults(selector, parents, vocabulary)
    yield from _division_faults(tree)
    yield from _grouping_faults(tree, vocabulary)


def _selector_faults(
    selector: Any, parents: tuple[Any, ...], vocabulary: Vocabulary
) -> Iterator[str]:
    name = selector.name
    if name not in vocabulary.types:
        yield f"the exporter has no metric {name}"
        return
    yield from _label_faults(selector, vocabulary.labels[name])
    function = _function_around(parents)
    if vocabulary.types[name] == "counter" and function not in COUNTING and not _never(parents):
        yield f"counter {name} outside rate() and increase()"
    if vocabulary.types[name] == "gauge" and function in COUNTING:
        yield f"{function}() of gauge {name}"


def _never(parents: tuple[Any, ...]) -> bool:
    """Tell whether a counter is asked only whether it is still 0."""
    return any(
        is_a(node, "BinaryExpr")
        and str(node.op) == "=="
        and is_a(node.rhs, "NumberLiteral")
        and node.rhs.val == 0
        for node in parents
    )


def _function_around(parents: tuple[Any, ...]) -> str | None:
    if len(parents) < 2 or not is_a(parents[-1], "MatrixSelector"):
        return None
    return str(parents[-2].func.name) if is_a(parents[-2], "Call") else None


def _label_faults(selector: Any, known: Mapping[str, set[str]]) -> Iterator[str]:
    for label, (operator, value) in matchers(selector).items():
        if label not in known:
            yield f"{selector.name} has no label {label}"
        elif label not in OPEN_LABELS:
            for one in value.split("|") if operator in ("Re", "NotRe") else [value]:
                if one not in known[label]:
                    yield f"{selector.name} has no {label}={one!r}"


def _division_faults(tree: Any) -> Iterator[str]:
    for node, _ in nodes(tree):
        if is_a(node, "BinaryExpr") and str(node.op) == "/" and not _never_zero(node.rhs):
            yield f"division by what may be 0, not guarded by (... > 0): {node.rhs}"


def _never_zero(divisor: Any) -> bool:
    if is_a(divisor, "NumberLiteral"):
        return bool(divisor.val)
    inner = divisor.expr if is_a(divisor, "ParenExpr") else divisor
    return is_a(inner, "BinaryExpr") and str(inner.op) == ">"


def grouping_labels(tree: Any) -> set[str]:
    """Give every label that is grouped or joined by."""
    found: set[str] = set()
    for node, _ in nodes(tree):
        modifier = getattr(node, "modifier", None)
        grouping = modifier if is_a(node, "AggregateExpr") else getattr(modifier, "matching", None)
        found |= set(getattr(grouping, "labels", None) or [])
    return found


def made_labels(tree: Any) -> set[str]:
    """Give the labels that label_replace() and label_join() make."""
    return {
        node.args[1].val
        for node, _ in nodes(tree)
        if is_a(node, "Call") and node.func.name in ("label_replace", "label_join")
    }


def _grouping_faults(tree: Any, vocabulary: Vocabulary) -> Iterator[str]:
    names = {selector.name for selector, _ in selectors(tree)}
    known = made_labels(tree).union(*(vocabulary.labels.get(name, {}) for name in names))
    for label in sorted(grouping_labels(tree) - known):
        yield f"grouped by {label}, which none of {', '.join(sorted(names))} has"


def compared_exporters(tree: Any) -> Iterator[str]:
    """Find a maximum or minimum over several exporters; `max by (…)` one of them is none."""
    for node, _ in nodes(tree):
        if is_a(node, "AggregateExpr") and str(node.op) in ("max", "min"):
            if PASTED in str(node.expr) and "{" not in str(node.expr):
                continue
            by = set(getattr(node.modifier, "labels", None) or [])
            missing = [label for label in ("cluster", "hub", "job", "instance") if label not in by]
            if missing:
                yield f"{node.op} over exporters that differ in {', '.join(missing)}"


AS_OF_THE_LAST_POLL = re.compile(r"jupyterhub_(?!up$|info$|running_servers$)")
LAST_SUCCESS = "hub_idle_exporter_last_poll_success_timestamp_seconds"


def stale_facts(tree: Any) -> Iterator[str]:
    """Find facts about the Hub that are shown as of now however old they are."""
    for selector, parents in selectors(tree):
        over_time = any(is_a(node, kind) for node in parents for kind in _OVER_TIME)
        of_now = AS_OF_THE_LAST_POLL.match(selector.name) and not over_time
        if of_now and not any(_keeps_fresh(node) for node in parents):
            yield f"{selector.name} is shown as of now, and nothing asks whether it is fresh"


_OVER_TIME = ("MatrixSelector", "SubqueryExpr")


def _keeps_fresh(node: Any) -> bool:
    return is_a(node, "BinaryExpr") and str(node.op) == "and" and LAST_SUCCESS in str(node.rhs)


def frozen_ages(tree: Any) -> Iterator[str]:
    """Find ages that stop growing when the exporter is gone."""
    for node, _ in nodes(tree):
        since = is_a(node, "BinaryExpr") and str(node.op) == "-" and str(node.lhs) == "time()"
        if since and "max_over_time" not in str(node.rhs):
            yield f"an age that stops growing while the exporter is down: {node.rhs}"
