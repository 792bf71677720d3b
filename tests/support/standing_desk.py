"""A desk with servers made by hand: what the page inside the Hub shows, without culling."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.domain.labels import Outcome, Withheld
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Globs, Judge, Match, Policy, Reason, Rules
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.journal import Entry
from hub_idle_exporter.people.desk import Desk, ServerNow, Visitor
from hub_idle_exporter.people.keeper import RefusedError

HOUR = 3600.0
DEFAULT = Policy("default", HOUR)
GPU = Policy("gpu", 2 * HOUR, 24 * HOUR, match=Match(users=Globs(["gpu-*"])))
STAFF = Policy("staff", HOUR, exempt=True, match=Match(users=Globs(["staff-*"])))
RULES = Rules((STAFF, GPU, DEFAULT))


@dataclass
class StandingDesk(Desk):
    """Answers by what it was given; `calls` are the wishes that reached it."""

    now: float
    rules: Rules = RULES
    servers: dict[tuple[str, str], ServerNow] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    refusal: str = ""
    error: Exception | None = None
    polled: bool = True

    def add(
        self, user: str, server: str = "", idle: float = 2 * HOUR, age: float = 10 * HOUR
    ) -> ServerNow:
        """Add a server."""
        seen = Server(ready=True, started=self._ago(age), last_activity=self._ago(idle))
        person = User(user, False, (), {server: seen})
        judged = Judge(self.rules, Granted()).verdict(person, server, seen, self.now)
        due = None if judged.policy.exempt else self.now + judged.policy.timeout - idle
        why = "Its policy staff exempts it." if due is None else "It is stopped unless it is used."
        keep_for = 0.0 if due is None else 8 * HOUR
        found = ServerNow(judged, self.now, due, None, keep_for, why, False, None)
        self.servers[user, server] = found
        return found

    def add_entry(
        self, user: str, outcome: Outcome | Withheld, server: str = "", why: str = ""
    ) -> None:
        """Let a candidate have had an outcome."""
        at = self.now - 2 * HOUR
        self.entries.append(Entry(user, server, "default", Reason.IDLE, HOUR, outcome, why, at, at))

    def servers_of(self, user: str) -> list[ServerNow]:
        if self.error is not None:
            raise self.error
        return [one for (owner, _), one in self.servers.items() if owner == user]

    def all_servers(self) -> list[ServerNow] | None:
        return list(self.servers.values()) if self.polled else None

    def ended(self, user: str | None = None) -> list[Entry]:
        return [one for one in self.entries if user in (None, one.user)]

    def keep(self, visitor: Visitor, user: str, server: str, started: str) -> Keep:
        self.calls.append(("keep", visitor.name, user, server))
        found = self._of_start(user, server, started)
        keep = Keep(self.now + found.keep_for, visitor.name)
        self.servers[user, server] = replace(found, keep=keep, due=keep.until)
        return keep

    def release(self, visitor: Visitor, user: str, server: str, started: str) -> None:
        self.calls.append(("release", visitor.name, user, server))
        self.servers[user, server] = replace(self._of_start(user, server, started), keep=None)

    def said(self) -> str:
        return "Servers past their limit are stopped."

    def _of_start(self, user: str, server: str, started: str) -> ServerNow:
        found = self.servers.get((user, server))
        if self.refusal or found is None:
            raise RefusedError(self.refusal or "There is no such server.")
        moment = found.judged.seen.started
        if moment is None or moment.isoformat() != started:
            raise RefusedError("It was restarted meanwhile: look again.")
        return found

    def _ago(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self.now - seconds, timezone.utc)


def names(servers: Sequence[ServerNow]) -> list[str]:
    """Return the users of servers, in their order."""
    return [one.judged.user for one in servers]
