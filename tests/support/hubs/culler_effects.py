"""Run by a Hub's Python: what its jupyterhub-idle-culler makes of command lines.

Lines come as JSON on standard input. What would be culled is not: only what it is called with is
returned, on standard output.
"""

import contextlib
import io
import json
import logging
import os
import sys
from typing import Any

os.environ |= {"JUPYTERHUB_API_TOKEN": "none", "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api"}
import jupyterhub_idle_culler as culler  # type: ignore[import-not-found]

seen: dict[str, Any] = {}


class Loop:
    """Takes what is to be run, and runs nothing."""

    def add_callback(self, callback: Any) -> None:
        seen.update(callback.keywords)

    def start(self) -> None:
        """End at once."""


class Periodic:
    """The interval, as tornado checks it."""

    def __init__(self, callback: Any, milliseconds: float) -> None:
        if milliseconds <= 0:
            raise ValueError("PeriodicCallback must have a positive callback_time")
        seen["cull_every"] = milliseconds / 1000

    def start(self) -> None:
        """Run nothing."""


def effect(line: list[str]) -> dict[str, Any] | None:
    """Return what `cull_idle` would be called with; None if it ends or crashes before that."""
    seen.clear()
    sys.argv = ["culler", *line]
    if hasattr(culler, "IdleCuller"):
        culler.IdleCuller.clear_instance()
    else:
        from tornado.log import define_logging_options

        logging.getLogger().handlers.clear()
        culler.options._options.clear()
        culler.options.__dict__["_parse_callbacks"] = []
        culler.options.define("help", type=bool, callback=culler.options._help_callback)
        define_logging_options(culler.options)
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1]:
        try:
            culler.main()
        except (SystemExit, Exception):  # noqa: BLE001
            return None
    plain = {k: v for k, v in seen.items() if isinstance(v, bool | int | float | str)}
    return plain or None


culler.PeriodicCallback = Periodic
culler.IOLoop.current = staticmethod(lambda *_a, **_k: Loop())
lines = json.load(sys.stdin)
json.dump([effect(line) for line in lines], sys.stdout)
