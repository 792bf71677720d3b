"""What people see of their servers, and what they may ask for, on the page inside the Hub.

Who may ask for what is decided by the page: a user for their own servers, an administrator of the
Hub for all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..domain.durations import roughly
from ..domain.gate import GateReading, GateState
from ..domain.keeping import Keep, Start, kept_for
from ..domain.labels import Outcome, Withheld
from ..domain.notices import deadline, standing, stop_due
from ..domain.policy import JudgedServer, Reason, with_keep
from ..domain.poll_state import LatestState
from ..hub.client import Hub
from ..journal import Entry, Journal
from .keeper import RefusedError
from .promises import Promises

# How many stops and withheld ones administrators see.
_MOST_ENDED = 100
# What the second opinion says is for whoever runs the Hub: it has addresses, numbers and queries.
SAID_OF_OPINION: Mapping[Outcome | Withheld, str] = {
    Withheld.IN_USE: "the monitoring of this JupyterHub does not say that it is idle",
    Withheld.QUERY_FAILED: "the monitoring of this JupyterHub does not answer",
}
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


@dataclass(frozen=True)
class _Moment:
    """What is the same for all servers that are looked at together."""

    now: float
    gate: GateState
    withheld: Mapping[Start, Entry]


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
        moment = self._moment(now)
        return [self._seen(one, moment) for one in judged]

    def all_servers(self) -> list[ServerNow] | None:
        """Give all servers as of the last poll; None if that failed."""
        snapshot = self._latest.state.snapshot
        if snapshot is None:
            return None
        moment, keeps = self._moment(snapshot.read_at), self._promises.keeper.keeps
        return [
            self._seen(with_keep(one, kept_for(keeps, one.start, moment.now)), moment)
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
        return self._promises.keep(one, visitor.name, now)

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

    def _moment(self, now: float) -> _Moment:
        return _Moment(now, self._gate().state, self._journal.withheld())

    def _seen(self, one: JudgedServer, moment: _Moment) -> ServerNow:
        keeper, announced = self._promises.keeper, self._promises.notices.announcements
        enforces, now = moment.gate is not GateState.OFF, moment.now
        due = stop_due(one, announced, now) if enforces else None
        entry = moment.withheld.get(one.start)
        told = standing(announced, one, Reason.IDLE, now) is not None
        return ServerNow(
            judged=one,
            now=now,
            due=due,
            keep=None if one.kept is None else keeper.keeps.get(one.start),
            keep_for=keeper.most(one) if enforces else 0.0,
            why=_why(one, due, None if told and _is_of_notice(entry) else entry, moment),
            announced=told,
            withheld=entry,
        )


def _is_of_notice(entry: Entry | None) -> bool:
    """Tell whether a stop was withheld for want of a notice: that is over once people know."""
    return entry is not None and entry.outcome is Withheld.NOTICE


def _why(one: JudgedServer, due: float | None, entry: Entry | None, moment: _Moment) -> str:
    """Say what happens to a server, or what prevents it."""
    if moment.gate is GateState.OFF:
        return "Nothing is stopped here: this exporter only watches."
    if one.reason is not None and one.spared is not None:
        return f"It is past its limit, and is not stopped now: {SAID_OF_OPINION[one.spared.cause]}."
    if due is None:
        return f"It is not stopped: it {one.why}."
    left = roughly(max(0.0, due - moment.now))
    by_age = deadline(one, Reason.MAX_AGE, moment.now) <= due
    unless = "because it is too old then, even if it is used" if by_age else "unless it is used"
    if one.reason is None and due > moment.now:
        return f"It is stopped in {left}, {unless}."
    if moment.gate is not GateState.ON:
        return "It is past its limit, but nothing is stopped at the moment."
    if entry is not None and not by_age:
        why = SAID_OF_OPINION.get(entry.outcome, entry.why)
        return f"It is past its limit, and was not stopped: {why}."
    if due > moment.now:
        return f"It is past its limit, and is stopped in {left}, {unless}."
    return f"It is past its limit, and is stopped at any moment, {unless}."


def started_text(one: JudgedServer) -> str:
    """Write the start of a server, as a page sends it back."""
    started = one.start[2]
    return "" if started is None else started.isoformat()
