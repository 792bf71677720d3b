"""A Docker engine for the tests, of their own: the one of this machine has work of its own.

    with docker_engine() as engine:
        engine.import_base(root, folder)    # as PYTHON, what stands for `python:3.14-slim`
        engine.docker("build", "--tag=mine", ".")

It needs root and dockerd. Everything of it is in one folder and on bridges of its own, and it
leaves iptables alone. So its containers reach this machine and each other and nothing
beyond; what they build uses this machine's network.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEBIAN, PYTHON = "hub-idle-exporter-tests/debian:forky", "hub-idle-exporter-tests/python:3.14"
BASE_PACKAGES = ("ca-certificates", "python3.14")  # those of tools/pythons.py: one Debian for both
NOT_IN_IMAGES = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache", "var/lib/apt")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # whom this machine trusts
AS_PYTHONS_IMAGE = f"""
FROM {DEBIAN}
COPY {CERTIFICATES.name} {CERTIFICATES}
COPY pip-*.whl /tmp/
RUN ln -s python3.14 /usr/bin/python3 && ln -s python3.14 /usr/bin/python \\
    && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED \\
    && wheel=$(ls /tmp/pip-*.whl) \\
    && python "$wheel/pip" install --no-index --root-user-action=ignore "$wheel"
"""
# The client that comes with dockerd builds by BuildKit; a newer one needs a plugin for that.
OF_DOCKERD = Path("/usr/bin/docker")


class NoEngineError(Exception):
    """No engine can be started; the text says why, in one line."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers.

    Args:
        client: the program `docker`.
        variables: by which any client finds the engine.
    """

    client: str
    variables: Mapping[str, str]

    def run(
        self, *command: str, directory: Path | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run any client of the engine."""
        return subprocess.run(
            command, cwd=directory, env=os.environ | dict(self.variables), timeout=timeout,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def docker(self, *arguments: str, directory: Path | None = None) -> str:
        """Return what `docker` prints; AssertionError with all it said if it fails."""
        finished = self.run(self.client, *arguments, directory=directory)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout.strip()

    def import_base(self, root: Path, folder: Path) -> None:
        """Make the image PYTHON of a Debian that has BASE_PACKAGES; `folder` is for its files."""
        unwanted = [f"--exclude=./{name}/*" for name in NOT_IN_IMAGES]
        pack = ["tar", "--numeric-owner", *unwanted, "-C", str(root), "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
            environment = os.environ | dict(self.variables)
            command = [self.client, "import", "-", DEBIAN]
            subprocess.run(
                command, stdin=packing.stdout, env=environment, check=True, capture_output=True
            )
        (folder / "Dockerfile").write_text(AS_PYTHONS_IMAGE)
        shutil.copy(CERTIFICATES, folder)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "pip"]
        subprocess.run(download, cwd=folder, check=True)
        self.docker("build", f"--tag={PYTHON}", ".", directory=folder)

    def state(self, container: str, wanted: str) -> str:
        """Return what the engine knows of a container, `Health.Status` say; "" if it has none."""
        asked = (self.client, "inspect", f"--format={{{{.State.{wanted}}}}}", container)
        return self.run(*asked).stdout.strip()

    def wait(self, holds: Callable[[], object], timeout: float, what: str) -> None:
        """Poll until something holds; AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, f"not {what} in {timeout} s"
            time.sleep(0.5)  # each question starts a client


def _answers(client: str, variables: Mapping[str, str]) -> bool:
    asked = [client, "version", "--format={{.Server.Version}}"]
    environment = os.environ | dict(variables)
    return subprocess.run(asked, env=environment, capture_output=True, check=False).returncode == 0


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """Start an engine; end it, with all that was made in it.

    Raises:
        NoEngineError: none can be started.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None or not OF_DOCKERD.exists():
        raise NoEngineError("to start a Docker engine needs root and Debian's docker.io")
    folder = Path(tempfile.mkdtemp(prefix="hie-", dir="/tmp"))  # a socket's path must be short
    network = f"10.{secrets.choice(range(100, 250))}.{secrets.choice(range(256))}"
    bridge = folder.name
    _ip("link", "add", bridge, "type", "bridge")
    _ip("address", "add", f"{network}.1/25", "dev", bridge)
    _ip("link", "set", bridge, "up")
    variables = {"DOCKER_HOST": f"unix://{folder}/socket", "DOCKER_BUILDKIT": "1"}
    try:
        with _dockerd(folder, bridge, f"base={network}.128/25,size=28", variables):
            yield Engine(str(OF_DOCKERD), variables)
    finally:
        _ip("link", "delete", bridge)
        _sweep(folder)


@contextmanager
def _dockerd(folder: Path, bridge: str, pool: str, variables: Mapping[str, str]) -> Iterator[None]:
    command = [
        "dockerd", "--iptables=false", "--ip6tables=false",
        f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid",
        f"--host={variables['DOCKER_HOST']}", f"--bridge={bridge}",
        f"--default-address-pool={pool}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not _answers(str(OF_DOCKERD), variables):
            tail = (folder / "log").read_text(errors="replace")[-2000:]
            assert daemon.poll() is None, f"dockerd ended:\n{tail}"
            assert time.monotonic() < deadline, f"dockerd does not answer:\n{tail}"
            time.sleep(0.1)
        yield
    finally:
        _end_containers(variables)
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)


def _end_containers(variables: Mapping[str, str]) -> None:
    """Remove what a test that failed has left, with its networks."""
    engine = Engine(str(OF_DOCKERD), variables)
    for listing, removal in (
        (("ps", "--all", "--quiet"), ("rm", "--force", "--volumes")),
        (("network", "ls", "--quiet", "--filter=type=custom"), ("network", "rm")),
    ):
        found = engine.run(engine.client, *listing).stdout.split()
        if found:
            engine.run(engine.client, *removal, *found)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _sweep(folder: Path) -> None:
    """Unmount what is left below, innermost first, and remove the folder."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)
