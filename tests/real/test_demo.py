"""The embedded demo: what it tells, how it ends, and that nothing of it stays."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hub_idle_exporter.demo import run
from hub_idle_exporter.demo.account import Account, Mark
from hub_idle_exporter.demo.audit import AuditLog

REPO = Path(__file__).resolve().parents[2]
CULLED = {
    "event": "culled", "user": "cleo", "server": "", "policy": "default", "reason": "idle",
    "idle": 31.0, "age": 50.0,
}  # fmt: skip


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hub_idle_exporter", "demo"],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], sentence: str) -> str:
    """Read its account up to a line that holds the sentence; the test's timeout is the limit."""
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if sentence in line:
            return told
    pytest.fail(f"it ended without {sentence!r}:\n{told}")


def living_in(folder: Path) -> list[str]:
    """Name the processes that were started with a path below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("PATH", ""):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def folder_of(told: str) -> Path:
    match = re.search(r"files +(\S+)", told)
    assert match, told
    return Path(match[1])


@pytest.mark.slow("demo")
def test_everyone_ends_as_they_should_and_nothing_is_left(demo: subprocess.Popen[str]) -> None:
    told = read_until(demo, "The demo keeps running")
    folder = folder_of(told)
    assert folder.is_dir()
    assert living_in(folder)
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, told + rest
    assert "By the counters:    the same" in told
    assert max(map(len, told.splitlines())) <= 100
    assert not folder.exists()
    assert living_in(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_in_the_middle_leave_nothing(
    demo: subprocess.Popen[str], number: signal.Signals
) -> None:
    told = read_until(demo, "files")
    folder = folder_of(told)
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert not folder.exists()
    assert living_in(folder) == []


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert run() == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err


def test_account_stays_inside_the_width_and_plain_off_a_terminal() -> None:
    stream = io.StringIO()
    account = Account(stream)
    account.event("ada", "word " * 60, Mark.WITHHELD)
    account.table(("A", "OUTCOME", "WHY"), [("x", Mark.STOPPED, "word " * 60)])
    assert max(map(len, stream.getvalue().splitlines())) <= 100
    assert "\033" not in stream.getvalue()


def test_audit_log_is_read_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.log"
    log = AuditLog(path)
    assert list(log.read()) == []
    line = json.dumps(CULLED)
    path.write_text("Traceback\n" + line + "\n" + line[:20])
    assert [one.user for one in log.read()] == ["cleo"]
    with path.open("a") as end:
        end.write(line[20:] + "\n")
    assert [one.cause for one in log.read()] == ["idle"]
    assert log.counts == {("stopped", "idle"): 2}
