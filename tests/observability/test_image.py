"""Images and compose stack in a real Docker engine, by the commands of docs/container.md.

What no registry gives here has a substitute: Debian's Python 3.14 for the base image (`engine.py`),
Debian's package for Prometheus' image. Grafana is left out. The checkout is one that was made under
umask 077: only its owner may read it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import fetched_by, older_hub_python, skip_or_fail, tool_or_skip
from documentation import ROOT, blocks
from engine import BASE_PACKAGES, PYTHON, Engine, NoEngineError, docker_engine
from real_culling import CULLS, WITHHELD, forget_and_compute, metrics_at, runs
from real_hub import RealHub, Service
from way_in import WayIn

from hub_idle_exporter import __version__
from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("images and stack in a Docker engine")

PAGE = "docs/container.md"
BUILD, TOKEN, CHECK, RUN, LOOK, IN_NETWORK, POLICY, STACK, UPGRADE = (
    code for _, code in blocks("sh", [PAGE])
)
NAME, FOLDER = "idle-exporter", "/etc/hub-idle-exporter"
CHECKOUT = (
    ".dockerignore", "Dockerfile", "LICENSE", "README.md", "docker-compose.yml", "grafana",
    "hub_idle_exporter", "prometheus", "pyproject.toml", "requirements",
)  # fmt: skip
SUDO = '#!/bin/sh\nexec "$@"\n'
# What is other than where people run the page's commands: the base image, and less patience.
DOCKER = """#!/bin/sh
docker={client}
ours=--env=HUB_IDLE_EXPORTER_
case "$1" in
build) shift; set -- build --build-arg=PYTHON={python} --network=host "$@" ;;
run) shift; set -- run "$ours"GRACE=0 "$ours"INTERVAL=1s "$ours"TIMEOUT=5s "$@" ;;
compose) shift; docker={compose} ;;
esac
exec "$docker" "$@"
"""
PROMETHEUS = """
FROM {python}
COPY prometheus /bin/prometheus
COPY wget /bin/wget
RUN install -d -o 65534 -g 65534 /prometheus /etc/prometheus \\
    && echo 'global:' > /etc/prometheus/prometheus.yml
USER 65534
ENTRYPOINT ["/bin/prometheus"]
"""
# All that the health check needs of it.
WGET = """#!/usr/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1], timeout=4)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has what stands for the base image."""
    if os.geteuid() != 0:
        skip_or_fail("the commands of the page need root")
    base = fetched_by("debian_root.py", "forky", *BASE_PACKAGES)
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(docker_engine())
        except NoEngineError as error:
            skip_or_fail(str(error))
        engine.import_base(Path(base), tmp_path_factory.mktemp("base"))
        yield engine


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the images are built from, as `git clone` leaves it under umask 077."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in CHECKOUT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


