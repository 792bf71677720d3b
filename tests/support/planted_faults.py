"""Faults to be planted one by one into dashboard, rules and compose files; each must be caught.

A fault is a replacement in one file (its first occurrence), and a part of what the checks must
say about it. `test_dashboard.py`, `test_rules.py` and `test_compose.py` plant them in copies.
"""

from dataclasses import dataclass

DASHBOARD = "grafana/dashboards/idle-servers.json"
RULES = "prometheus/rules.yml"
COMPOSE = "docker-compose.yml"
DOCKERFILE = "Dockerfile"
PROMETHEUS = "prometheus/prometheus.yml"
DATASOURCE = "grafana/provisioning/datasources/prometheus.yml"
PROVIDER = "grafana/provisioning/dashboards/hub-idle-exporter.yml"


@dataclass(frozen=True)
class Fault:
    """One mistake: in `file`, `old` becomes `new`, and a check must say `caught`."""

    name: str
    file: str
    old: str
    new: str
    caught: str

    def planted(self, text: str) -> str:
        """Give the text with the mistake in it; it must be possible to make it."""
        if self.old not in text:
            raise AssertionError(f"{self.name}: {self.old!r} is not in {self.file} any more")
        return text.replace(self.old, self.new, 1)


def _dashboard(name: str, old: str, new: str, caught: str) -> Fault:
    return Fault(name, DASHBOARD, old, new, caught)


_CHOSEN = 'cluster=~\\"$cluster\\", hub=~\\"$hub\\", job=~\\"$job\\", instance=~\\"$instance\\"'
_RED_AFTER_180 = '"thresholds": {"steps": [{"color": "red", "value": 180}]}, "unit": "s"'
_EACH = "max by (cluster, hub, job, instance) ("

