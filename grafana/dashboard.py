"""Write the Grafana dashboard *JupyterHub / Idle servers*; the JSON beside this file is its output.

    python grafana/dashboard.py            write grafana/dashboards/idle-servers.json
    python grafana/dashboard.py --check    exit 1 when the JSON is not what this file says

Change the dashboard here, in `panels.py` and in `queries.py`, never in the JSON. Grafana's schema
39 is written, which Grafana 11 reads as it is and newer ones migrate from.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import queries as q
from panels import (
    DATASOURCE,
    SERVER_HOURS,
    THOUSANDS,
    bars,
    fixed,
    lines,
    look,
    matrix,
    named_alike,
    now,
    number,
    over_time,
    says,
    stacked,
    steps,
    words,
)
from queries import CULL_FAILURES, CULLS, DAY, EXPORTER, HOUR, IDLE_SECONDS, MINUTE, metric

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common, dashboard
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as common_models
    from grafana_foundation_sdk.models import dashboard as models

OUTPUT = Path(__file__).parent / "dashboards" / "idle-servers.json"
SCHEMA_VERSION = 39
COLUMNS = 24

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
SPARED_COLOURS = {
    "spared: in_use": "blue",
    "spared: query_failed": "red",
    "would stop": "purple",
}
NO_QUERY = "No spare query"
NO_SERVERS = "No data: the exporter runs without --per-server-metrics"
NOTICE_COLOURS = {
    "due: sent": "blue",
    "due: failed": "red",
    "stopped: sent": "purple",
    "stopped: failed": "orange",
}
LEGEND = "{{cluster}} {{hub}} {{instance}}"

EXPORTER_WORDS = {1: ("up", "green"), 0: ("DOWN", "red"), 2: ("GONE", "red")}
HUB_WORDS = {
    1: ("read", "green"),
    0: ("NOT READ", "red"),
    2: ("STALE", "red"),
    3: ("first poll", "blue"),
}
CULLING_WORDS = {
    q.OFF: ("off", "blue"),
    q.ON: ("on", "green"),
    q.GRACE_PERIOD: ("grace", "orange"),
    q.IS_SUSPENDED: ("SUSPENDED", "red"),
    q.WAITS: ("waits for Hub", "orange"),
    q.ON_STANDBY: ("standby", "blue"),
    q.UNASKED: ("on, not asking", "red"),
    q.LESS_SAFE: ("on, less safe", "orange"),
}
ASKS_WORDS = {1: ("yes", "green"), 0: ("NO", "red"), 2: ("not needed", "text")}
MINOR = (
    "less protection",
    "stops failing",
    "people not told",
    "query failing",
    "policy file broken",
    "web config broken",
    "clock skew",
)
PROBLEM_WORDS = {
    q.NO_PROBLEM: ("none", "green"),
    **{
        number: (name, "orange" if name in MINOR else "red")
        for number, name in enumerate(q.PROBLEMS, q.NO_PROBLEM + 1)
    },
}


# ---- open: what one asks first ----


def hubs() -> Any:
    """Answer first of all: does it work?"""
    age = look(custom__minWidth=70, unit="s", decimals=0, mappings=says({}))
    count_of = look(custom__minWidth=54, decimals=0)  # they share what others leave
    return matrix(
        "Hubs: does it work?",
        "One row per exporter, with the first of its problems, if any. Stopped, failed and idle"
        " hours are totals of the selected time range; everything else is the current state. A"
        " dash means unknown. off: monitoring only, nothing is ever stopped, so servers need not be"
        " asked. not asking: servers that are computing may be stopped. standby: another exporter"
        " of this Hub stops servers. first poll: the exporter has just started.",
        (24, 5),
        {column: q.cell(column, expression) for column, expression in q.HUBS.items()},
        {"name": "Hub / exporter"},
        {
            "Hub / exporter": look(custom__width=215),
            "Exporter": words(76, EXPORTER_WORDS),
            "Hub": words(86, HUB_WORDS),
            "Culling": words(108, CULLING_WORDS),
            "Asks first": words(92, ASKS_WORDS),
            "Problem": words(134, PROBLEM_WORDS),
            "Data age": age,
            "Servers": count_of,
            "Idle": count_of,
            "Would stop": look(custom__width=90, decimals=0),
            "Stopped": count_of,
            "Failed": count_of,
            "Idle hours": look(custom__width=84, decimals=0),
        },
    )


def numbers() -> Iterator[Any]:
    """Answer: how much is idle, what does it cost, is anybody harmed?"""
    yield number(
        "Idle now",
        "Ready servers at or past the idle limit of their policy, including exempt ones, on all"
        " Hubs with current data.",
        "none",
        now(q.total(q.IDLE), "idle"),
        levels=steps((None, "text"), (0.001, "orange")),
    )
    yield number(
        "In use now",
        "Ready servers that have not reached the idle limit of their policy.",
        "none",
        now(q.total(q.ACTIVE), "in use"),
        levels=steps((None, "text"), (1, "green")),
    )
    yield number(
        "Would stop now",
        "Servers that the policies would stop now, because of their idle limit or maximum age,"
        " whether culling is on or not. Exempt servers and those that the second opinion spares are"
        " not counted. Servers that are computing are: they are spared only when they are asked.",
        "none",
        now(q.would_stop(), "would stop"),
        levels=steps((None, "text"), (1, "purple")),
    )
    idle_hours = f"{q.increase(IDLE_SECONDS, '$__range')} / 3600"
    yield cost(
        "Idle cost, range",
        "What servers cost while they were idle past their limit, over the selected time range."
        " Those that the second opinion spares count as idle, too. In server-hours, unless you"
        " enter the cost of a server-hour above.",
        idle_hours,
        "none",
        2,
    )
    yield cost(
        "Idle cost per month",
        "At this rate: what the average number of idle servers in the selected time range would"
        " cost in a month of 730 hours. Times without data are left out of the average. The longer"
        " the range, the better the estimate. In server-hours, unless you enter the cost of a"
        " server-hour above.",
        q.per_month(q.IDLE),
        THOUSANDS,
        0,
    )
    yield number(
        "Computing, spared",
        "Servers past their limit that the last culling pass asked, found computing and left alone."
        " A dash if no server is asked, because culling is off or suspended or does not ask, and"
        " until the first answers of a pass.",
        "none",
        now(q.total(q.COMPUTING), "computing"),
        levels=steps((None, "text")),
    )


def cost(title: str, description: str, server_hours: str, unit: str, decimals: int) -> Any:
    """Make a number of money, or of server-hours while no price is known."""
    panel = number(
        title,
        description,
        unit,
        now(q.priced(server_hours), "money"),
        now(q.unpriced(server_hours), "server-hours"),
        levels=steps((None, "text"), (0.001, "orange")),
    )
    return panel.decimals(decimals).override_by_name(
        "server-hours", look(unit=SERVER_HOURS, decimals=0)
    )


def servers_by_state() -> Any:
    """Answer: what happened, and what did culling change?"""
    return stacked(
        fixed(
            lines(
                "Servers by state",
                "All running and pending servers, by state. Gaps are times without a successful"
                " poll.",
                "none",
                (10, 9),
                over_time(f"sum by (state) ({q.SERVERS})", "{{state}}"),
            ),
            STATE_COLOURS,
        )
    )


def what_limits_give_back() -> Any:
    """Answer before anything is enforced: which limit would bring what?"""
    given_back = q.hours(f"sum by (limit) ({q.OVER_LIMIT})")
    columns = {
        "Would stop now": f"({q.total(q.OVER_LIMIT, 'limit')}) or NaN * {given_back}",
        "Server-hours": given_back,
        "Money": q.priced(given_back),
    }
    names = {seconds: (name, "text") for name, seconds in LIMITS.items()}
    bar = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
    green = {"mode": "fixed", "fixedColor": "green"}
    return matrix(
        "What a limit would have given back",
        "For each value of --timeout, with exemptions and policies' own timeouts unchanged: how"
        " many servers would be stopped now, and for how many hours servers ran past the limit in"
        " the selected time range. Servers that have been stopped in the meantime no longer add"
        " hours, and servers that people would have started again are not subtracted. Money: hours"
        " times the cost entered above.",
        (8, 9),
        {name: q.labelled(query, "column", name) for name, query in columns.items()},
        {"limit": "Limit"},
        {
            "Limit": look(custom__width=70, mappings=says(names), custom__align="left"),
            "Would stop now": look(custom__width=118, decimals=0),
            "Server-hours": look(
                custom__cellOptions=bar, color=green, fieldMinMax=True, min=0, decimals=0
            ),
            "Money": look(custom__width=80, decimals=2),
        },
        numbers=("limit",),
    )


def idle_by_policy() -> Any:
    """Answer: whose servers are idle?"""
    return by_policy_over_time(
        "Idle servers by policy",
        "Ready servers at or past the idle limit of their policy. Exempt servers are never"
        " stopped.",
        q.IDLE,
        (6, 9),
    )


def by_policy_over_time(title: str, description: str, facts: str, size: tuple[int, int]) -> Any:
    """Stack a number of servers by policy."""
    targets = (over_time(query, legend) for query, legend in q.by_policy(facts))
    return named_alike(stacked(lines(title, description, "none", size, *targets)))


def at_a_glance() -> Iterator[Any]:
    """Give the panels that are open: what one asks first."""
    yield hubs()
    yield from numbers()
    yield servers_by_state()
    yield what_limits_give_back()
    yield idle_by_policy()


# ---- folded: what one asks next ----


def limits_and_policies() -> Iterator[Any]:
    """Answer: which limits are in force, and for how many servers?"""
    yield policies()
    yield by_policy_over_time(
        "Servers by policy",
        "All running and pending servers, by the policy that applies to them.",
        q.SERVERS,
        (8, 8),
    )
    shares = (
        (f"{idle} / ({servers} > 0)", legend)
        for (idle, legend), (servers, _) in zip(
            q.by_policy(q.IDLE), q.by_policy(q.SERVERS), strict=True
        )
    )
    yield fixed(
        named_alike(
            lines(
                "Idle share by policy",
                "Idle servers as a share of all servers, for each policy and for all together.",
                "percentunit",
                (8, 8),
                *(over_time(query, legend) for query, legend in shares),
                over_time(f"sum({q.IDLE}) / (sum({q.SERVERS}) > 0)", "all together"),
            ).max(1)
        ),
        {"all together": "text"},
    )
    yield fixed(
        lines(
            "Servers past each limit",
            "How many servers each value of --timeout would have stopped, at each moment.",
            "none",
            (8, 8),
            *(
                over_time(
                    "sum({})".format(metric("jupyterhub_servers_over_limit", f'limit="{seconds}"')),
                    name,
                )
                for name, seconds in LIMITS.items()
            ),
        ),
        dict(zip(LIMITS, FRESH_TO_OLD[1:], strict=False)),
    )


def policies() -> Any:
    """Make a table of the policies of each Hub: limits and servers."""
    by = f"{EXPORTER}, policy"
    limits = {
        "Idle limit": "jupyterhub_policy_timeout_seconds",
        "Maximum age": "jupyterhub_policy_max_age_seconds",
        "Exempt": "jupyterhub_policy_exempt",
    }
    counts = {
        name: metric("jupyterhub_servers", f'state="{state}"')
        for name, state in (("Active", "active"), ("Idle", "idle"), ("Pending", "pending"))
    }
    columns = {name: f"max by ({by}) ({q.fresh(metric(limit))})" for name, limit in limits.items()}
    columns |= {name: q.total(facts, by) for name, facts in counts.items()}
    columns["Would stop now"] = q.would_stop(by)
    # A column for those who use it.
    columns["Kept"] = f"{q.total(q.KEPT, by)} and on () ({q.total(q.KEPT)} > 0)"
    return matrix(
        "Policies",
        "The limits in force on each Hub and the servers under each policy, now. Exempt servers are"
        " never stopped; their limit only decides what counts as idle. Kept: people keep them for"
        " a while; the column is there only while somebody does.",
        (24, 7),
        {
            name: q.with_name(q.labelled(f"({query})", "column", name))
            for name, query in columns.items()
        },
        {"name": "Hub / exporter", "policy": "Policy"},
        {
            "Hub / exporter": look(custom__width=215),
            "Idle limit": look(unit="s"),
            "Maximum age": look(unit="s", mappings=says({0: ("none", "text")})),
            "Exempt": look(mappings=says({0: ("no", "text"), 1: ("exempt", "text")})),
            "Would stop now": look(custom__minWidth=118),
            "Kept": look(custom__width=70),
        },
    )


def spread(
    histogram: str, classes: dict[str, float], now_title: str, time_title: str, what: str
) -> Iterator[Any]:
    """Show a histogram now, as bars, and over time, as areas."""
    bounds = [0, *classes.values()]
    colours = dict(zip(classes, FRESH_TO_OLD, strict=False))
    targets = [
        (name, q.between(histogram, lower, upper))
        for name, (lower, upper) in zip(classes, pairwise(bounds), strict=True)
    ]
    yield fixed(
        bars(
            now_title,
            f"{what}, now.",
            "none",
            (8, 10),
            *(now(expression, name) for name, expression in targets),
        ),
        colours,
    )
    yield stacked(
        fixed(
            lines(
                time_title,
                f"{what}, at each moment.",
                "none",
                (16, 10),
                *(over_time(expression, name) for name, expression in targets),
            ),
            colours,
        )
    )


def how_spread() -> Iterator[Any]:
    """Answer: how long idle, and how old?"""
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
        "Ready servers by the time since they were started",
    )


def culls() -> Iterator[Any]:
    """Answer: what was stopped, what was spared and why, what failed?"""
    third = (8, 8)
    yield by_policy_over_time(
        "Stopped, by policy",
        "Servers stopped within the previous hour, each one verified.",
        f"increase({metric(CULLS)}[1h])",
        third,
    )
    yield stacked(
        lines(
            "Stopped, by reason",
            "idle: past the idle limit. max_age: past the maximum age.",
            "none",
            third,
            over_time(q.increase(CULLS, "1h", "reason"), "{{reason}}"),
        )
    )
    yield stacked(
        lines(
            "Last culling pass, by outcome",
            "What became of the candidates of the last culling pass, at each moment. busy: a kernel"
            " is computing. active_again: used since it was listed, or the server itself reports"
            " activity. probe_failed: the server gave no usable answer, so it was left running."
            " limit: --max-culls was reached. stale: the stop would have come too late. list: the"
            " list of users may be incomplete. kept: somebody keeps it. notice: its notice is not"
            " over, or nobody could be told. in_use: the spare query does not say 0 for it."
            " query_failed: the spare query failed.",
            "none",
            third,
            over_time(f"sum by (outcome) ({q.LAST_PASS}) > 0", "{{outcome}}"),
        )
    )
    yield stacked(
        lines(
            "Failed, by cause",
            "Stops that failed within the previous hour. not_stopped: the server still runs (as an"
            " orphan, if the Hub no longer knows it), or there is no proof that it stopped. slow:"
            " still stopping after 5 minutes.",
            "none",
            third,
            over_time(q.increase(CULL_FAILURES, "1h", "cause"), "{{cause}}"),
        )
    )
    duration = "hub_idle_exporter_cull_duration_seconds"
    yield lines(
        "How long a stop takes",
        "From sending the stop until the server is verified as stopped, for the previous hour.",
        "s",
        third,
        over_time(q.quantile(0.5, duration, "1h"), "median"),
        over_time(q.quantile(0.95, duration, "1h"), "95th percentile"),
    )
    yield lines(
        "Servers asked, by answer",
        "What servers answered when they were asked right before a stop, within the previous hour."
        " A server that keeps computing is counted at each poll. failed: no usable answer, so the"
        " server was left running.",
        "none",
        third,
        over_time(q.increase("hub_idle_exporter_busy_checks_total", "1h", "result"), "{{result}}"),
    )


def keeps_and_notices() -> Iterator[Any]:
    """Answer: what do people keep, and are they told before a stop?"""
    third = (8, 8)
    yield by_policy_over_time(
        "Kept servers, by policy",
        "Servers that people keep for a while, in use or not. None without --keep-max.",
        q.KEPT,
        third,
    )
    notices = q.increase("hub_idle_exporter_notifications_total", "1h", "event, result")
    yield fixed(
        lines(
            "Notices, sent and failed",
            "Attempts to tell people within the previous hour. due: a server will be stopped."
            " stopped: it was. Without a notify file, an announcement on the page alone counts as"
            " sent. None without --notice and --notify-file.",
            "none",
            third,
            over_time(notices, "{{event}}: {{result}}"),
        ),
        NOTICE_COLOURS,
    )
    yield lines(
        "Announcements not delivered yet",
        "Announcements of stops that failed and are tried again. Until that works, their servers"
        " are not stopped for being idle. A line that stays at 1 may be one person who cannot be"
        " told at all; the log says who.",
        "none",
        third,
        over_time(q.each(metric("hub_idle_exporter_notices_undelivered")), LEGEND),
    )


def second_opinion() -> Iterator[Any]:
    """Answer: what does the spare query spare, does it work, which threshold is right?"""
    half = (12, 8)
    spared = f"sum by (cause) ({q.SPARED})"
    yield fixed(
        lines(
            "Would stop now, and spared",
            "Servers past their limit: those that would be stopped, and those that the second"
            " opinion spares, at each moment, whether culling is on or not. in_use: the spare query"
            " does not say 0 for it, or has no series of it. query_failed: the query failed, so"
            " nobody is stopped for being idle. If all are in_use for days, look whether the"
            " exporter behind the query is still there.",
            "none",
            half,
            over_time(spared, "spared: {{cause}}"),
            over_time(f"sum({q.CANDIDATES}) - sum({q.SPARED})", "would stop"),
        ).no_value(NO_QUERY),
        SPARED_COLOURS,
    )
    yield fixed(
        lines(
            "Answers to the spare query",
            "How often the spare query was evaluated within the previous hour: at each poll, and"
            " each 30 s of a long culling pass. failed: no usable answer; the log says why. Zero"
            " without a spare query.",
            "none",
            half,
            over_time(q.increase(q.QUERIES, "1h", "result"), "{{result}}"),
        ),
        {"ok": "green", "failed": "red"},
    )
    yield matrix(
        "What the query says of each server",
        f"The {q.MOST_SERVERS} servers that are idle the longest, and what the query in the box"
        " Spare query says of them, to choose a threshold: paste any PromQL with the labels user"
        " and server, without its > bool. A dash: it has no series of that server, which is never"
        " stopped for being idle then. Names are matched whatever the Hub, so choose one above.",
        (24, 10),
        {column: q.server_cell(column, query) for column, query in q.QUERY_SAYS.items()},
        {"who": "Server", "name": "Hub / exporter"},
        {
            "Hub / exporter": look(custom__width=215),
            "Idle": look(custom__width=120, unit="s", decimals=1),
            "Query, now": look(custom__width=200),
            "Query, highest in 1 h": look(custom__width=200),
        },
        most_first="Idle",
    ).no_value(NO_SERVERS)


def idle_users() -> Iterator[Any]:
    """Answer: how many users would be deleted, why not the others, and what failed?"""
    half = (12, 8)
    yield fixed(
        stacked(
            lines(
                "Idle users, by verdict",
                "Users past --user-timeout, as of the last listing, which is made once an hour."
                " candidate: to be deleted; nobody is without --enforce. All others are kept."
                " server: a server runs, starts or stops. admin: an administrator. exempt: may"
                " match an exempt policy. protected: has a stopped server that may not be culled."
                " own: the probe user, or the owner of the token. scope: outside the filter of"
                " delete:users. unknown and hidden: too little is known. Empty without"
                " --cull-users.",
                "none",
                half,
                over_time(q.USERS_BY_VERDICT, "{{verdict}}"),
            )
        ),
        {"candidate": "purple"},
    )
    failures = q.increase("hub_idle_exporter_user_deletion_failures_total", "1h", "cause")
    yield fixed(
        lines(
            "Users deleted, and failures by cause",
            "Idle users deleted within the previous hour, each one verified, and deletions that"
            " failed. response: the user still exists, although the Hub reported success, or its"
            " answer could not be read.",
            "none",
            half,
            over_time(failures, "failed: {{cause}}"),
            over_time(q.increase("hub_idle_exporter_users_deleted_total", "1h"), "deleted"),
        ),
        {"deleted": "text"},
    )


def idle_server_hours() -> Iterator[Any]:
    """Answer: what do idle servers cost, and whose are they?"""
    targets = q.by_policy(f"increase({metric(IDLE_SECONDS)}[1h])")
    yield named_alike(
        stacked(
            lines(
                "Idle server-hours per hour",
                "Hours that servers ran idle past their limit, within the previous hour. 5 means"
                " the same as five servers idle past their limit for the whole hour.",
                SERVER_HOURS,
                (12, 8),
                *(over_time(f"{query} / 3600", legend) for query, legend in targets),
            )
        )
    )
    targets = q.by_policy(f"increase({metric(IDLE_SECONDS)}[$__range])", "$__range")
    yield named_alike(
        bars(
            "Idle server-hours by policy",
            "Hours that servers ran idle past their limit, over the selected time range.",
            SERVER_HOURS,
            (6, 8),
            *(now(f"{query} / 3600", legend) for query, legend in targets),
        )
    ).decimals(1)
    everything = q.hours(f"sum({q.SERVERS})")
    yield (
        number(
            "Idle share of server-hours",
            "Of the hours that servers ran in the selected time range, the share that they were"
            " idle past their limit.",
            "percentunit",
            now(
                f"{q.increase(IDLE_SECONDS, '$__range')} / 3600 / ({everything} > 0)", "idle share"
            ),
            levels=steps((None, "green"), (0.3, "orange")),
        )
        .span(6)
        .height(8)
        .decimals(1)
    )


def the_exporter() -> Iterator[Any]:
    """Answer: can the numbers above be trusted?"""
    yield problems()
    yield from polls()
    yield from resources()
    yield token()
    yield versions()


def problems() -> Any:
    """Count the exporters that have each problem."""
    found = {name: q.or_zero(f"count({q.each(of)})") for name, of in q.PROBLEMS.items()}
    found["no exporter"] = q.or_zero(f"absent({q.EXPORTERS})")
    panel = number(
        "Problems, one by one",
        "How many exporters have each problem. A problem that is caused by another one is not"
        " counted again. The alerts and their runbooks (docs/runbooks) say what to do.",
        "none",
        *(now(expression, name) for name, expression in found.items()),
        levels=steps((None, "green"), (1, "red")),
    )
    panel = panel.text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
    panel = panel.text(common.VizTextDisplayOptions().title_size(12).value_size(28))
    return panel.span(24).height(5).mappings(says({0: ("no", "green")}))


def polls() -> Iterator[Any]:
    """Answer: does reading the Hub work?"""
    third = (8, 8)
    failures = q.increase("hub_idle_exporter_poll_failures_total", "1h", "cause")
    yield lines(
        "Polls, and failures by cause",
        "Polls attempted within the previous hour, and how many of them failed.",
        "none",
        third,
        over_time(failures, "failed: {{cause}}"),
        over_time(q.increase("hub_idle_exporter_polls_total", "1h"), "all polls"),
    )
    yield logarithmic(
        lines(
            "Age of data",
            "Time since the last successful poll; it grows while the exporter is down. After three"
            " intervals the data counts as stale, and /-/ready returns 503.",
            "s",
            third,
            over_time(f"({q.age('1d')}) > 0 < {DAY}", LEGEND),
            over_time(f"3 * {q.each(q.INTERVAL)}", f"stale after: {LEGEND}"),
        )
    )
    yield logarithmic(
        lines(
            "How long a poll takes",
            "Duration of the last poll, and the interval between polls.",
            "s",
            third,
            over_time(q.each(metric("hub_idle_exporter_poll_duration_seconds")), LEGEND),
            over_time(q.each(q.INTERVAL), f"interval: {LEGEND}"),
        )
    )
    yield lines(
        "Hub response time, 95th percentile",
        "How long the Hub takes to answer the exporter, by operation, over the previous ten"
        " minutes.",
        "s",
        third,
        over_time(
            q.quantile(0.95, "hub_idle_exporter_hub_request_duration_seconds", "10m", "operation"),
            "{{operation}}",
        ),
    )
    yield own_count(third)
    yield lines(
        "Clock skew",
        "The Hub's clock minus the exporter's. If they differ by more than 60 s, nothing is"
        " culled.",
        "s",
        third,
        over_time(q.each(metric("hub_idle_exporter_clock_skew_seconds")), LEGEND),
    ).min(None)


def own_count(size: tuple[int, int]) -> Any:
    """Compare the Hub's count of servers with the true one, of the same Hub."""
    same = "cluster, hub, namespace"
    own = f"jupyterhub_running_servers{{{', '.join(q.CHOSEN_HUBS)}}}"
    pair = f"count by ({same}) ({q.HUB_READ}) == 1 and on ({same}) count by ({same}) ({own}) == 1"
    legend = "{{cluster}} {{hub}} {{namespace}}"
    return lines(
        "The Hub's own count and the actual count",
        "jupyterhub_running_servers drifts from the actual count until the Hub is restarted. Shown"
        " only if the labels cluster, hub and namespace match one exporter with one Hub. Without"
        " such labels, select one of each above. Empty if the Hub's own metrics are not collected.",
        "none",
        size,
        over_time(f"sum by ({same}) ({q.SERVERS}) and on ({same}) ({pair})", f"listed {legend}"),
        over_time(f"sum by ({same}) ({own}) and on ({same}) ({pair})", f"its own count {legend}"),
    )


