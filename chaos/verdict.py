"""Compare what exporters did with what really happened. Pure.

at_work         V1: somebody at work was stopped: active, or a kernel busy, within the idle limit
exempt_stopped  V2: an exempt server was stopped
stopped_twice   V3: one start was stopped, or its stop was counted, more than once
miscounted      V4: the counters are not the spawner's own record
left_over       V5: a forgotten server still ran at the end
misconduct      V6: an exporter crashed, ended by itself, counted backwards or could not be read
unannounced     V7: a server was stopped for being idle, and its person was not told in time
not_told        V7: an exporter took somebody for told who was not
kept_stopped    V8: a server that its person keeps was stopped for being idle

`margins.py` says how a stop is judged. V3 and V4 are in `counting.py`, V7 and V8 in `announced.py`.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from .announced import kept_stopped, not_told, unannounced
from .counting import by_exporters, miscounted, stopped_twice
from .margins import Margin, last_use, margins
from .record import Evidence, Key, Life, by_process, clock, spans_of, starts_of
from .violations import Violation, name, story

# A version of the policy file counts once it has stood for so long: what is written in two pieces
# must not be read in between.
VERSION_STOOD = 0.5
# An exemption must protect once it was in the file for so long, pauses and outages not counted.
EXEMPT_AFTER = 10.0
# A forgotten server must be gone when it was idle for so long past its limit at the end.
SETTLED = 30.0
_TRACEBACK = "Traceback (most recent call last)"


def verdict(evidence: Evidence) -> list[Violation]:
    """Return all violations, in the order of the rules."""
    rules = (
        *(at_work, exempt_stopped, stopped_twice, miscounted, left_over, misconduct),
        *(unannounced, not_told, kept_stopped),
    )
    return [violation for rule in rules for violation in rule(evidence)]


# -- V1


def at_work(evidence: Evidence) -> Iterator[Violation]:
    """Find stops by exporters of servers that were in use within the limit."""
    for margin in margins(evidence):
        if margin.violates:
            how = "while a kernel was busy" if margin.busy else _how_long(margin)
            what = f"{name(margin.stop.key)} was stopped {how} (limit {evidence.limit:g} s)"
            yield Violation("V1 at work", what, story(evidence, margin.stop))


def _how_long(margin: Margin) -> str:
    return f"{margin.stop.taken - margin.last_use:.2f} s after it was last used"


# -- V2


def exempt_stopped(evidence: Evidence) -> Iterator[Violation]:
    """Find stops by exporters of servers whose exemption was in force."""
    versions = policy_versions(evidence)
    spans = spans_of(evidence.events, evidence.ended)
    for stop in by_exporters(evidence):
        since = exempt_since(stop.key[0], stop.taken, versions)
        if since is not None and undisturbed(since, stop.taken, spans) >= EXEMPT_AFTER:
            what = f"{name(stop.key)} was stopped, exempt since {clock(since)}"
            yield Violation("V2 exempt", what, story(evidence, stop))


def policy_versions(evidence: Evidence) -> list[tuple[float, frozenset[str]]]:
    """Return since when which users were exempt by the file.

    Versions that are invalid change nothing, nor do those that did not stand long enough.
    """
    written = evidence.of("policy_file")
    ends = [event.t for event in written[1:]] + [evidence.ended]
    return [
        (event.t, frozenset(event.told["exempt"]))
        for event, end in zip(written, ends, strict=False)
        if event.told["valid"] and end - event.t >= VERSION_STOOD
    ]


def exempt_since(
    user: str, moment: float, versions: Iterable[tuple[float, frozenset[str]]]
) -> float | None:
    """Return since when a user has been exempt without a break at that moment, None if not."""
    since = None
    for t, exempt in versions:
        if t <= moment and user not in exempt:
            since = None
        elif t <= moment and since is None:
            since = t
    return since


def undisturbed(begin: float, end: float, spans: Iterable[tuple[float, float]]) -> float:
    """Return the seconds between two moments in which nothing was paused or down."""
    left, reached = end - begin, begin
    for since, until in sorted(spans):
        overlap = min(until, end) - max(since, reached)
        if overlap > 0:
            left, reached = left - overlap, min(until, end)
    return left


# -- V5


def left_over(evidence: Evidence) -> Iterator[Violation]:
    """Find forgotten servers that the Hub still ran at the end."""
    for key in sorted(overdue(evidence)):
        told = [str(event) for event in evidence.events if event.key == key]
        what = f"{name(key)} was forgotten, and still runs at the end"
        yield Violation("V5 left", what, tuple(told[-10:]))


def overdue(evidence: Evidence) -> set[Key]:
    """Return the servers that should be gone at the end.

    Not one that says itself that a kernel is busy: a real kernel whose client was cut off may stay
    so for ever.
    """
    versions = policy_versions(evidence)
    newest = {start.key: start.pid for start in starts_of(evidence.events)}
    kept = {event.key for event in evidence.of("kept")}
    processes = by_process(evidence.events)
    return {
        key
        for key in (evidence.left & newest.keys()) - kept
        if not _says_it_is_busy(key, evidence)
        and exempt_since(key[0], evidence.ended, versions) is None
        and evidence.ended - last_use(processes[key, newest[key]], evidence.ended)
        > evidence.limit + SETTLED
    }


def _says_it_is_busy(key: Key, evidence: Evidence) -> bool:
    """Tell whether a server was busy by its own word when it was last asked."""
    asked = [
        line
        for life in evidence.lives
        for line in life.outcomes("cull_withheld")
        if line.key == key
    ]
    return bool(asked) and max(asked, key=lambda line: line.t).cause == "busy"


# -- V6


def misconduct(evidence: Evidence) -> Iterator[Violation]:
    """Find exporters that crashed, ended by themselves, counted backwards or were unreadable."""
    for life in evidence.lives:
        for what, told in (*_ended_badly(life), *_counted_backwards(life)):
            yield Violation("V6 conduct", f"{life.name} {what}", told)
        for why in life.unreadable:
            yield Violation("V6 conduct", f"{life.name}: /metrics could not be read", (why,))


def _ended_badly(life: Life) -> Iterator[tuple[str, tuple[str, ...]]]:
    if _TRACEBACK in life.log:
        told = life.log[life.log.index(_TRACEBACK) :].splitlines()
        yield "wrote a traceback", tuple(told[:40])
    if life.ending is not None and life.ending.startswith("by itself"):
        yield f"ended {life.ending}", tuple(life.log.splitlines()[-5:])


def _counted_backwards(life: Life) -> Iterator[tuple[str, tuple[str, ...]]]:
    for before, after in pairwise(life.scrapes):
        fell = [n for n, v in before.counters.items() if after.counters.get(n, 0.0) < v]
        if fell:
            yield f"counted backwards at {clock(after.t)}: {', '.join(fell)}", ()