IN_DASHBOARD = [
    _dashboard("metric misspelt", "(jupyterhub_servers{", "(jupyterhub_server{", "no metric"),
    _dashboard(
        "metric of another exporter", "jupyterhub_up{", "jupyterhub_total_users{", "no metric"
    ),
    _dashboard(
        "safeguard misspelt", "hub_idle_exporter_safeguard{", "hub_idle_exporter_safe{", "no metric"
    ),
    _dashboard("label misspelt", 'state=\\"idle\\"', 'sate=\\"idle\\"', "no label sate"),
    _dashboard("label value misspelt", 'state=\\"idle\\"', 'state=\\"idel\\"', "no state='idel'"),
    _dashboard("bucket that is not there", 'le=\\"900.0\\"', 'le=\\"901.0\\"', "no le='901.0'"),
    _dashboard("limit that is not there", 'limit=\\"900\\"', 'limit=\\"901\\"', "no limit='901'"),
    _dashboard(
        "rate of a gauge",
        f"increase(hub_idle_exporter_culls_total{{{_CHOSEN}}}",
        f"increase(jupyterhub_cull_candidates{{{_CHOSEN}}}",
        "increase() of gauge jupyterhub_cull_candidates",
    ),
    _dashboard(
        "counter without increase",
        f"increase(hub_idle_exporter_culls_total{{{_CHOSEN}}}[$__range])",
        f"hub_idle_exporter_culls_total{{{_CHOSEN}}}",
        "counter hub_idle_exporter_culls_total outside",
    ),
    _dashboard(
        "rate over a fixed window",
        "[$__rate_interval]",
        "[1h]",
        "another window than $__rate_interval",
    ),
    _dashboard("bracket lost", "sum by (state) (", "sum by (state) ", "no PromQL"),
    _dashboard("variable undefined", "[$__range]", "[$range]", "no PromQL"),
    _dashboard("variable undefined in a matcher", "$hub_job", "$hubjob", "$hubjob is used"),
    _dashboard("variable unused", '"name": "hub_job"', '"name": "hub_jobs"', "$hub_jobs is def"),
    _dashboard(
        "instance not chosen", ', instance=~\\"$instance\\"', "", 'not chosen by instance=~"$inst'
    ),
    _dashboard(
        "cluster not chosen", 'cluster=~\\"$cluster\\", ', "", 'not chosen by cluster=~"$cluster'
    ),
    _dashboard("job by equality", 'job=~\\"$job\\"', 'job=\\"$job\\"', 'not chosen by job=~"$job"'),
    _dashboard(
        "division by nothing",
        " / (sum by (policy) (jupyterhub_servers",
        " / sum by (policy) ((jupyterhub_servers",
        "not guarded",
    ),
    _dashboard("grouped by no label", "sum by (policy) (", "sum by (polcy) (", "grouped by polcy"),
    _dashboard("legend of no label", "{{outcome}}", "{{why}}", "names why"),
    _dashboard("panel without title", '"title": "In use now"', '"title": ""', "no title"),
    _dashboard(
        "panel without description",
        '"description": "Versions of the exporters and of the Hubs."',
        '"description": ""',
        "no description",
    ),
    _dashboard("unit unknown", '"unit": "percentunit"', '"unit": "share"', "unit 'share'"),
    _dashboard("data source fixed", '"uid": "${datasource}"', '"uid": "abc"', "data source is"),
    _dashboard("editable", '"editable": false', '"editable": true', "editable is True"),
    _dashboard("other uid", '"uid": "hub-idle-exporter"', '"uid": "x"', "uid is 'x'"),
    _dashboard("tag lost", '"hub-idle-exporter"\n  ]', '"idle"\n  ]', "tags are"),
    _dashboard("id twice", '"id": 3,', '"id": 2,', "same id"),
    _dashboard("id twice, in a folded row", '"id": 20,', '"id": 12,', "same id"),
    _dashboard("overlap", '"x": 4,\n        "y": 5', '"x": 3,\n        "y": 5', "overlap"),
    _dashboard(
        "overlap in a folded row",
        '"x": 8,\n            "y": 26',
        '"x": 7,\n            "y": 26',
        "overlap",
    ),
    _dashboard("too wide", '"w": 6,\n        "x": 18', '"w": 7,\n        "x": 18', "24 columns"),
    _dashboard("panel type unknown", '"type": "bargauge"', '"type": "graph"', "type graph"),
    _dashboard("refId twice", '"refId": "B"', '"refId": "A"', "same refId"),
    _dashboard("all is not .+", '"allValue": ".+"', '"allValue": ".*"', "allValue is '.*'"),
    _dashboard("clusters must exist", '"allValue": ".*"', '"allValue": ".+"', "allValue is '.+'"),
    _dashboard("variable not reloaded", '"refresh": 2', '"refresh": 1', "refresh is 1"),
    _dashboard("crosshair lost", '"graphTooltip": 1', '"graphTooltip": 0', "graphTooltip is 0"),
    _dashboard("link lost", '"type": "dashboards"', '"type": "link"', "no link by tag"),
    _dashboard(
        "last value of a range",
        '"instant": true,\n          "legendFormat": "idle",\n          "range": false',
        '"instant": false,\n          "legendFormat": "idle",\n          "range": true',
        "shows one moment, and asks over time",
    ),
    _dashboard(
        "range over time",
        '"instant": true,\n          "legendFormat": "money"',
        '"instant": false,\n          "legendFormat": "money"',
        "look back over it all",
    ),
    _dashboard(
        "numbers of an hour ago",
        " and on (cluster, hub, job, instance) timestamp(",
        " or on (cluster, hub, job, instance) timestamp(",
        "nothing asks whether it is fresh",
    ),
    _dashboard(
        "age of a dead exporter",
        f"time() - {_EACH}max_over_time(",
        f"time() - {_EACH}last_over_time(",
        "stops growing",
    ),
    _dashboard("maximum over Hubs", _EACH, "max (", "max over exporters that differ in cluster"),
    _dashboard("clusters merged", _EACH, "max by (hub, job, instance) (", "differ in cluster"),
    _dashboard("colours of seconds", '"unit": "s"', _RED_AFTER_180, "fixed seconds"),
    _dashboard(
        "total first", '"failed: {{cause}}"', '"all: {{cause}}"', "total does not come last"
    ),
    _dashboard("exempt like others", "{{policy}} (exempt)", "{{policy}}", "not told apart"),
    _dashboard(
        "colours by order",
        '"mode": "palette-classic-by-name"',
        '"mode": "palette-classic"',
        "does not come from its name",
    ),
    _dashboard("price pasted", "${cost:doublequote}", "${cost:raw}", "pasted into PromQL"),
    _dashboard("a price from us", '"query": "",', '"query": "0.12",', "empty at first"),
    _dashboard("row open", '"collapsed": true', '"collapsed": false', "not folded"),
    _dashboard("annotation lost", '"name": "Mode changes"', '"name": "x"', "annotations are"),
    _dashboard("changed by hand", '"Idle share by policy"', '"Share of idle"', "differs from"),
]


def _rules(name: str, old: str, new: str, caught: str) -> Fault:
    return Fault(name, RULES, old, new, caught)