def logarithmic(panel: Any) -> Any:
    """Show tenths of seconds and hours in one graph."""
    scale = common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
    return panel.scale_distribution(scale).min(0.001)


def resources() -> Iterator[Any]:
    """Answer: what does the exporter itself take, and who is refused?"""
    quarter = (6, 8)
    yield lines(
        "Memory",
        "Resident memory of the exporter.",
        "bytes",
        quarter,
        over_time(q.each(metric("process_resident_memory_bytes")), LEGEND),
    )
    cpu = f"rate({metric('process_cpu_seconds_total')}[$__rate_interval])"
    yield lines(
        "CPU",
        "How much of one CPU core the exporter uses.",
        "percentunit",
        quarter,
        over_time(q.each(cpu), LEGEND),
    )
    yield lines(
        "Refused requests",
        "Requests to the exporter that were refused within the previous hour, by cause: a wrong"
        " password, too many attempts, a bad certificate.",
        "none",
        quarter,
        over_time(q.increase("hub_idle_exporter_web_refusals_total", "1h", "cause"), "{{cause}}"),
    )
    yield lines(
        "Grace period left",
        "How long it is until servers may be stopped, after a start or an outage.",
        "s",
        quarter,
        over_time(q.each(metric("hub_idle_exporter_grace_seconds")), LEGEND),
    )


