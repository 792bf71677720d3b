"""The lease: who may stop servers, rule by rule, and with many exporters at once."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import hypothesis.strategies as st
import poll_states
import pytest
from example_counts import examples
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.culling.lease import Election
from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.labels import Cause
from hub_idle_exporter.domain.lease import (
    LEASE_SECONDS,
    NOTE,
    REVOKE_MARGIN_SECONDS,
    Lease,
    acquired,
    held_by_another,
    leases,
    note_of,
    renewed,
    revocable,
)
from hub_idle_exporter.domain.model import ListedToken, MintedToken
from hub_idle_exporter.domain.poll_state import LatestState
from hub_idle_exporter.domain.probe_user import Safeguards
from hub_idle_exporter.hub.client import NOTE_PREFIX, Hub, TokenReading
from hub_idle_exporter.hub.errors import HubError

BEGAN = datetime(2027, 1, 15, 8, tzinfo=timezone.utc)
OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def epoch(seconds: float) -> float:
    return at(seconds).timestamp()


def listed(number: int, created: float, holder: str, lives: float = LEASE_SECONDS) -> ListedToken:
    return ListedToken(f"a{number}", at(created), note_of(holder), at(created + lives))


def minted(number: int, created: float, lives: float = LEASE_SECONDS) -> MintedToken:
    return MintedToken(f"a{number}", "s3cret", at(created), at(created + lives))


OTHER_TOKENS = [
    ListedToken("a1", at(-9), "hub-idle-exporter: busy check", at(50)),
    ListedToken("a2", at(-9), "hub-idle-exporter: stop", at(3)),
    ListedToken("a3", at(-9), "Server at /user/idle-prober/", None),
    ListedToken("a4", at(-9), None, None),
]


# ---- acquired -----------------------------------------------------------------------------------


def test_the_note_names_the_holder_as_it_is_minted() -> None:
    assert note_of(OURS) == f"{NOTE_PREFIX}{NOTE}{OURS}"


def test_a_lease_that_is_alone_is_ours_until_it_expires() -> None:
    lease = acquired(minted(7, 0), [*OTHER_TOKENS, listed(7, 0, OURS)], OURS)
    assert lease == Lease(OURS, epoch(LEASE_SECONDS))


def test_tokens_that_are_no_leases_do_not_count() -> None:
    assert leases([*OTHER_TOKENS, listed(7, 0, OURS)]) == [listed(7, 0, OURS)]
    assert not held_by_another(OTHER_TOKENS, OURS)
    assert not held_by_another([listed(7, 0, OURS)], OURS)
    assert held_by_another([listed(7, 0, OURS), listed(8, 0, THEIRS)], OURS)


@pytest.mark.parametrize(
    ("number", "created", "first"),
    [
        (8, 1.0, True),
        (8, 0.0, False),  # at the same microsecond: nobody was first
        (8, -1.0, False),
        (6, 1.0, False),  # the id of an expired token, used again
        (6, -1.0, False),
    ],
)
def test_ours_must_be_the_first_by_time_and_by_id(number: int, created: float, first: bool) -> None:
    another = listed(number, created, THEIRS)
    lease = acquired(minted(7, 0), [listed(7, 0, OURS), another], OURS)
    assert (lease is not None) == first


def test_of_two_who_try_at_once_at_most_one_is_the_first() -> None:
    for number, created in ((8, 1.0), (8, 0.0), (6, 1.0), (6, -1.0), (70, -1.0), (10, 0.5)):
        both = [listed(7, 0, OURS), listed(number, created, THEIRS)]
        won = [
            acquired(minted(7, 0), both, OURS),
            acquired(minted(number, created), both, THEIRS),
        ]
        assert won.count(None) >= 1


def test_ids_are_compared_as_numbers() -> None:
    both = [listed(9, 0, OURS), listed(10, 1, THEIRS)]
    assert acquired(minted(9, 0), both, OURS) is not None
    assert acquired(minted(10, 1), both, THEIRS) is None


@pytest.mark.parametrize("odd", ["", "a", "b7", "a-7", "a7x", "a²", "7" * 30])
def test_an_id_that_is_no_number_may_have_been_the_first(odd: str) -> None:
    another = ListedToken(odd, at(1), note_of(THEIRS), at(121))
    assert acquired(minted(7, 0), [listed(7, 0, OURS), another], OURS) is None


def test_a_lease_that_is_not_listed_is_not_ours() -> None:
    """It expired while we were paused, and its id was given to another's token."""
    assert acquired(minted(7, 0), [], OURS) is None
    assert acquired(minted(7, 0), [listed(8, 0, OURS)], OURS) is None
    assert acquired(minted(7, 0), [listed(7, 130, THEIRS)], OURS) is None
    reused = ListedToken("a7", at(130), "hub-idle-exporter: busy check", at(190))
    assert acquired(minted(7, 0), [reused], OURS) is None


