"""docs/systemd.md, followed from nothing: a Debian that systemd boots, beside a real Hub 5.5.

Commands and configuration are the page's own text. Only the ports are others, and the machine asks
no package index.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import older_hub_python, skip_or_fail, tool_or_skip
from documentation import ROOT, block, text
from exporter_process import Metrics, assert_secret
from machine import CannotBootError, Machine
from real_culling import (
    CULLS,
    FORGOTTEN,
    SILENT,
    WITHHELD,
    forget_and_compute,
    look_idle,
    metrics_at,
    runs,
)
from real_hub import RealHub
from sandbox_attempts import ATTEMPTS
from way_in import WayIn
from wheels import wheels

from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("a machine that systemd boots")

PAGE = "docs/systemd.md"
INSTALL = "docs/install.md"
UNIT = "hub-idle-exporter"
OPTIONS = "/etc/hub-idle-exporter/options.env"
TOKEN = "/etc/hub-idle-exporter/token"


def commands(part: str) -> str:
    """Give a block of the page, for a machine with the checkout."""
    return "cd /checkout\n" + block(PAGE, part, "sh")


@contextmanager
def booted() -> Iterator[Machine]:
    if os.geteuid() != 0:
        skip_or_fail("only root can boot a machine")
    for tool in ("debootstrap", "systemd-nspawn", "nsenter"):
        tool_or_skip(tool)
    # The Python of Debian bookworm.
    python = sys.executable if sys.version_info[:2] == (3, 11) else tool_or_skip("python3.11")
    machine = Machine({"/checkout": ROOT, "/wheels": wheels(python)})
    with ExitStack() as stack:
        try:
            stack.enter_context(machine)
        except CannotBootError as error:
            skip_or_fail(f"systemd-nspawn cannot boot a machine here: {error}")
        machine.run("printf '[global]\nno-index=1\nfind-links=/wheels\n' >/etc/pip.conf")
        machine.run("echo 127.0.1.1 $(hostname) >>/etc/hosts")  # for sudo
        yield machine


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RealHub]:
    """A Hub without the exporter; one kernel computes silently, and one server is forgotten."""
    with RealHub(
        tmp_path / "hub", "jupyter", services=(), prober=False, activity_interval=0,
        python=older_hub_python("5.5"),
    ) as hub:  # fmt: skip
        forget_and_compute(hub)
        yield hub


def configure(hub: RealHub, token: str) -> None:
    """Restart the Hub with what the page refers to; its servers have been idle for two hours."""
    roles = block(INSTALL, "THE TOKEN").replace("THE TOKEN", token)
    hub.stop_hub()
    hub.extra_config = roles + block(INSTALL, "post_auth_hook")
    hub.start()
    look_idle(hub)


class Service:
    """The unit on a machine, and what it serves."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        (self.port,) = free_ports(1)

    def set(self, **options: str) -> None:
        """Add options to the file of them; the last one of a name counts."""
        lines = "".join(f"HUB_IDLE_EXPORTER_{name}={value}\n" for name, value in options.items())
        self.machine.run(f"printf %s '{lines}' >>{OPTIONS}")

    def show(self, name: str) -> str:
        return self.machine.show(UNIT, name)

    @property
    def pid(self) -> int:
        """Its process as the machine counts."""
        return int(self.show("MainPID"))

    def restart(self) -> None:
        self.machine.run(f"systemctl restart {UNIT}", check=False)

    def metrics(self) -> Metrics:
        return metrics_at(self.port)

    def wait_value(self, least: float, name: str, **labels: str) -> None:
        """Wait until a value is there and at least this."""

        def there() -> bool:
            value = self.metrics().value(name, **labels)
            return value is not None and value >= least

        try:
            self.machine.wait(there, 30, f"{name} {labels} {least}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.machine.journal(UNIT)[-4000:]}") from None


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """What the page sets up, monitoring: no Hub answers at its address. Installed by pipx."""
    with booted() as machine:
        service = Service(machine)
        machine.run(commands("pipx"))
        machine.run(commands("mkdir -p /etc"))
        (nobody,) = free_ports(1)
        service.set(
            URL=f"http://127.0.0.1:{nobody}/hub/api", WEB_LISTEN_ADDRESS=f"127.0.0.1:{service.port}"
        )
        machine.run(commands("enable --now"))
        service.wait_value(0, "jupyterhub_up")
        yield service


