"""What became of candidates: of the last pass, the last ones of all, and those that live on."""

import dataclasses
from datetime import datetime, timezone

from hub_idle_exporter.domain.labels import CullFailure, Outcome, Withheld
from hub_idle_exporter.domain.model import Server
from hub_idle_exporter.domain.policy import JudgedServer, Policy, Reason, State
from hub_idle_exporter.journal import Entry, Journal

DEFAULT = Policy("default", 3600.0)


def candidate(user: str, started: float = 1.0) -> JudgedServer:
    seen = Server(ready=True, started=datetime.fromtimestamp(started, timezone.utc))
    return JudgedServer(user, "", seen, DEFAULT, State.IDLE, 7200.0, 9000.0, Reason.IDLE, None)


def test_no_pass_has_no_candidates() -> None:
    assert (Journal().last_pass().began, dict(Journal().last_pass().outcomes)) == (None, {})


def test_each_candidate_of_a_pass_has_exactly_one_outcome() -> None:
    journal = Journal()
    journal.begin_pass(100.0, map(candidate, "abc"), [candidate("d")])
    journal.ended(101.0, candidate("a"), Outcome.STOPPED)
    journal.ended(102.0, candidate("b"), Withheld.BUSY)
    found = journal.last_pass()
    assert found.began == 100.0
    assert found.outcomes == {
        Outcome.STOPPED: 1, Withheld.BUSY: 1, Outcome.UNDER_WAY: 1, Outcome.FAILED: 1,
    }  # fmt: skip


def test_a_pass_says_nothing_of_the_one_before() -> None:
    """Otherwise polls add up, and a server that computes all night counts hundreds of times."""
    journal = Journal()
    for at in (100.0, 160.0, 220.0):
        journal.begin_pass(at, [candidate("a")], [])
        journal.ended(at, candidate("a"), Withheld.BUSY)
    assert journal.last_pass().outcomes == {Withheld.BUSY: 1}


def test_what_is_no_candidate_of_the_last_pass_does_not_count_in_it() -> None:
    journal = Journal()
    journal.begin_pass(100.0, [candidate("a")], [])
    journal.ended(101.0, candidate("z"), Outcome.STOPPED)
    assert journal.last_pass().outcomes == {Outcome.UNDER_WAY: 1}


def test_a_server_that_stays_withheld_is_one_entry_and_hides_no_stop() -> None:
    journal = Journal()
    journal.ended(100.0, candidate("busy"), Withheld.BUSY, "a kernel is busy")
    journal.ended(130.0, candidate("gone"), Outcome.STOPPED)
    journal.ended(160.0, candidate("busy"), Withheld.BUSY, "a kernel is still busy")
    newest = journal.newest(20)
    assert [(one.user, one.first, one.last, one.times) for one in newest] == [
        ("gone", 130.0, 130.0, 1),
        ("busy", 100.0, 160.0, 2),
    ]
    assert newest[1].why == "a kernel is still busy"


def test_another_start_and_another_cause_are_entries_of_their_own() -> None:
    journal = Journal()
    journal.ended(1.0, candidate("a"), Withheld.BUSY)
    journal.ended(2.0, candidate("a"), Withheld.ACTIVE_AGAIN)
    journal.ended(3.0, candidate("a", started=2.0), Withheld.BUSY)
    assert [one.first for one in journal.newest(20)] == [3.0, 2.0, 1.0]
    assert [one.first for one in journal.newest(2)] == [3.0, 2.0]


def test_memory_is_bounded_and_what_was_seen_longest_ago_goes_first() -> None:
    journal = Journal()
    for number in range(500):
        journal.ended(float(number), candidate(f"u{number}"), Outcome.STOPPED)
    journal.begin_pass(500.0, [])
    kept = journal.newest(1000)
    assert (len(kept), kept[0].first, kept[-1].first) == (200, 499.0, 300.0)


def test_many_who_compute_hide_no_stop_and_are_known_as_long_as_they_are_candidates() -> None:
    journal = Journal()
    busy = [candidate(f"busy-{number}") for number in range(500)]
    journal.ended(1.0, candidate("gone"), Outcome.STOPPED)
    for at in range(2, 62):
        journal.begin_pass(float(at), busy)
        for one in busy:
            journal.ended(float(at), one, Withheld.BUSY)
    kept = journal.newest(1000)
    assert [one.user for one in kept if one.outcome is Outcome.STOPPED] == ["gone"]
    assert {(one.first, one.times) for one in kept[:-1] if one.user != "gone"} == {(2.0, 60)}
    journal.begin_pass(99.0, [])
    assert len(journal.newest(1000)) == 201


def test_an_outcome_that_is_told_while_a_pass_begins_is_not_under_way() -> None:
    """The culler unclaims a server only after its outcome is told, and a poll may come between."""
    journal = Journal()
    journal.begin_pass(100.0, [candidate("a")])
    journal.ended(101.0, candidate("a"), Outcome.STOPPED)
    journal.begin_pass(102.0, [])
    assert dict(journal.last_pass().outcomes) == {}


def test_a_stop_that_works_at_last_is_no_server_that_outlived_it() -> None:
    journal = Journal()
    journal.ended(1.0, candidate("a"), Outcome.FAILED, "it still runs", CullFailure.NOT_STOPPED)
    journal.ended(40.0, candidate("a"), Outcome.STOPPED)
    assert journal.not_stopped(0.0) == []
    assert journal.newest(5)[-1].outcome is Outcome.FAILED


def test_nothing_of_a_server_is_kept_but_what_is_shown() -> None:
    """Its options are part of a page of the Hub's list, which would stay in memory as a whole."""
    kept = {field.name for field in dataclasses.fields(Entry)}
    assert kept == {
        "user", "server", "policy", "reason", "idle", "outcome", "why", "first", "last", "times",
        "cause",
    }  # fmt: skip


def test_a_server_that_may_have_outlived_its_stop_is_not_forgotten_for_others() -> None:
    journal = Journal()
    lives = CullFailure.NOT_STOPPED
    journal.ended(1.0, candidate("orphan"), Outcome.FAILED, "it still runs", lives)
    journal.ended(2.0, candidate("slow"), Outcome.FAILED, "slow", CullFailure.SLOW)
    for number in range(500):
        journal.ended(3.0, candidate(f"u{number}"), Withheld.BUSY)
    assert [one.user for one in journal.not_stopped(0.0)] == ["orphan"]
    assert journal.not_stopped(1.5) == []