IN_RULES = [
    _rules("metric misspelt", "expr: jupyterhub_up == 0", "expr: jupyterhub_ups == 0", "no metric"),
    _rules("label value misspelt", 'cause!="not_stopped"', 'cause!="orphan"', "no cause='orphan'"),
    _rules("scope misspelt", "list:users|read:servers", "list:users|read:server", "no scope="),
    _rules("bracket lost", "sum without (cause) (", "sum without (cause) ", "no PromQL"),
    _rules(
        "rate of a gauge",
        "avg_over_time(jupyterhub_cull_candidates[15m])",
        "increase(jupyterhub_cull_candidates[15m])",
        "increase() of gauge",
    ),
    _rules(
        "counter without increase",
        "expr: increase(hub_idle_exporter_policy_reload_failures_total[1h]) > 0",
        "expr: hub_idle_exporter_policy_reload_failures_total > 0",
        "counter hub_idle_exporter_policy_reload_failures_total outside",
    ),
    _rules("no severity", "severity: info", "level: info", "severity"),
    _rules("severity unknown", "severity: info", "severity: page", "severity"),
    _rules("no runbook", "runbook_url: docs/", "runbook: docs/", "runbook_url"),
    _rules("runbook of no section", "#hubidleclockskew", "#hubidleclock", "no section"),
    _rules("summary is no sentence", "cannot read its JupyterHub.", "cannot read it", "summary"),
    _rules("name out of line", "alert: HubIdleClockSkew", "alert: ClockSkew", "begins with"),
    _rules(
        "record out of line",
        "record: instance:jupyterhub_servers_idle:ratio",
        "record: idle_ratio",
        "level:metric:operation",
    ),
    _rules("alert twice", "alert: HubIdleClockSkew", "alert: HubIdleShareHigh", "twice"),
    _rules(
        "rule twice",
        "      - record: instance_state:jupyterhub_servers:sum\n"
        "        expr: sum without (policy) (jupyterhub_servers)\n",
        "      - record: instance_state:jupyterhub_servers:sum\n"
        "        expr: sum without (policy) (jupyterhub_servers)\n" * 2,
        "duplicate",
    ),
    _rules(
        "division by nothing",
        "(instance:jupyterhub_servers:sum > 0)",
        "instance:jupyterhub_servers:sum",
        "not guarded",
    ),
    _rules(
        "threshold upside down",
        "(hub_idle_exporter_clock_skew_seconds) > 30",
        "(hub_idle_exporter_clock_skew_seconds) < 30",
        "FAILED",
    ),
    _rules(
        "fires in monitor mode",
        'hub_idle_exporter_enforcement{state="on"} == 1',
        'hub_idle_exporter_enforcement{state="on"} >= 0',
        "FAILED",
    ),
    _rules(
        "scopes of a mere watcher",
        'and on (job, instance) hub_idle_exporter_enforcement{state="off"} == 0',
        "",
        "FAILED",
    ),
    _rules(
        "busy servers count as waiting",
        '"limit|probe_failed|gate|list|stale"',
        '"limit|probe_failed|gate|list|stale|busy"',
        "FAILED",
    ),
    _rules("stops that come too late are right", "|list|stale", "|list", "FAILED"),
    _rules("a list with gaps is right", "|list|stale", "|stale", "FAILED"),
    _rules(
        "fires for whoever waits for another exporter",
        "unless on (job, instance) hub_idle_exporter_standby == 1",
        "",
        "FAILED",
    ),
    _rules(
        "safeguards of a mere watcher",
        "hub_idle_exporter_safeguard == 0\n"
        '            and on (job, instance) hub_idle_exporter_enforcement{state="on"} == 1',
        "hub_idle_exporter_safeguard == 0",
        "FAILED",
    ),
    _rules(
        "safeguards that are there",
        "hub_idle_exporter_safeguard == 0",
        "hub_idle_exporter_safeguard >= 0",
        "FAILED",
    ),
    _rules("interval ignored", "> 3 * hub_idle_exporter_poll_interval_seconds", "> 180", "FAILED"),
    _rules("orphans unseen", 'cause="not_stopped"}[6h]', 'cause="not_stopped"}[5m]', "FAILED"),
    _rules(
        "fires at once",
        "for: 15m\n        labels:\n          severity: critical",
        "for: 1m\n        labels:\n          severity: critical",
        "FAILED",
    ),
]


def _compose(name: str, old: str, new: str, caught: str) -> Fault:
    return Fault(name, COMPOSE, old, new, caught)


