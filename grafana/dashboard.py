"""Write the Grafana dashboard *JupyterHub / Idle servers*; the JSON beside this file is its output.

    python grafana/dashboard.py            write grafana/dashboards/idle-servers.json
    python grafana/dashboard.py --check    exit 1 when the JSON is not what this file says

Change the dashboard here, never in the JSON. Grafana's schema 39 is written, which Grafana 11
reads as it is and newer ones migrate from.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from itertools import count, pairwise
from math import isinf
from pathlib import Path
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
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as common_models
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

OUTPUT = Path(__file__).parent / "dashboards" / "idle-servers.json"
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
SCHEMA_VERSION = 39

MINUTE, HOUR, DAY = 60, 3600, 86400
LIMITS = {
    "15 min": 15 * MINUTE,
    "30 min": 30 * MINUTE,
    "1 h": HOUR,
    "2 h": 2 * HOUR,
    "4 h": 4 * HOUR,
    "8 h": 8 * HOUR,
    "1 d": DAY,
}
IDLE_CLASSES = {
    "0-5 min": 5 * MINUTE,
    "5-15 min": 15 * MINUTE,
    "15-30 min": 30 * MINUTE,
    "30-60 min": HOUR,
    "1-2 h": 2 * HOUR,
    "2-4 h": 4 * HOUR,
    "4-8 h": 8 * HOUR,
    "8-24 h": DAY,
    "1-7 d": 7 * DAY,
    ">7 d": float("inf"),
}
AGE_CLASSES = {
    "0-15 min": 15 * MINUTE,
    "15-60 min": HOUR,
    "1-2 h": 2 * HOUR,
    "2-4 h": 4 * HOUR,
    "4-8 h": 8 * HOUR,
    "8-24 h": DAY,
    "1-2 d": 2 * DAY,
    "2-7 d": 7 * DAY,
    ">7 d": float("inf"),
}
FRESH_TO_OLD = (
    "#37872D",
    "#56A64B",
    "#96D98D",
    "#FFEE52",
    "#F2CC0C",
    "#FF9830",
    "#FA6400",
    "#E02F44",
    "#AD0317",
    "#7A0E2A",
)
STATE_COLOURS = {"active": "green", "idle": "orange", "pending": "blue"}
LESS_SAFE = "on, less protection"
MODE_COLOURS = {
    "on": "green",
    LESS_SAFE: "orange",
    "off": "blue",
    "standby": "blue",
    "grace": "yellow",
    "suspended": "red",
}
SERVER_HOURS = "suffix: h"  # Grafana's own unit h would turn 240 server-hours into 1.4 weeks


# ---- queries ----


def metric(name: str, *matchers: str) -> str:
    """Select a metric of the exporters that the person chose."""
    chosen = ('job=~"$job"', 'instance=~"$instance"', *matchers)
    return f"{name}{{{', '.join(chosen)}}}"


def bucket(name: str, upper: float) -> str:
    """Sum the servers at or below `upper` seconds."""
    le = metric(f"{name}_bucket", f'le="{"+Inf" if isinf(upper) else f"{upper:.1f}"}"')
    return f"sum({le})"


def past(limit: float) -> str:
    """Count the ready servers idle for longer than `limit` seconds."""
    name = "jupyterhub_server_idle_seconds"
    return f"{bucket(name, float('inf'))} - {bucket(name, limit)}"


def between(name: str, lower: float, upper: float) -> str:
    """Count the servers of a histogram between two of its bounds, in seconds."""
    if lower == 0:
        return bucket(name, upper)
    return f"{bucket(name, upper)} - {bucket(name, lower)}"


def hours(servers: str) -> str:
    """Integrate a number of servers over the range shown, in server-hours."""
    return f"sum_over_time(({servers})[$__range:1m]) / 60"


def per_poll(counter: str, by: str = "") -> str:
    """Divide a counter's increase by that of the polls, exporter by exporter."""
    grouping = f"job, instance, {by}" if by else "job, instance"
    polled = metric("hub_idle_exporter_polls_total")
    events = f"sum by ({grouping}) (increase({metric(counter)}[10m]))"
    polls = f"(sum by (job, instance) (increase({polled}[10m])) > 0)"
    outer = f"sum by ({by})" if by else "sum"
    return f"{outer} ({events} / on (job, instance) group_left () {polls})"


