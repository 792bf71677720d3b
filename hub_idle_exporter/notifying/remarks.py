"""What Apprise logs while it delivers: collected for one line of ours, and printed nowhere else.

Apprise and the libraries below it log URLs, and there are secrets in them.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_BELOW = ("urllib3", "requests", "charset_normalizer", "smtplib")
_SOCKET = "Socket Exception: "
_NEVER = logging.CRITICAL + 1


class _Remarks(logging.Handler):
    """Collects the messages of threads that asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self._of_thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, if this thread collects."""
        found: list[str] | None = getattr(self._of_thread, "found", None)
        if found is not None and self._says_why(record):
            found.append(record.getMessage())

    @contextmanager
    def collected(self) -> Iterator[list[str]]:
        """Collect what is logged in this thread."""
        found: list[str] = []
        self._of_thread.found = found
        try:
            yield found
        finally:
            self._of_thread.found = None

    @staticmethod
    def _says_why(record: logging.LogRecord) -> bool:
        """Tell whether it is about a failure, and not about a URL."""
        if "url" in record.getMessage().lower():
            return False
        return record.levelno >= logging.WARNING or record.getMessage().startswith(_SOCKET)


_remarks = _Remarks()
collected = _remarks.collected


def silence() -> None:
    """Print nothing of Apprise and of what it uses."""
    import urllib3

    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [_remarks], False
    logger.setLevel(logging.DEBUG)
    for name in _BELOW:
        logging.getLogger(name).setLevel(_NEVER)
    urllib3.disable_warnings()


def last_of(found: list[str]) -> str:
    """Return the newest messages on one line; "" without any."""
    return "; ".join(one.removeprefix(_SOCKET).rstrip(".") for one in found[-2:])
