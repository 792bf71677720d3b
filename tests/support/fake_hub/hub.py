"""The fake Hub: each request below `/hub/api` goes to the part of the API that answers it."""

from typing import Any
from urllib.parse import unquote

from .access import not_found, view_of
from .exchange import Refused, Reply, Request, reply
from .listing import list_users, show_user
from .proxy import list_routes
from .scopes import View
from .state import HubState
from .stopping import delete_server, delete_user
from .tokens import tokens


class FakeHub(HubState):
    """The Hub; see the package's first lines. `url` is the API's base."""

    def relative(self, path: str) -> str | None:
        base, _, rest = path.partition("/hub/api")
        return None if base or not path.startswith("/hub/api") else rest or "/"

    def answer(self, request: Request) -> Reply:
        try:
            return self._dispatch(request)
        except Refused as refused:
            return refused.reply

    def _dispatch(self, request: Request) -> Reply:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match request.method, parts:
            case "GET", [""]:
                return reply(200, {"version": self.version})
            case "GET", ["user"]:
                return self._identity(view_of(self, request))
            case "GET", ["users"]:
                return list_users(self, request, view_of(self, request))
            case "GET", ["users", name]:
                return show_user(self, request, view_of(self, request), name)
            case "DELETE", ["users", name]:
                return delete_user(self, view_of(self, request), name)
            case "DELETE", ["users", name, "server"]:
                return delete_server(self, request, view_of(self, request), name, "")
            case "DELETE", ["users", name, "servers", server]:
                return delete_server(self, request, view_of(self, request), name, server)
            case method, ["users", name, "tokens", *token]:
                return tokens(self, request, view_of(self, request), method, name, token)
            case "GET", ["proxy"]:
                return list_routes(self, request, view_of(self, request))
        raise not_found(self)

    def _identity(self, view: View) -> Reply:
        token = view.token
        kind = "user" if token.user is not None else "service"
        model: dict[str, Any] = {"kind": kind, "name": token.user or token.service}
        model |= {"admin": False, "token_id": token.id, "session_id": None}
        if self.release >= (2, 0):
            model["scopes"] = sorted(view.expanded)
        return reply(200, model)
