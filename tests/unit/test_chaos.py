"""`make chaos` finds what must never happen: each kind is planted here, beside what is allowed."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from chaos import account
from chaos.margins import margins, too_late
from chaos.people import HABITS
from chaos.policies import Policies
from chaos.record import Event, Evidence, Life, Line, Outcome, Record, Scrape, line_of, stops_of
from chaos.verdict import verdict
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.policy_file import parse

LIMIT = 12.0
EXPORTER = "service hub-idle-exporter"
PERSON = "service test-admin"
PID = 7


def at(t: float, what: str, user: str = "ana", pid: int = PID, by: str = "", **told: Any) -> Event:
    return Event(t, what, user, "", pid, by, told)


def stop(t: float, by: str = EXPORTER, ends: str | None = "ended", **more: Any) -> list[Event]:
    """A stop that takes a second: `ends` is None where the Hub was killed in the middle."""
    alive = more.pop("alive", False)
    called = [at(t, "stop_called", by=by, **more)]
    if ends is None:
        return called
    return [*called, at(t + 1, f"stop_{ends}", alive=alive, **more)]


def version(t: float, *exempt: str, valid: bool = True) -> Event:
    return Event(t, "policy_file", told={"valid": valid, "exempt": exempt, "way": "new file"})


def pause(begin: float, end: float) -> list[Event]:
    told = {"trouble": "the Hub is paused", "number": 1}
    return [Event(begin, "trouble_begins", told=told), Event(end, "trouble_ends", told=told)]


def says(t: float, event: str = "culled", user: str = "ana", age: float = 20.0) -> Line:
    return Line(t, event, (user, ""), "", age)


def life(*lines: Line, name: str = "A1", ended: float | None = None, **more: Any) -> Life:
    ending = more.pop("ending", None if ended is None else "SIGTERM")
    return Life(name, 0.0, ended, ending, lines, **more)


def scrape(t: float, attempts: float = 0, culls: float = 0, failures: float = 0) -> Scrape:
    counters = {"cull_attempts": attempts, "culls": culls, "cull_failures": failures}
    return Scrape(
        t - 0.01, t, {f"hub_idle_exporter_{k}_total{{reason=idle}}": v for k, v in counters.items()}
    )


def found(events: list[Event], *lives: Life, **more: Any) -> list[str]:
    """The violations of a run that ended 1000 s after it began, as `rule: what`."""
    events = sorted(events, key=lambda event: event.t)
    evidence = Evidence(LIMIT, tuple(events), lives, ended=1000.0, **more)
    return [f"{violation.rule}: {violation.what}" for violation in verdict(evidence)]


def rules(events: list[Event], *lives: Life, **more: Any) -> list[str]:
    return [text.partition(" ")[0] for text in found(events, *lives, **more)]


STARTED = [at(80, "started")]
COUNTED = life(says(101.5))


# -- V1


def test_a_person_stopped_at_work_is_found() -> None:
    events = [*STARTED, at(95, "active"), *stop(100)]
    assert found(events, COUNTED) == [
        "V1 at work: ana/ was stopped 5.00 s after it was last used (limit 12 s)"
    ]


def test_a_busy_kernel_stopped_is_found_however_long_it_was_busy() -> None:
    events = [at(10, "started"), at(20, "busy"), *stop(100)]
    assert found(events, life(says(101.5, age=89))) == [
        "V1 at work: ana/ was stopped while a kernel was busy (limit 12 s)"
    ]


def test_a_kernel_that_came_to_rest_within_the_limit_is_found() -> None:
    events = [at(10, "started"), at(20, "busy"), at(90, "rest"), *stop(100)]
    assert rules(events, life(says(101.5, age=89))) == ["V1"]


def test_activity_while_a_kernel_is_busy_does_not_make_it_idle() -> None:
    events = [at(10, "started"), at(20, "busy"), at(30, "active"), *stop(100)]
    assert rules(events, life(says(101.5, age=89))) == ["V1"]


def test_a_server_that_was_just_started_is_at_work() -> None:
    assert rules([at(93, "started"), *stop(100)], life(says(101.5, age=6.9))) == ["V1"]


def test_a_stop_by_a_token_of_the_prober_is_a_stop_by_an_exporter() -> None:
    events = [*STARTED, at(95, "active"), *stop(100, by="user idle-prober")]
    assert rules(events, COUNTED) == ["V1"]


def test_a_failed_stop_of_a_person_at_work_is_found() -> None:
    events = [*STARTED, at(95, "active"), *stop(100, ends="failed")]
    assert rules(events, life(says(101.5, "cull_failed"))) == ["V1"]


@pytest.mark.parametrize("last", [88.0, 88.3, 99.75])
def test_idle_past_the_limit_or_back_in_the_last_moment_is_allowed(last: float) -> None:
    assert rules([at(60, "started"), at(last, "active"), *stop(100)], COUNTED) == []


@pytest.mark.parametrize("last", [88.4, 99.65])
def test_what_is_past_the_tolerance_is_found(last: float) -> None:
    assert rules([at(60, "started"), at(last, "active"), *stop(100)], COUNTED) == ["V1"]


@pytest.mark.parametrize(("asked", "expected"), [(97, []), (96, ["V1"])])
def test_who_came_back_after_the_last_question_could_not_be_known(
    asked: float, expected: list[str]
) -> None:
    """Only as long as a stop token lives: what the exporter knew must not be older."""
    events = [at(60, "started"), at(asked, "asked"), at(99, "active"), *stop(100)]
    assert rules(events, COUNTED) == expected
    evidence = Evidence(LIMIT, tuple(events), (COUNTED,), ended=200)
    assert too_late(evidence) == ([] if expected else [1.0])


def test_who_came_back_when_the_hub_had_taken_the_stop_could_not_be_known() -> None:
    assert rules([at(60, "started"), at(99, "active"), *stop(100, taken=98)], COUNTED) == []
    assert rules([at(60, "started"), at(97, "active"), *stop(100, taken=98)], COUNTED) == ["V1"]


def test_a_kernel_that_was_busy_when_the_server_was_asked_was_at_work() -> None:
    events = [at(60, "started"), at(80, "busy"), at(99, "asked"), *stop(100)]
    assert found(events, COUNTED)[0].startswith("V1 at work")


def test_who_was_back_when_the_server_was_asked_was_at_work() -> None:
    events = [at(60, "started"), at(96, "asked"), at(99, "active"), at(99.5, "asked"), *stop(100)]
    assert found(events, COUNTED)[0].startswith("V1 at work")


def test_people_may_stop_their_own_servers() -> None:
    assert rules([*STARTED, at(95, "active"), *stop(100, by=PERSON)]) == []


def test_what_an_orphan_does_is_not_what_the_new_server_does() -> None:
    events = [at(80, "started"), at(95, "active", pid=6), *stop(100)]
    assert rules(events, COUNTED) == []


def test_max_age_allows_a_stop_at_work_once_it_is_reached() -> None:
    events = [at(50, "started"), at(95, "active"), *stop(100)]
    assert rules(events, life(says(101.5, age=49)), max_age={"ana": 50}) == []
    assert rules(events, life(says(101.5, age=49)), max_age={"ana": 60}) == ["V1"]


def test_the_margin_is_what_was_left_of_the_limit() -> None:
    events = (at(60, "started"), at(85, "active"), *stop(100))
    (margin,) = margins(Evidence(LIMIT, events, ()))
    assert margin.seconds == 3.0


# -- V2

IDLE = [at(10, "started"), *stop(100)]
IDLE_COUNTED = life(says(101.5, age=89))


def test_an_exempt_server_stopped_is_found() -> None:
    (text,) = found([version(5, "ana"), *IDLE], IDLE_COUNTED)
    assert text.startswith("V2 exempt: ana/ was stopped, exempt since")


def test_an_exemption_must_have_been_in_force_for_a_while() -> None:
    assert rules([version(5), version(91, "ana"), *IDLE], IDLE_COUNTED) == []
    assert rules([version(5), version(89, "ana"), *IDLE], IDLE_COUNTED) == ["V2"]


def test_an_exemption_in_several_versions_is_one() -> None:
    versions = [version(80, "ana"), version(93, "ana", "bo"), version(98, "ana")]
    assert rules([*versions, *IDLE], IDLE_COUNTED) == ["V2"]


def test_pauses_do_not_count_for_the_exemption() -> None:
    assert rules([version(85, "ana"), *pause(86, 96), *IDLE], IDLE_COUNTED) == []


def test_half_a_file_and_an_invalid_one_lift_no_exemption() -> None:
    versions = [version(5, "ana"), version(95), version(95.3, "ana"), version(97, valid=False)]
    assert rules([*versions, *IDLE], IDLE_COUNTED) == ["V2"]


def test_a_version_that_stood_long_enough_lifts_an_exemption() -> None:
    versions = [version(5, "ana"), version(95), version(95.6, "ana")]
    assert rules([*versions, *IDLE], IDLE_COUNTED) == []


# -- V3


def test_a_stop_that_two_exporters_counted_is_found() -> None:
    both = life(says(101.5)), life(says(101.8), name="B1")
    assert found([*STARTED, *stop(100)], *both) == [
        "V3 twice: one stop of ana/ was counted by A1 (culled) and B1 (culled)"
    ]


def test_a_stop_that_one_counted_and_one_saw_fail_is_found() -> None:
    both = life(says(101.5)), life(says(101.8, "cull_failed"), name="B1")
    assert rules([*STARTED, *stop(100)], *both) == ["V3"]


def test_a_start_that_took_a_paused_hub_long_is_as_old_as_the_hub_says() -> None:
    """The Hub counts from when it was asked to start it."""
    events = [*STARTED, *stop(100), at(120, "started", pid=8), *stop(140, pid=8)]
    assert rules(events, life(says(101.5, age=20), says(141.5, age=38))) == []


def test_two_starts_are_two_stops() -> None:
    events = [*STARTED, *stop(100), at(103, "started", pid=8), *stop(120, pid=8)]
    assert rules(events, life(says(101.5, age=20), says(121.5, age=16.5))) == []


def test_a_late_line_is_about_the_start_before() -> None:
    """An exporter that was paused says what it stopped when the server runs again for long."""
    events = [at(85, "started"), *stop(100), at(102, "started", pid=8)]
    assert rules(events, life(says(125, age=15))) == []


def test_a_delete_that_never_reached_the_spawner_is_no_second_count() -> None:
    events = [*STARTED, *stop(100), at(103, "started", pid=8)]
    assert rules(events, life(says(101.5), says(120, "cull_failed", age=16))) == []


# -- V4


def test_a_failed_stop_counted_as_a_cull_is_found() -> None:
    assert found([*STARTED, *stop(100, ends="failed")], COUNTED) == [
        "V4 counts: ana/: a stop that failed was counted as a cull"
    ]


def test_a_stop_after_which_the_process_lives_on_is_a_failed_one() -> None:
    assert found([*STARTED, *stop(100, alive=True)], COUNTED) == [
        "V4 counts: ana/: a stop that failed was counted as a cull"
    ]


def test_a_stop_lost_with_the_hub_is_no_cull_unless_the_process_died() -> None:
    lost = [*STARTED, *stop(100, ends=None)]
    assert found(lost, COUNTED) == [
        "V4 counts: ana/: a stop that was lost with the Hub was counted as a cull"
    ]
    assert rules([*lost, at(100.5, "exit")], COUNTED) == []
    assert rules(lost) == []
    assert rules(lost, life(says(101.5, "cull_failed"))) == []


def test_a_stop_that_nobody_counted_is_found() -> None:
    assert found([*STARTED, *stop(100)], life()) == [
        "V4 counts: ana/: a stop that worked was not counted"
    ]
    assert found([*STARTED, *stop(100, ends="failed")], life()) == [
        "V4 counts: ana/: a stop that failed was not counted"
    ]


def test_a_stop_that_worked_and_was_counted_as_failed_is_found() -> None:
    assert found([*STARTED, *stop(100)], life(says(101.5, "cull_failed"))) == [
        "V4 counts: ana/: a stop that worked was counted as failed"
    ]


def test_an_exporter_that_ended_in_the_middle_could_not_count() -> None:
    assert rules([*STARTED, *stop(100)], life(ended=100.5)) == []
    assert rules([*STARTED, *stop(100)], life(ended=99)) == []  # the Hub had it in hand
    assert rules([*STARTED, *stop(100)], life(ended=80)) == ["V4"]


def test_a_cull_that_nobody_made_is_found() -> None:
    assert found(STARTED, COUNTED) == ["V4 counts: A1 counted a cull of ana/, which nobody stopped"]


def test_a_server_that_its_person_stopped_at_the_same_moment_may_be_counted() -> None:
    assert rules([*STARTED, *stop(100, by=PERSON)], COUNTED) == []


def test_more_outcomes_than_attempts_are_found() -> None:
    scrapes = (scrape(50), scrape(102, attempts=0, culls=1))
    (text,) = found([*STARTED, *stop(100)], life(says(101.5), scrapes=scrapes))
    assert text.startswith("V4 counts: A1: 1 more outcomes than attempts")


def test_a_counter_behind_its_own_log_is_found() -> None:
    scrapes = (scrape(110, attempts=1),)
    (text,) = found([*STARTED, *stop(100)], life(says(101.5), scrapes=scrapes, ended=120))
    assert text.startswith("V4 counts: A1: 1 culls in the log, 0 on /metrics")


def test_a_counter_ahead_of_its_own_log_is_found_unless_it_was_killed() -> None:
    scrapes = (scrape(101, attempts=1, culls=1),)
    assert rules([], life(scrapes=scrapes, ended=120)) == ["V4"]
    assert rules([], life(scrapes=scrapes, ended=120, ending="SIGKILL")) == []


def test_an_attempt_without_an_outcome_at_the_end_is_found() -> None:
    scrapes = (scrape(900, attempts=2, failures=1),)
    assert found([], life(scrapes=scrapes)) == [
        "V4 counts: A1: 1 attempts have no outcome at the end"
    ]
    assert rules([], life(scrapes=scrapes, ended=901)) == []


def test_counters_that_add_up_are_allowed() -> None:
    scrapes = (scrape(100.5, attempts=1), scrape(110, attempts=1, culls=1))
    assert rules([*STARTED, *stop(100)], life(says(101.5), scrapes=scrapes)) == []


# -- V5

LEFT = frozenset({("ana", "")})


def test_a_forgotten_server_that_is_left_is_found() -> None:
    assert found([*STARTED], life(), left=LEFT) == [
        "V5 left: ana/ was forgotten, and still runs at the end"
    ]


@pytest.mark.parametrize(
    "more", [at(995, "active"), at(100, "busy"), version(5, "ana"), at(90, "kept", pid=0)]
)
def test_who_works_keeps_or_is_exempt_may_be_left(more: Event) -> None:
    assert rules([*STARTED, more], left=LEFT) == []


# -- V6


def test_a_traceback_is_found() -> None:
    log = 'nothing\nTraceback (most recent call last):\n  File "x"\nKeyError: 1\n'
    assert found([], life(log=log)) == ["V6 conduct: A1 wrote a traceback"]


def test_an_exporter_that_ends_by_itself_is_found() -> None:
    ended = life(ended=100, ending="by itself with 2")
    assert found([], ended) == ["V6 conduct: A1 ended by itself with 2"]


def test_a_counter_that_went_backwards_is_found() -> None:
    scrapes = (scrape(50, attempts=3, failures=3), scrape(51, attempts=3, failures=2))
    (text,) = found([], life(scrapes=scrapes, ended=60))
    assert text.startswith("V6 conduct: A1 counted backwards")


def test_metrics_that_cannot_be_read_are_found() -> None:
    assert found([], life(unreadable=("ReadTimeout",))) == [
        "V6 conduct: A1: /metrics could not be read"
    ]


# -- V7

NOTICE = 4.0


def told(t: float, about: str = "idle", by: str = "A1") -> Event:
    return Event(t, "told", "ana", "", 0, by, {"about": about})


def announces(t: float, about: str = "idle") -> Line:
    return Line(t, "stop_announced", ("ana", ""), about)


def noticed(*events: Event, lines: tuple[Line, ...] = (), **more: Any) -> list[str]:
    """The violations around a stop at 100 s of a server that was started at 60 s."""
    happened = [at(60, "started"), *stop(100), *events]
    return found(happened, life(*lines, says(101.5, age=40)), notice=NOTICE, **more)


@pytest.mark.parametrize("when", [[], [told(55)], [told(90, "max_age")], [told(100.5)]])
def test_a_stop_of_which_nobody_was_told_is_found(when: list[Event]) -> None:
    """Nor for this start of the server, nor for being idle, nor before."""
    assert noticed(*when) == ["V7 notice: ana/ was stopped and its person was not told before"]


def test_a_stop_too_short_after_people_were_told_is_found() -> None:
    assert noticed(told(97.5)) == [
        "V7 notice: ana/ was stopped 2.50 s after it was announced (notice 4 s)"
    ]
    assert noticed(told(97.5), told(96)) == []


def test_a_stop_of_a_server_that_was_used_since_people_were_told_is_found() -> None:
    assert noticed(told(80), at(85, "active")) == [
        "V7 notice: ana/ was stopped though it was used 5.00 s after it was announced"
    ]
    assert noticed(told(80), at(85, "active"), told(94)) == []
    assert noticed(told(84.5), at(85, "active")) == []  # by the Hub's clock it may be before


def test_who_came_back_after_the_last_question_is_told_of_it_too_late_to_be_known() -> None:
    assert noticed(told(90), at(98, "asked"), at(99, "active")) == []


def test_an_exporter_that_was_paused_may_count_from_when_it_took_note() -> None:
    lines = (announces(90),)
    assert noticed(told(80), at(85, "active"), lines=lines) == []


def test_an_announcement_that_nobody_had_received_is_found() -> None:
    assert noticed(told(90), lines=(announces(89),)) == [
        "V7 notice: A1 announced the stop of ana/ to nobody"
    ]
    assert noticed(told(90), lines=(announces(90.1), announces(92))) == [
        "V7 notice: A1 announced the stop of ana/ to nobody"
    ]
    assert noticed(told(90), told(91, by="B1"), lines=(announces(90.1),)) == []


def test_the_account_gives_the_shortest_notice() -> None:
    events = (at(60, "started"), told(70), at(72, "active"), told(93), *stop(100))
    evidence = Evidence(LIMIT, events, (life(says(101.5, age=40)),), ended=200, notice=NOTICE)
    assert "shortest notice: 7.000 s of 4 s" in account.account(evidence, [])


def test_who_is_stopped_for_its_age_or_without_a_notice_need_not_be_told() -> None:
    assert noticed(max_age={"ana": 30.0}) == []
    assert rules([at(60, "started"), *stop(100)], life(says(101.5, age=40))) == []


# -- V8


def test_a_stop_of_a_kept_server_is_found_and_its_next_start_is_not_kept() -> None:
    kept = at(65, "kept", pid=0)
    stopped = [at(60, "started"), *stop(100)]
    (text,) = found([*stopped, kept], life(says(101.5, age=40)))
    assert text.startswith("V8 kept: ana/ was stopped, kept since")
    assert rules([at(50, "kept", pid=0), *stopped], life(says(101.5, age=40))) == []


# -- a good run, and its account


def test_a_good_run_has_no_violation_and_its_account_says_so() -> None:
    events = [version(1, "bo"), at(60, "started"), at(80, "active"), *pause(70, 75), *stop(100)]
    scrapes = (scrape(99), scrape(110, attempts=1, culls=1))
    good = life(says(101.5), Line(90, "cull_withheld", cause="busy"), scrapes=scrapes)
    evidence = Evidence(LIMIT, tuple(events), (good,), ended=200)
    assert verdict(evidence) == []
    text = account.account(evidence, [])
    assert "stops by exporters, by the spawner's record: 1 stopped" in text
    assert "culls counted: 1 " in text
    assert "withheld: 1 busy" in text
    assert "smallest margin: +8.000 s" in text
    assert text.endswith("violations: none")
    assert not account.saw_enough(evidence)


def test_the_story_of_a_violation_has_record_and_log() -> None:
    text = json.dumps({"event": "culled", "idle": 12.5, "why": "asked"})
    said = Line(101.5, "culled", ("ana", ""), "", 20, text)
    events = (*STARTED, at(95, "active"), *pause(96, 97), *stop(100), at(100, "active", "bo"))
    evidence = Evidence(LIMIT, events, (life(said),), ended=200)
    (violation,) = verdict(evidence)
    assert [line.partition(" ")[2] for line in violation.story] == [
        "started ana/ pid=7",
        "active ana/ pid=7",
        "trouble_begins trouble=the Hub is paused number=1",
        "trouble_ends trouble=the Hub is paused number=1",
        f"stop_called ana/ pid=7 by={EXPORTER}",
        "stop_ended ana/ pid=7",
        "A1 says culled idle=12.5 why='asked'",
    ]


# -- what is compared


def test_the_record_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.note("started", user="ana", server="", pid=PID)
    record.note("stop_called", user="ana", server="", pid=PID, by=EXPORTER)
    record.note("stop_ended", user="ana", server="", pid=PID, alive=False)
    (one,) = stops_of(record.read())
    assert (one.key, one.outcome, one.by_exporter) == (("ana", ""), Outcome.STOPPED, True)


def test_a_line_of_the_log_is_read_and_a_traceback_is_none() -> None:
    told = {"ts": "2026-11-25T21:00:00.500000Z", "event": "cull_failed", "user": "ana"}
    line = line_of(json.dumps(told | {"server": "lab", "cause": "slow", "age": 30.5}))
    assert line is not None
    assert (line.event, line.key, line.cause, line.age) == (
        "cull_failed",
        ("ana", "lab"),
        "slow",
        30.5,
    )
    assert line_of("Traceback (most recent call last):") is None


def test_a_policy_file_is_valid_whole_and_in_half_and_exempts_nobody_in_half(
    tmp_path: Path,
) -> None:
    record = Record(tmp_path / "record.jsonl")
    path = tmp_path / "policies.yaml"
    Policies(path, record, random.Random(1), ["exempt-1"], ["bo"], {"works-1": 40.0})
    text = path.read_bytes()
    default = Policy("default", LIMIT, 0.0)
    whole = parse(text, "whole", default)
    half = parse(text[: text.index(b"  - name: staff")], "half", default)
    assert [policy.max_age for policy in whole if policy.name.startswith("aged")] == [40.0]
    assert any(policy.exempt for policy in whole)
    assert not any(policy.exempt for policy in half)


def test_there_are_twenty_people_of_many_habits() -> None:
    assert sum(habit.count for habit in HABITS) == 20
    assert len(HABITS) >= 10