def test_the_way_in_from_nothing_to_a_stop(hub: RealHub) -> None:
    with booted() as machine:
        service = Service(machine)
        with WayIn("systemd (standalone)") as way:
            machine.run(commands("python3 -m venv"))
            way.installed()
            machine.run(commands("mkdir -p /etc"))
            token = machine.run(f"cat {TOKEN}").stdout.strip()
            configure(hub, token)
            service.set(URL=hub.url, WEB_LISTEN_ADDRESS=f"127.0.0.1:{service.port}")
            service.set(TIMEOUT="2s", GRACE="0", INTERVAL="1s")
            checked = machine.run(commands("systemd-run")).stdout
            machine.run(commands("enable --now"))
            service.wait_value(1, "jupyterhub_up")
            way.scraped()
            machine.run(commands("ENFORCE=true"))
            service.wait_value(1, CULLS, policy="default", reason="idle")
            way.culled()
            service.wait_value(1, WITHHELD, cause="busy")
        assert not runs(hub, FORGOTTEN)
        assert runs(hub, SILENT)
        journal = machine.run(block(PAGE, "journalctl", "sh")).stdout
        assert f"event=culled user={FORGOTTEN} " in journal
        process = f"/proc/{service.pid}/environ /proc/{service.pid}/cmdline"
        shown = machine.run(f"systemctl show {UNIT}; cat {process}").stdout
        assert_secret([checked, journal, shown, service.metrics().text], {token})
        machine.run(commands("disable --now"))


def test_a_new_token_is_there_after_a_restart(service: Service) -> None:
    machine, seen = service.machine, f"cat /run/credentials/{UNIT}.service/token"
    first = machine.run(seen).stdout
    rotation = commands("sudo systemctl restart jupyterhub")
    machine.run(rotation.replace("sudo systemctl restart jupyterhub\n", ""))
    assert machine.run(seen).stdout == machine.run(f"cat {TOKEN}").stdout != first


def test_it_comes_back_after_a_crash_and_not_with_a_bad_option(service: Service) -> None:
    machine, first = service.machine, service.pid
    machine.run(f"kill -9 {first}")
    machine.wait(lambda: service.pid not in (0, first), 30, "started again")
    service.wait_value(0, "jupyterhub_up")
    assert service.show("NRestarts") == "1"

    machine.run(f"systemctl stop {UNIT}")  # of itself: systemd would kill it after 90 s
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    assert "event=stopped crashed=false" in machine.journal(UNIT)

    service.set(TIMEOUT="soon")
    service.restart()
    machine.wait(lambda: service.show("ActiveState") == "failed", 30, "failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("2", "0")
    assert "--timeout" in machine.journal(UNIT)


def test_the_sandbox_is_in_force(service: Service) -> None:
    machine = service.machine
    machine.run("install -m 644 /checkout/tests/support/sandbox_attempts.py /opt/attempts.py")
    attempts = "/usr/bin/python3 /opt/attempts.py"
    machine.run(
        f"sed -e 's#^ExecStart=.*#ExecStart={attempts}#' -e s/^Type=.*/Type=oneshot/"
        f" -e /^Restart/d /etc/systemd/system/{UNIT}.service >/run/systemd/system/attempts.service;"
        "systemctl start attempts"
    )
    assert "possible: []" in machine.journal("attempts")
    assert machine.run(attempts).stdout == f"possible: {list(ATTEMPTS)}\n"  # it is the sandbox


def test_systemd_rates_it_as_the_page_says(service: Service) -> None:
    rated = service.machine.run(
        f"systemd-analyze verify {UNIT}.service; systemd-analyze security --no-pager {UNIT}.service"
    )
    assert rated.stderr == ""
    (score,) = re.findall(r"exposure of ([\d.]+) ", text(PAGE))
    assert f"Overall exposure level for {UNIT}.service: {score} OK" in rated.stdout
