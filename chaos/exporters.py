"""The exporters of a run: processes that live, are paused, end, and are started again."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import requests
from exporter_process import PACKAGE, Metrics, environment

from .hub import ChaosHub, pause_process, resume_process
from .inbox import Inbox
from .record import Life, Line, Record, Scrape, line_of
from .watch import Watch

_SCRAPE_SECONDS = 1.0
# Longer than any pause of an exporter: a scrape that is sent before one is answered after it.
_ANSWER_SECONDS = 60.0
_END_SECONDS = 20.0
_START_SECONDS = 20.0
_LEASE = ("lease_taken", "lease_lost", "lease_not_held")


@dataclass(frozen=True)
class Setup:
    """What all exporters of a run have in common; `told` gets each line of each log at once."""

    hub: ChaosHub
    record: Record
    inbox: Inbox
    directory: Path
    options: Sequence[str]
    told: Callable[[Line], None]

    def state_file(self, memory: str) -> Path:
        """Return the state file of a place for exporters."""
        return self.directory / f"state-{memory}.sqlite"


class Exporter:
    """One process of an exporter, its log and its scrapes.

    Args:
        setup: what all have in common.
        name: of the process, as the account tells it.
        memory: of its state file, which outlives it.
        more: further options, such as `--once`.
    """

    def __init__(self, setup: Setup, name: str, memory: str, more: Sequence[str] = ()) -> None:
        self._setup, self.name = setup, name
        self._lines: list[Line] = []
        self._scrapes: list[Scrape] = []
        self._unreadable: list[str] = []
        self._address: str | None = None
        self._disturbed = 0.0  # until when a scrape may fail
        self._ending: str | None = None
        self._ended: float | None = None
        self._log = setup.directory / f"exporter-{name}.log"
        self._begun = time.time()
        self._process = self._start([*self._files(memory), *more])
        self._watch = Watch(self._log, self._read)
        self._closing = threading.Event()
        self._scraper = threading.Thread(target=self._scrape_on, daemon=True)
        self._scraper.start()

    def _files(self, memory: str) -> list[str]:
        """Write its notify file; return the options that name its files."""
        notify = self._setup.directory / f"notify-{self.name}"
        notify.write_text(self._setup.inbox.url(self.name))
        return [f"--notify-file={notify}", f"--state-file={self._setup.state_file(memory)}"]

    def _start(self, more: Sequence[str]) -> "subprocess.Popen[bytes]":
        hub = self._setup.hub
        command = [sys.executable, "-m", PACKAGE, *self._setup.options, *more]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command,
                env=environment(hub.url, hub.token, hub.marked({})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    # -- its log

    def _read(self, text: str) -> None:
        line = line_of(text)
        if line is None:
            return
        if line.event == "listening":
            self._address = str(json.loads(text)["address"]).rstrip("/")
        self._lines.append(line)
        self._setup.told(line)

    # -- its metrics

    def _scrape_on(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._closing.wait(_SCRAPE_SECONDS):
                if self._address is not None and self._process.poll() is None:
                    self._scrape(session, self._address)

    def _scrape(self, session: requests.Session, address: str) -> None:
        asked = time.time()
        try:
            response = session.get(f"{address}/metrics", timeout=_ANSWER_SECONDS)
            response.raise_for_status()
            metrics = Metrics(response.text)
        except (requests.RequestException, ValueError) as error:
            if self._process.poll() is None and self._ending is None and self._disturbed < asked:
                self._unreadable.append(f"{type(error).__name__}: {error}")
            return
        self._scrapes.append(_scrape_of(metrics, asked))

    @property
    def enforces(self) -> bool:
        """Whether it said so when it was last asked."""
        return bool(self._scrapes) and self._scrapes[-1].enforces

    @property
    def holds_lease(self) -> bool:
        """Whether it said last that it holds the lease."""
        said = [line.event for line in self._lines if line.event in _LEASE]
        return bool(said) and said[-1] == "lease_taken"

    def is_settled(self, since: float) -> bool:
        """Tell whether each attempt has an outcome, by a scrape that was asked since a moment."""
        if not self._scrapes or self._scrapes[-1].asked < since:
            return False
        last = self._scrapes[-1]
        return last.total("cull_attempts") == last.total("culls") + last.total("cull_failures")

    # -- what happens to it

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def pause(self) -> None:
        """Stop it in its tracks."""
        self._disturbed = float("inf")
        pause_process(self._process.pid)

    def resume(self) -> None:
        """Let it go on."""
        resume_process(self._process.pid)
        self._disturbed = time.time()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal; with SIGKILL where that does not do."""
        if self.runs and self._ending is None:
            self._ending, self._ended = number.name, time.time()
            self._process.send_signal(number)
        self.resume()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._ending = f"by itself? not {_END_SECONDS:.0f} s after {number.name}"
            self._process.kill()
        if self._process.wait() not in (0, 1, -number):
            self._ending = f"by itself with {self._process.returncode} after {number.name}"

    def wait_started(self) -> None:
        """Wait until it has read its policy file, or has ended."""
        deadline = time.monotonic() + _START_SECONDS
        while self.runs and not self._lines and time.monotonic() < deadline:
            time.sleep(0.05)

    def wait(self, closing: threading.Event, seconds: float) -> None:
        """Wait until it ends by itself, as one with --once does, or the run closes."""
        deadline = time.monotonic() + seconds
        while self.runs and time.monotonic() < deadline and not closing.wait(0.1):
            pass
        if not self.runs:
            code, self._ended = self._process.wait(), time.time()
            self._ending = "once" if code in (0, 1) else f"by itself with {code}"

    def close(self) -> Life:
        """Read what is left to read, and return its life; the process is not touched."""
        self._closing.set()
        self._scraper.join(_ANSWER_SECONDS)
        self._watch.close()
        if not self.runs and self._ending is None:
            self._ending = f"by itself with {self._process.returncode}"
            self._ended = self._lines[-1].t if self._lines else self._begun
        life = Life(self.name, self._begun, self._ended, self._ending)
        return replace(
            life,
            lines=tuple(self._lines),
            scrapes=tuple(self._scrapes),
            unreadable=tuple(self._unreadable),
            log=self._log.read_text(errors="replace"),
        )


def _scrape_of(metrics: Metrics, asked: float) -> Scrape:
    counters = {}
    for sample in metrics.samples:
        if sample.name.endswith("_total"):
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            counters[f"{sample.name}{{{labels}}}"] = sample.value
    on = metrics.value("hub_idle_exporter_enforcement", state="on") == 1
    return Scrape(asked, time.time(), counters, on)


class Post:
    """A place where one exporter should run, replaced when it has ended; its state file stays."""

    def __init__(self, setup: Setup, name: str) -> None:
        self._setup, self._name = setup, name
        self._past: list[Life] = []
        self.busy = threading.Lock()  # held by whoever pauses or ends it
        self.start()

    def start(self) -> None:
        """Start the next life."""
        self.now = Exporter(self._setup, f"{self._name}{len(self._past) + 1}", memory=self._name)

    def end(self, number: signal.Signals) -> None:
        """End the present life."""
        self.now.end(number)
        self._past.append(self.now.close())

    def lives(self) -> list[Life]:
        """Return all lives, at the end of a run."""
        return [*self._past, self.now.close()]
