"""PromQL of the dashboard: what is known now, exporter by exporter, and sums of it.

An exporter is known by its labels `cluster`, `hub`, `job` and `instance`, of which the first two
may not exist. Numbers of different exporters are added up, never compared or reduced to a maximum.
"""

from collections.abc import Sequence
from math import isinf

MINUTE, HOUR, DAY = 60, 3600, 86400
HOURS_A_MONTH = 730
EXPORTER = "cluster, hub, job, instance"
CHOSEN = tuple(f'{label}=~"${label}"' for label in ("cluster", "hub", "job", "instance"))
CHOSEN_HUBS = ('cluster=~"$cluster"', 'hub=~"$hub"', 'job=~"$hub_job"')


def metric(name: str, *matchers: str) -> str:
    """Select a metric of the exporters that the person chose."""
    return f"{name}{{{', '.join((*CHOSEN, *matchers))}}}"


def each(expression: str) -> str:
    """Give one number an exporter; there is one already, this only drops other labels."""
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
ASKS = metric("hub_idle_exporter_busy_check")
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


# ---- policies ----


def by_policy(facts: str, window: str = "1h") -> tuple[tuple[str, str], tuple[str, str]]:
    """Sum by policy, exempt ones apart from others of that name: (query, legend) of both."""
    exempt = f"max_over_time({metric('jupyterhub_policy_exempt')}[{window}]) == 1"
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


# ---- one row an exporter ----

SEEN = f"last_over_time({BUILD_INFO}[7d])"
GONE = f"last_over_time({BUILD_INFO}[1h]) unless on ({EXPORTER}) {UP}"
# 1 up, 0 down, 2: not even tried any more. Of `up` only exporters, by what they once said.
EXPORTERS = f"{each(f'{UP} and on ({EXPORTER}) {SEEN}')} or 2 * {each(GONE)}"
DOWN = f"{UP} == 0 and on ({EXPORTER}) {SEEN}"
STALE = f"{HUB_READ} == 1 unless on ({EXPORTER}) {FRESH}"
ASKING = metric("hub_idle_exporter_safeguard", 'safeguard="busy_check"')
OTHER_SAFEGUARDS = metric("hub_idle_exporter_safeguard", 'safeguard=~"lease|stop_token"')
NOT_ASKED = f"{enforcement('on')} and on ({EXPORTER}) {ASKING} == 0"
LESS_PROTECTION = (
    f"{enforcement('on')} and on ({EXPORTER}) {OTHER_SAFEGUARDS} == 0"
    f" unless on ({EXPORTER}) ({NOT_ASKED})"
)
SUSPENDED = (
    f"{enforcement('suspended')} unless on ({EXPORTER}) ({HUB_READ} == 0 or {STANDBY} or {STALE})"
)
AGE = f"time() - {each(f'max_over_time({LAST_SUCCESS}[7d]) > 0')}"
STILL_RUNNING = metric(CULL_FAILURES, 'cause="not_stopped"')
REFUSED = metric(CULL_FAILURES, 'cause!~"not_stopped|slow"')
FAILING = (
    f"sum by ({EXPORTER}) (increase({REFUSED}[1h]))"
    f" > 0.1 * sum by ({EXPORTER}) "
    f"(increase({metric('hub_idle_exporter_cull_attempts_total')}[1h]))"
)
# Each is counted once: what follows from another is not among them.
PROBLEMS = {
    "exporter down": DOWN,
    "exporter gone": GONE,
    "Hub not read": f"{HUB_READ} == 0",
    "data stale": STALE,
    "servers not asked": NOT_ASKED,
    "still running": f"increase({STILL_RUNNING}[6h]) > 0.5",
    "suspended": SUSPENDED,
    "less protection": LESS_PROTECTION,
    "stops failing": FAILING,
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


def over_range(counter: str) -> str:
    """Count events of each exporter over the range shown."""
    return f"sum by ({EXPORTER}) (increase({metric(counter)}[$__range]))"


HUBS = {
    "Exporter": EXPORTERS,
    "Hub": f"2 * {each(STALE)} or {each(HUB_READ)}",
    "Culling": CULLING,
    "Asks first": f"2 * {each(enforcement('off'))} or {each(ASKS)}",
    "Problem": PROBLEM,
    "Data age": f"clamp_min({AGE}, 0)",
    "Servers": total(SERVERS, EXPORTER),
    "Idle": total(IDLE, EXPORTER),
    "Would stop": total(CANDIDATES, EXPORTER),
    "Stopped": over_range(CULLS),
    "Failed": over_range(CULL_FAILURES),
    "Idle hours": f"{over_range(IDLE_SECONDS)} / 3600",
}


def cell(column: str, expression: str) -> str:
    """Make cells of a table: the exporter's name and the column as labels, NaN for unknown.

    The unknown ones keep a column in its place when nobody knows anything of it.
    """
    return with_name(labelled(f"({expression} or NaN * ({EXPORTERS}))", "column", column))


def with_name(expression: str, labels: Sequence[str] = ("cluster", "hub", "instance")) -> str:
    """Name an exporter by those of its labels that exist."""
    quoted = ", ".join(f'"{label}"' for label in labels)
    name = f'label_join({expression}, "name", " / ", {quoted})'
    for pattern, kept in (("(.*) /  / (.*)", "$1 / $2"), ("(?: / )*(.*)", "$1")):
        name = f'label_replace({name}, "name", "{kept}", "name", "{pattern}")'
    return name
