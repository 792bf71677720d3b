"""The gate: when anything may be stopped at all, rule by rule; and its keeper."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import poll_states
import pytest

from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.domain.gate import ClockReading, GateState
from hub_idle_exporter.domain.poll_state import LatestState

GRACE = 600.0
OPEN = GateState.ON


@dataclass
class Watch:
    """A gatekeeper on clocks that a test moves; the Hub's clock goes with ours."""

    enforce: bool = True
    grace: float = GRACE
    now: float = 5000.0
    wall_ahead: float = 1.8e9
    hub_ahead: float = 1.8e9
    orphaned: bool = False

    def __post_init__(self) -> None:
        self.latest = LatestState(poll_states.at_start())
        self.keeper = Gatekeeper(
            self.enforce,
            self.grace,
            self.latest,
            lambda: ClockReading(self.now, self.now + self.wall_ahead),
            lambda: self.orphaned,
        )

    @property
    def state(self) -> GateState:
        return self.keeper.state()

    def answer(self, readable: bool = True, took: float = 0.0, stamped: float = 0.0) -> None:
        """Let an answer arrive that took so many seconds, stamped so many seconds ago."""
        date = float(int(self.now - stamped + self.hub_ahead))  # a Date has whole seconds
        self.keeper.hub_answered(date if readable else None, took)

    def poll(self, *unmet: str) -> None:
        self.answer()
        self.latest.state = poll_states.good(*unmet)

    def fail(self) -> None:
        self.latest.state = poll_states.failed()

    def watch(self, seconds: float) -> None:
        """Let time go by with the Hub in sight."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 30)
            self.answer()


@pytest.fixture
def watch() -> Watch:
    """A gate that has been open for long."""
    opened = Watch()
    opened.poll()
    opened.watch(3600)
    assert opened.state is OPEN
    return opened


# ---- grace --------------------------------------------------------------------------------------


def test_monitor_mode_is_off_for_ever() -> None:
    watch = Watch(enforce=False, grace=0)
    watch.poll()
    watch.watch(3600)
    assert watch.state is GateState.OFF
    assert watch.keeper.closed()


def test_grace_after_the_start() -> None:
    watch = Watch()
    watch.poll()
    assert watch.state is GateState.GRACE
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE
    watch.watch(1)
    assert watch.state is OPEN
    assert watch.keeper.closed() is None


def test_before_the_first_poll_nothing_is_stopped() -> None:
    watch = Watch(grace=0)
    watch.answer()
    assert watch.state is not OPEN
    watch.poll()
    assert watch.state is OPEN


def test_without_sight_of_the_hub_for_over_a_minute_it_closes(watch: Watch) -> None:
    watch.now += 60
    assert watch.state is OPEN
    watch.now += 0.001
    assert watch.state is GateState.GRACE


def test_grace_after_an_outage_of_over_a_minute(watch: Watch) -> None:
    watch.now += 60.5
    watch.answer()
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE
    watch.watch(1)
    assert watch.state is OPEN


def test_grace_after_an_outage_that_falls_between_two_polls(watch: Watch) -> None:
    watch.poll()
    watch.now += 90  # the Hub was asked in vain meanwhile
    watch.answer()
    watch.now += 10
    watch.poll()
    assert watch.state is GateState.GRACE
    watch.watch(GRACE)
    assert watch.state is OPEN


def test_no_grace_after_a_minute_without_sight(watch: Watch) -> None:
    watch.now += 60
    watch.answer()
    assert watch.state is OPEN


def test_a_second_outage_begins_grace_anew(watch: Watch) -> None:
    watch.now += 61
    watch.answer()
    watch.watch(GRACE - 60)
    watch.now += 61
    watch.answer()
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE


def test_the_hub_first_seen_long_after_the_start_is_an_outage() -> None:
    watch = Watch()
    watch.now += 3600
    watch.poll()
    assert watch.state is GateState.GRACE
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE


# ---- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [61.0, -61.0, 86400.0])
def test_grace_after_a_jump_of_our_clock(watch: Watch, jump: float) -> None:
    watch.wall_ahead += jump
    assert watch.state is GateState.GRACE  # at once
    watch.answer()
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE
    watch.watch(1)
    assert watch.state is OPEN


@pytest.mark.parametrize("jump", [61.0, -61.0, 86400.0])
def test_grace_after_a_jump_of_the_hubs_clock(watch: Watch, jump: float) -> None:
    watch.hub_ahead += jump
    watch.answer()
    assert watch.state is GateState.GRACE
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE
    watch.watch(1)
    assert watch.state is OPEN


def test_a_jump_of_the_hubs_clock_is_seen_across_answers_without_a_date(watch: Watch) -> None:
    watch.answer(readable=False)
    watch.hub_ahead += 3600
    watch.answer(readable=False)
    watch.answer()
    assert watch.state is GateState.GRACE


@pytest.mark.parametrize("jump", [60.0, -60.0, 1.0])
def test_clocks_that_are_set_a_little_do_no_harm(watch: Watch, jump: float) -> None:
    watch.wall_ahead += jump
    watch.answer()
    watch.hub_ahead += jump
    watch.answer()
    assert watch.state is OPEN


def test_a_skew_that_stays_is_no_jump() -> None:
    """It suspends, by what a poll finds: see `clock_findings`."""
    watch = Watch(hub_ahead=1.8e9 + 7200)
    watch.poll()
    watch.watch(GRACE)
    assert watch.state is OPEN


# ---- late answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("stamped", [0.0, 35.0, 70.0])
def test_an_answer_that_took_long_is_no_jump_of_a_clock(watch: Watch, stamped: float) -> None:
    """The Hub may have written its `Date` at any time between the request and the answer."""
    watch.now += 35
    watch.answer()  # to another request, meanwhile
    watch.now += 35
    watch.answer(took=70, stamped=stamped)
    assert watch.state is OPEN
    watch.answer()
    assert watch.state is OPEN


@pytest.mark.parametrize("jump", [-3600.0, -140.0, 140.0, 3600.0])
@pytest.mark.parametrize("stamped", [0.0, 70.0])
def test_a_jump_is_seen_in_an_answer_that_took_long_too(
    watch: Watch, jump: float, stamped: float
) -> None:
    watch.now += 35
    watch.answer()
    watch.now += 35
    watch.hub_ahead += jump
    watch.answer(took=70, stamped=stamped)
    assert watch.state is GateState.GRACE


def test_many_late_answers_do_not_hide_a_jump(watch: Watch) -> None:
    """Each gives a range of 50 s; what is known of the Hub's clock does not wander off with it."""
    for _ in range(10):
        watch.now += 50
        watch.answer(took=50, stamped=50)
        assert watch.keeper.clock_skew() == pytest.approx(0, abs=1.5)
    watch.hub_ahead += 63
    watch.answer()
    assert watch.state is GateState.GRACE