def increase(counter: str, window: str, by: str = "") -> str:
    """Sum a counter's increase over a window."""
    outer = f"sum by ({by})" if by else "sum"
    return f"{outer} (increase({metric(counter)}[{window}]))"


def or_zero(expression: str) -> str:
    """Say 0 where a filter leaves nothing."""
    return f"({expression} or vector(0))"


def quantile(share: float, histogram: str, window: str, by: str = "") -> str:
    """Estimate a quantile of a counting histogram; nothing where nothing was counted."""
    grouping = f"le, {by}" if by else "le"
    counted = f"sum by ({grouping}) (increase({metric(f'{histogram}_bucket')}[{window}]))"
    return f"histogram_quantile({share}, {counted}) >= 0"


def named(expression: str, state: str) -> str:
    """Give series the label `state`."""
    return f'label_replace({expression}, "state", "{state}", "", "")'


SERVERS = metric("jupyterhub_servers")
IDLE = metric("jupyterhub_servers", 'state="idle"')
LAST_SUCCESS = metric("hub_idle_exporter_last_poll_success_timestamp_seconds")
DATA_AGE = f"time() - ({LAST_SUCCESS} > 0)"
STALE_AFTER = f"3 * {metric('hub_idle_exporter_poll_interval_seconds')}"
BUILD_INFO = metric("hub_idle_exporter_build_info")
SEEN = f"last_over_time({BUILD_INFO}[6h])"
MODE = metric("hub_idle_exporter_enforcement")
STANDBY = f"{metric('hub_idle_exporter_standby')} == 1"
SUSPENDED = metric("hub_idle_exporter_enforcement", 'state="suspended"')
ENFORCING = metric("hub_idle_exporter_enforcement", 'state="on"')
LEAST_SAFEGUARD = f"min by (job, instance) ({metric('hub_idle_exporter_safeguard')})"
LESS_PROTECTION = f"{LEAST_SAFEGUARD} == 0 and on (job, instance) {ENFORCING} == 1"
MODES = (
    f"{MODE} == 1 unless on (job, instance) ({STANDBY} or {LESS_PROTECTION})"
    f" or {named(STANDBY, 'standby')} or {named(LESS_PROTECTION, LESS_SAFE)}"
)
PROBLEMS = {
    "exporter down": or_zero(f"count(({metric('up')} == 0) and on (job, instance) {SEEN})"),
    "no exporter": or_zero(f"absent({BUILD_INFO})"),
    "Hub not read": or_zero(f"sum(1 - {metric('jupyterhub_up')})"),
    "data stale": or_zero(f"count({DATA_AGE} > {STALE_AFTER})"),
    "suspended": or_zero(f"count({SUSPENDED} == 1 unless on (job, instance) {STANDBY})"),
    "less protection": or_zero(f"count({LESS_PROTECTION})"),
    "culls failed": or_zero(
        "count(sum by (job, instance) "
        f"(increase({metric('hub_idle_exporter_cull_failures_total')}[1h])) > 0)"
    ),
}


def query(expression: str, legend: str = "__auto", *, instant: bool = False) -> Any:
    """Make a target; the range of an instant one is `$__range`."""
    target = prometheus.Dataquery().datasource(DATASOURCE).expr(expression).legend_format(legend)
    return target.instant() if instant else target.range()


def table_query(expression: str) -> Any:
    """Make a target whose answer becomes the rows of a table."""
    return query(expression, instant=True).format(PromQueryFormat.TABLE)


# ---- panels ----


