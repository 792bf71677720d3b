"""Whether the Hub that started this process still runs.

The services of a killed Hub go on running, with a token that still works for a while: an old
sidecar would go on enforcing an old policy next to the new Hub's sidecar. The parent process is
recorded when this module is imported, which `__main__` does first: the Hub may end a moment later.
"""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

_PARENT = os.getppid()


class OrphanWatch:
    """Tells whether the Hub that started this process has ended; False if no Hub started it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._started_by_hub = bool(environ.get("JUPYTERHUB_SERVICE_NAME"))

    @cached_property
    def _born_orphan(self) -> bool:
        return _PARENT == 1 and not _is_hub(1)

    def __call__(self) -> bool:
        """Check now."""
        return self._started_by_hub and (self._born_orphan or os.getppid() != _PARENT)


def _is_hub(pid: int) -> bool:
    """Tell whether a process may be a JupyterHub: in a container it may be process 1."""
    try:
        return b"hub" in Path(f"/proc/{pid}/cmdline").read_bytes().lower()
    except OSError:
        return False
