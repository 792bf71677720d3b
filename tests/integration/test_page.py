"""The page at `/`: what it says, and that all of it is escaped."""

import cProfile
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import oracle
import pytest
import requests
import yaml
from conftest import RunExporter
from expected_roles import expected_roles
from exporter_process import Exporter
from fake_hub import ENFORCE, FakeHub, FakeServer, hang
from page_readings import (
    CULLERS_ROLE,
    DEFAULT,
    GPU,
    HOUR,
    NOTHING,
    NOW,
    OF_USERS,
    ORPHAN,
    RULES,
    STATES,
    WHOLE,
    Document,
    after_a_pass,
    deleting,
    entry,
    failed,
    first,
    idle_users,
    lacking_scopes_to_delete,
    people,
    reading,
    server,
    text_of,
    text_of_source,
    with_scopes,
)
from prometheus_client import CollectorRegistry

from hub_idle_exporter.clocks import read_clocks
from hub_idle_exporter.culling.audit import Audit
from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import GateState
from hub_idle_exporter.domain.idle_users import IdleUsers
from hub_idle_exporter.domain.labels import (
    Cause,
    CullFailure,
    Outcome,
    ProbeResult,
    UserKept,
    Withheld,
)
from hub_idle_exporter.domain.model import User
from hub_idle_exporter.domain.policy import Judge, Policy, Reason, Rules, State
from hub_idle_exporter.domain.poll_state import LatestState, PollError, Snapshot
from hub_idle_exporter.domain.probe_user import NO_SAFEGUARDS
from hub_idle_exporter.domain.requirements import (
    Finding,
    Severity,
    Subject,
    clock_findings,
    scope_findings,
)
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import BusyCheck, ConnectionSettings, CullSettings
from hub_idle_exporter.domain.spare_query import Opinion, Series
from hub_idle_exporter.domain.totals import Counts, Totals
from hub_idle_exporter.journal import LastPass
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.serving.facts import MOST_SERVERS, IdleBar
from hub_idle_exporter.serving.page import Page, html
from hub_idle_exporter.serving.reading import Listed, Reading, ServerFilter
from hub_idle_exporter.serving.view import Freshness, ScopeStatus, view_of
from hub_idle_exporter.serving.wording import (
    ANSWERS,
    FAILED,
    MEANINGS,
    NOT_DELETED,
    POLL_FAILURES,
    USER_KEPT,
    WITHHELD,
    about,
    brief,
    clock,
    number,
    spoken,
)

HOSTILE = "<script>alert('policy')</script>"


# ---- the view -----------------------------------------------------------------------------------


def test_states_candidates_and_who_is_kept_are_counted() -> None:
    facts = view_of(reading()).facts
    assert facts is not None
    assert facts.states == {State.ACTIVE: 2, State.IDLE: 3, State.PENDING: 1}
    assert facts.running == 6
    assert facts.would_stop_by_reason == {Reason.IDLE: 2, Reason.MAX_AGE: 1}
    assert facts.would_stop == 3
    assert facts.idle_kept == 1  # the one of staff


def spared(opinion: Opinion, **changes: Any) -> Reading:
    """The reading with a second opinion."""
    good = reading(**changes)
    judged = judge_all(Judge(RULES, Granted(), opinion=opinion), people(), NOW)
    snapshot = Snapshot(NOW, census_of(judged, RULES, good.names_servers))
    return replace(good, state=replace(good.state, snapshot=snapshot, opinion=opinion))


def test_who_is_spared_by_the_second_opinion_is_not_said_to_be_stopped() -> None:
    facts = view_of(given := spared(Opinion.of("q", 0.0, [Series({"user": "bob"}, 1.0)]))).facts
    assert facts is not None
    assert (facts.would_stop_by_reason, facts.spared) == ({Reason.IDLE: 0, Reason.MAX_AGE: 1}, 2)
    assert [row.would_stop for row in view_of(given).policies] == [0, 1, 0]
    assert "Would stop now 1 1 too old, 2 spared by the spare query" in text_of(given)
    assert "The spare query has no answer" not in text_of(given)
    named = spared(given.state.opinion or Opinion(""), per_server=True)
    assert "is past its idle limit, but Prometheus says 1 for it" in text_of(named)
    candidates = replace(named, asked=ServerFilter(Listed.CANDIDATE))
    assert [one.user for one in view_of(candidates).facts.listed] == ["gpu-1"]  # type: ignore[union-attr]


