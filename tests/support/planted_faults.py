"""Faults to be planted one by one into dashboard, rules and compose files; each must be caught.

A fault is a replacement in one file (its first occurrence), and a part of what the checks must
say about it. `test_dashboard.py`, `test_rules.py` and `test_compose.py` plant them in copies.
A fault in the rules may name a case of `alert_faults.py`: promtool must fail when it plays that.
"""

from dataclasses import dataclass

from hub_idle_exporter import __version__

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
    case: str = ""

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


def _played(name: str, case: str, old: str, new: str) -> Fault:
    """Plant a fault that shows only when a case is played."""
    return Fault(name, RULES, old, new, "FAILED", case)


_BY_TARGET = "on (job, instance)"
_POLLS_ARE_RARE = "{} hub_idle_exporter_poll_interval_seconds {} 300\n            )\n          )"
_LEFT_BEHIND = {
    "its Hub is flaky": "    " + _POLLS_ARE_RARE.format("and", ">"),
    "stops are refused": "(increase(hub_idle_exporter_cull_attempts_total[2h]))",
    "no server can be asked": "1.5\n                " + _POLLS_ARE_RARE.format("unless", "<="),
    "servers wait": "== 1\n                " + _POLLS_ARE_RARE.format("unless", "<="),
    "the spare query fails": "_spare_queries_total[3h]))\n                "
    + _POLLS_ARE_RARE.format("unless", "<="),
    "a user cannot be deleted": "[90m] offset 90m)\n          )\n            > 0",
}
_FAILED_QUERIES = 'hub_idle_exporter_spare_queries_total{result="failed"}'
_SPARE_QUERIES = "increase(hub_idle_exporter_spare_queries_total["
_LABELS_OF_DELETIONS = """
        labels:
          severity: warning
        annotations:
          summary: >-
            Deletions"""
_WRONGLY = ("limit", "probe_failed", "gate", "list", "stale")

