"""`kill -9` of the exporter, and of the Hub, at each step before a stop, and around a keep.

Whatever ends in between, nothing is forgotten that counts: what is kept runs on, nobody is stopped
who was not told, and what is forgotten is stopped in the end.
"""

import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fake_hub as faults
import pytest
import requests
from apart_hub import ApartHub
from conftest import RunExporter
from exporter_process import Exporter
from hub_pages import EVERYBODY, OFTEN, Form, exporters, page_service, page_url, signed_in
from real_culling import NOW, idle_servers, metrics_at, runs
from smtp_sink import SmtpSink

from hub_idle_exporter.demo.launch import free_ports
from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.people.state_file import StateFile

pytestmark = pytest.mark.slow("the exporter and the Hub are killed at each step before a stop")

NOTICE = 3.0
# The Hub says its time in whole seconds.
CLOCK = 1.0
TOLD = "Your server will be stopped in less than a minute"
FORGOTTEN, KEEPER = "forgotten", "keeper"
KEPT = "jupyterhub_servers_kept"


@dataclass
class Memory:
    """What outlives an exporter: its state file, and a mail server that knows who was told."""

    sink: SmtpSink
    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "state.sqlite"

    def options(self, limit: str = "1h") -> list[str]:
        """Return the options of an exporter that has this memory."""
        notify = self.directory / "notify"
        to = f"mailto://{self.sink.address}/?from=hub@example.org&to={{user}}@example.org\n"
        notify.write_text(to)
        notify.chmod(0o600)
        files = [f"--state-file={self.file}", f"--notify-file={notify}"]
        return [*NOW, f"--timeout={limit}", f"--notice={NOTICE:g}s", "--keep-max=8h", *files]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing be written to the file for a moment."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute("begin immediate")
            yield
            other.execute("rollback")

    def keep(self, hub: ApartHub, user: str) -> None:
        """Keep a server for hours; no exporter runs."""
        started = hub.server(user)["started"].replace("Z", "+00:00")
        start = (user, "", datetime.fromisoformat(started))
        with closing(StateFile.opened(self.file, lambda _seconds: False)) as file:
            file.save_keep(start, Keep(datetime.now(timezone.utc).timestamp() + 9999, user))

    def kept(self) -> list[str]:
        """Return whose servers are kept, by the file."""
        return [start[0] for start in StateFile.reading(self.file).keeps]

    def announced(self) -> list[str]:
        """Return whose stop was announced, by the file."""
        return [start[0] for start, _ in StateFile.reading(self.file).announcements]

    def told(self, user: str) -> list[float]:
        """Return when somebody was told that their server will be stopped."""
        to = [f"{user}@example.org"]
        return [
            mail.at for mail in self.sink.mails if (mail.subject, mail.recipients) == (TOLD, to)
        ]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with SmtpSink() as sink:
        yield Memory(sink, tmp_path)


def stopped_at(hub: ApartHub, user: str) -> float:
    """Return when a server had stopped, by the Hub's log."""
    line = hub.wait_log(f"User {user} server took")
    found = re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", line)
    assert found, line
    return datetime.fromisoformat(f"{found[0]}+00:00").timestamp()


# ---- a server that is forgotten, beside one that is kept ----------------------------------------


@dataclass
class Scene:
    """Two servers past their limit on a Hub that may be killed."""

    hub: ApartHub
    memory: Memory
    run: RunExporter

    @property
    def may_stop(self) -> Path:
        """Return the file for which the stop of the forgotten server waits."""
        return self.memory.directory / "may-stop"

    def exporter(self, limit: str = "1h") -> Exporter:
        """Start an exporter, as whatever looks after it does; the lease of a dead one is over."""
        self.hub.revoke_leases()
        return self.run(self.hub, *self.memory.options(limit))

    def wait_being_stopped(self) -> None:
        pending = lambda: self.hub.server(FORGOTTEN)["pending"] == "stop"  # noqa: E731
        self.hub.wait(pending, 30, "the forgotten server being stopped")

    def check_end(self, last: Exporter) -> None:
        """The kept server runs on, is known to be kept, and its person was told nothing."""
        last.wait_value(1, KEPT)
        last.wait_polls(2)
        assert runs(self.hub, KEEPER)
        assert not self.memory.told(KEEPER)
        assert last.stop() == 0
        assert self.memory.kept() == [KEEPER]


