"""PromQL of the dashboard: what is known now, exporter by exporter, and sums of it.

An exporter is known by its labels `cluster`, `hub`, `job` and `instance`, of which the first two
may not exist. Numbers of different exporters are added up, never compared or reduced to a maximum.
Where Prometheus discovers pods, each rollout makes a new `instance` of the same exporter: by
`cluster`, `hub` and `job` it is known whose place it takes.
"""

from collections.abc import Sequence
from math import isinf

MINUTE, HOUR, DAY = 60, 3600, 86400
HOURS_A_MONTH = 730
EXPORTER = "cluster, hub, job, instance"
HUB = "cluster, hub, job"
NAMELESS = "on (hub) vector(1)"  # matches what has no label `hub`
CHOSEN = tuple(f'{label}=~"${label}"' for label in ("cluster", "hub", "job", "instance"))
CHOSEN_HUBS = ('cluster=~"$cluster"', 'hub=~"$hub"', 'job=~"$hub_job"')


def metric(name: str, *matchers: str) -> str:
    """Select a metric of the exporters that the person chose."""
    return f"{name}{{{', '.join((*CHOSEN, *matchers))}}}"


def each(expression: str) -> str:
    """Give one number per exporter: there is only one, other labels are dropped."""
    return f"max by ({EXPORTER}) ({expression})"


SERVERS = metric("jupyterhub_servers")
IDLE = metric("jupyterhub_servers", 'state="idle"')
ACTIVE = metric("jupyterhub_servers", 'state="active"')
CANDIDATES = metric("jupyterhub_cull_candidates")
OVER_LIMIT = metric("jupyterhub_servers_over_limit")
HUB_READ = metric("jupyterhub_up")
UP = metric("up")
BUILD_INFO = metric("hub_idle_exporter_build_info")
INTERVAL = metric("hub_idle_exporter_poll_interval_seconds")
LAST_SUCCESS = metric("hub_idle_exporter_last_poll_success_timestamp_seconds")
LAST_PASS = metric("hub_idle_exporter_last_pass_candidates")
STANDBY = f"{metric('hub_idle_exporter_standby')} == 1"
READ_ONCE = f"{LAST_SUCCESS} > 0"
POLL_FAILURES = metric("hub_idle_exporter_poll_failures_total")
START = metric("process_start_time_seconds")
ASKS = metric("hub_idle_exporter_busy_check")
KEPT = metric("jupyterhub_servers_kept")
IDLE_USERS = metric("jupyterhub_idle_users")
USERS_TO_DELETE = metric("jupyterhub_idle_users", 'verdict="candidate"')
# That there are none to be deleted is worth knowing; not each reason that keeps nobody.
USERS_BY_VERDICT = f"sum by (verdict) ({USERS_TO_DELETE}) or sum by (verdict) ({IDLE_USERS}) > 0"
SPARED = metric("jupyterhub_cull_candidates_spared")
IDLE_SECONDS = "hub_idle_exporter_idle_server_seconds_total"
CULLS = "hub_idle_exporter_culls_total"
CULL_FAILURES = "hub_idle_exporter_cull_failures_total"


def enforcement(state: str) -> str:
    """Tell which exporters are in a state of enforcement."""
    return metric("hub_idle_exporter_enforcement", f'state="{state}"') + " == 1"


BUSY, UNDER_WAY = (
    metric("hub_idle_exporter_last_pass_candidates", f'outcome="{outcome}"')
    for outcome in ("busy", "under_way")
)
# Of exporters that ask; 0 says nothing while others have yet to answer.
COMPUTING = (
    f"{BUSY} and on ({EXPORTER}) ({enforcement('on')} and on ({EXPORTER}) {ASKS} == 1)"
    f" unless on ({EXPORTER}) ({BUSY} == 0 and on ({EXPORTER}) {UNDER_WAY} > 0)"
)


# Old numbers stay in /metrics when polls hang. Taken at the time of the scrape, so that it is the
# same however often Prometheus scrapes; what is not scraped at all, Prometheus forgets by itself.
FRESH = f"timestamp({LAST_SUCCESS}) - {LAST_SUCCESS} <= 3 * {INTERVAL}"


def fresh(facts: str) -> str:
    """Keep facts of exporters whose last good poll is younger than three intervals."""
    return f"{facts} and on ({EXPORTER}) {FRESH}"


def total(facts: str, by: str = "") -> str:
    """Sum what is known now."""
    return f"{summing(by)} ({fresh(facts)})"


def summing(by: str = "") -> str:
    """Give the head of a sum."""
    return f"sum by ({by})" if by else "sum"


