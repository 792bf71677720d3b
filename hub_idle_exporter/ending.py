"""When this process is to end: at a signal, when a thread crashes, with the Hub that started it."""

import os
import signal
import sys
import threading
from types import FrameType

import structlog

from .parent import OrphanWatch

# Less than the ten seconds that `docker stop` waits before it kills.
_END_SECONDS = 8
_LOOK_AROUND_SECONDS = 1.0

log = structlog.get_logger()


class Ending:
    """Watches for it; `stopping` is set when the process is to end, `crashes` says what crashed."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.crashes: list[str] = []
        self._orphaned = OrphanWatch(os.environ)

    def watch(self) -> None:
        """Begin to watch for signals and for threads that crash."""
        signal.signal(signal.SIGALRM, self._give_up)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        threading.excepthook = self._crashed

    def wait(self, seconds: float = threading.TIMEOUT_MAX) -> bool:
        """Wait so long, or until the process is to end; tell whether it is."""
        left = seconds
        while left > 0 and not self.stopping.wait(min(left, _LOOK_AROUND_SECONDS)):
            left -= _LOOK_AROUND_SECONDS
            if self._orphaned():
                what = "the Hub that started this exporter has ended, so the exporter ends too"
                self._end()
                log.warning("parent_hub_ended", what=what)
        return self.stopping.is_set()

    def _end(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Begin to end; the alarm comes first, since the other may have to wait, and only once.

        It is for what never returns: a log that nobody reads.
        """
        if not self.stopping.is_set():
            signal.alarm(_END_SECONDS)
        self.stopping.set()

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        os._exit(1)

    def _crashed(self, arguments: threading.ExceptHookArgs) -> None:
        """End when a thread crashes: that is a bug, and the supervisor restarts us."""
        self.crashes.append(str(arguments.exc_type))
        sys.excepthook(
            arguments.exc_type, arguments.exc_value or Exception(), arguments.exc_traceback
        )
        self.stopping.set()