@pytest.fixture
def scene(
    tmp_path_factory: pytest.TempPathFactory, memory: Memory, run_exporter: RunExporter
) -> Iterator[Scene]:
    with ApartHub(tmp_path_factory.mktemp("hub"), "paper", activity_interval=0) as hub:
        made = Scene(hub, memory, run_exporter)
        idle_servers(hub, KEEPER)
        idle_servers(hub, FORGOTTEN, stop_until=str(made.may_stop))
        memory.keep(hub, KEEPER)
        yield made
        made.may_stop.touch()


def kill(exporter: Exporter) -> None:
    """End an exporter as the kernel does when memory is short."""
    exporter.process.kill()
    exporter.wait()


def test_an_exporter_that_is_killed_at_each_step(scene: Scene) -> None:
    hub, paper, memory, sink = scene.hub, scene.hub.paper, scene.memory, scene.memory.sink

    # Somebody has been told, and the exporter does not know yet.
    sink.answers.clear()
    exporter = scene.exporter()
    sink.wait_for(1)
    kill(exporter)
    sink.answers.set()
    assert memory.announced() == []

    # It knows, and has not written it down: that does not count, and they are told again.
    sink.answers.clear()
    exporter = scene.exporter()
    sink.wait_for(2)
    with memory.held():
        sink.answers.set()
        exporter.wait_event("notification_sent", user=FORGOTTEN)
        kill(exporter)
    assert memory.announced() == []

    # It is written down: from now on they are not told again.
    exporter = scene.exporter()
    exporter.wait_event("stop_announced", user=FORGOTTEN)
    kill(exporter)
    assert memory.announced() == [FORGOTTEN]

    # The stop is due, and the server is asked for the last time.
    released = threading.Event()
    paper.requests.clear()
    paper.plan("GET", f"/user/{FORGOTTEN}/api/status", faults.hang(released), times=1)
    exporter = scene.exporter()
    paper.wait_for("GET", f"/user/{FORGOTTEN}/api/status")
    kill(exporter)
    released.set()
    assert runs(hub, FORGOTTEN)
    assert memory.announced() == [FORGOTTEN]

    # The Hub has taken the stop, and is not done with it.
    exporter = scene.exporter()
    scene.wait_being_stopped()
    kill(exporter)
    scene.may_stop.touch()
    told = memory.told(FORGOTTEN)
    assert len(told) == 3
    assert stopped_at(hub, FORGOTTEN) - told[-1] > NOTICE - CLOCK

    # The Hub has answered, and whether the server stopped was not looked at.
    idle_servers(hub, "second")
    exporter = scene.exporter()
    exporter.wait_event("stopping_server", user="second")
    kill(exporter)
    (told_second,) = memory.told("second")
    assert stopped_at(hub, "second") - told_second > NOTICE - CLOCK

    scene.check_end(scene.exporter())
    assert {mail.subject for mail in sink.mails} == {TOLD}, "nobody knows of a stop to tell of"


def test_a_hub_that_is_killed_at_each_step(scene: Scene) -> None:
    hub, paper, memory, sink = scene.hub, scene.hub.paper, scene.memory, scene.memory.sink

    # People have been told when the Hub is gone; that is known, and written down, while it is.
    sink.answers.clear()
    exporter = scene.exporter()
    sink.wait_for(1)
    hub.kill()
    sink.answers.set()
    exporter.wait_event("stop_announced", user=FORGOTTEN)
    assert memory.announced() == [FORGOTTEN]

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
    scene.wait_being_stopped()
    kill(exporter)
    hub.kill()
    hub.start()
    assert runs(hub, FORGOTTEN)

    # The Hub took the server from its proxy before that, and has put it back: that looks as if
    # somebody had used it. So it is announced anew, when the limit has passed once more.
    scene.may_stop.touch()
    exporter = scene.exporter(limit="5s")
    exporter.wait_event("announcement_taken_back", user=FORGOTTEN, why="active_again")
    exporter.wait_event("culled", user=FORGOTTEN, timeout=40)
    _, told = memory.told(FORGOTTEN)
    assert stopped_at(hub, FORGOTTEN) - told > NOTICE - CLOCK
    scene.check_end(exporter)


