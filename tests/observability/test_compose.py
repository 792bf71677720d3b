"""The compose stack without an engine: what its files say, and its pieces run one by one.

`test_image.py` builds it and runs it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import compose_checks
import planted_faults
import pytest
import requests
from conftest import fetched_by, tool_or_skip
from planted_faults import Fault

from hub_idle_exporter.demo.launch import LocalHub, Ports

REPO = Path(__file__).resolve().parents[2]
DEMO = REPO / "hub_idle_exporter" / "demo"
SECRETS = "/run/secrets/demo"
# What the stack is made of; planted faults are made in a copy.
FILES = ("docker-compose.yml", "Dockerfile", "prometheus", "grafana", "hub_idle_exporter/demo")


def beside_python(name: str) -> str:
    """Give the path of a tool installed with the development tools, or anywhere."""
    beside = Path(sys.executable).with_name(name)
    found: str = str(beside) if beside.exists() else tool_or_skip(name)
    return found


@pytest.fixture(scope="session")
def compose() -> str:
    """The binary of Docker Compose; fetched where need be."""
    return fetched_by("compose.py")


def read(compose: str, directory: Path) -> dict[str, Any] | str:
    """Give what Compose makes of the stack, or what it says against it."""
    command = [compose, "config", "--format=json"]
    finished = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if finished.returncode:
        return f"docker-compose config: {finished.stderr.strip()}"
    stack: dict[str, Any] = json.loads(finished.stdout)
    return stack


def run_init(stack: dict[str, Any], folder: Path) -> None:
    """Run what the init service runs, on a folder in place of its volumes and of its image."""
    init = stack["services"]["init"]
    places = {"secrets": folder, "config": folder / "config", "stack": folder / "stack"}
    for volume in init["volumes"]:
        place, name = Path(volume["target"]).parts[1:]
        (places[place] / name).mkdir(parents=True, exist_ok=True)
    lay_out(places["stack"])
    _, flag, script = init["command"]
    variables = {place.upper(): str(path) for place, path in places.items()}
    assert set(init["environment"]) == set(variables)
    subprocess.run([sys.executable, flag, script], env=os.environ | variables, check=True)


def lay_out(folder: Path) -> None:
    """Make what the image has below /opt/stack."""
    for volume, sources in compose_checks.parts(REPO).items():
        target = folder / volume.removeprefix("config-")
        target.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)


def secret_faults(stack: dict[str, Any], folder: Path) -> list[str]:
    """Find files of secrets that services read and init has not written for them."""
    found = []
    for name, service in stack["services"].items():
        volumes = {mount["target"]: mount["source"] for mount in service.get("volumes", [])}
        if SECRETS not in volumes:
            continue
        own = folder / volumes[SECRETS].removeprefix("secrets-")
        texts = [*(service["command"] or []), *(service.get("environment") or {}).values()]
        wanted = re.findall(rf"{SECRETS}/([\w-]+)", "\n".join(texts))
        missing = [path for path in wanted if not (own / path).exists()]
        found += [f"service {name}: init writes no secret {path}" for path in missing]
    return found


def exporter_arguments(stack: dict[str, Any], secrets: Path) -> list[str]:
    """Give the options of the exporter's service, with the paths of this machine."""
    places = {
        SECRETS: str(secrets / "exporter"),
        "/etc/hub-idle-exporter/policy.yaml": str(DEMO / "policy.yaml"),
    }
    arguments = []
    for argument in stack["services"]["exporter"]["command"]:
        for inside, outside in places.items():
            argument = argument.replace(inside, outside)
        arguments.append(argument)
    return arguments


