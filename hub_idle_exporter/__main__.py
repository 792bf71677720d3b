"""`python -m hub_idle_exporter` is the same as `hub-idle-exporter`.

Two things must not wait for the slow imports: to record the parent process, which may end a moment
later, and to handle signals, so that the process exits cleanly from its first moment on.
"""

import os
import signal
import sys
from types import FrameType

from . import (
    COMMANDS,
    parent,  # noqa: F401 - records the parent process when imported
    process,
)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(130 if set(COMMANDS) & set(sys.argv) else 0)


process.arrange()
signal.signal(signal.SIGTERM, _leave)
signal.signal(signal.SIGINT, _leave)

from .cli import main  # noqa: E402

if __name__ == "__main__":
    main()
