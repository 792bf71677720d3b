"""A file that is read again when it changes; a broken version keeps the last valid one."""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from .clocks import read_clocks
from .domain.gate import ClockReading
from .domain.settings import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

LARGEST = 1 << 20
# A file may be read while it is written, at the start also before it is there. Both in seconds.
_BETWEEN_READS = 0.5
_PATIENCE = 5.0


class FileError(ConfigError):
    """A file that cannot be used; `str()` names it."""


_Found = TypeVar("_Found")
_Value = TypeVar("_Value")


class WatchedFile(ABC, Generic[_Found, _Value]):
    """The last valid version of a file, and whether its current version is valid.

    `value` is what the last valid version says. `error` says what is wrong with the current
    version, None if it is valid.

    Args:
        what: the kind of file, for people.
        path: where it is.
        value: what counts before it has been read.
        wait: waits for some seconds; returns True, at once, when the exporter is to end.
    """

    def __init__(self, what: str, path: Path, value: _Value, wait: Callable[[float], bool]) -> None:
        self.name, self.path, self.value, self._wait = f"{what} {path}", path, value, wait
        self._seen: _Found | None = None
        self.error: str | None = None

    @abstractmethod
    def find(self) -> _Found:
        """Read everything that the value is made from; it must not raise."""

    def paths(self, _found: _Found) -> Iterable[Path]:
        """Return the files that were read."""
        return [self.path]

    @abstractmethod
    def parse(self, found: _Found) -> _Value:
        """Make the value; raise FileError if that cannot be done."""

    def read_first(self, clocks: Callable[[], ClockReading] = read_clocks) -> "Self":
        """Read the file for the first time; raise FileError if it is invalid.

        An invalid file may be just being written, and a missing one be mounted in a moment. So it
        is read again for 5 s, unless nothing has been modified for so long.
        """
        until = clocks().monotonic + _PATIENCE
        while not self.refresh() or self.error is not None:
            reading = clocks()
            over = reading.monotonic >= until or self._is_settled(reading.wall)
            if over or self._wait(_BETWEEN_READS):
                raise FileError(self.error or f"{self.name} changes all the time")
        return self

    def refresh(self) -> bool:
        """Read the file again; tell whether it has changed since the last time.

        What is being written is left for the next time: it has changed when two reads, half a
        second apart, find the same.
        """
        found = self.find()
        if found == self._seen or self._wait(_BETWEEN_READS) or self.find() != found:
            return False
        self._seen = found
        try:
            self.value = self.parse(found)
            self.error = None
        except FileError as error:
            self.error = str(error)
        return True

    def is_current(self) -> bool:
        """Tell whether the file is still as it was read last."""
        return self.find() == self._seen

    def _is_settled(self, now: float) -> bool:
        """Tell whether what is invalid has been like that for a while."""
        if self.error is None or self._seen is None:
            return False
        try:
            modified = max(path.stat().st_mtime for path in self.paths(self._seen))
        except (OSError, ValueError):
            return False
        return now - modified > _PATIENCE


def read(path: Path) -> bytes | str:
    """Return the content of a file, or say what is wrong with it: a pipe or device has no end."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "is not a regular file"
            content = file.read(LARGEST + 1) or b""  # None where reading would have to wait
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "cannot be read: no file can have this name"
    return content if len(content) <= LARGEST else "is larger than 1 MiB"


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe would wait until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def exposed_to_others(file: str | None) -> str | None:
    """Say that every user of this machine can read a file with secrets; None if not."""
    try:
        exposed = file is not None and Path(file).stat().st_mode & stat.S_IROTH
    except OSError:
        return None
    if not exposed:
        return None
    mend = f"chmod o-r {file}, or `defaultMode: 0440` and `fsGroup` for a Secret of Kubernetes"
    return f"every user of this machine can read {file}: {mend}"