# ---- covers -------------------------------------------------------------------------------------


def test_a_stop_must_end_before_the_lease() -> None:
    lease = Lease(OURS, epoch(120))
    assert lease.covers(epoch(119))
    assert lease.covers(epoch(120))
    assert not lease.covers(epoch(120.001))


# ---- renewed ------------------------------------------------------------------------------------

HELD = Lease(OURS, epoch(LEASE_SECONDS))


def test_a_renewed_lease_lasts_until_the_new_token_expires() -> None:
    tokens = [*OTHER_TOKENS, listed(7, 0, OURS), listed(8, 30, OURS)]
    assert renewed(HELD, minted(8, 30), tokens) == Lease(OURS, epoch(30 + LEASE_SECONDS))
    assert renewed(HELD, minted(8, 30), tokens[-1:]) is not None  # the old one was revoked


def test_a_lease_is_lost_if_it_ended_before_the_new_token_was_created() -> None:
    """In between it may have been another's."""
    assert renewed(HELD, minted(8, 120), [listed(8, 120, OURS)]) is not None
    assert renewed(HELD, minted(8, 120.001), [listed(8, 120.001, OURS)]) is None


def test_a_lease_is_lost_if_the_new_token_is_not_listed() -> None:
    """We were paused between the two requests, and it has expired."""
    assert renewed(HELD, minted(8, 30), []) is None
    assert renewed(HELD, minted(8, 30), [listed(7, 0, OURS)]) is None
    assert renewed(HELD, minted(8, 30), [listed(8, 160, THEIRS)]) is None


@pytest.mark.parametrize(("number", "created"), [(9, 31), (6, -1)])
def test_a_lease_is_lost_if_there_is_one_of_another(number: int, created: float) -> None:
    tokens = [listed(7, 0, OURS), listed(8, 30, OURS), listed(number, created, THEIRS)]
    assert renewed(HELD, minted(8, 30), tokens) is None


# ---- revocable ----------------------------------------------------------------------------------


def test_only_our_own_leases_are_revoked() -> None:
    tokens = [*OTHER_TOKENS, listed(7, 0, OURS), listed(8, 30, THEIRS), listed(9, 30, OURS)]
    assert revocable(tokens, OURS, epoch(30)) == ["a7", "a9"]


@pytest.mark.parametrize(
    ("now", "ids"),
    [
        (LEASE_SECONDS - REVOKE_MARGIN_SECONDS - 1, ["a7"]),
        (LEASE_SECONDS - REVOKE_MARGIN_SECONDS, []),
        (LEASE_SECONDS - 1, []),
    ],
)
def test_what_ends_soon_is_left_to_expire(now: float, ids: list[str]) -> None:
    """The Hub gives its id to the next token, which a late request to revoke it would hit."""
    assert revocable([listed(7, 0, OURS)], OURS, epoch(now)) == ids


def test_a_token_without_an_end_is_never_revoked() -> None:
    endless = ListedToken("a7", at(0), note_of(OURS), None)
    assert revocable([endless], OURS, epoch(1)) == []


# ---- many exporters at once ---------------------------------------------------------------------

ELECTING = replace(poll_states.good(), safeguards=Safeguards(lease=True))
Call = Callable[[], Any]


