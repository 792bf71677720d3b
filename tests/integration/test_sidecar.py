"""How a sidecar is put together: nothing runs, and no file is opened, before it is told to."""

import threading

import pytest
from fake_hub import FakeHub

from hub_idle_exporter.culling.culler import Culler
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.settings import (
    ConnectionSettings,
    CullSettings,
    PollSettings,
    Settings,
)
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.sidecar import assemble

CONCURRENCY = 200


def settings(hub: FakeHub) -> Settings:
    cull = CullSettings(enforce=True, concurrency=CONCURRENCY)
    return Settings(ConnectionSettings(hub.url), PollSettings(Policy("default", 3600.0)), cull)


def cullers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("culler-")]


def test_threads_start_when_it_is_started_and_not_before(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(Culler, "start", lambda self: started.append(self))
    before = cullers()
    sidecar = assemble(settings(fake_hub), Token.read_by(lambda: fake_hub.token))
    assert (cullers(), started) == (before, [])
    sidecar.start()
    assert started == [sidecar.culler]


def test_observing_changes_nothing_and_starts_nobody(fake_hub: FakeHub) -> None:
    fake_hub.add_server("ana", idle=7200)
    sidecar = assemble(settings(fake_hub), Token.read_by(lambda: fake_hub.token))
    before, threads = sidecar.latest.state, set(threading.enumerate())
    state = sidecar.observer.observe(before)
    assert state.snapshot is not None
    assert len(state.snapshot.census.candidates) == 1
    assert sidecar.latest.state is before
    assert {thread for thread in threading.enumerate() if thread.name.startswith("culler-")} <= (
        threads
    )
    assert {request.method for request in fake_hub.log()} == {"GET"}
