"""JudgedServer servers counted: by policy and state, as histograms, as candidates, as idle time."""

from datetime import datetime, timezone

import msgspec
import pytest

from hub_idle_exporter.domain.census import (
    AGE_BOUNDS,
    IDLE_BOUNDS,
    LIMITS,
    MOST_NEXT,
    SecondsHistogram,
    census_of,
    idle_server_seconds,
    judge_all,
)
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import (
    Judge,
    JudgedServer,
    NotCandidate,
    Policy,
    Reason,
    Rules,
    State,
)
from hub_idle_exporter.domain.scopes import Granted

NOW = 1_800_000_000.0
RULES = Rules((Policy("default", 3600, 7200),))


def ago(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(NOW - seconds, timezone.utc)


def judged(*servers: tuple[str, float | None, float | None, str | None]) -> list[JudgedServer]:
    """Judge servers given as user, idle, age, pending."""
    users = [
        User(
            name=user,
            groups=(),
            admin=False,
            servers={
                "": Server(
                    ready=pending is None,
                    pending=pending,
                    started=ago(age),
                    last_activity=ago(idle),
                )
            },
        )
        for user, idle, age, pending in servers
    ]
    return list(judge_all(Judge(RULES, Granted()), users, NOW))


def test_states_sum_to_all_servers() -> None:
    seen = judged(
        ("active", 10, 100, None),
        ("idle", 4000, 5000, None),
        ("at the limit", 3600, 5000, None),
        ("spawning", None, 1, "spawn"),
        ("unknown", None, None, None),
    )
    census = census_of(seen, RULES)
    assert dict(census.servers) == {
        ("default", State.ACTIVE): 2,
        ("default", State.IDLE): 2,
        ("default", State.PENDING): 1,
    }


def test_candidates_come_the_most_idle_first_with_their_reasons() -> None:
    census = census_of(
        judged(("b", 4000, 5000, None), ("c", 10, 9000, None), ("a", 7000, 8000, None)), RULES
    )
    assert [one.user for one in census.candidates] == ["a", "b", "c"]
    assert dict(census.candidate_counts) == {
        ("default", Reason.MAX_AGE): 2,
        ("default", Reason.IDLE): 1,
    }


def test_histograms_hold_ready_servers_with_known_times_only() -> None:
    census = census_of(
        judged(("a", 10, 100, None), ("b", 4000, 5000, "stop"), ("c", None, None, None)), RULES
    )
    assert (census.idle.cumulative[-1], census.idle.total_seconds) == (1, 10)
    assert (census.age.cumulative[-1], census.age.total_seconds) == (1, 100)


@pytest.mark.parametrize(
    ("value", "counts"),
    [(0, [1, 1, 1]), (60, [1, 1, 1]), (60.5, [0, 1, 1]), (300, [0, 1, 1]), (301, [0, 0, 1])],
)
def test_a_value_at_a_bound_belongs_below_it(value: float, counts: list[int]) -> None:
    assert SecondsHistogram.of([value], (60, 300)).cumulative == counts


def test_a_spread_of_nothing() -> None:
    empty = SecondsHistogram.of([], (60, 300))
    assert (empty.cumulative, empty.total_seconds) == ([0, 0, 0], 0)


def test_limits_people_think_in_are_bounds() -> None:
    assert set(LIMITS) <= set(IDLE_BOUNDS)
    assert list(AGE_BOUNDS) == sorted(AGE_BOUNDS)


def test_idle_servers_are_apart_in_a_histogram_of_their_own() -> None:
    census = census_of(judged(("a", 10, 100, None), ("b", 4000, 5000, None)), RULES)
    assert (census.idle_past.cumulative[-1], census.idle_past.total_seconds) == (1, 4000)


def test_only_those_who_can_become_candidates_are_next() -> None:
    """Not those that start, whose activity is unknown, or whom a policy exempts."""
    seen = judged(("starts", 3500, 3500, "spawn"), ("unknown", None, None, None), ("a", 1, 2, None))
    assert [one.judged.user for one in census_of(seen, RULES).next_due] == ["a"]
    exempt = Rules((Policy("default", 3600, exempt=True),))
    spared = [msgspec.structs.replace(one, protection=NotCandidate.EXEMPT) for one in seen]
    assert census_of(spared, exempt).next_due == ()
    assert set(census_of(spared, exempt).over_limit.values()) == {0}


def test_a_policys_own_timeout_is_left_as_it_is_by_another_limit() -> None:
    own = Policy("own", 7200, own_timeout=True)
    seen = [
        msgspec.structs.replace(one, policy=own)
        for one in judged(("a", 4000, 5000, None), ("b", 9000, 9999, None))
    ]
    past = [msgspec.structs.replace(seen[0], reason=None), seen[1]]
    past[1] = msgspec.structs.replace(past[1], reason=Reason.IDLE)
    assert set(census_of(past, RULES).over_limit.values()) == {1}


def test_idle_servers_that_are_no_candidates_are_counted() -> None:
    seen = judged(("a", 4000, 5000, None), ("old", 10, 9000, None))
    protected = [
        msgspec.structs.replace(one, reason=None, not_candidate=NotCandidate.EXEMPT) for one in seen
    ]
    assert census_of(protected, RULES).idle_kept == 1  # not the one that is in use, and too old


def test_the_next_ten_servers_are_told_with_the_limit_that_they_reach_first() -> None:
    many = [(f"u{idle}", idle, 100 + idle, None) for idle in range(0, 3000, 100)]
    census = census_of(judged(*many, ("old", 0, 7150, None), ("past", 4000, 4000, None)), RULES)
    assert [(one.judged.user, one.seconds, one.reason) for one in census.next_due[:2]] == [
        ("old", 50, Reason.MAX_AGE),
        ("u2900", 700, Reason.IDLE),
    ]
    assert len(census.next_due) == MOST_NEXT


@pytest.mark.parametrize(
    ("idle", "since_last", "longest", "spent"),
    [
        (3600, 60, 180, 0),  # just idle
        (3620, 60, 180, 20),  # past the limit for less than the interval
        (9999, 60, 180, 60),  # idle all the time since the last poll
        (9999, 500, 180, 180),  # polls failed meanwhile: three intervals at most
    ],
)
def test_idle_server_seconds(idle: float, since_last: float, longest: float, spent: float) -> None:
    seen = judged(("a", idle, 20000, None))
    assert idle_server_seconds(seen, since_last, longest)["default"] == spent


def test_idle_server_seconds_of_active_and_pending_servers_are_none() -> None:
    seen = judged(("a", 10, 20000, None), ("b", 9999, 20000, "stop"))
    assert dict(idle_server_seconds(seen, 60, 180)) == {}


def test_all_who_are_to_be_announced_are_found() -> None:
    """Not only the few that are next."""
    rules = Rules((Policy("default", 3600, notice=900),))
    users = [
        User(
            name=f"u{number}",
            servers={"": Server(ready=True, started=ago(9000), last_activity=ago(idle))},
        )
        for number, idle in enumerate([*[3500.0] * MOST_NEXT, *[2700.0] * 5, 2699.0])
    ]
    found = census_of(judge_all(Judge(rules, Granted()), users, NOW), rules).due_soon
    assert {one.user for one in found} == {f"u{number}" for number in range(MOST_NEXT + 5)}
    assert {one.reason for one in found} == {Reason.IDLE}