@dataclass
class SimulatedHub:
    """A Hub's tokens of one user, and its clock, in seconds since BEGAN."""

    now: float = 0.0
    rows: list[ListedToken] = field(default_factory=list)

    def mint(self, note: str, seconds: float) -> MintedToken:
        """Mint a token; as with SQLite its id is one more than the highest that is there."""
        token_id = f"a{max((int(row.id[1:]) for row in self.rows), default=0) + 1}"
        expires = at(self.now + seconds - 0.005)  # computed a moment before `created`
        self.rows.append(ListedToken(token_id, at(self.now), note, expires))
        return MintedToken(token_id, "s3cret", at(self.now), expires)

    def tokens(self) -> TokenReading:
        """List the tokens; expired ones are deleted by that, and never listed."""
        self.rows = [row for row in self.rows if row.expires_at and row.expires_at > at(self.now)]
        return TokenReading(list(self.rows), float(int(epoch(self.now))))

    def revoke(self, token_id: str) -> None:
        """Revoke whichever token has that id by now."""
        self.rows = [row for row in self.rows if row.id != token_id]


class Exporter:
    """An exporter with the real election, on a thread that goes on only when it is told to.

    It pauses before each request reaches the Hub, and again before it reads the answer.
    """

    def __init__(self, hub: SimulatedHub) -> None:
        self.hub = hub
        latest, standing_still = LatestState(ELECTING), ClockReading(0.0, 0.0)
        self.election = Election(
            cast(Hub, self),
            "idle-prober",
            latest,
            Gatekeeper(True, 0.0, latest, lambda: standing_still),
            threading.Event(),
            lambda: hub.now,
        )
        self.request: Call | None = None  # on its way to the Hub
        self.revokes = False  # what is on its way to the Hub
        self.answer: Call | None = None  # on its way back
        self.stop_token = 0.0  # when that of the stop to be sent next expires
        self.sent: list[float] = []  # until when stops that were sent may work
        self._step: Call | None = None
        self._may_go_on, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_at_rest(self) -> bool:
        return self.request is None and self.answer is None

    def begin(self, step: Call) -> None:
        """Begin a step of the election, up to its first request, or to its end."""
        self._step = step
        self._let_run()

    def serve(self, how: str = "well") -> None:
        """Let the Hub handle the request, or lose the request or the answer."""
        assert self.request is not None
        request, self.request, self.revokes = self.request, None, False
        answer = None if how == "request lost" else request()
        self.answer = (lambda: answer) if how == "well" else no_answer

    def begin_next(self) -> None:
        """Begin what its threads do next: to take the lease or, if it holds it, to renew it."""
        self.begin(self.election.take)
        if self.is_at_rest:
            self.begin(self.election.renew)

    def take_a_step(self) -> None:
        """Take the next step of the election without a pause."""
        self.begin_next()
        self.finish()

    def go_on(self, steps: int = 1) -> None:
        """Let a request be handled or an answer be read, so many times."""
        for _ in range(steps):
            if self.request is not None:
                self.serve()
            else:
                self._let_run()

    def finish(self) -> None:
        while not self.is_at_rest:
            self.go_on()

    def may_stop(self, seconds: float) -> bool:
        """Tell whether it would send a stop whose token is minted now, and lives so long."""
        lease = self.election._lease
        return lease is not None and lease.covers(epoch(self.hub.now + seconds))

    def end(self) -> None:
        self.finish()
        self._step = None
        self._may_go_on.release()

    def _let_run(self) -> None:
        """Let its thread run up to its next request, or to the end of the step."""
        self._may_go_on.release()
        self._paused.acquire()

    def _run(self) -> None:
        self._may_go_on.acquire()
        while self._step is not None:
            try:
                self._step()
            finally:
                self._paused.release()
            self._may_go_on.acquire()

    def _ask(self, request: Call) -> Any:
        self.request = request
        self._paused.release()
        self._may_go_on.acquire()
        assert self.answer is not None
        answer, self.answer = self.answer, None
        return answer()

    # The Hub's client, as far as the election uses it:

    def mint_token(self, owner: str, scopes: list[str], seconds: int, note: str) -> Any:
        assert (owner, scopes) == ("idle-prober", [])
        return self._ask(lambda: self.hub.mint(NOTE_PREFIX + note, seconds))

    def tokens(self, owner: str) -> Any:
        return self._ask(self.hub.tokens)

    def revoke_token(self, owner: str, token_id: str) -> None:
        self.revokes = True
        self._ask(lambda: self.hub.revoke(token_id))