def token() -> Any:
    """Answer: what may each exporter do, what protects people, are its files good?"""
    granted = {0: ("missing", "orange"), 1: ("granted", "green")}
    in_place = {0: ("no", "orange"), 1: ("yes", "green"), 2: ("not needed", "text")}
    in_use = {0: ("BROKEN", "orange"), 1: ("in use", "green")}
    looks = {scope: words(width, granted) for scope, width in SCOPES.items()}
    looks |= {safeguard: words(88, in_place) for safeguard in SAFEGUARDS}
    looks |= {file: words(84, in_use) for file in FILES}
    return matrix(
        "Scopes, safeguards, files",
        "Scopes of each exporter's token: monitoring needs list:users and read:servers (and"
        " read:users:groups for policies by group); culling needs the others too. Safeguards: each"
        " server is asked before a stop (busy_check), a stop expires within seconds (stop_token),"
        " and only one exporter per Hub stops servers (lease). Files: if the newest policy file or"
        " web configuration file is broken, the previous one stays in force.",
        (24, 5),
        {column: q.cell(column, query) for column, query in abilities()},
        {"name": "Hub / exporter"},
        looks,
    )


def abilities() -> Iterator[tuple[str, str]]:
    """Give the columns of that table: 0 or 1, and 2 for what is not needed."""
    for scope in SCOPES:
        yield scope, q.each(metric("hub_idle_exporter_scope_granted", f'scope="{scope}"'))
    not_needed = f"2 * {q.each(q.enforcement('off'))}"
    for safeguard in SAFEGUARDS:
        gauge = metric("hub_idle_exporter_safeguard", f'safeguard="{safeguard}"')
        yield safeguard, f"{not_needed} or {q.each(gauge)}"
    for file, name in FILES.items():
        yield file, q.each(metric(name))


