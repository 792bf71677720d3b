"""What the tests of culling on a real JupyterHub share."""

from real_hub import RealHub

NOW = ("--enforce", "--grace=0", "--interval=1s")
HOUR = (*NOW, "--timeout=1h")
CULLS = "hub_idle_exporter_culls_total"
WITHHELD = "hub_idle_exporter_culls_withheld_total"


def idle_servers(hub: RealHub, *names: str, **options: object) -> None:
    """Run servers that the Hub believes idle for two hours."""
    for name in names:
        user, _, server = name.partition("/")
        # Without any the Hub would take those of the server's last start.
        hub.start_server(user, server, user_options=options or {"stop_delay": 0})
        hub.backdate(user, server, idle=7200, age=9000)


FORGOTTEN, SILENT = "forgotten", "silent"


def forget_and_compute(hub: RealHub) -> None:
    """Run a real server that is forgotten, and one whose kernel computes without a sound."""
    hub.add_users([FORGOTTEN, SILENT])
    hub.start_servers([(FORGOTTEN, ""), (SILENT, "")])
    hub.start_kernel(SILENT).run("import time; time.sleep(1e6)")


def look_idle(hub: RealHub) -> None:
    """Let the Hub believe both idle for two hours."""
    hub.backdate_all([(FORGOTTEN, ""), (SILENT, "")], idle=7200, age=9000)


def asked(hub: RealHub) -> list[str]:
    """Return what paper servers were asked, but for what the Hub asks while they start."""
    return [request.path for request in hub.paper.log("GET", "*/api/*")]


def runs(hub: RealHub, user: str, server: str = "") -> bool:
    return bool(hub.server(user, server).get("ready"))


POLICIES = """
policies:
  - name: staff
    match: {groups: [st*ff]}
    exempt: true
  - name: gpu
    match: {user_options: {profile: "gpu-*"}}
    timeout: 3h
  - name: lab
    match: {servers: [lab], named: true}
    timeout: 30m
"""
