"""Templates: everything in them is escaped, and a name that is missing is an error."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..clocks import machine_moment
from ..domain.text import printable
from .wording import about, brief, clock, moment, number, spoken

_FILTERS = (spoken, about, brief, moment, clock, machine_moment, number, printable)


def environment(folder: Path) -> Environment:
    """Return the environment for the templates of a folder."""
    made = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
        auto_reload=False, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update({filter_.__name__: filter_ for filter_ in _FILTERS})
    return made
