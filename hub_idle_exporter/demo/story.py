"""What happened to whom: the audit trail compared with the expected outcomes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .account import Mark
from .audit import Audited, Verdict
from .people import PEOPLE, Outcome, Person

MARKS = {"stopped": Mark.STOPPED, "withheld": Mark.WITHHELD, "failed": Mark.FAILED}


@dataclass
class PersonOutcome:
    """One person's server: when they began, and what the sidecar did about it."""

    person: Person
    began: float | None = None  # by our monotonic clock
    trail: list[Audited] = field(default_factory=list)
    verdict: Verdict | None = None  # asked for at the end

    def is_news(self, audited: Audited) -> bool:
        """Tell whether this is new: a busy server is withheld again at every poll."""
        return not self._found(audited.kind, audited.cause)

    def is_due(self) -> bool:
        """Tell whether the trail has the expected outcome, if it should have one."""
        return not self.person.ends.audited or bool(self._found(*self.person.ends.value))

    def is_well(self) -> bool:
        """Tell whether the outcome is as expected."""
        stopped = bool(self._found("stopped"))
        if self.person.ends.audited:
            return self.is_due() and stopped == (self.person.ends.kind == "stopped")
        return not stopped and self.verdict is not None

    def told(self, limit: float) -> tuple[Mark, str]:
        """Return the outcome, and why, as a sentence."""
        found = self._found("stopped") or self._found(*self.person.ends.value)
        if found:
            return MARKS[found[-1].kind], sentence(found[-1], limit)
        if self.verdict is None:
            return Mark.FAILED, "the sidecar does not see it"
        idle, policy = self.verdict.idle, self.verdict.policy
        return Mark.KEPT, f"{self.verdict.why}: idle for {idle:.0f} s, policy {policy}"

    def _found(self, kind: str, cause: str | None = None) -> list[Audited]:
        return [one for one in self.trail if one.kind == kind and cause in (None, one.cause)]


class Story:
    """The outcomes of all.

    Args:
        limit: the idle limit, in seconds.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.outcomes = {(person.name, person.server): PersonOutcome(person) for person in PEOPLE}

    def begin(self, person: Person) -> None:
        """Record that a person has begun; only the first time counts."""
        outcome = self.outcomes[person.name, person.server]
        outcome.began = outcome.began or time.monotonic()

    def hear(self, audited: Audited) -> bool:
        """Take a line of the audit trail; tell whether it is new."""
        outcome = self.outcomes.get((audited.user, audited.server))
        if outcome is None:  # a visitor of the demo with their own server
            return True
        news = outcome.is_news(audited)
        outcome.trail.append(audited)
        return news

    def is_told(self) -> bool:
        """Tell whether all expected outcomes are there, and the limit has passed for the others."""
        began = [outcome.began for outcome in self.outcomes.values() if outcome.began is not None]
        if len(began) < len(self.outcomes) or time.monotonic() < max(began) + self.limit + 10:
            return False
        return all(outcome.is_due() for outcome in self.outcomes.values())

    def close(self, verdicts: Mapping[tuple[str, str], Verdict]) -> None:
        """Take the verdicts on the servers that are left."""
        for key, outcome in self.outcomes.items():
            outcome.verdict = verdicts.get(key)


def sentence(audited: Audited, limit: float) -> str:
    """Say why a server was stopped, was withheld, or could not be stopped."""
    if audited.kind != "stopped":
        return f"{audited.cause}: {audited.why}"
    if audited.cause == Outcome.STOPPED_MAX_AGE.cause:
        return f"{audited.age:.0f} s old, more than policy {audited.policy} allows, active or not"
    return f"idle for {audited.idle:.0f} s, limit {limit:.0f} s, policy {audited.policy}"