def test_a_spare_query_without_an_answer_is_told() -> None:
    given = spared(Opinion("q", problem="http://prometheus is gone"))
    said = "The spare query has no answer. Until Prometheus answers it, only servers of policies"
    assert said in text_of(given)
    assert "Would stop now 1 1 too old, 2 spared by the spare query" in text_of(given)
    assert view_of(given).light == "amber"


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
    assert [row.would_stop for row in rows] == [0, 1, 2]
    assert rows[2].servers == {State.ACTIVE: 1, State.IDLE: 2, State.PENDING: 1}


def test_a_limit_counts_what_it_would_make_candidates() -> None:
    """The one of staff is exempt, the GPU too old under each limit."""
    facts = view_of(reading()).facts
    assert facts is not None
    counts = {bar.limit: bar.count for bar in facts.limits}
    assert counts == {900: 3, 1800: 3, 3600: 3, 7200: 3, 14400: 2, 28800: 2, 86400: 2}
    assert [bar.limit for bar in facts.limits if bar.ours] == [3600]
    assert facts.limits[0].length == 1.0


def test_one_limit_has_one_number() -> None:
    """What would stop now is what the limit in force would stop, whatever the limit is."""
    for timeout in (HOUR, 2500.0, 5 * 86400.0):
        rules = Rules((*reading().state.rules.policies[:-1], Policy("default", timeout)))
        facts = view_of(reading(rules=rules)).facts
        assert facts is not None
        (ours,) = [bar for bar in facts.limits if bar.ours]
        assert (ours.limit, ours.count) == (timeout, facts.would_stop)
        assert [bar.limit for bar in facts.limits] == sorted(bar.limit for bar in facts.limits)


def test_idle_times_are_told_apart_by_the_limit_of_each_policy() -> None:
    facts = view_of(reading()).facts
    assert facts is not None
    assert facts.idle_times[0] == IdleBar(0.0, 60.0, 2, 0, 1.0, 0.0)
    assert sum(bar.count for bar in facts.idle_times) == 5
    assert sum(bar.idle for bar in facts.idle_times) == facts.states[State.IDLE]
    gpu = view_of(reading([User("gpu-1", False, (), {"": server(HOUR + 60)})])).facts
    assert gpu is not None
    assert [(bar.low, bar.count, bar.idle) for bar in gpu.idle_times] == [(HOUR, 1, 0)]


def test_what_comes_next_is_told_with_its_time() -> None:
    users = [User(f"u{n}", False, (), {"": server(HOUR - 60 * n)}) for n in range(1, 9)]
    said = text_of(reading([*users, *people()], success_age=0.0))
    assert "11:07 UTC, in 1 min policy default" in said
    assert "11:12 UTC, in 6 min" not in said  # the first five are enough
    named = text_of(reading(users, per_server=True, success_age=0.0))
    assert "11:07 UTC, in 1 min u1, policy default" in named
    old = [User("gpu-2", False, (), {"": server(60, age=23 * HOUR)})]
    assert "in 1 h policy gpu, by age" in text_of(reading(old, success_age=0.0))


def test_what_comes_next_counts_from_the_poll_and_not_from_when_it_is_shown() -> None:
    users = [User("u", False, (), {"": server(HOUR - 600)})]
    said = text_of(reading(users, success_age=240.0, interval=3600.0))
    assert "11:12 UTC, in 6 min policy default" in said
    late = text_of(reading(users, success_age=900.0, interval=3600.0))
    assert "11:01 UTC, by now policy default" in late


def test_no_servers_at_all_is_no_division_by_zero() -> None:
    view = view_of(STATES["empty"]())
    assert view.facts is not None
    assert (view.facts.running, view.title) == (0, "0 idle of 0")
    assert view.facts.idle_times == ()
    assert all(bar.length == 0 for bar in view.facts.limits)
    assert "No servers are running." in text_of(STATES["empty"]())


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
        assert all(row.servers is None and row.would_stop is None for row in view.policies)
        assert "Idle for" not in text_of(given)
        assert "6.1.1" not in text_of(given)


@pytest.mark.parametrize(
    ("interval", "refresh"), [(1.0, 5), (5.0, 5), (30.0, 30), (60.0, 60), (3600.0, 60)]
)
def test_it_renews_itself_about_as_often_as_there_is_news(interval: float, refresh: int) -> None:
    assert view_of(reading(interval=interval)).refresh == refresh
    source = html(view_of(reading(interval=interval)))
    assert f'<noscript><meta http-equiv="refresh" content="{refresh}"></noscript>' in source
    assert f'<body data-refresh="{refresh}">' in source


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
    assert missing() == set(Scope) - {Scope.LIST_USERS, *OF_USERS}
    assert missing(deletes_users=True) == set(Scope) - {Scope.LIST_USERS}


def test_scopes_are_not_called_missing_before_the_token_was_seen() -> None:
    scopes = view_of(first()).scopes
    assert [one.scope for one, _ in scopes] == [one for one in Scope if one not in OF_USERS]
    assert {status for _, status in scopes} == {ScopeStatus.UNKNOWN}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"enforce": False}, "off: in monitor mode"),
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


