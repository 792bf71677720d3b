"""Let tests put a server's times into the past, in the running Hub and in its proxy.

POST /hub/test/backdate  [{"user": "ana", "server": "", "idle": 3600, "age": 7200}, ...]
"""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

from tornado import web


class BackdateHandler(web.RequestHandler):
    """Set `last_activity` to `idle` and `started` to `age` seconds ago, where given."""

    def check_xsrf_cookie(self) -> None:
        """Let it pass."""

    async def post(self) -> None:
        now = datetime.now(timezone.utc).replace(tzinfo=None)  # noqa: UP017
        routes = []
        for wish in json.loads(self.request.body):
            user = self.settings["users"][wish["user"]]
            server = user.orm_spawners[wish["server"]]
            if wish["age"] is not None:
                server.started = now - timedelta(seconds=wish["age"])
            if wish["idle"] is not None:
                server.last_activity = now - timedelta(seconds=wish["idle"])
                routes.append(self._route(user, wish["server"], server.last_activity))
        self.settings["db"].commit()
        await asyncio.gather(*routes)

    async def _route(self, user: Any, name: str, last_used: datetime) -> None:
        """Let the proxy, if the server is up, believe so too."""
        spawner = user.spawners.get(name)
        if spawner is not None and spawner.ready:
            data = {"user": user.name, "server_name": name, "last_activity": last_used.isoformat()}
            proxy = self.settings["proxy"]
            await proxy.add_route(spawner.proxy_spec, spawner.server.host, data)
