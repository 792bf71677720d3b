"""The page at `/`: the state of the Hub, for people. It never waits for the Hub."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from .. import __version__
from ..clocks import read_clocks
from ..config import shown_settings
from ..culling.gatekeeper import Gatekeeper
from ..domain.poll_state import LatestState
from ..domain.settings import Settings
from ..domain.text import printable
from ..metrics import Metrics
from .view import Reading, View, view_of
from .wording import about, brief, machine_moment, moment, number, percent, spoken

# The settings about polling and culling; each is the name of an option.
_SHOWN = ("interval", "grace", "concurrency", "max_culls", "max_busy", "max_unanswered",
          "cull_default_servers", "cull_named_servers", "remove_named_servers")  # fmt: skip


@cache
def _template() -> Template:
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, auto_reload=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters = (spoken, about, brief, moment, machine_moment, number, percent, printable)
    environment.filters.update({filter_.__name__: filter_ for filter_ in filters})
    return environment.get_template("page.html")


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

    def render(self) -> str:
        """Return the page as HTML."""
        return html(view_of(self._read()))

    def _read(self) -> Reading:
        """Read everything once."""
        state, shown = self._latest.state, shown_settings(self._settings)
        gate = self._gatekeeper.read(state)
        return Reading(
            now=read_clocks(),
            exporter_version=__version__,
            settings=self._settings,
            shown={f"--{name.replace('_', '-')}": f"{shown[name]}".lower() for name in _SHOWN},
            state=state,
            gate=gate.state,
            why=gate.why,
            totals=self._metrics.totals(),
        )
