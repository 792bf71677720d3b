"""The site of these pages: `make docs`, into `build/docs`. Warnings are errors; nothing is fetched."""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "hub_idle_exporter"
author = "the hub_idle_exporter developers"
extensions = ["myst_parser"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "pydata_sphinx_theme"
html_title = "hub_idle_exporter"
html_static_path: list[str] = []
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": False,
}

_HERE = Path(__file__).parent
_LINK_UP = re.compile(r"\]\(((?:\.\./)+[^)#]+)\)")


def _link_to_repository(_app: Sphinx, page: str, source: list[str]) -> None:
    """Offer files of the repository outside docs/ as downloads.

    The pages link to them by relative paths, which work on a forge; the site has no such path, so
    it gets a copy. A link within docs/ stays a link to a page.
    """

    def prefixed(link: re.Match[str]) -> str:
        target = (_HERE / page).parent.joinpath(link[1]).resolve()
        outside = target.is_file() and not target.is_relative_to(_HERE)
        return f"](path:{link[1]})" if outside else link[0]

    source[0] = _LINK_UP.sub(prefixed, source[0])


def setup(app: Sphinx) -> None:
    """Register the above."""
    app.connect("source-read", _link_to_repository)