def dressed(panel: Any, title: str, description: str, unit: str, size: tuple[int, int]) -> Any:
    """Give a panel what every panel has; size is (columns of 24, height)."""
    width, height = size
    panel = panel.title(title).description(description).unit(unit).datasource(DATASOURCE)
    return panel.span(width).height(height)


def with_targets(panel: Any, targets: tuple[Any, ...]) -> Any:
    """Add targets, named by letters."""
    for letter, target in zip("ABCDEFGHIJKLMNOP", targets, strict=False):
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


def says(value: float, text: str, colour: str) -> models.ValueMap:
    """Show a word in place of one value."""
    result = models.ValueMappingResult(text=text, color=colour)
    return models.ValueMap(options={f"{value:g}": result})


def last_value() -> Any:
    """Reduce a series to its last number."""
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def number(title: str, description: str, unit: str, *targets: Any, levels: Any = None) -> Any:
    """Make a small panel with one number."""
    panel = dressed(stat.Panel(), title, description, unit, (4, 4))
    panel = panel.reduce_options(last_value()).color_mode(common_models.BigValueColorMode.VALUE)
    panel = panel.graph_mode(common_models.BigValueGraphMode.NONE).no_value("no data")
    panel = panel.wide_layout(False)
    return with_targets(panel.thresholds(levels or steps((None, "text"))), targets)


def bars(title: str, description: str, unit: str, size: tuple[int, int], *targets: Any) -> Any:
    """Make horizontal bars, one for each target or series."""
    panel = dressed(bargauge.Panel(), title, description, unit, size)
    panel = panel.reduce_options(last_value()).min(0).no_value("no data")
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


# ---- rows ----


def now() -> Iterator[Any]:
    """Answer at a glance: what is idle, what would be done, does it work."""
    yield number(
        "Idle servers",
        "Ready servers at or past the idle limit of their policy, as of the last poll.",
        "none",
        query(f"sum({IDLE})", "idle"),
        levels=steps((None, "orange")),
    )
    yield number(
        "Active servers",
        "Ready servers that have not reached the idle limit of their policy.",
        "none",
        query("sum({})".format(metric("jupyterhub_servers", 'state="active"')), "active"),
        levels=steps((None, "green")),
    )
    yield number(
        "Pending servers",
        "Servers that are spawning, stopping or not ready. They are never culled.",
        "none",
        query("sum({})".format(metric("jupyterhub_servers", 'state="pending"')), "pending"),
        levels=steps((None, "blue")),
    )
    yield number(
        "Idle share",
        "Idle servers as a part of all servers.",
        "percentunit",
        query(f"sum({IDLE}) / (sum({SERVERS}) > 0)", "idle share"),
        levels=steps((None, "green"), (0.3, "yellow"), (0.5, "orange")),
    ).decimals(0)
    yield number(
        "Would stop now",
        "Servers that the policy would stop now, by idle limit or maximum age, whether culling is"
        " on or not. Exempt servers are not among them; a busy one still is, until it is asked.",
        "none",
        query(f"sum({metric('jupyterhub_cull_candidates')})", "candidates"),
        levels=steps((None, "purple")),
    )
    yield (
        number(
            "Problems",
            "How many of these are so: exporter down or absent, Hub not read, data older than three"
            " poll intervals, culling suspended, servers culled with less protection than is"
            " possible, a cull failed within the hour. Which ones:"
            " in the row *The exporter itself*.",
            "none",
            query(" + ".join(PROBLEMS.values()), "problems", instant=True),
            levels=steps((None, "green"), (1, "red")),
        ).mappings([says(0, "none", "green")])
    )
    yield fixed(
        number(
            "Culling",
            "on: idle servers are stopped. on, less protection: a safeguard is missing. off:"
            " nothing is ever stopped. grace: waiting after a start or an outage. standby: another"
            " exporter of this Hub stops servers. suspended: culling was asked for and cannot be"
            " done.",
            "none",
            query(f"max by (state) ({MODES})", "{{state}}", instant=True),
        ).text_mode(common_models.BigValueTextMode.NAME),
        MODE_COLOURS,
    )
    yield number(
        "Age of data",
        "Time since the last poll that worked. Colours fit the default interval of 60 s:"
        " yellow past three intervals, red past ten minutes.",
        "s",
        query(f"max({DATA_AGE})", "age"),
        levels=steps((None, "green"), (180, "yellow"), (600, "red")),
    ).decimals(0)
    yield number(
        "Culled",
        "Servers stopped over the range shown, each verified. Prometheus estimates increases:"
        " over short ranges it may be off by one.",
        "none",
        query(increase("hub_idle_exporter_culls_total", "$__range"), "culled", instant=True),
        levels=steps((None, "text")),
    ).decimals(0)
    yield number(
        "Spared, each poll",
        "Candidates spared at the last moment (busy, active again, restarted, …), as an average"
        " over the polls of ten minutes: a server that computes for an hour counts at each poll.",
        "none",
        query(per_poll("hub_idle_exporter_culls_withheld_total"), "spared"),
        levels=steps((None, "text")),
    ).decimals(1)
    yield number(
        "Failed culls",
        "Stops that failed over the range shown, and servers that lived on. 0 is what one wants.",
        "none",
        query(
            increase("hub_idle_exporter_cull_failures_total", "$__range"), "failed", instant=True
        ),
        levels=steps((None, "green"), (0.5, "red")),
    ).decimals(0)
    yield number(
        "Idle server-hours",
        "Hours that servers ran idle past their limit, over the range shown: what they cost.",
        SERVER_HOURS,
        query(
            f"{increase('hub_idle_exporter_idle_server_seconds_total', '$__range')} / 3600",
            "idle",
            instant=True,
        ),
        levels=steps((None, "orange")),
    ).decimals(1)


