"""`kill -9` of the exporter, and of the Hub, at each step before a stop.

One server is forgotten, one is kept by its person. Whatever ends in between, nothing is forgotten
that counts: nobody is stopped who was not told, the kept one runs on, the other one is stopped.
"""

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import fake_hub as faults
import pytest
from apart_hub import ApartHub
from conftest import RunExporter
from exporter_process import Exporter
from real_culling import NOW, idle_servers, runs
from smtp_sink import SmtpSink

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.people.state_file import StateFile

pytestmark = pytest.mark.slow("the exporter and the Hub are killed at each step before a stop")

NOTICE = 3.0
# The Hub says its time in whole seconds.
CLOCK = 1.0
TOLD = "Your server will be stopped in less than a minute"
FORGOTTEN, KEEPER = "forgotten", "keeper"


@dataclass
class Scene:
    """A Hub, a mail server, and the files that outlive an exporter."""

    hub: ApartHub
    sink: SmtpSink
    directory: Path
    run: RunExporter

    @property
    def file(self) -> Path:
        return self.directory / "state.sqlite"

    def exporter(self, limit: str = "1h") -> Exporter:
        """Start an exporter, as whatever looks after it does; the lease of a dead one is over."""
        self.hub.revoke_leases()
        notify = self.directory / "notify"
        notify.write_text(
            f"mailto://{self.sink.address}/?from=hub@example.org&to={{user}}@example.org\n"
        )
        notify.chmod(0o600)
        options = (*NOW, f"--timeout={limit}", f"--notice={NOTICE:g}s", "--keep-max=8h")
        return self.run(self.hub, *options, f"--state-file={self.file}", f"--notify-file={notify}")

    def keep(self, user: str) -> None:
        """Keep a server for hours; no exporter runs."""
        started = self.hub.server(user)["started"].replace("Z", "+00:00")
        start = (user, "", datetime.fromisoformat(started))
        with closing(StateFile.opened(self.file, lambda _seconds: False)) as file:
            file.save_keep(start, Keep(datetime.now(timezone.utc).timestamp() + 9999, user))

    @contextmanager
    def file_held(self) -> Iterator[None]:
        """Let nothing be written to the state file for a moment."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute("begin immediate")
            yield
            other.execute("rollback")

    def announced(self) -> list[str]:
        """Return whose stop was announced, by the state file."""
        return [start[0] for start, _ in StateFile.reading(self.file).announcements]

    def told(self, user: str) -> list[float]:
        """Return when somebody was told that their server will be stopped."""
        to = [f"{user}@example.org"]
        return [
            mail.at for mail in self.sink.mails if (mail.subject, mail.recipients) == (TOLD, to)
        ]

    def stopped_at(self, user: str) -> float:
        """Return when a server had stopped, by the Hub's log."""
        line = self.hub.wait_log(f"User {user} server took")
        found = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", line)
        assert found, line
        return datetime.fromisoformat(f"{found[0]}+00:00").timestamp()

    def check_end(self, last: Exporter) -> None:
        """The kept server runs on, is known to be kept, and nobody was told anything of it."""
        last.wait_value(1, "jupyterhub_servers_kept")
        last.wait_polls(2)
        assert runs(self.hub, KEEPER)
        assert not self.told(KEEPER)
        assert last.stop() == 0
        assert [start[0] for start in StateFile.reading(self.file).keeps] == [KEEPER]


@pytest.fixture
def scene(
    paper_hub_of_ours: ApartHub, tmp_path: Path, run_exporter: RunExporter
) -> Iterator[Scene]:
    """Both servers are past their limit; the stop of the forgotten one waits for a file."""
    with SmtpSink() as sink:
        made = Scene(paper_hub_of_ours, sink, tmp_path, run_exporter)
        idle_servers(made.hub, KEEPER)
        idle_servers(made.hub, FORGOTTEN, stop_until=str(tmp_path / "may-stop"))
        made.keep(KEEPER)
        yield made
        (tmp_path / "may-stop").touch()


@pytest.fixture
def paper_hub_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApartHub]:
    """A Hub that may be killed; its servers are paper."""
    with ApartHub(tmp_path_factory.mktemp("hub"), "paper", activity_interval=0) as hub:
        yield hub


