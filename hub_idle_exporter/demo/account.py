"""The output of the demo: one line per event while it runs, and a table at the end.

Plain text of at most 100 columns; on a terminal the outcomes are coloured unless `NO_COLOR` is set.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TextIO

_WIDTH = min(100, max(60, shutil.get_terminal_size((100, 24)).columns - 1))


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
        colour: whether marks are coloured; by default on terminals without `NO_COLOR`.
    """

    def __init__(self, stream: TextIO | None = None, colour: bool | None = None) -> None:
        self._stream = stream or sys.stdout
        usual = self._stream.isatty() and not os.environ.get("NO_COLOR")
        self._colour = usual if colour is None else colour
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self.lost = False

    def say(self, text: str = "") -> None:
        """Write one or more lines, wrapped to the width of the terminal."""
        with self._lock:
            try:
                print(_broken(text), file=self._stream, flush=True)
            except OSError:  # the terminal was closed, or the reader of our pipe has ended
                self.lost = True

    def event(self, who: str, what: str, mark: Mark = Mark.NONE) -> None:
        """Write what happened to whom, with the minutes and seconds since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        head = f"{minutes:02}:{seconds:02}  {who:<13} {mark:<9}"
        lines = textwrap.wrap(what, _WIDTH - len(head)) or [""]
        text = f"\n{' ' * len(head)}".join(lines)
        self.say(self._coloured(head, mark) + text)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; its last column is wrapped to the remaining width."""
        lines = [list(head), *map(list, rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
        for line in lines:
            start = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
            room = _WIDTH - len(start) - 2
            wrapped = f"\n{' ' * (len(start) + 2)}".join(textwrap.wrap(line[-1], room) or [""])
            mark = next((mark for mark in _COLOURS if line[-2] == mark.value), Mark.NONE)
            self.say(f"{self._coloured(start, mark)}  {wrapped}")

    def _coloured(self, text: str, mark: Mark) -> str:
        if not self._colour or mark is Mark.NONE:
            return text
        return text.replace(mark.value, f"\033[{_COLOURS[mark]}m{mark.value}\033[0m")


def _broken(text: str) -> str:
    lines = (
        line if len(line) <= _WIDTH else textwrap.fill(line, _WIDTH) for line in text.split("\n")
    )
    return "\n".join(lines)