IN_RULES = [
    _rules(
        "metric misspelt",
        "          jupyterhub_up == 0",
        "          jupyterhub_ups == 0",
        "no metric",
    ),
    _rules("label value misspelt", 'cause!="not_stopped"', 'cause!="orphan"', "no cause='orphan'"),
    _rules("scope misspelt", "list:users|read:servers", "list:users|read:server", "no scope="),
    _rules("alert misspelt", "EveryProbeFailing|Hub", "EveryProbeFailed|Hub", "no alertname="),
    _rules("bracket lost", "sum without (cause) (", "sum without (cause) ", "no PromQL"),
    _rules(
        "rate of a gauge",
        "avg_over_time(jupyterhub_cull_candidates[30m])",
        "increase(jupyterhub_cull_candidates[30m])",
        "increase() of gauge",
    ),
    _rules(
        "counter without increase",
        "expr: hub_idle_exporter_policy_file_valid == 0",
        "expr: hub_idle_exporter_policy_reload_failures_total > 0",
        "counter hub_idle_exporter_policy_reload_failures_total outside",
    ),
    _rules("no severity", "severity: info", "level: info", "severity"),
    _rules("severity unknown", "severity: info", "severity: page", "severity"),
    _rules("no runbook", "runbook_url: docs/", "runbook: docs/", "runbook_url"),
    _rules("runbook of no section", "#hubidleclockskew", "#hubidleclock", "no section"),
    _rules("summary is no sentence", "cannot read its Hub.", "cannot read its Hub", "no sentence"),
    _rules("instance not named", "{{ $labels.instance }}", "The exporter", "name the instance"),
    _rules("Hub not named", "{{- with $labels.hub }} of Hub {{ . }}{{ end }}", "", "name the hub"),
    _rules(
        "cluster not named",
        "{{- with $labels.cluster }} in cluster {{ . }}{{ end }}",
        "",
        "name the cluster",
    ),
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
    _rules("joined by job and instance", "ignoring (state)", _BY_TARGET, "mixes clusters up"),
    _rules(
        "joined by hub alone",
        "and on (cluster, namespace)\n",
        "and on (hub)\n",
        "mixes clusters up",
    ),
    _rules(
        "counted by job",
        "count by (job, cluster, namespace, hub)",
        "count by (job)",
        "mixes clusters up",
    ),
    _rules("summed over all", "sum without (policy, state)", "sum", "mixes clusters up"),
    _rules("summed over Hubs", "without (policy, state)", "without (hub)", "mixes exporters up"),
    # -- each of these shows only when it is played
    _played(
        "joins by job and instance",
        "all is well",
        'ignoring (state) hub_idle_exporter_enforcement{state="on"} == 1',
        _BY_TARGET + ' hub_idle_exporter_enforcement{state="on"} == 1',
    ),
    _played(
        "a neighbour that stands by silences",
        "the probe user is a Hub admin",
        "unless ignoring (state) hub_idle_exporter_standby == 1",
        f"unless {_BY_TARGET} hub_idle_exporter_standby == 1",
    ),
    _played(
        "fires where nobody is stopped",
        "servers are not asked, but not stopped either",
        'and ignoring (state) hub_idle_exporter_enforcement{state="on"} == 1',
        'and ignoring (state) hub_idle_exporter_enforcement{state="on"} >= 0',
    ),
    _played(
        "orphans unseen",
        "a server was stopped and still runs",
        'cause="not_stopped"}[6h]',
        'cause="not_stopped"}[5m]',
    ),
    _played(
        "orphans are forgotten with the exporter",
        "the exporter goes away after a server was stopped and still runs",
        'cause="not_stopped"}[6h])\n          ) > 0\n',
        'cause="not_stopped"}[6h])\n          ) > 0 and on (cluster, namespace) jupyterhub_up\n',
    ),
    _played(
        "a pod that is just stopping is an orphan",
        "a pod lives on for some minutes",
        "for: 30m\n        keep_firing_for: 15m\n        labels:\n          severity: critical",
        "for: 2m\n        keep_firing_for: 15m\n        labels:\n          severity: critical",
    ),
    _played(
        "a Hub that fills up has orphans",
        "a Hub fills up, seen two minutes late",
        "min_over_time(namespace:jupyterhub_server_pods:count[15m])",
        "namespace:jupyterhub_server_pods:count",
    ),
    _played(
        "a Hub that fills up between rare polls has orphans",
        "a Hub fills up, seen every hour",
        "max by (cluster, namespace) (hub_idle_exporter_poll_interval_seconds) <= 300",
        "max by (cluster, namespace) (hub_idle_exporter_poll_interval_seconds) <= 3600",
    ),
    _played(
        "two exporters of a Hub hide orphans",
        "orphans, beside an exporter that stands by",
        "            unless hub_idle_exporter_standby == 1\n            unless\n          time()",
        "            unless\n          time()",
    ),
    _played(
        "unreadable users are orphans",
        "users who cannot be decoded have pods",
        "            unless hub_idle_exporter_unreadable_users > 0\n",
        "",
    ),
    _played(
        "a second Hub's pods are orphans",
        "two Hubs in one namespace, and one exporter dies",
        "count by (cluster, namespace) (instance:jupyterhub_servers:sure)\n        for",
        "count by (cluster, namespace) (instance:jupyterhub_servers:sure) + 9\n        for",
    ),
    _played(
        "what was counted long ago is compared with pods of now",
        "polls have stopped, and new pods start",
        "> 3 * hub_idle_exporter_poll_interval_seconds + 120\n            unless",
        "> 3e9 * hub_idle_exporter_poll_interval_seconds + 120\n            unless",
    ),
    _played(
        "pods of all namespaces are one Hub's",
        "kube-state-metrics says where it runs itself",
        'kube_pod_status_phase{phase="Running", exported_namespace=""}',
        'kube_pod_status_phase{phase="Running"}',
    ),
    _played(
        "pods are counted twice",
        "all is well",
        'phase="Running", exported_namespace=""} == 1',
        'phase="Running", exported_namespace=""} >= 0) + 1',
    ),
    _played(
        "what is away is not asked, though it stops servers now and then",
        "servers are stopped without being asked, whenever their Hub answers",
        'hub_idle_exporter_enforcement{state="on"} == 1\n        keep_firing_for: 15m',
        'hub_idle_exporter_enforcement{state="on"} == 1\n        for: 5m',
    ),
    _played(
        "a target that is forgotten is down besides",
        "a dead exporter is forgotten",
        "            and instance:hub_idle_exporter_up:known >= 0\n",
        "",
    ),
    _played(
        "a crash loop that is over goes on",
        "the exporter crashes for an hour",
        "          changes(process_start_time_seconds[3h]) > 5\n"
        "            and changes(process_start_time_seconds[1h]) > 0\n            and ignoring",
        "          changes(process_start_time_seconds[3h]) > 5\n            and ignoring",
    ),
    _played(
        "a grace period that is over goes on",
        "the grace period ends after four hours, and culling is on again",
        'min_over_time(hub_idle_exporter_enforcement{state="on"}[1h]) == 1',
        'min_over_time(hub_idle_exporter_enforcement{state="on"}[1h]) == 2',
    ),
    _played(
        "candidates of a grace period wait where polls are rare",
        "a grace period of ten minutes, with forty candidates, at an interval of 20 minutes",
        'min_over_time(hub_idle_exporter_enforcement{state="on"}[3h]) == 1',
        'max_over_time(hub_idle_exporter_enforcement{state="on"}[3h]) == 1',
    ),
    _played(
        "one that stands by sees idle servers that compute",
        "most servers look idle and compute, as an exporter sees it that stands by",
        "            unless hub_idle_exporter_standby == 1\n        for: 2h",
        "        for: 2h",
    ),
    _played(
        "down only while no scrape works",
        "two of three scrapes fail",
        "[10m]) < 0.5",
        "[10m]) == 0",
    ),
    _played(
        "a crash loop is down besides",
        "the exporter crashes again and again, and is away for eight minutes each time",
        "            unless\n"
        "          (\n            changes(process_start_time_seconds[3h]) > 5\n",
        "            unless\n"
        "          (\n            changes(process_start_time_seconds[3h]) > 500\n",
    ),
    _played(
        "a crash loop is an endless grace besides",
        "the exporter crashes every five minutes, between two scrapes",
        "            unless changes(process_start_time_seconds[3h]) > 5\n",
        "",
    ),
    _played(
        "a start is a crash loop",
        "the exporter is started anew once",
        "          changes(process_start_time_seconds[3h]) > 5\n            and changes",
        "          changes(process_start_time_seconds[3h]) > 0\n            and changes",
    ),
    _played(
        "a dead exporter is gone besides",
        "the exporter dies",
        "            instance:hub_idle_exporter_up:known == 0\n          )",
        "            instance:hub_idle_exporter_up:known == 2\n          )",
    ),
    _played(
        "a pod that replaces another is gone",
        "another pod replaces the exporter",
        "quantile_over_time(0.9, job:",
        "quantile_over_time(1, job:",
    ),
    _played(
        "gone only while another one is there",
        "service discovery forgets the exporter",
        "              or\n"
        "            0 * quantile_over_time(0.9, job:hub_idle_exporter_build_info:count[1d])\n",
        "",
    ),
    _played(
        "one poll of an hour alarms",
        "one poll of an hour fails",
        "            > 3 * hub_idle_exporter_poll_interval_seconds\n"
        "            unless ignoring (scope)",
        "            > 180\n            unless ignoring (scope)",
    ),
    _played(
        "a scope that is missing is unreachable besides",
        "the token may not read servers any more",
        "unless ignoring (scope)\n          (\n            hub_idle_exporter_scope_granted{scope=~",
        "unless ignoring (scope)\n"
        "          (\n            1 + hub_idle_exporter_scope_granted{scope=~",
    ),
    _played(
        "an outage is flaky",
        "the Hub is away",
        "unless changes(jupyterhub_up[1h]) <= 4",
        "unless changes(jupyterhub_up[1h]) <= 0",
    ),
    _played(
        "rare polls are never flaky",
        "the Hub answers every third poll, of an hour",
        "unless changes(jupyterhub_up[8h]) <= 4",
        "unless changes(jupyterhub_up[8h]) <= 400",
    ),
    _played(
        "a scrape that is a minute old is stale",
        "polls every ten seconds, scraped every minute",
        "> 3 * hub_idle_exporter_poll_interval_seconds + 120\n            and jupyterhub_up == 1",
        "> 3 * hub_idle_exporter_poll_interval_seconds\n            and jupyterhub_up == 1",
    ),
    _played(
        "interval ignored",
        "all is well at an interval of an hour",
        "> 3 * hub_idle_exporter_poll_interval_seconds + 120\n            and jupyterhub_up == 1",
        "> 180 + 120\n            and jupyterhub_up == 1",
    ),
    _played(
        "scopes of a mere watcher",
        "all is well in monitor mode",
        'and ignoring (scope, state) hub_idle_exporter_enforcement{state="off"} == 0\n',
        "\n",
    ),
    _played(
        "fires for whoever waits for another exporter",
        "nothing but another exporter's lease forbids stops",
        "            unless ignoring (state) hub_idle_exporter_standby == 1\n",
        "",
    ),
    _played(
        "a scope that is missing is suspended besides",
        "the token may not stop servers any more",
        "unless ignoring (state, scope)\n"
        '          hub_idle_exporter_scope_granted{scope="delete:servers"} == 0',
        "unless ignoring (state, scope)\n"
        '          hub_idle_exporter_scope_granted{scope="delete:servers"} == 2',
    ),
    _played(
        "every start is an endless grace",
        "the grace period never ends",
        "and ignoring (state)\n          last_over_time",
        "unless ignoring (state)\n          last_over_time",
    ),
    _played(
        "a long grace is an endless one",
        "a grace period of three hours, after a start at four hours",
        "2 * max_over_time(hub_idle_exporter_grace_seconds[3h])",
        "0 * max_over_time(hub_idle_exporter_grace_seconds[3h])",
    ),
    _played("one slow stop alarms", "one slow stop of four", ") > 2.5\n", ") > 0\n"),
    _played(
        "one broken server alarms",
        "one broken server, alone",
        "/ (increase(hub_idle_exporter_polls_total[30m]) > 0)\n                > 1.5",
        "/ (increase(hub_idle_exporter_polls_total[30m]) > 0)\n                > 0",
    ),
    _played(
        "one server that waits alarms",
        "one broken server among many",
        "instance:hub_idle_exporter_candidates_waiting:avg30m > 1.5",
        "instance:hub_idle_exporter_candidates_waiting:avg30m > 0.5",
    ),
    _played(
        "servers that cannot be asked wait besides",
        "no server can be asked",
        '=~"HubIdleEveryProbeFailing|HubIdleCullsFailing"',
        '=~"HubIdleCullsFailing"',
    ),
    _played(
        "stops that are refused leave servers waiting besides",
        "every stop is refused",
        '=~"HubIdleEveryProbeFailing|HubIdleCullsFailing"',
        '=~"HubIdleEveryProbeFailing"',
    ),
    _played(
        "candidates of a grace period wait",
        "a grace period of ten minutes, with forty candidates",
        "for: 75m",
        "for: 15m",
    ),
    _played(
        "busy servers wait",
        "a hundred servers compute",
        'cause!~"limit|probe_failed|gate|list|stale"',
        'cause!~"limit|probe_failed|gate|list|stale|busy"',
    ),
    *(
        _played(
            f"withheld for {cause} is wrong",
            "at each poll two servers are kept, and of three the notice is not over",
            'cause!~"limit|probe_failed|gate|list|stale"',
            f'cause!~"limit|probe_failed|gate|list|stale|{cause}"',
        )
        for cause in ("notice", "kept")
    ),
    _played(
        "where nobody waits, somebody has waited since 1970",
        "all is well",
        "(hub_idle_exporter_notices_undelivered_since_timestamp_seconds > 0)",
        "hub_idle_exporter_notices_undelivered_since_timestamp_seconds",
    ),
    _played(
        "a mail server that is restarted alarms",
        "the mail server is away for 25 minutes, at an interval of an hour",
        "_timestamp_seconds > 0)\n            > 1800",
        "_timestamp_seconds > 0)\n            > 180",
    ),
    _played(
        "some notice that waits alarms",
        "each notice is delivered at the second try",
        "          hub_idle_exporter_notices_undelivered\n            and\n",
        "          min_over_time(hub_idle_exporter_notices_undelivered[30m]) > 0\n            or\n",
    ),
    _played(
        "one person who cannot be told is no alarm",
        "one person can never be told",
        "          hub_idle_exporter_notices_undelivered\n",
        "          hub_idle_exporter_notices_undelivered > 1\n",
    ),
    *(
        _played(
            f"withheld for {cause} is right",
            f"candidates are withheld for {cause}",
            'cause!~"limit|probe_failed|gate|list|stale"',
            f'cause!~"{"|".join(other for other in _WRONGLY if other != cause)}"',
        )
        for cause in _WRONGLY[1:]
    ),
    _played(
        "a limit that is too low is right",
        "more servers become idle than may be stopped",
        'cause!~"limit|probe_failed|gate|list|stale"',
        'cause!~"probe_failed|gate|list|stale"',
    ),
    _played(
        "rare polls never wait",
        "candidates wait, at an interval of 60 minutes",
        "instance:hub_idle_exporter_candidates_waiting:avg3h > 1.5",
        "instance:hub_idle_exporter_candidates_waiting:avg3h > 150",
    ),
    _played(
        "servers that the second opinion spares wait",
        "the second opinion spares a hundred servers all along",
        'cause!~"limit|probe_failed|gate|list|stale"',
        'cause!~"limit|probe_failed|gate|list|stale|in_use"',
    ),
    _played(
        "servers wait besides while the spare query fails",
        "the spare query fails at each poll",
        'cause!~"limit|probe_failed|gate|list|stale"',
        'cause!~"limit|probe_failed|gate|list|stale|query_failed"',
    ),
    _played(
        "a spare query that fails for some minutes alarms",
        "the Prometheus that is asked starts anew, for eight minutes",
        f"{_SPARE_QUERIES}30m])",
        f"0 * {_SPARE_QUERIES}30m])",
    ),
    _played(
        "two failures of a spare query at rare polls alarm",
        "the spare query fails twice, at an interval of 20 minutes",
        f"{_SPARE_QUERIES}3h])",
        f"0 * {_SPARE_QUERIES}3h])",
    ),
    _played(
        "the first failure of a spare query alarms",
        "the spare query fails once, after the start, at an interval of an hour",
        f"{_FAILED_QUERIES}[3h])\n                )\n                  > 1.5",
        f"{_FAILED_QUERIES}[3h])\n                )\n                  > 0.5",
    ),
    _played(
        "a spare query is looked for at frequent polls only",
        "the spare query fails at each poll, of an hour",
        f"{_SPARE_QUERIES}3h]))\n                unless hub",
        f"{_SPARE_QUERIES}3h]))\n                and hub",
    ),
    _played(
        "one listing whose deletions fail alarms",
        "every deletion of one listing fails",
        "_failures_total[90m] offset 90m",
        "_failures_total[90m]",
    ),
    _played(
        "deletions that fail while the window moves alarm",
        "every deletion of one listing fails",
        f"15m{_LABELS_OF_DELETIONS}",
        f"1m{_LABELS_OF_DELETIONS}",
    ),
    _played(
        "deletions are looked for at every poll",
        "a user cannot be deleted",
        "_deletion_failures_total[90m])",
        "_deletion_failures_total[30m])",
    ),
    _played(
        "exempt servers count",
        "most servers are idle, beside exempt ones in use",
        "jupyterhub_servers unless ignoring (state) jupyterhub_policy_exempt == 1",
        "jupyterhub_servers",
    ),
    _played(
        "old servers are idle",
        "most servers are too old, in monitor mode",
        'jupyterhub_cull_candidates{reason="idle"}',
        "jupyterhub_cull_candidates",
    ),
    _played(
        "servers that compute are idle",
        "most servers look idle and compute, and others are old",
        '            unless ignoring (state) hub_idle_exporter_enforcement{state="on"} == 1\n',
        "",
    ),
    _played(
        "a file that is only being written is broken",
        "the policy file is broken for a day",
        "expr: hub_idle_exporter_policy_file_valid == 0\n        for: 5m",
        "expr: hub_idle_exporter_policy_file_valid == 0\n        for: 1m",
    ),
    _played(
        "threshold upside down",
        "the clocks differ by 45 seconds",
        "(hub_idle_exporter_clock_skew_seconds) > 30",
        "(hub_idle_exporter_clock_skew_seconds) < 30",
    ),
    _played(
        "an exporter that was away was in grace for long",
        "the exporter is away for three and a half hours, and back with a grace of ten minutes",
        "            unless avg_over_time(instance:hub_idle_exporter_up:known[3h]) < 0.5\n",
        "",
    ),
    _played(
        "a dead exporter leaves behind that its grace never ends",
        "the exporter dies in a grace period that never ends",
        "known[3h]) < 0.5\n            unless up == 0\n",
        "known[3h]) < 0.5\n",
    ),
    *(
        _played(
            f"a dead exporter leaves behind that {what}",
            f"the exporter dies while {what}",
            f"{end}\n            unless up == 0\n",
            f"{end}\n",
        )
        for what, end in _LEFT_BEHIND.items()
    ),
]


