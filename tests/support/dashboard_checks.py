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
UNITS = frozenset({"none", "percentunit", "s", "bytes", "locale"})
SERVER_HOURS = "suffix: h"
COLUMNS = 24
SHARED_CROSSHAIR = 1
ON_TIME_RANGE_CHANGED = 2
OLDEST_SCHEMA = 39  # Grafana 11.0 writes 39; newer ones migrate from it
MOST_OPEN = 10
# Panels that show one moment; `$job` and others choose the exporters, and may not exist as labels.
OF_A_MOMENT = frozenset({"stat", "bargauge", "table"})
CHOICES = {"cluster": ".*", "hub": ".*", "job": ".+", "instance": ".+", "hub_job": ".+"}
PRICE = "${cost:doublequote}"
SPARE_QUERY, DEFAULT_QUERY = "${spare_query:raw}", "jupyterhub_server_spare_query_value"
POLICY_LEGENDS = frozenset({"{{policy}}", "{{policy}} (exempt)"})
BY_NAME = "palette-classic-by-name"


@dataclass(frozen=True)
class Query:
    """One query of the dashboard, and the panel, variable or annotation it belongs to."""

    where: str
    expression: str
    legend: str = ""
    kind: str = "panel"
    instant: bool = False


def panels(board: Board) -> list[Panel]:
    """Give all panels, also those in folded rows, but not the rows themselves."""
    return [panel for panel in everything(board) if panel["type"] != "row"]


def everything(board: Board) -> list[Panel]:
    """Give all panels and rows, in their order."""
    return [one for panel in board["panels"] for one in (panel, *panel.get("panels", []))]