def no_answer() -> None:
    raise HubError(Cause.CONNECTION, "the connection was lost")


@pytest.fixture
def hub() -> SimulatedHub:
    return SimulatedHub()


@pytest.fixture
def one(hub: SimulatedHub) -> Iterator[Exporter]:
    exporter = Exporter(hub)
    yield exporter
    exporter.end()


@pytest.fixture
def another(hub: SimulatedHub) -> Iterator[Exporter]:
    exporter = Exporter(hub)
    yield exporter
    exporter.end()


def test_the_first_takes_it_and_keeps_it_and_others_wait(
    hub: SimulatedHub, one: Exporter, another: Exporter
) -> None:
    for _ in range(20):
        one.take_a_step()
        another.take_a_step()
        assert (one.may_stop(10), another.may_stop(0)) == (True, False)
        hub.now += 30
    assert len(hub.rows) == 1  # the older ones are revoked


def test_one_that_shuts_down_makes_room_at_once(one: Exporter, another: Exporter) -> None:
    one.take_a_step()
    one.begin(one.election.release)
    one.finish()
    another.take_a_step()
    assert (one.may_stop(0), another.may_stop(3)) == (False, True)


def test_one_that_is_silent_is_waited_for_until_its_lease_has_ended(
    hub: SimulatedHub, one: Exporter, another: Exporter
) -> None:
    """It may be killed, or only paused: then it stops nothing either once it goes on."""
    one.take_a_step()
    hub.now += LEASE_SECONDS - 1
    another.take_a_step()
    assert not another.may_stop(0)
    hub.now += 1
    another.take_a_step()
    assert (one.may_stop(0), another.may_stop(3)) == (False, True)
    assert not one.election.begin_stop(epoch(hub.now))
    one.take_a_step()
    assert (one.may_stop(0), another.may_stop(3)) == (False, True)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 28.0, 119.0])
def test_one_that_was_paused_while_it_took_it_does_not_get_it_as_well(
    hub: SimulatedHub, one: Exporter, another: Exporter, seconds: float
) -> None:
    """It saw that nobody had it; since then another has taken it."""
    one.begin_next()
    one.go_on(steps=2)
    another.take_a_step()
    hub.now += seconds
    one.finish()
    assert not one.may_stop(0)


def pause_before_it_sees_who_was_first(hub: SimulatedHub, one: Exporter, another: Exporter) -> None:
    """Let one mint its lease right after another has taken it, and go no further for 28 s."""
    one.begin_next()
    one.go_on(steps=2)
    another.take_a_step()
    hub.now += 1
    one.go_on(steps=2)
    hub.now += 28


def test_a_lease_is_lost_once_there_is_one_of_another(
    hub: SimulatedHub, one: Exporter, another: Exporter
) -> None:
    """By renewing it the older token goes, by which the other would know that it came second."""
    pause_before_it_sees_who_was_first(hub, one, another)
    another.take_a_step()
    one.finish()
    assert (one.may_stop(3), another.may_stop(0)) == (True, False)


def test_a_lease_is_not_let_go_while_a_stop_may_be_on_its_way(
    hub: SimulatedHub, one: Exporter, another: Exporter
) -> None:
    pause_before_it_sees_who_was_first(hub, one, another)
    assert another.election.begin_stop(epoch(hub.now + 10))  # it may work for 10 s from now
    another.take_a_step()
    one.finish()
    assert (one.may_stop(0), another.may_stop(0)) == (False, False)


def test_a_pause_before_it_is_revoked_leaves_a_token_to_expire(
    hub: SimulatedHub, one: Exporter, another: Exporter
) -> None:
    """The Hub gives the id of a token that has expired to the next one, here to another's lease."""
    one.take_a_step()
    hub.now += 30
    one.begin_next()
    one.go_on(steps=3)  # it has its answer: two leases of its own, and the older one is to go
    hub.now += 200
    another.take_a_step()
    one.finish()
    assert another.may_stop(3)
    assert len(hub.rows) == 1


