"""The Hub that started this process, and whether it is still there.

A killed Hub leaves its services running, with a token that still works for a while: an old
sidecar would go on enforcing an old policy beside the new Hub's own. The parent is noted when
this module is imported, which `__main__` does first of all: a Hub may be gone a moment later.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_PARENT = os.getppid()


class OrphanWatch:
    """Tells whether the Hub that started this process is gone; never, where none did."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._started_by_hub = bool(environ.get("JUPYTERHUB_SERVICE_NAME"))
        self._born_orphan = _PARENT == 1 and not _is_hub(1)

    def __call__(self) -> bool:
        """Look now."""
        return self._started_by_hub and (self._born_orphan or os.getppid() != _PARENT)


def _is_hub(pid: int) -> bool:
    """Tell whether a process may be a JupyterHub: in a container it may be the first of all."""
    try:
        return b"hub" in Path(f"/proc/{pid}/cmdline").read_bytes().lower()
    except OSError:
        return False
