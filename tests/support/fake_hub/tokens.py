"""The API's tokens of users: made with scopes the user holds, listed, and revoked."""

from typing import Any

from .access import need
from .exchange import Refused, Reply, Request, reply
from .records import Token, User, timestamp
from .scopes import OF_SELF, View, expand
from .state import HubState


def tokens(
    hub: HubState, request: Request, view: View, method: str, name: str, token: list[str]
) -> Reply:
    """Answer a request about the tokens of a user, or about one of them."""
    match method, token:
        case "GET", []:
            return list_tokens(hub, view, name)
        case "POST", []:
            return mint(hub, request, view, name)
        case "DELETE", [token_id]:
            return revoke(hub, view, name, token_id)
    raise Refused(405, "Method Not Allowed")


def mint(hub: HubState, request: Request, view: View, name: str) -> Reply:
    user = hub.users.get(name)
    if user is None or not _may_mint(hub, view, user):
        kind = "User" if view.token.user is not None else "Service"
        raise Refused(403, f"{kind} {name} not found or no permissions to generate tokens")
    body = request.json() or {}
    own = [*user.scopes, *(f"{scope}!user={name}" for scope in OF_SELF)]
    scopes = own if body.get("scopes") is None else body["scopes"]
    held = View(Token("", "", own, user=name))
    beyond = [scope for scope in scopes if not _covered(hub, scope, held)]
    if beyond:
        names = ",".join(beyond)
        message = f"Not assigning requested scopes {names} not held by User {name}"
        raise Refused(400, message)
    lifetime = body.get("expires_in")
    expires = None if lifetime is None else hub.now() + lifetime
    identifies = [f"read:users:name!user={name}", f"read:users:groups!user={name}"]
    value = hub.add_token([*scopes, *identifies], user=name, expires=expires)
    token = hub.tokens[value]
    token.note = body.get("note") or "Requested via api"
    return reply(201, _model(token) | {"token": value})


def _model(token: Token) -> dict[str, Any]:
    scopes = sorted(expand(token.scopes))
    model = {"user": token.user, "id": token.id, "kind": "api_token", "scopes": scopes}
    model |= {"created": timestamp(token.created), "expires_at": timestamp(token.expires)}
    return model | {"roles": [], "note": token.note, "session_id": None}


def list_tokens(hub: HubState, view: View, name: str) -> Reply:
    """List a user's tokens; those that have expired are deleted by that, and never shown."""
    user = hub.users.get(name)
    need(view, "read:tokens", user)
    if user is None:
        raise Refused(404, f"No such user: {name}")
    with hub.lock:
        for token in [t for t in hub.tokens.values() if t.user == name]:
            if token.expires is not None and token.expires < hub.now():
                del hub.tokens[token.value]
        listed = [_model(token) for token in hub.tokens.values() if token.user == name]
    return reply(200, {"api_tokens": listed})


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
