"""The culler's rules one by one, each test named after its rule, over real HTTP and still clocks."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import fake_hub as faults
import pytest
import structlog
from culling_rig import HOUR, Rig
from fake_hub import FakeHub, Reply, Request

from hub_idle_exporter.culler import Limits

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(fake_hub: FakeHub) -> Iterator[MakeRig]:
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(fake_hub, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.__exit__()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()


# ---- busy for long ------------------------------------------------------------------------------


def test_busy_past_max_busy_is_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(max_busy=2 * HOUR))
    rig.run("ana", kernels=["busy"])
    rig.poll()
    rig.watch(2 * HOUR - 30)
    rig.poll()
    assert (rig.spared("busy"), rig.stops()) == (2, [])
    rig.watch(60)
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_being_at_work_in_between_is_a_break_in_being_busy(make_rig: MakeRig) -> None:
    """Busy last night and busy tonight, at work all day: that is not busy without a break."""
    rig = make_rig(limits=Limits(max_busy=2 * HOUR))
    server = rig.run("ana", kernels=["busy"])
    rig.poll()
    server.last_activity = rig.hub.now()
    rig.watch(60)
    rig.poll()  # active: not a candidate, and so not asked
    rig.watch(3 * HOUR)
    rig.poll()  # busy again, or still: seen so for the first time since
    assert (rig.spared("busy"), rig.stops()) == (2, [])


def test_activity_the_server_reports_itself_is_a_break_in_being_busy(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(max_busy=2 * HOUR))
    server = rig.run("ana", kernels=["busy"])
    rig.poll()
    jupyter = rig.jupyter(server)
    jupyter.kernels[0]["execution_state"] = "idle"
    jupyter.last_activity = "2027-01-15T08:00:30Z"
    rig.watch(60)
    rig.poll()
    assert rig.asked("active") == 1
    jupyter.kernels[0]["execution_state"] = "busy"
    rig.watch(3 * HOUR)
    rig.poll()
    assert (rig.spared("busy"), rig.stops()) == (2, [])
