"""The page at `/`: what it says, that all of it is escaped, and how it looks in a real browser."""

import cProfile
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, Literal

import pytest
from chromium import chromium
from conftest import RunExporter, tool_or_skip
from exporter_process import Exporter
from fake_hub import FakeHub, FakeServer, Jupyter, hang
from playwright.sync_api import Browser, Page

from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import ClockReading, GateState
from hub_idle_exporter.domain.labels import Cause, CullFailure, ProbeResult, Withheld
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Globs, Judge, Match, Policy, Reason, Rules, State
from hub_idle_exporter.domain.poll_state import PollError, PollState, Snapshot
from hub_idle_exporter.domain.probe_user import NO_SAFEGUARDS, Safeguards
from hub_idle_exporter.domain.requirements import (
    Finding,
    Severity,
    Subject,
    clock_findings,
    requirements,
    scope_findings,
)
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import (
    BusyCheck,
    ConnectionSettings,
    CullSettings,
    PollSettings,
    Settings,
)
from hub_idle_exporter.domain.totals import Counts, Totals
from hub_idle_exporter.serving.page import html
from hub_idle_exporter.serving.view import (
    MOST_SERVERS,
    Bar,
    Freshness,
    Reading,
    ScopeStatus,
    view_of,
)
from hub_idle_exporter.serving.wording import (
    ANSWERS,
    FAILED,
    POLL_FAILURES,
    WITHHELD,
    about,
    brief,
    number,
    percent,
    spoken,
)

NOW = 1_795_000_000.0
HOUR = 3600.0
WIDTHS = (320, 768, 1280, 1920)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HOSTILE = "<script>alert('policy')</script>"
STAFF = Policy("staff", HOUR, exempt=True, match=Match(groups=Globs(["staff"])))
GPU = Policy("gpu", 2 * HOUR, 24 * HOUR, match=Match(users=Globs(["gpu-*"])))
DEFAULT = Policy("default", HOUR)
RULES = Rules((STAFF, GPU, DEFAULT))
WHOLE = Safeguards(asks_servers=True, stop_tokens=True, lease=True)
NOTHING = Totals(0, {}, {}, {}, {}, {}, {})


# ---- readings -----------------------------------------------------------------------------------


def server(idle: float, age: float = 10 * HOUR, **more: Any) -> Server:
    return Server(
        ready=True,
        started=datetime.fromtimestamp(NOW - max(age, idle), UTC),
        last_activity=datetime.fromtimestamp(NOW - idle, UTC),
        **more,
    )


