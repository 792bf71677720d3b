"""Readings of the page made by hand, one for each state it can be in; its HTML taken apart."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from typing import Any

from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import ClockReading, GateReading, GateState
from hub_idle_exporter.domain.idle_users import IdleUsers, JudgedUser
from hub_idle_exporter.domain.labels import Cause, CullFailure, Outcome, UserKept, Withheld
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.notices import Undelivered
from hub_idle_exporter.domain.policy import Globs, Judge, Match, Policy, Reason, Rules
from hub_idle_exporter.domain.poll_state import PollError, PollState, Snapshot
from hub_idle_exporter.domain.probe_user import NO_SAFEGUARDS, Safeguards
from hub_idle_exporter.domain.requirements import Severity, requirements, scope_findings
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import (
    BusyCheck,
    ConnectionSettings,
    CullSettings,
    PollSettings,
    Settings,
    UserSettings,
)
from hub_idle_exporter.domain.totals import Totals
from hub_idle_exporter.journal import Entry, LastPass
from hub_idle_exporter.serving.page import html
from hub_idle_exporter.serving.reading import Listed, Reading, ServerFilter
from hub_idle_exporter.serving.view import view_of

NOW = 1_795_000_000.0
HOUR = 3600.0
STAFF = Policy("staff", HOUR, exempt=True, match=Match(groups=Globs(["staff"])))
GPU = Policy("gpu", 2 * HOUR, 24 * HOUR, match=Match(users=Globs(["gpu-*"])), own_timeout=True)
DEFAULT = Policy("default", HOUR)
RULES = Rules((STAFF, GPU, DEFAULT))
WHOLE = Safeguards(asks_servers=True, stop_tokens=True, lease=True)
NOTHING = Totals(0, {}, {}, {}, {}, {}, {}, 0, {}, {})
NO_PASS = LastPass(None, {})

OF_USERS = {Scope.READ_ACTIVITY, Scope.DELETE_USERS}  # told of only with --cull-users


def server(idle: float, age: float = 10 * HOUR, **more: Any) -> Server:
    return Server(
        ready=True,
        started=datetime.fromtimestamp(NOW - max(age, idle), timezone.utc),
        last_activity=datetime.fromtimestamp(NOW - idle, timezone.utc),
        **more,
    )


def people() -> list[User]:
    """One person at work, two gone, one of staff gone, a GPU too old, one starting."""
    return [
        User("ana", False, (), {"": server(30)}),
        User("bob", False, (), {"": server(2 * HOUR), "lab": server(30 * HOUR)}),
        User("sue", False, ("staff",), {"": server(5 * HOUR)}),
        User("gpu-1", False, (), {"": server(60, age=25 * HOUR)}),
        User("nell", False, (), {"": Server(pending="spawn")}),
    ]


def clocks_at(wall: float) -> ClockReading:
    """Both clocks at a moment."""
    return ClockReading(wall - NOW + 10_000.0, wall)


def reading(
    users: list[User] | None = None,
    rules: Rules = RULES,
    *,
    per_server: bool = False,
    success_age: float = 12.0,
    interval: float = 60.0,
    busy_check: BusyCheck = BusyCheck.REQUIRE,
    enforce: bool = True,
    deletes_users: bool = False,
    max_culls: int = 0,
    state: Mapping[str, Any] | None = None,
    gate: GateState = GateState.ON,
    why: str = "servers past their limit are stopped",
    opens_in: float | None = None,
    **changes: Any,
) -> Reading:
    """A reading right after a good poll of a Hub with these users, enforcing."""
    users_too = UserSettings(delete=deletes_users)
    cull = CullSettings(enforce, busy_check=busy_check, max_culls=max_culls, users=users_too)
    granted = Granted.of([*Scope, "tokens!user=idle-prober"])
    judged = judge_all(Judge(rules, Granted()), users or people(), NOW)
    snapshot = Snapshot(NOW, census_of(judged, rules, per_server))
    known: dict[str, Any] = {"version": "6.1.1", "granted": granted}
    known |= {"safeguards": WHOLE if enforce else NO_SAFEGUARDS, "probe_user_name": "idle-prober"}
    known |= {"requirements": requirements("6.1.1", cull, rules)}
    known |= {"duration": 0.125, "clock_skew": 0.4}
    after = PollState(rules, **known).succeeded(snapshot, clocks_at(NOW - success_age))
    fresh = Reading(
        now=clocks_at(NOW), exporter_version="1.2.3",
        settings=Settings(
            ConnectionSettings("http://hub:8081/hub/api"),
            PollSettings(rules.policies[-1], interval=interval, per_server_metrics=per_server),
            cull,
        ),
        shown={"--grace": "10m"}, state=replace(after, **state or {}),
        gate=GateReading(gate, why, opens_in or 0.0, opens_in), stands_by=False,
        totals=NOTHING, started=NOW - 2 * HOUR, last_pass=NO_PASS,
    )  # fmt: skip
    return replace(fresh, **changes)


def failed(state: Mapping[str, Any] | None = None, **changes: Any) -> Reading:
    """A reading when polls have failed for 90 s."""
    error = PollError(Cause.CONNECTION, "http://hub:8081/hub/api is gone")
    lost: dict[str, Any] = {"snapshot": None, "error": error, "failing_since": clocks_at(NOW - 90)}
    more: dict[str, Any] = {"success_age": 150.0, "gate": GateState.SUSPENDED}
    more |= {"why": "the last poll failed: it is gone"}
    return reading(state=lost | dict(state or {}), **(more | changes))


def first(**changes: Any) -> Reading:
    """A reading before the first poll has ended."""
    never: dict[str, Any] = {"error": None, "failing_since": None, "last_success": None}
    never |= {"safeguards": NO_SAFEGUARDS, "granted": None, "version": None, "clock_skew": None}
    waiting: dict[str, Any] = {"gate": GateState.GRACE, "why": "600 s of grace left"}
    waiting["opens_in"] = 600.0
    return failed(state=never, **(waiting | changes))


def with_scopes(*scopes: str, busy_check: BusyCheck = BusyCheck.REQUIRE, **changes: Any) -> Reading:
    """A reading when the token has only these scopes, and no token of the probe user."""
    given = reading(rules=Rules((DEFAULT,)), busy_check=busy_check, **changes)
    granted = Granted.of(scopes)
    found = scope_findings(given.state.requirements, granted)
    known: dict[str, Any] = {"granted": granted, "findings": found, "safeguards": NO_SAFEGUARDS}
    state = replace(given.state, **known)
    if busy_check is BusyCheck.REQUIRE:
        why = "; ".join(state.suspended_by or ())
        given = replace(given, gate=GateReading(GateState.SUSPENDED, why))
    return replace(given, state=state)


def unreadable() -> Reading:
    """A reading when the poll failed because the token may not list users."""
    given = with_scopes("read:servers")
    fatal = next(one for one in given.state.findings if one.severity is Severity.FATAL)
    error = PollError(Cause.SCOPE, str(fatal), finding=fatal)
    return replace(given, state=replace(given.state, snapshot=None, error=error))


CULLERS_ROLE = ("list:users", "read:servers", "delete:servers")


def entry(
    outcome: Outcome | Withheld,
    ago: float = 0.0,
    user: str = "bob",
    why: str = "",
    cause: CullFailure | None = None,
    times: int = 1,
) -> Entry:
    """What became of a candidate, so many seconds ago."""
    first = NOW - ago - 60.0 * (times - 1)
    of = (user, "lab", "default", Reason.IDLE, 2 * HOUR)
    return Entry(*of, outcome, why, first, NOW - ago, times, cause)


ORPHAN = entry(Outcome.FAILED, 600, "lost", "it still runs (an orphan)", CullFailure.NOT_STOPPED)


def after_a_pass(**changes: Any) -> Reading:
    """A reading after a pass that stopped one server and withheld three."""
    outcomes: dict[Outcome | Withheld, int] = {Withheld.BUSY: 3, Outcome.STOPPED: 1}
    recent = [
        entry(Outcome.STOPPED, 5),
        entry(Withheld.BUSY, 5, "sue", "a kernel is busy, for 600 s", times=10),
        entry(Outcome.FAILED, 7000, "new", "GET http://hub/users/new: 500", CullFailure.SLOW),
    ]
    return reading(last_pass=LastPass(NOW - 6, outcomes), recent=recent, **changes)


def untold(**changes: Any) -> Reading:
    """A reading when three people could not be told of a stop, the first of them two hours ago."""
    outcomes: dict[Outcome | Withheld, int] = {Withheld.NOTICE: 4, Withheld.KEPT: 1}
    undelivered = Undelivered(3, NOW - 2 * HOUR)
    return reading(last_pass=LastPass(NOW - 6, outcomes), undelivered=undelivered, **changes)


FOUND: Mapping[UserKept | None, int] = {
    None: 3, UserKept.EXEMPT: 40, UserKept.ADMIN: 2, UserKept.OWN: 1,
}  # fmt: skip


def idle_users(**more: Any) -> IdleUsers:
    """A listing of half an hour ago, by the Hub's clock."""
    kinds = [kept for kept, count in FOUND.items() for _ in range(count)]
    users = (JudgedUser(f"gone-{n}", 99.0, kept, "why") for n, kept in enumerate(kinds))
    return IdleUsers(NOW - HOUR / 2 + 0.4, tuple(users), **more)


