"""Alertmanager mails each person whose server will be stopped: a real one, by a real Prometheus."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml
from alertmanager_process import AlertmanagerServer
from prometheus_client import CollectorRegistry, Gauge
from prometheus_process import PrometheusServer, Scraped
from smtp_sink import SmtpSink

FOLDER = Path(__file__).resolve().parents[2] / "prometheus"
RULES, CONFIGURATION = FOLDER / "tell-people.rules.yml", FOLDER / "alertmanager.example.yml"
HOUR = 3600.0
HOSTILE = (
    "ada,mallory@evil.example.com",
    "<mallory@evil.example.com>",
    "ada mallory@evil.example.com",
    "mallory@evil.example.com\nBcc: all@evil.example.com",
    '"mallory"@evil.example.com',
    "mallory@evil",
    "ada+mallory",
)


class Exporter:
    """What the exporter would say of servers that are due, on a free port."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._server, self._thread = prometheus_client.start_http_server(
            0, "127.0.0.1", registry=registry
        )
        self.address = f"127.0.0.1:{self._server.server_port}"
        labels = ["user", "server"]
        self._due = Gauge(
            "jupyterhub_server_stop_due_timestamp_seconds", "When.", labels, registry=registry
        )
        enforcement = Gauge(
            "hub_idle_exporter_enforcement", "Whether.", ["state"], registry=registry
        )
        enforcement.labels("on").set(1)

    def is_due(self, user: str, seconds: float, server: str = "") -> None:
        """Let a server be past its limit in so many seconds."""
        self._due.labels(user, server).set(time.time() + seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    one = Exporter()
    yield one
    one.close()


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    """A mail server."""
    with SmtpSink() as opened:
        yield opened


def example(sink: SmtpSink) -> dict[str, Any]:
    """Give the example's configuration with this mail server, and groups that wait less."""
    configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] |= {"smtp_smarthost": sink.address, "smtp_require_tls": False}
    for route in configuration["route"]["routes"]:
        route |= {"group_wait": "0s", "group_interval": "1s"}
    return configuration


def rules_without_patience(directory: Path) -> Path:
    """Give the rules, with alerts that end at once."""
    document = yaml.safe_load(RULES.read_text())
    for rule in document["groups"][0]["rules"]:
        del rule["keep_firing_for"]
    file = directory / "rules.yml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.slow("a Prometheus and an Alertmanager that mail people")
def test_each_person_gets_one_mail_and_nobody_gets_anothers(
    require_tool: Callable[[str], str], tmp_path: Path, exporter: Exporter, sink: SmtpSink
) -> None:
    exporter.is_due("ada", HOUR / 6)
    exporter.is_due("grace@example.org", HOUR / 6, "gpu")
    exporter.is_due("later", 2 * HOUR)
    for name in HOSTILE:
        exporter.is_due(name, HOUR / 6)
    program = require_tool("prometheus-alertmanager")
    with (
        AlertmanagerServer(program, tmp_path / "alertmanager", example(sink)) as alertmanager,
        PrometheusServer(
            require_tool("prometheus"),
            tmp_path / "prometheus",
            {"idle": Scraped(exporter.address)},
            rules_without_patience(tmp_path),
            alertmanager.address,
        ),
    ):
        told = {mail.recipients[0]: mail for mail in sink.wait_for(2)}
        assert sorted(told) == ["ada@example.org", "grace@example.org"]
        assert told["ada@example.org"].sender == "jupyterhub@example.org"
        assert told["ada@example.org"].subject == "Your JupyterHub server will be stopped"
        assert (
            "Your server will be stopped in about 9m" in told["ada@example.org"].message.as_string()
        )
        assert 'server "gpu" will be stopped' in told["grace@example.org"].message.as_string()

        exporter.is_due("ada", HOUR)  # used again: nothing is sent about that
        alertmanager.wait(lambda: len(alertmanager.alerts()) == 1, 60, "ended")
        exporter.is_due("linus", HOUR / 6)  # mailed after anything else that was to be mailed
        sink.wait_for(3)
    assert Counter(mail.recipients[0] for mail in sink.mails) == {
        "ada@example.org": 1,
        "grace@example.org": 1,
        "linus@example.org": 1,
    }
    assert all(len(mail.recipients) == 1 for mail in sink.mails)
    assert len(sink.asked) == 3


@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES.name),
        ("promtool", "test", "rules", "tell-people.test.yml"),
        ("amtool", "check-config", CONFIGURATION.name),
    ],
    ids=" ".join,
)
def test_the_tools_find_nothing_wrong(
    require_tool: Callable[[str], str], command: tuple[str, ...]
) -> None:
    program, *arguments = command
    finished = subprocess.run(
        [require_tool(program), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
