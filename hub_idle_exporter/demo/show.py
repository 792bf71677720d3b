"""The demo from start to end: Hub, people, events, summary, cleanup."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from .account import Account, Mark
from .audit import AuditLog, Counts, Verdict, counters, verdicts
from .launch import LaunchError, LocalHub, free_ports
from .people import Company, Person
from .story import MARKS, PersonOutcome, Story, sentence

HERE = Path(__file__).resolve().parent
PACKAGES = HERE.parent.parent  # must be on the path for `import hub_idle_exporter`

LIMIT = 30.0  # as in jupyterhub_config.py
# All outcomes must be there by then: start of the servers, limits, polls, and a slow machine.
_STORY_SECONDS = 240.0
_WATCH_SECONDS = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_INTRODUCTION = (
    "hub-idle-exporter demo: a real JupyterHub on this machine, eight people with real servers, "
    f"and the sidecar, which polls every 3 s and enforces an idle limit of {LIMIT:.0f} s. "
    "Activity is reported every 3 s here, not every 300 s as by default. Ctrl-C "
    "ends the demo and removes everything.\n\n"
    "Starting JupyterHub, its proxy and the sidecar ..."
)

_COLUMNS = ("PERSON", "DOES", "OUTCOME", "WHY")
_WELL = "\nEvery outcome is as expected. The demo keeps running: look around; Ctrl-C ends it."
_NOT_WELL = "\nNot every outcome is as expected, see above. The demo keeps running; Ctrl-C ends it."


class DemoError(Exception):
    """The demo itself failed; the message says how."""


def show(duration: float | None) -> int:
    """Run the demo; see `run`."""
    account = Account()
    with _signals_interrupt():
        try:
            with _scratch_folder() as folder:
                well = _Show(account, folder).run(duration)
        except (DemoError, LaunchError) as error:
            account.say(f"\nThe demo failed: {error}")
            return 1
        except KeyboardInterrupt:
            account.say("The demo ended before its summary.")
            return 130
    return 0 if well else 1


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP too; restore the handlers afterwards."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    """Let nothing interrupt the cleanup."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Create a folder for one demo, in `.demo/` of a checkout, or a temporary one."""
    parent = PACKAGES / ".demo"
    in_checkout = (PACKAGES / "pyproject.toml").exists() and os.access(PACKAGES, os.W_OK)
    if in_checkout:
        parent.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=parent if in_checkout else None))
    try:
        yield folder
    finally:
        _ignore_signals()
        shutil.rmtree(folder, ignore_errors=True)
        if in_checkout:
            with contextlib.suppress(OSError):  # another demo still uses it
                parent.rmdir()


