"""The API's view of the proxy: its routes, in pages."""

import json
from typing import Any

from .access import need
from .exchange import Reply, Request, reply
from .listing import page_of, pagination
from .models import route_model
from .scopes import View
from .state import HubState


def list_routes(hub: HubState, request: Request, view: View) -> Reply:
    need(view, "proxy", None)
    paged, offset, limit = page_of(hub, request)
    routes = _all_routes(hub)
    names = sorted(routes)
    page = {name: routes[name] for name in names[offset : offset + limit]}
    if not paged:
        return reply(200, page)
    beside = json.loads(pagination(hub, request, offset, limit, len(routes)))
    return reply(200, {"items": page, "_pagination": beside})


def _all_routes(hub: HubState) -> dict[str, dict[str, Any]]:
    own = {"routespec": "/", "target": hub.origin, "data": {"hub": True}}
    routes: dict[str, dict[str, Any]] = {"/": own}
    with hub.lock:
        servers = [s for user in hub.users.values() for s in user.servers.values()]
    for server in servers:
        if server.target is not None and server.ready:
            routes[server.routespec] = route_model(server)
    return routes | hub.routes