def queries(board: Board) -> Iterator[Query]:
    """Give all PromQL: of panels, annotations and variables (as selectors)."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            where = f"panel {panel['title']!r} {target['refId']}"
            instant = bool(target.get("instant"))
            yield Query(where, target["expr"], target.get("legendFormat", ""), instant=instant)
    for annotation in board["annotations"]["list"]:
        where = f"annotation {annotation['name']!r}"
        yield Query(where, annotation["target"]["expr"], annotation["titleFormat"], "annotation")
    for variable in _variables(board):
        if variable["type"] == "query":
            selector, _ = label_values(variable)
            yield Query(f"variable {variable['name']!r}", selector, kind="variable")


def expanded(expression: str, window: str, cost: str = "", **chosen: str) -> str:
    """Put values where Grafana does: everything but what is `chosen`, and a window as the range."""
    values = CHOICES | {"__range": window, "__rate_interval": "10s"} | chosen
    expression = expression.replace(SPARE_QUERY, chosen.pop("spare_query", DEFAULT_QUERY))
    expression = expression.replace(PRICE, '"{}"'.format(cost.replace('"', '\\"')))
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), expression)


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
        *_cost_faults(board),
        *_annotation_faults(board),
        *_layout_faults(board),
        *_folding_faults(board),
        *_policy_faults(board),
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
    for name in ("cluster", "hub", "job", "instance"):
        if by_name.get(name, {}).get("label") != name.title():
            yield f"variable {name!r} is missing, or not labelled {name.title()!r}"
    for name, variable in by_name.items():
        if variable["type"] == "query":
            wanted = {
                "multi": True,
                "allValue": CHOICES.get(name),
                "includeAll": True,
                "refresh": ON_TIME_RANGE_CHANGED,
            }
            yield from _datasource_faults(f"variable {name!r}", variable)
            for key, value in wanted.items():
                if variable.get(key) != value:
                    yield f"variable {name!r}: {key} is {variable.get(key)!r}, not {value!r}"


def _cost_faults(board: Board) -> Iterator[str]:
    cost = {variable["name"]: variable for variable in _variables(board)}.get("cost", {})
    if (cost.get("type"), cost.get("query")) != ("textbox", ""):
        yield "variable 'cost' is missing, or no text box that is empty at first"
    for query in queries(board):
        if "cost" in query.expression.replace(PRICE, ""):
            yield f"{query.where}: $cost is pasted into PromQL; an empty box would be an error"


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
    ids = [panel.get("id") for panel in everything(board)]
    if len(set(ids)) != len(ids) or None in ids:
        yield "dashboard: two panels with the same id, or one without"
    for panel in everything(board):
        place = panel["gridPos"]
        if place["x"] < 0 or place["x"] + place["w"] > COLUMNS or place["w"] < 1 or place["h"] < 1:
            yield f"panel {panel['title']!r} leaves the {COLUMNS} columns"
    for side_by_side in (board["panels"], *(row.get("panels", []) for row in board["panels"])):
        for one, other in combinations(side_by_side, 2):
            if _overlap(one["gridPos"], other["gridPos"]):
                yield f"panels {one['title']!r} and {other['title']!r} overlap"
    if board["panels"][0]["title"] != "Hubs: does it work?":
        yield "dashboard: what a person asks first, whether it works, is not on top"


def _folding_faults(board: Board) -> Iterator[str]:
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    is_open = [panel for panel in board["panels"] if panel["type"] != "row"]
    if len(is_open) > MOST_OPEN:
        yield f"dashboard: {len(is_open)} panels are open, more than {MOST_OPEN}"
    for row in rows:
        if not row.get("collapsed") or not row.get("panels"):
            yield f"row {row['title']!r} is not folded, or has no panels"
        for panel in row.get("panels", []):
            if panel["gridPos"]["y"] <= row["gridPos"]["y"]:
                yield f"panel {panel['title']!r} lies above its row"


def _policy_faults(board: Board) -> Iterator[str]:
    """Policies are told apart in the same way, and in the same colours, everywhere."""
    for panel in panels(board):
        where = f"panel {panel['title']!r}"
        legends = {target["legendFormat"] for target in panel.get("targets", [])}
        if any("{{policy}}" in legend for legend in legends):
            if not legends >= POLICY_LEGENDS or any(
                "{{policy}}" in legend for legend in legends - POLICY_LEGENDS
            ):
                yield f"{where}: exempt policies are not told apart, or a policy has two names"
            if panel["fieldConfig"]["defaults"].get("color", {}).get("mode") != BY_NAME:
                yield f"{where}: the colour of a policy does not come from its name"


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def _panel_faults(board: Board) -> Iterator[str]:
    for panel in everything(board):
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
        yield from _moment_faults(where, panel)


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


def _moment_faults(where: str, panel: Panel) -> Iterator[str]:
    """What is called now is asked now: the last value of a range may be an hour old."""
    if panel["type"] in OF_A_MOMENT and not all(
        target.get("instant") and not target.get("range") for target in panel["targets"]
    ):
        yield f"{where}: shows one moment, and asks over time"
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults.get("thresholds", {}).get("steps", [])
    if defaults.get("unit") == "s" and any(step.get("value") for step in steps):
        yield f"{where}: colours by fixed seconds, whatever the interval"
    *others, _ = [target["legendFormat"] for target in panel["targets"]]
    if any(legend.startswith("all") for legend in others):
        yield f"{where}: the total does not come last"


def _query_faults(board: Board, vocabulary: Vocabulary) -> Iterator[str]:
    for query in queries(board):
        problems = list(promql_checks.faults(query.expression, vocabulary))
        yield from (f"{query.where}: {problem}" for problem in problems)
        if any(problem.startswith("no PromQL") for problem in problems):
            continue
        tree = promql_checks.parsed(query.expression)
        if query.kind != "variable":
            yield from (f"{query.where}: {problem}" for problem in _choice_faults(tree))
            yield from (f"{query.where}: {problem}" for problem in _honesty_faults(query, tree))
            yield from (f"{query.where}: {problem}" for problem in _legend_faults(query, tree))
        if re.search(r"\b(i?rate)\([^()]*\[(?!\$__rate_interval)", query.expression):
            yield f"{query.where}: rate() over another window than $__rate_interval"


def _honesty_faults(query: Query, tree: Any) -> Iterator[str]:
    yield from promql_checks.compared_exporters(tree)
    yield from promql_checks.frozen_ages(tree)
    if query.instant:
        yield from promql_checks.stale_facts(tree)


def _choice_faults(tree: Any) -> Iterator[str]:
    """Find selectors that ignore what the person chose above."""
    for selector, _ in promql_checks.selectors(tree):
        found = promql_checks.matchers(selector)
        wanted = {label: f"${label}" for label in ("cluster", "hub", "job", "instance")}
        if selector.name in OF_THE_HUB:
            del wanted["instance"]
            wanted["job"] = "$hub_job"
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
    # "$1" is a group of label_replace().
    used = set(re.findall(r"\$\{?([a-z_]\w*)", _text_of(board)))
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
