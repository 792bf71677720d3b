"""What all of the tests' Hubs have in common; read by JupyterHub 3.0 to 6.x.

Quick: no waiting for the disk, no limits on spawns, servers asked often whether they are up, and
left alone when the Hub ends (`LocalHub` ends them).
"""

import os
import sys
from pathlib import Path

from jupyterhub.utils import exponential_backoff
from sqlalchemy import event
from sqlalchemy.engine import Engine

sys.path.insert(0, os.environ["TESTS_HUBS"])
from shortcuts import AgeHandler, BackdateHandler, UsersHandler

c = get_config()  # type: ignore[name-defined]  # noqa: F821

c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
c.JupyterHub.activity_resolution = 0
c.JupyterHub.cleanup_servers = False
c.JupyterHub.extra_handlers = [
    ("/test/age", AgeHandler),
    ("/test/backdate", BackdateHandler),
    ("/test/users", UsersHandler),
]
c.JupyterHub.log_level = "INFO"
c.Spawner.consecutive_failure_limit = 0
c.Spawner.start_timeout = 600
c.Spawner.poll_interval = 5
c.Spawner.args = ["--allow-root", "--ServerApp.terminals_enabled=True"]
c.LocalProcessSpawner.interrupt_timeout = 5
c.SimpleLocalProcessSpawner.home_dir_template = str(Path.cwd() / "homes" / "{username}")

# First wait, its growth, longest wait: by default up to 5 s pass before a server is seen.
exponential_backoff.__defaults__ = (0.05, 1.5, 0.2, *exponential_backoff.__defaults__[3:])


@event.listens_for(Engine, "connect")
def _do_not_wait_for_the_disk(connection, record):  # type: ignore[no-untyped-def]
    connection.execute("PRAGMA synchronous = OFF")