def over_time() -> Iterator[Any]:
    """Answer: how has it been."""
    half = (12, 8)
    yield stacked(
        fixed(
            lines(
                "Servers by state",
                "Every running or pending server, by state. Gaps are times without a good poll.",
                "none",
                half,
                query(f"sum by (state) ({SERVERS})", "{{state}}"),
            ),
            STATE_COLOURS,
        )
    )
    yield lines(
        "Idle share by policy",
        "Idle servers as a part of all servers, for each policy and for all together.",
        "percentunit",
        half,
        query(f"sum({IDLE}) / (sum({SERVERS}) > 0)", "all"),
        query(f"sum by (policy) ({IDLE}) / (sum by (policy) ({SERVERS}) > 0)", "{{policy}}"),
    ).max(1)
    yield stacked(
        lines(
            "Servers by policy",
            "Every running or pending server, by the policy that decides for it.",
            "none",
            half,
            query(f"sum by (policy) ({SERVERS})", "{{policy}}"),
        )
    )
    yield stacked(
        lines(
            "Idle servers by policy",
            "Ready servers at or past the idle limit of their policy.",
            "none",
            half,
            query(f"sum by (policy) ({IDLE})", "{{policy}}"),
        )
    )


def what_a_limit_would_do() -> Iterator[Any]:
    """Answer before anything is enforced: which limit would bring what."""
    third = (8, 9)
    yield bars(
        "Servers past each limit, now",
        "How many ready servers have been idle for longer than each limit: with that limit for"
        " everybody, and nobody exempt or busy, they would be stopped now.",
        "none",
        third,
        *(query(past(limit), name) for name, limit in LIMITS.items()),
    )
    yield fixed(
        lines(
            "Servers past each limit, over time",
            "The same over the range shown.",
            "none",
            third,
            *(query(past(limit), name) for name, limit in LIMITS.items()),
        ),
        dict(zip(LIMITS, FRESH_TO_OLD[1:], strict=False)),
    )
    yield (
        bars(
            "Server-hours each limit would have given back",
            "Over the range shown, the hours that ready servers ran beyond each limit. What was"
            " culled meanwhile is not in it, nor what a person would have started again.",
            SERVER_HOURS,
            third,
            *(query(hours(past(limit)), name, instant=True) for name, limit in LIMITS.items()),
        )
        .decimals(1)
        .thresholds(steps((None, "green")))
    )
    yield policies()


