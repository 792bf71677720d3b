"""What exporters tell Prometheus when all is well, and what each fault changes in it, for promtool.

A case is a fault of one exporter, and the alerts that must fire because of it: these and no other.
Each is played with one Hub and with three Hubs in two clusters, where job and instance are the same
everywhere and each neighbour is different: one only watches, of the third one exporter stands by.
Samples are a minute apart; what is expected is looked at in between, never at the edge of a window.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Series = dict[
    str, str
]  # a selector without the labels of the target → values as promtool takes them
Labels = dict[str, str]

END = 1500  # minutes; longer than any case
CAUSES = ("connection", "timeout", "http", "scope")
WITHHELD = ("busy", "active_again", "probe_failed", "limit", "gate", "list", "stale", "policy",
            "in_use", "query_failed", "kept", "notice")  # fmt: skip
STATES = ("off", "grace", "suspended", "on")
SAFEGUARDS = ("busy_check", "stop_token", "lease")
SERVERS = 4

ONE = {"job": "idle", "instance": "hub:9899", "namespace": "jhub"}
PHYSICS = {
    "job": "idle",
    "instance": "hub:9899",
    "cluster": "a",
    "namespace": "p",
    "hub": "physics",
}
WATCHED = PHYSICS | {"cluster": "b"}  # the same but for the cluster
BIOLOGY = PHYSICS | {"cluster": "b", "namespace": "b", "hub": "biology", "pod": "lead"}
OF_NO_TARGET = frozenset({"HubIdleOrphanPods", "HubIdleExporterAbsent"})
WAITING = BIOLOGY | {"pod": "waits"}


def own(name: str, **labels: str) -> str:
    """Name a series of the exporter about itself."""
    return _named(f"hub_idle_exporter_{name}", labels)


def hubs(name: str, **labels: str) -> str:
    """Name a series about the Hub."""
    return _named(f"jupyterhub_{name}", labels)


def _named(name: str, labels: Mapping[str, str]) -> str:
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}"


CULLS = own("culls_total", policy="default", reason="idle")
ATTEMPTS = own("cull_attempts_total", policy="default", reason="idle")
CANDIDATES = hubs("cull_candidates", policy="default", reason="idle")
LAST_SUCCESS = own("last_poll_success_timestamp_seconds")
INTERVAL = own("poll_interval_seconds")
UP = hubs("up")
NOT_DELETED = own("user_deletion_failures_total", cause="http")
STARTED = "process_start_time_seconds{}"
QUERY_OK = own("spare_queries_total", result="ok")
QUERY_FAILED = own("spare_queries_total", result="failed")
UNTOLD = own("notices_undelivered")
UNTOLD_SINCE = own("notices_undelivered_since_timestamp_seconds")


def failures(cause: str) -> str:
    """Name the series of failed polls of a cause."""
    return own("poll_failures_total", cause=cause)


def withheld(cause: str) -> str:
    """Name the series of candidates withheld for a cause."""
    return own("culls_withheld_total", cause=cause)


def always(value: float) -> str:
    """Never changes."""
    return f"{float(value):g}x{END}"


def each(step: float, start: float = 0) -> str:
    """Grows by the same every minute."""
    return f"{start}+{step}x{END}"


def then(before: float, minutes: int, after: float) -> str:
    """Changes once, after some minutes."""
    return f"{before}x{minutes - 1} {always(after)}"


def grows_from(minute: int, step: float) -> str:
    """Stays 0, and grows from a minute on."""
    return f"0x{minute - 1} {each(step, step)}"


def steps(minutes: int, values: Iterable[float]) -> str:
    """Changes every so many minutes."""
    return " ".join(f"{float(value):g}x{minutes - 1}" for value in values)


def ends(values: str, minute: int) -> str:
    """Say nothing any more from a minute on: a scrape failed, or the target is gone."""
    return " ".join([*samples(values)[:minute], "stale"])


def samples(values: str) -> list[str]:
    """Write promtool's short forms out: `1x2` is three samples, `_x2` none for two minutes."""
    found: list[str] = []
    for part in values.split():
        value, _, times = part.partition("x")
        start, sign, step = re.fullmatch(r"(-?[^+-]+)([+-]?)(.*)", value).groups()  # type: ignore[union-attr]
        if not times:
            found.append(value)
        elif start == "_":
            found += ["_"] * int(times)
        else:
            by = float(f"{sign}{step}" or 0)
            found += [f"{float(start) + by * number:g}" for number in range(int(times) + 1)]
    return found


def good() -> Series:
    """Give what an exporter says that culls, while all is well.

    At each poll there are three candidates: one is stopped, one computes, one came back.
    """
    return {
        "up{}": always(1),
        STARTED: always(1000),
        own("build_info", version="1"): always(1),
        LAST_SUCCESS: each(60),
        INTERVAL: always(60),
        own("polls_total"): each(1),
        **{failures(cause): always(0) for cause in CAUSES},
        own("clock_skew_seconds"): always(-3),
        own("unreadable_users"): always(0),
        **{
            own("scope_granted", scope=scope): always(1)
            for scope in ("list:users", "read:servers", "delete:servers")
        },
        **{
            own("scope_filtered", scope=scope): always(0)
            for scope in ("list:users", "read:servers", "delete:servers")
        },
        **_culling("on"),
        own("grace_seconds"): always(0),
        own("standby"): always(0),
        own("policy_file_valid"): always(1),
        own("web_config_file_valid"): always(1),
        CULLS: each(1),
        ATTEMPTS: each(1),
        **{own("cull_failures_total", cause=c): always(0) for c in ("http", "slow", "not_stopped")},
        **{own("user_deletion_failures_total", cause=c): always(0) for c in ("http", "timeout")},
        **{withheld(cause): always(0) for cause in WITHHELD},
        QUERY_OK: each(1),
        QUERY_FAILED: always(0),
        UNTOLD: always(0),
        UNTOLD_SINCE: always(0),
        withheld("busy"): each(1),
        withheld("active_again"): each(1),
        **{own("busy_checks_total", result=r): each(1) for r in ("idle", "busy", "active")},
        own("busy_checks_total", result="failed"): always(0),
        **facts(),
    }


