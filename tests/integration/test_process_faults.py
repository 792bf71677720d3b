"""What happens to the process itself: signals, file descriptors, threads, disk, standard error.

A real process against a fake Hub over real HTTP. Each fault begins at a step of a poll or of a
culling pass (see `fault_steps`). `docs/faults.md` says what comes of each.
"""

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from exporter_process import Exporter, catches
from fake_hub import FakeHub, FakeServer, Jupyter, Reply, Request, Server
from fault_steps import SERVER, STEPS, USER, Step

TYPING, COMPUTING = "zoe", "kim"
OPTIONS = ("--enforce", "--grace=0", "--interval=1s", "--timeout=1h", "--api-page-size=1")
STOP = f"/users/{USER}/servers/{SERVER}"
# The step after minutes, and those that come twice in a pass or are not reached in one.
AT = [step for step in STEPS if step.name not in ("removal",)]
pytestmark = pytest.mark.slow("faults of the process at each step")


@dataclass
class Place:
    """One Hub with one forgotten server and one person at work, and what is done at one step."""

    step: Step
    do: Callable[["Place"], object]
    stack: ExitStack = field(default_factory=ExitStack)
    exporter: Exporter | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hub = self.stack.enter_context(FakeHub())
        now = self.hub.now()
        self.target = self.stack.enter_context(FakeServer(Jupyter(now - 7200)))
        self.forgotten = self.hub.add_server(USER, SERVER, idle=7200, target=self.target)
        self.working = [self._works(TYPING, 0.0), self._works(COMPUTING, 7200.0, "busy")]
        seen = 0

        def at_this_step(request: Request, answer: Callable[[], Reply]) -> Reply:
            nonlocal seen
            true = answer()
            if self.step.only(request):
                seen += 1
                if seen == self.step.after + 1:
                    self.do(self)
                    self.reached.set()
            return self._noted(true)

        # It is looked at after its stop. Of several plans for one request the latest wins.
        self.hub.plan("GET", f"/users/{USER}", lambda _request, answer: self._noted(answer()))
        fake = self.target if self.step.to_server else self.hub
        fake.plan(self.step.method, self.step.path, at_this_step)

    def _noted(self, answer: Reply) -> Reply:
        if not self.forgotten.ready:
            self.stopped.set()
        return answer

    def _works(self, user: str, idle: float, *kernels: str) -> Server:
        """Run a server of somebody at work."""
        said = Jupyter(self.hub.now() - idle)
        for state in kernels:
            said.add_kernel(state, last_activity=said.last_activity)
        target = self.stack.enter_context(FakeServer(said))
        return self.hub.add_server(user, idle=idle, target=target)

    def start(self, **more: Any) -> Exporter:
        self.exporter = self.stack.enter_context(
            Exporter(self.hub.url, self.hub.token, OPTIONS, **more)
        )
        return self.exporter

    def signal(self, number: signal.Signals) -> None:
        assert self.exporter is not None
        self.exporter.process.send_signal(number)

    def stops(self) -> list[Request]:
        return [one for one in self.hub.log("DELETE", STOP) if not one.body.strip()]

    def forget_leases(self) -> None:
        """Let the lease of a process that was killed expire now; that takes two minutes."""
        for value, token in list(self.hub.tokens.items()):
            if "lease" in token.note:
                del self.hub.tokens[value]

    def check(self) -> None:
        assert self.reached.is_set(), f"never at {self.step.name}"
        assert all(server.ready for server in self.working)
        for user in (TYPING, COMPUTING):
            assert not self.hub.log("DELETE", f"/users/{user}/*")


def at_each_step(run: Callable[[Step], None], steps: list[Step] = AT) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, steps))


def recovers(place: Place) -> None:
    """Run another exporter after the first one: it stops what is still there, and nobody else."""
    place.forget_leases()
    with Exporter(place.hub.url, place.hub.token, OPTIONS) as second:
        if place.forgotten.ready:
            second.wait_value(1, "hub_idle_exporter_culls_total", policy="default", reason="idle")
        else:
            second.wait_value(1, "jupyterhub_up")
        assert not place.forgotten.ready
    place.check()


