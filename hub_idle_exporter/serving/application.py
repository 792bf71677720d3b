"""What each path answers: metrics, health, readiness, the page. It never waits for the Hub."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, TypeVar, cast

from prometheus_client.exposition import gzip_accepted
from tornado.web import Application, HTTPError

from ..domain.text import printable
from ..exposition import Exposition, encoder_for
from .access import Access
from .answering import HTML, Answering
from .assets import CONTENT_SECURITY_POLICY
from .reading import ServerFilter
from .rendering import BusyError, Renderer, Wanted

_OF_THE_PAGE = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
_BUSY = "Too many different requests are waiting; try again."
_ASKED = ("state", "policy", "reason")

_Value = TypeVar("_Value")


class Exposes(Protocol):
    """Renders `/metrics`."""

    def __call__(self, accept: str, gzip: bool, names: Sequence[str]) -> Exposition:
        """Render for an `Accept` header; with `names` only these metrics."""


@dataclass(frozen=True)
class Site:
    """What is served.

    Args:
        metrics: renders `/metrics`.
        healthy: says why the poll loop does not run, None while it does.
        ready: says why the facts are missing or stale, None if they are current.
        page: renders the page for people, with the servers that are asked for.
        access: decides who may read metrics and the page.
    """

    metrics: Exposes
    healthy: Callable[[], str | None]
    ready: Callable[[], str | None]
    page: Callable[[ServerFilter], str]
    access: Access
    renderer: Renderer = field(default_factory=Renderer)

    def application(self) -> Application:
        """Return the application to serve."""
        return Application(
            [
                ("/", Page),
                ("/metrics", Metrics),
                ("/-/healthy", Health),
                ("/-/ready", Readiness),
            ],
            default_handler_class=NotFound,
            site=self,
        )


class Handler(Answering):
    """What all paths have in common: who may read them, and how they are rendered."""

    PROBLEMS: Mapping[HTTPStatus, str] = {
        **Answering.PROBLEMS,
        HTTPStatus.NOT_FOUND: "Not found. Try / or /metrics.",
        HTTPStatus.METHOD_NOT_ALLOWED: "Only GET and HEAD.",
    }
    OPEN = False  # to those, too, who may not read metrics and the page

    @property
    def site(self) -> Site:
        """Return what is served."""
        return cast("Site", self.settings["site"])

    def set_default_headers(self) -> None:
        """Set the headers that each answer has."""
        super().set_default_headers()
        self.set_headers(self.site.access.headers)

    async def prepare(self) -> None:
        """Refuse who may not read this."""
        refusal = None if self.OPEN else await self.site.access.refusal(self.request)
        if refusal is not None:
            self.set_headers(refusal.headers)
            self.answer_line(refusal.status, refusal.sentence)

    async def rendered(self, wanted: Wanted, render: Callable[[], _Value]) -> _Value | None:
        """Render an answer; None if too many wait, which is answered then."""
        try:
            return await self.site.renderer.rendered(wanted, render)
        except BusyError:
            self.set_header("Retry-After", "1")
            self.answer_line(HTTPStatus.SERVICE_UNAVAILABLE, _BUSY)
            return None


class Metrics(Handler):
    """Answers a scrape as client_python's own application does: compressed, filtered by name."""

    async def get(self) -> None:
        """Answer a scrape."""
        headers = self.request.headers
        accept, encodings = headers.get("Accept", ""), headers.get("Accept-Encoding", "")
        gzip, names = gzip_accepted(encodings), self.get_query_arguments("name[]")
        wanted = Wanted("/metrics", encoder_for(accept)[1], gzip, tuple(names))
        exposed = await self.rendered(
            wanted, lambda: self.site.metrics(accept, gzip=gzip, names=names)
        )
        if exposed is None:
            return
        if exposed.encoding:
            self.set_header("Content-Encoding", exposed.encoding)
        self.answer(HTTPStatus.OK, exposed.content_type, exposed.body)


class Page(Handler):
    """Answers with the page for people."""

    async def get(self) -> None:
        """Answer with the page."""
        try:
            asked = ServerFilter.of({name: self.get_query_argument(name, "") for name in _ASKED})
        except ValueError as error:
            self.answer_line(HTTPStatus.BAD_REQUEST, printable(str(error)))
            return
        wanted = Wanted("/", names=(f"{asked}",) if asked else ())
        html = await self.rendered(wanted, lambda: self.site.page(asked))
        if html is not None:
            self.set_headers({**_OF_THE_PAGE, **self.site.access.headers})
            self.answer(HTTPStatus.OK, HTML, html.encode())


class Health(Handler):
    """Answers at once, on the event loop: whether the poll loop runs. Open to everybody."""

    OPEN = True

    def problem(self) -> str | None:
        """Say what is wrong; None if nothing is."""
        return self.site.healthy()

    async def get(self) -> None:
        """Answer whether all is well."""
        problem = self.problem()
        status = HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE
        self.answer_line(status, problem or "OK")


class Readiness(Health):
    """Answers whether the facts are current, as to health."""

    def problem(self) -> str | None:
        """Say why the facts are missing or stale."""
        return self.site.ready()


class NotFound(Handler):
    """Answers to anything else."""

    async def get(self) -> None:
        """Refuse."""
        raise HTTPError(HTTPStatus.NOT_FOUND)
