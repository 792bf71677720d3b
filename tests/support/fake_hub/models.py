"""How a Hub of some release describes users, servers and routes, ready for JSON."""

from typing import Any
from urllib.parse import quote

from .records import Server, User, timestamp
from .scopes import View


def user_model(
    user: User, view: View, release: tuple[int, int], stopped_too: bool
) -> dict[str, Any]:
    """Return of a user what the token may see."""
    model: dict[str, Any] = {"kind": "user", "name": user.name}
    if view.may("read:users:name", user):
        model["admin"] = user.admin
        if release >= (6, 0):
            model["user_info"] = None
    if view.may("read:users:groups", user):
        model["groups"] = list(user.groups)
    if view.may("read:users:activity", user):
        model["last_activity"] = timestamp(user.last_activity)
    if view.may("read:users", user):
        model["created"] = timestamp(user.created)
    servers = {
        name: server_model(server, release)
        for name, server in list(user.servers.items())
        if (stopped_too or not server.stopped) and view.may("read:servers", user, name)
    }
    if servers or view.may("read:servers", user):
        never_started = {"": server_model(Server(user, ready=False, stopped=True), release)}
        model["servers"] = (never_started if stopped_too else {}) | servers
    return model | user.extra


def server_model(server: Server, release: tuple[int, int]) -> dict[str, Any]:
    owner, name = server.user.name, server.name
    user, own = quote(owner, safe="@~"), quote(name, safe="@~")
    at = f"{user}/servers/{own}" if name else f"{user}/server"
    model: dict[str, Any] = {
        "name": name,
        "last_activity": timestamp(server.last_activity),
        "started": timestamp(server.started),
        "pending": server.pending,
        "ready": server.ready,
        "stopped": server.stopped,
        "url": f"/user/{user}/{own + '/' if name else ''}",
        "user_options": server.user_options if server.stopped else server.user_options or {},
        "progress_url": f"/hub/api/users/{at}/progress",
    }
    if release >= (5, 0):
        model |= {"full_name": f"{owner}/{name}", "full_url": None, "full_progress_url": None}
    if release >= (6, 0):
        model["display_name"] = name
    return model | server.extra


def route_model(server: Server) -> dict[str, Any]:
    """Return the route as the Hub shows it; the proxy's times have no zone."""
    assert server.target is not None
    seen = server.route_activity if server.route_activity is not None else server.last_activity
    stamp = seen if seen is None or isinstance(seen, str) else (timestamp(seen) or "").rstrip("Z")
    data = {"user": server.user.name, "server_name": server.name, "last_activity": stamp}
    return {"routespec": server.routespec, "target": server.target.origin, "data": data}
