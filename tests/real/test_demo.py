"""The embedded demo: what it tells, how it ends, and that nothing of it stays."""

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TextIO

import psutil
import pytest
import wcwidth

from hub_idle_exporter.demo import run
from hub_idle_exporter.demo.account import Account, Mark
from hub_idle_exporter.demo.audit import AuditLog
from hub_idle_exporter.demo.browser import Browser, BrowserError

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


@pytest.mark.slow("demo")
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


class BusyServer(BaseHTTPRequestHandler):
    """Has a kernel, and is so busy that the proxy gives up whenever somebody connects to it."""

    connected, hangs_up = 0, False

    def do_GET(self) -> None:
        channels = self.path.endswith("/channels")
        type(self).connected += channels
        if channels and self.hangs_up:
            return
        self.send_response(599 if channels else 200, "Timeout" if channels else None)
        self.end_headers()
        self.wfile.write(b"Timeout during request" if channels else b'[{"id": "k"}]')

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.mark.parametrize(
    ("hangs_up", "times", "error"), [(False, 4, "Handshake status 599"), (True, 1, "host was lost")]
)
def test_a_person_connects_again_before_giving_up(hangs_up: bool, times: int, error: str) -> None:
    """Else one slow answer makes the demo fail; and a Hub that ends is no traceback."""
    BusyServer.connected, BusyServer.hangs_up = 0, hangs_up
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ben = Browser(f"http://127.0.0.1:{server.server_port}/", "ben", "token")
        with pytest.raises(BrowserError, match=f"ben: .*{error}"):
            ben.open_kernel()
        server.shutdown()
    assert BusyServer.connected == times


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert run() == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err


def tell(account: Account) -> None:
    """Let it say something of each kind, all of it long."""
    account.say("word " * 60)
    account.say("  files        /home/someone/.demo/" + "demo" * 40 + " (removed at the end)")
    for mark in Mark:
        account.event("ada", "word " * 60, mark)
    account.event("KEPT", "日本語の名前 " * 20, Mark.KEPT)
    rows = [("KEPT", "does " * 6, mark, "word " * 60) for mark in Mark if mark]
    rows.append(("日本語", "ünï", Mark.STOPPED, "日本語の名前 " * 20))
    account.table(("PERSON", "DOES", "OUTCOME", "WHY"), rows)


COLOUR = re.compile(r"\033\[[0-9;]*m")


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A terminal to write to, and its other end."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with os.fdopen(theirs, "w") as stream:
        yield stream, ours
    os.close(ours)


def written(terminal: tuple[TextIO, int], columns: int) -> str:
    """Tell an account on a terminal of this width; give what is written to it."""
    stream, ours = terminal
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    told = b""

    def read() -> None:
        nonlocal told
        while not told.endswith(b"the end\n"):
            told += os.read(ours, 1 << 16)

    reader = threading.Thread(target=read)
    reader.start()
    account = Account(stream)
    tell(account)
    account.say("the end")
    reader.join(20)
    return told.decode()


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("term", ["xterm-256color", "linux", "screen", "vt100"])
@pytest.mark.parametrize("colorterm", ["", "truecolor"])
def test_the_account_is_wrapped_by_what_is_seen(
    terminal: tuple[TextIO, int],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    term: str,
    colorterm: str,
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLORTERM", colorterm)
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = written(terminal, columns)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = written(terminal, columns)
    assert COLOUR.sub("", coloured) == plain, "colours change no line"
    assert "\033[33mSTOPPED\033[0m" in coloured
    assert "\033" not in plain
    seen = [wcwidth.wcswidth(line) for line in plain.splitlines()]
    assert max(seen) <= columns
    assert max(seen) > columns - 10, "the width is used"
    # The lines of a reason stand below each other.
    first = next(line for line in plain.splitlines() if " WITHHELD word" in line)
    second = plain.splitlines()[plain.splitlines().index(first) + 1]
    assert second.index("word") == first.index("word")


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("TERM", ""), ("NO_COLOR", "1")])
def test_there_are_terminals_without_colours(
    terminal: tuple[TextIO, int], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, value)
    assert "\033" not in written(terminal, 80)


def test_only_the_outcome_is_coloured() -> None:
    stream = io.StringIO()
    Account(stream, colour=True).event("KEPT", "KEPT", Mark.KEPT)
    assert stream.getvalue().count("\033[32mKEPT\033[0m") == 1
    assert stream.getvalue().endswith(" KEPT\n")


def test_off_a_terminal_the_account_is_plain_and_100_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    tell(Account(stream))
    assert max(map(wcwidth.wcswidth, stream.getvalue().splitlines())) <= 100
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
