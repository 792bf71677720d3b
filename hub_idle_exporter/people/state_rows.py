"""What is in the state file: its tables, and how they are read and written."""

import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..domain.keeping import Keep, Keeps, Start
from ..domain.notices import Announcement, Announcements, NoticeKey
from ..domain.policy import Reason, ServerKey

_APPLICATION = 0x48494531  # PRAGMA application_id: "HIE1"
_VERSION = 1
_SCHEMA = f"""
begin immediate;
create table keeps (user text, server text, started text, until real, by text,
    primary key (user, server, started)) without rowid;
create table announcements (user text, server text, started text, reason text, deadline real,
    due real, announced real, primary key (user, server, started, reason)) without rowid;
create table stops (user text, server text, at real, reason text, idle real,
    primary key (user, server)) without rowid;
create table secrets (name text primary key, value blob) without rowid;
pragma application_id = {_APPLICATION};
pragma user_version = {_VERSION};
commit;
"""
_COOKIE_KEY = "cookie"

PUT_KEEP = "insert or replace into keeps values (?, ?, ?, ?, ?)"
DROP_KEEP = "delete from keeps where (user, server, started) = (?, ?, ?)"
PUT_ANNOUNCEMENT = "insert or replace into announcements values (?, ?, ?, ?, ?, ?, ?)"
DROP_ANNOUNCEMENT = "delete from announcements where (user, server, started, reason) = (?, ?, ?, ?)"
PUT_STOP = "insert or replace into stops values (?, ?, ?, ?, ?)"
FORGET_KEEPS = "delete from keeps where until <= ?"
FORGET_STOPS = "delete from stops where at <= ?"
_PUT_SECRET = "insert or replace into secrets values (?, ?)"  # noqa: S105 - it is SQL

Row = tuple[object, ...]


@dataclass(frozen=True)
class Stop:
    """The last stop of a server, at `at` by the Hub's clock, after `idle` seconds."""

    at: float
    reason: Reason
    idle: float | None


@dataclass
class Contents:
    """What is in the file; each mapping is replaced as a whole, so that readers need no lock."""

    keeps: Keeps
    announcements: Announcements
    stops: Mapping[ServerKey, Stop]
    cookie_key: bytes

    @classmethod
    def empty(cls) -> "Contents":
        """Return nothing, with a new key."""
        return cls({}, {}, {}, secrets.token_bytes(32))


def prepare(database: sqlite3.Connection) -> None:
    """Create the tables in an empty file; raise ValueError if the file cannot be used."""
    if not database.execute("select count(*) from sqlite_master").fetchone()[0]:
        database.executescript(_SCHEMA)
    check_ours(database)
    if database.execute("pragma quick_check(1)").fetchone()[0] != "ok":
        raise ValueError("it is damaged: move it away, and a new one is created")


def check_ours(database: sqlite3.Connection) -> None:
    """Raise ValueError unless this version of the exporter has written the file."""
    if database.execute("pragma application_id").fetchone()[0] != _APPLICATION:
        raise ValueError("it is not a state file of this exporter")
    if database.execute("pragma user_version").fetchone()[0] != _VERSION:
        raise ValueError("another version of this exporter has written it")


def read(database: sqlite3.Connection) -> Contents:
    """Read everything."""
    keeps = {
        _start(user, server, started): Keep(until, by)
        for user, server, started, until, by in database.execute("select * from keeps")
    }
    announcements = {
        (_start(user, server, started), Reason(reason)): Announcement(*times)
        for user, server, started, reason, *times in database.execute("select * from announcements")
    }
    stops = {
        (user, server): Stop(at, Reason(reason), idle)
        for user, server, at, reason, idle in database.execute("select * from stops")
    }
    key = database.execute("select value from secrets where name = ?", [_COOKIE_KEY]).fetchone()
    return Contents(keeps, announcements, stops, key[0] if key else secrets.token_bytes(32))


def write(database: sqlite3.Connection, known: Contents) -> None:
    """Write everything, in place of what is there."""
    for table in ("keeps", "announcements", "stops"):
        database.execute(f"delete from {table}")  # noqa: S608 - one of the names above
    database.executemany(PUT_KEEP, (keep_row(*item) for item in known.keeps.items()))
    made = (announcement_row(*item) for item in known.announcements.items())
    database.executemany(PUT_ANNOUNCEMENT, made)
    database.executemany(PUT_STOP, (stop_row(*item) for item in known.stops.items()))
    database.execute(_PUT_SECRET, (_COOKIE_KEY, known.cookie_key))


def start_row(start: Start) -> Row:
    """Return the key of a start of a server."""
    user, server, started = start
    return user, server, "" if started is None else started.isoformat()


def keep_row(start: Start, keep: Keep) -> Row:
    """Return the row of a keep."""
    return *start_row(start), keep.until, keep.by


def announcement_row(key: NoticeKey, made: Announcement) -> Row:
    """Return the row of an announcement."""
    return *announcement_key(key), made.deadline, made.due, made.announced


def announcement_key(key: NoticeKey) -> Row:
    """Return the key of an announcement."""
    start, reason = key
    return *start_row(start), str(reason)


def stop_row(key: ServerKey, stop: Stop) -> Row:
    """Return the row of a stop."""
    return *key, stop.at, str(stop.reason), stop.idle


def _start(user: str, server: str, started: str) -> Start:
    return user, server, datetime.fromisoformat(started) if started else None