def policies() -> Any:
    """Make a table of the policies: limits and servers, a row for each policy."""
    columns = {
        "Idle limit": metric("jupyterhub_policy_timeout_seconds"),
        "Maximum age": metric("jupyterhub_policy_max_age_seconds"),
        "Active": metric("jupyterhub_servers", 'state="active"'),
        "Idle": metric("jupyterhub_servers", 'state="idle"'),
        "Pending": metric("jupyterhub_servers", 'state="pending"'),
        "Would stop now": metric("jupyterhub_cull_candidates"),
    }
    limits = ("Idle limit", "Maximum age")
    cells = (
        f"{'max' if column in limits else 'sum'} by (policy, column) "
        f'(label_replace({source}, "column", "{column}", "", ""))'
        for column, source in columns.items()
    )
    panel = dressed(
        table.Panel(),
        "Policies",
        "The limits in force and the servers under each policy now.",
        "none",
        (24, 6),
    )
    target = table_query(" or ".join(cells))
    matrix = {"rowField": "policy", "columnField": "column", "valueField": "Value"}
    places = {name: place for place, name in enumerate(["policy\\column", *columns])}
    organise = {"indexByName": places, "renameByName": {"policy\\column": "Policy"}}
    for id_, options in (("groupingToMatrix", matrix), ("organize", organise)):
        transformation = models.DataTransformerConfig(id_val=id_, options=options)
        panel = panel.with_transformation(transformation)
    for name in limits:
        unit = models.DynamicConfigValue("unit", "s")
        no_limit = models.DynamicConfigValue("mappings", [says(0, "none", "text")])
        panel = panel.override_by_name(name, [unit, no_limit])
    return with_targets(panel, (target,))


def spread(
    histogram: str, classes: dict[str, float], now_title: str, time_title: str, what: str
) -> Iterator[Any]:
    """Show a histogram now, as bars, and over time, as areas."""
    bounds = [0, *classes.values()]
    colours = dict(zip(classes, FRESH_TO_OLD, strict=False))
    targets = [
        (name, between(histogram, lower, upper))
        for name, (lower, upper) in zip(classes, pairwise(bounds), strict=True)
    ]
    yield fixed(
        bars(
            now_title,
            f"{what}, now.",
            "none",
            (8, 10),
            *(query(expression, name) for name, expression in targets),
        ),
        colours,
    )
    yield stacked(
        fixed(
            lines(
                time_title,
                f"{what}, over the range shown.",
                "none",
                (16, 10),
                *(query(expression, name) for name, expression in targets),
            ),
            colours,
        )
    )


def how_spread() -> Iterator[Any]:
    """Answer: how long idle, and how old."""
    yield from spread(
        "jupyterhub_server_idle_seconds",
        IDLE_CLASSES,
        "Idle times, now",
        "Idle times, over time",
        "Ready servers by the time since their last activity",
    )
    yield from spread(
        "jupyterhub_server_age_seconds",
        AGE_CLASSES,
        "Ages, now",
        "Ages, over time",
        "Servers by the time since they were started",
    )