def people() -> list[User]:
    """One person at work, two gone, one of staff gone, a GPU too old, one starting."""
    return [
        User("ana", False, (), {"": server(30)}),
        User("bob", False, (), {"": server(2 * HOUR), "lab": server(30 * HOUR)}),
        User("sue", False, ("staff",), {"": server(5 * HOUR)}),
        User("gpu-1", False, (), {"": server(60, age=25 * HOUR)}),
        User("new", False, (), {"": Server(pending="spawn")}),
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
    state: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Reading:
    """A reading right after a good poll of a Hub with these users, enforcing."""
    cull = CullSettings(enforce, busy_check=busy_check)
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
        shown={"--grace": "10m"}, state=replace(after, **state or {}), gate=GateState.ON,
        why="servers past their limit are stopped", totals=NOTHING,
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
    return failed(state=never, **(waiting | changes))


def with_scopes(*scopes: str, busy_check: BusyCheck = BusyCheck.REQUIRE, **changes: Any) -> Reading:
    """A reading when the token has only these scopes, and no token of the probe user."""
    given = reading(rules=Rules((DEFAULT,)), busy_check=busy_check, **changes)
    granted = Granted.of(scopes)
    found = scope_findings(given.state.requirements, granted)
    known: dict[str, Any] = {"granted": granted, "findings": found, "safeguards": NO_SAFEGUARDS}
    state = replace(given.state, **known)
    if busy_check is BusyCheck.REQUIRE:
        suspended = {"gate": GateState.SUSPENDED, "why": "; ".join(state.suspended_by or ())}
        given = replace(given, **suspended)  # type: ignore[arg-type]
    return replace(given, state=state)


def unreadable() -> Reading:
    """A reading when the poll failed because the token may not list users."""
    given = with_scopes("read:servers")
    fatal = next(one for one in given.state.findings if one.severity is Severity.FATAL)
    error = PollError(Cause.SCOPE, str(fatal), finding=fatal)
    return replace(given, state=replace(given.state, snapshot=None, error=error))


CULLERS_ROLE = ("list:users", "read:servers", "delete:servers")
STATES: Mapping[str, Callable[[], Reading]] = {
    "fresh": reading,
    "servers": lambda: reading(per_server=True),
    "failed": failed,
    "first": first,
    "stale": lambda: reading(success_age=180.0),
    "off": lambda: reading(enforce=False, gate=GateState.OFF, why="monitoring only"),
    "refused": lambda: reading(state={"policy_error": "policy file p.yaml: it is broken"}),
    "empty": lambda: reading([User("ana", False, (), {})]),
    "less protection": lambda: with_scopes(*CULLERS_ROLE, busy_check=BusyCheck.AUTO),
    "suspended": lambda: with_scopes(*CULLERS_ROLE),
    "unreadable": unreadable,
}


def text_of(given: Reading) -> str:
    """Give what a person reads, in one line."""
    document = Document(html(view_of(given)))
    return " ".join(" ".join(document.text).split()).replace("\N{NO-BREAK SPACE}", " ")


class Document(HTMLParser):
    """HTML taken apart: its elements with attributes, its text, and whether all is closed."""

    VOID = frozenset({"meta", "link", "br"})

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

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if "pre" in self.open:
            self.preformatted[-1].append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# ---- the view -----------------------------------------------------------------------------------


def test_states_candidates_and_who_is_kept_are_counted() -> None:
    facts = view_of(reading()).facts
    assert facts is not None
    assert facts.states == {State.ACTIVE: 2, State.IDLE: 3, State.PENDING: 1}
    assert facts.running == 6
    assert facts.stops == {Reason.IDLE: 2, Reason.MAX_AGE: 1}
    assert facts.idle_kept == 1  # the one of staff


def test_users_who_cannot_be_decoded_are_counted_and_not_named() -> None:
    good = reading()
    assert good.state.snapshot is not None
    assert "cannot be decoded" not in text_of(good)
    snapshot = replace(good.state.snapshot, unreadable=("deep-diver", "number 7 of the list"))
    text = text_of(replace(good, state=replace(good.state, snapshot=snapshot)))
    assert "Users who cannot be decoded and are left out: 2" in text
    assert "deep-diver" not in text


def test_policies_stand_in_their_order_with_limits_and_counts() -> None:
    rows = view_of(reading()).policies
    assert [row.policy.name for row in rows] == ["staff", "gpu", "default"]
    assert [row.stops for row in rows] == [0, 1, 2]
    assert rows[2].servers == {State.ACTIVE: 1, State.IDLE: 2, State.PENDING: 1}


def test_limits_count_what_is_idle_for_longer() -> None:
    facts = view_of(reading()).facts
    assert facts is not None
    counts = {bar.label[0]: bar.count for bar in facts.idle_limits}
    assert counts == {900: 3, 1800: 3, 3600: 3, 7200: 2, 14400: 2, 28800: 1, 86400: 1}
    assert [bar.label[0] for bar in facts.idle_limits if bar.marked] == [3600]
    assert facts.idle_limits[0].share == pytest.approx(3 / 5)
    assert {bar.label[0]: bar.count for bar in facts.age_limits} == {
        28800: 5, 43200: 2, 86400: 2, 172800: 0, 604800: 0,
    }  # fmt: skip


def test_bars_are_as_long_as_their_share_of_the_longest() -> None:
    facts = view_of(reading()).facts
    assert facts is not None
    assert facts.histogram[0] == Bar((0.0, 60.0), 2, 1.0, 0.4, False)
    assert facts.histogram[-1] == Bar((604800.0, None), 0, 0.0, 0.0, True)
    assert sum(bar.count for bar in facts.histogram) == 5
    assert next(bar.label[0] for bar in facts.histogram if bar.marked) == HOUR


def test_no_servers_at_all_is_no_division_by_zero() -> None:
    view = view_of(STATES["empty"]())
    assert view.facts is not None
    assert (view.facts.running, view.title) == (0, "0 idle of 0")
    assert all(bar.length == 0 for bar in view.facts.histogram)


@pytest.mark.parametrize(
    ("given", "freshness"),
    [
        (first(), Freshness.FIRST),
        (failed(state={"last_success": None}), Freshness.FAILED),
        (failed(), Freshness.FAILED),
        (reading(success_age=179.9), Freshness.FRESH),
        (reading(success_age=180.0), Freshness.STALE),
    ],
)
def test_what_may_be_said_of_the_hub(given: Reading, freshness: Freshness) -> None:
    assert view_of(given).freshness is freshness


def test_without_a_good_poll_no_number_of_the_hub_is_shown() -> None:
    for given in (failed(), first()):
        view = view_of(given)
        assert view.facts is None
        assert all(row.servers is None and row.stops is None for row in view.policies)
        assert "Idle for" not in text_of(given)
        assert "6.1.1" not in text_of(given)


@pytest.mark.parametrize(
    ("interval", "refresh"), [(1.0, 5), (5.0, 5), (30.0, 30), (60.0, 60), (3600.0, 60)]
)
def test_it_renews_itself_about_as_often_as_there_is_news(interval: float, refresh: int) -> None:
    assert view_of(reading(interval=interval)).refresh == refresh
    assert f'<meta http-equiv="refresh" content="{refresh}">' in html(
        view_of(reading(interval=interval))
    )


def test_scopes_are_missing_only_where_they_are_needed() -> None:
    none = Granted.of([Scope.LIST_USERS])

    def missing(**changes: Any) -> set[Scope]:
        given = reading(**changes)
        findings = scope_findings(given.state.requirements, none)
        state = replace(given.state, granted=none, findings=findings)
        scopes = view_of(replace(given, state=state)).scopes
        return {one.scope for one, status in scopes if status is ScopeStatus.MISSING}

    plain = Rules((DEFAULT,))
    assert missing(rules=plain, enforce=False) == {Scope.READ_SERVERS}
    assert missing(enforce=False) == {Scope.READ_SERVERS, Scope.READ_GROUPS}
    assert missing(rules=plain, busy_check=BusyCheck.OFF) == {
        Scope.READ_SERVERS,
        Scope.DELETE_SERVERS,
        Scope.TOKENS,
    }
    assert missing() == set(Scope) - {Scope.LIST_USERS}


def test_scopes_are_not_called_missing_before_the_token_was_seen() -> None:
    scopes = view_of(first()).scopes
    assert [one.scope for one, _ in scopes] == list(Scope)
    assert {status for _, status in scopes} == {ScopeStatus.UNKNOWN}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gate": GateState.OFF}, "off: in monitor mode"),
        ({"busy_check": BusyCheck.OFF}, "off (--busy-check)"),
        ({}, "on: each server is asked"),
        ({"state": {"safeguards": NO_SAFEGUARDS}}, "not possible: the roles of"),
        ({"state": {"safeguards": NO_SAFEGUARDS, "granted": None}}, "not known"),
    ],
)
def test_whether_servers_are_asked_is_said(changes: dict[str, Any], said: str) -> None:
    assert view_of(reading(**changes)).asking.startswith(said)