def facts() -> Series:
    """Give what an exporter says about its Hub."""
    return {
        UP: always(1),
        hubs("servers", policy="default", state="active"): always(SERVERS - 1),
        hubs("servers", policy="default", state="idle"): always(1),
        hubs("servers", policy="default", state="pending"): always(0),
        CANDIDATES: always(3),
        hubs("cull_candidates", policy="default", reason="max_age"): always(0),
        hubs("policy_exempt", policy="default"): always(0),
    }


def _culling(state: str) -> Series:
    protected = float(state == "on")
    return {
        **{own("enforcement", state=s): always(s == state) for s in STATES},
        own("busy_check"): always(protected),
        **{own("safeguard", safeguard=s): always(protected) for s in SAFEGUARDS},
    }


def turns(state: str, minute: int) -> Series:
    """Enforcement that is on goes over to another state, for good."""
    return {
        own("enforcement", state="on"): then(1, minute, 0),
        own("enforcement", state=state): then(0, minute, 1),
    }


def stops_nothing() -> Series:
    """Neither attempts, nor culls, nor anybody spared or asked."""
    names = [CULLS, ATTEMPTS]
    names += [withheld("busy"), withheld("active_again")]
    names += [own("busy_checks_total", result=result) for result in ("idle", "busy", "active")]
    return dict.fromkeys(names, always(0))


def watching() -> Series:
    """Monitor mode, without a single scope more than that needs."""
    return {
        **_culling("off"),
        **stops_nothing(),
        own("scope_granted", scope="delete:servers"): always(0),
    }


def standing_by() -> Series:
    """Another exporter of the same Hub holds the lease."""
    return {**_culling("suspended"), **stops_nothing(), own("standby"): always(1)}


def pods(labels: Labels, lives: Iterable[str], component: str = "singleuser-server") -> Series:
    """Give what kube-state-metrics says of running pods, each with its values over time."""
    where = {key: value for key, value in labels.items() if key in ("cluster", "namespace")}
    found = {}
    for number, life in enumerate(lives):
        pod = where | {"pod": f"{component}-{number}"}
        found[_named("kube_pod_labels", pod | {"label_component": component})] = life
        found[_named("kube_pod_status_phase", pod | {"phase": "Running"})] = life
        pending = _named("kube_pod_status_phase", pod | {"phase": "Pending"})
        found[pending] = life.replace("1x", "0x")
    return found


def hubs_pods(labels: Labels) -> Series:
    """A Hub and its servers, as kube-state-metrics sees them."""
    return pods(labels, [always(1)] * SERVERS) | pods(labels, [always(1)], "hub")


@dataclass(frozen=True)
class Case:
    """A fault, and the alerts that fire for it alone.

    `changed` replaces series of the exporter with the fault, `added` is what others
    say about its Hub, `more` are further targets beside it, by their own labels. `fires` are the
    alerts with the labels that they have beside those of the target, or instead of them; `at` are
    the minutes when they do; at `silent` nothing fires.
    """

    name: str
    changed: Series
    fires: Mapping[str, Labels] = field(default_factory=dict)
    at: tuple[int, ...] = ()
    silent: tuple[int, ...] = (50,)
    added: Mapping[str, str] = field(default_factory=dict)
    more: tuple[tuple[Labels, Series], ...] = ()


def of_target(series: Mapping[str, str], labels: Labels) -> Series:
    """Put the labels of a target on its series."""
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    named = {name: f"{name[:-1]}, {inside}}}".replace("{, ", "{") for name in series}
    return {named[name]: values for name, values in series.items()}


def neighbours() -> Series:
    """Two other Hubs in another cluster: one is only watched, the other has two exporters."""
    return {
        **of_target(good() | watching(), WATCHED),
        **of_target(good(), BIOLOGY),
        **of_target(good() | standing_by(), WAITING),
        **hubs_pods(WATCHED),
        **hubs_pods(BIOLOGY),
    }


def _played(case: Case, labels: Labels) -> Series:
    series = of_target(good() | case.changed, labels) | hubs_pods(labels) | dict(case.added)
    for others, told in case.more:
        series |= of_target(told, others)
    return series


def test_of(case: Case, labels: Labels, beside: Series) -> dict[str, object]:
    """Give a test of promtool: at each minute, just these alerts fire."""
    last = max((*case.at, *case.silent))
    series = {
        name: values.replace(f"x{END}", f"x{last + 1}")
        for name, values in (beside | _played(case, labels)).items()
    }
    wanted = [_firing(alert, labels, own) for alert, own in case.fires.items()]
    return {
        "name": case.name,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'ALERTS{alertstate="firing"}',
                "eval_time": f"{minute}m30s",
                "exp_samples": wanted if minute in case.at else [],
            }
            for minute in sorted({*case.at, *case.silent})
        ],
    }


def _firing(alert: str, labels: Labels, own: Labels) -> dict[str, object]:
    of_alert = own if "job" in own or alert in OF_NO_TARGET else labels | own
    shown = {"alertname": alert, "alertstate": "firing", **of_alert}
    return {"labels": _named("ALERTS", shown), "value": 1}
