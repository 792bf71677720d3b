"""The API's tokens of users: made with scopes the user holds, and revoked."""

from .access import need
from .exchange import Refused, Reply, Request, reply
from .records import Token, User, timestamp
from .scopes import View
from .state import HubState


def mint(hub: HubState, request: Request, view: View, name: str) -> Reply:
    user = hub.users.get(name)
    if user is None or not _may_mint(hub, view, user):
        kind = "User" if view.token.user is not None else "Service"
        raise Refused(403, f"{kind} {name} not found or no permissions to generate tokens")
    body = request.json() or {}
    scopes = body.get("scopes") or list(user.scopes)
    held = View(Token("", "", list(user.scopes), user=name))
    beyond = [scope for scope in scopes if not _covered(hub, scope, held)]
    if beyond:
        names = ",".join(beyond)
        message = f"Not assigning requested scopes {names} not held by User {name}"
        raise Refused(400, message)
    lifetime = body.get("expires_in")
    expires = None if lifetime is None else hub.now() + lifetime
    value = hub.add_token(scopes, user=name, expires=expires)
    token = hub.tokens[value]
    token.note = body.get("note") or "Requested via api"
    model = {"user": name, "id": token.id, "kind": "api_token", "scopes": scopes, "roles": []}
    model |= {"created": timestamp(hub.now()), "expires_at": timestamp(expires)}
    model["note"] = token.note
    return reply(201, model | {"token": value})


def _may_mint(hub: HubState, view: View, user: User) -> bool:
    """Before 6.1 a service's filters are taken for services' names, those of users fail."""
    if hub.release >= (6, 1) or view.token.service is None:
        return view.may("tokens", user)
    return bool({"", f"service={user.name}"} & set(view.filters.get("tokens", [])))


def _covered(hub: HubState, scope: str, held: View) -> bool:
    name, _, limit = scope.partition("!")
    if scope in held.expanded or name in held.expanded:
        return True
    kind, _, value = limit.partition("=")
    owner, _, server = value.partition("/") if kind == "server" else (value, "", None)
    return bool(limit) and held.may(name, hub.users.get(owner), server)


def revoke(hub: HubState, view: View, name: str, token_id: str) -> Reply:
    user = hub.users.get(name)
    need(view, "tokens", user)
    token = next((t for t in hub.tokens.values() if t.id == token_id), None)
    if user is None or token is None or token.user != name:
        missing = f"No such token {token_id} for user {name}"
        raise Refused(404, missing if hub.release >= (5, 0) else "Token not found None")
    hub.revoked.append(hub.tokens.pop(token.value))
    return reply(204, "")
