"""What each path of the page inside the Hub answers."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import cast

from tornado.web import Application, HTTPError

from ...hub.errors import HubError
from ...people.desk import Desk, Visitor
from ...people.keeper import RefusedError
from ..answering import HTML, Answering
from . import guard, words
from .front import CrowdedError, Failed, Front, Running
from .listing import Query
from .outcomes import Outcome
from .rendering import content_security_policy, servers_page, words_page
from .sign_in import HubSilentError, NotAllowedError, NotInstalledError, Session, StaleError
from .view import view_of
from .words import Words

# What a form says of a server, and where it leads back to.
_SERVER, _MORE = ("user", "server", "started"), ("token", "query")


def application_of(front: Front) -> Application:
    """Return the application to serve, all of it below the prefix of the service."""
    below = re.escape(front.service.prefix)
    return Application(
        [
            (below, Servers),
            (f"{below}oauth_callback", Callback),
            (f"{below}logout", Logout),
            *((f"{below}{form.ACTION}", form) for form in (Keep, Release)),
            (f"{below}-/healthy", Healthy),
            (f"{below}-/ready", Ready),
        ],
        default_handler_class=NotFound,
        front=front,
    )


class PageHandler(Answering):
    """What the pages have in common: who asks, and what is refused."""

    @property
    def front(self) -> Front:
        """Return what is shown."""
        return cast("Front", self.settings["front"])

    def set_default_headers(self) -> None:
        """Set the headers that each answer has."""
        super().set_default_headers()
        policy = content_security_policy(self.front.service)
        self.set_headers({"Content-Security-Policy": policy, **guard.HEADERS})

    def prepare(self) -> None:
        """Refuse what no browser shows as a page."""
        self.settings["cookie_secret"] = self.front.key  # it may have become another one
        if not guard.is_page_view(self.request):
            self.answer_line(HTTPStatus.FORBIDDEN, words.NO_PAGE_VIEW)

    async def visitor(self) -> Session | None:
        """Return who asks; None if that cannot be known, which is answered then."""
        try:
            session = await self.front.sign_in.session(self)
            if session is None:
                await self.not_signed_in()
        except NotInstalledError:
            self.say(HTTPStatus.OK, words.NOT_INSTALLED)  # the Hub waits for such an answer
        except HubSilentError:
            self.say(HTTPStatus.BAD_GATEWAY, words.HUB_SILENT)
        except NotAllowedError:
            self.say(HTTPStatus.FORBIDDEN, words.NOT_ALLOWED)
        else:
            return session
        return None

    async def not_signed_in(self) -> None:
        """Send them to the Hub, to sign in."""
        here = f"{self.front.service.prefix}?{self.request.query}".rstrip("?")
        self.redirect(await self.front.sign_in.begin(self, here))

    def say(self, status: HTTPStatus, said: Words, visitor: Visitor | None = None) -> None:
        """Answer with a page that says one thing."""
        self.answer(status, HTML, words_page(said, self.front.service, visitor).encode())


class Servers(PageHandler):
    """The servers of who asks; for administrators those of everybody."""

    async def get(self) -> None:
        """Answer with the page."""
        session = await self.visitor()
        if session is None:
            return
        state = self.front.state
        if isinstance(state, Running):
            await self._show(state.desk, session)
        else:
            self.say(HTTPStatus.OK, _not_running(state, session.visitor), session.visitor)

    async def _show(self, desk: Desk, session: Session) -> None:
        front = self.front
        query = Query.of({name: self.get_query_argument(name, "") for name in Query.NAMES})
        token = partial(guard.form_token, front.key, session.id)

        def rendered() -> str:
            view = view_of(desk, session.visitor, query)
            return servers_page(view, front.service, token, front.outcomes.take(session.id))

        try:
            html = await front.answered(rendered)
        except (HubError, CrowdedError):
            self.say(HTTPStatus.BAD_GATEWAY, words.HUB_SILENT, session.visitor)
        else:
            self.answer(HTTPStatus.OK, HTML, html.encode())


def _not_running(state: Failed | None, visitor: Visitor) -> Words:
    if state is None:
        return words.STARTING
    return words.cannot_start(state.why) if visitor.admin else words.NOT_WORKING


class Callback(PageHandler):
    """Where the Hub sends people back to when they have signed in there."""

    async def get(self) -> None:
        """Finish the sign-in."""
        try:
            self.redirect(await self.front.sign_in.finish(self))
        except StaleError as stale:
            if stale.again:
                self.redirect(self.front.service.prefix)
            else:
                self.say(HTTPStatus.FORBIDDEN, words.NOT_FINISHED)
        except NotInstalledError:
            self.say(HTTPStatus.OK, words.NOT_INSTALLED)
        except HubSilentError:
            self.say(HTTPStatus.BAD_GATEWAY, words.HUB_SILENT)


class Logout(PageHandler):
    """Ends the session here, and goes on to the Hub, which ends it there."""

    async def get(self) -> None:
        """Sign out."""
        with suppress(NotInstalledError, HubSilentError):
            await self.front.sign_in.forget(self)
        self.redirect(f"{self.front.service.hub}logout")


class Form(PageHandler):
    """A form that changes something, and leads back to the page."""

    SUPPORTED_METHODS = ("POST",)
    ACTION = ""  # the last part of its path

    def prepare(self) -> None:
        """Refuse what no page of this origin has sent."""
        super().prepare()
        if not self._finished and not guard.is_own_form(
            self.request, self.front.service.public_hosts
        ):
            self.say(HTTPStatus.FORBIDDEN, words.FORGED)

    async def not_signed_in(self) -> None:
        """Say that nothing was changed."""
        self.say(HTTPStatus.FORBIDDEN, words.SIGNED_OUT)

    async def post(self) -> None:
        """Do what the form asks for, if it is theirs to ask."""
        session = await self.visitor()
        if session is None:
            return
        form = {name: self.get_body_argument(name, "", strip=False) for name in _SERVER + _MORE}
        said = (self.ACTION, *(form[name] for name in _SERVER))
        state, visitor = self.front.state, session.visitor
        if not guard.is_form_token(form["token"], self.front.key, session.id, *said):
            self.say(HTTPStatus.FORBIDDEN, words.FORGED, visitor)
        elif form["user"] != visitor.name and not visitor.admin:
            self.say(HTTPStatus.FORBIDDEN, words.OF_OTHERS, visitor)
        elif not isinstance(state, Running):
            self.say(HTTPStatus.OK, _not_running(state, visitor), visitor)
        else:
            outcome = await self._outcome(lambda: self.do(state.desk, visitor, form))
            self.front.outcomes.put(session.id, outcome)
            query = Query.read(form["query"])
            self.redirect(f"{self.front.service.prefix}{query.address()}", status=303)

    async def _outcome(self, do: Callable[[], str]) -> Outcome:
        try:
            return Outcome(await self.front.answered(do), good=True)
        except RefusedError as refused:
            return Outcome(str(refused))
        except (HubError, CrowdedError):
            return Outcome(words.NOT_KNOWN)

    def do(self, desk: Desk, visitor: Visitor, form: dict[str, str]) -> str:
        """Do it; return what has been done, in a sentence."""
        raise NotImplementedError


class Keep(Form):
    """Keeps a server."""

    ACTION = "keep"

    def do(self, desk: Desk, visitor: Visitor, form: dict[str, str]) -> str:
        """Keep it."""
        desk.keep(visitor, form["user"], form["server"], form["started"])
        return words.kept(form["user"], form["server"], visitor)


class Release(Form):
    """Keeps a server no longer."""

    ACTION = "release"

    def do(self, desk: Desk, visitor: Visitor, form: dict[str, str]) -> str:
        """Release it."""
        desk.release(visitor, form["user"], form["server"], form["started"])
        return words.released(form["user"], form["server"], visitor)


class Healthy(PageHandler):
    """Answers whether this process answers. Open to everybody."""

    def prepare(self) -> None:
        """Refuse nobody."""

    async def get(self) -> None:
        """Answer at once."""
        self.answer_line(HTTPStatus.OK, "OK")


class Ready(Healthy):
    """Answers whether the sidecar works, without a word on why not: everybody may ask."""

    async def get(self) -> None:
        """Answer at once."""
        state = self.front.state
        if isinstance(state, Running) and state.unready() is None:
            self.answer_line(HTTPStatus.OK, "OK")
        else:
            self.answer_line(HTTPStatus.SERVICE_UNAVAILABLE, words.NOT_READY)


class NotFound(PageHandler):
    """Answers to anything else."""

    async def get(self) -> None:
        """Refuse."""
        raise HTTPError(HTTPStatus.NOT_FOUND)
