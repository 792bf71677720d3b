"""Panels of the dashboard: what all of a kind have in common."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        bargauge,
        common,
        dashboard,
        prometheus,
        stat,
        table,
        timeseries,
    )
    from grafana_foundation_sdk.models import common as common_models
    from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
SERVER_HOURS = "suffix: h"  # Grafana's own unit h would turn 240 server-hours into 1.4 weeks
THOUSANDS = "locale"  # a number with thousands apart
UNKNOWN = "\N{EN DASH}"
EXEMPT_NAMES, EXEMPT_COLOUR = r"/ \(exempt\)$/", "#8e8e8e"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# ---- queries ----


def now(expression: str, legend: str = "__auto") -> Any:
    """Ask at the end of the range: nothing is shown when nothing is known then."""
    return _target(expression, legend).instant()


def over_time(expression: str, legend: str) -> Any:
    """Ask all along the range."""
    return _target(expression, legend).range()


def _target(expression: str, legend: str) -> Any:
    return prometheus.Dataquery().datasource(DATASOURCE).expr(expression).legend_format(legend)


# ---- panels ----


def dressed(panel: Any, title: str, description: str, unit: str, size: tuple[int, int]) -> Any:
    """Give a panel what every panel has; size is (columns of 24, height)."""
    width, height = size
    panel = panel.title(title).description(description).unit(unit).datasource(DATASOURCE)
    return panel.span(width).height(height)


def with_targets(panel: Any, targets: tuple[Any, ...]) -> Any:
    """Add targets, named by letters."""
    for letter, target in zip(LETTERS, targets, strict=False):
        panel = panel.with_target(target.ref_id(letter))
    return panel


def fixed(panel: Any, colours: dict[str, str]) -> Any:
    """Paint series by name."""
    for name, colour in colours.items():
        value = {"mode": "fixed", "fixedColor": colour}
        panel = panel.override_by_name(name, [models.DynamicConfigValue("color", value)])
    return panel


def steps(*levels: tuple[float | None, str]) -> Any:
    """Colour by level: (from, colour), the first from None."""
    thresholds = [models.Threshold(value=value, color=colour) for value, colour in levels]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(thresholds)


def says(words: Mapping[int, tuple[str, str]]) -> list[Any]:
    """Show words in colours in place of values; unknown is NaN."""
    values = {
        str(value): models.ValueMappingResult(text=text, color=colour)
        for value, (text, colour) in words.items()
    }
    unknown = models.DashboardSpecialValueMapOptions(
        match=models.SpecialValueMatch.NA_N,
        result=models.ValueMappingResult(text=UNKNOWN, color="text"),
    )
    known = [models.ValueMap(options=values)] if values else []
    return [*known, models.SpecialValueMap(options=unknown)]


def last_value() -> Any:
    """Reduce a series to its last number."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def number(title: str, description: str, unit: str, *targets: Any, levels: Any = None) -> Any:
    """Make a small panel with one number."""
    panel = dressed(stat.Panel(), title, description, unit, (4, 4))
    panel = panel.reduce_options(last_value()).color_mode(common_models.BigValueColorMode.VALUE)
    panel = panel.graph_mode(common_models.BigValueGraphMode.NONE).no_value(UNKNOWN)
    panel = panel.wide_layout(False).text_mode(common_models.BigValueTextMode.VALUE)
    return with_targets(panel.thresholds(levels or steps((None, "text"))), targets)


def bars(title: str, description: str, unit: str, size: tuple[int, int], *targets: Any) -> Any:
    """Make horizontal bars, one for each target or series."""
    panel = dressed(bargauge.Panel(), title, description, unit, size)
    panel = panel.reduce_options(last_value()).min(0).no_value(UNKNOWN)
    panel = panel.orientation(common_models.VizOrientation.HORIZONTAL)
    panel = panel.display_mode(common_models.BarGaugeDisplayMode.BASIC).show_unfilled(False)
    panel = panel.value_mode(common_models.BarGaugeValueMode.TEXT).min_viz_height(12)
    panel = panel.text(common.VizTextDisplayOptions().title_size(12).value_size(15))
    panel = panel.name_placement(common_models.BarGaugeNamePlacement.LEFT)
    panel = panel.thresholds(steps((None, "orange")))
    return with_targets(panel, targets)