# Scopes and the width of their columns.
SCOPES = {
    "list:users": 80,
    "read:servers": 100,
    "read:users:groups": 134,
    "delete:servers": 108,
    "proxy": 72,
    "tokens": 72,
}
SAFEGUARDS = ("busy_check", "stop_token", "lease")
FILES = {
    "policy file": "hub_idle_exporter_policy_file_valid",
    "web config": "hub_idle_exporter_web_config_file_valid",
}


def versions() -> Any:
    """Name the versions that run."""
    return (
        number(
            "Versions",
            "Versions of the exporters and of the Hubs.",
            "none",
            now(f"count by (version) ({q.BUILD_INFO})", "hub-idle-exporter {{version}}"),
            now(f"count by (version) ({metric('jupyterhub_info')})", "JupyterHub {{version}}"),
        )
        .span(24)
        .height(3)
        .text_mode(common_models.BigValueTextMode.NAME)
    )


# ---- the whole ----

FOLDED = {
    "Limits and policies": limits_and_policies,
    "Idle times and ages": how_spread,
    "Culls": culls,
    "Second opinion": second_opinion,
    "Keeps and notices": keeps_and_notices,
    "Idle users": idle_users,
    "Cost of idle servers": idle_server_hours,
    "The exporter itself": the_exporter,
}