# ---- how well people are protected --------------------------------------------------------------

AMBER, GREEN, RED = "b07a00", "2e8555", "b3261e"


def colours(given: Reading) -> tuple[str, str]:
    """Give the class of the mode's box and the colour of the icon."""
    document = Document(html(view_of(given)))
    (mode,) = [a["class"] for a in document.all("div") if a.get("id") == "mode"]
    (icon,) = [a["href"] or "" for a in document.all("link")]
    return mode or "", icon.partition("fill='%23")[2][:6]


def test_it_is_green_when_servers_are_stopped_with_every_safeguard() -> None:
    assert colours(reading()) == ("mode good", GREEN)
    assert "protection" not in text_of(reading())


@pytest.mark.parametrize("mode", BusyCheck)
@pytest.mark.parametrize("lacking", ["asks_servers", "stop_tokens", "lease"])
def test_without_a_safeguard_it_is_never_green(lacking: str, mode: BusyCheck) -> None:
    """For whoever goes without: amber, and what that means in plain words."""
    less = replace(WHOLE, **{lacking: False})
    given = reading(busy_check=mode, state={"safeguards": less})
    assert colours(given) == ("mode warn", AMBER)
    said = text_of(given)
    assert "Servers are stopped with less protection than is possible." in said
    (sentence,) = less.lacks
    assert sentence in said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("off", ("mode calm", GREEN)),
        ("stale", ("mode good", AMBER)),
        ("first", ("mode warn", AMBER)),
        ("failed", ("mode warn", RED)),
        ("suspended", ("mode warn", AMBER)),
        ("less protection", ("mode warn", AMBER)),
    ],
)
def test_the_colours_fit_the_state(given: str, expected: tuple[str, str]) -> None:
    assert colours(STATES[given]()) == expected