def exporter_command(name: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run one of the exporter's commands with options."""
    command = [sys.executable, "-m", "hub_idle_exporter", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def option_faults(stack: dict[str, Any], secrets: Path) -> list[str]:
    """Find options that the exporter refuses; that there is no Hub here is no fault."""
    arguments = [*exporter_arguments(stack, secrets), "--url=http://127.0.0.1:1/hub/api"]
    finished = exporter_command("check", arguments)
    return [f"service exporter: {finished.stderr.strip()}"] if finished.returncode == 2 else []


def hadolint_says(directory: Path) -> list[str]:
    """Lint the Dockerfile."""
    command = [beside_python("hadolint"), "Dockerfile"]
    finished = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return [f"hadolint: {line}" for line in (finished.stdout + finished.stderr).splitlines()]


def everything_said(compose: str, directory: Path, secrets: Path) -> list[str]:
    """Run all checks of files over a stack."""
    stack = read(compose, directory)
    if isinstance(stack, str):
        return [stack]
    said = compose_checks.faults(stack, directory)
    run_init(stack, secrets)
    said += secret_faults(stack, secrets) + hadolint_says(directory)
    return said or option_faults(stack, secrets)


def test_stack_has_no_fault(compose: str, tmp_path: Path) -> None:
    assert everything_said(compose, REPO, tmp_path) == []


def test_stack_fits_the_specification() -> None:
    command = [beside_python("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    finished = subprocess.run(
        [*command, REPO / "docker-compose.yml"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_prometheus_configuration_is_valid(require_tool: Callable[[str], str]) -> None:
    command = [require_tool("promtool"), "check", "config", "prometheus.yml"]
    finished = subprocess.run(
        command, cwd=REPO / "prometheus", capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_init_makes_secrets_once(compose: str, tmp_path: Path) -> None:
    stack = read(compose, REPO)
    assert not isinstance(stack, str)
    run_init(stack, tmp_path)
    first = {path: path.read_text() for path in tmp_path.glob("*/*") if path.is_file()}
    assert {path.stat().st_mode & 0o777 for path in first} == {0o640}
    assert (tmp_path / "hub/exporter-token").read_text() == first[
        tmp_path / "exporter/exporter-token"
    ]
    assert min(len(value) for value in first.values()) >= 32
    assert len(set(first.values())) == 4
    run_init(stack, tmp_path)
    assert {path: path.read_text() for path in first} == first


def test_init_copies_what_services_read(compose: str, tmp_path: Path) -> None:
    stack = read(compose, REPO)
    assert not isinstance(stack, str)
    run_init(stack, tmp_path)
    for copy, original in (
        ("policy/policy.yaml", DEMO / "policy.yaml"),
        ("prometheus/prometheus.yml", REPO / "prometheus" / "prometheus.yml"),
        ("prometheus/rules.yml", REPO / "prometheus" / "rules.yml"),
        ("dashboards/idle-servers.json", REPO / "grafana" / "dashboards" / "idle-servers.json"),
    ):
        assert (tmp_path / "config" / copy).read_bytes() == original.read_bytes()


@contextmanager
def hub_of(stack: dict[str, Any], folder: Path) -> Iterator[LocalHub]:
    """Start the Hub as the stack has it, but for its name and ports."""
    service = stack["services"]["hub"]
    environment = service["environment"] | {
        "DEMO_HOST": "127.0.0.1",
        "DEMO_HOMES": str(folder / "homes"),
        "DEMO_SECRETS": str(folder / "hub"),
    }
    (given,) = [one for one in service["command"] if one.startswith("--JupyterHub.")]
    option, _, value = given.removeprefix("--").partition("=")
    ports = Ports.free()
    configuration = (
        f"c = get_config()\nload_subconfig({str(DEMO / 'jupyterhub_config.py')!r})\n"
        f"c.JupyterHub.bind_url = 'http://127.0.0.1:{ports.public}'\nc.{option} = {value}\n"
    )
    with LocalHub(folder / "srv", configuration, environment=environment, ports=ports) as hub:
        yield hub


@contextmanager
def people_of(stack: dict[str, Any], hub: LocalHub, folder: Path) -> Iterator[None]:
    """Let the simulated people of the stack in, in a hurry."""
    _, *arguments = stack["services"]["people"]["command"]
    arguments = [one.replace(SECRETS, str(folder / "people")) for one in arguments]
    hurry = [f"--url={hub.public_url}", "--limit=5"]
    people = subprocess.Popen([sys.executable, *arguments, *hurry], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        people.terminate()
        assert people.wait(20) == 0


@pytest.mark.slow("the Hub of the stack")
def test_hub_of_the_stack_has_people_and_serves_exporter_and_prometheus(
    compose: str, tmp_path: Path
) -> None:
    stack = read(compose, REPO)
    assert not isinstance(stack, str)
    run_init(stack, tmp_path)
    with hub_of(stack, tmp_path) as hub:
        assert requests.get(f"{hub.public_url}hub/health", timeout=10).ok
        metrics = requests.get(f"{hub.public_url}hub/metrics", timeout=10).text
        assert "jupyterhub_running_servers" in metrics
        options = [*exporter_arguments(stack, tmp_path), f"--url={hub.public_url}hub/api"]
        checked = exporter_command("check", options)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with people_of(stack, hub, tmp_path):
            deadline = time.monotonic() + 60
            while not (
                seen := json.loads(exporter_command("servers", ["--json", *options]).stdout)
            ):
                assert time.monotonic() < deadline, "nobody has come"
    assert seen


@pytest.mark.slow("faults planted in the compose stack")
@pytest.mark.parametrize("fault", planted_faults.IN_COMPOSE, ids=lambda fault: fault.name)
def test_planted_fault_is_caught(fault: Fault, compose: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in FILES:
        original = REPO / name
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if original.is_dir() else shutil.copy)(original, copy / name)
    planted = copy / fault.file
    planted.write_text(fault.planted(planted.read_text()))
    said = everything_said(compose, copy, tmp_path / "secrets")
    assert any(fault.caught in line for line in said), said
