"""`python -m hub_idle_exporter` is the same as `hub-idle-exporter`.

What must not wait until everything is imported comes first: to note who started this process, who
may be gone a moment later, and to end in good order when told to.
"""

import os
import signal
import sys
from types import FrameType

from . import (
    COMMANDS,
    parent,  # noqa: F401 - it notes who started us
)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(130 if set(COMMANDS) & set(sys.argv) else 0)


signal.signal(signal.SIGTERM, _leave)
signal.signal(signal.SIGINT, _leave)

from .cli import main  # noqa: E402

if __name__ == "__main__":
    main()