def deleting(found: IdleUsers | None = None, **changes: Any) -> Reading:
    """A reading with --cull-users, after some deletions."""
    totals = replace(
        NOTHING,
        users_deleted=7.0,
        deletion_failures={(Cause.HTTP,): 1.0},
        deletions_withheld={(UserKept.EXEMPT,): 400.0, (UserKept.ACTIVE_AGAIN,): 1.0},
    )
    more: dict[str, Any] = {"idle_users": found, "totals": totals, "deletes_users": True}
    return reading(**(more | changes))


def lacking_scopes_to_delete(**changes: Any) -> Reading:
    """A reading with --cull-users when the token has no scope for that, but all others."""
    given = deleting(listing_failed=True, **changes)
    granted = Granted.of([*(set(Scope) - OF_USERS), "tokens!user=idle-prober"])
    found = scope_findings(given.state.requirements, granted)
    return replace(given, state=replace(given.state, granted=granted, findings=found))


STATES: Mapping[str, Callable[[], Reading]] = {
    "fresh": reading,
    "servers": lambda: reading(per_server=True),
    "pass": after_a_pass,
    "names": lambda: after_a_pass(per_server=True, asked=ServerFilter(state=Listed.CANDIDATE)),
    "orphan": lambda: reading(not_stopped=[ORPHAN]),
    "grace": lambda: reading(gate=GateState.GRACE, why="grace period", opens_in=600.0),
    "standby": lambda: reading(
        gate=GateState.SUSPENDED, why="another exporter of this Hub stops servers", stands_by=True
    ),
    "not asking": lambda: reading(
        busy_check=BusyCheck.OFF, state={"safeguards": replace(WHOLE, asks_servers=False)}
    ),
    "failed": failed,
    "first": first,
    "stale": lambda: reading(success_age=180.0),
    "off": lambda: reading(enforce=False, gate=GateState.OFF, why="monitoring only"),
    "refused": lambda: reading(state={"policy_error": "policy file p.yaml: it is broken"}),
    "empty": lambda: reading([User("ana", False, (), {})]),
    "less protection": lambda: with_scopes(*CULLERS_ROLE, busy_check=BusyCheck.AUTO),
    "suspended": lambda: with_scopes(*CULLERS_ROLE),
    "unreadable": unreadable,
    "broken web file": lambda: reading(web_config_valid=False),
    "in vain": lambda: reading(last_pass=LastPass(NOW - 6, {Withheld.PROBE_FAILED: 30})),
    "hidden roles": lambda: with_scopes("list:users", "read:servers!user=alice"),
    "many orphans": lambda: reading(not_stopped=[ORPHAN] * 7),
    "untold": untold,
    "users": lambda: deleting(idle_users()),
    "users, watched": lambda: deleting(
        idle_users(), totals=NOTHING, enforce=False, gate=GateState.OFF, why="monitoring only"
    ),
    "users, doubtful": lambda: deleting(idle_users(complete=False)),
    "users, not listed": deleting,
    "users, no scope": lacking_scopes_to_delete,
}


def text_of(given: Reading) -> str:
    """Give what a person reads, in one line."""
    return text_of_source(html(view_of(given)))


def text_of_source(source: str) -> str:
    """Give what a person reads on a page, in one line."""
    document = Document(source)
    return " ".join("".join(document.text).split()).replace("\N{NO-BREAK SPACE}", " ")


class Document(HTMLParser):
    """HTML taken apart: its elements with attributes, its text, and whether all is closed."""

    VOID = frozenset({"meta", "link", "br"})
    INLINE = frozenset({"time", "code", "strong", "span", "i", "a"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.preformatted: list[list[str]] = []
        self.faults: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "pre":
            self.preformatted.append([])
        if tag not in self.VOID:
            self.open.append(tag)
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")
        self._part(tag)

    def _part(self, tag: str) -> None:
        if tag not in self.INLINE:
            self.text.append(" ")

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)
        if "pre" in self.open:
            self.preformatted[-1].append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