def test_what_will_be_stopped_with_less_protection_is_said_before() -> None:
    waiting = reading(
        gate=GateState.GRACE, why="90 s left", state={"safeguards": NO_SAFEGUARDS}
    )  # fmt: skip
    assert "Servers will be stopped with less protection" in text_of(waiting)
    assert colours(waiting) == ("mode warn", AMBER)


ROLES = (
    "c.JupyterHub.load_roles.extend([\n"
    "    {'name': 'idle-exporter', 'services': ['idle-exporter'], 'scopes': ['list:users',"
    " 'read:servers', 'delete:servers', 'proxy', 'tokens!user=idle-prober',"
    " 'tokens!service=idle-prober']},\n"
    "    {'name': 'idle-prober', 'users': ['idle-prober'], 'scopes': ['access:servers',"
    " 'delete:servers']},\n"
    "])"
)


def preformatted(given: Reading) -> list[str]:
    """Give what can be pasted from the page."""
    document = Document(html(view_of(given)))
    return ["".join(text).strip() for text in document.preformatted]


@pytest.mark.parametrize("state", ["suspended", "less protection"])
def test_roles_that_are_missing_are_named_with_what_to_paste(state: str) -> None:
    given = STATES[state]()
    said = text_of(given)
    for sentence in ("lacks the scope proxy, which is needed to find", "lacks the scopes tokens!"):
        assert said.count(sentence) == 1
    assert preformatted(given) == [ROLES]


def test_what_suspends_is_said_once_and_not_in_the_box_as_well() -> None:
    said = text_of(STATES["suspended"]())
    assert "nothing is stopped until the requirements below are met" in said
    assert "stopped with less protection" not in said


def test_a_token_that_may_not_even_list_users_is_told_what_to_paste() -> None:
    given = STATES["unreadable"]()
    assert "The Hub could not be read. the token lacks the scope list:users" in text_of(given)
    assert preformatted(given) == [ROLES]


@pytest.mark.parametrize(
    "finding",
    [
        *clock_findings(7200.0, CullSettings(enforce=True)),
        Finding(Subject.PROBE_USER, Severity.SUSPENDS, "somebody signed in as idle-prober"),
        Finding(Subject.VERSION, Severity.SUSPENDS, "JupyterHub 2.3.1 is too old to cull"),
    ],
    ids=lambda finding: str(finding.subject),
)
def test_what_no_role_would_help_against_is_named_without_roles(finding: Finding) -> None:
    found = {"findings": (finding,)}
    given = reading(state=found, gate=GateState.SUSPENDED, why=str(finding))
    assert str(finding) in text_of(given)
    assert preformatted(given) == []


