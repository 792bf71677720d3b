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


IN_DASHBOARD = [
    _dashboard("metric misspelt", "sum(jupyterhub_servers{", "sum(jupyterhub_server{", "no metric"),
    _dashboard(
        "metric of another exporter", "jupyterhub_up{", "jupyterhub_total_users{", "no metric"
    ),
    _dashboard("label misspelt", 'state=\\"idle\\"', 'sate=\\"idle\\"', "no label sate"),
    _dashboard("label value misspelt", 'state=\\"idle\\"', 'state=\\"idel\\"', "no state='idel'"),
    _dashboard("bucket that is not there", 'le=\\"900.0\\"', 'le=\\"901.0\\"', "no le='901.0'"),
    _dashboard(
        "rate of a gauge",
        '"expr": "sum(jupyterhub_cull_candidates{job=~\\"$job\\", instance=~\\"$instance\\"})"',
        '"expr": "sum(rate(jupyterhub_cull_candidates{job=~\\"$job\\",'
        ' instance=~\\"$instance\\"}[$__rate_interval]))"',
        "rate() of gauge jupyterhub_cull_candidates",
    ),
    _dashboard(
        "counter without increase",
        'sum (increase(hub_idle_exporter_culls_total{job=~\\"$job\\",'
        ' instance=~\\"$instance\\"}[$__range]))',
        'sum (hub_idle_exporter_culls_total{job=~\\"$job\\", instance=~\\"$instance\\"})',
        "counter hub_idle_exporter_culls_total outside",
    ),
    _dashboard(
        "rate over a fixed window",
        'sum (increase(hub_idle_exporter_polls_total{job=~\\"$job\\",'
        ' instance=~\\"$instance\\"}[1h]',
        'sum (rate(hub_idle_exporter_polls_total{job=~\\"$job\\", instance=~\\"$instance\\"}[1h]',
        "another window than $__rate_interval",
    ),
    _dashboard("bracket lost", "sum by (state) (", "sum by (state) ", "no PromQL"),
    _dashboard("variable undefined", "[$__range]", "[$range]", "no PromQL"),
    _dashboard("variable undefined in a matcher", "$hub_job", "$hubjob", "$hubjob is used"),
    _dashboard("variable unused", '"name": "hub_job"', '"name": "hub_jobs"', "$hub_jobs is def"),
    _dashboard(
        "instance not chosen", ', instance=~\\"$instance\\"', "", 'not chosen by instance=~"$inst'
    ),
    _dashboard("job by equality", 'job=~\\"$job\\"', 'job=\\"$job\\"', 'not chosen by job=~"$job"'),
    _dashboard("division by nothing", ' > 0)"', ')"', "not guarded"),
    _dashboard("grouped by no label", "sum by (policy) (", "sum by (polcy) (", "grouped by polcy"),
    _dashboard("legend of no label", "{{policy}}: {{reason}}", "{{policy}}: {{why}}", "names why"),
    _dashboard("panel without title", '"title": "Idle share"', '"title": ""', "no title"),
    _dashboard(
        "panel without description",
        '"description": "Idle servers as a part of all servers."',
        '"description": ""',
        "no description",
    ),
    _dashboard("unit unknown", '"unit": "percentunit"', '"unit": "share"', "unit 'share'"),
    _dashboard("data source fixed", '"uid": "${datasource}"', '"uid": "abc"', "data source is"),
    _dashboard("editable", '"editable": false', '"editable": true', "editable is True"),
    _dashboard("other uid", '"uid": "hub-idle-exporter"', '"uid": "x"', "uid is 'x'"),
    _dashboard("tag lost", '"hub-idle-exporter"\n  ]', '"idle"\n  ]', "tags are"),
    _dashboard("id twice", '"id": 3,', '"id": 2,', "same id"),
    _dashboard("overlap", '"x": 4,\n        "y": 1', '"x": 3,\n        "y": 1', "overlap"),
    _dashboard("too wide", '"w": 12,\n        "x": 12', '"w": 13,\n        "x": 12', "24 columns"),
    _dashboard("panel type unknown", '"type": "bargauge"', '"type": "graph"', "type graph"),
    _dashboard("refId twice", '"refId": "B"', '"refId": "A"', "same refId"),
    _dashboard("all is not .+", '"allValue": ".+"', '"allValue": ".*"', "allValue is '.*'"),
    _dashboard("variable not reloaded", '"refresh": 2', '"refresh": 1', "refresh is 1"),
    _dashboard("crosshair lost", '"graphTooltip": 1', '"graphTooltip": 0', "graphTooltip is 0"),
    _dashboard("link lost", '"type": "dashboards"', '"type": "link"', "no link by tag"),
    _dashboard(
        "range over time",
        '"instant": true,\n          "legendFormat": "culled"',
        '"instant": false,\n          "legendFormat": "culled"',
        "look back over it all",
    ),
    _dashboard("annotation lost", '"name": "Mode changes"', '"name": "x"', "annotations are"),
    _dashboard("changed by hand", '"Idle share"', '"Share of idle"', "differs from"),
]
