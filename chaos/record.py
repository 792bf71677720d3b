"""What really happened, as everybody wrote it down themselves, and what the exporters say of it.

    record = Record(directory / "record.jsonl")
    record.note("trouble_begins", trouble="hub paused")
    events = record.read()

Times are seconds since 1970 by the one clock of the machine. Everything else here is frozen data,
which `verdict.py` compares.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from hub_idle_exporter.domain.str_enum import StrEnum

from .hubside.noting import note

Key = tuple[str, str]  # user and server


@dataclass(frozen=True)
class Event:
    """One line of the record."""

    t: float
    what: str
    user: str = ""
    server: str = ""
    pid: int = 0
    by: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Whose server it is about."""
        return self.user, self.server

    def __str__(self) -> str:
        about = f" {self.user}/{self.server}" if self.user else ""
        taken = self.told.get("taken")
        more = {"pid": self.pid, "by": self.by, **self.told}
        more |= {"taken": clock(taken)} if taken else {}
        return f"{clock(self.t)} {self.what}{about} " + " ".join(
            f"{name}={value}" for name, value in more.items() if value not in (0, "")
        )


class Outcome(StrEnum):
    """What became of a stop() of the spawner."""

    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"  # the Hub was killed in the middle


@dataclass(frozen=True)
class Stop:
    """One call of the spawner's stop().

    `taken` is when the Hub took the request for it, `died` says that the process was told to end.
    """

    key: Key
    pid: int
    by: str
    taken: float
    called: float
    ended: float | None
    outcome: Outcome
    died: bool = False

    @property
    def by_exporter(self) -> bool:
        """Whether an exporter asked for it: with its own token, or with one of the prober's."""
        return self.by in EXPORTERS


EXPORTERS = ("service hub-idle-exporter", "user idle-prober")


@dataclass(frozen=True)
class Start:
    """One start of a server: its process, and when it was asked for at the earliest.

    That is when the one before had been stopped: a paused Hub may take long over the rest.
    """

    key: Key
    pid: int
    since: float


@dataclass(frozen=True)
class Line:
    """One line of an exporter's log; `cause` is why, for some the limit that is the reason."""

    t: float
    event: str
    key: Key = ("", "")
    cause: str = ""
    age: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class Scrape:
    """What /metrics counted, by series; asked at `asked`, answered at `t`."""

    asked: float
    t: float
    counters: Mapping[str, float]
    enforces: bool = False

    def total(self, name: str) -> int:
        """Sum a counter over its labels."""
        full = f"hub_idle_exporter_{name}_total"
        return int(sum(v for n, v in self.counters.items() if n.partition("{")[0] == full))


@dataclass(frozen=True)
class Life:
    """One process of an exporter; `ending` is None while it runs, else how it ended."""

    name: str
    begun: float
    ended: float | None
    ending: str | None
    lines: tuple[Line, ...] = ()
    scrapes: tuple[Scrape, ...] = ()
    unreadable: tuple[str, ...] = ()  # scrapes that failed though nothing was in their way
    log: str = ""

    def outcomes(self, event: str) -> list[Line]:
        """Return its lines of one event."""
        return [line for line in self.lines if line.event == event]


@dataclass(frozen=True)
class Evidence:
    """All that a run leaves.

    `limit` is the idle limit, `notice` how long before a stop for idleness people are to be told,
    in seconds; `max_age` gives users the age past which they may be stopped at work; `left` is what
    the Hub still ran at the end, `ended`.
    """

    limit: float
    events: tuple[Event, ...]
    lives: tuple[Life, ...]
    max_age: Mapping[str, float] = field(default_factory=dict)
    left: frozenset[Key] = frozenset()
    ended: float = 0.0
    notice: float = 0.0

    def of(self, *what: str) -> list[Event]:
        """Return the events of these kinds."""
        return [event for event in self.events if event.what in what]


class Record:
    """The file that everybody appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def note(self, what: str, **told: Any) -> None:
        """Append an event of the harness."""
        note(self.path, what, **told)

    def read(self) -> tuple[Event, ...]:
        """Return all events in the order of time."""
        lines = self.path.read_text().splitlines()
        return tuple(sorted(map(event_of, lines), key=lambda event: event.t))


def event_of(line: str) -> Event:
    """Decode one line of the record."""
    told = json.loads(line)
    known = {
        name: told.pop(name) for name in ("what", "user", "server", "pid", "by") if name in told
    }
    return Event(t=told.pop("t") / 1e6, told=told, **known)


def line_of(text: str) -> Line | None:
    """Decode one line of an exporter's log; None for what is no event, as in a traceback."""
    try:
        told = json.loads(text)
        moment = datetime.fromisoformat(told["ts"].replace("Z", "+00:00")).timestamp()
    except (ValueError, KeyError, TypeError):
        return None
    key = (told.get("user", ""), told.get("server", ""))
    age = float(told.get("age") or 0)
    cause = told.get("cause") or told.get("reason", "")
    return Line(moment, told["event"], key, cause, age, text)


def clock(t: float) -> str:
    """Write a time of day (UTC, as the logs) with milliseconds."""
    return datetime.fromtimestamp(t, timezone.utc).strftime("%H:%M:%S.%f")[:-3]


# -- what follows from the record


def starts_of(events: Iterable[Event]) -> list[Start]:
    """Return all starts, oldest first."""
    stopped: dict[Key, float] = {}
    starts = []
    for event in events:
        if event.what in ("stop_ended", "stop_failed", "dead"):
            stopped[event.key] = event.t
        elif event.what == "started":
            starts.append(Start(event.key, event.pid, stopped.get(event.key, 0.0)))
    return starts


def stops_of(events: Iterable[Event]) -> list[Stop]:
    """Return all stops, oldest first; one without an end was lost when the Hub was killed."""
    stops = []
    for process in by_process(events).values():
        calls = [number for number, event in enumerate(process) if event.what == "stop_called"]
        for number, following in pairwise([*calls, len(process)]):
            stops.append(_stop(process[number], process[number + 1 : following]))
    return sorted(stops, key=lambda stop: stop.called)


def by_process(events: Iterable[Event]) -> dict[tuple[Key, int], list[Event]]:
    """Return the events about each process of each server, oldest first."""
    found: dict[tuple[Key, int], list[Event]] = {}
    for event in events:
        if event.pid:
            found.setdefault((event.key, event.pid), []).append(event)
    return found


def _stop(call: Event, following: list[Event]) -> Stop:
    end = next((e for e in following if e.what in ("stop_ended", "stop_failed")), None)
    died = any(event.what in ("exit", "dead") for event in following)
    outcome = Outcome.LOST
    if end is not None:
        lives_on = end.what == "stop_failed" or end.told["alive"]
        outcome = Outcome.FAILED if lives_on else Outcome.STOPPED
    ended = None if end is None else end.t
    taken = call.told.get("taken") or call.t
    return Stop(call.key, call.pid, call.by, taken, call.t, ended, outcome, died)


def spans_of(events: Iterable[Event], end: float) -> list[tuple[float, float]]:
    """Return the spans of time in which something was paused, killed or not yet back."""
    open_since: dict[int, float] = {}
    spans = []
    for event in events:
        if event.what == "trouble_begins":
            open_since[event.told["number"]] = event.t
        elif event.what == "trouble_ends" and event.told["number"] in open_since:
            spans.append((open_since.pop(event.told["number"]), event.t))
    return spans + [(since, end) for since in open_since.values()]