def test_another_exporter_that_holds_the_lease_is_named() -> None:
    why = "another exporter of this Hub holds the lease and stops servers"
    given = reading(gate=GateState.SUSPENDED, why=why)
    assert f"Suspended (enforcement: suspended) {why}" in text_of(given)
    assert "Requirements" not in text_of(given)


def test_monitoring_speaks_of_no_safeguards() -> None:
    assert "protection" not in text_of(STATES["off"]())
    assert preformatted(STATES["off"]()) == []


def test_every_outcome_has_its_own_words() -> None:
    meanings = (
        (Withheld, WITHHELD), (CullFailure, FAILED), (ProbeResult, ANSWERS),
        (Cause, POLL_FAILURES),
    )  # fmt: skip
    for values, words in meanings:
        assert list(words) == list(values)
        assert len(set(words.values())) == len(words)


# ---- the words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0 s"), (0.9, "0 s"), (59, "59 s"), (5400, "1 h 30 min"), (86400, "1 d"),
     (90061, "1 d 1 h 1 min 1 s"), (86405, "1 d 5 s")],
)  # fmt: skip
def test_limits_are_written_in_full(seconds: float, written: str) -> None:
    assert spoken(seconds).replace("\N{NO-BREAK SPACE}", " ") == written


@pytest.mark.parametrize(
    ("seconds", "written"), [(12, "12 s"), (725, "12 min 5 s"), (90061, "1 d 1 h"), (86405, "1 d")]
)
def test_ages_are_written_in_two_units(seconds: float, written: str) -> None:
    assert about(seconds).replace("\N{NO-BREAK SPACE}", " ") == written


def test_shares_and_counts_read_well() -> None:
    assert [percent(x).replace("\N{NO-BREAK SPACE}", " ") for x in (0, 0.004, 0.5, 1)] == [
        "0 %", "< 1 %", "50 %", "100 %",
    ]  # fmt: skip
    assert number(12345) == "12,345"
    assert [brief(s).replace("\N{NO-BREAK SPACE}", " ") for s in (0.004, 61.26)] == [
        "4 ms",
        "61.3 s",
    ]


def test_a_good_poll_is_told() -> None:
    counts: Counts = {("default", Reason.IDLE): 7.0, ("gone from the file", Reason.MAX_AGE): 2.0}
    totals = replace(NOTHING, polls=3, culls=counts, withheld={("busy",): 5.0},
                     idle_server_seconds={("default",): 5400.0})  # fmt: skip
    said = text_of(reading(totals=totals))
    for sentence in (
        "JupyterHub 6.1.1 at http://hub:8081/hub/api", "As of the last successful poll, 12 s ago",
        "Enforcing (enforcement: on)", "servers past their limit are stopped",
        "Running servers 6", "past a limit: 2 idle, 1 too old",
        "1 exempt, excluded or outside the token's scope",
        "past the default limit of 1 h", "1 h (default) 3 60 %", "staff exempt 1 h none",
        "gpu 2 h 1 d", "default 1 h none 1 2 1 2 1.5", "Stopped: 9", "gone from the file 0 2",
        "Withheld: 5", "a kernel was busy 5", "+0.4 s compared with ours", "took 125 ms",
        "--grace 10m", "hub-idle-exporter 1.2.3",
    ):  # fmt: skip
        assert sentence in said


def test_a_failed_poll_is_told_with_its_sentence_and_since_when() -> None:
    said = text_of(failed())
    assert "The Hub could not be read. http://hub:8081/hub/api is gone" in said
    assert "failing since 2026-11-18 11:05:10 UTC (1 min 30 s)" in said
    assert "last successful poll was 2 min 30 s ago" in said
    assert "nothing is stopped until the Hub can be read again" in said
    assert "<title>Poll failed" in html(view_of(failed()))


def test_a_hub_never_seen_is_told() -> None:
    assert "None has succeeded yet." in text_of(failed(state={"last_success": None}))


def test_the_first_poll_is_told() -> None:
    said = text_of(first())
    assert "The first poll is under way." in said
    assert "600 s of grace left" in said
    assert "could not be read" not in said


