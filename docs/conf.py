"""How `make docs` builds these pages into `build/docs`; nothing is fetched for it."""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "hub_idle_exporter"
author = "the hub_idle_exporter developers"
extensions = ["myst_parser"]
myst_heading_anchors = 3
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # Pygments has no subqueries of PromQL

html_theme = "pydata_sphinx_theme"
html_title = "hub_idle_exporter"
templates_path = ["_templates"]
html_sidebars = {"**": ["pages"]}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": False,
}

_HERE = Path(__file__).parent
_MARKDOWN_ABOVE = re.compile(r"\]\(((?:\.\./)+[^)#]+\.md)\)")


def _offer_as_download(_app: Sphinx, page: str, source: list[str]) -> None:
    """Offer Markdown files outside docs/ as downloads, as MyST does with all other files.

    The pages link to them by relative paths, which work on a forge. MyST would take the path for
    that of a page of this site, and warn that there is none.
    """

    def marked(link: re.Match[str]) -> str:
        target = (_HERE / page).parent.joinpath(link[1]).resolve()
        return link[0] if target.is_relative_to(_HERE) else f"](path:{link[1]})"

    source[0] = _MARKDOWN_ABOVE.sub(marked, source[0])


def setup(app: Sphinx) -> None:
    """Register the above."""
    app.connect("source-read", _offer_as_download)