ROLES = expected_roles("idle-exporter")


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
    assert "Nothing is stopped until the requirements below are met." in said
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
    given = reading(gate=GateState.SUSPENDED, why=why, stands_by=True)
    assert f"Standing by A{why[1:]}." in text_of(given)
    assert colours(given) == ("mode calm", GREEN)
    assert "Requirements" not in text_of(given)


def test_monitoring_speaks_of_no_safeguards() -> None:
    assert "protection" not in text_of(STATES["off"]())
    assert preformatted(STATES["off"]()) == []


def test_every_outcome_has_its_own_words() -> None:
    meanings = (
        (Withheld, WITHHELD), (CullFailure, FAILED), (ProbeResult, ANSWERS),
        (Cause, POLL_FAILURES), ([*Outcome, *Withheld], MEANINGS), (Cause, NOT_DELETED),
    )  # fmt: skip
    assert set(USER_KEPT) == set(UserKept)  # the most usual first
    for values, words in (*meanings, (USER_KEPT, USER_KEPT)):
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


def test_counts_and_moments_read_well() -> None:
    assert number(12345) == "12,345"
    assert [brief(s).replace("\N{NO-BREAK SPACE}", " ") for s in (0.004, 61.26)] == [
        "4 ms",
        "61.3 s",
    ]
    assert clock(NOW).replace("\N{NO-BREAK SPACE}", " ") == "11:06 UTC"


def test_a_good_poll_is_told() -> None:
    counts: Counts = {("default", Reason.IDLE): 7.0, ("gone from the file", Reason.MAX_AGE): 2.0}
    totals = replace(NOTHING, polls=3, culls=counts, withheld={("busy",): 5.0},
                     idle_server_seconds={("default",): 5400.0})  # fmt: skip
    said = text_of(reading(totals=totals))
    for sentence in (
        "JupyterHub 6.1.1 at http://hub:8081/hub/api", "As of the last poll, 12 s ago",
        "Enforcing Servers past their limit are stopped, unless they say that they are in use.",
        "Servers 6", "Would stop now 3 2 idle unless found in use, 1 too old",
        "1 protected: exempt, kept, excluded, outside the token's scope or undecided",
        "Since 09:06 UTC: 9 stopped, 1.5 server-hours idle past the limit.",
        "1 h (in force) 3", "staff exempt 1 h none", "gpu 2 h 1 d", "default 1 h none 1 2 2 1.5",
        "Since the start: 9 stopped", "gone from the file 0 2",
        "a kernel was busy, or a terminal was open 5",
        "+0.4 s compared with ours", "took 125 ms", "Enforcement on", "--grace 10m",
        "hub-idle-exporter 1.2.3",
    ):  # fmt: skip
        assert sentence in said
    for nothing in ("used in the meantime", "Failed: ", "Answers when asked"):
        assert nothing not in said


def test_the_last_pass_is_told_and_no_sum_over_polls() -> None:
    said = text_of(after_a_pass(totals=replace(NOTHING, withheld={("busy",): 194.0})))
    assert (
        "11:06 UTC: 4 candidates What became of the candidates of the last pass stopped 1 a kernel"
        in said
    )
    assert said.index("a kernel was busy, or a terminal was open 3") < said.index("194")
    assert "A candidate that stays withheld is counted at each poll." in said
    assert "No culling pass has begun yet." in text_of(reading())
    nobody = reading(last_pass=LastPass(NOW, {}))
    assert "11:06 UTC: no candidates." in text_of(nobody)


def test_the_last_stops_and_withheld_candidates_are_told() -> None:
    said = text_of(after_a_pass())
    assert "11:06 UTC default idle 2 h stopped" in said
    withheld = "withheld a kernel was busy, or a terminal was open, 10 times, last 11:06 UTC"
    assert f"10:57 UTC default idle 2 h {withheld}" in said
    assert "09:10 UTC default idle 2 h failed still stopping after 5 minutes" in said


def test_names_and_what_a_server_said_are_told_only_where_names_are_allowed() -> None:
    for allowed in (False, True):
        said = text_of(after_a_pass(per_server=allowed, not_stopped=[ORPHAN]))
        for name in ("bob/lab", "sue/lab", "lost/lab", "a kernel is busy, for 600 s", "/users/new"):
            assert (name in said) is allowed, name


