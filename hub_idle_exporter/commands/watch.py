"""Show something again and again: on a terminal in place, elsewhere one after the other."""

import os
import shutil
import signal
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from ..clocks import steady
from ..domain.columns import wrapped

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

_ENTER, _LEAVE = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"  # another screen, without cursor
_TOP, _END_OF_LINE, _BELOW = "\033[H", "\033[K", "\033[J"
_ENDS = "Ctrl-C ends"


@dataclass(frozen=True)
class Frame:
    """What is shown at one time: a line, a table with its head, and notes; all of it printable."""

    title: str
    table: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Look:
    """What a look has found, to be laid out for so many columns, and the seconds to the next."""

    frame: Callable[[int | None], Frame]
    pause: float
    failed: bool = False


def watch(look: Callable[[], Look], at_first: str) -> int:
    """Look again and again until Ctrl-C or SIGTERM; return 0 then."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if sys.stdout.isatty():
            _watch_in_place(look, at_first)
        else:
            _watch_in_turn(look)
    except KeyboardInterrupt:
        return 0


def _watch_in_turn(look: Callable[[], Look]) -> NoReturn:
    told: list[str] = []
    woken: SimpleQueue[None] = SimpleQueue()
    while True:
        seen = look()
        frame = seen.frame(None)
        click.echo("\n".join([frame.title, *frame.table]), err=seen.failed)
        for note in frame.notes if frame.notes != told else []:
            click.echo(note, err=True)
        told = frame.notes
        _wait(woken, seen.pause)


def _watch_in_place(look: Callable[[], Look], at_first: str) -> NoReturn:
    with _Screen() as screen:
        screen.draw(lambda _room: Frame(at_first, [], []))
        while True:
            seen = look()
            until = steady() + seen.pause
            screen.draw(seen.frame)
            while _wait(screen.resized, until - steady()):
                screen.draw(seen.frame)


def _wait(woken: SimpleQueue[None], seconds: float) -> bool:
    """Wait so long; True if woken before."""
    try:
        woken.get(timeout=max(0.0, seconds))
    except Empty:
        return False
    return True


class _Screen:
    """A screen of its own on the terminal, which is as it was before when this ends."""

    def __init__(self) -> None:
        self.resized: SimpleQueue[None] = SimpleQueue()  # a signal handler may put into it
        self._typed = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before = termios.tcgetattr(self._typed) if self._typed is not None else None

    def __enter__(self) -> "Self":
        signal.signal(signal.SIGWINCH, self._changed)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._take()
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def draw(self, frame: Callable[[int | None], Frame]) -> None:
        """Draw in one write, over what is there: nothing flickers."""
        size = shutil.get_terminal_size()
        # The last column stays free: what is written there makes some terminals wrap.
        lines = screen_of(frame(size.columns - 1), size.columns - 1, size.lines)
        self._write(_TOP + "\n".join(line + _END_OF_LINE for line in lines) + _BELOW)

    def _take(self) -> None:
        self._write(_ENTER)
        if self._typed is not None and self._before is not None:
            quiet = [*self._before]
            quiet[3] &= ~(termios.ECHO | termios.ECHONL)
            termios.tcsetattr(self._typed, termios.TCSADRAIN, quiet)

    def _give_back(self) -> None:
        if self._typed is not None and self._before is not None:
            termios.tcsetattr(self._typed, termios.TCSAFLUSH, self._before)
        self._write(_LEAVE)

    def _changed(self, _number: int, _frame: FrameType | None) -> None:
        self.resized.put(None)

    def _suspend(self, _number: int, _frame: FrameType | None) -> None:
        """Give the terminal back while stopped by Ctrl-Z."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        self._take()
        self.resized.put(None)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def screen_of(frame: Frame, columns: int, rows: int) -> list[str]:
    """Lay a frame out on a screen; of a long table as many lines as fit, and how many more.

    Notes get a third of the screen, or what the table leaves free; the last ones are dropped.
    """
    title = _lines(f"{frame.title}; {_ENDS}", columns)
    # The lines of a table that cannot be made narrow enough are cut off.
    table = ["", *(_lines(line, columns)[0] for line in frame.table)] if frame.table else []
    room = max(rows // 3, rows - len(title) - len(table))
    below: list[str] = []
    for note in frame.notes:
        lines = [*([] if below else [""]), *_lines(note, columns)]
        if len(below) + len(lines) > room:
            break
        below += lines
    left = rows - len(title) - len(below)
    if len(table) > left:
        kept = max(left - 1, 2)
        table = [*table[:kept], f"... and {len(table) - kept} more"]
    return [*title, *table, *below][:rows]


def _lines(text: str, columns: int) -> list[str]:
    return wrapped(text, columns).split("\n")
