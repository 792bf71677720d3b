"""The output of the demo: one line per event while it runs, and a table at the end.

Wrapped to the terminal as it is at that moment, or to 100 columns where there is none. On a
terminal the outcomes are coloured, unless `NO_COLOR` is set or `TERM` says that it cannot.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TextIO

from ..domain.columns import padded, width, wrapped
from ..domain.str_enum import StrEnum

_OFF_A_TERMINAL = 100
# Lines that are longer are hard to read; the table does not fit into less.
_WIDEST, _NARROWEST = 120, 60
# At least so many columns are left to the last column of a table.
_LAST_COLUMN = 24


class Mark(StrEnum):
    """The outcome that a line reports."""

    NONE = ""
    STOPPED = "STOPPED"
    WITHHELD = "WITHHELD"
    KEPT = "KEPT"
    FAILED = "FAILED"


_COLOURS = {Mark.STOPPED: "33", Mark.WITHHELD: "32", Mark.KEPT: "32", Mark.FAILED: "31"}


class Account:
    """Writes to one stream, from any thread; a closed stream sets `lost` and is no error.

    Args:
        stream: where to write; standard output by default.
        colour: whether marks are coloured; by default on terminals that can, without `NO_COLOR`.
    """

    def __init__(self, stream: TextIO | None = None, colour: bool | None = None) -> None:
        self._stream = stream or sys.stdout
        self._colour = _shows_colours(self._stream) if colour is None else colour
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self.lost = False

    def say(self, text: str = "") -> None:
        """Write one or more lines, wrapped to the width of the terminal."""
        room = self._room()
        lines = (wrapped(line, room, _indent_of(line)) for line in text.split("\n"))
        self._write("\n".join(lines))

    def event(self, who: str, what: str, mark: Mark = Mark.NONE) -> None:
        """Write what happened to whom, with the minutes and seconds since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        head = f"{minutes:02}:{seconds:02}  {padded(who, 13)} {self._coloured(mark, 9)}"
        self._write(_beside(head, what, self._room()))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str | Mark]]) -> None:
        """Write a table; its last column is wrapped to the remaining width."""
        lines, room = [list(head), *map(list, rows)], self._room()
        widths = [max(width(line[column]) for line in lines) for column in range(len(head) - 1)]
        for line in lines:
            cells = [
                self._coloured(cell, w) if isinstance(cell, Mark) else padded(cell, w)
                for cell, w in zip(line, widths, strict=False)
            ]
            self._write(_beside("  ".join(cells) + "  ", line[-1], room))

    def _coloured(self, mark: str, room: int) -> str:
        """Give a mark its colour, and fill it up."""
        if not self._colour or not isinstance(mark, Mark) or mark is Mark.NONE:
            return padded(mark, room)
        return padded(f"\033[{_COLOURS[mark]}m{mark.value}\033[0m", room)

    def _room(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):  # no terminal, or no file at all
            return _OFF_A_TERMINAL
        return min(_WIDEST, max(_NARROWEST, columns or _OFF_A_TERMINAL))

    def _write(self, text: str) -> None:
        with self._lock:
            try:
                print(text, file=self._stream, flush=True)
            except OSError:  # the terminal was closed, or the reader of our pipe has ended
                self.lost = True


def _shows_colours(stream: TextIO) -> bool:
    knows = (os.environ.get("TERM") or "dumb") != "dumb"
    return stream.isatty() and knows and not os.environ.get("NO_COLOR")


def _indent_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _beside(head: str, text: str, room: int) -> str:
    """Write a text beside a head, all its lines below each other."""
    indent = " " * width(head)
    lines = wrapped(text, max(room - width(head), _LAST_COLUMN)).split("\n")
    return (head + f"\n{indent}".join(lines)).rstrip()