def lines(title: str, description: str, unit: str, size: tuple[int, int], *targets: Any) -> Any:
    """Make lines over time."""
    panel = dressed(timeseries.Panel(), title, description, unit, size).min(0)
    legend = common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.LIST)
    panel = panel.legend(legend.placement(common_models.LegendPlacement.BOTTOM).show_legend(True))
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    panel = panel.tooltip(tooltip.sort(common_models.SortOrder.DESCENDING))
    panel = panel.line_width(2).fill_opacity(0).show_points(common_models.VisibilityMode.NEVER)
    panel = panel.axis_soft_max(1) if unit == "none" else panel
    return with_targets(panel, targets)


def stacked(panel: Any) -> Any:
    """Stack the lines of a panel into areas."""
    stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A")
    return panel.stacking(stacking).line_width(0).fill_opacity(70)


def named_alike(panel: Any) -> Any:
    """Give a policy one colour in every panel, by its name; exempt ones are grey."""
    mode = models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME
    panel = fixed(panel.color_scheme(dashboard.FieldColor().mode(mode)), {"default": "blue"})
    grey = models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": EXEMPT_COLOUR})
    return panel.override_by_regexp(EXEMPT_NAMES, [grey])


# ---- tables ----


def look(**properties: Any) -> list[Any]:
    """Say how a column looks; `__` stands for the dot of Grafana's names."""
    names = {name.replace("__", "."): value for name, value in properties.items()}
    return [models.DynamicConfigValue(name, value) for name, value in names.items()]


def words(width: int, of: Mapping[int, tuple[str, str]]) -> list[Any]:
    """Make a column of coloured words."""
    return look(custom__width=width, mappings=says(of), custom__cellOptions={"type": "color-text"})


def matrix(
    title: str,
    description: str,
    size: tuple[int, int],
    columns: Mapping[str, str],
    keys: Mapping[str, str],
    looks: Mapping[str, Sequence[Any]],
    apart: Sequence[str] = ("job",),
    numbers: Sequence[str] = (),
    most_first: str = "",
) -> Any:
    """Make a table: a row for each set of the labels `keys`, a column for each query.

    Each query gives a label `column` with the name of its column. `keys` says under which names
    the labels are shown; rows that differ in a label of `apart` stay apart without showing it.
    Labels are text, in which "14400" comes before "900", but for those that are `numbers`. Rows are
    sorted by the first label, or by the column `most_first`, downwards.
    """
    panel = dressed(table.Panel(), title, description, "none", size)
    panel = panel.no_value(UNKNOWN).mappings(says({})).min_width(60)
    panel = with_targets(panel, tuple(now(query, "") for query in columns.values()))
    for id_, options in _as_matrix(columns, keys, apart, numbers, most_first):
        panel = panel.with_transformation(models.DataTransformerConfig(id_val=id_, options=options))
    for name, properties in looks.items():
        panel = panel.override_by_name(name, list(properties))
    return panel


def _as_matrix(
    columns: Mapping[str, str],
    keys: Mapping[str, str],
    apart: Sequence[str],
    numbers: Sequence[str],
    most_first: str,
) -> list[tuple[str, dict[str, Any]]]:
    """Give Grafana's transformations from one series per cell to one row per set of keys."""
    kept = [*keys, *apart, "column"]
    conversions = [{"targetField": label, "destinationType": "number"} for label in numbers]
    convert = [("convertFieldType", {"fields": {}, "conversions": conversions})] if numbers else []
    sort = {"field": most_first, "desc": True} if most_first else {"field": next(iter(keys))}
    places = {name: place for place, name in enumerate([*keys, *columns])}
    return [
        ("labelsToFields", {"mode": "columns", "keepLabels": kept, "valueLabel": "column"}),
        ("merge", {}),
        *convert,
        ("sortBy", {"fields": {}, "sort": [sort]}),
        (
            "organize",
            {
                "excludeByName": dict.fromkeys(("Time", *apart), True),
                "indexByName": places,
                "renameByName": dict(keys),
            },
        ),
    ]