def test_a_minute_without_sight_counts_from_when_an_answer_was_there(watch: Watch) -> None:
    watch.now += 45
    watch.answer(took=45, stamped=45)
    watch.now += 60
    assert watch.state is OPEN
    watch.now += 1
    assert watch.state is GateState.GRACE


# ---- the Hub's clock against ours ---------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-7200.0, -3.0, 0.0, 7200.0])
def test_the_skew_is_the_hubs_clock_minus_ours(ahead: float) -> None:
    watch = Watch(hub_ahead=1.8e9 + ahead)
    assert watch.keeper.clock_skew() is None
    watch.answer(readable=False)
    assert watch.keeper.clock_skew() is None
    watch.answer()
    assert watch.keeper.clock_skew() == pytest.approx(ahead, abs=1)
    watch.wall_ahead += 100
    watch.answer(readable=False)
    assert watch.keeper.clock_skew() == pytest.approx(ahead - 100, abs=1)


def test_the_skew_of_a_first_answer_that_took_long_is_corrected_by_the_next() -> None:
    watch = Watch()
    watch.answer(took=40, stamped=0)
    assert watch.keeper.clock_skew() == pytest.approx(20, abs=1)
    watch.answer()
    assert watch.keeper.clock_skew() == pytest.approx(0, abs=1)


# ---- suspended ----------------------------------------------------------------------------------


def test_a_failed_poll_suspends_until_the_next_good_one_without_grace(watch: Watch) -> None:
    watch.answer()
    watch.fail()
    assert watch.state is GateState.SUSPENDED
    watch.watch(60)
    assert watch.state is GateState.SUSPENDED
    watch.poll()
    assert watch.state is OPEN


def test_a_failed_poll_with_the_hub_away_is_followed_by_grace(watch: Watch) -> None:
    watch.now += 61
    watch.fail()
    watch.poll()
    assert watch.state is GateState.GRACE


def test_a_missing_scope_suspends(watch: Watch) -> None:
    watch.poll("the token lacks the scope delete:servers")
    assert watch.state is GateState.SUSPENDED
    assert "delete:servers" in (watch.keeper.closed() or "")


def test_everything_that_suspends_is_told(watch: Watch) -> None:
    watch.poll("one thing", "another")
    assert watch.keeper.read().why == "one thing; another"


