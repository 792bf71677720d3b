"""The exporter's process is paused for twenty seconds after each kind of answer in a pass.

A real process and real signals; one fake Hub and one exporter for each kind, all at the same time.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import fake_hub as faults
import pytest
from answers import AFTER_THE_STOP, BEFORE_THE_STOP
from exporter_process import Exporter
from fake_hub import FakeHub, FakeServer, Jupyter

PAUSE_SECONDS = 20.0
STOP = "/users/ana/server"
OPTIONS = ("--enforce", "--grace=0", "--interval=1s", "--timeout=1h", "--log-level=debug")
pytestmark = [pytest.mark.slow("pauses of twenty seconds"), pytest.mark.timeout(200)]


@dataclass
class Scene:
    """One Hub with one idle server, and one exporter that is paused once."""

    kind: str
    directory: Path
    comes_back: bool
    stack: ExitStack = field(default_factory=ExitStack)
    paused: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hub = self.stack.enter_context(FakeHub())
        self.target = self.stack.enter_context(FakeServer(Jupyter(self.hub.now() - 7200)))
        self.server = self.hub.add_server("ana", idle=7200, age=9000, target=self.target)
        where, method, path, after = (BEFORE_THE_STOP | AFTER_THE_STOP)[self.kind]
        fake = self.hub if where == "hub" else self.target
        fake.plan(method, path, faults.after(self.pause), after=after, times=1)
        self.exporter = self.stack.enter_context(
            Exporter(self.hub.url, self.hub.token, OPTIONS, directory=self.directory)
        )

    def pause(self) -> None:
        """Stop the process before it reads this answer; its user comes back meanwhile."""
        pid = self.exporter.process.pid
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(PAUSE_SECONDS, os.kill, [pid, signal.SIGCONT]).start()
        if self.comes_back:
            threading.Timer(PAUSE_SECONDS / 2, self.work).start()
        self.paused.set()

    def work(self) -> None:
        assert self.target.jupyter is not None
        self.server.last_activity = self.target.jupyter.last_activity = self.hub.now()

    def run(self) -> None:
        """Wait until the exporter has polled again after its pause."""
        assert self.paused.wait(30), f"{self.kind}: no such answer\n{self.exporter.text}"
        polls = len(self.hub.log("GET", "/users"))
        self.hub.wait_for("GET", "/users", count=polls + 3, timeout=PAUSE_SECONDS + 30)


@pytest.fixture
def scenes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Scene]]:
    kinds, comes_back = request.param
    with ExitStack() as stack:
        made = {kind: Scene(kind, tmp_path, comes_back) for kind in kinds}
        for scene in made.values():
            stack.enter_context(scene.stack)
        with ThreadPoolExecutor(len(made)) as pool:
            list(pool.map(Scene.run, made.values()))
        yield made


@pytest.mark.parametrize(
    "scenes", [(list(BEFORE_THE_STOP), True)], ids=["comes back"], indirect=True
)
def test_after_a_pause_no_stop_is_sent_on_what_was_known_before(scenes: dict[str, Scene]) -> None:
    for kind, scene in scenes.items():
        assert scene.hub.log("DELETE", STOP) == [], f"paused after: {kind}\n{scene.exporter.text}"
        assert scene.server.ready, kind
        assert scene.exporter.metrics().value("hub_idle_exporter_culls_total") == 0, kind


@pytest.mark.parametrize("scenes", [(list(AFTER_THE_STOP), False)], ids=["gone"], indirect=True)
def test_a_pause_after_the_stop_changes_nothing_about_its_result(scenes: dict[str, Scene]) -> None:
    for kind, scene in scenes.items():
        scene.exporter.wait_value(1, "hub_idle_exporter_culls_total")
        metrics = scene.exporter.metrics()
        assert metrics.value("hub_idle_exporter_cull_attempts_total") == 1, kind
        assert metrics.value("hub_idle_exporter_cull_failures_total") == 0, kind