def culls() -> Iterator[Any]:
    """Answer: what was stopped, what was spared and why, what failed."""
    yield stacked(
        lines(
            "Culled, by policy and reason",
            "Servers stopped within the hour before, each verified.",
            "none",
            (12, 8),
            query(
                increase("hub_idle_exporter_culls_total", "1h", "policy, reason"),
                "{{policy}}: {{reason}}",
            ),
        )
    )
    yield stacked(
        lines(
            "Spared, by cause",
            "Candidates spared at the last moment, each poll on average. busy: a kernel computes."
            " active_again: used since the listing, or the server knows of activity. probe_failed:"
            " it could not be asked, so it lives. limit: more than --max-culls. stale: the stop"
            " came too late. list: the list of users may have had gaps.",
            "none",
            (12, 8),
            query(per_poll("hub_idle_exporter_culls_withheld_total", "cause"), "{{cause}}"),
        )
    )
    third = (8, 8)
    yield stacked(
        lines(
            "Failed, by cause",
            "Stops that failed within the hour before. not_stopped: the server lives on, an orphan"
            " if the Hub has forgotten it, or nothing shows that it stopped. slow: still stopping"
            " after 5 minutes.",
            "none",
            third,
            query(increase("hub_idle_exporter_cull_failures_total", "1h", "cause"), "{{cause}}"),
        )
    )
    duration = "hub_idle_exporter_cull_duration_seconds"
    yield lines(
        "How long a stop takes",
        "From the stop sent to the server verified as stopped, of the hour before.",
        "s",
        third,
        query(quantile(0.5, duration, "1h"), "half within"),
        query(quantile(0.95, duration, "1h"), "95 % within"),
    )
    yield lines(
        "Servers asked, by answer",
        "What servers said when they were asked right before a stop, within the hour before."
        " failed: no answer could be had, and the server was spared.",
        "none",
        third,
        query(increase("hub_idle_exporter_busy_checks_total", "1h", "result"), "{{result}}"),
    )


def idle_server_hours() -> Iterator[Any]:
    """Answer: what do idle servers cost."""
    counter = "hub_idle_exporter_idle_server_seconds_total"
    yield stacked(
        lines(
            "Idle server-hours in the hour before",
            "Hours that servers ran idle past their limit. 5 means: as if five servers had been"
            " idle past their limit all that hour.",
            SERVER_HOURS,
            (12, 8),
            query(f"{increase(counter, '1h', 'policy')} / 3600", "{{policy}}"),
        )
    )
    by_policy = f"{increase(counter, '$__range', 'policy')} / 3600"
    yield bars(
        "Idle server-hours by policy",
        "Hours that servers ran idle past their limit, over the range shown.",
        SERVER_HOURS,
        (6, 8),
        query(by_policy, "{{policy}}", instant=True),
    ).decimals(1)
    everything = hours(f"sum({SERVERS})")
    yield (
        number(
            "Idle part of all server-hours",
            "Of the hours that servers ran over the range shown, the part that they ran idle past"
            " their limit.",
            "percentunit",
            query(f"{increase(counter, '$__range')} / 3600 / ({everything} > 0)", instant=True),
            levels=steps((None, "green"), (0.3, "yellow"), (0.5, "orange")),
        )
        .span(6)
        .height(8)
        .decimals(1)
    )