def would_stop(by: str = "") -> str:
    """Count candidates now, without those that the second opinion spares, where there is one."""
    candidates = total(CANDIDATES, by)
    return f"{candidates} - {total(SPARED, by)} or {candidates}"


def increase(counter: str, window: str, by: str = "", *matchers: str) -> str:
    """Sum a counter's increase over a window."""
    return f"{summing(by)} (increase({metric(counter, *matchers)}[{window}]))"


def bucket(name: str, upper: float) -> str:
    """Sum the servers at or below `upper` seconds, as known now."""
    le = metric(f"{name}_bucket", f'le="{"+Inf" if isinf(upper) else f"{upper:.1f}"}"')
    return total(le)


def between(name: str, lower: float, upper: float) -> str:
    """Count the servers of a histogram between two of its bounds, in seconds."""
    if lower == 0:
        return bucket(name, upper)
    return f"{bucket(name, upper)} - {bucket(name, lower)}"


def hours(servers: str) -> str:
    """Integrate a number of servers over the range shown, in server-hours."""
    return f"sum_over_time(({servers})[$__range:1m]) / 60"


def per_month(servers: str) -> str:
    """Give the server-hours of a month in which there are as many as on average over the range.

    Of each Hub the average is that of the time in which it was known. Pods that replace each other
    are one Hub; one of which no exporter is left costs nothing any more.
    """
    average = f"avg_over_time((sum by ({HUB}) ({servers}))[$__range:1m])"
    return f"sum ({average} and on ({HUB}) ({EXPORTERS})) * {HOURS_A_MONTH}"


def quantile(share: float, histogram: str, window: str, by: str = "") -> str:
    """Estimate a quantile of a counting histogram; nothing where nothing was counted."""
    grouping = f"le, {by}" if by else "le"
    counted = f"sum by ({grouping}) (increase({metric(f'{histogram}_bucket')}[{window}]))"
    return f"histogram_quantile({share}, {counted}) >= 0"


def labelled(expression: str, label: str, value: str) -> str:
    """Give series a label."""
    return f'label_replace({expression}, "{label}", "{value}", "", "")'


def or_zero(expression: str) -> str:
    """Say 0 where a filter leaves nothing."""
    return f"{expression} or vector(0)"


# ---- the second opinion ----

SPARE_QUERY = "${spare_query:raw}"  # somebody pastes it: Grafana must not escape it
LAST_ACTIVITY = metric("jupyterhub_server_last_activity_timestamp_seconds")
OF_SERVER = f"{EXPORTER}, user, server"
MOST_SERVERS = 100
IDLE_LONGEST = (
    f"topk({MOST_SERVERS}, max by ({OF_SERVER})"
    f" ({fresh(f'clamp_min(timestamp({LAST_ACTIVITY}) - {LAST_ACTIVITY}, 0)')}))"
)


def said_of_servers(query: str) -> str:
    """Give what a query says of the servers that are idle the longest; NaN where it has no series.

    As the exporter reads it: series without a server speak for all servers of their user.
    """
    value = f"max by (user, server) ({query})"
    of_server = f"0 * ({IDLE_LONGEST}) + on (user, server) group_left () {value}"
    of_user = f"0 * ({IDLE_LONGEST}) + on (user) group_left () ({value} and on (server) vector(0))"
    both = f"{labelled(of_server, 'of', 'server')} or {labelled(of_user, 'of', 'user')}"
    return f"max by ({OF_SERVER}) ({both}) or NaN * ({IDLE_LONGEST})"


QUERY_SAYS = {
    "Idle": IDLE_LONGEST,
    "Query, now": said_of_servers(SPARE_QUERY),
    "Query, highest in 1 h": said_of_servers(f"max_over_time(({SPARE_QUERY})[1h:1m])"),
}
QUERIES = "hub_idle_exporter_spare_queries_total"
FAILED_QUERIES = metric(QUERIES, 'result="failed"')
QUERY_FAILING = (
    f"sum by ({EXPORTER}) (increase({FAILED_QUERIES}[30m]))"
    f" > 0.5 * sum by ({EXPORTER}) (increase({metric(QUERIES)}[30m]))"
    f" and on ({EXPORTER}) {UP}"
)


def server_cell(column: str, expression: str) -> str:
    """Make cells of a table of servers, by user and the server's name, if it has one."""
    who = (
        f'label_join({labelled(f"({expression})", "column", column)}, "who", "/", "user", "server")'
    )
    return with_name(f'label_replace({who}, "who", "$1", "who", "(.*)/")')


# ---- policies ----


