"""The whole exporter tells people by a real mail server: before a stop, once, and after it."""

import time
from pathlib import Path

import pytest
from conftest import RunCommand, RunExporter
from fake_hub import FakeHub
from smtp_sink import SmtpSink

from hub_idle_exporter.clocks import steady

PASSWORD = "s3cretMail"
WITHIN = 30.0


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Stop everybody who was told a second ago; nobody can be asked on this Hub."""
    return ["--enforce", "--busy-check=off", "--grace=0", "--notice=1s",
            f"--state-file={tmp_path / 'state.sqlite'}"]  # fmt: skip


def mailed_by(sink: SmtpSink, folder: Path) -> str:
    """Write a notify file; return the option for it."""
    file = folder / "notify.txt"
    file.write_text(
        f"# mail\nmailto://hub:{PASSWORD}@{sink.address}/?from=hub@example.org"
        "&to={user}@example.org\n"
    )
    file.chmod(0o600)
    return f"--notify-file={file}"


def test_people_are_told_before_their_server_is_stopped_and_after(
    fake_hub: FakeHub, run_exporter: RunExporter, options: list[str], tmp_path: Path
) -> None:
    with SmtpSink(account=("hub", PASSWORD)) as sink:
        fake_hub.add_server("ana", idle=7200, age=9000)
        exporter = run_exporter(fake_hub, *options, mailed_by(sink, tmp_path), "--interval=1s")
        exporter.wait_event("culled")
        before, after = sink.wait_for(2)
        exporter.wait_value(
            1, "hub_idle_exporter_notifications_total", event="stopped", result="sent"
        )
        assert exporter.stop() == 0
    assert (before.subject, before.recipients) == (
        "Your server will be stopped in less than a minute", ["ana@example.org"],
    )  # fmt: skip
    assert (after.subject, after.recipients) == ("Your server was stopped", ["ana@example.org"])
    events = [line["event"] for line in exporter.events()]
    assert events.index("stop_announced") < events.index("stopping_server")
    assert events.count("stop_announced") == 1
    assert PASSWORD not in exporter.text
    assert "mailto" not in exporter.text


def test_nobody_is_stopped_while_the_mail_server_is_down(
    fake_hub: FakeHub, run_exporter: RunExporter, options: list[str], tmp_path: Path
) -> None:
    with SmtpSink() as sink:
        option = mailed_by(sink, tmp_path)
    fake_hub.add_server("ana", idle=7200, age=9000)
    exporter = run_exporter(fake_hub, *options, option, "--interval=1s")
    exporter.wait_value(1, "hub_idle_exporter_notifications_total", event="due", result="failed")
    exporter.wait_value(1, "hub_idle_exporter_notices_undelivered")
    since = "hub_idle_exporter_notices_undelivered_since_timestamp_seconds"
    assert exporter.metrics().value(since) == pytest.approx(time.time(), abs=WITHIN)
    exporter.wait_polls(3)
    (withheld, *_) = [line for line in exporter.events() if line["event"] == "cull_withheld"]
    assert withheld["cause"] == "notice"
    assert not fake_hub.server("ana").stopped
    assert fake_hub.log("DELETE", "/users/ana/*") == []
    assert exporter.stop() == 0
    assert PASSWORD not in exporter.text


@pytest.mark.slow("single runs and a mail server")
def test_once_waits_for_delivery_and_a_later_run_stops(
    fake_hub: FakeHub, run_command: RunCommand, options: list[str], tmp_path: Path
) -> None:
    with SmtpSink(account=("hub", PASSWORD)) as sink:
        fake_hub.add_server("ana", idle=7200, age=9000)
        option = mailed_by(sink, tmp_path)
        first = run_command(fake_hub, "--once", *options, option)
        assert (first.returncode, len(sink.mails)) == (0, 1)
        assert not fake_hub.server("ana").stopped
        until = steady() + WITHIN
        while not fake_hub.server("ana").stopped:
            assert run_command(fake_hub, "--once", *options, option).returncode == 0
            assert steady() < until, "it is never stopped"
        before, after = sink.wait_for(2)
    assert before.subject == "Your server will be stopped in less than a minute"
    assert after.subject == "Your server was stopped"


@pytest.mark.slow("single runs and a mail server")
def test_once_has_failed_if_somebody_could_not_be_told(
    fake_hub: FakeHub, run_command: RunCommand, options: list[str], tmp_path: Path
) -> None:
    with SmtpSink(account=("hub", PASSWORD)) as sink:
        sink.refuses = lambda _recipient: True
        fake_hub.add_server("ana", idle=7200, age=9000)
        done = run_command(fake_hub, "--once", *options, mailed_by(sink, tmp_path))
    assert done.returncode == 1
    assert "event=notification_failed" in done.stderr
    assert not fake_hub.server("ana").stopped


def test_once_with_a_notice_needs_a_state_file(fake_hub: FakeHub, run_command: RunCommand) -> None:
    done = run_command(fake_hub, "--once", "--enforce", "--notice=15m")
    assert done.returncode == 2
    assert done.stderr == (
        "hub-idle-exporter: --once with --notice needs --state-file: nothing else remembers it\n"
    )
