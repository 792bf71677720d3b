"""Histories of a Hub, its people and one sidecar that are known to be dangerous.

The sidecar, the network or the Hub stands still in the middle of a pass, and people come back;
clocks are wrong; servers change what they say. The clocks are the rig's: nothing is waited for.
Random histories are in test_properties.py.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fake_hub as faults
import pytest
from culling_rig import Rig
from fake_hub import FakeHub
from fake_prometheus import FakePrometheus
from people_world import PeopleWorld
from world import BAD_STOPS, LIMIT, MAX_BUSY, SETTINGS, Act, Disturbance, World, iso

IDLE: dict[str, Any] = {
    "idle": 40000.0,
    "name": "",
    "groups": (),
    "options": {},
    "kernel": "idle",
    "jupyter": True,
    "fed": True,
    "stop_fails": False,
    "slow": 0,
}
STOPPED = ["user 0@ü/"]
MakeWorld = Callable[..., World]


@pytest.fixture
def make_world() -> Iterator[MakeWorld]:
    with ExitStack() as stack:

        def make(
            *people: dict[str, Any], grace: float = 0.0, hears: bool = False, **settings: Any
        ) -> World:
            hub, prometheus = stack.enter_context(FakeHub()), None
            if hears:
                prometheus = stack.enter_context(FakePrometheus())
                settings["prometheus"] = prometheus.origin
            rig = stack.enter_context(Rig(hub, grace=grace, **SETTINGS | settings))
            world = World(rig, grace, prometheus=prometheus)
            for one in people or ({},):
                world.begin(IDLE | one)
            world.do("wait", 30.0)
            return world

        yield make


def poll(world: World, *disturbances: Disturbance) -> None:
    """Poll, and see that all that was to happen in the middle of it did."""
    world.do("poll", None, [*disturbances])
    assert world.planned == []


def pause(kind: str, late: bool, seconds: float, act: Act | None = None) -> Disturbance:
    return Disturbance(kind, late, seconds, act)


# ---- everything stands still in the middle of a pass --------------------------------------------

# Each request up to the stop; the pause comes before it is handled, or after it is answered.
BEFORE_ASKING = [(kind, late) for kind in ("list", "prober", "routes", "mint") for late in (0, 1)]
ASKING = [(kind, late) for kind in ("kernels", "terminals") for late in (0, 1)]
LOOKING = [(kind, late) for kind in ("stop token", "look", "status") for late in (0, 1)]
UP_TO_THE_STOP = [*BEFORE_ASKING, *ASKING, *LOOKING, ("delete", 0)]


@pytest.mark.parametrize(("kind", "late"), UP_TO_THE_STOP)
@pytest.mark.parametrize(
    ("person", "act"),
    [
        ({}, ("work", 0, "all")),
        ({}, ("work", 0, "server")),
        ({}, ("kernel", 0, "busy")),
        ({"jupyter": False}, ("work", 0, "route")),
    ],
    ids=["all know", "the server knows", "a kernel is busy", "the proxy knows"],
)
def test_after_a_pause_nobody_is_stopped_who_has_come_back(
    make_world: MakeWorld, kind: str, late: bool, person: dict[str, Any], act: Act
) -> None:
    world = make_world(person)
    poll(world, pause(kind, bool(late), 20.0, act))
    assert world.stopped == []


@pytest.mark.parametrize(("kind", "late"), [("query", 0), *UP_TO_THE_STOP])
@pytest.mark.parametrize("act", [("says", 0, "in use"), ("query", "error")], ids=["works", "fails"])
def test_after_a_pause_nobody_is_stopped_of_whom_prometheus_no_longer_says_0(
    make_world: MakeWorld, kind: str, late: bool, act: Act
) -> None:
    world = make_world(hears=True)
    poll(world, pause(kind, bool(late), 31.0, act))
    assert world.stopped == []
    world.do("says", 0, "idle")
    world.settle()
    assert world.stopped == STOPPED


@pytest.mark.parametrize(("kind", "late"), [*BEFORE_ASKING, *LOOKING[:4], ("delete", 0)])
def test_after_a_pause_no_other_start_is_stopped_for_its_age(
    make_world: MakeWorld, kind: str, late: bool
) -> None:
    """Past its max age when it was judged, and started again meanwhile."""
    world = make_world({"name": "gpu"})
    poll(world, pause(kind, bool(late), 20.0, ("restart", 0)))
    assert world.stopped == []


@pytest.mark.parametrize(("kind", "late"), [("terminals", 1), *LOOKING, ("delete", 0)])
@pytest.mark.parametrize("seconds", [2.0, 20.0])
def test_after_a_pause_a_stop_is_prepared_anew(
    make_world: MakeWorld, kind: str, late: bool, seconds: float
) -> None:
    """Whoever is still idle then is stopped, after a new look, by a new token."""
    world = make_world()
    poll(world, pause(kind, bool(late), seconds))
    assert world.stopped == STOPPED
    assert world.rig.withheld("stale") == 0


@pytest.mark.parametrize("kind", ["stop token", "look", "status"])
def test_what_is_too_old_by_our_own_clock_is_not_even_sent(
    make_world: MakeWorld, kind: str
) -> None:
    world = make_world()
    poll(world, pause(kind, True, 20.0))
    assert world.stopped == STOPPED
    assert len(world.rig.stops()) == 1


def test_a_stop_that_always_comes_too_late_is_given_up_after_three_times(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    world.do("bad_stop", 0, "403")
    poll(world)
    assert (world.stopped, world.rig.withheld("stale")) == ([], 1)
    assert world.rig.stops() == STOPPED * 3
    assert len(world.rig.minted("stop")) == 3
    assert world.counted("cull_attempts") == 0


@pytest.mark.parametrize(("hub", "server"), [(0.5, 0.5), (2.0, 0.0), (0.0, 2.0), (1.5, 1.5)])
def test_slow_servers_on_a_slow_hub_are_stopped_slowly_and_not_never(
    make_world: MakeWorld, hub: float, server: float
) -> None:
    world = make_world({}, {"name": "gpu"}, {"jupyter": False}, concurrency=1)
    world.hub_takes, world.server_takes = hub, server
    poll(world)
    assert len(world.stopped) == 3
    assert world.rig.withheld("stale") == 0


def test_a_probe_token_is_left_to_expire_in_the_second_half_of_its_life(
    make_world: MakeWorld,
) -> None:
    """A late request to revoke it would hit whichever token has got its id by then."""
    for seconds, revoked in ((20.0, 1), (40.0, 0)):
        world = make_world({"kernel": "busy"})
        poll(world, pause("terminals", True, seconds))
        found = [token for token in world.hub.revoked if "busy check" in token.note]
        assert len(found) == revoked


# ---- stops whose answer is lost -----------------------------------------------------------------


@pytest.mark.parametrize("how", [how for how in BAD_STOPS if how != "403"])
@pytest.mark.parametrize("jupyter", [True, False])
def test_a_stop_without_a_good_answer_is_counted_as_what_became_of_it(
    make_world: MakeWorld, how: str, jupyter: bool
) -> None:
    world = make_world({"jupyter": jupyter})
    world.do("bad_stop", 0, how)
    poll(world)
    done = how in ("answer lost", "504 done")
    assert world.stopped == (STOPPED if done else [])
    assert (world.counted("culls"), world.counted("cull_failures")) == (done, not done)
    world.settle()
    assert world.stopped == STOPPED


@pytest.mark.parametrize("jupyter", [True, False])
def test_a_stop_that_failed_is_no_cull(make_world: MakeWorld, jupyter: bool) -> None:
    world = make_world({"jupyter": jupyter, "stop_fails": True})
    poll(world)
    assert (world.counted("culls"), world.rig.failed("not_stopped")) == (0, 1)


# ---- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", ["hub_jump", "wall_jump"])
@pytest.mark.parametrize("seconds", [7200.0, -7200.0])
def test_clocks_hours_apart_stop_nobody_until_they_agree(
    make_world: MakeWorld, jump: str, seconds: float
) -> None:
    """With the Hub two hours ahead, everybody who was active seconds ago looks idle."""
    world = make_world()
    world.do("work", 0, "all")
    world.do(jump, seconds)
    for _ in range(3):
        poll(world)
        world.do("wait", LIMIT)
    assert world.stopped == []
    assert world.rig.counted("enforcement", state="suspended") == 1
    world.settle()


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
@pytest.mark.parametrize(("idle", "stopped"), [(60.0, []), (2 * LIMIT, STOPPED)])
def test_a_server_is_judged_by_its_own_clock_however_wrong_that_is(
    make_world: MakeWorld, ahead: float, idle: float, stopped: list[str]
) -> None:
    world = make_world({"kernel": None})
    world.do("server_clock", 0, ahead)
    world.do("work", 0, "server")
    world.do("wait", idle)
    poll(world)
    assert world.stopped == stopped


def test_a_server_that_does_not_say_what_time_it_is_is_spared(make_world: MakeWorld) -> None:
    world = make_world()
    world.do("odd", 0, "undated")
    poll(world)
    assert (world.stopped, world.rig.withheld("probe_failed")) == ([], 1)


def test_a_stop_must_end_before_the_lease(make_world: MakeWorld) -> None:
    """Else another exporter could already stop servers when it takes effect."""
    world = make_world({"idle": 0.0})
    poll(world)
    world.rig.time += 118.0  # without renewing it
    world.rig.gatekeeper.hub_answered(world.hub.now())
    world.begin(IDLE)
    world.rig.finish(world.rig.begin())
    assert (world.stopped, world.rig.withheld("gate")) == ([], 1)


# ---- who is no Jupyter server, and who is busy --------------------------------------------------


@pytest.mark.parametrize("first", ["idle", "busy", "active"])
def test_what_once_answered_as_jupyter_is_never_taken_for_something_else(
    make_world: MakeWorld, first: str
) -> None:
    """Whatever it answered then: its user may change its answers, or it is about to crash."""
    world = make_world({"kernel": "busy" if first == "busy" else None})
    world.do("bad_stop", 0, "403")
    if first == "active":
        world.do("work", 0, "server")
    poll(world)
    world.do("bad_stop", 0, None)
    world.do("odd", 0, "not_found")
    poll(world)
    assert world.stopped == []
    world.do("restart", 0)
    world.do("wait", LIMIT)
    poll(world)
    assert world.stopped == STOPPED


def test_without_anything_that_records_its_activity_no_other_program_is_stopped(
    make_world: MakeWorld,
) -> None:
    """Behind Traefik nobody tells the Hub that an RStudio is in use."""
    world = make_world({"jupyter": False, "fed": False}, {"jupyter": False})
    poll(world)
    assert world.stopped == ["user 1@ü/"]
    assert world.rig.withheld("probe_failed") == 1


def test_an_open_terminal_protects_until_it_is_closed(make_world: MakeWorld) -> None:
    world = make_world({"options": {"profile": "gpu-a"}}, {"name": "gpu", "kernel": None})
    for number in (0, 1):
        world.do("terminal", number)
    poll(world)
    assert world.stopped == ["user 1@ü/gpu"]  # only one of the policies lets terminals protect
    world.do("terminal", 0)
    world.settle()
    assert world.stopped == ["user 1@ü/gpu", *STOPPED]


def be_busy(world: World) -> None:
    for _ in range(int(MAX_BUSY / LIMIT)):
        poll(world)
        world.do("wait", LIMIT)


def test_being_busy_for_long_protects_no_more(make_world: MakeWorld) -> None:
    world = make_world({"kernel": "busy"})
    be_busy(world)
    assert world.stopped == []
    poll(world)
    assert world.stopped == STOPPED


@pytest.mark.parametrize("seen_by", ["all", "server", "its kernel"])
def test_being_at_work_is_a_break_in_being_busy(make_world: MakeWorld, seen_by: str) -> None:
    """Though a kernel is busy at each poll: nobody may lose an afternoon's work for the morning."""
    world = make_world({"kernel": "busy"})
    be_busy(world)
    if seen_by == "its kernel":
        said = world.jupyter(0)
        assert said is not None
        said.kernels[0]["last_activity"] = iso(world.rig.time)
    else:
        world.do("work", 0, seen_by)
    poll(world)
    world.do("wait", LIMIT)
    poll(world)
    assert world.stopped == []