def query_variable(name: str, label: str, values: str, everything: str = ".+") -> Any:
    """Let people choose among the values of a label; `everything` is what All means."""
    variable = dashboard.QueryVariable(name).label(label).datasource(DATASOURCE).query(values)
    variable = variable.multi(True).include_all(True).all_value(everything)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    every = models.VariableOption(text=["All"], value=["$__all"], selected=True)
    return variable.sort(models.VariableSort.ALPHABETICAL_ASC).current(every)


def variables() -> Iterator[Any]:
    """Choose the data source, the exporters, who collects the Hub's own metrics, and a price."""
    yield dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    chosen: list[str] = []
    # Without the labels cluster and hub, `.*` finds all the same.
    for name, everything in (("cluster", ".*"), ("hub", ".*"), ("job", ".+"), ("instance", ".+")):
        of = f"hub_idle_exporter_build_info{{{', '.join(chosen)}}}"
        values = f"label_values({of.removesuffix('{}')}, {name})"
        yield query_variable(name, name.title(), values, everything)
        chosen.append(f'{name}=~"${name}"')
    of_hub = f"jupyterhub_running_servers{{{', '.join(q.CHOSEN_HUBS[:2])}}}"
    yield query_variable("hub_job", "Hub's own job", f"label_values({of_hub}, job)")
    price = dashboard.TextBoxVariable("cost").label("A server-hour costs").default_value("")
    yield price.current(models.VariableOption(text="", value="", selected=True))
    query = "jupyterhub_server_spare_query_value"
    box = dashboard.TextBoxVariable("spare_query").label("Spare query").default_value(query)
    yield box.current(models.VariableOption(text=query, value=query, selected=True))


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
    failed = f"sum by ({EXPORTER}, cause) (increase({metric(CULL_FAILURES)}[2m])) > 0"
    yield annotation("Failed culls", failed, f"cull failed: {{{{cause}}}} {LEGEND}", "red")
    mode = metric("hub_idle_exporter_enforcement")
    changed = f"{mode} == 1 and changes({mode}[2m]) > 0"
    yield annotation("Mode changes", changed, f"culling: {{{{state}}}} {LEGEND}", "purple")