@dataclass
class Shell:
    """Runs commands of the page in a checkout; what is elsewhere in this test is replaced."""

    engine: Engine
    checkout: Path
    programs: Path
    elsewhere: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def command(self, code: str) -> list[str]:
        for said, here in self.elsewhere.items():
            code = code.replace(said, here)
        return ["bash", "-euo", "pipefail", "-c", code]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(self.programs), os.environ["PATH"]))
        return os.environ | dict(self.engine.variables) | self.variables | {"PATH": path}

    def run(self, code: str) -> str:
        finished = subprocess.run(
            self.command(code), cwd=self.checkout, env=self.environment(), check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stdout
        return finished.stdout


@pytest.fixture
def shell(engine: Engine, checkout: Path, tmp_path: Path) -> Iterator[Shell]:
    """A shell with `docker` and `sudo`, where the page's folder is one of the test's."""
    programs = tmp_path / "programs"
    programs.mkdir()
    docker = DOCKER.format(client=engine.client, python=PYTHON, compose=fetched_by("compose.py"))
    for name, text in (("docker", docker), ("sudo", SUDO)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    tmp_path.chmod(0o755)
    yield Shell(engine, checkout, programs, {f"={FOLDER}:": f"={tmp_path}/etc:"})
    engine.run(engine.client, "rm", "--force", NAME)


# ---- the image -----------------------------------------------------------------------------------


@contextmanager
def hub_with_idle_servers(directory: Path) -> Iterator[RealHub]:
    """Run a Hub with two servers; the kernel of one of them computes silently."""
    with RealHub(
        directory, "jupyter", services=(), activity_interval=0, python=older_hub_python("5.5")
    ) as hub:
        forget_and_compute(hub)
        yield hub


def restart_with_token(hub: RealHub, token: str) -> None:
    """Give a service of the Hub a token and the scopes; both servers look idle afterwards."""
    hub.stop_hub()
    hub.services = (Service(token=token),)
    hub.start()
    for name in ("silent", "forgotten"):
        hub.backdate(name, idle=7200, age=9000)


def test_way_in_container(engine: Engine, shell: Shell, tmp_path: Path) -> None:
    with hub_with_idle_servers(tmp_path / "hub") as hub, WayIn("container") as way:
        shell.run(BUILD)
        way.installed()
        (port,) = free_ports(1)
        folder = tmp_path / "etc"
        shell.elsewhere |= {":8081": f":{hub.ports.hub}", ":9899": f":{port}"}
        shell.run(TOKEN.replace(FOLDER, str(folder)))
        restart_with_token(hub, (folder / "token").read_text().strip())
        assert "silent" in shell.run(CHECK)
        shell.run(RUN)
        hub.wait(lambda: metrics_at(port).value("jupyterhub_up") == 1, 60, "scraped")
        way.scraped()
        hub.wait(lambda: metrics_at(port).value(CULLS) == 1, 60, "culled")
        assert not runs(hub, "forgotten")
        way.culled()
        hub.wait(lambda: metrics_at(port).value(WITHHELD, cause="busy"), 60, "spared")
        engine.wait(lambda: engine.state(NAME, "Health.Status") == "healthy", 30, "healthy")
        looked_at = shell.run(LOOK)
        assert "event=culled user=forgotten " in looked_at
        assert looked_at.endswith("healthy\n")
        engine.docker("stop", NAME)  # kills after 10 s
        assert engine.state(NAME, "ExitCode") == "0"
        assert runs(hub, "silent")
        shell.run(UPGRADE)


@pytest.fixture
def image(shell: Shell) -> str:
    """The image that the page builds."""
    shell.run(BUILD)
    return "hub-idle-exporter"


def test_published_port_answers_when_options_follow_the_image(engine: Engine, image: str) -> None:
    (port,) = free_ports(1)
    engine.docker(
        "run", "--detach", f"--name={NAME}", f"--publish=127.0.0.1:{port}:9899",
        "--read-only", "--cap-drop=ALL", "--health-interval=1s",
        "--env=JUPYTERHUB_API_URL=http://127.0.0.1:1/hub/api", "--env=JUPYTERHUB_API_TOKEN=none",
        image, "--enforce",
    )  # fmt: skip
    engine.wait(lambda: metrics_at(port).value("jupyterhub_up") == 0, 30, "answered")
    engine.wait(lambda: engine.state(NAME, "Health.Status") == "healthy", 30, "healthy")
    assert engine.docker("exec", NAME, "id", "-u") == "10001"
    assert engine.run(engine.client, "exec", NAME, "touch", "/srv/x").returncode != 0
    engine.docker("kill", "--signal=TERM", NAME)
    assert engine.docker("wait", NAME) == "0"


def test_image_says_what_it_is(engine: Engine, image: str) -> None:
    version = engine.docker("run", "--rm", "--read-only", "--cap-drop=ALL", image, "--version")
    assert version.endswith(__version__)
    config = json.loads(engine.docker("inspect", "--format={{json .Config}}", image))
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.title"] == "hub-idle-exporter"
    assert labels["org.opencontainers.image.licenses"] == "BSD-3-Clause"
    assert config["User"] == "10001:10001"


# ---- the stack -----------------------------------------------------------------------------------

PROJECT = "hub-idle-exporter"
OURS = f"--filter=label=com.docker.compose.project={PROJECT}"
SERVICES = ("hub", "people", "exporter", "prometheus")
HURRIED = {"--timeout=2m": "--timeout=5s", "--interval=10s": "--interval=1s",
           "--grace=1m": "--grace=0", "--limit=120": "--limit=5"}  # fmt: skip


def hurried(command: list[str]) -> list[str]:
    return [HURRIED.get(argument, argument) for argument in command]


def override(stack: dict[str, Any], prometheus: str) -> dict[str, Any]:
    """Give what is other here: base images, no Grafana, less patience."""
    services = stack["services"]
    build = {"args": {"PYTHON": PYTHON}, "network": "host"}
    return {
        "services": {
            "init": {"build": build},
            # As a Hub that is asked by other containers without its proxy in between.
            "hub": {"command": [*services["hub"]["command"], "--JupyterHub.hub_ip=0.0.0.0"]},
            "people": {
                "command": hurried(services["people"]["command"]),
                "healthcheck": {"interval": "2s"},
            },
            "exporter": {"build": build, "command": hurried(services["exporter"]["command"])},
            "prometheus": {"image": prometheus, "pull_policy": "never"},
            "grafana": {"profiles": ["not here"]},
        }
    }


@pytest.fixture
def prometheus(engine: Engine, tmp_path: Path) -> str:
    """An image of Debian's Prometheus."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    shutil.copy(tool_or_skip("prometheus"), folder)
    (folder / "wget").write_text(WGET)
    (folder / "wget").chmod(0o755)
    (folder / "Dockerfile").write_text(PROMETHEUS.format(python=PYTHON))
    engine.docker("build", "--tag=hub-idle-exporter-tests/prometheus", ".", directory=folder)
    return "hub-idle-exporter-tests/prometheus"


@dataclass
class Stack:
    """The stack while it is up."""

    shell: Shell
    exporter: int
    prometheus: int

    def healthy(self) -> bool:
        listing = ("ps", OURS, "--filter=health=healthy", "--format={{.Names}}")
        names = self.shell.engine.docker(*listing).split()
        return set(names) == {f"{PROJECT}-{service}-1" for service in SERVICES}

    def ask(self, path: str) -> Any:
        address = f"http://127.0.0.1:{self.prometheus}/api/v1/{path}"
        return requests.get(address, timeout=10).json()["data"]


@contextmanager
def stack_up(shell: Shell, directory: Path, prometheus: str) -> Iterator[Stack]:
    """Run both commands of the page, and in between the test."""
    up, down = STACK.splitlines()
    file = shell.checkout / "docker-compose.yml"
    other = directory / "override.json"
    other.write_text(json.dumps(override(yaml.safe_load(file.read_text()), prometheus)))
    ports = free_ports(3)
    names = ("HUB_PORT", "EXPORTER_PORT", "PROMETHEUS_PORT")
    shell.variables |= {name: str(port) for name, port in zip(names, ports, strict=True)}
    shell.variables["COMPOSE_FILE"] = f"{file}:{other}"
    with subprocess.Popen(
        shell.command(up), cwd=shell.checkout, env=shell.environment()
    ) as running:
        try:
            yield Stack(shell, *ports[1:])
        finally:
            shell.run(down)
            running.wait(60)


@pytest.mark.timeout(900)
def test_stack_culls_is_scraped_and_leaves_nothing(
    engine: Engine, shell: Shell, tmp_path: Path, prometheus: str, image: str
) -> None:
    with stack_up(shell, tmp_path, prometheus) as stack:
        engine.wait(stack.healthy, 480, "healthy")
        engine.wait(lambda: metrics_at(stack.exporter).value(CULLS), 240, "culled")
        an_exporter_joins_the_network(shell, tmp_path / "etc")
        targets = stack.ask("targets")["activeTargets"]
        assert len(targets) == 3
        culls = "query?query=sum(hub_idle_exporter_culls_total)>0"
        engine.wait(lambda: stack.ask(culls)["result"], 120, "scraped")
        assert {target["health"] for target in stack.ask("targets")["activeTargets"]} == {"up"}
        assert len(stack.ask("rules")["groups"]) == 2
    for listing in (("ps", "--all"), ("volume", "ls"), ("network", "ls")):
        assert engine.docker(*listing, "--quiet", OURS) == ""


def an_exporter_joins_the_network(shell: Shell, folder: Path) -> None:
    """It reaches the Hub by its name, and notices a new policy file in its folder."""
    (port,) = free_ports(1)
    shell.elsewhere |= {
        "--network=jupyterhub": f"--network={PROJECT}_default",
        "127.0.0.1:9899:": f"127.0.0.1:{port}:",
        " --enforce ": f" --enforce --policy-file={FOLDER}/policy.yaml ",
    }
    engine = shell.engine
    shell.run(TOKEN.replace(FOLDER, str(folder)))
    token = engine.docker("exec", f"{PROJECT}-hub-1", "cat", "/run/secrets/demo/exporter-token")
    (folder / "token").write_text(token)
    policy = shell.checkout / "policy.yaml"
    policy.write_text("policies: [{name: one, match: {users: [ana]}, exempt: true}]\n")
    shell.run(POLICY.replace(FOLDER, str(folder)))
    shell.run(IN_NETWORK)
    engine.wait(lambda: metrics_at(port).value("jupyterhub_up") == 1, 30, "reached the Hub")
    policy.write_text("policies: [{name: two, match: {users: [ana]}, exempt: true}]\n")
    shell.run(POLICY.replace(FOLDER, str(folder)))
    exempt = "jupyterhub_policy_exempt"
    engine.wait(lambda: metrics_at(port).value(exempt, policy="two") == 1, 30, "read again")
    engine.docker("rm", "--force", NAME)