def test_a_server_that_outlived_its_stop_comes_first_and_is_red() -> None:
    given = STATES["orphan"]()
    said = text_of(given)
    assert colours(given)[1] == RED
    assert "1 server may still be running although it was stopped. 10:56 UTC, policy" in said
    assert "find its process, container or pod" in said
    assert said.index("may still be running") < said.index("Now Servers")
    seven = text_of(reading(not_stopped=[ORPHAN] * 7))
    assert "7 servers may still be running although they were stopped." in seven
    assert "and 2 more" in seven


def test_the_newest_twenty_are_told_and_servers_that_live_on_for_a_day() -> None:
    state = reading().state
    latest, settings = LatestState(state), reading().settings
    gatekeeper = Gatekeeper(True, 0.0, latest)
    metrics = Metrics(CollectorRegistry(), latest, gatekeeper.read, settings.poll)
    users = [User(f"u{number_}", False, (), {"": server(2 * HOUR)}) for number_ in range(25)]
    stopped = list(judge_all(Judge(RULES, Granted()), users, NOW))
    wall = read_clocks().wall
    for one in stopped:
        metrics.journal.ended(wall, one, Outcome.STOPPED)
    lives = (Outcome.FAILED, "it still runs", CullFailure.NOT_STOPPED)
    metrics.journal.ended(wall - 23 * HOUR, stopped[0], *lives)
    metrics.journal.ended(wall - 25 * HOUR, stopped[1], *lives)
    document = Document(Page(latest, gatekeeper, metrics, settings).render(ServerFilter()))
    outcomes = [cell for cell in document.all("td") if cell.get("data-column") == "Outcome"]
    assert len(outcomes) == 20
    assert "1 server may still be running" in "".join(document.text)


