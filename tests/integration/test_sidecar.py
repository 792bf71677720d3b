"""How a sidecar is put together: nothing runs, and no file is opened, before it is told to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import PROBER, FakeHub, always, reply

from hub_idle_exporter.culling.enforcement import Enforcement
from hub_idle_exporter.domain.gate import GateState
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.settings import (
    ConfigError,
    ConnectionSettings,
    CullSettings,
    PollSettings,
    Settings,
)
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.sidecar import Sidecar, assemble

CONCURRENCY = 200


def settings(hub: FakeHub, grace: float = 600.0) -> Settings:
    cull = CullSettings(enforce=True, grace=grace, concurrency=CONCURRENCY)
    return Settings(ConnectionSettings(hub.url), PollSettings(Policy("default", 3600.0)), cull)


def cullers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("culler-")]


def test_threads_start_when_it_is_started_and_not_before(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(Enforcement, "start", lambda self: started.append(self))
    before = cullers()
    sidecar = assemble(settings(fake_hub), Token.read_by(lambda: fake_hub.token))
    assert (cullers(), started) == (before, [])
    sidecar.start()
    assert started == [sidecar.enforcement]


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
    (minted,) = fake_hub.log("POST")
    assert minted.json()["expires_in"] == 1, "the scopes of the probe user are listed, no more"
    assert {request.method for request in fake_hub.log()} == {"GET", "POST"}


# ---- two exporters of one Hub -------------------------------------------------------------------


@pytest.fixture
def another(fake_hub: FakeHub) -> Iterator[Callable[[], Sidecar]]:
    """Assemble sidecars of the same Hub that enforce at once."""
    with ExitStack() as stack:

        def make() -> Sidecar:
            token = Token.read_by(lambda: fake_hub.token)
            sidecar = assemble(settings(fake_hub, grace=0.0), token)
            stack.callback(sidecar.release)
            return sidecar

        yield make


def shown(sidecar: Sidecar) -> tuple[str, float | None]:
    """Give what the metrics say: the state of enforcement, and whether it stands by."""
    value = sidecar.metrics.registry.get_sample_value
    states = [s for s in GateState if value("hub_idle_exporter_enforcement", {"state": s})]
    return states[0], value("hub_idle_exporter_standby")


def test_one_of_two_exporters_enforces_and_the_other_stands_by(
    fake_hub: FakeHub, another: Callable[[], Sidecar]
) -> None:
    """The one that waits is suspended, which needs nobody's attention: metrics and words say so."""
    first, second = another(), another()
    assert first.poller.poll()
    assert second.poller.poll()
    assert (shown(first), shown(second)) == (("on", 0), ("suspended", 1))
    why = second.gatekeeper.read().why
    assert why.startswith("another exporter of this Hub holds the lease and stops servers")
    first.release()
    assert second.poller.poll()
    assert shown(second) == ("on", 0)


def test_without_a_thread_to_release_the_lease_it_ends(
    another: Callable[[], Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease then expires by itself."""
    only = another()
    assert only.poller.poll()

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        only.release()


def test_an_exporter_that_could_not_take_over_does_not_stand_by(
    fake_hub: FakeHub, another: Callable[[], Sidecar]
) -> None:
    """Otherwise nobody would notice that nothing is stopped once the first one ends."""
    first, second = another(), another()
    assert first.poller.poll()
    assert second.poller.poll()
    assert shown(second) == ("suspended", 1)
    fake_hub.users[PROBER].admin = True
    fake_hub.add_server("ana", idle=7200)
    assert second.poller.poll()
    assert shown(second) == ("suspended", 0)


def test_an_exporter_that_cannot_ask_for_the_lease_does_not_stand_by(
    fake_hub: FakeHub, another: Callable[[], Sidecar]
) -> None:
    only = another()
    fake_hub.plan("GET", "/users/*/tokens", always(reply(500)))
    assert only.poller.poll()
    assert shown(only) == ("suspended", 0)
    assert "cannot be taken" in only.gatekeeper.read().why


def test_a_start_that_fails_leaves_the_state_file_to_the_next_try(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    """In the form with a page inside the Hub it is tried until the other files are mended."""
    notify = tmp_path / "notify.txt"
    notify.write_text("nonsense\n")
    wanted = replace(
        settings(fake_hub),
        state_file=str(tmp_path / "state.sqlite"),
        notify_file=str(notify),
    )
    token, stopping = Token.read_by(lambda: fake_hub.token), threading.Event()
    for _ in range(2):
        with pytest.raises(ConfigError, match="notify file"):
            assemble(wanted, token, stopping)
    notify.write_text("json://127.0.0.1:1/{user}\n")
    assemble(wanted, token, stopping).promises.file.close()


class Stopping(threading.Event):
    """Notes for how long it is waited for, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return self.is_set()


def test_a_pause_between_pages_ends_when_it_is_stopped(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(120)
    stopping = Stopping()
    token = Token.read_by(lambda: fake_hub.token)
    wanted = settings(fake_hub)
    long_pauses = replace(wanted, connection=replace(wanted.connection, max_share=1))
    assemble(long_pauses, token, stopping).hub.users()
    pages = len(fake_hub.log("GET", "/users"))
    assert pages > 1
    assert len(stopping.waited) == pages - 1
