"""What must hold for the dashboard: Grafana's own linter's rules, and then some.

Each check says in one line what is wrong and where; no line is a good dashboard.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import promql_checks
from promql_checks import GRAFANAS_OWN, OF_THE_HUB, Vocabulary

Board = dict[str, Any]
Panel = dict[str, Any]

KNOWN_PANELS = frozenset({"row", "stat", "timeseries", "bargauge", "table"})
# Of those that Grafana's linter accepts the ones in use, and what bars may say besides.
UNITS = frozenset({"none", "percentunit", "s"})
SERVER_HOURS = "suffix: h"
COLUMNS = 24
SHARED_CROSSHAIR = 1
ON_TIME_RANGE_CHANGED = 2
OLDEST_SCHEMA = 39  # Grafana 11.0 writes 39; newer ones migrate from it


@dataclass(frozen=True)
class Query:
    """One query of the dashboard, and the panel, variable or annotation it belongs to."""

    where: str
    expression: str
    legend: str = ""
    kind: str = "panel"


def panels(board: Board) -> list[Panel]:
    """Give all panels but the rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: Board) -> Iterator[Query]:
    """Give all PromQL: of panels, annotations and variables (as selectors)."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            where = f"panel {panel['title']!r} {target['refId']}"
            yield Query(where, target["expr"], target.get("legendFormat", ""))
    for annotation in board["annotations"]["list"]:
        where = f"annotation {annotation['name']!r}"
        yield Query(where, annotation["target"]["expr"], annotation["titleFormat"], "annotation")
    for variable in _variables(board):
        if variable["type"] == "query":
            selector, _ = label_values(variable)
            yield Query(f"variable {variable['name']!r}", selector, kind="variable")


def label_values(variable: dict[str, Any]) -> tuple[str, str]:
    """Give the selector and the label of a variable's `label_values(selector, label)`."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
    if found is None:
        raise AssertionError(f"variable {variable['name']}: no label_values(selector, label)")
    return found[1], found[2]


def _variables(board: Board) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = board["templating"]["list"]
    return found


def faults(board: Board, vocabulary: Vocabulary) -> list[str]:
    """Say everything that is wrong."""
    return [
        *_board_faults(board),
        *_variable_faults(board),
        *_annotation_faults(board),
        *_layout_faults(board),
        *_panel_faults(board),
        *_query_faults(board, vocabulary),
        *_use_of_variables(board),
    ]


def _board_faults(board: Board) -> Iterator[str]:
    wanted = {
        "title": "JupyterHub / Idle servers",
        "uid": "hub-idle-exporter",
        "editable": False,
        "graphTooltip": SHARED_CROSSHAIR,
        "schemaVersion": OLDEST_SCHEMA,
        "time": {"from": "now-6h", "to": "now"},
        "id": None,
    }
    for key, value in wanted.items():
        if board.get(key) != value:
            yield f"dashboard: {key} is {board.get(key)!r}, not {value!r}"
    if not {"jupyterhub", "hub-idle-exporter"} <= set(board["tags"]):
        yield f"dashboard: tags are {board['tags']}"
    if not any(link["type"] == "dashboards" and link["tags"] for link in board["links"]):
        yield "dashboard: no link by tag to JupyterHub's own dashboards"


def _variable_faults(board: Board) -> Iterator[str]:
    by_name = {variable["name"]: variable for variable in _variables(board)}
    source = by_name.get("datasource", {})
    if (source.get("type"), source.get("query")) != ("datasource", "prometheus"):
        yield "variable 'datasource' is missing, or none of Prometheus data sources"
    if source.get("label") != "Data source":
        yield "variable 'datasource': label is not 'Data source'"
    for name in ("job", "instance"):
        if by_name.get(name, {}).get("label") != name.title():
            yield f"variable {name!r} is missing, or not labelled {name.title()!r}"
    wanted = {"multi": True, "allValue": ".+", "includeAll": True, "refresh": ON_TIME_RANGE_CHANGED}
    for name, variable in by_name.items():
        if variable["type"] == "query":
            yield from _datasource_faults(f"variable {name!r}", variable)
            for key, value in wanted.items():
                if variable.get(key) != value:
                    yield f"variable {name!r}: {key} is {variable.get(key)!r}, not {value!r}"


def _datasource_faults(where: str, of: dict[str, Any]) -> Iterator[str]:
    if of.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
        yield f"{where}: data source is {of.get('datasource')}, not ${{datasource}}"


def _annotation_faults(board: Board) -> Iterator[str]:
    names = [annotation["name"] for annotation in board["annotations"]["list"]]
    if sorted(names) != ["Failed culls", "Mode changes"]:
        yield f"dashboard: annotations are {names}"
    for annotation in board["annotations"]["list"]:
        yield from _datasource_faults(f"annotation {annotation['name']!r}", annotation)


