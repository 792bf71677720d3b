r"""A command on a terminal of its own, of a size that a test chooses.

with Terminal(["servers", "--watch"], hub.url, hub.token, columns=80, rows=24) as terminal:
    terminal.wait_for("Ctrl-C ends")
    terminal.resize(120, 40)
    assert terminal.end("\x03") == 0
"""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter_process import PACKAGE, assert_secret, environment

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

_FRAME = re.compile(r"\033\[H((?:(?!\033\[H).)*?)\033\[J", re.DOTALL)
_WHOLE = "\033[J"
_LINE_END = re.compile(r"\033\[K")


class Terminal:
    """A process with a terminal as its standard streams; `text` is all that was written to it."""

    def __init__(
        self,
        arguments: Sequence[str],
        url: str,
        token: str,
        columns: int,
        rows: int = 24,
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.text, self._token = "", token
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-m", PACKAGE, *arguments],
            cwd=directory,
            env=_plain(environment(url, token, {"TERM": "xterm-256color"} | dict(variables or {}))),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # it gets the signals of keys
        )
        os.close(theirs)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        assert_secret([self.text], {self._token})

    def resize(self, columns: int, rows: int) -> None:
        """Change the size; the process is told."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    @property
    def echoes(self) -> bool:
        """Tell whether what is typed is shown."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    @property
    def lines(self) -> list[str]:
        """The lines that were written, if nothing is drawn in place."""
        return self.text.replace("\r\n", "\n").split("\n")

    @property
    def frames(self) -> list[list[str]]:
        """Each picture that was drawn in place, as lines."""
        drawn = _FRAME.findall(self.text.replace("\r\n", "\n"))
        return [[_LINE_END.sub("", line) for line in one.split("\n")] for one in drawn]

    def wait_for(self, words: str, timeout: float = 30) -> None:
        """Wait until something is drawn from now on, and the picture is whole."""
        begin, deadline = len(self.text), time.monotonic() + timeout
        while words not in self.text[begin : max(0, self.text.rfind(_WHOLE))]:
            assert time.monotonic() < deadline, self.text
            assert self._read(0.1), f"it ended: {self.text}"

    def end(self, keys: str = "", number: signal.Signals | None = None) -> int:
        """Press keys or send a signal, if any; return the exit code once it ends."""
        if number is not None:
            self.process.send_signal(number)
        if keys:
            self.press(keys)
        deadline = time.monotonic() + 30
        while self._read(0.1):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(10)

    def _read(self, seconds: float) -> bool:
        """Read what was written; False once nobody writes any more."""
        ready, _, _ = select.select([self._ours], [], [], seconds)
        if not ready:
            return True
        try:
            found = os.read(self._ours, 1 << 16)
        except OSError:  # the other end is closed
            return False
        self.text += self._decoder.decode(found)
        return True


def _plain(variables: dict[str, str]) -> dict[str, str]:
    """Leave out what would tell another size than that of the terminal."""
    return {name: value for name, value in variables.items() if name not in ("COLUMNS", "LINES")}
