"""Who asks, whether that is allowed, and how the Hub refuses."""

from .exchange import Refused, Request
from .records import Token, User
from .scopes import View
from .state import HubState


def view_of(hub: HubState, request: Request) -> View:
    """Return what the request's token may do; refuse a request without a valid token."""
    token = hub.find_token(request.token)
    if token is not None:
        return View(token)
    if hub.release < (4, 0) and request.path != "/user":
        return View(Token("", "", []))  # nobody, who lacks every scope
    if hub.release < (4, 1):
        raise Refused(403, "'_xsrf' argument missing from POST")
    raise Refused(403, "Missing or invalid credentials.")


def not_found(hub: HubState) -> Refused:
    """Return the Hub's 404, whose text depends on its version."""
    return Refused(404, None if hub.release >= (6, 0) else "Not Found")


def need(view: View, scope: str, user: User | None, server: str | None = None) -> None:
    """Refuse as the Hub does: 403 without the scope, 404 outside its filter."""
    if view.may(scope, user, server):
        return
    if scope in view.filters:
        raise Refused(404, "No access to resources or resources not found")
    raise Refused(403, f"Action is not authorized with current scopes; requires any of [{scope}]")
