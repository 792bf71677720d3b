"""The page at `/`: the state of the Hub, for people. It never waits for the Hub."""

from functools import cache

from jinja2 import Template

from .. import __version__
from ..clocks import read_clocks
from ..config import shown_settings
from ..culling.gatekeeper import Gatekeeper
from ..domain.poll_state import LatestState
from ..domain.settings import Settings
from ..metrics import Metrics
from .assets import SCRIPT, STYLE, TEMPLATES
from .reading import Listed, Reading, ServerFilter
from .templating import environment
from .view import View, view_of
from .wording import FAILED, MEANINGS, REASONS

# The settings about polling and culling; each is the name of an option.
_SHOWN = ("interval", "grace", "concurrency", "max_culls", "max_busy", "max_unanswered",
          "notice", "keep_max", "cull_default_servers", "cull_named_servers",
          "remove_named_servers", "spare_query")  # fmt: skip
_SHOWN_OF_USERS = ("cull_users", "user_timeout", "cull_admin_users")  # with --cull-users

MOST_RECENT = 20
# Whoever has to end a server that outlived its stop should have a day for it.
NOT_STOPPED_SECONDS = 86400.0


@cache
def _template() -> Template:
    found = environment(TEMPLATES)
    found.globals |= {
        "style": STYLE, "script": SCRIPT, "meanings": MEANINGS, "failures": FAILED,
        "reasons": REASONS, "states": [*Listed],
    }  # fmt: skip
    return found.get_template("page.html")


def _written(value: object) -> str:
    return f"{value}".lower() if isinstance(value, bool) else f"{value}"


def html(view: View) -> str:
    """Render a view as HTML; everything in it is escaped."""
    return _template().render(view=view)


class Page:
    """Renders the page from the newest poll state, without asking the Hub."""

    def __init__(
        self, latest: LatestState, gatekeeper: Gatekeeper, metrics: Metrics, settings: Settings
    ) -> None:
        self._latest, self._gatekeeper = latest, gatekeeper
        self._metrics, self._settings = metrics, settings
        self._started = read_clocks().wall

    def render(self, asked: ServerFilter) -> str:
        """Return the page as HTML, with the servers that are asked for."""
        return html(view_of(self._read(asked)))

    def _read(self, asked: ServerFilter) -> Reading:
        """Read everything once."""
        state, shown = self._latest.state, shown_settings(self._settings)
        now, metrics = read_clocks(), self._metrics
        names = _SHOWN + (_SHOWN_OF_USERS if self._settings.cull.users.delete else ())
        with metrics.counting:  # so that they fit together
            totals, last_pass = metrics.totals(), metrics.journal.last_pass()
            recent = metrics.journal.newest(MOST_RECENT)
            not_stopped = metrics.journal.not_stopped(now.wall - NOT_STOPPED_SECONDS)
        return Reading(
            now=now,
            exporter_version=__version__,
            settings=self._settings,
            shown={f"--{name.replace('_', '-')}": _written(shown[name]) for name in names},
            state=state,
            gate=self._gatekeeper.read(state),
            stands_by=self._gatekeeper.stands_by(state),
            totals=totals,
            started=self._started,
            last_pass=last_pass,
            recent=recent,
            not_stopped=not_stopped,
            asked=asked,
            web_config_valid=metrics.web_config_valid,
            idle_users=self._latest.idle_users,
            listing_failed=self._latest.listing_failed,
            undelivered=metrics.undelivered(),
        )
