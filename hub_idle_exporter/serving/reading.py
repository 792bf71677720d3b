"""What the page is made from: everything that is known at one moment, and what was asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..domain.census import Census
from ..domain.gate import ClockReading, GateReading
from ..domain.idle_users import IdleUsers
from ..domain.notices import Undelivered
from ..domain.policy import JudgedServer, Reason, State
from ..domain.poll_state import PollState
from ..domain.settings import Settings
from ..domain.str_enum import StrEnum
from ..domain.totals import Totals
from ..journal import Entry, LastPass

_Choice = TypeVar("_Choice", bound=StrEnum)


class Listed(StrEnum):
    """Which servers are listed: those in one state, or the candidates."""

    CANDIDATE = "candidate"
    ACTIVE = State.ACTIVE.value
    IDLE = State.IDLE.value
    PENDING = State.PENDING.value


@dataclass(frozen=True)
class ServerFilter:
    """Which servers are listed; None for any. Two that are equal list the same."""

    state: Listed | None = None
    policy: str | None = None
    reason: Reason | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "ServerFilter":
        """Read the page's query; raise ValueError with a sentence about what cannot be read."""
        return cls(
            _one_of(Listed, "state", query), query.get("policy") or None,
            _one_of(Reason, "reason", query),
        )  # fmt: skip

    def __bool__(self) -> bool:
        return self != ServerFilter()

    def holds(self, one: JudgedServer) -> bool:
        """Tell whether a server is listed."""
        if self.state is Listed.CANDIDATE:
            state_fits = one.would_stop
        else:
            state_fits = self.state is None or one.state == self.state.value
        policy_fits = self.policy is None or one.policy.name == self.policy
        return state_fits and policy_fits and (self.reason is None or one.reason is self.reason)


def _one_of(choices: type[_Choice], name: str, query: Mapping[str, str]) -> _Choice | None:
    written = query.get(name)
    if not written:
        return None
    try:
        return choices(written)
    except ValueError:
        allowed = ", ".join(choices)
        raise ValueError(f"{name} must be one of {allowed}, not {written!r}") from None


@dataclass(frozen=True)
class Reading:
    """Everything the page is made from, as of the time `now` of our clocks.

    `started` is when this exporter started, in seconds since 1970. `recent` are the last stops and
    withheld candidates, `not_stopped` servers that may have outlived their stop. `web_config_valid`
    tells that the current version of the web configuration file is in use, or there is none.
    `idle_users` is what the newest listing of idle users found; None if that failed
    (`listing_failed`), or before it. `undelivered` are people who could not be told of a stop.
    """

    now: ClockReading
    exporter_version: str
    settings: Settings
    shown: Mapping[str, str]  # options and their values, for people
    state: PollState
    gate: GateReading
    stands_by: bool
    totals: Totals
    started: float
    last_pass: LastPass
    recent: Sequence[Entry] = ()
    not_stopped: Sequence[Entry] = ()
    asked: ServerFilter = ServerFilter()
    web_config_valid: bool = True
    idle_users: IdleUsers | None = None
    listing_failed: bool = False
    undelivered: Undelivered = field(default_factory=Undelivered)

    @property
    def census(self) -> Census | None:
        """Return the counts of the last poll; None unless it succeeded."""
        return self.state.snapshot.census if self.state.snapshot else None

    @property
    def names_servers(self) -> bool:
        """Tell whether users and their servers may be named."""
        return self.settings.poll.per_server_metrics

    @property
    def enforces(self) -> bool:
        """Tell whether servers are to be stopped."""
        return self.settings.cull.enforce

    @property
    def opinion_failed(self) -> bool:
        """Tell whether the second opinion was asked for by the last poll, in vain."""
        opinion = self.state.opinion if self.state.snapshot else None
        return opinion is not None and opinion.problem is not None

    @property
    def last_success_age(self) -> float | None:
        """Return the age of the last successful poll."""
        return self.state.seconds_since_success(self.now)

    @property
    def failing_for(self) -> float | None:
        """Return how long polls have been failing."""
        return self.state.seconds_failing(self.now)

    @property
    def untold_for(self) -> float | None:
        """Return for how long somebody could not be told that a server will be stopped."""
        since = self.undelivered.since
        return None if since is None else max(0.0, self.now.wall - since)

    @property
    def starts_at(self) -> float | None:
        """Return when stops begin, in seconds since 1970, if that is known."""
        opens_in = self.gate.opens_in
        return None if opens_in is None else self.now.wall + opens_in