def the_exporter() -> Iterator[Any]:
    """Answer: can the numbers above be trusted."""
    problems = number(
        "Problems, one by one",
        "What the number of problems at the top is made of. Each has a page of its own in"
        " docs/runbooks.",
        "none",
        *(query(expression, name, instant=True) for name, expression in PROBLEMS.items()),
        levels=steps((None, "green"), (1, "red")),
    )
    yield problems.span(24).height(5).mappings([says(0, "no", "green")])
    third = (8, 8)
    failures = increase("hub_idle_exporter_poll_failures_total", "1h", "cause")
    yield lines(
        "Polls, and failed ones by cause",
        "Polls attempted within the hour before, and those of them that failed.",
        "none",
        third,
        query(increase("hub_idle_exporter_polls_total", "1h"), "polls"),
        query(failures, "failed: {{cause}}"),
    )
    yield lines(
        "Age of data",
        "Time since the last poll that worked, at most in the five minutes before, and three poll"
        " intervals, past which the data counts as stale and /-/ready says 503.",
        "s",
        third,
        query(f"max_over_time(max({DATA_AGE})[5m:15s])", "age"),
        query(f"max({STALE_AFTER})", "stale past"),
    )
    yield (
        lines(
            "How long a poll takes",
            "Duration of the last poll, beside the interval between polls.",
            "s",
            third,
            query(f"max({metric('hub_idle_exporter_poll_duration_seconds')})", "poll"),
            query(f"max({metric('hub_idle_exporter_poll_interval_seconds')})", "interval"),
        )
        .scale_distribution(
            common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
        )
        .min(0.001)
    )
    yield lines(
        "Hub requests: 95 % answered within",
        "How long the Hub takes to answer us, by operation, in the ten minutes before.",
        "s",
        (12, 8),
        query(
            quantile(0.95, "hub_idle_exporter_hub_request_duration_seconds", "10m", "operation"),
            "{{operation}}",
        ),
    )
    yield lines(
        "The Hub's own count beside the true one",
        "jupyterhub_running_servers drifts from the truth until the Hub is restarted. Empty where"
        " the Hub's own metrics are not collected; the job that collects them is chosen above.",
        "none",
        (12, 8),
        query(f"sum({SERVERS})", "listed by the Hub"),
        query('sum(jupyterhub_running_servers{job=~"$hub_job"})', "jupyterhub_running_servers"),
    )
    half = (12, 8)
    yield lines(
        "Clock skew",
        "The Hub's clock minus the exporter's. Past 60 s, either way, nothing is culled.",
        "s",
        half,
        query(metric("hub_idle_exporter_clock_skew_seconds"), "{{instance}}"),
    ).min(None)
    yield lines(
        "Policy file",
        "Reloads of the policy file within the hour before, and failed ones: the policies before"
        " the broken change stay in force.",
        "none",
        half,
        query(increase("hub_idle_exporter_policy_reloads_total", "1h"), "reloaded"),
        query(increase("hub_idle_exporter_policy_reload_failures_total", "1h"), "failed"),
    )
    yield scopes(half)
    yield safeguards(half)
    yield (
        number(
            "Versions",
            "Versions of the exporter and of the Hub.",
            "none",
            query(
                f"max by (version) ({BUILD_INFO})", "hub-idle-exporter {{version}}", instant=True
            ),
            query(
                f"max by (version) ({metric('jupyterhub_info')})",
                "JupyterHub {{version}}",
                instant=True,
            ),
            levels=steps((None, "text")),
        )
        .span(24)
        .height(3)
        .text_mode(common_models.BigValueTextMode.NAME)
    )


def scopes(size: tuple[int, int]) -> Any:
    """Show which scopes the token has."""
    return yes_or_no(
        "What the token may do",
        "Scopes of the token. Monitoring needs list:users and read:servers (and read:users:groups"
        " for policies by group); culling delete:servers, proxy and tokens."
        " A missing one is no fault where its use is not wanted.",
        size,
        ("scope", "hub_idle_exporter_scope_granted"),
        "Granted",
        ("granted", "missing"),
    )


def safeguards(size: tuple[int, int]) -> Any:
    """Show what protects people when servers are stopped."""
    return yes_or_no(
        "What protects people",
        "busy_check: each server is asked before it is stopped. stop_token: a stop is good for"
        " seconds only, by the Hub's own clock. lease: one exporter per Hub stops servers."
        " Where nothing is ever stopped, none is needed.",
        size,
        ("safeguard", "hub_idle_exporter_safeguard"),
        "In place",
        ("yes", "no"),
    )


def yes_or_no(
    title: str,
    description: str,
    size: tuple[int, int],
    of: tuple[str, str],
    column: str,
    words: tuple[str, str],
) -> Any:
    """Make a table of a gauge of 0 or 1; `of` is its label and its name, `words` say 1 and 0."""
    panel = dressed(table.Panel(), title, description, "none", size)
    label, name = of
    panel = panel.with_target(table_query(f"min by ({label}) ({metric(name)})").ref_id("A"))
    organise = {"excludeByName": {"Time": True}, "renameByName": {label: label.capitalize()}}
    transformation = models.DataTransformerConfig(id_val="organize", options=organise)
    panel = panel.with_transformation(transformation)
    yes, no = words
    properties = [
        models.DynamicConfigValue("mappings", [says(0, no, "orange"), says(1, yes, "green")]),
        models.DynamicConfigValue("displayName", column),
        models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
    ]
    return panel.override_by_name("Value", properties)


