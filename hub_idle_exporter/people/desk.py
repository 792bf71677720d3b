"""What people see of their servers, and what they may ask for, on the page inside the Hub.

Who may ask for what is decided by the page: a user for their own servers, an administrator of the
Hub for all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..domain.durations import roughly
from ..domain.gate import GateReading, GateState
from ..domain.keeping import Keep, kept_for
from ..domain.labels import Outcome, Withheld
from ..domain.notices import standing, stop_due
from ..domain.policy import JudgedServer, Reason, with_keep
from ..domain.poll_state import LatestState
from ..hub.client import Hub
from ..journal import Entry, Journal
from .keeper import RefusedError
from .promises import Promises

# How many stops and withheld ones administrators see.
_MOST_ENDED = 100
_ANOTHER = "This server was stopped or started anew meanwhile: look again."


@dataclass(frozen=True)
class Visitor:
    """Who is signed in, and whether the Hub says that this is an administrator."""

    name: str
    admin: bool


@dataclass(frozen=True)
class ServerNow:
    """One server as people see it, at `now` by the Hub's clock (seconds since 1970, as all times).

    `due` is when it is stopped unless it is used, None if it will not be. `keep_for` is for how
    many seconds it may be kept from now, 0 if keeping is not offered. `why` says what happens, or
    what prevents it, in a sentence. `withheld` is the last time when its stop was withheld.
    """

    judged: JudgedServer
    now: float
    due: float | None
    keep: Keep | None
    keep_for: float
    why: str
    announced: bool
    withheld: Entry | None


class Desk:
    """Answers for the page inside the Hub.

    Args:
        hub: asked about one user, when that user looks.
        latest: the newest poll state.
        gate: reads whether anything is stopped now.
        promises: what people keep, and what was announced.
        journal: what became of candidates.
    """

    def __init__(
        self,
        hub: Hub,
        latest: LatestState,
        gate: Callable[[], GateReading],
        promises: Promises,
        journal: Journal,
    ) -> None:
        self._hub, self._latest, self._gate = hub, latest, gate
        self._promises, self._journal = promises, journal

    def servers_of(self, user: str) -> list[ServerNow]:
        """Ask the Hub for a user's servers; raise HubError if it does not say."""
        judged, now = self._look(user)
        return [self._seen(one, now) for one in judged]

    def all_servers(self) -> list[ServerNow] | None:
        """Give all servers as of the last poll; None if that failed."""
        snapshot = self._latest.state.snapshot
        if snapshot is None:
            return None
        now, keeps, withheld = (
            snapshot.read_at,
            self._promises.keeper.keeps,
            self._journal.withheld(),
        )
        return [
            self._seen(with_keep(one, kept_for(keeps, one.start, now)), now, withheld)
            for one in snapshot.census.named
        ]

    def ended(self, user: str | None = None) -> list[Entry]:
        """Give the last stop of each server of a user, or what became of candidates of all."""
        if user is None:
            return self._journal.newest(_MOST_ENDED)
        skew = self._latest.state.clock_skew or 0.0
        stops = [
            Entry(*key, "", stop.reason, stop.idle, Outcome.STOPPED, "", at := stop.at - skew, at)
            for key, stop in self._promises.file.stops.items()
            if key[0] == user
        ]
        return sorted(stops, key=lambda entry: -entry.last)

    def keep(self, visitor: Visitor, user: str, server: str, started: str) -> Keep:
        """Keep a server; raise RefusedError or HubError if that cannot be.

        `started` is its start as the page showed it: another start is never kept by an old page.
        """
        one, now = self._find(user, server, started)
        return self._promises.keeper.keep(one, visitor.name, now)

    def release(self, visitor: Visitor, user: str, server: str, started: str) -> None:
        """Keep a server no longer; raise RefusedError or HubError if that cannot be."""
        one, now = self._find(user, server, started)
        self._promises.keeper.release(one, visitor.name, now)

    def said(self) -> str:
        """Say whether anything is stopped now, and why not."""
        reading = self._gate()
        return f"{reading.why[:1].upper()}{reading.why[1:]}."

    def _look(self, user: str) -> tuple[list[JudgedServer], float]:
        """Ask the Hub for a user's servers, and judge them."""
        reading = self._hub.user(user)
        if reading is None:
            return [], 0.0
        judge = replace(self._latest.state.judge, keeps=self._promises.keeper.keeps)
        servers = sorted(reading.user.seen_servers.items())
        judged = [judge.verdict(reading.user, name, one, reading.now) for name, one in servers]
        return judged, reading.now

    def _find(self, user: str, server: str, started: str) -> tuple[JudgedServer, float]:
        judged, now = self._look(user)
        for one in judged:
            if one.server == server and started_text(one) == started:
                return one, now
        raise RefusedError(_ANOTHER)

    def _seen(
        self, one: JudgedServer, now: float, withheld: dict[tuple[str, str], Entry] | None = None
    ) -> ServerNow:
        entries = self._journal.withheld() if withheld is None else withheld
        keeper, announced = self._promises.keeper, self._promises.notices.announcements
        entry, enforces = entries.get(one.key), self._gate().state is not GateState.OFF
        due = stop_due(one, announced, now) if enforces else None
        return ServerNow(
            judged=one,
            now=now,
            due=due,
            keep=None if one.kept is None else keeper.keeps.get(one.start),
            keep_for=keeper.most(one) if enforces else 0.0,
            why=self._why(one, due, entry, now),
            announced=standing(announced, one, Reason.IDLE, now) is not None,
            withheld=entry,
        )

    def _why(self, one: JudgedServer, due: float | None, entry: Entry | None, now: float) -> str:
        """Say what happens to a server, or what prevents it."""
        state = self._gate().state
        if state is GateState.OFF:
            return "Nothing is stopped here: this exporter only watches."
        if due is None:
            return f"It is not stopped: it {one.why}."
        if one.reason is None and due > now:
            return f"It is stopped in {roughly(due - now)} unless it is used."
        if state is not GateState.ON:
            return "It is past its limit, but nothing is stopped at the moment."
        if entry is not None and entry.outcome is not Withheld.NOTICE:
            return f"It is past its limit, and was not stopped: {entry.why}."
        if due > now:
            return (
                f"It is past its limit, and is stopped in {roughly(due - now)} unless it is used."
            )
        return "It is past its limit, and is stopped at any moment unless it is used."


def started_text(one: JudgedServer) -> str:
    """Write the start of a server, as a page sends it back."""
    started = one.start[2]
    return "" if started is None else started.isoformat()