def test_old_numbers_and_a_refused_policy_file_are_told() -> None:
    assert "These numbers are 3 min old." in text_of(STATES["stale"]())
    assert "The policy file was changed and is invalid." in text_of(STATES["refused"]())


def test_monitoring_says_that_nothing_is_stopped() -> None:
    said = text_of(STATES["off"]())
    assert "Nothing is stopped without --enforce" in said
    assert "Withheld" not in said


def test_no_user_is_named_unless_asked_for() -> None:
    names = {user.name for user in people()}
    source = html(view_of(reading()))
    assert not [name for name in names if re.search(rf"\b{name}\b", source)]
    said = text_of(reading(per_server=True))
    assert said.index("bob lab idle 1 d 6 h") < said.index("sue (default) idle 5 h")
    assert "All 6." in said


def test_servers_are_capped_the_most_idle_kept() -> None:
    many = [User(f"u{n}", False, (), {"": server(n)}) for n in range(MOST_SERVERS + 7)]
    view = view_of(reading(many, per_server=True))
    assert view.facts is not None
    idle = [row.idle for row in view.facts.most_idle]
    assert idle == [float(n) for n in range(MOST_SERVERS + 6, 6, -1)]
    assert f"The first {MOST_SERVERS} of {MOST_SERVERS + 7}" in text_of(
        reading(many, per_server=True)
    )


# ---- the HTML -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_it_is_sound_html_that_can_be_read_aloud(state: str) -> None:
    source = html(view_of(STATES[state]()))
    document = Document(source)
    assert source.startswith("<!doctype html>")
    assert document.faults == []
    assert document.open == []
    assert document.all("html") == [{"lang": "en"}]
    assert [tag for tag, _ in document.elements if tag in ("h1", "title", "main")] == [
        "title", "h1", "main",
    ]  # fmt: skip
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in document.all("section")} <= set(ids)
    assert len(document.all("caption")) == len(document.all("table"))
    assert all(th.get("scope") in ("row", "col") for th in document.all("th"))


@pytest.mark.parametrize("state", STATES)
def test_it_runs_nothing_and_asks_for_nothing_elsewhere(state: str) -> None:
    document = Document(html(view_of(STATES[state]())))
    assert not {"script", "iframe", "object", "img", "form"} & {t for t, _ in document.elements}
    assert not [a for _, attributes in document.elements for a in attributes if a.startswith("on")]
    links = [a["href"] for tag, a in document.elements if tag in ("a", "link")]
    assert [link for link in links if not (link or "").startswith("data:")] == [
        "metrics", "-/healthy", "-/ready",
    ]  # fmt: skip


def test_whatever_comes_from_outside_is_escaped() -> None:
    attack = f"\"'></td></style>{HOSTILE}<img src=x onerror=alert(1)>&amp;{{{{ 7*7 }}}}"
    policy = replace(GPU, name=attack)
    rules = Rules((policy, DEFAULT))
    users = [User(attack, False, (attack,), {attack: server(2 * HOUR)})]
    totals = replace(NOTHING, culls={(attack, Reason.IDLE): 1.0})
    common: dict[str, Any] = {"why": attack, "totals": totals, "exporter_version": attack}
    good = reading(users, rules, per_server=True, **common)
    odd = replace(good.state, version=attack)
    settings = replace(good.settings, connection=ConnectionSettings(attack))
    error = PollError(Cause.RESPONSE, attack)
    for given in (
        replace(good, state=odd, settings=settings),
        failed(state={"error": error}, shown={attack: attack}, settings=settings, **common),
    ):
        document = Document(html(view_of(given)))
        assert document.faults == []
        assert not {"script", "img"} & {tag for tag, _ in document.elements}
        assert "".join(document.text).count(attack) >= 4


def test_names_cannot_turn_the_text_around() -> None:
    policy = replace(GPU, name="a\u202eb\x00c\nd")
    source = html(view_of(reading(rules=Rules((policy, DEFAULT)))))
    assert "a\\u202eb\\x00c\\nd" in source


def test_ten_thousand_servers_are_no_more_work_than_ten() -> None:
    assert _calls(10_000) < 1.1 * _calls(10)


