"""Let tests put a server's times into the past, in the running Hub; never in a real one.

POST /hub/test/backdate  [{"user": "ana", "server": "", "idle": 3600, "age": 7200}, ...]
"""

import json
from datetime import datetime, timedelta, timezone

from tornado import web


class BackdateHandler(web.RequestHandler):
    """Set `last_activity` to `idle` and `started` to `age` seconds ago, where given."""

    def check_xsrf_cookie(self) -> None:
        """Let it pass."""

    def post(self) -> None:
        db = self.settings["db"]
        now = datetime.now(timezone.utc).replace(tzinfo=None)  # noqa: UP017
        for wish in json.loads(self.request.body):
            spawner = self.settings["users"][wish["user"]].orm_spawners[wish["server"]]
            if wish.get("idle") is not None:
                spawner.last_activity = now - timedelta(seconds=wish["idle"])
            if wish.get("age") is not None:
                spawner.started = now - timedelta(seconds=wish["age"])
        db.commit()