def build() -> dict[str, Any]:
    """Put it all together, as Grafana's JSON."""
    board = (
        dashboard.Dashboard("JupyterHub / Idle servers")
        .uid("hub-idle-exporter")
        .description(
            "What is idle on a JupyterHub, what it costs, what other limits would do, what was"
            " culled and spared, and whether culling works. Generated by grafana/dashboard.py."
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
    for panel in at_a_glance():
        board = board.with_panel(panel)
    for title, panels in FOLDED.items():
        row = dashboard.Row(title).collapsed(True)
        for panel in panels():
            row = row.with_panel(panel)
        board = board.with_row(row)
    result: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    return finished(result)


def finished(board: dict[str, Any]) -> dict[str, Any]:
    """Add what the SDK leaves out, and take away what Grafana does not know of."""
    ids = count(1)
    for panel in board["panels"]:
        for one in (panel, *panel.get("panels", [])):
            one["id"] = next(ids)
            one.get("options", {}).pop("footer", None)
    place(board["panels"], 0)
    for variable in board["templating"]["list"]:
        variable.setdefault("current", {"selected": True, "text": "default", "value": "default"})
        for key in ("auto", "auto_count", "auto_min"):
            del variable[key]
    for link in board["links"]:
        del link["placement"]
    board["annotations"] = {"list": list(annotations())}
    return board | {"schemaVersion": SCHEMA_VERSION, "id": None, "version": 1}


def place(panels: list[dict[str, Any]], top: int) -> None:
    """Lay panels out from left to right and from `top` down; folded rows take one line each."""
    x, y, height = 0, top, 0
    for panel in panels:
        where = panel["gridPos"]
        if x + where["w"] > COLUMNS:
            x, y, height = 0, y + height, 0
        where |= {"x": x, "y": y}
        x, height = x + where["w"], max(height, where["h"])
        place(panel.get("panels", []), y + 1)


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
