"""What became of the candidates: of those of the last culling pass, and the last ones of all.

For the gauge of the last pass and for the page; the audit trail itself is the log.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .domain.labels import CullFailure, Outcome, Withheld
from .domain.policy import JudgedServer

# A server that stays withheld is one entry, for as long as it is among the newest so many.
_MOST_KEPT = 200

_Start = tuple[str, str, datetime | None]


@dataclass(frozen=True)
class Entry:
    """What became of one candidate; times are seconds since 1970, by our clock.

    One that is withheld again and again for the same reason has one entry: since `first`, `times`
    times, the last time at `last`. `cause` says why a stop failed.
    """

    server: JudgedServer
    outcome: Outcome | Withheld
    why: str
    first: float
    last: float
    times: int = 1
    cause: CullFailure | None = None


@dataclass(frozen=True)
class LastPass:
    """When the last culling pass began (0: there was none), and its candidates by outcome."""

    began: float
    outcomes: Mapping[Outcome | Withheld, int]


class Journal:
    """Remembers outcomes; safe to use from any thread, and nobody waits for anything in here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = 0.0
        self._outcomes: dict[tuple[str, str], Outcome | Withheld] = {}
        self._entries: dict[tuple[_Start, str], Entry] = {}
        self._not_stopped: dict[_Start, Entry] = {}

    def begin_pass(
        self, at: float, under_way: Iterable[JudgedServer], failed: Iterable[JudgedServer]
    ) -> None:
        """Begin a pass over candidates; stops that go on from an earlier one are `under_way` too.

        `failed` are candidates whose stop has failed a short time ago, and is not tried again yet.
        """
        outcomes: dict[tuple[str, str], Outcome | Withheld] = {}
        outcomes |= {(one.user, one.server): Outcome.UNDER_WAY for one in under_way}
        outcomes |= {(one.user, one.server): Outcome.FAILED for one in failed}
        with self._lock:
            self._began, self._outcomes = at, outcomes

    def ended(
        self,
        at: float,
        server: JudgedServer,
        outcome: Outcome | Withheld,
        why: str = "",
        cause: CullFailure | None = None,
    ) -> None:
        """Record what became of a candidate."""
        start = (server.user, server.server, server.seen.started)
        with self._lock:
            if start[:2] in self._outcomes:
                self._outcomes[start[:2]] = outcome
            before = self._entries.pop((start, outcome), None)
            entry = Entry(server, outcome, why, at, at, cause=cause)
            if before is not None:
                entry = replace(entry, first=before.first, times=before.times + 1)
            self._entries[start, outcome] = entry
            _forget_oldest(self._entries)
            if cause is CullFailure.NOT_STOPPED:
                self._not_stopped[start] = entry
                _forget_oldest(self._not_stopped)

    def last_pass(self) -> LastPass:
        """Count the candidates of the last pass by outcome."""
        with self._lock:
            return LastPass(self._began, Counter(self._outcomes.values()))

    def newest(self, most: int) -> list[Entry]:
        """Give the last stops and withheld candidates; the one that began last comes first."""
        with self._lock:
            entries = list(self._entries.values())
        return sorted(entries, key=lambda entry: -entry.first)[:most]

    def not_stopped(self, since: float) -> list[Entry]:
        """Give the servers that may have outlived their stop since a time, the newest first."""
        with self._lock:
            entries = list(self._not_stopped.values())
        return [one for one in reversed(entries) if one.last >= since]


def _forget_oldest(entries: dict[Any, Entry]) -> None:
    if len(entries) > _MOST_KEPT:
        del entries[next(iter(entries))]
