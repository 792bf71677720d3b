"""Signing in through the Hub, by JupyterHub's own `HubOAuth`.

No other module needs the package `jupyterhub` (the extra `hub`), and it is imported when the first
person comes. `HubOAuth` waits for the Hub's answers, so it does that on a thread of its own.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tornado.httputil import url_concat
from tornado.web import HTTPError, RequestHandler

from ...people.desk import Visitor
from .service import Service

# So many may wait for the Hub's answer, each for so long.
_MOST_WAITING = 64
_SECONDS = 20.0
# Sign-ins that were begun and not finished: the library remembers them for ten minutes.
_MOST_BEGUN = 2000
_MOST_COOKIES = 4

_Value = TypeVar("_Value")


class NotInstalledError(Exception):
    """The package `jupyterhub` is missing, or too old."""


class HubSilentError(Exception):
    """The Hub could not be asked who it is."""


class NotAllowedError(Exception):
    """The Hub knows them, and does not let them use this service."""


class StaleError(Exception):
    """A sign-in that cannot be finished: it was refused, begun elsewhere, or too long ago.

    `again` tells that to begin anew helps.
    """

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in; `id` tells this session from others, and is no secret of it."""

    visitor: Visitor
    id: str


class SignIn:
    """Signs people in; to be used on the event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hub-sign-in")
        self._waiting = 0
        self._loaded: Any = None

    async def session(self, handler: RequestHandler) -> Session | None:
        """Return who asks, as the Hub says right now; None if nobody is signed in."""
        auth = await self._auth()
        token = (handler.get_secure_cookie(auth.cookie_name) or b"").decode("ascii", "replace")
        if not token:
            return None
        model = await self._ask(lambda: auth.user_for_token(token, use_cache=False))
        if model is None:  # signed out at the Hub, or it has expired
            auth.clear_cookie(handler)
            return None
        return Session(self._admitted(auth, model), hashlib.sha256(token.encode()).hexdigest())

    async def begin(self, handler: RequestHandler, next_url: str) -> str:
        """Begin to sign in; return the address at the Hub where it goes on."""
        auth = await self._auth()
        begun = auth._oauth_states.values
        while len(begun) >= _MOST_BEGUN:
            auth.clear_oauth_state(next(iter(begun)))
        if len(self._state_cookies(auth, handler)) >= _MOST_COOKIES:
            auth.clear_oauth_state_cookies(handler)
        if not getattr(auth, "pkce_enabled", False):  # before JupyterHub 6
            state = auth.set_state_cookie(handler, next_url)
            return url_concat(auth.login_url, {"state": state})
        verifier, challenge, method = auth.generate_pkce_code_challenge()
        state = auth.set_state_cookie(handler, next_url, code_verifier=verifier)
        proof = {"code_challenge": challenge, "code_challenge_method": method}
        return url_concat(auth.login_url, {**proof, "state": state})

    async def finish(self, handler: RequestHandler) -> str:
        """Finish it when the Hub sends them back; return where they wanted to go."""
        auth = await self._auth()
        state = handler.get_query_argument("state", "")
        kept = handler.get_secure_cookie(auth.get_state_cookie_name(state)) or b""
        begun = state in auth._oauth_states
        had_cookie = bool(self._state_cookies(auth, handler))
        signed_in = bool(handler.get_cookie(auth.cookie_name))
        auth.clear_oauth_state_cookies(handler)
        if not (begun and hmac.compare_digest(kept, state.encode())):
            raise StaleError(again=had_cookie or signed_in)
        next_url, redeem = auth.get_next_url(state), self._redeem(auth, handler, state)
        auth.clear_oauth_state(state)
        if not handler.get_query_argument("code", ""):  # the Hub, or they, refused it
            raise StaleError(again=False)
        token = await self._ask(redeem)
        self._keep(auth, handler, token)
        return str(next_url)

    async def forget(self, handler: RequestHandler) -> None:
        """Remove the session's cookie."""
        (await self._auth()).clear_cookie(handler)

    def _redeem(self, auth: Any, handler: RequestHandler, state: str) -> Callable[[], str]:
        """Return what gets the session's token for the code that the Hub has sent along."""
        code = handler.get_query_argument("code", "")
        verifier = getattr(auth, "get_code_verifier", lambda _state: None)(state)
        proof = {"code_verifier": verifier} if verifier else {}
        return lambda: str(auth.token_for_code(code, **proof))

    def _keep(self, auth: Any, handler: RequestHandler, token: str) -> None:
        """Put the token into the session's cookie; the form's token of the library is not used."""
        handler._xsrf_token_id = b""  # type: ignore[attr-defined]
        auth.set_cookie(handler, token)
        handler.clear_cookie("_xsrf", path=self._service.prefix)

    def _admitted(self, auth: Any, model: dict[str, Any]) -> Visitor:
        if model.get("kind") != "user" or not auth.check_scopes(auth.access_scopes, model):
            raise NotAllowedError
        return Visitor(str(model["name"]), model.get("admin") is True)

    def _state_cookies(self, auth: Any, handler: RequestHandler) -> list[str]:
        return [name for name in handler.cookies if name.startswith(auth.state_cookie_name)]

    async def _auth(self) -> Any:
        """Return the library's object, made on the thread at first: its import takes a second."""
        if self._loaded is None:
            self._loaded = await self._ask(lambda: self._loaded or _hub_oauth(self._service))
        return self._loaded

    async def _ask(self, question: Callable[[], _Value]) -> _Value:
        """Run something on the thread; raise HubSilentError if that fails or takes too long."""
        if self._waiting >= _MOST_WAITING:
            raise HubSilentError
        self._waiting += 1
        answer = asyncio.get_running_loop().run_in_executor(self._thread, question)
        answer.add_done_callback(self._answered)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), _SECONDS)
        except (HTTPError, asyncio.TimeoutError):
            raise HubSilentError from None

    def _answered(self, answer: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not answer.cancelled():
            answer.exception()  # perhaps nobody waits for it any more


def _hub_oauth(service: Service) -> Any:
    """Make the library's object; raise NotInstalledError without the library."""
    try:
        from jupyterhub.services.auth import HubOAuth
    except ImportError:
        raise NotInstalledError from None
    auth = HubOAuth(
        base_url=service.prefix,
        api_url=service.api_url,
        api_token=service.token,
        oauth_client_id=service.client_id,
        oauth_redirect_uri=service.callback,
        oauth_authorization_url=f"{service.hub}api/oauth2/authorize",
        access_scopes=set(service.access_scopes),
    )
    auth.cookie_options = {"samesite": "Lax", **auth.cookie_options}
    return auth