def test_being_seen_at_rest_is_a_break_in_being_busy_though_it_is_withheld_for_more(
    make_world: MakeWorld,
) -> None:
    world = make_world({"kernel": "busy"})
    be_busy(world)
    world.do("kernel", 0, "idle")
    poll(world, pause("terminals", True, 0.0, ("pending", 0, "spawn")))
    world.do("pending", 0, None)
    world.do("kernel", 0, "busy")
    poll(world)
    assert world.stopped == []


def test_a_stop_that_came_too_late_is_no_break_in_being_busy(make_world: MakeWorld) -> None:
    world = make_world({"kernel": "busy"})
    be_busy(world)
    poll(world, pause("delete", False, 20.0))
    assert world.stopped == STOPPED


# ---- what changes between the list and the stop -------------------------------------------------


def test_whoever_has_left_the_group_that_may_be_stopped_is_spared(make_world: MakeWorld) -> None:
    """Stop tokens may stop everybody: what our own token may stop is seen to by ourselves."""
    world = make_world({"groups": ("class",)})
    scopes = world.hub.tokens[world.hub.token].scopes
    scopes[scopes.index("delete:servers")] = "delete:servers!group=class"
    user = world.servers[0].user
    world.hub.plan("GET", "/users", faults.after(lambda: setattr(user, "groups", ())))
    assert world.rig.poll()
    assert (world.stopped, world.rig.withheld("policy")) == ([], 1)