# ---- a keep, on the page inside the Hub ---------------------------------------------------------


@dataclass
class Visit:
    """Somebody at the page, who may keep and release their server."""

    hub: ApartHub
    session: requests.Session

    def look(self) -> str:
        """Return the page; "" if it is not there."""
        page = self.session.get(page_url(self.hub), timeout=30)
        return page.text if page.status_code == 200 else ""

    def press(self, button: str) -> str:
        """Press a button, as a browser does; return what is shown then."""
        form = Form(self.look(), button, KEEPER)
        origin = self.hub.public_url.rstrip("/")
        sent = {"Origin": origin}
        return self.session.post(f"{origin}{form.path}", form.fields, headers=sent, timeout=30).text

    def wait_for(self, button: str) -> None:
        """Wait until the page is there, and has a button."""
        self.hub.wait(lambda: f'/{button}"' in self.look(), 40, f"the button {button} there")

    def asked(self) -> int:
        """Return how often the page has asked the Hub for their servers."""
        return self.hub.log_path.read_text().count(f"GET /hub/api/users/{KEEPER}")


def kill_service(hub: ApartHub) -> None:
    """Kill the exporter that the Hub runs, which starts it again; its lease is over."""
    for exporter in exporters(hub):
        exporter.kill()
        exporter.wait(10)
    hub.revoke_leases()


def test_a_keep_that_was_confirmed_is_never_lost(
    tmp_path_factory: pytest.TempPathFactory, memory: Memory
) -> None:
    (web,) = free_ports(1)
    service = page_service(*memory.options(), web=web)
    more: dict[str, Any] = {
        "services": [service],
        "roles": [EVERYBODY],
        "config": OFTEN,
        "activity_interval": 0,
    }
    with ApartHub(tmp_path_factory.mktemp("hub"), "paper", **more) as hub:
        hub.start_server(KEEPER, user_options={"stop_delay": 0})
        visit = Visit(hub, signed_in(hub, KEEPER))
        visit.wait_for("keep")

        # It was not written down: nobody was told that it is kept, and it is not.
        before = visit.asked()
        with memory.held(), ThreadPoolExecutor(1) as pool:
            shown = pool.submit(visit.press, "keep")
            hub.wait(lambda: visit.asked() >= before + 2, 20, "page and keep asked for")
            kill_service(hub)
        assert "is kept." not in shown.result()
        assert memory.kept() == []

        # It was confirmed, and the exporter is killed.
        visit.wait_for("keep")
        assert "is kept." in visit.press("keep")
        kill_service(hub)
        visit.wait_for("release")

        # The Hub is killed. Whoever was signed in still is.
        hub.kill()
        hub.start()
        hub.revoke_leases()
        visit.wait_for("release")
        hub.backdate(KEEPER, idle=7200)
        hub.wait(lambda: metrics_at(web).value("jupyterhub_servers", state="idle") == 1, 30, "idle")
        assert metrics_at(web).value(KEPT) == 1
        assert runs(hub, KEEPER)
        assert memory.sink.mails == []

        # It is released, and the exporter is killed. They are told, and it is stopped.
        assert "is not kept any more" in visit.press("release")
        kill_service(hub)
        hub.wait(lambda: not runs(hub, KEEPER), 40, "stopped")
        (told,) = memory.told(KEEPER)
        assert stopped_at(hub, KEEPER) - told > NOTICE - CLOCK