def kill(exporter: Exporter) -> None:
    """End an exporter as the kernel does when memory is short."""
    exporter.process.kill()
    exporter.wait()


def test_an_exporter_that_is_killed_at_each_step(scene: Scene) -> None:
    hub, sink, paper = scene.hub, scene.sink, scene.hub.paper

    # Somebody has been told, and the exporter does not know yet.
    sink.answers.clear()
    exporter = scene.exporter()
    sink.wait_for(1)
    kill(exporter)
    sink.answers.set()
    assert scene.announced() == []

    # It knows, and has not written it down: that does not count, and they are told again.
    sink.answers.clear()
    exporter = scene.exporter()
    sink.wait_for(2)
    with scene.file_held():
        sink.answers.set()
        exporter.wait_event("notification_sent", user=FORGOTTEN)
        kill(exporter)
    assert scene.announced() == []

    # It is written down: from now on they are not told again.
    exporter = scene.exporter()
    exporter.wait_event("stop_announced", user=FORGOTTEN)
    kill(exporter)
    assert scene.announced() == [FORGOTTEN]

    # The stop is due, and the server is asked for the last time.
    released = threading.Event()
    paper.requests.clear()
    paper.plan("GET", f"/user/{FORGOTTEN}/api/status", faults.hang(released), times=1)
    exporter = scene.exporter()
    paper.wait_for("GET", f"/user/{FORGOTTEN}/api/status")
    kill(exporter)
    released.set()
    assert runs(hub, FORGOTTEN)
    assert scene.announced() == [FORGOTTEN]

    # The Hub has taken the stop, and is not done with it.
    exporter = scene.exporter()
    hub.wait(lambda: hub.server(FORGOTTEN)["pending"] == "stop", 20, "being stopped")
    kill(exporter)
    (scene.directory / "may-stop").touch()
    told = scene.told(FORGOTTEN)
    assert len(told) == 3
    assert scene.stopped_at(FORGOTTEN) - told[-1] > NOTICE - CLOCK

    # The Hub has answered, and whether the server stopped was not looked at.
    idle_servers(hub, "second")
    exporter = scene.exporter()
    exporter.wait_event("stopping_server", user="second")
    kill(exporter)
    (told_second,) = scene.told("second")
    assert scene.stopped_at("second") - told_second > NOTICE - CLOCK

    scene.check_end(scene.exporter())


def test_a_hub_that_is_killed_at_each_step(scene: Scene) -> None:
    hub, sink, paper = scene.hub, scene.sink, scene.hub.paper

    # People have been told when the Hub is gone; that is known, and written down, while it is.
    sink.answers.clear()
    exporter = scene.exporter()
    sink.wait_for(1)
    hub.kill()
    sink.answers.set()
    exporter.wait_event("stop_announced", user=FORGOTTEN)
    assert scene.announced() == [FORGOTTEN]

    # The stop is due, and the server is asked.
    released = threading.Event()
    paper.requests.clear()
    paper.plan("GET", f"/user/{FORGOTTEN}/api/kernels", faults.hang(released), times=1)
    hub.start()
    paper.wait_for("GET", f"/user/{FORGOTTEN}/api/kernels", timeout=30)
    hub.kill()
    released.set()
    exporter.wait_event("cull_withheld", user=FORGOTTEN, cause="probe_failed")
    hub.start()

    # The Hub has taken the stop; its whole machine fails.
    hub.wait(lambda: hub.server(FORGOTTEN)["pending"] == "stop", 30, "being stopped")
    kill(exporter)
    hub.kill()
    hub.start()
    assert runs(hub, FORGOTTEN)

    # The Hub took the server from its proxy before that, and has put it back: that looks as if
    # somebody had used it. So it is announced anew, when the limit has passed once more.
    (scene.directory / "may-stop").touch()
    exporter = scene.exporter(limit="5s")
    exporter.wait_event("announcement_taken_back", user=FORGOTTEN, why="active_again")
    exporter.wait_event("culled", user=FORGOTTEN, timeout=40)
    _, told = scene.told(FORGOTTEN)
    assert scene.stopped_at(FORGOTTEN) - told > NOTICE - CLOCK
    scene.check_end(exporter)