# ---- another exporter ---------------------------------------------------------------------------


def test_while_another_exporter_holds_the_lease_nothing_is_stopped(watch: Watch) -> None:
    watch.keeper.hold_back("another exporter holds the lease")
    assert watch.state is GateState.SUSPENDED
    assert watch.keeper.closed() == "another exporter holds the lease"
    watch.poll()
    assert watch.state is GateState.SUSPENDED
    watch.keeper.hold_back(None)
    assert watch.state is OPEN


def test_everything_that_suspends_is_told_the_lease_too(watch: Watch) -> None:
    watch.poll("a scope is missing")
    watch.keeper.hold_back("another exporter holds the lease")
    assert watch.keeper.closed() == "a scope is missing; another exporter holds the lease"


def test_grace_after_another_exporter(watch: Watch) -> None:
    """It may have seen an outage that this one did not, being started after it."""
    watch.keeper.hold_back("another exporter holds the lease")
    watch.watch(60)
    watch.keeper.hold_back(None, after_another=True)
    assert watch.state is GateState.GRACE
    watch.watch(GRACE - 1)
    assert watch.state is GateState.GRACE
    watch.watch(1)
    assert watch.state is OPEN


def test_before_the_first_poll_the_lease_does_not_matter() -> None:
    watch = Watch(grace=0)
    watch.keeper.hold_back("another exporter holds the lease")
    assert watch.state is GateState.GRACE


def test_monitor_mode_stays_off_whoever_holds_the_lease() -> None:
    watch = Watch(enforce=False)
    watch.poll()
    watch.keeper.hold_back("another exporter holds the lease")
    assert watch.state is GateState.OFF


# ---- the keeper ---------------------------------------------------------------------------------


def test_nothing_is_stopped_when_the_parent_process_is_gone(watch: Watch) -> None:
    watch.orphaned = True
    assert watch.keeper.closed() == "the Hub that started this exporter has ended"


def test_seconds_since_answer(watch: Watch) -> None:
    watch.now += 17
    assert watch.keeper.seconds_since_answer() == 17


@pytest.mark.parametrize("state", list(GateState))
def test_why_says_something_in_every_state(watch: Watch, state: GateState) -> None:
    if state is GateState.OFF:
        watch = Watch(enforce=False)
    elif state is GateState.GRACE:
        watch = Watch()
        watch.poll()
    elif state is GateState.SUSPENDED:
        watch.poll("something")
    assert watch.state is state
    assert watch.keeper.read().why
    assert (watch.keeper.closed() is None) == (state is OPEN)


def test_what_is_read_is_of_the_state_that_is_given(watch: Watch) -> None:
    """A scrape or a page has one poll state in hand: the gate it shows is that of the same one."""
    before = watch.latest.state
    watch.fail()
    assert watch.keeper.state() is GateState.SUSPENDED
    assert watch.keeper.read(before).state is OPEN
    assert watch.keeper.state(before) is OPEN


def test_a_gate_that_closes_never_says_that_it_is_open() -> None:
    """The grace ends between two looks at the clock: each look gives its own reason."""
    ticks = iter([0.0, 9.999, 10.001, 10.002])
    latest = LatestState(poll_states.good())
    keeper = Gatekeeper(True, 10.0, latest, lambda: ClockReading(now := next(ticks), now))
    assert "grace period" in (keeper.closed() or "")
    assert keeper.closed() is None


# ---- how long the grace lasts -------------------------------------------------------------------


def test_the_grace_that_is_left_is_told(watch: Watch) -> None:
    assert watch.keeper.read().grace_left == 0
    watch.now += 61
    assert watch.keeper.read().grace_left == GRACE  # it begins when the Hub answers
    watch.poll()
    watch.watch(60)
    assert watch.keeper.read().grace_left == GRACE - 60
    watch.watch(GRACE)
    assert watch.keeper.read().grace_left == 0


def test_the_grace_goes_on_while_a_failed_poll_suspends() -> None:
    watch = Watch()
    watch.fail()
    watch.watch(60)
    assert (watch.state, watch.keeper.read().grace_left) == (GateState.SUSPENDED, GRACE - 60)


def test_monitor_mode_has_no_grace() -> None:
    watch = Watch(enforce=False)
    watch.poll()
    assert watch.keeper.read().grace_left == 0


# ---- what the log says of a grace period --------------------------------------------------------

Logged = list[MutableMapping[str, Any]]


def told(logged: Logged) -> list[str]:
    return [line["event"] for line in logged]


