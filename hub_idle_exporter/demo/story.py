"""What happened to whom: the audit trail held against what should happen to the demo's people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from .account import Mark
from .audit import Audited, Verdict
from .people import PEOPLE, Outcome, Person

MARKS = {"stopped": Mark.STOPPED, "spared": Mark.SPARED, "failed": Mark.FAILED}


@dataclass
class Fate:
    """One person's server: since when they are at it, and what the sidecar did about it."""

    person: Person
    began: float | None = None  # by our monotonic clock
    trail: list[Audited] = field(default_factory=list)
    verdict: Verdict | None = None  # asked for at the end

    def is_news(self, audited: Audited) -> bool:
        """Tell whether this was not yet so: who stays busy is spared at every poll."""
        return not self._found(audited.kind, audited.cause)

    def is_due(self) -> bool:
        """Tell whether the trail says what it should; of who is never a candidate it is silent."""
        return not self.person.ends.audited or bool(self._found(*self.person.ends.value))

    def is_well(self) -> bool:
        """Tell whether it ended as it should."""
        stopped = bool(self._found("stopped"))
        if self.person.ends.audited:
            return self.is_due() and stopped == (self.person.ends.kind == "stopped")
        return not stopped and self.verdict is not None

    def told(self, limit: float) -> tuple[Mark, str]:
        """Say in a sentence how it ended and why."""
        found = self._found("stopped") or self._found(*self.person.ends.value)
        if found:
            return MARKS[found[-1].kind], sentence(found[-1], limit)
        if self.verdict is None:
            return Mark.FAILED, "the sidecar does not see it"
        idle, policy = self.verdict.idle, self.verdict.policy
        return Mark.SPARED, f"{self.verdict.why}: idle for {idle:.0f} s, policy {policy}"

    def _found(self, kind: str, cause: str | None = None) -> list[Audited]:
        return [one for one in self.trail if one.kind == kind and cause in (None, one.cause)]


class Story:
    """The fates of all.

    Args:
        limit: the idle limit, in seconds.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.fates = {(person.name, person.server): Fate(person) for person in PEOPLE}

    def begin(self, person: Person) -> None:
        """Note that a person is at it; only the first time counts."""
        fate = self.fates[person.name, person.server]
        fate.began = fate.began or time.monotonic()

    def hear(self, audited: Audited) -> bool:
        """Take in a line of the audit trail; tell whether it is news."""
        fate = self.fates.get((audited.user, audited.server))
        if fate is None:  # somebody who came to look at the demo, with a server of their own
            return True
        news = fate.is_news(audited)
        fate.trail.append(audited)
        return news

    def is_told(self) -> bool:
        """Tell whether all that is due has come, and who should be kept was so past the limit."""
        began = [fate.began for fate in self.fates.values() if fate.began is not None]
        if len(began) < len(self.fates) or time.monotonic() < max(began) + self.limit + 10:
            return False
        return all(fate.is_due() for fate in self.fates.values())

    def close(self, verdicts: Mapping[tuple[str, str], Verdict]) -> None:
        """Take in what the sidecar thinks of the servers that are left."""
        for key, fate in self.fates.items():
            fate.verdict = verdicts.get(key)


def sentence(audited: Audited, limit: float) -> str:
    """Say why one was stopped, spared, or could not be stopped."""
    if audited.kind != "stopped":
        return f"{audited.cause}: {audited.why}"
    if audited.cause == Outcome.STOPPED_MAX_AGE.cause:
        return f"{audited.age:.0f} s old, more than policy {audited.policy} allows, active or not"
    return f"idle for {audited.idle:.0f} s, limit {limit:.0f} s, policy {audited.policy}"
