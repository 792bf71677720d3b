"""The process itself: how it starts, ends, outlives its Hub, and what it never says."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import exporter_process
import fake_hub as faults
import in_process
import psutil
import pytest
from conftest import RunCommand, RunExporter
from exporter_process import Exporter, catches, fields
from fake_hub import FakeHub, FakeServer, Fault, Reply, Request, closed_port, hang, reply

PROMPTLY = 30.0  # seconds, on a busy machine; what hangs here would hang for a minute
SIGNALS = [signal.SIGTERM, signal.SIGINT]
CULLING = ["--enforce", "--grace=0", "--timeout=1", "--interval=1"]
HOSTILE = [
    "evil\nlevel=error event=culled",
    'q"uo\\"te',
    "\x1b[2J\x9b",
    "a b=c",
    "\u2028\u202e日本",
]


# ---- ending -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_the_start(
    fake_hub: FakeHub, run_exporter: RunExporter, number: signal.Signals
) -> None:
    exporter = run_exporter(fake_hub)
    exporter.wait_log("event=starting")
    assert exporter.stop(number, PROMPTLY) == 0
    assert "Traceback" not in exporter.text
    assert exporter.events()[-1]["event"] == "stopped"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_hub_hangs(
    fake_hub: FakeHub, run_exporter: RunExporter, number: signal.Signals
) -> None:
    fake_hub.plan("GET", "/users", hang(threading.Event()))
    exporter = run_exporter(fake_hub)
    fake_hub.wait_for("GET", "/users")
    assert exporter.stop(number, PROMPTLY) == 0
    assert "Traceback" not in exporter.text


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_middle_of_culling(
    fake_hub: FakeHub, run_exporter: RunExporter, number: signal.Signals
) -> None:
    """One stop hangs, another is followed, a third waits for its server's own answer."""
    with FakeServer() as silent:
        silent.plan("*", "*", hang(threading.Event()))
        fake_hub.add_server("hanging")
        fake_hub.plan("DELETE", "/users/hanging/server", hang(threading.Event()))
        fake_hub.add_server("slow", stop_takes=threading.Event())
        fake_hub.slow_stop_timeout = 0
        exporter = run_exporter(fake_hub, *CULLING, "--busy-check=off")
        fake_hub.wait_for("DELETE", "/users/hanging/server")
        fake_hub.wait_for("DELETE", "/users/slow/server")
        assert exporter.stop(number, PROMPTLY) == 0
    assert "Traceback" not in exporter.text


def test_a_signal_while_a_server_is_asked(fake_hub: FakeHub, run_exporter: RunExporter) -> None:
    with FakeServer() as silent:
        silent.plan("*", "*", hang(threading.Event()))
        fake_hub.add_server("ana", target=silent)
        exporter = run_exporter(fake_hub, *CULLING, "--busy-check=require")
        silent.wait_for()
        assert exporter.stop(timeout=PROMPTLY) == 0


