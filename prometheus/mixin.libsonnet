// The same dashboard and rules as a monitoring mixin (https://monitoring.mixins.dev).
// Set _config.runbookBase to where this repository can be read, with a slash at the end.
local rules = std.parseYaml(importstr 'rules.yml');
local groups(suffix) = [group for group in rules.groups if std.endsWith(group.name, suffix)];

{
  _config:: { runbookBase: '' },
  grafanaDashboardFolder:: 'JupyterHub',
  grafanaDashboards+:: {
    'idle-servers.json': std.parseJson(importstr '../grafana/dashboards/idle-servers.json'),
  },
  prometheusRules+:: { groups+: groups('.records') },
  prometheusAlerts+:: {
    groups+: [
      group {
        rules: [
          rule { annotations+: { runbook_url: $._config.runbookBase + super.runbook_url } }
          for rule in group.rules
        ],
      }
      for group in groups('.alerts')
    ],
  },
}
