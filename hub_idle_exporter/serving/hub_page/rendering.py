"""Renders the page inside the Hub, and the policy that lets a browser use nothing else with it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment

from ...people.desk import Visitor, started_text
from .. import templating
from ..assets import hash_of
from ..reading import Listed
from ..wording import REASONS
from . import words
from .listing import Sort
from .outcomes import Outcome
from .service import Service
from .view import View
from .words import Words

_FOLDER = Path(__file__).parent / "templates"
_STYLE = (_FOLDER / "page.css").read_text("utf-8")
_SCRIPT = (_FOLDER / "page.js").read_text("utf-8")


def content_security_policy(service: Service) -> str:
    """Return the policy: style and script by their hashes, and the Hub's logo."""
    hub = urlsplit(service.hub)
    logo = f"{hub.scheme}://{hub.netloc}" if hub.netloc else "'self'"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {hash_of(_SCRIPT)}",
            f"style-src {hash_of(_STYLE)}",
            f"img-src {logo}",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def servers_page(
    view: View, service: Service, token: Callable[..., str], outcome: Outcome | None
) -> str:
    """Render the servers of a visitor; `token` makes what a form carries."""
    template = _environment().get_template("servers.html")
    return template.render(
        view=view, visitor=view.visitor, service=service, token=token, outcome=outcome
    )


def words_page(said: Words, service: Service, visitor: Visitor | None) -> str:
    """Render a page that says one thing."""
    template = _environment().get_template("words.html")
    return template.render(said=said, visitor=visitor, service=service)


@cache
def _environment() -> Environment:
    made = templating.environment(_FOLDER)
    made.filters |= {"limit": words.limit, "became": words.became, "started": started_text}
    made.globals |= {
        "style": _STYLE, "script": _SCRIPT, "states": words.STATES, "reasons": REASONS,
        "listed": [*Listed], "sorts": Sort, "server_name": words.server_name,
    }  # fmt: skip
    return made