def test_counts_and_the_last_stops_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that is counted while the page is made is in both, or in neither."""
    latest, settings = LatestState(reading().state), reading().settings
    gatekeeper = Gatekeeper(True, 0.0, latest)
    metrics = Metrics(CollectorRegistry(), latest, gatekeeper.read, settings.poll)
    one = next(judge_all(Judge(RULES, Granted()), [people()[1]], NOW))
    stop = threading.Thread(target=Audit(metrics).stopped, args=(one, 0.1))
    counted = metrics.totals

    def counted_and_then_one_more() -> Totals:
        found = counted()
        stop.start()
        stop.join(0.2)  # it has to wait until the page is made
        return found

    monkeypatch.setattr(metrics, "totals", counted_and_then_one_more)
    said = text_of_source(Page(latest, gatekeeper, metrics, settings).render(ServerFilter()))
    stop.join(10)
    assert "Since the start: 0 stopped" in said
    assert "The last stops and withheld candidates None yet." in said


def test_what_lies_long_back_is_told_with_its_day() -> None:
    long_ago = entry(Outcome.STOPPED, 86400)
    assert "2026-11-17 11:06:40 UTC default" in text_of(reading(recent=[long_ago]))


def test_when_culling_starts_is_told() -> None:
    given = reading(gate=GateState.GRACE, why="grace period", opens_in=600.0)
    said = "Culling starts at 11:16 UTC Grace period. The first poll after it stops servers."
    assert said in text_of(given)
    outage = reading(gate=GateState.GRACE, why="the Hub has not answered for over a minute")
    assert "Waiting The Hub has not answered for over a minute." in text_of(outage)


def test_enforcing_without_asking_is_told_first() -> None:
    """Green, while servers that compute in silence are stopped, is the worst a page can say."""
    said = "Enforcing, but servers are not asked Silent computations are stopped."
    assert said in text_of(STATES["not asking"]())
    assert said in text_of(STATES["less protection"]())
    assert preformatted(STATES["less protection"]()) == [ROLES]


def test_roles_that_name_users_are_shown_only_where_names_are_allowed() -> None:
    """A filter of the token may name them: `list:users!user=alice`."""
    filtered = with_scopes("list:users!user=alice", "read:servers!user=alice", *CULLERS_ROLE[2:])
    for given, named in ((filtered, False), (per_server(filtered), True)):
        source = html(view_of(given))
        assert ("alice" in source) is named
        assert ("Run <code>hub-idle-exporter check</code> for the roles" in source) is not named


def test_findings_that_name_users_are_shown_only_where_names_are_allowed() -> None:
    """What the probe user may do too much names whom it may do it to."""
    wide = "the user idle-prober has more scopes than it needs: admin:users!user=alice b"
    finding = Finding(Subject.PROBE_USER, Severity.SUSPENDS, wide)
    of_prober = Finding(
        Subject.PROBE_USER, Severity.SUSPENDS, "grant read:servers!user=idle-prober"
    )
    given = reading(state={"findings": (finding, of_prober)}, gate=GateState.SUSPENDED, why=wide)
    hidden, shown = text_of(given), text_of(per_server(given))
    assert "alice" not in hidden
    assert "run hub-idle-exporter check" in hidden
    assert "grant read:servers!user=idle-prober" in hidden
    assert wide in shown


@pytest.mark.parametrize(
    "outcomes",
    [{Withheld.PROBE_FAILED: 30}, {Outcome.FAILED: 2}, {Withheld.LIST: 300}, {Withheld.STALE: 1}],
    ids=str,
)
def test_a_pass_in_which_nothing_could_be_stopped_is_amber(
    outcomes: dict[Outcome | Withheld, int],
) -> None:
    given = reading(last_pass=LastPass(NOW, outcomes))
    assert colours(given) == ("mode warn", AMBER)
    assert "Enforcing, but the last pass stopped nothing" in text_of(given)
    fine = reading(last_pass=LastPass(NOW, {**outcomes, Withheld.BUSY: 1}))
    assert colours(fine) == ("mode good", GREEN)


def test_a_finding_is_never_green_in_monitor_mode_either() -> None:
    """Its box is calm there: nothing is stopped anyway."""
    blind = Finding(Subject.HIDDEN_POLICY_DATA, Severity.SUSPENDS, "a policy matches on groups")
    watching: dict[str, Any] = {"enforce": False, "gate": GateState.OFF, "why": "monitoring only"}
    assert colours(reading(state={"findings": (blind,)}, **watching)) == ("mode calm", AMBER)
    assert colours(reading(**watching)) == ("mode calm", GREEN)


def test_a_broken_web_configuration_is_told() -> None:
    given = reading(web_config_valid=False)
    assert "The web configuration file was changed and is invalid." in text_of(given)
    assert colours(given)[1] == AMBER


def test_a_policy_that_is_gone_stays_chosen_in_the_filter() -> None:
    source = html(view_of(reading(asked=ServerFilter(policy="old"))))
    assert '<option value="old" selected>old (no such policy)</option>' in source


@pytest.mark.parametrize(
    "state",
    ["refused", "unreadable users", "suspended", "less protection", "stale", "first", "untold"],
)
def test_the_icon_is_green_only_if_all_is_well(state: str) -> None:
    given = STATES[state]() if state in STATES else with_unreadable_users()
    assert colours(given)[1] == AMBER


def with_unreadable_users() -> Reading:
    good = reading()
    assert good.state.snapshot is not None
    snapshot = replace(good.state.snapshot, unreadable=("deep-diver",))
    return replace(good, state=replace(good.state, snapshot=snapshot))


def per_server(given: Reading) -> Reading:
    poll = replace(given.settings.poll, per_server_metrics=True)
    return replace(given, settings=replace(given.settings, poll=poll))


def test_the_first_poll_without_grace_is_told_as_that() -> None:
    why = "the first poll has not ended yet"
    given = first(why=why, opens_in=None)
    assert "Waiting The first poll has not ended yet." in text_of(given)


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        (ServerFilter(), 6),
        (ServerFilter(Listed.CANDIDATE), 3),
        (ServerFilter(Listed.IDLE), 3),
        (ServerFilter(Listed.ACTIVE), 2),
        (ServerFilter(Listed.PENDING), 1),
        (ServerFilter(Listed.CANDIDATE, "gpu"), 1),
        (ServerFilter(policy="staff"), 1),
        (ServerFilter(policy="<no such>"), 0),
        (ServerFilter(reason=Reason.MAX_AGE), 1),
        (ServerFilter(Listed.CANDIDATE, "default", Reason.IDLE), 2),
    ],
)
def test_servers_are_listed_by_state_policy_and_reason(asked: ServerFilter, listed: int) -> None:
    facts = view_of(reading(per_server=True, asked=asked)).facts
    assert facts is not None
    assert (len(facts.listed), facts.matching) == (listed, listed)


def test_without_names_the_servers_past_their_limit_are_listed() -> None:
    said = text_of(reading(asked=ServerFilter(Listed.CANDIDATE)))
    assert "Servers past their limit: 3 match" in said
    assert "1 d 6 h 1 d 6 h idle default is past its idle limit" in said
    assert "Others are listed with --per-server-metrics." in text_of(
        reading(asked=ServerFilter(Listed.PENDING))
    )


def test_what_is_asked_for_is_read_or_refused_with_a_sentence() -> None:
    asked = ServerFilter.of({"state": "candidate", "policy": "a b", "reason": "max_age"})
    assert asked == ServerFilter(Listed.CANDIDATE, "a b", Reason.MAX_AGE)
    assert ServerFilter.of({"state": "", "policy": ""}) == ServerFilter()
    with pytest.raises(ValueError, match="state must be one of candidate, active, idle, pending"):
        ServerFilter.of({"state": "stop"})
    with pytest.raises(ValueError, match="reason must be one of idle, max_age, not 'x'"):
        ServerFilter.of({"reason": "x"})


def test_a_failed_poll_is_told_with_its_sentence_and_since_when() -> None:
    said = text_of(failed())
    assert "The Hub could not be read. http://hub:8081/hub/api is gone" in said
    assert "failing since 2026-11-18 11:05:10 UTC (1 min 30 s)" in said
    assert "last successful poll was 2 min 30 s ago" in said
    assert "Suspended Nothing is stopped until the Hub can be read again." in said
    assert "<title>Poll failed" in html(view_of(failed()))


def test_a_hub_never_seen_is_told() -> None:
    assert "None has succeeded yet." in text_of(failed(state={"last_success": None}))


def test_the_first_poll_is_told() -> None:
    said = text_of(first())
    assert "The first poll is under way." in said
    assert "Culling starts at 11:16 UTC" in said
    assert "could not be read" not in said


def test_old_numbers_and_a_refused_policy_file_are_told() -> None:
    assert "These numbers are 3 min old." in text_of(STATES["stale"]())
    assert "The policy file was changed and is invalid." in text_of(STATES["refused"]())


def test_people_who_could_not_be_told_are_counted_and_a_lost_state_file_is_named() -> None:
    said = text_of(STATES["untold"]())
    assert "People could not be told that their servers will be stopped: 3" in said
    assert "has failed since 09:06 UTC (2 h)" in said
    assert "its notice is not over, or could not be delivered 4" in said
    assert "could not be told" not in text_of(reading())
    lost = "the state file s.sqlite is lost: it was removed or replaced"
    said = text_of(reading(gate=GateState.SUSPENDED, why=lost))
    assert "Suspended The state file s.sqlite is lost: it was removed or replaced." in said


def test_monitoring_says_that_nothing_is_stopped() -> None:
    said = text_of(STATES["off"]())
    assert "Nothing is stopped without --enforce" in said
    assert "The last pass" not in said
    assert "withheld" not in said
    assert "Stopping them would give back 3 server-hours per hour." in said


def test_no_user_is_named_unless_asked_for() -> None:
    names = {user.name for user in people()}
    source = html(view_of(reading()))
    assert not [name for name in names if re.search(rf"\b{name}\b", source)]
    said = text_of(reading(per_server=True))
    assert said.index("bob lab 1 d 6 h 1 d 6 h idle") < said.index("sue (default) 5 h 10 h idle")
    assert "Servers: 6" in said


def test_servers_are_capped_the_most_idle_kept() -> None:
    many = [User(f"u{n}", False, (), {"": server(n)}) for n in range(MOST_SERVERS + 7)]
    view = view_of(reading(many, per_server=True))
    assert view.facts is not None
    idle = [one.idle for one in view.facts.listed]
    assert idle == [float(n) for n in range(MOST_SERVERS + 6, 6, -1)]
    assert f"The {MOST_SERVERS} most idle of {MOST_SERVERS + 7}" in text_of(
        reading(many, per_server=True)
    )


# ---- idle users ---------------------------------------------------------------------------------


def test_without_the_option_nothing_is_told_of_idle_users() -> None:
    given = reading()
    assert html(view_of(replace(given, idle_users=idle_users()))) == html(view_of(given))
    told = [state for state in STATES if 'id="part-users"' in html(view_of(STATES[state]()))]
    assert told == [state for state in STATES if state.startswith("users")] != []


def test_idle_users_are_counted_by_what_keeps_them() -> None:
    said = text_of(deleting(idle_users()))
    assert "Idle users: 3 to be deleted They are deleted one at a time, at each listing." in said
    assert "A deletion cannot be undone. Not active for 30 d or longer, as listed at " in said
    kept = (
        "Kept: 43 Kept administrator of the Hub 2 may match a policy that exempts 40 the probe user"
    )
    assert kept in said
    assert "Since the start: 7 deleted, 1 failed" in said
    unknown = "Failed, or result not known"
    assert f"{unknown}: 1 {unknown} the Hub answered with an error 1" in said
    assert "Kept, all listings together: 401" in said
    assert "active in the meantime 1" in said


def test_when_users_were_listed_is_told_by_our_clock() -> None:
    ahead = IdleUsers(NOW - 60 + 7200, ())
    given = deleting(ahead, state={"clock_skew": 7200.0})
    assert "as listed at 11:05 UTC" in text_of(given)


WAITS: dict[str, Any] = {"gate": GateState.GRACE, "why": "grace period: 600 s left"}
OTHER: dict[str, Any] = {"gate": GateState.SUSPENDED, "why": "another exporter enforces"}
WATCHES: dict[str, Any] = {"enforce": False, "gate": GateState.OFF, "why": "monitoring only"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (deleting(idle_users()), "3 to be deleted They are deleted one at a time, at each listing"),
        (deleting(idle_users(), max_culls=5), "one at a time, at most 5 an hour."),
        (
            deleting(idle_users(), state={"policy_error": "policies.yaml: a key is unknown"}),
            "Nobody is deleted while the policy file is invalid.",
        ),
        (deleting(idle_users(), **WAITS), "Nobody is deleted now: grace period: 600 s left."),
        (
            deleting(idle_users(), stands_by=True, **OTHER),
            "Nobody is deleted now: another exporter enforces.",
        ),
        (
            deleting(idle_users(), **WATCHES),
            "3 would be deleted Nobody is deleted without --enforce. A deletion cannot be undone.",
        ),
        (lacking_scopes_to_delete(), "Nobody is deleted until the requirements above are met."),
        (
            failed(deletes_users=True, idle_users=idle_users()),
            "not known while the Hub cannot be read Nobody is deleted until the Hub can be read",
        ),
        (first(deletes_users=True), "Idle users: not listed yet Nobody is deleted now: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whether_idle_users_are_deleted_is_said(given: Reading, said: str) -> None:
    told = text_of(given)
    assert said in told
    assert ("They are deleted" in told) is ("one at a time" in said)


@pytest.mark.parametrize("state", ["users", "users, watched", "users, doubtful"])
def test_no_idle_user_is_named_whatever_is_allowed(state: str) -> None:
    assert "gone-" not in html(view_of(per_server(STATES[state]())))


def test_what_keeps_users_and_names_some_is_not_told_again() -> None:
    problem = "the user idle-prober has more scopes than it needs: admin:users!user=alice"
    finding = Finding(Subject.PROBE_USER, Severity.SUSPENDS, problem)
    given = deleting(
        idle_users(), state={"findings": (finding,)}, gate=GateState.SUSPENDED, why=problem
    )
    assert "alice" not in text_of(given)
    assert "Nobody is deleted until the requirements above are met." in text_of(given)


def test_a_listing_that_failed_is_told_and_never_green() -> None:
    given = deleting(listing_failed=True)
    assert "Idle users: could not be listed; the log says why" in text_of(given)
    assert colours(given)[1] == AMBER
    assert "Idle users: could not be listed Nobody" in text_of(lacking_scopes_to_delete())


def test_a_listing_that_may_have_gaps_is_told() -> None:
    said = "it may be wrong, so none of them is deleted"
    assert said in text_of(deleting(idle_users(complete=False)))
    assert said not in text_of(deleting(idle_users()))


def test_scopes_that_only_keep_users_are_no_lack_of_protection() -> None:
    given = lacking_scopes_to_delete()
    assert "Something is missing to delete idle users safely." in text_of(given)
    assert colours(given) == ("mode good", AMBER)
    lacking = replace(WHOLE, lease=False)
    given = replace(given, state=replace(given.state, safeguards=lacking))
    assert "Servers are stopped with less protection than is possible." in text_of(given)


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
    assert not {"iframe", "object", "img"} & {tag for tag, _ in document.elements}
    assert document.all("script") == [{}]  # the page's own, by its hash
    assert {form["action"] for form in document.all("form")} <= {"#list"}
    assert not [tag for tag, attributes in document.elements if "style" in attributes]
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
        assert "img" not in {tag for tag, _ in document.elements}
        assert document.all("script") == [{}]
        assert "".join(document.text).count(attack) >= 4


def test_names_cannot_turn_the_text_around() -> None:
    policy = replace(GPU, name="a\u202eb\x00c\nd")
    source = html(view_of(reading(rules=Rules((policy, DEFAULT)))))
    assert "a\\u202eb\\x00c\\nd" in source


def test_ten_thousand_servers_are_no_more_work_than_a_thousand() -> None:
    assert _calls(10_000) < 1.1 * _calls(1_000)


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
    assert "Since the start: 3 stopped" in source
    assert "Answers when asked: 3" in source
    assert "gone-" not in source


def test_idle_users_are_those_of_metrics_and_options_are_shown(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    fake_hub.tokens[fake_hub.token].scopes = [*ENFORCE, "admin:users"]
    fake_hub.users["idle-prober"].created = time.time() - 90 * 86400
    for name, admin in (("ana", False), ("bob", False), ("root", True)):
        fake_hub.add_user(name, admin=admin).last_activity = time.time() - 40 * 86400
    exporter = run_exporter(
        fake_hub, "--cull-users", "--user-timeout=35d", "--enforce", "--grace=0"
    )
    exporter.wait_value(2, "hub_idle_exporter_users_deleted_total")
    exporter.wait_value(0, "jupyterhub_idle_users", verdict="candidate")
    said = text_of_source(words(exporter))
    assert "Idle users: 0 to be deleted They are deleted one at a time" in said
    assert "Not active for 35 d or longer, as listed at" in said
    assert "Kept: 2 Kept administrator of the Hub 1 the probe user, or the owner" in said
    assert "Since the start: 2 deleted" in said
    assert "--cull-users true --user-timeout 35d --cull-admin-users false" in said
    assert not [name for name in ("ana", "bob", "root") if re.search(rf"\b{name}\b", said)]


POLICY_FILE = """\
policies:
  - {name: staff, match: {groups: [staff]}, exempt: true}
  - {name: gpu, match: {users: "gpu-*"}, timeout: 2h, max_age: 20h}
