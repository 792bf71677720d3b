"""What the tests of culling on a real JupyterHub share."""

import requests
from exporter_process import Metrics
from real_hub import Kernel, RealHub

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


def forget_and_compute(hub: RealHub) -> Kernel:
    """Run a real server that is forgotten, and one whose kernel computes without a sound.

    Returns the kernel.
    """
    hub.add_users([FORGOTTEN, SILENT])
    hub.start_servers([(FORGOTTEN, ""), (SILENT, "")])
    kernel = hub.start_kernel(SILENT)
    kernel.run("import time; time.sleep(1e6)")
    return kernel


def look_idle(hub: RealHub) -> None:
    """Let the Hub believe both idle for two hours."""
    hub.backdate_all([(FORGOTTEN, ""), (SILENT, "")], idle=7200, age=9000)


def metrics_at(port: int) -> Metrics:
    """Return what an exporter at a port of this machine says, nothing if it does not answer."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20)
    except requests.RequestException:
        return Metrics("")
    return Metrics(answer.text)


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
