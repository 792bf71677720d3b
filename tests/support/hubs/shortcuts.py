"""Let tests do at once, in the running Hub, what its API cannot do or takes long for.

POST /hub/test/users     ["ana", "bo", ...]: registers those who are new
POST /hub/test/backdate  [{"user": "ana", "server": "", "idle": 3600, "age": 7200}, ...]: puts a
                         server's times into the past, in the Hub and in its proxy
POST /hub/test/age       [{"user": "ana", "idle": 3600, "age": 7200}, ...]: puts a user's times, and
                         those of its stopped servers, into the past; "idle" null: never active
"""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub import orm
from tornado import web


class _Handler(web.RequestHandler):
    def check_xsrf_cookie(self) -> None:
        """Let it pass."""


class UsersHandler(_Handler):
    """Register users with one commit instead of one each."""

    def post(self) -> None:
        db = self.settings["db"]
        known = {name for (name,) in db.query(orm.User.name)}
        role = orm.Role.find(db, "user")
        for name in json.loads(self.request.body):
            if name not in known:
                user = orm.User(name=name)
                user.roles.append(role)
                db.add(user)
        db.commit()


class AgeHandler(_Handler):
    """Set `last_activity` of users and their stopped servers, and `created`, so long ago."""

    def post(self) -> None:
        now = datetime.now(timezone.utc).replace(tzinfo=None)
        for wish in json.loads(self.request.body):
            user = self.settings["users"][wish["user"]].orm_user
            idle = wish["idle"]
            user.last_activity = None if idle is None else now - timedelta(seconds=idle)
            user.created = now - timedelta(seconds=wish["age"])
            for server in user.orm_spawners.values():
                if server.server is None and server.last_activity is not None:
                    server.last_activity = user.last_activity
        self.settings["db"].commit()


class BackdateHandler(_Handler):
    """Set `last_activity` to `idle` and `started` to `age` seconds ago, where given."""

    async def post(self) -> None:
        now = datetime.now(timezone.utc).replace(tzinfo=None)
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