which_one = st.integers(0, 2)


class ManyExporters(RuleBasedStateMachine):
    """Three exporters of one Hub, whose requests interleave in any way, and time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = SimulatedHub()
        self.exporters = [Exporter(self.hub) for _ in range(3)]
        self.ended: list[Exporter] = []

    @rule(order=st.lists(which_one, min_size=1, max_size=8))
    def they_go_on(self, order: list[int]) -> None:
        """Let a request be handled, or an answer be read, or the next step begin, in this order."""
        for exporter in (self.exporters[which] for which in order):
            if exporter.is_at_rest:
                exporter.begin_next()
            else:
                exporter.go_on()

    @rule(which=which_one)
    def one_takes_a_whole_step(self, which: int) -> None:
        exporter = self.exporters[which]
        exporter.finish()
        exporter.take_a_step()

    @rule(seconds=st.sampled_from([0.001, 2.0, 11.0, 28.0, 60.0, 85.0, 118.0, 121.0]))
    def time_goes_by(self, seconds: float) -> None:
        """Let it go by for all; but what is sent to be revoked arrives within seconds.

        That is all that an exporter can see to: it looks at its clock right before it sends it.
        """
        for exporter in self.exporters:
            if exporter.revokes and seconds > 5:
                exporter.serve()
        self.hub.now += seconds

    @rule()
    def stops_are_sent(self) -> None:
        """Let each send the stop whose token it minted before, and mint a token for the next."""
        for exporter in self.exporters:
            if exporter.stop_token and exporter.election.begin_stop(epoch(exporter.stop_token)):
                exporter.sent.append(exporter.stop_token)
                exporter.election.end_stop(answered=False)  # so that it may still work
            exporter.stop_token = self.hub.now + 10

    @rule(which=which_one, handled=st.booleans())
    def the_connection_is_lost(self, which: int, handled: bool) -> None:
        exporter = self.exporters[which]
        if exporter.request is not None:
            exporter.serve("answer lost" if handled else "request lost")

    @rule(which=which_one)
    def one_is_killed_and_another_started(self, which: int) -> None:
        self.replace(which)

    @rule(which=which_one)
    def one_shuts_down_and_another_is_started(self, which: int) -> None:
        """Its last stop may work for seconds yet: it leaves a lease for as long."""
        exporter = self.exporters[which]
        exporter.finish()
        exporter.begin(exporter.election.release)
        exporter.finish()
        self.replace(which)

    def replace(self, which: int) -> None:
        self.ended.append(self.exporters[which])
        self.exporters[which] = Exporter(self.hub)

    @invariant()
    def at_most_one_may_stop_servers(self) -> None:
        believers = [exporter for exporter in self.exporters if exporter.may_stop(3)]
        assert len(believers) <= 1

    @invariant()
    def stops_of_at_most_one_may_work(self) -> None:
        """Also those that were sent, and are still on their way to the Hub."""
        everyone = [*self.exporters, *self.ended]
        able = [one for one in everyone if any(expires >= self.hub.now for expires in one.sent)]
        assert len(able) <= 1

    def teardown(self) -> None:
        """Let all requests be handled from now on: then one of them holds the lease for good."""
        try:
            self.let_one_win()
        finally:
            for exporter in [*self.exporters, *self.ended]:
                exporter.end()

    def let_one_win(self) -> None:
        for exporter in self.exporters:
            exporter.finish()
        for _ in range(8):
            for exporter in self.exporters:
                exporter.take_a_step()
                self.at_most_one_may_stop_servers()
            self.hub.now += 29.0
        assert [exporter.may_stop(10) for exporter in self.exporters].count(True) == 1


def test_with_many_exporters_at_most_one_may_stop_servers_and_in_the_end_one_does() -> None:
    run_state_machine_as_test(
        ManyExporters,
        settings=settings(examples(100), stateful_step_count=40),
    )
