"""hub_idle_exporter in place of The Littlest JupyterHub's own culler: docs/littlest-jupyterhub.md.

Its name in /opt/tljh/config/jupyterhub_config.d/ begins with zz, so that it is read last: another
file may set `services` and `load_roles` instead of extending them.
"""

import secrets
import sys
from pathlib import Path

from jupyterhub.auth import Authenticator
from tornado.web import HTTPError

# Limits: the defaults of `tljh-config`'s services.cull, which are no longer read.
COMMAND = [
    *(sys.executable, "-m", "hub_idle_exporter"),
    *("--enforce", "--timeout=600", "--interval=60", "--concurrency=5"),
]

# In a file, so that `check` can use it, too. Only root can read the folder.
TOKEN = Path(__file__).parent.parent / "idle-exporter-token"
TOKEN.touch(mode=0o600)
if not TOKEN.read_text().strip():
    TOKEN.write_text(secrets.token_hex(32))

c.JupyterHub.services.append(  # noqa: F821
    {"name": "idle-exporter", "command": COMMAND, "api_token": TOKEN.read_text().strip()}
)
c.JupyterHub.load_roles.extend(  # noqa: F821
    [
        {
            "name": "idle-exporter",
            "services": ["idle-exporter"],
            "scopes": [
                "list:users",
                "read:servers",
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
    ]
)

# Nobody may sign in as this user, whose role opens all servers. Not a `post_auth_hook`: another
# file may set one, of this class or of the authenticator's own, and this file cannot see it.
earlier = Authenticator.run_post_auth_hook  # runs the hook of another file, if there is one


async def refuse_prober(authenticator, handler, auth_model, earlier=earlier):
    auth_model = await earlier(authenticator, handler, auth_model)
    if auth_model:
        # Whom the Hub finds by this name: for some databases an ï is an i.
        found = handler.find_user(auth_model["name"])
        if "idle-prober" in (auth_model["name"].lower(), found and found.name):
            raise HTTPError(403, "Nobody signs in as idle-prober.")
    return auth_model


Authenticator.run_post_auth_hook = refuse_prober