def test_sigterm_at_each_step_ends_it_at_once_and_each_stop_has_a_line() -> None:
    def run(step: Step) -> None:
        place = Place(step, lambda place: place.signal(signal.SIGTERM))
        with place.stack:
            exporter = place.start()
            assert exporter.wait(20) == 0, step.name
            assert "Traceback" not in exporter.text, step.name
            told = exporter.events("stopping_server") + exporter.events("stop_cut_short")
            assert {line["user"] for line in told} >= ({USER} if place.stops() else set())
            ends = ("culled", "cull_failed", "stop_cut_short")
            ended = {line["user"] for kind in ends for line in exporter.events(kind)}
            assert ended >= {line["user"] for line in exporter.events("stopping_server")}, step.name
            recovers(place)

    at_each_step(run)


def test_sigkill_at_each_step_leaves_nothing_that_the_next_one_cannot_go_on_from() -> None:
    def run(step: Step) -> None:
        place = Place(step, lambda place: place.signal(signal.SIGKILL))
        with place.stack:
            assert place.start().wait(20) == -signal.SIGKILL, step.name
            recovers(place)

    at_each_step(run)


def goes_on(place: Place) -> None:
    """See the same exporter stop the forgotten server, and nobody else, after the fault."""
    assert place.exporter is not None
    assert place.stopped.wait(60), f"{place.step.name}\n{place.exporter.text}"
    assert "Traceback" not in place.exporter.text
    place.check()


# ---- file descriptors ---------------------------------------------------------------------------


# Runs the exporter in a process whose open files may be listed, as root always may.
WITH_LISTED_FILES = """#!{python}
import runpy, sys
from hub_idle_exporter import process
process._PR_SET_DUMPABLE = 3  # asks, and sets nothing
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def program(folder: Path, text: str, **more: str) -> str:
    """Write a program that runs the exporter in its own way; return its path."""
    path = folder / "program"
    path.write_text(text.format(python=sys.executable, **more))
    path.chmod(0o755)
    return str(path)


@contextmanager
def no_files_left(pid: int) -> Iterator[None]:
    """Let the process open no more files than it has open now; what it closes it may use again."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = next(number for number in itertools.count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_without_file_descriptors_at_each_step_it_goes_on_when_there_are_some_again(
    tmp_path: Path,
) -> None:
    python = program(tmp_path, WITH_LISTED_FILES)

    def run(step: Step) -> None:
        stack = ExitStack()

        def take(place: Place) -> None:
            assert place.exporter is not None
            stack.enter_context(no_files_left(place.exporter.process.pid))

        place = Place(step, take)
        with place.stack, stack:
            exporter = place.start(python=python)
            exporter.wait_event("listening")
            assert place.reached.wait(20), step.name
            # The file descriptor in reserve: health is answered all the same.
            assert exporter.get("/-/healthy").status_code == 200, step.name
            stack.close()
            exporter.wait_value(0, "hub_idle_exporter_enforcement", state="suspended", timeout=60)
            goes_on(place)

    at_each_step(run)


# ---- threads ------------------------------------------------------------------------------------