def _calls(servers: int) -> int:
    """Return how many functions are called to render a Hub with so many servers."""
    users = [User(f"u{n}", False, (), {"": server(n * 10.0)}) for n in range(servers)]
    given = reading(users)
    html(view_of(given))  # what is done once is done by now
    profile = cProfile.Profile()
    profile.runcall(lambda: html(view_of(given)))
    return sum(entry.callcount for entry in profile.getstats())


# ---- the real process ---------------------------------------------------------------------------


def words(exporter: Exporter) -> str:
    """Give the page's source, with blanks that break."""
    answer = exporter.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return answer.text.replace("\N{NO-BREAK SPACE}", " ")


def test_it_never_waits_for_the_hub_nor_asks_it(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    released = threading.Event()
    fake_hub.plan("GET", "/users", hang(released))
    exporter = run_exporter(fake_hub, "--interval=1h")
    fake_hub.wait_for("GET", "/users")
    asked = len(fake_hub.log("GET", "/users*"))
    assert "The first poll is under way." in words(exporter)
    assert len(fake_hub.log("GET", "/users*")) == asked
    released.set()
    exporter.wait_value(1, "jupyterhub_up")
    assert "The first poll is under way." not in words(exporter)


def test_it_follows_the_hub_down_and_up_again(fake_hub: FakeHub, run_exporter: RunExporter) -> None:
    fake_hub.add_server("ana", idle=10)
    fake_hub.add_server("bob", idle=7200)
    exporter = run_exporter(fake_hub, "--interval=1s")
    exporter.wait_value(1, "jupyterhub_up")
    assert "<title>1 idle of 2" in words(exporter)
    fake_hub.hang_up()
    exporter.wait_value(0, "jupyterhub_up")
    down = words(exporter)
    assert "<title>Poll failed" in down
    assert "cannot be reached" in down
    assert "idle of 2" not in down
    fake_hub.listen()
    exporter.wait_value(1, "jupyterhub_up")
    assert "<title>1 idle of 2" in words(exporter)


def test_its_numbers_are_those_of_metrics(fake_hub: FakeHub, run_exporter: RunExporter) -> None:
    rest = FakeServer()
    with rest:
        for number_ in range(3):
            fake_hub.add_server(f"gone-{number_}", idle=7200, target=rest)
        fake_hub.add_server("ana", idle=5)
        exporter = run_exporter(fake_hub, "--interval=1s", "--enforce", "--grace=0")
        exporter.wait_value(3, "hub_idle_exporter_culls_total")
        exporter.wait_polls(1)
        source = words(exporter)
    assert "<title>0 idle of 1" in source
    assert "Stopped: 3" in source
    assert "Asked: 3" in source
    assert "gone-" not in source


def test_servers_are_named_only_when_asked_for(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    fake_hub.add_server("we ird@ex.org", "lab", idle=7200)
    for options, named in (((), False), (("--per-server-metrics",), True)):
        exporter = run_exporter(fake_hub, *options)
        exporter.wait_value(1, "jupyterhub_up")
        assert ("we ird@ex.org" in words(exporter)) is named


# ---- a real browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(tool_or_skip("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that enforces, with a hostile policy and long names, and has culled."""
    at = tmp_path_factory.mktemp("page")
    (at / "policies.yaml").write_text(
        f"policies:\n  - name: \"{HOSTILE}\"\n    match: {{groups: ['<b>*']}}\n    timeout: 90m\n"
        f"  - name: {'long-' * 40}\n    match: {{users: ['gpu-*']}}\n    exempt: true\n"
    )
    with FakeHub() as hub, FakeServer() as rest, FakeServer() as busy:
        busy.jupyter = Jupyter()
        busy.jupyter.add_kernel("busy")
        for number_ in range(40):
            hub.add_server(f"user-{number_}", idle=number_ * 400, age=90_000, target=busy)
        hub.add_user("mallory" * 12, groups=["<b>x"])
        hub.add_server("mallory" * 12, "<img src=x onerror=alert(1)>", idle=9000, target=rest)
        hub.add_server("new", pending="spawn", idle=None, age=3)
        options = ["--enforce", "--grace=0", "--interval=60s", "--per-server-metrics"]
        options.append(f"--policy-file={at / 'policies.yaml'}")
        with Exporter(hub.url, hub.token, options, directory=at) as exporter:
            exporter.wait_event("culled")
            yield exporter


@pytest.fixture(scope="module")
def unseen() -> Iterator[Exporter]:
    """An exporter whose Hub is down."""
    with FakeHub() as hub:
        hub.hang_up()
        options = ["--enforce", "--interval=60s"]
        with Exporter(hub.url, hub.token, options) as exporter:
            exporter.wait_event("poll_failed")
            yield exporter


@pytest.fixture(scope="module")
def unsafe() -> Iterator[Exporter]:
    """An exporter that stops servers though it cannot ask them."""
    with FakeHub() as hub:
        hub.tokens[hub.token].scopes = [*CULLERS_ROLE]
        for number_ in range(3):
            hub.add_server(f"user-{number_}", idle=7200)
        options = ["--enforce", "--busy-check=auto", "--grace=0", "--interval=60s"]
        with Exporter(hub.url, hub.token, options) as exporter:
            exporter.wait_event("culled", count=3)
            yield exporter


CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => {
    const [r, g, b] = parse(c).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parse(c).length < 4 || parse(c)[3] > 0) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const style = getComputedStyle(e);
    if (says && ratio(style.color, ground(e)) < 4.5)
      found.push([e.className, e.textContent.slice(0, 30), ratio(style.color, ground(e))]);
    if (e.closest(".bar, .stack") && e.tagName === "SPAN"
        && ratio(style.backgroundColor, ground(e.closest("section"))) < 3)
      found.push([e.className, "bar", ratio(style.backgroundColor, ground(e.closest("section")))]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", ["seen", "unseen", "unsafe"])
def test_in_a_browser(
    browser: Browser,
    request: pytest.FixtureRequest,
    state: str,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    exporter: Exporter = request.getfixturevalue(state)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, asked = _listen(page)
    page.goto(f"{exporter.address}/")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRAST) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
    assert dark is (scheme == "dark")
    page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [f"{exporter.address}/"]


def _listen(page: Page) -> tuple[list[str], list[str]]:
    """Collect what the console, or a dialogue of a script, says, and what is asked for."""
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialogue: complaints.append(dialogue.message))
    page.on("request", lambda wanted: asked.append(wanted.url))
    return complaints, asked


def test_page_and_metrics_agree_on_what_protects_people(
    browser: Browser, seen: Exporter, unsafe: Exporter
) -> None:
    for exporter, tone, shown in ((seen, "good", 1), (unsafe, "warn", 0)):
        page = browser.new_page()
        page.goto(f"{exporter.address}/")
        assert page.locator("#mode").get_attribute("class") == f"mode {tone}"
        assert page.locator("#unmet pre").count() == 1 - shown
        page.close()
        for one in ("busy_check", "stop_token", "lease"):
            value = exporter.metrics().value("hub_idle_exporter_safeguard", safeguard=one)
            assert value == shown, one
        assert exporter.metrics().value("hub_idle_exporter_enforcement", state="on") == 1


def test_hostile_names_are_only_read_in_a_browser(browser: Browser, seen: Exporter) -> None:
    page = browser.new_page()
    page.goto(f"{seen.address}/")
    assert page.locator("script, img").count() == 0
    assert page.get_by_role("rowheader", name=HOSTILE).count() >= 1
    page.close()


@pytest.mark.parametrize("width", [320, 1280])
def test_tables_stay_tables_for_those_who_listen(
    browser: Browser, seen: Exporter, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{seen.address}/")
    policies = page.get_by_role("region", name="Policies").get_by_role("table")
    assert policies.get_by_role("columnheader").count() == 8
    assert policies.get_by_role("rowheader").all_inner_texts()[-1] == "default"
    assert page.get_by_role("heading", level=1).count() == 1
    page.close()