# ---- the whole ----

ROWS = {
    "Now": now,
    "Over time": over_time,
    "What a limit would do": what_a_limit_would_do,
    "How idle times and ages are spread": how_spread,
    "Culls": culls,
    "What idleness costs": idle_server_hours,
    "The exporter itself": the_exporter,
}


def query_variable(name: str, label: str, values: str) -> Any:
    """Let people choose among the values of a label."""
    variable = dashboard.QueryVariable(name).label(label).datasource(DATASOURCE).query(values)
    variable = variable.multi(True).include_all(True).all_value(".+")
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    everything = models.VariableOption(text=["All"], value=["$__all"], selected=True)
    return variable.sort(models.VariableSort.ALPHABETICAL_ASC).current(everything)


def variables() -> Iterator[Any]:
    """Choose the data source, the exporters, and who collects the Hub's own metrics."""
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    build_info = "hub_idle_exporter_build_info"
    yield query_variable("job", "Job", f"label_values({build_info}, job)")
    of_job = f'label_values({build_info}{{job=~"$job"}}, instance)'
    yield query_variable("instance", "Instance", of_job)
    of_hub = "label_values(jupyterhub_running_servers, job)"
    yield query_variable("hub_job", "Hub's own job", of_hub)


def annotation(name: str, expression: str, text: str, colour: str) -> dict[str, Any]:
    """Mark moments in every graph, as Grafana's Prometheus data source reads it."""
    return {
        "name": name,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "titleFormat": text,
        "target": {"expr": expression, "interval": "60s", "refId": "Anno"},
    }


def annotations() -> Iterator[dict[str, Any]]:
    """Mark failed culls and changes of mode."""
    failures = metric("hub_idle_exporter_cull_failures_total")
    failed = f"sum by (instance, cause) (increase({failures}[2m])) > 0"
    yield annotation("Failed culls", failed, "cull failed: {{cause}}", "red")
    changed = f"{MODE} == 1 and changes({MODE}[2m]) > 0"
    yield annotation("Mode changes", changed, "culling: {{state}}", "purple")


def build() -> dict[str, Any]:
    """Put it all together, as Grafana's JSON."""
    board = (
        dashboard.Dashboard("JupyterHub / Idle servers")
        .uid("hub-idle-exporter")
        .description(
            "What is idle on a JupyterHub, what it costs, what a limit would do, what was culled"
            " and spared, and whether culling works. Made by grafana/dashboard.py."
        )
        .tags(["jupyterhub", "hub-idle-exporter"])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("JupyterHub's own dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["jupyterhub"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for variable in variables():
        board = board.with_variable(variable)
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels():
            board = board.with_panel(panel)
    result: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    return finished(result)


def finished(board: dict[str, Any]) -> dict[str, Any]:
    """Add what the SDK leaves out, and take away what Grafana does not know of."""
    ids = count(1)
    for panel in board["panels"]:
        panel["id"] = next(ids)
        panel.get("options", {}).pop("footer", None)
    for variable in board["templating"]["list"]:
        variable.setdefault("current", {"selected": True, "text": "default", "value": "default"})
        for key in ("auto", "auto_count", "auto_min"):
            del variable[key]
    for link in board["links"]:
        del link["placement"]
    board["annotations"] = {"list": list(annotations())}
    return board | {"schemaVersion": SCHEMA_VERSION, "id": None, "version": 1}


def main(arguments: list[str]) -> int:
    """Write the JSON, or compare it with what this file says."""
    text = json.dumps(build(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    if arguments == ["--check"]:
        if OUTPUT.read_text() == text:
            return 0
        differs = f"{OUTPUT.name} differs from grafana/dashboard.py; run it to write the JSON anew."
        sys.stderr.write(f"{differs}\n")
        return 1
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