def test_a_signal_while_a_client_takes_its_time(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    exporter = run_exporter(fake_hub)
    host, port = exporter.address.removeprefix("http://").split(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(12)]
    for client in clients[::2]:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
    assert exporter.stop(timeout=PROMPTLY) == 0
    for client in clients:
        client.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_single_poll_as_well(
    fake_hub: FakeHub, run_exporter: RunExporter, number: signal.Signals
) -> None:
    fake_hub.plan("GET", "/users", hang(threading.Event()))
    exporter = run_exporter(fake_hub, "--once")
    fake_hub.wait_for("GET", "/users")
    exporter.stop(number, PROMPTLY)
    assert "Traceback" not in exporter.text


def test_two_signals_are_as_good_as_one(fake_hub: FakeHub, run_exporter: RunExporter) -> None:
    exporter = run_exporter(fake_hub)
    exporter.wait_event("poll_succeeded")
    exporter.process.send_signal(signal.SIGINT)
    assert exporter.stop(signal.SIGTERM, PROMPTLY) == 0
    assert "Traceback" not in exporter.text


def test_nothing_is_stopped_after_the_signal_to_end(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    """Each stop that was sent has a line, also one whose answer the exporter does not wait for."""
    server = FakeServer()
    with server:
        fake_hub.add_servers(200, idle=7200, age=9000, target=server, stop_takes=0.2)
        exporter = run_exporter(fake_hub, *CULLING, "--concurrency=2")
        fake_hub.wait_for("DELETE", "/users/*/server")
        assert exporter.stop() == 0
    sent = len(fake_hub.log("DELETE", "/users/*/server"))
    assert sent < 50
    told = exporter.events("stopping_server") + exporter.events("stop_cut_short")
    assert sent <= len({line["user"] for line in told}) <= sent + 2


def test_a_stop_that_the_hub_has_not_answered_at_the_end_has_a_line(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    with FakeServer() as server:
        fake_hub.add_server("ana", idle=7200, age=9000, target=server)
        fake_hub.plan("DELETE", "/users/ana/server", hang(threading.Event()))
        exporter = run_exporter(fake_hub, *CULLING)
        fake_hub.wait_for("DELETE", "/users/ana/server")
        assert exporter.stop() == 0
    (told,) = exporter.events("stop_cut_short")
    assert (told["user"], told["reason"]) == ("ana", "idle")
    assert exporter.events("stopping_server") == []


def test_a_stop_that_is_not_verified_at_the_end_has_a_line(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    """Whoever reads the log has to know that the server may live on: no later exporter can."""
    with FakeServer() as server:
        fake_hub.add_server("ana", idle=7200, age=9000, target=server, stop_takes=60.0)
        fake_hub.slow_stop_timeout = 0.0
        exporter = run_exporter(fake_hub, *CULLING)
        exporter.wait_event("stopping_server")
        assert exporter.stop() == 0
    ends = exporter.events("stop_cut_short") + exporter.events("cull_failed")
    assert ends
    assert {line["user"] for line in ends} == {"ana"}
    assert all("not known" in line["why"] or "known whether" in line["why"] for line in ends)


# ---- the token ----------------------------------------------------------------------------------


def test_a_misspelled_variable_is_warned_about_by_name(
    fake_hub: FakeHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    """Otherwise somebody waits in vain for what it was to do; its value may be a secret."""
    variables = {
        "HUB_IDLE_EXPORTER_ENFROCE": "s3cret",
        "HUB_IDLE_EXPORTER_TIMEOUT": "2h",
        "HUB_IDLE_EXPORTER_CULL_EVERY": "",
        "hub_idle_exporter_grace": "1h",
    }
    exporter = run_exporter(fake_hub, environment=variables)
    exporter.wait_event("poll_succeeded")
    unknown = exporter.events("variable_unknown")
    assert [event["name"] for event in unknown] == [
        "HUB_IDLE_EXPORTER_CULL_EVERY",
        "HUB_IDLE_EXPORTER_ENFROCE",
        "hub_idle_exporter_grace",
    ]
    said = run_command(fake_hub, "check", environment=variables).stdout
    assert "warning  $HUB_IDLE_EXPORTER_ENFROCE has no effect" in said
    assert "TIMEOUT has no effect" not in said
    assert "s3cret" not in said + exporter.text


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_token_file_that_everybody_can_read_is_warned_about(
    fake_hub: FakeHub,
    run_exporter: RunExporter,
    run_command: RunCommand,
    tmp_path: Path,
    mode: int,
    warned: bool,
) -> None:
    file = tmp_path / "token"
    file.write_text(fake_hub.token)
    file.chmod(mode)
    options = [f"--api-token-file={file}"]
    exporter = run_exporter(fake_hub, *options)
    exporter.wait_event("poll_succeeded")
    assert bool(exporter.events("token_file_exposed")) is warned
    said = run_command(fake_hub, "check", *options).stdout
    assert (f"warning  every user of this machine can read {file}" in said) is warned


def test_there_is_no_core_dump(fake_hub: FakeHub, run_exporter: RunExporter) -> None:
    exporter = run_exporter(fake_hub)
    exporter.wait_event("listening")
    assert resource.prlimit(exporter.process.pid, resource.RLIMIT_CORE)[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such switch")
def test_the_memory_is_hidden_from_other_processes_of_the_same_user() -> None:
    """Nor can a program that takes core dumps, which no limit stops, have one."""
    code = (
        "import ctypes; from hub_idle_exporter import process; process.arrange(); "
        "print(ctypes.CDLL(None).prctl(3))"  # PR_GET_DUMPABLE
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


# ---- the policy file ----------------------------------------------------------------------------

EXEMPT = "policies: [{name: staff, match: {users: ana}, exempt: true}]\n"
BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda file: None, "No such file"),
    (os.mkfifo, "not a regular file"),
    (lambda file: file.write_bytes(EXEMPT.encode() + b"#" * 10_000_000), "larger than 1 MiB"),
    (lambda file: file.symlink_to("/dev/zero"), "not a regular file"),
    (lambda file: file.write_bytes(b"policies: \xff"), "UTF-8"),
    (lambda file: file.write_text("policies: !!timestamp x"), "'!!timestamp'"),
    (lambda file: file.write_text(EXEMPT.replace("staff", '"\\ud800"')), "ud800"),
    (lambda file: file.write_text(EXEMPT.replace("}]", ", timeout: 1:30}]")), "'1:30'"),
]


@pytest.mark.slow("a policy file in trouble")
def test_whatever_becomes_of_the_policy_file_it_runs_on_with_the_old_policies(
    fake_hub: FakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(EXEMPT)
    fake_hub.add_server("ana", idle=9000)
    exporter = run_exporter(fake_hub, *CULLING, "--busy-check=off", f"--policy-file={file}")
    exporter.wait_value(1, "jupyterhub_servers", policy="staff", state="idle")
    for number, (spoil, _) in enumerate(BROKEN, start=1):
        file.unlink(missing_ok=True)
        spoil(file)
        exporter.wait_value(number, "hub_idle_exporter_policy_reload_failures_total")
    metrics = exporter.metrics()
    assert metrics.value("jupyterhub_servers", policy="staff", state="idle") == 1
    assert metrics.value("hub_idle_exporter_policy_reloads_total") == 0
    assert fake_hub.log("DELETE") == []
    file.write_text(EXEMPT.replace("staff", "teachers"))
    exporter.wait_value(1, "jupyterhub_servers", policy="teachers", state="idle")
    said = [line["error"] for line in exporter.events("policy_file_invalid")]
    for (_, words), line in zip(BROKEN, said, strict=True):
        assert words in line
    assert exporter.stop() == 0
    assert "Traceback" not in exporter.text


def test_a_policy_file_completed_a_second_after_the_start_is_taken(
    fake_hub: FakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(EXEMPT[:40])
    fake_hub.add_server("ana", idle=9000)
    completed = threading.Timer(1, file.write_text, [EXEMPT])
    exporter = run_exporter(fake_hub, *CULLING, "--busy-check=off", f"--policy-file={file}")
    completed.start()
    exporter.wait_value(1, "jupyterhub_servers", policy="staff", state="idle")
    assert fake_hub.log("DELETE") == []


@pytest.mark.parametrize("option", ["--policy-file", "--web.config.file"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_file_is_waited_for(
    fake_hub: FakeHub,
    run_exporter: RunExporter,
    tmp_path: Path,
    number: signal.Signals,
    option: str,
) -> None:
    exporter = run_exporter(fake_hub, f"{option}={tmp_path / 'nowhere'}")
    while not catches(exporter.process, signal.SIGALRM):  # with the final handlers of signals
        assert exporter.process.poll() is None
    assert exporter.stop(number, PROMPTLY) == 0
    assert exporter.text == ""


# ---- started by a Hub ---------------------------------------------------------------------------

PARENT = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"


def start_family(
    hub: FakeHub, directory: Path, variables: dict[str, str], *options: str
) -> subprocess.Popen[str]:
    """Start a parent that starts the exporter, as a Hub does; both in a session of their own."""
    line = [sys.executable, "-m", "hub_idle_exporter", "--web.listen-address=127.0.0.1:0"]
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, *line, *options], cwd=directory, text=True,
        env=exporter_process.environment(hub.url, hub.token, variables),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


class Family:
    """A parent and its exporter, whose log is followed."""

    def __init__(
        self, hub: FakeHub, directory: Path, variables: dict[str, str], *options: str
    ) -> None:
        self.parent = start_family(hub, directory, variables, *options)
        self.lines: list[str] = []
        self.said = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.parent.stdout is not None
        for line in self.parent.stdout:
            with self.said:
                self.lines.append(line)
                self.said.notify_all()

    def wait_for(self, text: str) -> None:
        with self.said:
            found = self.said.wait_for(lambda: text in "".join(self.lines), 20)
        assert found, self.lines

    def ended(self, seconds: float) -> bool:
        """Tell whether parent and exporter are both gone within some seconds."""
        self.reader.join(seconds)
        return not self.reader.is_alive()

    def close(self) -> None:
        if self.reader.is_alive():
            os.killpg(self.parent.pid, signal.SIGKILL)
        self.parent.wait()
        self.reader.join(10)
        assert self.parent.stdout is not None
        self.parent.stdout.close()


def test_it_ends_when_the_hub_that_started_it_is_killed(fake_hub: FakeHub, tmp_path: Path) -> None:
    started = {"JUPYTERHUB_SERVICE_NAME": "idle-exporter", "JUPYTERHUB_PUBLIC_URL": ""}
    with closing(Family(fake_hub, tmp_path, started)) as family:
        family.wait_for("event=poll_succeeded")
        family.parent.kill()
        assert family.ended(PROMPTLY)
        assert "event=parent_hub_ended" in "".join(family.lines)


def test_it_ends_though_its_log_is_read_by_nobody_any_more(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    """A terminal that is closed takes the Hub with it, and the other end of our log."""
    parent = start_family(fake_hub, tmp_path, {"JUPYTERHUB_SERVICE_NAME": "idle-exporter"})
    try:
        assert parent.stdout is not None
        next(line for line in parent.stdout if "event=poll_succeeded" in line)
        (exporter,) = psutil.Process(parent.pid).children()
        parent.stdout.close()
        parent.kill()
        parent.wait()
        exporter.wait(PROMPTLY)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def test_it_outlives_a_parent_that_is_no_hub(fake_hub: FakeHub, tmp_path: Path) -> None:
    """It would look for a Hub every second: while it polls on it has looked, and stayed."""
    by_hand = {"JUPYTERHUB_SERVICE_NAME": ""}
    with closing(Family(fake_hub, tmp_path, by_hand, "--interval=1s")) as family:
        family.wait_for("event=poll_succeeded")
        family.parent.kill()
        family.parent.wait()
        polls = len(fake_hub.log("GET", "/users"))
        fake_hub.wait_for("GET", "/users", count=polls + 4, timeout=PROMPTLY)
        assert "parent_hub_ended" not in "".join(family.lines)


# ---- the Hub away and back ----------------------------------------------------------------------


def test_a_hub_that_is_away_and_back_is_said_once_per_change(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    fake_hub.add_server("ana")
    fake_hub.hang_up()
    exporter = run_exporter(fake_hub, "--interval=1")
    exporter.wait_value(2, "hub_idle_exporter_polls_total")
    assert exporter.get("/-/ready").status_code == 503
    assert exporter.get("/-/healthy").status_code == 200
    assert exporter.metrics().value("jupyterhub_up") == 0
    fake_hub.listen()
    exporter.wait_value(1, "jupyterhub_up")
    assert exporter.get("/-/ready").status_code == 200
    exporter.wait_polls(1)
    fake_hub.hang_up()
    gone = exporter.wait_value(0, "jupyterhub_up")
    assert gone.value("jupyterhub_servers") is None
    fake_hub.listen()
    exporter.wait_value(1, "jupyterhub_up")
    exporter.wait_event("poll_succeeded", count=2)
    polls = [line["event"] for line in exporter.events() if line["event"].startswith("poll")]
    assert polls == ["poll_failed", "poll_succeeded", "poll_failed", "poll_succeeded"]
    assert exporter.stop() == 0


# ---- a single poll ------------------------------------------------------------------------------


def once(run: RunCommand, hub: FakeHub, *arguments: str) -> int:
    done = run(hub, "--once", *arguments)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode


def test_once_says_whether_it_worked(fake_hub: FakeHub, run_command: RunCommand) -> None:
    fake_hub.add_server("ana")
    assert once(run_command, fake_hub) == 0
    fake_hub.plan("GET", "/users", faults.html(), times=1)
    assert once(run_command, fake_hub) == 1
    fake_hub.token = fake_hub.add_token(["list:users"])
    assert once(run_command, fake_hub) == 1
    with closed_port() as port:
        done = run_command(fake_hub, "--once", url=f"http://127.0.0.1:{port}/hub/api")
    assert done.returncode == 1
    assert re.findall(r"event=(\w+)", done.stderr) == [
        "starting", "poll_failed", "single_run_ended",
    ]  # fmt: skip
    assert fake_hub.log("DELETE") == []


def test_once_without_memory_stops_nobody_who_was_not_asked(
    fake_hub: FakeHub, run_command: RunCommand
) -> None:
    fake_hub.add_server("ana", idle=999_999)
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off") == 1
    assert fake_hub.log("DELETE", "/users/ana/*") == []
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off", "--grace=0") == 0
    assert fake_hub.server("ana").stopped
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off") == 0, "nothing to do"


@pytest.mark.slow("single runs")
def test_once_says_when_a_stop_did_not_work(fake_hub: FakeHub, run_command: RunCommand) -> None:
    fake_hub.add_server("ana", idle=999_999)
    fake_hub.plan("DELETE", "*", faults.always(reply(500)))
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off", "--grace=0") == 1


def test_once_where_the_list_lost_a_crowd_stops_nobody(
    fake_hub: FakeHub, run_command: RunCommand
) -> None:
    fake_hub.add_servers(250, idle=999_999)
    empty = faults.rewritten(lambda page: page | {"items": []})
    fake_hub.plan("GET", "/users", empty, after=1, times=1)
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off", "--grace=0") == 1
    assert fake_hub.log("DELETE", "/users/u*") == []


def test_once_where_stops_came_too_late_ends_with_1(
    fake_hub: FakeHub, run_command: RunCommand
) -> None:
    fake_hub.add_server("ana", idle=999_999)
    fake_hub.plan("DELETE", "/users/ana/server", faults.always(reply(403)))
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off", "--grace=0") == 1
    assert len(fake_hub.log("DELETE", "/users/ana/server")) == 3


def test_once_where_another_exporter_holds_the_lease_stops_nobody(
    fake_hub: FakeHub, run_command: RunCommand
) -> None:
    fake_hub.add_server("ana", idle=999_999)
    held = fake_hub.add_token([], user="idle-prober", expires=fake_hub.now() + 120)
    fake_hub.tokens[held].note = "hub-idle-exporter: lease of another"
    assert once(run_command, fake_hub, "--enforce", "--busy-check=off", "--grace=0") == 1
    assert fake_hub.log("DELETE", "/users/ana/server") == []


def summary(run: RunCommand, hub: FakeHub, *arguments: str) -> dict[str, str]:
    """Give the last line of the log of a single run, without the fields of every line."""
    done = run(hub, "--once", *arguments)
    lines = [fields(line) for line in done.stderr.splitlines()]
    last = {key: value for key, value in lines[-1].items() if key not in ("ts", "seconds")}
    assert [line["event"] for line in lines].count("single_run_ended") == 1
    assert 0 <= float(lines[-1]["seconds"]) < 60
    assert (done.returncode == 0) == (last["outcome"] == "worked") == (last["level"] == "info")
    assert last.pop("event") == "single_run_ended"
    del last["level"]
    return last


@pytest.mark.slow("single runs")
def test_once_ends_with_a_summary_in_numbers(fake_hub: FakeHub, run_command: RunCommand) -> None:
    target = faults.FakeServer()
    with target:
        for user in ("ana", "bo", "busy"):
            fake_hub.add_server(user, idle=999_999, target=target)
        target.at[fake_hub.server("busy").routespec] = faults.Jupyter()
        target.at[fake_hub.server("busy").routespec].add_kernel("busy")  # type: ignore[union-attr]
        fake_hub.add_server("zoe", idle=5)
        expected = {"outcome": "worked", "servers": "4", "candidates": "3", "stopped": "0",
                    "failed": "0", "withheld": "0", "under_way": "0", "causes": ""}  # fmt: skip
        assert summary(run_command, fake_hub) == expected, "monitoring"
        expected |= {"stopped": "2", "withheld": "1", "causes": "busy:1"}
        assert summary(run_command, fake_hub, "--enforce") == expected
        fake_hub.add_server("cy", idle=999_999, target=target)
        fake_hub.plan("DELETE", "/users/*/server", faults.always(reply(500)))
        expected |= {"outcome": "failed", "servers": "3", "candidates": "2", "stopped": "0",
                     "failed": "1", "withheld": "1", "causes": "busy:1"}  # fmt: skip
        assert summary(run_command, fake_hub, "--enforce") == expected


def test_once_ends_with_a_summary_also_if_nothing_was_tried(
    fake_hub: FakeHub, run_command: RunCommand
) -> None:
    expected = {"outcome": "failed", "servers": "", "candidates": "", "stopped": "0",
                "failed": "0", "withheld": "0", "under_way": "0", "causes": ""}  # fmt: skip
    fake_hub.plan("GET", "/users", faults.html(), times=1)
    assert summary(run_command, fake_hub, "--enforce") == expected
    fake_hub.add_servers(250, idle=999_999)
    empty = faults.rewritten(lambda page: page | {"items": []})
    fake_hub.plan("GET", "/users", empty, after=1, times=1)
    expected |= {"servers": "230", "candidates": "230", "withheld": "230", "causes": "list:230"}
    assert summary(run_command, fake_hub, "--enforce", "--api-page-size=20") == expected
    fake_hub.token = fake_hub.add_token(faults.MONITOR)
    expected |= {"servers": "250", "candidates": "250", "withheld": "0", "causes": ""}
    assert summary(run_command, fake_hub, "--enforce") == expected


def test_once_that_is_ended_by_a_signal_has_a_summary(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    fake_hub.plan("GET", "/users", hang(threading.Event()))
    exporter = run_exporter(fake_hub, "--once")
    fake_hub.wait_for("GET", "/users")
    assert exporter.stop() == 1
    assert exporter.wait_event("single_run_ended")["outcome"] == "interrupted"


def test_a_grace_is_told_when_it_begins_and_when_culling_starts(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    exporter = run_exporter(fake_hub, "--enforce", "--grace=1s", "--interval=1s")
    assert exporter.wait_event("grace_started")["why"] == "the exporter has started"
    assert exporter.wait_event("grace_ended")["enforcement"] == "on"
    exporter.wait_polls(2)
    assert [len(exporter.events(f"grace_{what}")) for what in ("started", "ended")] == [1, 1]


@pytest.mark.parametrize("option", ["--once", "--interval=1s"])
def test_an_exporter_that_ends_lets_another_enforce_at_once(
    fake_hub: FakeHub, run_command: RunCommand, run_exporter: RunExporter, option: str
) -> None:
    def leases() -> list[str]:
        return [one.note for one in fake_hub.tokens.values() if "lease" in one.note]

    if option == "--once":
        assert once(run_command, fake_hub, "--enforce", "--grace=0") == 0
    else:
        exporter = run_exporter(fake_hub, "--enforce", option)
        exporter.wait_event("lease_taken")
        assert len(leases()) == 1
        assert exporter.stop() == 0
    assert len(fake_hub.log("DELETE", "/users/idle-prober/tokens/*")) == 1
    assert leases() == []


# ---- the token ----------------------------------------------------------------------------------


def echo(request: Request, answer: Callable[[], Reply]) -> Reply:
    """Answer with the token everywhere, as a debugging proxy might."""
    said = f"you sent {request.token} " * 3
    return reply(200, said, Location=f"http://x/{request.token}", X_JupyterHub_Version=said)


def refuse_with_echo(request: Request, answer: Callable[[], Reply]) -> Reply:
    return replace(echo(request, answer), status=403)


def version_of_token(request: Request, answer: Callable[[], Reply]) -> Reply:
    """A Hub whose version is the token it was last sent."""
    true = answer()
    return replace(true, headers=true.headers | {"X-JupyterHub-Version": request.token or "6.1.1"})


LEAKY: list[Fault] = [echo, refuse_with_echo, version_of_token]


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_token_is_never_shown(fake_hub: FakeHub, run_exporter: RunExporter, form: str) -> None:
    """Log, metrics and page are looked through for it when the exporter ends."""
    fake_hub.add_server("ana", idle=999_999)
    options = ["--log-level=debug", f"--log-format={form}", "--per-server-metrics"]
    fake_hub.add_server("bob", idle=999_999)
    fake_hub.plan("POST", "/*", refuse_with_echo)
    fake_hub.plan("DELETE", "/users/bob/server", echo)
    exporter = run_exporter(fake_hub, *CULLING, *options, "--busy-check=off")
    fake_hub.wait_for("DELETE", "/users/bob/server", timeout=20)
    for fault in LEAKY:
        fake_hub.heal()
        fake_hub.plan("GET", "/*", fault)
        seen = len(fake_hub.log("GET", "/*"))
        fake_hub.wait_for("GET", "/*", count=seen + 2, timeout=20)
    if form == "logfmt":
        for path in ("/", "/metrics", "/-/ready", "/nowhere"):
            exporter.get(path)
    assert exporter.stop() == 0
    assert "Traceback" not in exporter.text


@pytest.mark.parametrize("command", ["check", "servers", "--once"])
@pytest.mark.parametrize("fault", LEAKY)
def test_no_command_shows_the_token(
    fake_hub: FakeHub, tmp_path: Path, command: str, fault: Fault
) -> None:
    fake_hub.add_server("ana", idle=999_999)
    fake_hub.plan("*", "*", fault)
    arguments = [command, "--log-level=debug"]
    done = in_process.run(arguments, tmp_path, fake_hub.url, fake_hub.token)
    assert done.code == 1


def test_a_rotated_token_is_never_shown(
    fake_hub: FakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(fake_hub.token)
    arguments = [f"--api-token-file={file}", "--interval=1", "--log-level=debug"]
    exporter = run_exporter(fake_hub, *arguments, token=None)
    exporter.wait_value(1, "jupyterhub_up")
    fresh = fake_hub.add_token(["list:users", "read:servers"])
    exporter.secrets |= {fake_hub.token, fresh}
    file.write_text(fresh)
    fake_hub.tokens.pop(fake_hub.token)
    exporter.wait_polls(2)
    assert exporter.metrics().value("jupyterhub_up") == 1
    fake_hub.plan("GET", "/*", echo)
    exporter.wait_value(0, "jupyterhub_up")
    exporter.get("/")
    assert exporter.stop() == 0


# ---- hostile names ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_every_event_is_one_line_whatever_users_are_called(
    fake_hub: FakeHub, run_exporter: RunExporter, form: str
) -> None:
    for name in HOSTILE:
        fake_hub.add_server(name, name, idle=999_999)
    options = ["--busy-check=off", f"--log-format={form}", "--log-level=debug"]
    exporter = run_exporter(fake_hub, *CULLING, *options)
    read = fields if form == "logfmt" else json.loads
    exporter.wait_log("outcome", count=len(HOSTILE))  # one of them is called "...culled"
    assert exporter.stop() == 0
    lines = [read(line) for line in exporter.lines]
    assert all(line.keys() >= {"ts", "level", "event"} for line in lines)
    assert all(line.isprintable() for line in exporter.lines)
    culled = [line for line in lines if line["event"] == "culled"]
    assert len({line["user"] for line in culled}) == len(HOSTILE)
    for line in culled:
        assert line["user"] == line["server"]
        assert line.keys() >= {"policy", "reason", "idle", "age"}


# ---- the port -----------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_line_and_exit_2(
    fake_hub: FakeHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    exporter = run_exporter(fake_hub)
    port = exporter.address.rpartition(":")[2]
    done = run_command(fake_hub, f"--web.listen-address=127.0.0.1:{port}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"--web.listen-address: cannot listen on 127.0.0.1:{port}" in done.stderr


def test_the_port_is_open_before_the_hub_is_asked(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    fake_hub.plan("*", "*", hang(threading.Event()))
    exporter = run_exporter(fake_hub)
    assert exporter.metrics().value("jupyterhub_up") == 0
    assert "no poll has succeeded yet" in exporter.get("/-/ready").text


# ---- the environment ----------------------------------------------------------------------------


def test_all_of_it_from_the_environment(fake_hub: FakeHub, tmp_path: Path) -> None:
    variables = {
        "HUB_IDLE_EXPORTER_URL": fake_hub.url,
        "JPY_API_TOKEN": fake_hub.token,
        "JUPYTERHUB_API_TOKEN": "",
        "HUB_IDLE_EXPORTER_TIMEOUT": "15m",
        "HUB_IDLE_EXPORTER_ENFORCE": "",
        "HUB_IDLE_EXPORTER_LOG_FORMAT": "logfmt",
    }
    with Exporter(None, None, [], variables, tmp_path) as exporter:
        exporter.secrets = {fake_hub.token}
        started = exporter.wait_event("starting")
        assert (started["timeout"], started["enforce"]) == ("15m", "false")
        exporter.wait_value(1, "jupyterhub_up")
        assert exporter.stop() == 0


def test_a_short_limit_is_warned_about(fake_hub: FakeHub, run_exporter: RunExporter) -> None:
    exporter = run_exporter(fake_hub, "--timeout=5m")
    exporter.wait_event("short_timeout")
    assert exporter.stop() == 0