class _Show:
    """One demo in one folder."""

    def __init__(self, account: Account, folder: Path) -> None:
        self._account, self._folder = account, folder
        self._password = secrets.token_hex(4)
        people_token = secrets.token_hex(32)
        _write_secrets(folder / "secrets", self._password, people_token)
        address, page = (f"127.0.0.1:{port}" for port in free_ports(2))
        self._sidecar_url = f"http://{address}"
        self._hub = LocalHub(
            folder,
            HERE / "jupyterhub_config.py",
            environment={
                "DEMO_METRICS": address,
                "DEMO_PAGE": page,
                "HOME": str(folder),
                "PYTHONPATH": str(PACKAGES),
            },
        )
        self._log = AuditLog(folder / "sidecar.log")
        self._story = Story(LIMIT)
        self._company = Company(self._hub.public_url, people_token, LIMIT, self._tell)

    def run(self, duration: float | None) -> bool:
        """Run it; tell whether every outcome is as expected. Always leave nothing running."""
        try:
            self._begin()
            self._watch(self._story.is_told, _STORY_SECONDS)
            well = self._sum_up()
            self._stay(well, duration)
        finally:
            _ignore_signals()
            self._company.leave()
            self._account.say("\nStopping the Hub and all its servers ...")
            self._hub.stop(grace=0)  # its data is not kept
        return well

    def _begin(self) -> None:
        self._account.say(_INTRODUCTION)
        self._hub.start(timeout=90)
        if not self._watch(self._sidecar_answers, 30):
            raise DemoError(f"the sidecar does not answer. Its log:\n{self._log.tail()}")
        self._account.say(
            f"\n  JupyterHub   {self._hub.public_url}\n"
            "               log in as admin or under a name of your own, "
            f"password {self._password}\n"
            f"  the sidecar  {self._sidecar_url}/ and {self._sidecar_url}/metrics\n"
            f"  their page   {self._hub.public_url}services/idle-exporter/: see when your server\n"
            "               is stopped, and keep it; admin sees all\n"
            f"  files        {self._folder} (removed at the end)\n"
        )
        self._company.come()

    def _sidecar_answers(self) -> bool:
        return self._counters() is not None

    def _counters(self) -> Counts | None:
        try:
            return counters(f"{self._sidecar_url}/metrics")
        except requests.RequestException:
            return None

    def _tell(self, person: Person, what: str) -> None:
        """Write what a person does; called from that person's thread."""
        self._story.begin(person)
        self._account.event(_called(person.name, person.server), what)

    def _watch(self, until: Callable[[], bool], seconds: float) -> bool:
        """Write what happens until a condition holds; False if it did not within `seconds`."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                return False
            self._tell_news()
            if self._hub.pid is None:
                raise DemoError(f"the Hub has ended. Its log:\n{self._hub.log_tail()}")
            if self._account.lost:
                raise KeyboardInterrupt
            time.sleep(_WATCH_SECONDS)
        return True

    def _tell_news(self) -> None:
        for audited in self._log.read():
            if self._story.hear(audited):
                who = _called(audited.user, audited.server)
                self._account.event(who, sentence(audited, LIMIT), MARKS[audited.kind])

    def _stay(self, well: bool, duration: float | None) -> None:
        """Keep running until Ctrl-C, or for `duration` seconds; the summary is already printed."""
        with contextlib.suppress(KeyboardInterrupt):
            self._account.say(_WELL if well else _NOT_WELL)
            self._watch(lambda: False, float("inf") if duration is None else duration)

    # -- Summary

    def _sum_up(self) -> bool:
        """Print everyone's outcome, and whether the counters agree."""
        self._story.close(self._verdicts())
        outcomes = self._story.outcomes.values()
        self._account.say()
        self._account.table(_COLUMNS, [self._row(outcome) for outcome in outcomes])
        self._account.say(f"\nBy the audit log:   {_counted(self._log.counts)}")
        agree = self._watch(self._counters_agree, 10)
        self._account.say(f"By the counters:    {'the same' if agree else 'something else'}")
        return agree and all(outcome.is_well() for outcome in outcomes)

    def _row(self, outcome: PersonOutcome) -> tuple[str, ...]:
        mark, why = outcome.told(LIMIT)
        if not outcome.is_well():
            mark, why = Mark.FAILED, f"{why}; expected: {' '.join(outcome.person.ends.value)}"
        person = outcome.person
        return _called(person.name, person.server), person.does, mark, why

    def _counters_agree(self) -> bool:
        """Compare the counters with the log: between two polls they agree."""
        counted = self._counters()
        self._tell_news()
        return counted == self._log.counts

    def _verdicts(self) -> dict[tuple[str, str], Verdict]:
        options = [
            f"--url={self._hub.api_url}",
            f"--api-token-file={self._folder / 'secrets' / 'exporter-token'}",
            f"--policy-file={HERE / 'policy.yaml'}",
            f"--timeout={LIMIT:.0f}s",
        ]
        try:
            return verdicts(options, self._hub.environment)
        except subprocess.SubprocessError as error:
            raise DemoError(f"the command `servers` failed: {error}") from error


def _write_secrets(folder: Path, password: str, people_token: str) -> None:
    folder.mkdir(mode=0o700)
    (folder / "password").write_text(password)
    (folder / "people-token").write_text(people_token)
    (folder / "exporter-token").write_text(secrets.token_hex(32))


def _called(user: str, server: str) -> str:
    return f"{user}/{server}" if server else user


def _counted(counts: Counts) -> str:
    return ", ".join(f"{count} {kind} ({why})" for (kind, why), count in sorted(counts.items()))
