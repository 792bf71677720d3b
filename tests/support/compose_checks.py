"""What must hold for the compose stack, read from what `docker compose config` makes of it.

Each check says in one line what is wrong and where; no line is a good stack. What Compose itself
accepts and a person would regret is what these are for.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from hub_idle_exporter import __version__

Service = dict[str, Any]
Stack = dict[str, Any]

ONE_SHOT = "init"
PINNED = re.compile(
    r"(?:[a-z0-9]+(?:[.-][a-z0-9]+)*(?::\d+)?/)?"  # registry or owner
    r"[a-z0-9]+(?:[._/-][a-z0-9]+)*"  # name
    r":v?\d+\.\d+\.\d+(?:-[\w.-]+)?"  # a version, whole
    r"@sha256:[0-9a-f]{64}"
)
OF_PYTHON = re.compile(r"python3\.\d")
LISTENS = "ENV HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS=:9899\n"
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|API_KEY")
NUMBER_OF_NOBODY_SPECIAL = re.compile(r"[1-9]\d*(?::\d+)?")
LIMITS = ("mem_limit", "cpus", "pids_limit")


def faults(stack: Stack, repo: Path) -> list[str]:
    """Say everything that is wrong with the stack whose files lie in `repo`."""
    found = []
    stack = stack | {"parts": parts(repo)}
    for name, service in stack["services"].items():
        checks = (_image, _hardening, _health, _ports, _mounts, _environment, _dependencies)
        for check in checks:
            found += [f"service {name}: {problem}" for problem in check(name, service, stack)]
    return [*found, *_dockerfile(stack, repo), *_provisioning(stack, repo), *_scrapes(stack, repo)]


def parts(repo: Path) -> dict[str, list[Path]]:
    """Give what the image has below /opt/stack, by the volume that init copies it to."""
    text = (repo / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) /opt/stack/(\w+)", text, re.MULTILINE)
    return {f"config-{part}": [repo / name for name in names.split()] for names, part in copied}


def _image(name: str, service: Service, stack: Stack) -> Iterator[str]:
    image = service.get("image", "")
    built = {one["image"] for one in stack["services"].values() if "build" in one}
    if image in built and not image.endswith(f":{__version__}"):
        yield f"image {image} has not the version of the package, {__version__}"
    if image not in built and not PINNED.fullmatch(image):
        yield f"image {image!r} is no name with a whole version and a digest"
    if "build" not in service and image in built and service.get("pull_policy") != "never":
        yield f"image {image} is built here, but might be pulled"
    if "build" not in service and image not in built and "/" not in image:
        yield f"image {image} is built by no service"


def _hardening(name: str, service: Service, stack: Stack) -> Iterator[str]:
    if not NUMBER_OF_NOBODY_SPECIAL.fullmatch(service.get("user", "")):
        yield f"user {service.get('user')!r} is root, or no number"
    if service.get("read_only") is not True:
        yield "root file system can be written"
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges"
    if service.get("privileged") or service.get("network_mode") == "host":
        yield "is privileged, or on the host's network"
    for limit in LIMITS:
        if not service.get(limit):
            yield f"has no {limit}"


def _health(name: str, service: Service, stack: Stack) -> Iterator[str]:
    check = service.get("healthcheck", {})
    if name == ONE_SHOT:
        if service.get("restart") != "no":
            yield "runs once, and is restarted"
    elif check.get("test", ["NONE"]) == ["NONE"] or check.get("disable"):
        yield "has no health check"
    elif service.get("restart") != "unless-stopped":
        yield "is not restarted"


def _ports(name: str, service: Service, stack: Stack) -> Iterator[str]:
    for port in service.get("ports", []):
        if port.get("host_ip") != "127.0.0.1":
            yield f"port {port['published']} is open beyond 127.0.0.1"


def _mounts(name: str, service: Service, stack: Stack) -> Iterator[str]:
    for mount in service.get("volumes", []):
        source = mount["source"]
        if mount["type"] == "bind":
            yield from _bind_faults(mount)
        kept = source.startswith(("secrets-", "config-")) and name != ONE_SHOT
        if (kept or mount["type"] == "bind") and not mount.get("read_only"):
            yield f"may write to {source}"
        if kept and source.startswith("config-") and not mount["volume"].get("nocopy"):
            yield f"fills {source} from its own image, before init can"
        if source.startswith("config-") and source not in stack["parts"]:
            yield f"the image has no files for {source}"
    if service.get("secrets"):
        yield "uses secrets, which a read-only service is refused at its start unless from files"


def _bind_faults(mount: dict[str, Any]) -> Iterator[str]:
    source = Path(mount["source"])
    yield f"reads {source}, which a checkout under umask 077 keeps from it"
    if not source.exists():
        yield f"bind source {source} does not exist"
    if source.is_file():
        yield f"mounts the single file {source}: a new one in its place is not seen"
    if mount.get("bind", {}).get("selinux") != "z":
        yield f"SELinux keeps it from {source}: no z"
    if source.name == "docker.sock":
        yield "holds the engine's socket"


def _environment(name: str, service: Service, stack: Stack) -> Iterator[str]:
    for variable, value in (service.get("environment") or {}).items():
        if SECRET_NAME.search(variable) and not variable.endswith("FILE"):
            yield f"variable {variable} holds a secret"
        if variable.endswith(("_FILE", "_PATH")) and not mounted(service, value, stack):
            yield f"variable {variable}: nothing is mounted at {value}"


def mounted(service: Service, path: str, stack: Stack) -> Path | str | None:
    """Give what is at a path in a service: a file of ours, the name of a volume, or None."""
    for mount in service.get("volumes", []):
        if not f"{path}/".startswith(f"{mount['target']}/"):
            continue
        (root, *_) = stack["parts"].get(mount["source"], [None])
        if root is None:
            return str(mount["source"])
        found = (root if root.is_dir() else root.parent) / Path(path).relative_to(mount["target"])
        return found if found.exists() else None
    return None


def _dependencies(name: str, service: Service, stack: Stack) -> Iterator[str]:
    for other, how in service.get("depends_on", {}).items():
        good = "service_completed_successfully" if other == ONE_SHOT else "service_healthy"
        if how["condition"] != good:
            yield f"waits for {other} only until {how['condition']}"
    volumes = {mount["source"] for mount in service.get("volumes", [])}
    reads = any(volume.startswith("secrets-") for volume in volumes) and name != ONE_SHOT
    if reads and not _comes_after(name, ONE_SHOT, stack):
        yield "reads secrets, and does not wait for init"


def _comes_after(name: str, other: str, stack: Stack) -> bool:
    before = stack["services"][name].get("depends_on", {})
    return other in before or any(_comes_after(one, other, stack) for one in before)


def _dockerfile(stack: Stack, repo: Path) -> Iterator[str]:
    text = (repo / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)
    for name, service in stack["services"].items():
        target = service.get("build", {}).get("target")
        if target and target not in stages:
            yield f"service {name}: the Dockerfile has no stage {target}"
    for stage in ("demo", "exporter"):
        if stage in stages:
            yield from _final_stage(stage, text)
    yield from _whole_dockerfile(text)
    yield from _python_versions(repo)


def _final_stage(stage: str, text: str) -> Iterator[str]:
    lines = re.split(r"^FROM ", text.partition(f" AS {stage}\n")[2], flags=re.MULTILINE)[0]
    for wanted in ("USER 10001:10001", "HEALTHCHECK "):
        if wanted not in lines:
            yield f"Dockerfile, stage {stage}: no {wanted.strip()}"
    if stage == "exporter" and (LISTENS not in lines or "\nCMD " in lines):
        yield f"Dockerfile, stage {stage}: where it listens is lost with the first argument"


def _whole_dockerfile(text: str) -> Iterator[str]:
    base = re.search(r"^ARG PYTHON=(\S+)", text, re.MULTILINE)
    if base is None or not PINNED.fullmatch(base[1]):
        yield "Dockerfile: the base image is not pinned"
    installs = r"pip (?:--python \S+ )?install (?!--require-hashes)([^\n]*)"
    for missing in set(re.findall(installs, text)):
        if missing != "--no-deps --no-index /dist/*.whl":
            yield f"Dockerfile: installs without hashes: {missing}"
    if "pip wheel --no-deps --no-build-isolation " not in text:
        yield "Dockerfile: what builds the package is installed without hashes"
    if "pip uninstall" not in text:
        yield "Dockerfile: pip is left in the images"
    if f'org.opencontainers.image.version="{__version__}"' not in text:
        yield f"Dockerfile: the label has not the version of the package, {__version__}"


def _python_versions(repo: Path) -> Iterator[str]:
    for name in ("Dockerfile", "docker-compose.yml"):
        for path in OF_PYTHON.findall((repo / name).read_text()):
            yield f"{name}: a path with the version of Python in it, {path}"


def _provisioning(stack: Stack, repo: Path) -> Iterator[str]:
    grafana = stack["services"]["grafana"]
    if mounted(grafana, "/etc/grafana/provisioning", stack) is None:
        yield "service grafana: the provisioning is not mounted"
    folder = repo / "grafana" / "provisioning"
    for source in yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]:
        yield from (f"data source: {problem}" for problem in _address(source["url"], stack))
        if not source.get("isDefault"):
            yield "data source: is not the default, which the dashboard opens with"
    path = folder / "dashboards" / "hub-idle-exporter.yml"
    for provider in yaml.safe_load(path.read_text())["providers"]:
        served = mounted(grafana, provider["options"]["path"], stack)
        if not isinstance(served, Path) or not list(served.glob("*.json")):
            yield f"provider: no dashboards at {provider['options']['path']}"


def _scrapes(stack: Stack, repo: Path) -> Iterator[str]:
    configuration = yaml.safe_load((repo / "prometheus" / "prometheus.yml").read_text())
    for job in configuration["scrape_configs"]:
        for group in job["static_configs"]:
            for target in group["targets"]:
                where = f"scrape job {job['job_name']}"
                own = target.replace("localhost:", "prometheus:")
                yield from (f"{where}: {problem}" for problem in _address(f"http://{own}", stack))
    if configuration.get("rule_files") != ["rules.yml"]:
        yield "prometheus.yml: the rules are not loaded"


def _address(url: str, stack: Stack) -> Iterator[str]:
    """Find addresses at which no service of the stack listens."""
    address = urlsplit(url)
    service = stack["services"].get(address.hostname)
    if service is None:
        yield f"{url}: there is no service {address.hostname}"
    elif address.port not in {port["target"] for port in service.get("ports", [])}:
        yield f"{url}: service {address.hostname} has no port {address.port}"
