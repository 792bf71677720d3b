"""One enforcer per Hub: several sidecars against one fake Hub, whose tokens are the leases."""

import threading
from collections.abc import Callable, Iterator

import fake_hub as faults
import pytest
from culling_rig import HOUR, Rig
from fake_hub import ENFORCE, FakeHub, Token

MakeRig = Callable[..., Rig]
TOKENS = "/users/idle-prober/tokens"


@pytest.fixture
def make_rig(fake_hub: FakeHub) -> Iterator[MakeRig]:
    """Make sidecars of one Hub; their clocks are those of the first one."""
    made: list[Rig] = []

    def make(**options: object) -> Rig:
        made.append(Rig(fake_hub, **options))  # type: ignore[arg-type]
        fake_hub.clock = lambda: made[0].time
        return made[-1]

    yield make
    for rig in made:
        rig.__exit__()


def leases(hub: FakeHub) -> list[Token]:
    return [token for token in hub.tokens.values() if "lease" in token.note]


EXEMPT_ANA = {"name": "ana", "match": {"users": ["ana"]}, "exempt": True}


def later(seconds: float, *rigs: Rig) -> None:
    """Let time go by without a word to the Hub."""
    for rig in rigs:
        rig.time += seconds


def state(rig: Rig) -> str:
    names = ["off", "grace", "suspended", "on"]
    (now,) = [name for name in names if rig.counted("enforcement", state=name)]
    return now


def test_a_lease_is_a_token_of_the_probe_user_that_opens_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.poll()
    (lease,) = leases(rig.hub)
    assert lease.user == "idle-prober"
    assert all(scope.endswith("!user=idle-prober") for scope in lease.scopes)
    assert lease.expires == rig.time + 120


def test_of_two_enforcing_sidecars_one_stops_servers(make_rig: MakeRig) -> None:
    first, second = make_rig(), make_rig()
    first.poll()
    first.run("ana")
    second.target = first.target
    second.poll()
    assert (state(first), state(second)) == ("on", "suspended")
    assert "another exporter of this Hub holds the lease" in second.gatekeeper.read().why
    assert first.stops() == []
    first.poll()
    assert (first.culled(), second.culled()) == (1, 0)
    assert len(first.hub.log("DELETE", "/users/ana/server")) == 1


def test_monitoring_asks_for_no_lease_and_no_probe_user(make_rig: MakeRig) -> None:
    rig = make_rig(enforce=False)
    rig.run("ana")
    rig.poll()
    assert rig.hub.log("*", "/users/idle-prober*") == []


def test_a_released_lease_is_taken_over_at_once_under_the_grace(make_rig: MakeRig) -> None:
    first, second = make_rig(), make_rig(grace=600)
    first.poll()
    second.poll()
    for _ in range(24):  # past the other's own grace after the start, with the Hub in sight
        first.watch(30)
        second.watch(30)
    second.poll()
    assert state(second) == "suspended"
    first.enforcement.release()
    assert leases(first.hub) == []
    second.poll()
    assert state(second) == "grace"
    assert len(leases(first.hub)) == 1


def test_a_lease_is_released_only_once_no_stop_is_on_its_way(make_rig: MakeRig) -> None:
    """The exporter ends while the Hub has its DELETE in hand: no other may enforce until then."""
    first, second = make_rig(), make_rig()
    first.run("ana")
    held = threading.Event()
    first.hub.plan("DELETE", "/users/ana/server", faults.hang(held))
    begun = first.begin()
    first.hub.wait_for("DELETE", "/users/ana/server")
    first.enforcement.release()
    second.poll()
    assert state(second) == "suspended"
    (lease,) = leases(first.hub)
    assert lease.expires == first.time + 10  # all stop tokens have expired by then
    held.set()
    first.finish(begun)
    later(11, first, second)
    second.poll()
    assert state(second) == "on"


def test_after_a_kill_the_lease_is_taken_over_once_it_has_expired(make_rig: MakeRig) -> None:
    killed, second = make_rig(), make_rig()
    killed.run("ana", idle=0)
    killed.poll()
    second.poll()
    later(119, killed, second)
    second.poll()
    assert state(second) == "suspended"
    later(2, killed, second)
    second.poll()
    assert state(second) == "on"


@pytest.mark.parametrize("asked", ["everything", "kernels and terminals"])
def test_a_holder_that_was_paused_stops_nobody_once_another_may_hold_the_lease(
    make_rig: MakeRig, asked: str
) -> None:
    """It mints its stop token before it is paused, or after; all else that it knows is fresh."""
    paused, second = make_rig(), make_rig(policies=[EXEMPT_ANA])  # which stops nobody itself
    paused.poll()
    second.poll()
    server = paused.run("ana")
    later(90, paused, second)

    def pause() -> None:
        later(40, paused, second)
        second.poller.poll()

    if asked == "everything":
        paused.target.plan("GET", "*/status", faults.after(pause), times=1)
    else:
        paused.after_work(pause)
    paused.finish(paused.begin())
    assert server.ready
    assert paused.withheld("gate") == 1
    assert (state(second), paused.culled()) == ("on", 0)
    paused.poll()
    assert state(paused) == "suspended"