# ---- what people were promised ------------------------------------------------------------------

PROMISES: dict[str, list[Act]] = {
    "a clock that is wrong for a while ends no keep": [
        ("keep", 0),
        ("hub_jump", 7200.0),
        ("poll", None, []),
        ("hub_jump", -7200.0),
        ("poll", None, []),
        ("wait", 900.0),
        ("poll", None, []),
    ],
    "a keep survives a killed exporter": [
        ("keep", 0),
        ("exporter_ends", "killed"),
        ("wait", 900.0),
        ("poll", None, []),
    ],
    "a keep in the middle of a stop is honoured, or too late": [
        ("poll", None, []),
        ("wait", 310.0),
        *(
            ("poll", None, [Disturbance(kind, late, 0.0, ("keep", 0))])
            for kind in ("stop token", "look", "delete")
            for late in (False, True)
        ),
    ],
    "what was announced survives a killed exporter": [
        ("poll", None, []),
        ("exporter_ends", "killed"),
        ("wait", 310.0),
        ("poll", None, []),
    ],
    "who is at work by the server's word is told anew": [
        ("poll", None, []),
        ("wait", 310.0),
        ("kernel", 0, "busy"),
        ("poll", None, []),
        ("kernel", 0, "idle"),
        ("poll", None, []),
        ("wait", 30.0),
        ("poll", None, []),
    ],
    "what nobody could be told of stops nobody": [
        ("post", False),
        ("poll", None, []),
        ("wait", 900.0),
        ("poll", None, []),
    ],
    "a lost file stops nobody": [
        ("poll", None, []),
        ("wait", 310.0),
        ("lose_file", "away"),
        ("poll", None, []),
    ],
}


@pytest.mark.parametrize("has_file", [True, False], ids=["a state file", "none"])
@pytest.mark.parametrize("history", PROMISES)
def test_no_promise_is_broken_and_all_end(tmp_path: Path, history: str, has_file: bool) -> None:
    (tmp_path / "state").mkdir()
    folder = tmp_path / "state" if has_file else None
    with FakeHub() as hub, PeopleWorld.begun(hub, grace=0.0, folder=folder) as world:
        world.begin(IDLE | {"idle": 620.0})
        for act in [("wait", 30.0), ("poll", None, []), *PROMISES[history]]:
            world.do(*act)
        world.settle()
        assert world.stopped == STOPPED


def test_nobody_is_told_in_the_grace_period_after_a_clock_of_ours_is_set_right(
    tmp_path: Path,
) -> None:
    """It was two hours behind when the exporter began, in the place of another one."""
    with FakeHub() as hub, PeopleWorld.begun(hub, grace=600.0, folder=tmp_path) as world:
        world.begin(IDLE)
        world.do("poll", None, [])
        world.do("wall_jump", -7200.0)
        world.do("exporter_ends", "by itself")
        world.settle()
        assert world.stopped == STOPPED
