"""The API's users: the list, in pages, and one user."""

import json
from urllib.parse import urlencode

from .access import need, not_found
from .exchange import Refused, Reply, Request
from .models import user_model
from .records import User
from .scopes import View
from .state import HubState

PAGINATION = "application/jupyterhub-pagination+json"


def page_of(hub: HubState, request: Request) -> tuple[bool, int, int]:
    """Return whether pages are understood, offset and limit."""
    paged = PAGINATION in request.headers.get("accept", "")
    try:
        offset = abs(int(request.query.get("offset", 0)))
        limit = abs(
            int(request.query.get("limit", hub.page_limit if paged else hub.page_limit_max))
        )
    except ValueError:
        message = "Invalid argument type, offset and limit must be integers"
        raise Refused(400, message) from None
    return paged, offset, max(1, min(limit, hub.page_limit_max))


def pagination(hub: HubState, request: Request, offset: int, limit: int, total: int) -> bytes:
    """Return the JSON that stands beside a page's items."""
    following = None
    if offset + limit < total:
        query = urlencode(request.query | {"offset": offset + limit, "limit": limit})
        url = f"{hub.next_origin}/hub/api{request.path}?{query}"
        following = {"offset": offset + limit, "limit": limit, "url": url}
    page = {"offset": offset, "limit": limit, "total": total, "next": following}
    return json.dumps(page).encode()


def list_users(hub: HubState, request: Request, view: View) -> Reply:
    if "list:users" not in view.filters:
        need(view, "list:users", None)
    state = request.query.get("state")
    with hub.lock:
        sort = request.query.get("sort", "") if hub.release >= (5, 0) else ""
        users = hub.users_in_state(state, sort)
        if "" not in view.filters["list:users"]:
            users = [user for user in users if view.may("list:users", user)]
    if hub.release < (2, 0):
        return _json(b"[" + b",".join(_render(hub, user, view) for user in users) + b"]")
    paged, offset, limit = page_of(hub, request)
    if state in ("active", "ready") and hub.release < (5, 0):
        # These count and cut rows, one a server; a page names a user once, two pages twice.
        users = [user for user in users for s in user.servers.values() if not s.stopped]
    page = list(dict.fromkeys(users[offset : offset + limit]))
    if state == "ready":
        page = [user for user in page if any(s.ready for s in user.servers.values())]
    stopped_too = "include_stopped_servers" in request.query and hub.release >= (3, 0)
    items = b"[" + b",".join(_render(hub, user, view, stopped_too) for user in page) + b"]"
    if not paged:
        return _json(items)
    beside = pagination(hub, request, offset, limit, len(users))
    return _json(b'{"items": ' + items + b', "_pagination": ' + beside + b"}")


def show_user(hub: HubState, request: Request, view: View, name: str) -> Reply:
    user = hub.users.get(name)
    readable = [scope for scope in view.filters if scope.startswith(("read:users", "read:serv"))]
    if not readable:
        scopes = "read:users, read:users:name, read:servers, read:users:groups"
        raise Refused(
            403, f"Action is not authorized with current scopes; requires any of [{scopes}]"
        )
    if user is None and not {"", *(f"user={name}",)}.isdisjoint(
        limit for scope in readable for limit in view.filters[scope]
    ):
        raise not_found(hub)
    if user is None or not any(view.may(scope, user) for scope in readable):
        raise Refused(404, "No access to resources or resources not found")
    wanted = "include_stopped_servers" in request.query and hub.release >= (3, 0)
    return _json(_render(hub, user, view, stopped_too=wanted))


def _json(body: bytes) -> Reply:
    return Reply(200, body, {"Content-Type": "application/json"})


def _render(hub: HubState, user: User, view: View, stopped_too: bool = False) -> bytes:
    """Return the user's JSON, made once for each change and each kind of view."""
    key = view.key(user)
    version = user.__dict__["version"]
    if key and not stopped_too:
        known = hub.rendered.get((user.name, key))
        if known is not None and known[0] == version:
            return known[1]
    body = json.dumps(user_model(user, view, hub.release, stopped_too)).encode()
    if key and not stopped_too:
        hub.rendered[user.name, key] = (version, body)
    return body
