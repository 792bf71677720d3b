"""The page at `/`: what the Hub looks like now, for people. Reads what is there, never waits."""

import time
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prometheus_client import Counter, Gauge

from .. import __version__
from ..config import Config
from ..culling.gatekeeper import Gatekeeper
from ..log import printable
from ..metrics import Metrics
from ..poller import Poller
from .view import Counts, Reading, Totals, View, view_of

_NBSP = "\N{NO-BREAK SPACE}"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
# Of the configuration what says how stops are done; each is an option's name.
_SETTINGS = ("interval", "grace", "concurrency", "max_culls", "max_busy", "cull_default_servers",
             "cull_named_servers", "remove_named_servers")  # fmt: skip


def spoken(seconds: float, parts: int = 4) -> str:
    """Write a duration for people: `1 h 30 min`; `parts` units from the largest on."""
    left, counts = int(seconds), list[tuple[int, str]]()
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or counts:
            counts.append((count, unit))
    written = [f"{count}{_NBSP}{unit}" for count, unit in counts[:parts] if count]
    return " ".join(written) or f"0{_NBSP}s"


def about(seconds: float) -> str:
    """Write a measured duration: two units are enough."""
    return spoken(seconds, 2)


def brief(seconds: float) -> str:
    """Write how long something took that is over in a moment: `12 ms`, `1.5 s`."""
    return f"{seconds * 1000:.0f}{_NBSP}ms" if seconds < 1 else f"{seconds:.1f}{_NBSP}s"


def moment(seconds: float) -> str:
    """Write a moment (seconds since 1970) for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine_moment(seconds: float) -> str:
    """Write a moment as HTML's `datetime` wants it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(count: float) -> str:
    """Write a whole number with its thousands apart."""
    return f"{count:,.0f}"


def percent(share: float) -> str:
    """Write a share (0 to 1); what is there never reads as 0 %."""
    if 0 < share < 0.01:
        return f"<{_NBSP}1{_NBSP}%"
    return f"{share * 100:.0f}{_NBSP}%"


def _environment() -> Environment:
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, auto_reload=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters = (spoken, about, brief, moment, machine_moment, number, percent, printable)
    environment.filters.update({filter_.__name__: filter_ for filter_ in filters})
    return environment


_TEMPLATE = _environment().get_template("page.html")


def html(view: View) -> str:
    """Put a view into HTML; everything in it is escaped."""
    return _TEMPLATE.render(view=view)


class Page:
    """Renders the page from what is there, without asking the Hub."""

    def __init__(
        self, poller: Poller, gatekeeper: Gatekeeper, metrics: Metrics, config: Config
    ) -> None:
        self._poller, self._gatekeeper = poller, gatekeeper
        self._metrics, self._config = metrics, config

    def render(self) -> str:
        """Give the page as HTML."""
        return html(view_of(self._read()))

    def _read(self) -> Reading:
        """Read everything once; the snapshot first, so that what explains its lack is there."""
        snapshot, monotonic = self._metrics.facts.snapshot, time.monotonic()
        poller, terms, error = self._poller, self._config.terms, self._poller.last_error
        shown = self._config.shown()
        return Reading(
            now=time.time(),
            exporter_version=__version__,
            url=self._config.connection.url,
            interval=terms.interval,
            rules=poller.rules,
            settings={f"--{key.replace('_', '-')}": f"{shown[key]}".lower() for key in _SETTINGS},
            busy_check=terms.busy_check,
            gate=self._gatekeeper.state(),
            why=self._gatekeeper.why(),
            hub_version=snapshot.version if snapshot else None,
            census=snapshot.census if snapshot else None,
            judged=snapshot.judged if snapshot else (),
            last_success_age=_since(poller.last_success, monotonic),
            failing_for=_since(poller.failing_since, monotonic),
            error=None if error is None else str(error),
            policy_refused=poller.policy_error is not None,
            poll_seconds=_only(self._metrics.poll_duration),
            clock_skew=_only(self._metrics.clock_skew),
            granted={name: value == 1 for (name,), value in _values(self._metrics.scopes).items()},
            asks=_only(self._metrics.busy_check) == 1,
            totals=_totals(self._metrics),
        )


def _since(then: float | None, now: float) -> float | None:
    return None if then is None else max(0.0, now - then)


def _totals(metrics: Metrics) -> Totals:
    return Totals(
        polls=_only(metrics.polls),
        poll_failures=_values(metrics.poll_failures),
        culls=_values(metrics.culls),
        withheld=_values(metrics.withheld),
        cull_failures=_values(metrics.cull_failures),
        busy_checks=_values(metrics.busy_checks),
        idle_server_seconds=_values(metrics.idle_server_seconds),
    )


def _values(metric: Counter | Gauge) -> Counts:
    """Read a metric: the values of its labels → its value."""
    (family,) = metric.collect()
    return {
        tuple(sample.labels.values()): sample.value
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def _only(metric: Counter | Gauge) -> float:
    """Read a metric without labels."""
    return _values(metric)[()]