def _layout_faults(board: Board) -> Iterator[str]:
    ids = [panel.get("id") for panel in board["panels"]]
    if len(set(ids)) != len(ids) or None in ids:
        yield "dashboard: two panels with the same id, or one without"
    titles = [panel["title"] for panel in panels(board)]
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] < 0 or place["x"] + place["w"] > COLUMNS or place["w"] < 1 or place["h"] < 1:
            yield f"panel {panel['title']!r} leaves the {COLUMNS} columns"
    for one, other in combinations(board["panels"], 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"panels {one['title']!r} and {other['title']!r} overlap"
    if titles.count("Idle servers") != 1 or titles[0] != "Idle servers":
        yield "dashboard: what a person asks first, 'Idle servers', is not top left"


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def _panel_faults(board: Board) -> Iterator[str]:
    for panel in board["panels"]:
        where = f"panel {panel.get('title')!r}"
        if panel["type"] not in KNOWN_PANELS:
            yield f"{where}: type {panel['type']} is not one that is known to be drawn"
        if not panel.get("title"):
            yield f"panel {panel.get('id')} has no title"
    for panel in panels(board):
        where = f"panel {panel.get('title')!r}"
        if not (panel.get("description") or "").endswith("."):
            yield f"{where}: no description, or not a sentence"
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if unit not in UNITS and unit != SERVER_HOURS:
            yield f"{where}: unit {unit!r} is not one of {sorted(UNITS)}"
        yield from _datasource_faults(where, panel)
        yield from _target_faults(where, panel.get("targets", []))


def _target_faults(where: str, targets: list[dict[str, Any]]) -> Iterator[str]:
    if not targets:
        yield f"{where}: nothing is asked"
    refs = [target["refId"] for target in targets]
    if len(set(refs)) != len(refs):
        yield f"{where}: two queries with the same refId"
    for target in targets:
        yield from _datasource_faults(where, target)
        if "$__range" in target["expr"] and not target.get("instant"):
            yield f"{where}: $__range in a query over time; each point would look back over it all"


def _query_faults(board: Board, vocabulary: Vocabulary) -> Iterator[str]:
    for query in queries(board):
        problems = list(promql_checks.faults(query.expression, vocabulary))
        yield from (f"{query.where}: {problem}" for problem in problems)
        if any(problem.startswith("no PromQL") for problem in problems):
            continue
        tree = promql_checks.parsed(query.expression)
        if query.kind != "variable":
            yield from (f"{query.where}: {problem}" for problem in _choice_faults(tree))
            yield from (f"{query.where}: {problem}" for problem in _legend_faults(query, tree))
        if re.search(r"\b(i?rate)\([^()]*\[(?!\$__rate_interval)", query.expression):
            yield f"{query.where}: rate() over another window than $__rate_interval"


def _choice_faults(tree: Any) -> Iterator[str]:
    """Find selectors that ignore what the person chose above."""
    for selector, _ in promql_checks.selectors(tree):
        found = promql_checks.matchers(selector)
        wanted = {"job": "$job", "instance": "$instance"}
        if selector.name in OF_THE_HUB:
            wanted = {"job": "$hub_job"}
        for label, variable in wanted.items():
            if found.get(label) != ("Re", variable):
                yield f'{selector.name} is not chosen by {label}=~"{variable}"'


def _legend_faults(query: Query, tree: Any) -> Iterator[str]:
    grouped = promql_checks.grouping_labels(tree)
    for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", query.legend):
        plain = not any(
            promql_checks.is_a(node, "AggregateExpr") for node, _ in promql_checks.nodes(tree)
        )
        if label not in grouped and not plain:
            yield f"legend names {label}, by which nothing is grouped"


def _use_of_variables(board: Board) -> Iterator[str]:
    defined = {variable["name"] for variable in _variables(board)}
    used = set(re.findall(r"\$\{?(\w+)\}?", _text_of(board)))
    for name in sorted(used - defined - GRAFANAS_OWN.keys()):
        yield f"variable ${name} is used and nowhere defined"
    for name in sorted(defined - used):
        yield f"variable ${name} is defined and nowhere used"


def _text_of(board: Board) -> str:
    """Give all text in which Grafana replaces variables."""
    texts = [query.expression + query.legend for query in queries(board)]
    texts += [text for panel in panels(board) for text in (panel["title"], panel["description"])]
    sources = [panel["datasource"]["uid"] for panel in panels(board)]
    return "\n".join(texts + sources)