def _compose(name: str, old: str, new: str, caught: str) -> Fault:
    return Fault(name, COMPOSE, old, new, caught)


_OF_PROMETHEUS = "efd719c99d83b060d9daefdcf00360461adf279f45ef5391f8d111892118753e"
_POLICY = "config-policy:/etc/hub-idle-exporter:ro,nocopy"
_FOLDER = "./hub_idle_exporter/demo:/etc/hub-idle-exporter"

IN_COMPOSE = [
    _compose("no YAML", "services:\n", "services\n", "docker-compose config"),
    _compose("key unknown", "pids_limit: 16", "pid_limit: 16", "docker-compose config"),
    _compose("image latest", "prom/prometheus:v3.15.0", "prom/prometheus:latest", "whole version"),
    _compose(
        "image name bad", "grafana/grafana:13.2.3", "grafana//grafana:13.2.3", "whole version"
    ),
    _compose("image without digest", f"v3.15.0@sha256:{_OF_PROMETHEUS}", "v3.15.0", "a digest"),
    _compose(
        "image of another version",
        f"hub-idle-exporter:{__version__}",
        "hub-idle-exporter:0.0.1",
        "version of the package",
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
    _compose("bind source missing", _POLICY, "./policies:/etc/hub-idle-exporter:ro,z", "not exist"),
    _compose("bind to be written", _POLICY, f"{_FOLDER}:z", "may write"),
    _compose("bind without z", _POLICY, f"{_FOLDER}:ro", "no z"),
    _compose("bind under umask 077", _POLICY, f"{_FOLDER}:ro,z", "umask 077"),
    _compose(
        "single policy file",
        _POLICY,
        "./hub_idle_exporter/demo/policy.yaml:/etc/hub-idle-exporter/policy.yaml:ro,z",
        "single file",
    ),
    _compose("configuration to be written", ":ro,nocopy", ":nocopy", "may write"),
    _compose("volume filled by its reader", ":ro,nocopy", ":ro", "before init can"),
    _compose(
        "path of one Python",
        "/opt/venv/demo/",
        "/opt/venv/lib/python3.11/site-packages/hub_idle_exporter/demo/",
        "version of Python",
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
    Fault("base not pinned", DOCKERFILE, "python:3.14.8-slim-trixie", "python:3", "not pinned"),
    Fault(
        "base without digest", DOCKERFILE, "-slim-trixie@sha256:", "-slim-trixie\n#", "not pinned"
    ),
    Fault("files forgotten", DOCKERFILE, "/opt/stack/policy/", "/opt/stack/policies/", "no files"),
    Fault("label of another version", DOCKERFILE, f'="{__version__}"', '="0.0.1"', "the label"),
    Fault(
        "listens by an argument",
        DOCKERFILE,
        "ENV HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS=:9899\n",
        "",
        "where it listens",
    ),
    Fault(
        "listens by CMD",
        DOCKERFILE,
        'ENTRYPOINT ["hub-idle-exporter"]\n',
        'ENTRYPOINT ["hub-idle-exporter"]\nCMD ["--web.listen-address=:9899"]\n',
        "where it listens",
    ),
    Fault(
        "no hashes",
        DOCKERFILE,
        "install --require-hashes --no-deps -r requirements/run.txt",
        "install -r requirements/run.txt",
        "without hashes",
    ),
    Fault(
        "build isolation",
        DOCKERFILE,
        " --no-build-isolation",
        "",
        "what builds the package",
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
