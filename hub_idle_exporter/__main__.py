"""`python -m hub_idle_exporter` is the same as `hub-idle-exporter`.

Three things must not wait for the slow imports: to record the parent process, which may end a
moment later, to handle signals, so that the process exits cleanly from its first moment on, and to
open the port of the page inside the Hub, for which a Hub does not wait long.
"""

import os
import signal
import sys
from types import FrameType

from . import (
    COMMANDS,
    parent,  # noqa: F401 - records the parent process when imported
    process,
    service_port,
)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(130 if set(COMMANDS) & set(sys.argv) else 0)


process.arrange()
signal.signal(signal.SIGTERM, _leave)
signal.signal(signal.SIGINT, _leave)

_listener = service_port.opened_early(sys.argv[1:], os.environ)

from . import cli  # noqa: E402


def main() -> None:
    """Run the command line."""
    cli.main(_listener)


if __name__ == "__main__":
    main()