"""


def test_each_number_is_what_the_hub_says(
    fake_hub: FakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    """Counted anew from the Hub's own list, by the oracle."""
    dice = random.Random(11)
    for number_ in range(60):
        kind = ("u", "gpu", "staff")[number_ % 3]
        fake_hub.add_user(f"{kind}-{number_}", groups=["staff"] if kind == "staff" else [])
        idle = dice.choice([60.0, 1000.0, 2000.0, 5000.0, 9000.0, 20_000.0, 90_000.0])
        fake_hub.add_server(f"{kind}-{number_}", idle=idle, age=idle + dice.uniform(0, 80_000))
    fake_hub.add_server("new", pending="spawn", idle=None, age=3)
    (tmp_path / "p.yaml").write_text(POLICY_FILE)
    exporter = run_exporter(fake_hub, f"--policy-file={tmp_path / 'p.yaml'}", "--interval=1h")
    exporter.wait_value(1, "jupyterhub_up")
    said = text_of_source(exporter.get("/").text)
    listing = requests.get(
        f"{fake_hub.url}/users", headers={"Authorization": f"token {fake_hub.token}"}, timeout=15
    )
    told = Told(listing.json(), yaml.safe_load(POLICY_FILE)["policies"])
    counts = told.counted(3600)
    assert f"Servers {sum(counts.states.values())} In use {counts.states['active']}" in said
    assert f"Idle {counts.states['idle']} " in said
    assert f"Would stop now {counts.candidates.total()} " in said
    assert f"Starting or stopping {counts.states['pending']}" in said
    words_of = {900: "15 min", 1800: "30 min", 3600: "1 h (in force)", 7200: "2 h", 14400: "4 h",
                28800: "8 h", 86400: "1 d"}  # fmt: skip
    for limit, words in words_of.items():
        assert f" {words} {told.counted(limit).candidates.total()} " in said, words
    for policy, words in (("staff", "staff exempt 1 h none"), ("gpu", "gpu 2 h 20 h"),
                          ("default", "default 1 h none")):  # fmt: skip
        row = [counts.by_policy[policy, state] for state in ("active", "idle")]
        assert f"{words} {row[0]} {row[1]} {counts.candidates[policy]} 0.0" in said


