"""Compare stops with what people were told before (V7). Pure.

Somebody was told when their message arrived, and when an exporter took note of that: it may have
been paused in between, and may count from then. Whoever used their server since was told of
nothing that still holds, and has to be told again.
"""

from collections.abc import Iterator

from .margins import STOP_TOKEN, TOLERANCE, Margin, last_use, margins
from .record import Event, Evidence, Life, Line, by_process, clock
from .violations import Violation, name, said, story

# Exporters count by the Hub's clock, which they read from answers: these have whole seconds.
CLOCK = 1.0


def unannounced(evidence: Evidence) -> Iterator[Violation]:
    """Find stops for idleness of which people were not told, too late, or of another deadline."""
    if not evidence.notice:
        return
    processes = by_process(evidence.events)
    for margin in margins(evidence):
        wrong = _wrong_notice(margin, processes[margin.stop.key, margin.stop.pid], evidence)
        if wrong is not None:
            what = f"{name(margin.stop.key)} was stopped {wrong}"
            yield Violation("V7 notice", what, story(evidence, margin.stop))


def _wrong_notice(margin: Margin, events: list[Event], evidence: Evidence) -> str | None:
    """Say what is wrong with the notice before a stop, None if nothing is."""
    stop = margin.stop
    started = next((event.t for event in events if event.what == "started"), 0.0)
    told = [t for t in told_at(margin, evidence) if started <= t <= stop.taken]
    if not told:
        return "and its person was not told before"
    in_time = [t for t in told if stop.taken - t >= evidence.notice - CLOCK]
    if not in_time:
        return f"{stop.taken - told[0]:.2f} s after it was announced (notice {evidence.notice:g} s)"
    known = _last_use_known(margin, events)
    if known > in_time[-1] + CLOCK:
        return f"though it was used {known - in_time[-1]:.2f} s after it was announced"
    return None


def told_at(margin: Margin, evidence: Evidence) -> list[float]:
    """Return when the person was told that a server will be stopped for being idle."""
    key = margin.stop.key
    arrived = [e.t for e in evidence.of("told") if e.key == key and e.told["about"] == "idle"]
    lines = [line for life in evidence.lives for line in announcements(life) if line.key == key]
    return sorted([*arrived, *(line.t for line in lines if line.cause == "idle")])


def _last_use_known(margin: Margin, events: list[Event]) -> float:
    """Return the last use that could be known: by the last question, if there was one."""
    taken = margin.stop.taken
    asked = [
        e.t for e in events if e.what == "asked" and 0 <= taken - e.t <= STOP_TOKEN + TOLERANCE
    ]
    return min(last_use(events, moment) for moment in (taken - TOLERANCE, *asked))


def announcements(life: Life) -> list[Line]:
    """Return its announcements by its log."""
    return life.outcomes("stop_announced")


def not_told(evidence: Evidence) -> Iterator[Violation]:
    """Find announcements in a log that nobody had received by then."""
    if not evidence.notice:
        return
    for life in evidence.lives:
        arrived = [event for event in evidence.of("told") if event.by == life.name]
        for line in announcements(life):
            before = [e for e in arrived if (e.key, e.told["about"]) == (line.key, line.cause)]
            taken = next((event for event in before if event.t <= line.t), None)
            if taken is None:
                what = f"{life.name} announced the stop of {name(line.key)} to nobody"
                yield Violation("V7 notice", what, (f"{clock(line.t)} {said(line)}",))
            else:
                arrived.remove(taken)
