"""For how long servers had been idle when exporters stopped them. Pure.

A stop is judged at the moment when the Hub took it. Nobody can know of people who come back later,
nor of those who come back when their server has just been asked: an exporter may act on an answer
for as long as a stop token lives, no longer.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .counting import by_exporters
from .record import Event, Evidence, Stop, by_process

# The limit may be missed by so much, and what happened so short before a stop does not count.
TOLERANCE = 0.3
# How old an answer of a server may be when its stop is taken: the life of a stop token, in seconds.
STOP_TOKEN = 3.0
_USE = ("started", "active", "busy", "rest")


@dataclass(frozen=True)
class Margin:
    """How long past the limit a stopped server had been idle, in seconds; below 0: too early.

    `busy` says that a kernel was, `was_idle` that the server said so itself, asked a moment before.
    """

    seconds: float
    stop: Stop
    last_use: float
    busy: bool
    was_idle: bool

    @property
    def violates(self) -> bool:
        """Whether somebody at work was stopped, who could be known to be there."""
        return self.seconds < -TOLERANCE and not self.was_idle

    @property
    def too_late(self) -> bool:
        """Whether somebody came back too late for anybody to know."""
        return self.seconds < -TOLERANCE and self.was_idle


def margins(evidence: Evidence) -> list[Margin]:
    """Measure each stop by an exporter for which the idle limit is the reason."""
    processes = by_process(evidence.events)
    found = []
    for stop in by_exporters(evidence):
        events = processes[stop.key, stop.pid]
        if not _too_old(stop, events, evidence):
            found.append(_margin(stop, events, evidence.limit))
    return found


def _margin(stop: Stop, events: list[Event], limit: float) -> Margin:
    known = stop.taken - TOLERANCE
    last = last_use(events, known)
    was_idle = _was_idle_when_asked(stop, events, limit)
    return Margin(stop.taken - last - limit, stop, last, last == known, was_idle)


def _was_idle_when_asked(stop: Stop, events: list[Event], limit: float) -> bool:
    """Tell whether it was past the limit when it was asked a moment before, by whichever exporter.

    Real servers do not write down that they were asked.
    """
    return any(
        event.t - last_use(events, event.t) >= limit - TOLERANCE
        for event in events
        if event.what == "asked" and 0 <= stop.taken - event.t <= STOP_TOKEN + TOLERANCE
    )


def last_use(events: Iterable[Event], moment: float) -> float:
    """Return when a server was last in use up to a moment; the moment itself, if it is busy."""
    last, busy = 0.0, False
    for event in events:
        if event.what in _USE and event.t <= moment:
            last, busy = event.t, event.what == "busy" or (busy and event.what != "rest")
    return moment if busy else last


def _too_old(stop: Stop, events: Iterable[Event], evidence: Evidence) -> bool:
    """Tell whether max age is a reason to stop it at work."""
    most = evidence.max_age.get(stop.key[0])
    started = next((event.t for event in events if event.what == "started"), stop.taken)
    return most is not None and stop.taken - started >= most - TOLERANCE


def too_late(evidence: Evidence) -> list[float]:
    """Return how long before their stop people came back, where nobody could know it any more."""
    return [m.stop.taken - m.last_use for m in margins(evidence) if m.too_late]