@dataclass
class Counted:
    """How many servers there are by state, by policy and state, and candidates by policy."""

    states: Counter[str]
    by_policy: Counter[tuple[str, str]]
    candidates: Counter[str]


@dataclass
class Told:
    """A Hub's list of users and the policies, judged by the oracle."""

    listing: list[dict[str, Any]]
    policies: list[dict[str, Any]]

    def counted(self, timeout: float) -> Counted:
        """Count with this idle limit for those policies that have none of their own."""
        options = {
            "timeout": timeout, "max_age": 0, "policies": self._in_seconds(),
            "cull_default_servers": True, "cull_named_servers": True,
        }  # fmt: skip
        found = Counted(Counter(), Counter(), Counter())
        now = datetime.now(timezone.utc)
        for user in self.listing:
            for name in user["servers"]:
                one = oracle.opinion(user, name, options, ["delete:servers"], now)
                (policy,), (state,) = one.policies, one.states
                found.states[state] += 1
                found.by_policy[policy, state] += 1
                found.candidates[policy] += one.reason is not None
        return found

    def _in_seconds(self) -> list[dict[str, Any]]:
        hours = {"timeout": 3600, "max_age": 3600}
        return [
            {key: int(value[:-1]) * hours[key] if key in hours else value
             for key, value in policy.items()}
            for policy in self.policies
        ]  # fmt: skip


def test_servers_are_named_only_when_asked_for(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    fake_hub.add_server("we ird@ex.org", "lab", idle=7200)
    for options, named in (((), False), (("--per-server-metrics",), True)):
        exporter = run_exporter(fake_hub, *options)
        exporter.wait_value(1, "jupyterhub_up")
        assert ("we ird@ex.org" in words(exporter)) is named