IN_COMPOSE = [
    _compose("no YAML", "services:\n", "services\n", "docker-compose config"),
    _compose("key unknown", "pids_limit: 16", "pid_limit: 16", "docker-compose config"),
    _compose("image latest", "prom/prometheus:v3.13.3", "prom/prometheus:latest", "whole version"),
    _compose(
        "image name bad", "grafana/grafana:12.4.4", "grafana//grafana:12.4.4", "whole version"
    ),
    _compose("image may be pulled", "pull_policy: never", "pull_policy: always", "might be pulled"),
    _compose("stage unknown", "target: exporter", "target: sidecar", "no stage sidecar"),
    _compose("root", 'user: "472:0"', 'user: "0:0"', "is root"),
    _compose("writable root", "read_only: true", "read_only: false", "can be written"),
    _compose("capabilities", "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "keeps capabilities"),
    _compose("privileges", "no-new-privileges:true", "label:disable", "gain privileges"),
    _compose("host's network", "network_mode: none", "network_mode: host", "host's network"),
    _compose("no limit", "    mem_limit: 2g\n", "", "no mem_limit"),
    _compose(
        "no health check",
        '["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9090/-/ready"]',
        '["NONE"]',
        "no health check",
    ),
    _compose("open to all", "127.0.0.1:${GRAFANA_PORT", "0.0.0.0:${GRAFANA_PORT", "beyond 127"),
    _compose("bind source missing", "./grafana/dashboards:", "./grafana/dashboard:", "not exist"),
    _compose(
        "bind to be written",
        "./prometheus:/etc/prometheus:ro",
        "./prometheus:/etc/prometheus",
        "may write",
    ),
    _compose(
        "secrets to be written",
        "secrets-people:/run/secrets/demo:ro",
        "secrets-people:/run/secrets/demo",
        "may write",
    ),
    _compose(
        "volume undeclared", "volumes:\n  secrets-hub:\n", "volumes:\n", "docker-compose config"
    ),
    _compose(
        "default password",
        "GF_LOG_MODE: console",
        "GF_SECURITY_ADMIN_PASSWORD: admin",
        "holds a secret",
    ),
    _compose("home dashboard missing", "idle-servers.json", "idle.json", "nothing is mounted"),
    _compose(
        "order by start",
        "exporter: {condition: service_healthy}",
        "exporter: {condition: service_started}",
        "waits for exporter",
    ),
    _compose("init restarted", 'restart: "no"', "restart: always", "runs once"),
    _compose("token file missing", "demo/exporter-token", "demo/export-token", "no secret"),
    _compose("option unknown", "      - --enforce\n", "      - --enforces\n", "No such option"),
    _compose("duration bad", "--timeout=2m", "--timeout=2 minutes", "--timeout"),
    Fault("scrapes nobody", PROMETHEUS, "exporter:9899", "exporter:9898", "no port 9898"),
    Fault("scrapes no service", PROMETHEUS, "exporter:9899", "sidecar:9899", "no service sidecar"),
    Fault("rules not loaded", PROMETHEUS, "  - rules.yml", "  - rule.yml", "rules are not loaded"),
    Fault("data source elsewhere", DATASOURCE, "prometheus:9090", "localhost:9090", "no service"),
    Fault(
        "dashboards elsewhere",
        PROVIDER,
        "path: /etc/grafana/dashboards",
        "path: /dashboards",
        "no dashboards at",
    ),
    Fault(
        "image runs as root", DOCKERFILE, "USER 10001:10001\nWORKDIR /\n", "WORKDIR /\n", "no USER"
    ),
    Fault(
        "image without health check",
        DOCKERFILE,
        "EXPOSE 9899\nHEALTHCHECK",
        "EXPOSE 9899\n# HEALTH",
        "Dockerfile",
    ),
    Fault("base not pinned", DOCKERFILE, "python:3.11.14-slim-bookworm", "python:3", "not pinned"),
    Fault(
        "no hashes",
        DOCKERFILE,
        "install --require-hashes --no-deps -r requirements/run.txt",
        "install -r requirements/run.txt",
        "without hashes",
    ),
    Fault(
        "pip left",
        DOCKERFILE,
        "RUN pip uninstall --yes --root-user-action=ignore wheel setuptools pip \\\n    && useradd",
        "RUN useradd",
        "pip is left",
    ),
    Fault("a shell's cd", DOCKERFILE, "WORKDIR /src\n", "RUN cd /src\n", "hadolint"),
]
