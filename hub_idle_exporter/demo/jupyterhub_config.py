"""Configuration of the demo's JupyterHub; the compose stack uses it too.

It is configured by variables; the defaults are those of the embedded demo.

    DEMO_SECRETS   folder with one secret per file: `exporter-token`, `people-token` (API tokens
                   of the services, `openssl rand -hex 32`) and `password` (for every login).
                   Default: ./secrets
    DEMO_HOMES     folder of the users' homes. Default: ./homes
    DEMO_HOST      name by which other machines reach this one. If set, the Hub listens on all
                   interfaces, port 8000, its database is in the working directory, and users'
                   servers listen on that name, so that the sidecar can ask them.
    DEMO_METRICS   HOST:PORT of the sidecar's metrics. If set, this Hub starts the sidecar as a
                   managed service that enforces. Unset: it runs elsewhere, with `exporter-token`.
    DEMO_PAGE      HOST:PORT of the sidecar's page inside the Hub, with DEMO_METRICS.
"""

import os
import sys
from pathlib import Path
from typing import Any

from jupyterhub.spawner import SimpleLocalProcessSpawner
from tornado.web import HTTPError

from hub_idle_exporter.demo.people import PEOPLE, activity_interval

HERE = Path(__file__).resolve().parent
SECRETS = Path(os.environ.get("DEMO_SECRETS", "secrets")).absolute()
HOMES = Path(os.environ.get("DEMO_HOMES", "homes")).absolute()
PROXY = "from configurable_http_proxy.cli import main; main()"

c = get_config()  # type: ignore[name-defined]  # noqa: F821


def secret(name: str) -> str:
    """Read one of the secrets."""
    return (SECRETS / name).read_text().strip()


# -- Where the Hub and the servers listen -----------------------------------------------------

host = os.environ.get("DEMO_HOST")
if host:
    c.JupyterHub.bind_url = "http://0.0.0.0:8000"
    c.SimpleLocalProcessSpawner.ip = host
    c.ConfigurableHTTPProxy.command = [sys.executable, "-c", PROXY]

# -- People ------------------------------------------------------------------------------------

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = secret("password")
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"admin"}


def refuse_prober(_authenticator: Any, _handler: Any, auth_model: Any) -> Any:
    """Refuse the sign-in as the prober: everybody has the password (docs/probe-user.md)."""
    if auth_model["name"].lower() == "idle-prober":
        raise HTTPError(403, "Nobody signs in as idle-prober.")
    return auth_model


c.Authenticator.post_auth_hook = refuse_prober
c.JupyterHub.load_groups = {
    group: {"users": [person.name for person in PEOPLE if group in person.groups]}
    for group in ("people", "staff")
}

# -- Servers: everything they write is in the user's home --------------------------------------


class HomeSpawner(SimpleLocalProcessSpawner):  # type: ignore[misc]
    """Keeps everything that a server writes inside its user's home."""

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Point every folder that Jupyter and its kernels use into the home."""
        home = Path(self.home_dir)
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        usual: dict[str, str] = super().user_env(env)
        return usual | {
            "TMPDIR": str(home / "tmp"),
            "IPYTHONDIR": str(home / ".ipython"),
            "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
            "JUPYTER_DATA_DIR": str(home / ".local/share/jupyter"),
            "JUPYTER_RUNTIME_DIR": str(home / ".local/share/jupyter/runtime"),
            "JUPYTERHUB_ACTIVITY_INTERVAL": str(activity_interval(self.user.name)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


c.JupyterHub.spawner_class = HomeSpawner
c.HomeSpawner.home_dir_template = str(HOMES / "{username}")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.JupyterHub.default_url = "/hub/home"  # no notebook interface is installed
c.JupyterHub.allow_named_servers = True

# A real Hub learns about activity every 300 s, from the proxy and from the servers. Here it is
# 3 s, so that limits of seconds make sense and you can watch things happen.
c.JupyterHub.last_activity_interval = 3

# -- Services, with no more scopes than they need ----------------------------------------------

exporter: dict[str, object] = {"name": "idle-exporter", "api_token": secret("exporter-token")}
metrics, page = os.environ.get("DEMO_METRICS"), os.environ.get("DEMO_PAGE")
if metrics and page:
    sidecar = [
        *(sys.executable, "-m", "hub_idle_exporter", "--enforce"),
        *("--timeout=30s", "--interval=3s", "--grace=15s"),
        f"--policy-file={HERE / 'policy.yaml'}",
        f"--web.listen-address={metrics}",
        *("--keep-max=10m", f"--state-file={Path.cwd() / 'state.sqlite'}"),
        "--log-format=json",
    ]
    # The page inside the Hub, where people see their servers and may keep them.
    exporter |= {"url": f"http://{page}", "display": True, "oauth_no_confirm": True}
    # The demo reads this log to report what happens.
    exporter["command"] = ["/bin/sh", "-c", 'exec "$0" "$@" 2>> sidecar.log', *sidecar]

c.JupyterHub.services = [
    exporter,
    {"name": "people", "api_token": secret("people-token")},
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-exporter",
        "services": ["idle-exporter"],
        "scopes": [
            "list:users",
            "read:servers",
            "read:users:groups",
            "delete:servers",
            "proxy",
            "tokens!user=idle-prober",
            "tokens!service=idle-prober",
        ],
    },
    {
        "name": "idle-prober",
        "users": ["idle-prober"],
        "scopes": ["access:servers", "delete:servers"],
    },
    # Everybody may use the page; this takes the place of the Hub's own role `user`.
    {"name": "user", "scopes": ["self", "access:services!service=idle-exporter"]},
    # The simulated people get their own tokens from this service.
    {"name": "people", "services": ["people"], "scopes": ["tokens!group=people"]},
]
