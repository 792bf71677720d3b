"""Compare what exporters counted with the spawner's own record (V3 and V4). Pure.

Each outcome in a log is about one stop; which one follows from whose server it was and how old the
exporter took it to be.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .record import Evidence, Life, Line, Outcome, Scrape, Start, Stop, clock, starts_of, stops_of
from .violations import Violation, name, said, story

# The end of an exporter so long after a stop may be why that stop was not counted.
AFTERMATH = 45.0
TOKEN_LIFE = 10.0  # at most
_OUTCOMES = ("culled", "cull_failed")
Said = tuple[Life, Line]


@dataclass
class Matching:
    """Which outcome in which log is about which stop by an exporter."""

    of: dict[Stop, list[Said]] = field(default_factory=dict)
    without: list[Said] = field(default_factory=list)  # no stop by an exporter fits


def stopped_twice(evidence: Evidence) -> Iterator[Violation]:
    """Find stops that were counted more than once."""
    for stop, lines in match(evidence).of.items():
        if _says_it_twice(lines):
            who = " and ".join(f"{life.name} ({line.event})" for life, line in lines)
            what = f"one stop of {name(stop.key)} was counted by {who}"
            yield Violation("V3 twice", what, story(evidence, stop))


def _says_it_twice(lines: list[Said]) -> bool:
    """Tell whether one stop was counted more than once.

    One exporter may have tried again where its first stop, and the second, never came to an end
    (the Hub was killed): the spawner may know of one of them only.
    """
    exporters = {life.name for life, _ in lines}
    return len(lines) > 1 and (len(exporters) > 1 or any(x.event == "culled" for _, x in lines))


def miscounted(evidence: Evidence) -> Iterator[Violation]:
    """Find outcomes that were counted as what they were not, or not at all."""
    matching = match(evidence)
    for stop in by_exporters(evidence):
        wrong = _wrong_count(stop, matching.of.get(stop, []), evidence)
        if wrong is not None:
            yield Violation("V4 counts", f"{name(stop.key)}: {wrong}", story(evidence, stop))
    for life, line in unfounded(evidence):
        what = f"{life.name} counted a cull of {name(line.key)}, which nobody stopped"
        yield Violation("V4 counts", what, (f"{clock(line.t)} {said(line)}",))
    for life in evidence.lives:
        yield from _wrong_counters(life)


def _wrong_count(stop: Stop, lines: list[Said], evidence: Evidence) -> str | None:
    """Say what is wrong with the count of one stop, None if nothing is."""
    counted = {line.event for _, line in lines}
    if "culled" in counted:
        return _wrongly_culled(stop)
    if stop.outcome is Outcome.LOST or _exporter_ended(stop, evidence):
        return None
    if stop.outcome is Outcome.STOPPED:
        return f"a stop that worked was {'counted as failed' if counted else 'not counted'}"
    return None if counted else "a stop that failed was not counted"


def _wrongly_culled(stop: Stop) -> str | None:
    if stop.outcome is Outcome.FAILED:
        return "a stop that failed was counted as a cull"
    if stop.outcome is Outcome.LOST and not stop.died:
        return "a stop that was lost with the Hub was counted as a cull"
    return None


def _exporter_ended(stop: Stop, evidence: Evidence) -> bool:
    """Tell whether an exporter ended after it sent a stop, before the time by which it counts it.

    The stop may have waited in the hands of the Hub, for as long as its token lived.
    """
    sent, until = stop.taken - TOKEN_LIFE, (stop.ended or stop.called) + AFTERMATH
    return any(
        life.ended is not None and life.begun < stop.called and sent < life.ended < until
        for life in evidence.lives
        if life.ending != "once"
    )


# -- the counters of one process


def _wrong_counters(life: Life) -> Iterator[Violation]:
    """Compare the counters of one exporter with each other, and with its own log."""
    wrong = [said for scrape in life.scrapes for said in _wrong_scrape(scrape, life)]
    if life.scrapes and life.ending != "SIGKILL":
        wrong += _wrong_end(life.scrapes[-1], life)
    for what in wrong[:1]:  # the following ones follow from it
        yield Violation("V4 counts", f"{life.name}: {what}")


def _wrong_scrape(scrape: Scrape, life: Life) -> Iterator[str]:
    if _open(scrape) < 0:
        yield f"{-_open(scrape)} more outcomes than attempts at {clock(scrape.t)}"
    logged = sum(line.t <= scrape.asked for line in life.outcomes("culled"))
    if scrape.total("culls") < logged:
        yield f"{logged} culls in the log, {scrape.total('culls')} on /metrics at {clock(scrape.t)}"


def _wrong_end(last: Scrape, life: Life) -> Iterator[str]:
    culls, lines = last.total("culls"), len(life.outcomes("culled"))
    if culls > lines:
        yield f"{culls} culls on /metrics, {lines} in the log, at its end"
    if life.ended is None and _open(last):
        yield f"{_open(last)} attempts have no outcome at the end"


def _open(scrape: Scrape) -> int:
    """Return how many attempts have no outcome yet."""
    outcomes = scrape.total("culls") + scrape.total("cull_failures")
    return scrape.total("cull_attempts") - outcomes


# -- which line is about which stop


def match(evidence: Evidence) -> Matching:
    """Find the stop that each outcome in a log is about.

    An outcome is about the newest start that is as old as the line says. Where that was not
    stopped, the line came late, and is about the start before, if no other line is.
    """
    found = Matching()
    starts, stops = starts_of(evidence.events), by_exporters(evidence)
    lines = [
        (life, line) for life in evidence.lives for line in life.lines if line.event in _OUTCOMES
    ]
    for life, line in sorted(lines, key=lambda one: one[1].t):
        stop = _stop_of(line, starts, stops, found)
        if stop is None:
            found.without.append((life, line))
        else:
            found.of.setdefault(stop, []).append((life, line))
    return found


def _stop_of(line: Line, starts: list[Start], stops: list[Stop], found: Matching) -> Stop | None:
    old_enough = [s for s in starts if s.key == line.key and s.since <= line.t - line.age + 1.0]
    for start in old_enough[:-3:-1]:  # the newest, and the one before
        own = [s for s in stops if (s.key, s.pid) == (start.key, start.pid) and s.called <= line.t]
        free = [stop for stop in own if stop not in found.of]
        if free:
            return free[-1]
        if own and start is old_enough[-1]:
            return own[-1]
    return None


def by_exporters(evidence: Evidence) -> list[Stop]:
    """Return the stops that exporters asked for."""
    return [stop for stop in stops_of(evidence.events) if stop.by_exporter]


# -- for the account


def in_the_middle(evidence: Evidence) -> list[Stop]:
    """Return the stops that nobody counted because the Hub or an exporter ended in them."""
    matching = match(evidence)
    return [stop for stop in by_exporters(evidence) if stop not in matching.of]


def shared(evidence: Evidence) -> list[Said]:
    """Return the culls counted of servers that somebody else stopped at the same moment."""
    return [one for one in _culls_without(evidence) if _others_stop(one[1], evidence)]


def unfounded(evidence: Evidence) -> list[Said]:
    """Return the culls counted of servers that nobody stopped."""
    return [one for one in _culls_without(evidence) if not _others_stop(one[1], evidence)]


def _culls_without(evidence: Evidence) -> list[Said]:
    return [one for one in match(evidence).without if one[1].event == "culled"]


def _others_stop(line: Line, evidence: Evidence) -> bool:
    return any(
        stop.key == line.key and stop.called <= line.t < (stop.ended or line.t) + AFTERMATH
        for stop in stops_of(evidence.events)
        if not stop.by_exporter
    )


def culls(evidence: Evidence) -> int:
    """Count the stops that were counted as culls, by the logs of all lives."""
    return sum(len(life.outcomes("culled")) for life in evidence.lives)


def causes(evidence: Evidence, event: str) -> Counter[str]:
    """Count the lines of one event by cause."""
    return Counter(line.cause for life in evidence.lives for line in life.outcomes(event))
