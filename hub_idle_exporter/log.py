"""The log: one line per event, logfmt or JSON, on standard error, with the token masked."""

import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from .domain.text import printable

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS = ("logfmt", "json")
_FIRST = ["ts", "level", "event"]
_masks: list[Callable[[str], str]] = []


def configure(level: str, form: str, mask: Callable[[str], str]) -> None:
    """Set up the log of this process; `mask` masks secrets in a text."""
    _masks[:] = [mask]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if form == "logfmt":
        renderer = structlog.processors.LogfmtRenderer(key_order=_FIRST, bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", utc=True, key="ts"),
            _masked,
            _printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lenient(sys.stderr))),
        cache_logger_on_first_use=False,
    )


def mask_also(mask: Callable[[str], str]) -> None:
    """Mask more secrets from now on."""
    _masks.append(mask)


def _masked(_log: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for mask in _masks:
        event = {key: _with_texts(value, mask) for key, value in event.items()}
    return event


class _Lenient:
    """A stream whose errors are ignored: the terminal may be closed, or the reader gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _printable(
    _log: object, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep one event on one line, whatever a name or an answer contains."""
    return {
        key: round(value, 3) if isinstance(value, float) else _with_texts(value, printable)
        for key, value in event.items()
    }


def _with_texts(value: object, change: Callable[[str], str]) -> object:
    """Change a text, or each text of a list."""
    if isinstance(value, list):
        return [_with_texts(one, change) for one in value]
    return change(value) if isinstance(value, str) else value
