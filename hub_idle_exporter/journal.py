"""What became of the candidates: of those of the last culling pass, and the last ones of all.

For the gauge of the last pass and for the page; the audit trail itself is the log. Of a server only
what is shown is kept: the rest would keep whole pages of the Hub's list in memory.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .domain.keeping import Start
from .domain.labels import CullFailure, Outcome, Withheld
from .domain.policy import JudgedServer, Reason, ServerKey

# How many are kept at most of those that are no candidates any more.
_MOST_KEPT = 200

_Entries = dict[tuple[Start, Outcome | Withheld], "Entry"]


@dataclass(frozen=True)
class Entry:
    """What became of one candidate; times are seconds since 1970, by our clock.

    One that is withheld again and again for the same reason has one entry: since `first`, `times`
    times, the last time at `last`. `idle` is how long it had been idle then, in seconds. `cause`
    says why a stop failed.
    """

    user: str
    server: str
    policy: str
    reason: Reason | None
    idle: float | None
    outcome: Outcome | Withheld
    why: str
    first: float
    last: float
    times: int = 1
    cause: CullFailure | None = None


@dataclass(frozen=True)
class LastPass:
    """When the last culling pass began (None: there was none), and its candidates by outcome."""

    began: float | None
    outcomes: Mapping[Outcome | Withheld, int]


class Journal:
    """Remembers outcomes; safe to use from any thread, and nobody waits for anything in here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None
        self._outcomes: dict[ServerKey, Outcome | Withheld] = {}
        # Not the culler's: by its own lock a pass would begin with some that have ended meanwhile.
        self._under_way: set[ServerKey] = set()
        self._stops: _Entries = {}
        self._withheld: _Entries = {}
        self._not_stopped: dict[Start, Entry] = {}

    def begin_pass(
        self, at: float, fresh: Iterable[JudgedServer], failed: Iterable[JudgedServer] = ()
    ) -> None:
        """Begin a pass over candidates; those under way from an earlier one are of this one too.

        `failed` are candidates whose stop has failed a short time ago, and is not tried again yet.
        """
        with self._lock:
            self._under_way.update(one.key for one in fresh)
            self._outcomes = dict.fromkeys(self._under_way, Outcome.UNDER_WAY)
            self._outcomes |= {one.key: Outcome.FAILED for one in failed}
            self._began = at
            self._forget()

    def ended(
        self,
        at: float,
        server: JudgedServer,
        outcome: Outcome | Withheld,
        why: str = "",
        cause: CullFailure | None = None,
    ) -> None:
        """Record what became of a candidate."""
        key, start = server.key, server.start
        policy, reason, idle = server.policy.name, server.reason, server.idle
        entry = Entry(*key, policy, reason, idle, outcome, why, at, at, cause=cause)
        with self._lock:
            self._under_way.discard(key)
            if key in self._outcomes:
                self._outcomes[key] = outcome
            _add(self._withheld if isinstance(outcome, Withheld) else self._stops, start, entry)
            if cause is CullFailure.NOT_STOPPED:
                self._not_stopped[start] = entry
            elif outcome is Outcome.STOPPED:
                self._not_stopped.pop(start, None)  # it took a second stop

    def _forget(self) -> None:
        """Forget the oldest entries; what is withheld is kept while it is a candidate."""
        over = [entry for entry in self._withheld if entry[0][:2] not in self._outcomes]
        for gone in over[:-_MOST_KEPT]:
            del self._withheld[gone]
        for stop in [*self._stops][:-_MOST_KEPT]:
            del self._stops[stop]
        for start in [*self._not_stopped][:-_MOST_KEPT]:
            del self._not_stopped[start]

    def last_pass(self) -> LastPass:
        """Count the candidates of the last pass by outcome."""
        with self._lock:
            return LastPass(self._began, Counter(self._outcomes.values()))

    def newest(self, most: int) -> list[Entry]:
        """Give the last stops and withheld candidates; the one that began last comes first."""
        with self._lock:
            entries = [*self._stops.values(), *self._withheld.values()]
        return sorted(entries, key=lambda entry: -entry.first)[:most]

    def withheld(self) -> dict[Start, Entry]:
        """Give for each start of a server the last time that its stop was withheld."""
        with self._lock:
            entries = [(start, entry) for (start, _), entry in self._withheld.items()]
        return dict(sorted(entries, key=lambda item: item[1].last))

    def not_stopped(self, since: float) -> list[Entry]:
        """Give the servers that may have outlived their stop since a time, the newest first."""
        with self._lock:
            entries = list(self._not_stopped.values())
        return [one for one in reversed(entries) if one.last >= since]


def _add(entries: _Entries, start: Start, entry: Entry) -> None:
    """Add an entry, or continue the one of the same outcome."""
    before = entries.pop((start, entry.outcome), None)
    if before is not None:
        entry = replace(entry, first=before.first, times=before.times + 1)
    entries[start, entry.outcome] = entry
