"""Plain pip, as README.md and docs/install.md tell people to use it, with a real JupyterHub 5.5.

Commands and configuration are the pages' own text. Only addresses, ports, the token's file and the
limits are others, so that nobody has to wait for an hour.
"""

import os
import secrets
import signal
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import older_hub_python
from documentation import ROOT, block, blocks
from exporter_process import Metrics, fields
from real_culling import CULLS, FORGOTTEN, SILENT, forget_and_compute, metrics_at, runs
from real_hub import PROBER, Kernel, RealHub
from sign_in import Browser
from way_in import WayIn

from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("installed with pip, from nothing")

README, PAGE = "README.md", "docs/install.md"
MANAGED = block(README, "c.JupyterHub.services.append")
REFUSED = block(README, "post_auth_hook")
WITH_TOKEN = block(PAGE, '"api_token": "THE TOKEN"')
REFUSED_TOO = block(PAGE, "post_auth_hook")
(INSTALL,) = {one for _, one in blocks("sh", [README, PAGE]) if one.startswith("pip install")}
(STANDALONE,) = (one for _, one in blocks("sh", [README]) if "check --enforce" in one)
LIMIT = "3s"


def environment_of(hub_python: Path, directory: Path) -> Path:
    """Make a Hub's environment of its own, which has all that an older Hub's has."""
    subprocess.run([hub_python, "-m", "venv", "--without-pip", directory], check=True)
    made = directory / "bin" / "python"
    (theirs,) = hub_python.parents[1].glob("lib/python*/site-packages")
    (ours,) = directory.glob("lib/python*/site-packages")
    (ours / "of-hub.pth").write_text(f"{theirs}\n")
    return made


def run_page(python: Path, script: str) -> None:
    """Run a page's shell block in the checkout, by the environment of an interpreter."""
    pip = 'pip() { python -m pip "$@"; }\n'
    variables = {
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "PIP_CACHE_DIR": str(ROOT / ".cache" / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_QUIET": "1",
    }
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | variables
    subprocess.run(["bash", "-ec", pip + script], cwd=ROOT, env=environment, check=True)


@contextmanager
def hub_at_work(directory: Path, python: Path) -> Iterator[tuple[RealHub, Kernel]]:
    """Run a Hub with two servers; the kernel of one of them computes without a sound."""
    with RealHub(
        directory, "jupyter", services=(), prober=False, activity_interval=0, python=python
    ) as hub:
        yield hub, forget_and_compute(hub)


def restart(hub: RealHub, configuration: str) -> None:
    """Start the Hub again with what the page says, behind what was there."""
    hub.stop_hub()
    hub.extra_config = configuration
    hub.start()


def scraped(hub: RealHub, port: int, name: str, **labels: str) -> Metrics:
    """Wait until what listens there says 1 for a metric, and return all that it said."""
    found: list[Metrics] = []

    def says_one() -> bool:
        found.append(metrics_at(port))
        return found[-1].value(name, **labels) == 1

    hub.wait(says_one, 60, f"{name} {labels} 1")
    return found[-1]


def follow_to_the_cull(way: WayIn, hub: RealHub, kernel: Kernel, port: int, log: Path) -> None:
    """See the forgotten server stopped, and the silent one spared since its kernel is busy."""
    scraped(hub, port, "jupyterhub_up")
    way.scraped()
    scraped(hub, port, CULLS)
    assert not runs(hub, FORGOTTEN)
    way.culled()
    lines = log.read_text().splitlines
    hub.wait(
        lambda: any(f"event=cull_withheld user={SILENT} " in line for line in lines()), 30, "spared"
    )
    (withheld, *_) = (line for line in lines() if f"event=cull_withheld user={SILENT} " in line)
    assert fields(withheld)["cause"] == "busy"
    assert runs(hub, SILENT)
    assert kernel.state() == "busy"
    assert Browser(hub.public_url).sign_in(PROBER, "any password") == 403
    assert Browser(hub.public_url).sign_in("ana", "any password") == 302


def limits(port: int) -> dict[str, str]:
    """Give what lets it cull at once."""
    of_test = {"GRACE": "0", "INTERVAL": "1s", "WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}"}
    return {f"HUB_IDLE_EXPORTER_{name}": value for name, value in of_test.items()}


def test_way_in_by_pip_as_a_service_of_the_hub(tmp_path: Path) -> None:
    python = environment_of(older_hub_python("5.5"), tmp_path / "environment")
    (port,) = free_ports(1)
    with (
        hub_at_work(tmp_path / "hub", python) as (hub, kernel),
        WayIn("pip, service of the Hub") as way,
    ):
        run_page(python, INSTALL)
        way.installed()
        assert MANAGED.count("--timeout=1h") == 1
        of_page = MANAGED.replace("--timeout=1h", f"--timeout={LIMIT}") + REFUSED
        restart(hub, f'{of_page}\nc.JupyterHub.services[-1]["environment"] = {limits(port)!r}\n')
        follow_to_the_cull(way, hub, kernel, port, hub.log_path)


@contextmanager
def standalone(python: Path, script: str, variables: dict[str, str], log: Path) -> Iterator[None]:
    """Run a page's block whose last command goes on; end it, and what it started."""
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    environment = {"PATH": path, "HOME": str(log.parent)} | variables
    with log.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-ec", script], env=environment, stdout=file, stderr=file, cwd=log.parent,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_way_in_by_pip_as_a_standalone_process(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    token, token_file = secrets.token_hex(32), tmp_path / "token"
    with (
        hub_at_work(tmp_path / "hub", older_hub_python("5.5")) as (hub, kernel),
        WayIn("pip, standalone process") as way,
    ):
        venv.create(tmp_path / "environment", with_pip=True)
        python = tmp_path / "environment" / "bin" / "python"
        run_page(python, INSTALL)
        way.installed()
        restart(hub, WITH_TOKEN.replace("THE TOKEN", token) + REFUSED_TOO)
        token_file.write_text(token)
        token_file.chmod(0o600)
        script = STANDALONE.replace("/etc/hub-idle-exporter/token", str(token_file))
        script = script.replace("http://127.0.0.1:8081/hub/api", hub.url)
        variables = limits(port) | {"HUB_IDLE_EXPORTER_TIMEOUT": LIMIT}
        log = tmp_path / "exporter.log"
        with standalone(python, script, variables, log):
            follow_to_the_cull(way, hub, kernel, port, log)
