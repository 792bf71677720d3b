"""The embedded demo: a real JupyterHub, simulated people, and the sidecar that culls on it."""

from __future__ import annotations

import importlib.util
import sys

_NEEDED = ("jupyterhub", "configurable_http_proxy", "jupyter_server", "ipykernel", "psutil")


def run(duration: float | None = None) -> int:
    """Run the demo until Ctrl-C, SIGTERM, SIGHUP, or `duration` seconds after its summary.

    Returns:
        0 if every outcome was as expected, else 1 with a sentence on standard error.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"hub-idle-exporter: the demo needs {', '.join(missing)}: "
            "pip install '.[demo]' in a checkout",
            file=sys.stderr,
        )
        return 1
    from .show import show

    return show(duration)