def test_a_stop_token_that_outlives_the_lease_is_not_used(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.poll()
    server = rig.run("ana")
    later(118, rig)
    begun = rig.begin()
    rig.finish(begun)
    assert (server.ready, rig.withheld("gate"), rig.stops()) == (True, 1, [])


def test_the_lease_is_renewed_and_only_the_newest_token_stays(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.poll()
    rig.watch(600)
    (lease,) = leases(rig.hub)
    assert lease.expires is not None
    assert lease.expires > rig.time + 85
    rig.run("ana")
    rig.poll()
    assert rig.culled() == 1


def test_nobody_loses_the_lease_by_a_hub_that_is_away_for_a_minute(make_rig: MakeRig) -> None:
    rig, other = make_rig(), make_rig()
    rig.poll()
    rig.hub.hang_up()
    later(60, rig, other)
    rig.enforcement.election.renew()
    rig.hub.listen()
    rig.enforcement.election.renew()
    other.poll()
    rig.poll()
    assert (state(rig), state(other)) == ("grace" if rig.settings.grace else "on", "suspended")


def test_two_that_try_at_the_same_moment_are_never_both_elected(make_rig: MakeRig) -> None:
    """Each lists before the other has minted."""
    first, second = make_rig(), make_rig()
    first.hub.plan("POST", TOKENS, faults.before(second.poller.poll), after=1, times=1)
    first.poll()
    states = sorted([state(first), state(second)])
    assert states in (["on", "suspended"], ["suspended", "suspended"])
    for _ in range(3):
        later(6, first, second)
        first.poll()
        second.poll()
    assert sorted([state(first), state(second)]) == ["on", "suspended"]


def test_an_exporter_that_ends_while_it_polls_leaves_no_lease(make_rig: MakeRig) -> None:
    """Nobody would enforce until that one had expired."""
    rig = make_rig()
    rig.poll()

    def ends() -> None:
        rig.stopping.set()
        rig.enforcement.release()

    rig.hub.plan("GET", "/users", faults.after(ends), times=1)
    rig.poller.poll()
    assert leases(rig.hub) == []


def test_a_late_revoke_cannot_hit_anothers_lease(make_rig: MakeRig) -> None:
    """Ids are used again once a token has expired."""
    rig = make_rig()
    rig.poll()
    (ours,) = leases(rig.hub)
    later(95, rig)
    rig.enforcement.release()
    assert rig.hub.log("DELETE", f"{TOKENS}/{ours.id}") == []


def test_release_names_only_what_was_just_listed(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.poll()
    (ours,) = leases(rig.hub)
    del rig.hub.tokens[ours.value]  # somebody revoked it, and the next one got its id
    taken = rig.hub.add_token([], user="idle-prober", expires=rig.time + 60)
    assert rig.hub.tokens[taken].id == ours.id
    rig.enforcement.release()
    assert taken in rig.hub.tokens


def test_a_lease_that_was_revoked_is_lost(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.poll()
    for token in leases(rig.hub):
        del rig.hub.tokens[token.value]
    stranger = rig.hub.add_token([], user="idle-prober", expires=rig.time + 120)
    rig.hub.tokens[stranger].note = "hub-idle-exporter: lease of another"
    rig.enforcement.election.renew()
    assert state(rig) == "suspended"
    rig.run("ana")
    rig.poll()
    assert rig.stops() == []


def test_an_exporter_that_is_suspended_gives_the_lease_back(make_rig: MakeRig) -> None:
    """Another one may be able to enforce, with a token that has all scopes."""
    rig = make_rig()
    rig.poll()
    token = rig.hub.tokens[rig.hub.token]
    token.scopes = [scope for scope in token.scopes if scope != "proxy"]
    rig.poll()
    assert (state(rig), leases(rig.hub)) == ("suspended", [])
    token.scopes = list(ENFORCE)
    rig.poll()
    assert state(rig) == "on"


def test_without_the_scopes_auto_enforces_unelected_and_says_so(make_rig: MakeRig) -> None:
    rigs = [make_rig(busy_check="auto"), make_rig(busy_check="auto")]
    hub = rigs[0].hub
    hub.tokens[hub.token].scopes = [scope for scope in ENFORCE if not scope.startswith("tokens")]
    for rig in rigs:
        rig.poll()
        assert state(rig) == "on"
        assert rig.counted("safeguard", safeguard="lease") == 0
    rigs[0].run("ana")
    rigs[0].poll()
    assert rigs[0].culled() == 1


@pytest.mark.parametrize("path", [TOKENS, "/users/idle-prober"])
def test_a_hub_that_fails_for_a_moment_takes_no_safeguard_away(
    make_rig: MakeRig, path: str
) -> None:
    """With `auto`, what is not known is not taken for what cannot be had."""
    first, second = make_rig(busy_check="auto"), make_rig(busy_check="auto")
    first.poll()
    second.poll()
    server = first.run("ana", kernels=["busy"])
    first.hub.plan("*", path, faults.html(503))
    for rig in (first, second):
        assert rig.poller.poll()
        assert state(rig) == "suspended"
        assert rig.counted("safeguard", safeguard="busy_check") == 1
    first.hub.heal()
    first.poll()
    second.poll()
    assert (state(first), state(second)) == ("on", "suspended")
    assert server.ready
    assert first.withheld("busy") == 1


def test_off_with_the_scopes_has_lease_and_stop_token(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="off")
    rig.run("ana")
    rig.poll()
    assert rig.culled() == 1
    assert len(rig.minted("stop")) == 1
    assert [rig.counted("safeguard", safeguard=s) for s in ("busy_check", "lease")] == [0, 1]


def test_a_hub_that_refuses_the_lease_suspends_by_name(make_rig: MakeRig) -> None:
    rig = make_rig(max_age=HOUR)
    rig.hub.plan("GET", TOKENS, faults.html(500))
    rig.run("ana")
    rig.poll()
    assert (state(rig), rig.stops()) == ("suspended", [])
    assert "the lease of this Hub cannot be taken" in rig.gatekeeper.read().why