def by_policy(facts: str, window: str = "1h") -> tuple[tuple[str, str], tuple[str, str]]:
    """Sum by policy, exempt ones apart from others of that name: (query, legend) of both.

    Exempt is what was so when it was last known, within the window: counters go on while a Hub is
    not read.
    """
    exempt = f"last_over_time({metric('jupyterhub_policy_exempt')}[{window}]) == 1"
    known = f"on ({EXPORTER}, policy) {exempt}"
    return (
        (f"sum by (policy) ({facts} unless {known})", "{{policy}}"),
        (f"sum by (policy) ({facts} and {known})", "{{policy}} (exempt)"),
    )


# ---- money ----


def _price() -> str:
    """Give the price that somebody typed above; nothing where it is no number above 0.

    A literal would do, but an empty box must hide money, not break the query, and PromQL turns no
    text into numbers but in one place: the bounds of a histogram. The quantile 1 of a histogram
    whose only bucket ends at the price is the price.
    """
    rest = labelled("vector(1)", "le", "+Inf")
    typed = f'label_replace({rest}, "typed", ${{cost:doublequote}}, "", "")'
    bound = f'label_replace({typed}, "le", "$1", "typed", "([0-9]*[.]?[0-9]+)")'
    return f"histogram_quantile(1, sum by (le) ({bound} or {rest})) > 0"


PRICE = _price()


def priced(server_hours: str) -> str:
    """Turn server-hours into money; nothing without a price."""
    return f"{server_hours} * on () group_left () ({PRICE})"


def unpriced(server_hours: str) -> str:
    """Give server-hours where there is no price."""
    return f"{server_hours} unless on () ({PRICE})"


# ---- one row per exporter ----

SEEN = f"last_over_time({BUILD_INFO}[7d])"
# What may have taken the place of another exporter: any other one of a Hub that has a name; without
# a name, one that was not there an hour ago.
SUCCESSORS = (
    f"{BUILD_INFO} unless {NAMELESS} or"
    f" ({BUILD_INFO} unless on ({EXPORTER}) {BUILD_INFO} offset 1h)"
)
GONE = (
    f"last_over_time({BUILD_INFO}[1h]) unless on ({EXPORTER}) {UP} unless on ({HUB}) ({SUCCESSORS})"
)
# 1 up, 0 down, 2: not even tried any more. Of `up` only exporters, by what they once said.
EXPORTERS = f"{each(f'{UP} and on ({EXPORTER}) {SEEN}')} or 2 * {each(GONE)}"
DOWN = f"{UP} == 0 and on ({EXPORTER}) {SEEN}"
STALE = f"{HUB_READ} == 1 unless on ({EXPORTER}) {FRESH}"
# A process that has yet to finish its first poll; if that takes too long, the Hub is not read.
FIRST_POLL = (
    f"{LAST_SUCCESS} == 0"
    f" and on ({EXPORTER}) sum by ({EXPORTER}) ({POLL_FAILURES}) == 0"
    f" unless on ({EXPORTER}) timestamp({START}) - {START} > 3 * {INTERVAL} + 120"
)
NOT_READ = f"{HUB_READ} == 0 unless on ({EXPORTER}) ({FIRST_POLL})"
# By how long the oldest has failed: one that is delivered at a later try is no problem.
UNTOLD_SINCE = metric("hub_idle_exporter_notices_undelivered_since_timestamp_seconds")
NOT_TOLD = f"timestamp({UNTOLD_SINCE}) - ({UNTOLD_SINCE} > 0) > 1800"
OTHER_SAFEGUARDS = metric("hub_idle_exporter_safeguard", 'safeguard=~"lease|stop_token"')
NOT_ASKED = f"{enforcement('on')} and on ({EXPORTER}) {ASKS} == 0"
LESS_PROTECTION = (
    f"{enforcement('on')} and on ({EXPORTER}) {OTHER_SAFEGUARDS} == 0"
    f" unless on ({EXPORTER}) ({NOT_ASKED})"
)
SUSPENDED = (
    f"{enforcement('suspended')} unless on ({EXPORTER}) ({HUB_READ} == 0 or {STANDBY} or {STALE})"
)


def age(window: str) -> str:
    """Give the time since the last good poll within the window, of exporters that have a row."""
    last = each(f"max_over_time({LAST_SUCCESS}[{window}]) > 0")
    return f"time() - {last} and on ({EXPORTER}) ({EXPORTERS})"


def counted(counter: str, window: str = "$__range", *matchers: str) -> str:
    """Count events of each exporter over a window, and of those whose place it has taken.

    These are known where the labels name the Hub, and one exporter alone is left of it.
    """
    increase = f"increase({metric(counter, *matchers)}[{window}])"
    last = f"count by ({HUB}) ({EXPORTERS}) == 1 unless {NAMELESS}"
    heir = f"({EXPORTERS}) and on ({HUB}) ({last})"
    return (
        f"0 * ({heir}) + on ({HUB}) group_left () sum by ({HUB}) ({increase})"
        f" or (sum by ({EXPORTER}) ({increase}) unless on ({HUB}) ({heir}))"
    )


