"""What a run says at its end."""

from collections import Counter
from collections.abc import Mapping

from . import counting
from .announced import notice_given
from .margins import Margin, margins, too_late
from .record import Evidence, Outcome, Stop, clock, stops_of
from .violations import Violation, name

ENOUGH_CULLS = 10


def account(evidence: Evidence, violations: list[Violation]) -> str:
    """Return the account of a run: what happened, what was counted, what must never happen."""
    lines = [*_happened(evidence), *_stops(evidence), *_counted(evidence), *_margins(evidence)]
    for number, violation in enumerate(violations, start=1):
        lines += ["", f"VIOLATION {number}: {violation.rule}: {violation.what}"]
        lines += [f"    {line}" for line in violation.story]
    rules = Counter(violation.rule for violation in violations)
    lines += ["", f"violations: {_list(rules) or 'none'}"]
    return "\n".join(lines)


def saw_enough(evidence: Evidence) -> bool:
    """Tell whether enough was stopped for the run to say anything."""
    return counting.culls(evidence) >= ENOUGH_CULLS


def _happened(evidence: Evidence) -> list[str]:
    troubles = Counter(_kind(event.told["trouble"]) for event in evidence.of("trouble_begins"))
    files = Counter(event.told["way"] for event in evidence.of("policy_file"))
    lives = Counter(life.ending or "running at the end" for life in evidence.lives)
    told = Counter(f"{event.told['about']} told" for event in evidence.of("told"))
    told += Counter(f"times the inbox was {event.told['way']}" for event in evidence.of("inbox"))
    used = Counter(event.what for event in evidence.of("started", "active", "busy", "asked"))
    return [
        f"people: {_list(used)}",
        f"trouble: {_list(troubles)}",
        f"policy file: {_list(files)}",
        f"notices: {_list(told)}",
        f"exporters: {_list(lives)}",
    ]


def _kind(trouble: str) -> str:
    """Leave out names and numbers."""
    if trouble.startswith("the "):
        return " ".join(trouble.split()[1:4])
    return "exporters paused" if " paused" in trouble else "exporter ends"


def _stops(evidence: Evidence) -> list[str]:
    every = stops_of(evidence.events)
    by_exporters = Counter(str(stop.outcome) for stop in every if stop.by_exporter)
    by_others = Counter(stop.by for stop in every if not stop.by_exporter)
    orphans = sum(stop.outcome is Outcome.FAILED for stop in every)
    return [
        f"stops by exporters, by the spawner's record: {_list(by_exporters)}",
        f"stops by others: {_list(by_others)}",
        f"orphans left: {orphans}",
    ]


def _counted(evidence: Evidence) -> list[str]:
    middle = counting.in_the_middle(evidence)
    return [
        f"culls counted: {counting.culls(evidence)}"
        f" ({len(counting.shared(evidence))} of them stopped by somebody else at the same moment)",
        f"failures counted: {_list(counting.causes(evidence, 'cull_failed'))}",
        f"withheld: {_list(counting.causes(evidence, 'cull_withheld'))}",
        f"stops that nobody counted, as the Hub or an exporter ended in the middle: {len(middle)}",
        *(f"    {_told(stop)}" for stop in middle),
    ]


def _told(stop: Stop) -> str:
    return f"{clock(stop.called)} {name(stop.key)}: {stop.outcome}"


def _margins(evidence: Evidence) -> list[str]:
    measured = [margin for margin in margins(evidence) if not margin.too_late]
    if not measured:
        return ["no stop for idleness was seen"]
    least = min(measured, key=lambda margin: margin.seconds)
    late = too_late(evidence)
    return [
        f"smallest margin: {least.seconds:+.3f} s past the limit of {evidence.limit:g} s"
        f" ({name(least.stop.key)} at {clock(least.stop.called)})",
        *_notices(measured, evidence),
        f"came back when their server had just been asked, too late to be known: {len(late)}"
        + (f" (at most {max(late):.2f} s before the stop was taken)" if late else ""),
    ]


def _notices(measured: list[Margin], evidence: Evidence) -> list[str]:
    given = [notice_given(margin, evidence) for margin in measured]
    told = [seconds for seconds in given if seconds is not None]
    if not told or not evidence.notice:
        return []
    return [f"shortest notice: {min(told):.3f} s of {evidence.notice:g} s"]


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
