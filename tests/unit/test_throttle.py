"""How much of a list is asked for at once, and how long the Hub is left to others after it."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_idle_exporter.domain.labels import Operation
from hub_idle_exporter.hub.throttle import Throttle, Turns

LIST, IDLE = Operation.LIST_USERS, Operation.LIST_IDLE_USERS


class Waited:
    """A clock that moves by what is waited for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def throttle(clock: Waited, share: float = 0.25, most: int = 200) -> Throttle:
    return Throttle(share, most, 30.0, clock.wait, clock)


@pytest.mark.parametrize(
    ("took", "size"),
    [(0.010, 40), (0.004, 100), (0.001, 200), (0.014, 30), (0.2, 30), (0.0, 200)],
)
def test_a_page_has_as_many_users_as_the_hub_can_do_quickly(took: float, size: int) -> None:
    pages = throttle(Waited())
    assert pages.page_size(LIST) == 30
    pages.resize(LIST, 40, took, 1000)
    assert pages.page_size(LIST) == size


def test_a_page_that_took_long_makes_the_next_one_smaller() -> None:
    pages = throttle(Waited())
    pages.resize(LIST, 50, 0.0025, 1000)
    assert pages.page_size(LIST) == 200
    pages.resize(LIST, 200, 0.020, 1000)
    assert pages.page_size(LIST) == 100


def test_lists_have_pages_of_their_own_size() -> None:
    pages = throttle(Waited())
    pages.resize(IDLE, 50, 0.001, 1000)
    assert (pages.page_size(IDLE), pages.page_size(LIST)) == (200, 30)


@pytest.mark.parametrize(("took", "size"), [(0.030, 40), (0.075, 100), (0.137, 182), (3.0, 200)])
def test_where_pages_are_slow_they_are_large_enough_for_a_list_to_end(
    took: float, size: int
) -> None:
    """10,000 users in 30 s, a quarter of which is the Hub's."""
    pages = throttle(Waited())
    pages.resize(LIST, 50, took, 10_000)
    pages.resize(LIST, 50, took, 10_000)
    assert pages.page_size(LIST) == size


def test_one_slow_page_on_a_large_hub_does_not_make_the_next_one_larger() -> None:
    """It met a garbage collection of the Hub's."""
    pages = throttle(Waited())
    for took, size in ((0.015, 30), (0.2, 30), (0.015, 30), (0.2, 30)):
        pages.resize(LIST, 30, took, 10_000)
        assert pages.page_size(LIST) == size


@given(
    most=st.integers(1, 10_000),
    users=st.integers(0, 10_000),
    took=st.floats(0, 1e6),
    total=st.integers(0, 10**9),
)
def test_a_page_never_has_more_users_than_the_option_allows(
    most: int, users: int, took: float, total: int
) -> None:
    pages = throttle(Waited(), most=most)
    assert pages.page_size(LIST) == min(30, most)
    pages.resize(LIST, users, took, total)
    assert min(30, most) <= pages.page_size(LIST) <= most


@pytest.mark.parametrize(("share", "pause"), [(0.25, 0.3), (0.5, 0.1), (0.1, 0.9), (0.01, 5.0)])
def test_the_hub_is_left_to_others_after_a_page(share: float, pause: float) -> None:
    clock = Waited()
    pages = throttle(clock, share)
    pages.page_took(0.1)
    pages.pause(until=math.inf)
    pages.pause(until=math.inf)
    assert clock.pauses == [pytest.approx(pause)]


def test_what_passed_since_the_page_counts_as_a_pause() -> None:
    clock = Waited()
    pages = throttle(clock)
    pages.page_took(0.1)
    clock.now += 0.2
    pages.pause(until=math.inf)
    assert clock.pauses == [pytest.approx(0.1)]


def test_all_of_the_hubs_time_means_no_pauses() -> None:
    clock = Waited()
    pages = throttle(clock, share=1.0)
    pages.page_took(10.0)
    pages.pause(until=math.inf)
    assert clock.pauses == []


def test_pauses_do_not_keep_a_list_from_ending() -> None:
    clock = Waited()
    pages = throttle(clock)
    for until, pauses in ((101.0, [1.0]), (101.0, [1.0])):
        pages.page_took(1.0)
        pages.pause(until)
        assert clock.pauses == pauses


def test_what_one_list_had_no_time_for_is_not_put_on_the_next() -> None:
    clock = Waited()
    pages = throttle(clock)
    for _ in range(50):
        pages.page_took(1.0)
        pages.pause(until=clock.now)
    pages.pause(until=math.inf)
    assert clock.pauses == [pytest.approx(5.0)]


@given(st.lists(st.floats(0.001, 1.5), min_size=1), st.integers(1, 100))
def test_lists_take_no_more_than_their_share_of_the_hubs_time(
    pages: list[float], percent: int
) -> None:
    """As long as no pause would be longer than five seconds."""
    clock = Waited()
    throttled, begun, share = throttle(clock, percent / 100), 100.0, percent / 100
    read = [took for took in pages if took / share - took <= 5]
    for took in read:
        throttled.pause(until=math.inf)
        clock.now += took
        throttled.page_took(took)
    throttled.pause(until=math.inf)
    assert sum(read) <= (clock.now - begun) * share + 1e-6


def test_lists_of_two_threads_together_keep_to_the_share() -> None:
    clock = Waited()
    pages = throttle(clock)
    pages.page_took(0.1)
    pages.page_took(0.1)
    pages.pause(until=math.inf)
    assert clock.pauses == [pytest.approx(0.6)]


# -- at once


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody go ahead of turn."""
    monkeypatch.setattr("hub_idle_exporter.hub.throttle._LONGEST_WAIT", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_third_request_waits_until_one_is_answered() -> None:
    turns, entered = Turns(), threading.Event()

    def third() -> None:
        with turns.turn():
            entered.set()

    waiting = threading.Thread(target=third)
    with under_way(turns), under_way(turns) as last:
        waiting.start()
        assert not entered.wait(0.2)
        last.set()
        assert entered.wait(10)
    waiting.join()


@contextmanager
def under_way(turns: Turns) -> Iterator[threading.Event]:
    """Let another thread have a turn, until the event is set."""
    begun, over = threading.Event(), threading.Event()

    def ask() -> None:
        with turns.turn():
            begun.set()
            over.wait(60)

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(10)
    try:
        yield over
    finally:
        over.set()
        thread.join()


def test_nobody_waits_long_for_a_request_that_gets_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hub_idle_exporter.hub.throttle._LONGEST_WAIT", 0.01)
    turns = Turns()
    with under_way(turns), under_way(turns), turns.turn():
        pass


@pytest.mark.usefixtures("patient")
def test_a_request_that_fails_hands_its_turn_back() -> None:
    turns = Turns()
    for _ in range(2):
        with pytest.raises(OSError, match="reset"), turns.turn():
            raise OSError("reset")
    with under_way(turns), under_way(turns):
        pass


@pytest.mark.usefixtures("patient")
def test_requests_that_belong_together_wait_once() -> None:
    """A stop token lives for seconds: nothing is waited for between it and the look."""
    turns = Turns()
    with turns.turn(), turns.turn(), under_way(turns):
        pass
    with under_way(turns), under_way(turns):
        pass