STILL_RUNNING = counted(CULL_FAILURES, "6h", 'cause="not_stopped"')
REFUSED = metric(CULL_FAILURES, 'cause!~"not_stopped|slow"')
FAILING = (
    f"sum by ({EXPORTER}) (increase({REFUSED}[1h]))"
    f" > 0.1 * sum by ({EXPORTER}) "
    f"(increase({metric('hub_idle_exporter_cull_attempts_total')}[1h]))"
    f" and on ({EXPORTER}) {UP}"
)
# Each is counted once: what follows from another is not among them.
PROBLEMS = {
    "exporter down": DOWN,
    "exporter gone": GONE,
    "Hub not read": NOT_READ,
    "data stale": STALE,
    "servers not asked": NOT_ASKED,
    # What is left of a replaced pod still runs.
    "still running": f"({STILL_RUNNING}) > 0.5",
    "suspended": SUSPENDED,
    "less protection": LESS_PROTECTION,
    "stops failing": FAILING,
    "people not told": NOT_TOLD,
    "query failing": QUERY_FAILING,
    "policy file broken": f"{metric('hub_idle_exporter_policy_file_valid')} == 0",
    "web config broken": f"{metric('hub_idle_exporter_web_config_file_valid')} == 0",
    "clock skew": f"abs({metric('hub_idle_exporter_clock_skew_seconds')}) > 30",
    "unreadable users": f"{metric('hub_idle_exporter_unreadable_users')} > 0",
}
NO_PROBLEM = 0


def code(number: int, condition: str) -> str:
    """Give a number to the exporters of which a condition is true."""
    return f"{number} + 0 * {each(condition)}"


def first_of(*conditions: tuple[int, str]) -> str:
    """Give each exporter the number of the first condition that is true of it."""
    return " or ".join(code(number, condition) for number, condition in conditions)


OFF, ON, GRACE_PERIOD, IS_SUSPENDED, WAITS, ON_STANDBY, UNASKED, LESS_SAFE = range(8)
CULLING = first_of(
    (ON_STANDBY, STANDBY),
    (WAITS, f"{enforcement('suspended')} and on ({EXPORTER}) {HUB_READ} == 0"),
    (UNASKED, NOT_ASKED),
    (LESS_SAFE, LESS_PROTECTION),
    (IS_SUSPENDED, enforcement("suspended")),
    (GRACE_PERIOD, enforcement("grace")),
    (ON, enforcement("on")),
    (OFF, enforcement("off")),
)
PROBLEM = first_of(
    *((number, condition) for number, condition in enumerate(PROBLEMS.values(), NO_PROBLEM + 1)),
    (NO_PROBLEM, BUILD_INFO),
)


HUBS = {
    "Exporter": EXPORTERS,
    "Hub": f"2 * {each(STALE)} or {code(3, FIRST_POLL)} or {each(HUB_READ)}",
    "Culling": CULLING,
    "Asks first": (
        f"2 * {each(enforcement('off'))} or {each(f'{ASKS} and on ({EXPORTER}) {READ_ONCE}')}"
    ),
    "Problem": PROBLEM,
    "Data age": f"clamp_min({age('7d')}, 0)",
    "Servers": total(SERVERS, EXPORTER),
    "Idle": total(IDLE, EXPORTER),
    "Would stop": would_stop(EXPORTER),
    "Stopped": counted(CULLS),
    "Failed": counted(CULL_FAILURES),
    "Idle hours": f"({counted(IDLE_SECONDS)}) / 3600",
}


def cell(column: str, expression: str) -> str:
    """Make cells of a table: the exporter's name and the column as labels, NaN for unknown.

    The unknown ones keep a column in its place when nobody knows anything of it. What is known of
    an exporter that is no more makes no row.
    """
    cells = f"({expression} or NaN * ({EXPORTERS})) and on ({EXPORTER}) ({EXPORTERS})"
    return with_name(labelled(f"({cells})", "column", column))


def with_name(expression: str, labels: Sequence[str] = ("cluster", "hub", "instance")) -> str:
    """Name an exporter by those of its labels that exist."""
    quoted = ", ".join(f'"{label}"' for label in labels)
    name = f'label_join({expression}, "name", " / ", {quoted})'
    for pattern, kept in (("(.*) /  / (.*)", "$1 / $2"), ("(?: / )*(.*)", "$1")):
        name = f'label_replace({name}, "name", "{kept}", "name", "{pattern}")'
    return name