def test_a_grace_is_told_once_when_it_begins_and_once_when_culling_starts(logged: Logged) -> None:
    watch = Watch()
    watch.keeper.tell_of_grace()
    (began,) = logged
    assert (began["event"], began["log_level"]) == ("grace_started", "info")
    assert (began["why"], began["seconds"]) == ("the exporter has started", GRACE)
    assert began["until"] == "2027-01-15T09:33:20Z"  # 600 s after 1.8e9 + 5000
    watch.keeper.tell_if_grace_is_over()  # nothing is known of the Hub yet
    for _ in range(10):
        watch.watch(GRACE / 10 - 1)
        watch.poll()
        watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started"]
    for _ in range(3):
        watch.watch(30)
        watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started", "grace_ended"]
    assert (logged[1]["enforcement"], logged[1]["log_level"]) == ("on", "info")


def jump(watch: Watch) -> None:
    watch.wall_ahead += 3600
    watch.hub_ahead += 3600
    watch.answer()


def jump_of_the_hub(watch: Watch) -> None:
    watch.hub_ahead += 100
    watch.answer()


def outage(watch: Watch) -> None:
    watch.now += 75
    for _ in range(3):
        watch.answer()


def take_over(watch: Watch) -> None:
    watch.keeper.hold_back(None, after_another=True)


CAUSES: dict[Callable[[Watch], None], str] = {
    outage: "the Hub had not answered for 1m15s",
    jump: "the clock of this machine jumped",
    jump_of_the_hub: "the Hub's clock jumped",
    take_over: "another exporter stopped servers until now",
}


@pytest.mark.parametrize("happens", CAUSES)
def test_why_a_grace_begins_anew_is_told(logged: Logged, happens: Callable[[Watch], None]) -> None:
    watch = Watch()
    watch.poll()
    watch.watch(GRACE)
    watch.poll()
    assert watch.state is OPEN
    assert logged == []
    happens(watch)
    assert [line["why"] for line in logged] == [CAUSES[happens]]
    watch.watch(GRACE - 1)
    watch.keeper.tell_if_grace_is_over()
    assert len(logged) == 1
    watch.watch(1)
    watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started", "grace_ended"]


def test_a_grace_that_ends_while_something_else_forbids_stops_says_what(logged: Logged) -> None:
    watch = Watch()
    watch.keeper.tell_of_grace()
    watch.poll("a scope is missing")
    watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started"]
    watch.watch(GRACE)
    watch.keeper.tell_if_grace_is_over()
    assert logged[1]["enforcement"] == "suspended"
    assert "a scope is missing" in logged[1]["why"]


def test_a_grace_ends_only_when_a_poll_has_told_what_is_allowed(logged: Logged) -> None:
    """A Hub whose first list takes longer than the grace: nothing may be stopped before it."""
    watch = Watch()
    watch.keeper.tell_of_grace()
    watch.watch(GRACE)
    watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started"]
    watch.poll()
    watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started", "grace_ended"]


def test_no_grace_ends_while_the_hub_is_away(logged: Logged) -> None:
    watch = Watch()
    watch.keeper.tell_of_grace()
    watch.poll()
    watch.now += 2 * GRACE
    watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started"]
    watch.answer()
    watch.keeper.tell_if_grace_is_over()
    assert told(logged) == ["grace_started", "grace_started"]
    assert logged[1]["why"] == "the Hub had not answered for 20m"


@pytest.mark.parametrize(("enforce", "grace"), [(False, GRACE), (True, 0.0)])
def test_without_culling_or_without_a_grace_nothing_is_told(
    logged: Logged, enforce: bool, grace: float
) -> None:
    watch = Watch(enforce=enforce, grace=grace)
    watch.keeper.tell_of_grace()
    watch.poll()
    outage(watch)
    watch.poll()
    watch.keeper.tell_if_grace_is_over()
    assert logged == []


def test_when_stops_begin_is_told_where_it_is_known(watch: Watch) -> None:
    assert watch.keeper.read().opens_in is None  # they have begun
    watch.now += 61
    assert watch.keeper.read().opens_in is None  # nobody knows when the Hub answers
    watch.poll()
    assert watch.keeper.read().opens_in == GRACE
    assert "the Hub had not answered for 1m1s: 600 s left" in watch.keeper.read().why


def test_before_the_first_poll_without_grace_the_poll_is_waited_for() -> None:
    waiting = Watch(grace=0).keeper.read()
    assert (waiting.state, waiting.opens_in) == (GateState.GRACE, None)
    assert waiting.why == "the first poll has not ended yet"
