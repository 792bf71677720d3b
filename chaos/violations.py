"""A violation, and the story of one: what record and logs have about a stop."""

import json
from dataclasses import dataclass

from .record import Event, Evidence, Key, Line, Stop, clock

_BEFORE, _AFTER = 40.0, 10.0
# What exporters said earlier than this is said at each poll.
_SAID_BEFORE = 4.0
_SHOWN = ("reason", "idle", "age", "seconds", "cause", "why")
_UNTOLD = ("dead",)


@dataclass(frozen=True)
class Violation:
    """Something that must never happen; `story` has its lines."""

    rule: str
    what: str
    story: tuple[str, ...] = ()


def name(key: Key) -> str:
    """Write whose server it is."""
    return f"{key[0]}/{key[1]}"


def story(evidence: Evidence, stop: Stop) -> tuple[str, ...]:
    """Tell what happened before a stop, and until it was counted."""
    begin, end = stop.called - _BEFORE, (stop.ended or stop.called) + _AFTER
    told = [
        (event.t, str(event))
        for event in evidence.events
        if begin <= event.t <= end and _belongs(event, stop)
    ]
    for life in evidence.lives:
        for line in life.lines:
            if line.key == stop.key and stop.called - _SAID_BEFORE <= line.t <= end:
                told.append((line.t, f"{clock(line.t)} {life.name} says {said(line)}"))  # noqa: PERF401
    return tuple(text for _, text in sorted(told))


def _belongs(event: Event, stop: Stop) -> bool:
    return event.key in (stop.key, ("", "")) and event.what not in _UNTOLD


def said(line: Line) -> str:
    """Write a line of a log with what matters here."""
    told = json.loads(line.text) if line.text else {}
    shown = [f"{field}={told[field]!r}" for field in _SHOWN if field in told]
    return " ".join([line.event, *shown])
