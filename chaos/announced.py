"""Compare stops with what people were told before (V7), and what they keep (V8). Pure.

Somebody was told when their message arrived, and when an exporter took note of that: it may have
been paused in between, and may count from then. Whoever used their server since was told of
nothing that still holds, and has to be told again.
"""

from collections.abc import Iterator

from .margins import STOP_TOKEN, TOLERANCE, Margin, last_use, margins
from .record import Event, Evidence, Life, Line, clock
from .violations import Violation, name, said, story

# Exporters count by the Hub's clock, which they read from answers: these have whole seconds.
CLOCK = 1.0


def unannounced(evidence: Evidence) -> Iterator[Violation]:
    """Find stops for idleness of which people were not told, too late, or of another deadline."""
    for margin in margins(evidence) if evidence.notice else ():
        wrong = _wrong_notice(margin, evidence)
        if wrong is not None:
            what = f"{name(margin.stop.key)} was stopped {wrong}"
            yield Violation("V7 notice", what, story(evidence, margin.stop))


def _wrong_notice(margin: Margin, evidence: Evidence) -> str | None:
    """Say what is wrong with the notice before a stop, None if nothing is."""
    told, used = told_at(margin, evidence), last_use_known(margin, evidence)
    if not told:
        return "and its person was not told before"
    if used > told[-1] + CLOCK:
        return f"though it was used {used - told[-1]:.2f} s after it was announced"
    given = notice_given(margin, evidence)
    if given is not None and given < evidence.notice - CLOCK:
        return f"{given:.2f} s after it was announced (notice {evidence.notice:g} s)"
    return None


def notice_given(margin: Margin, evidence: Evidence) -> float | None:
    """Return how long before a stop people were told of it, not having used the server since."""
    used = last_use_known(margin, evidence)
    told = [t for t in told_at(margin, evidence) if used <= t + CLOCK]
    return margin.stop.taken - told[0] if told else None


def told_at(margin: Margin, evidence: Evidence) -> list[float]:
    """Return when people were told of the stop of this start of a server, for being idle."""
    stop, events = margin.stop, _of_process(margin, evidence)
    started = next((event.t for event in events if event.what == "started"), 0.0)
    arrived = [e.t for e in evidence.of("told") if e.key == stop.key and e.told["about"] == "idle"]
    lines = [x for life in evidence.lives for x in announcements(life) if x.key == stop.key]
    every = [*arrived, *(line.t for line in lines if line.cause == "idle")]
    return sorted(t for t in every if started <= t <= stop.taken)


def last_use_known(margin: Margin, evidence: Evidence) -> float:
    """Return the last use that could be known: by the last question, if there was one."""
    taken, events = margin.stop.taken, _of_process(margin, evidence)
    asked = [
        e.t for e in events if e.what == "asked" and 0 <= taken - e.t <= STOP_TOKEN + TOLERANCE
    ]
    return min(last_use(events, moment) for moment in (taken - TOLERANCE, *asked))


def _of_process(margin: Margin, evidence: Evidence) -> list[Event]:
    stop = margin.stop
    return [event for event in evidence.events if (event.key, event.pid) == (stop.key, stop.pid)]


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


def kept_stopped(evidence: Evidence) -> Iterator[Violation]:
    """Find stops for idleness of a start of a server that its person keeps."""
    since = {event.key: event.t for event in evidence.of("kept")}
    for margin in margins(evidence):
        key, events = margin.stop.key, _of_process(margin, evidence)
        if key in since and events[0].t <= since[key] <= margin.stop.taken:
            what = f"{name(key)} was stopped, kept since {clock(since[key])}"
            yield Violation("V8 kept", what, story(evidence, margin.stop))