WITHOUT_THREADS = """#!{python}
# Runs the exporter in a process that can start no thread while a file is there.
import _thread, os, runpy, sys, threading

def limited(start):
    def start_unless_forbidden(*arguments, **options):
        if os.path.exists({forbidden!r}):
            raise RuntimeError("can't start new thread")
        return start(*arguments, **options)
    return start_unless_forbidden

for name in ("_start_new_thread", "_start_joinable_thread"):
    if hasattr(threading, name):
        setattr(threading, name, limited(getattr(threading, name)))
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_without_threads_at_each_step_it_goes_on_when_there_are_some_again(tmp_path: Path) -> None:
    def run(step: Step) -> None:
        folder = tmp_path / step.name
        folder.mkdir()
        forbidden = folder / "forbidden"
        python = program(folder, WITHOUT_THREADS, forbidden=str(forbidden))
        place = Place(step, lambda _place: forbidden.touch())
        with place.stack:
            exporter = place.start(python=python)
            exporter.wait_event("listening")
            assert place.reached.wait(20), step.name
            assert exporter.get("/-/healthy").status_code == 200, step.name
            assert exporter.get("/metrics").status_code == 200, step.name
            exporter.wait_polls(2)
            forbidden.unlink(missing_ok=True)
            goes_on(place)

    at_each_step(run)


# ---- standard error, the disk -------------------------------------------------------------------


@contextmanager
def running(stderr: int | None, **more: Any) -> Iterator[tuple[Place, "subprocess.Popen[bytes]"]]:
    """Run an exporter that writes its log there."""
    place = Place(STEPS[0], lambda _place: None)
    arguments = [*OPTIONS, "--web.listen-address=127.0.0.1:0"]
    environ = os.environ | {"JUPYTERHUB_API_URL": place.hub.url}
    environ |= {"JUPYTERHUB_API_TOKEN": place.hub.token}
    with place.stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "hub_idle_exporter", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environ, **more,
        )  # fmt: skip
        try:
            yield place, process
        finally:
            process.kill()
            process.wait()


def test_a_full_disk_under_its_log_changes_nothing() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with running(full) as (place, process):
            assert place.stopped.wait(60)
            place.check()
            process.terminate()
            assert process.wait(20) == 0
    finally:
        os.close(full)


def test_standard_error_that_is_closed_changes_nothing() -> None:
    def close() -> None:
        for number in (0, 1, 2):
            os.close(number)

    with running(None, preexec_fn=close) as (place, process):
        assert place.stopped.wait(60)
        place.check()
        process.terminate()
        assert process.wait(20) == 0


def full_pipe() -> tuple[int, int]:
    """Return the ends of a pipe to which nothing more can be written."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    filled = b"x" * 4096
    try:
        while True:
            os.write(writes, filled)
    except BlockingIOError:
        os.set_blocking(writes, True)
    return reads, writes


def test_sigterm_ends_it_though_nobody_reads_its_log() -> None:
    reads, writes = full_pipe()
    with running(writes) as (place, process):
        os.close(writes)
        while not catches(process, signal.SIGALRM):
            assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 1
        assert place.forgotten.ready
    os.close(reads)


def test_a_log_that_nobody_reads_holds_it_up_until_somebody_does() -> None:
    reads, writes = full_pipe()
    with running(writes) as (place, process):
        os.close(writes)
        while not catches(process, signal.SIGALRM):
            assert process.poll() is None
        assert place.forgotten.ready
        text = b""
        while b"culled" not in text:
            text = os.read(reads, 1 << 16)
        place.check()
        process.terminate()
        assert process.wait(20) == 0
    os.close(reads)


WRITES = """
import atexit, os, runpy, sys
written = []

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and os.fsdecode(path) != os.devnull:
            written.append(os.fsdecode(path))
    elif event in ("os.mkdir", "os.rename", "os.remove", "tempfile.mkstemp",
                   "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system"):
        written.append(f"{event} {arguments}")

sys.addaudithook(watch)
sys.argv = ["hub_idle_exporter", *sys.argv[1:]]
try:
    runpy.run_module("hub_idle_exporter", run_name="__main__", alter_sys=True)
finally:
    sys.stderr.write(f"written: {written}\\n")
"""


def test_it_writes_no_file_so_a_read_only_file_system_changes_nothing() -> None:
    """Nor does it start another process, which would have the token in its environment."""
    place = Place(STEPS[0], lambda _place: None)
    with place.stack:
        environ = os.environ | {"JUPYTERHUB_API_TOKEN": place.hub.token}
        environ |= {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", WRITES, f"--url={place.hub.url}", "--once", *OPTIONS],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not place.forgotten.ready
    assert "written: []" in done.stderr
