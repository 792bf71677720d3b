"""The state file: what must survive a restart, in SQLite, written by one exporter at a time.

A change counts only once it is committed, and is on the disk by then: `kill -9` loses nothing, and
a full disk is an error for whoever asked. What is kept and announced is read from memory. While the
file cannot be written, or is not the one that was opened, it is *lost*: then nobody knows who keeps
what, and nothing is stopped. All that is in memory is written again as soon as that works.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import structlog

from ..domain.keeping import Keep, Keeps, Start
from ..domain.notices import Announcement, Announcements, NoticeKey
from ..domain.policy import ServerKey
from ..watched_file import FileError
from . import state_rows
from .state_rows import Contents, Row, Stop

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

# Another process may read for a moment, or the exporter before this one still be about to end.
_BUSY_SECONDS, _OTHER_SECONDS, _TRY_EVERY = 2.0, 10.0, 0.5
# What is over is remembered for so long: a clock that was wrong for a while has ended no keep.
_OVER_SECONDS = 7 * 86400.0
_GONE = "it or its .lock file was removed or replaced"

log = structlog.get_logger()

_Identity = tuple[int, int]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class StateLostError(Exception):
    """Something could not be written; `str()` says why in one line."""


class _InUseError(Exception):
    """Another exporter has the file."""


class StateFile:
    """What is kept and announced; safe to use from any thread.

    Args:
        path: the file; None keeps everything in memory only, and is never lost.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.RLock()
        self._contents = Contents.empty()
        self._read_from: Path | None = None
        self._database: sqlite3.Connection | None = None
        self._only_writer: int | None = None
        # Which files these are: compared by other threads, while they may be closed.
        self._opened: _Identity | None = None
        self._claimed: _Identity | None = None
        self._problem: str | None = None

    @classmethod
    def opened(cls, path: Path | None, wait: Callable[[float], bool]) -> "Self":
        """Open the file, or create it; raise FileError if it cannot be used.

        Another exporter that has it is waited for some seconds: it may be about to end. `wait`
        waits for some seconds; it returns True, at once, when this exporter is to end.
        """
        file, left = cls(path), int(_OTHER_SECONDS / _TRY_EVERY)
        while path is not None:
            try:
                file._open_first(path)
                break
            except _InUseError as error:
                left -= 1
                if left < 0 or wait(_TRY_EVERY):
                    raise FileError(f"--state-file {path}: {error}") from None
            except (OSError, ValueError, sqlite3.Error) as error:
                file.close()
                raise FileError(f"--state-file {path}: {_sentence(error)}") from None
        return file

    @classmethod
    def reading(cls, path: Path | None) -> "Self":
        """Read a file that another exporter may be writing; nothing is written to it.

        Raises FileError. A file that is not there yet is created by the exporter that enforces.
        """
        file = cls(None)
        file._read_from = path
        file.read_again()
        return file

    def read_again(self) -> None:
        """Read a file again that another exporter may be writing; raise FileError."""
        path = self._read_from
        if path is None or not path.exists():
            return
        try:
            with closing(connected(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
                state_rows.check_ours(database)
                self._contents = state_rows.read(database)
        except (OSError, ValueError, sqlite3.Error) as error:
            raise FileError(f"--state-file {path}: {_sentence(error)}") from None

    @property
    def keeps(self) -> Keeps:
        """Return what is kept, with what has ended within a week."""
        return self._contents.keeps

    @property
    def announcements(self) -> Announcements:
        """Return what was announced."""
        return self._contents.announcements

    @property
    def stops(self) -> Mapping[ServerKey, Stop]:
        """Return the last stop of each server, for a week."""
        return self._contents.stops

    @property
    def cookie_key(self) -> bytes:
        """Return the key of the sessions of the page inside the Hub."""
        return self._contents.cookie_key

    def lost(self) -> str | None:
        """Say why the file is lost; None while it works. This looks at it, and writes nothing."""
        if self._path is not None and self._problem is None and self._is_another():
            return f"the state file {self._path} is lost: {_GONE}"
        return self._problem

    def save_keep(self, start: Start, keep: Keep) -> None:
        """Remember that a server is kept; raise StateLostError if that cannot be written."""
        with self._lock:
            self._write(state_rows.PUT_KEEP, state_rows.keep_row(start, keep))
            self._contents.keeps = {**self._contents.keeps, start: keep}

    def drop_keep(self, start: Start) -> None:
        """Forget that a server is kept; raise StateLostError if that cannot be written."""
        with self._lock:
            self._write(state_rows.DROP_KEEP, state_rows.start_row(start))
            self._contents.keeps = _without(self._contents.keeps, start)

    def save_announcement(self, key: NoticeKey, made: Announcement) -> None:
        """Remember an announcement; raise StateLostError if that cannot be written."""
        with self._lock:
            self._write(state_rows.PUT_ANNOUNCEMENT, state_rows.announcement_row(key, made))
            self._contents.announcements = {**self._contents.announcements, key: made}

    def drop_announcement(self, key: NoticeKey) -> None:
        """Forget an announcement, in memory even if that cannot be written."""
        with self._lock, suppress(StateLostError):  # all is written when the file works again
            self._contents.announcements = _without(self._contents.announcements, key)
            self._write(state_rows.DROP_ANNOUNCEMENT, state_rows.announcement_key(key))

    def save_stop(self, key: ServerKey, stop: Stop) -> None:
        """Remember the last stop of a server, in memory even if that cannot be written."""
        with self._lock, suppress(StateLostError):
            self._contents.stops = {**self._contents.stops, key: stop}
            self._write(state_rows.PUT_STOP, state_rows.stop_row(key, stop))

    def look_after(self, now: float) -> None:
        """Forget what has been over for a week by the Hub's clock.

        A lost file is opened again, or created, and all that is in memory is written to it.
        """
        known, recent = self._contents, now - _OVER_SECONDS
        with self._lock, suppress(StateLostError):
            keeps = known.keeps.items()
            known.keeps = {start: keep for start, keep in keeps if keep.until > recent}
            known.stops = {key: stop for key, stop in known.stops.items() if stop.at > recent}
            lost = self.lost()
            if lost is not None:
                log.error("state_file_lost", why=lost)
                self._mend(lost)
                log.info("state_file_written_again")
            else:
                self._write(state_rows.FORGET_KEEPS, (recent,))
                self._write(state_rows.FORGET_STOPS, (recent,))

    def close(self) -> None:
        """Let another exporter have the file."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            if self._only_writer is not None:
                os.close(self._only_writer)
            self._database = self._only_writer = self._claimed = None

    def _open_first(self, path: Path) -> None:
        """Open the file and read it; raise an error of its kind if it cannot be used."""
        database = self._open(path)
        self._contents = state_rows.read(database)
        with _committed(database):  # it may be possible to read it, but not to write
            state_rows.write(database, self._contents)

    def _open(self, path: Path) -> sqlite3.Connection:
        """Open the file as its only writer; raise an error of its kind if that fails."""
        if self._only_writer is None:
            self._only_writer = _claim(path)
            self._claimed = _identity_of(os.fstat(self._only_writer))
        _make_private(path)
        self._database = connected(str(path))
        state_rows.prepare(self._database)
        self._opened = _identity(path)
        return self._database

    def _mend(self, lost: str) -> None:
        """Write all that is in memory, to another file at the same path if this one is gone.

        Others read the memory meanwhile: it stays as it is, and the file is lost until the end.
        """
        self._problem = lost
        try:
            if self._is_another() and self._path is not None:
                self._open_again(self._path)
        except (OSError, ValueError, sqlite3.Error, _InUseError) as error:
            self._lose(error)
        with self._transaction() as database:
            state_rows.write(database, self._contents)
        self._problem = None

    def _open_again(self, path: Path) -> None:
        """Open the file that is at the path now, as its only writer."""
        if self._database is not None:
            self._database.close()
        self._database = None
        if self._is_only_writer():
            self._open(path)
            return
        if self._only_writer is not None:
            os.close(self._only_writer)
        self._only_writer = self._claimed = None
        # Another exporter may have had the file meanwhile: what it confirmed counts, too.
        others = state_rows.read(self._open(path)).keeps
        self._contents.keeps = {**others, **self._contents.keeps}

    def _is_another(self) -> bool:
        """Tell whether what was opened is no longer at its path: the file, or its lock."""
        is_there = self._database is not None and _identity(self._path) == self._opened
        return not (is_there and self._is_only_writer())

    def _is_only_writer(self) -> bool:
        """Tell whether nobody else can have the lock: they can if it was removed."""
        claimed = self._claimed
        return claimed is not None and _identity(self._path and _lock_of(self._path)) == claimed

    def _write(self, statement: str, values: Row) -> None:
        if self._path is not None:
            with self._transaction() as database:
                database.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is done in here; if that fails, be lost, and raise StateLostError."""
        with self._lock:
            if self._database is None or self._is_another():
                self._lose(OSError(0, _GONE))
            assert self._database is not None  # noqa: S101 - else it is lost
            try:
                with _committed(self._database):
                    yield self._database
            except (sqlite3.Error, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> NoReturn:
        """Stay lost until all that is in memory was written."""
        self._problem = f"the state file {self._path} is lost: {_sentence(error)}"
        raise StateLostError(self._problem) from None


@contextmanager
def _committed(database: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in here; roll it back if that fails."""
    database.execute("begin immediate")
    try:
        yield
        database.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("rollback")
        raise


def connected(address: str, uri: bool = False) -> sqlite3.Connection:
    """Connect to a database; transactions are begun and ended by hand."""
    return sqlite3.connect(
        address, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def _lock_of(path: Path) -> Path:
    return Path(f"{path}.lock")


def _claim(path: Path) -> int:
    """Become the only writer: SQLite's own locks are held only while something is written."""
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise _InUseError("another exporter is using it") from None
    return lock


def _make_private(path: Path) -> None:
    """Create the file if it is not there; nobody else may read it: it has the key of sessions.

    It is closed before SQLite opens it: to close it later would take SQLite's locks away.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        if os.fstat(number).st_mode & 0o077:
            os.fchmod(number, 0o600)
    finally:
        os.close(number)


def _without(before: Mapping[_Key, _Value], gone: _Key) -> dict[_Key, _Value]:
    return {key: value for key, value in before.items() if key != gone}


def _identity(path: Path | None) -> _Identity | None:
    """Return which file is at a path; None if there is none, or it cannot be looked at."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else _identity_of(found)


def _identity_of(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _sentence(error: Exception) -> str:
    """Say what is wrong with the file."""
    if isinstance(error, OSError):
        return error.strerror or "it cannot be opened"
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return "it is not a state file of this exporter"
    return str(error)
