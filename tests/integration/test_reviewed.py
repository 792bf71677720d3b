"""Faults that a review found, each as it was shown: none of them may come back."""

import threading
from pathlib import Path

import fake_hub as faults
import pytest
from conftest import RunExporter
from fake_hub import FakeHub, FakeServer
from real_hub import RealHub, server_path

from hub_idle_exporter.culling.probe import Prober
from hub_idle_exporter.domain.busy_check import BusyWatch
from hub_idle_exporter.domain.labels import ProbeResult
from hub_idle_exporter.domain.model import Route, version_numbers
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token

NOW = ("--enforce", "--grace=0", "--interval=1s", "--timeout=1h")


@pytest.mark.parametrize("value", [b"NaN", b"1e400", b'"\\ud800"'])
def test_users_options_that_are_no_json_blind_nobody(
    clean_paper_hub: RealHub, run_exporter: RunExporter, value: bytes
) -> None:
    """A user starts a server with options that Python's json lets through and JSON forbids."""
    hub = clean_paper_hub
    hub.ensure_user("ana")
    body = b'{"user_options": {"x": ' + value + b"}}"
    headers = {
        "Authorization": f"token {hub.user_token('ana')}",
        "Content-Type": "application/json",
    }
    url = f"{hub.api_url}{server_path('ana')}"
    assert hub._http.post(url, data=body, headers=headers, timeout=30).status_code in (201, 202)
    exporter = run_exporter(hub, "--interval=1s")
    exporter.wait_value(1, "jupyterhub_servers")
    assert exporter.metrics().value("hub_idle_exporter_poll_failures_total") == 0


def test_policy_file_with_a_number_beyond_all_bounds_keeps_the_old_one(
    fake_hub: FakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    file = tmp_path / "policies.yaml"
    text = "policies: [{name: a, match: {users: x}, timeout: %s}]"
    file.write_text(text % "2h")
    exporter = run_exporter(fake_hub, "--interval=1s", f"--policy-file={file}")
    exporter.wait_value(1, "jupyterhub_up")
    file.write_text(text % ("9" * 400))
    exporter.wait_event("policy_file_invalid")
    assert exporter.metrics().value("jupyterhub_policy_timeout_seconds", policy="a") == 7200


def test_nothing_is_stopped_after_the_signal_to_end(
    fake_hub: FakeHub, run_exporter: RunExporter
) -> None:
    """What is under way has a line of its own before it is sent."""
    server = FakeServer()
    with server:
        fake_hub.add_servers(200, idle=7200, age=9000, target=server, stop_takes=0.2)
        exporter = run_exporter(fake_hub, *NOW, "--concurrency=2")
        fake_hub.wait_for("DELETE", "/users/*/server")
        assert exporter.stop() == 0
    sent = len(fake_hub.log("DELETE", "/users/*/server"))
    assert sent < 50
    announced = exporter.events("stopping_server")
    assert sent <= len(announced) <= sent + 2


def test_servers_seen_busy_are_forgotten_while_others_are_noted() -> None:
    """The poll forgets while the lanes note: neither may trip over the other."""
    watch = BusyWatch()
    done = threading.Event()

    def note() -> None:
        number = 0
        while not done.is_set():
            number += 1
            watch.busy((f"u{number % 5000}", "", None), 0.0)

    lane = threading.Thread(target=note)
    lane.start()
    for _ in range(300):
        watch.keep(set())
    done.set()
    lane.join()


@pytest.mark.parametrize("target", ["http://a b:80/", "http://\udcff/"])
def test_a_route_that_is_no_address_fails_its_own_check_alone(
    fake_hub: FakeHub, target: str
) -> None:
    fake_hub.add_server("ana")
    hub = Hub(ConnectionSettings(fake_hub.url), Token.read_by(lambda: fake_hub.token))
    route = Route("/user/ana/", target)
    found = Prober(hub, "idle-prober", None).ask("ana", "", route, 0.0, 60.0)
    assert found.result is ProbeResult.FAILED


def test_a_version_of_endless_digits_is_none() -> None:
    assert version_numbers("9" * 5000) == ()


def test_a_date_beyond_the_calendar_is_unreadable(fake_hub: FakeHub) -> None:
    fake_hub.plan("GET", "/users", faults.dated("Fri, 31 Dec 9999 23:59:59 -2359"))
    hub = Hub(ConnectionSettings(fake_hub.url), Token.read_by(lambda: fake_hub.token))
    with pytest.raises(HubError, match="Date"):
        hub.users()
