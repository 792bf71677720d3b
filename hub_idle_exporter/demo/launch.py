"""Start a real JupyterHub in one directory, and remove every process of it afterwards.

    with LocalHub(directory, "c.JupyterHub.authenticator_class = 'dummy'") as hub:
        requests.get(f"{hub.api_url}/")     # {"version": ...}

The Hub, its proxy, its managed services and its single-user servers run in sessions of their
own, so neither a Ctrl-C on the terminal nor a signal to the Hub's process group reaches them all.
What they share is `PATH`, which JupyterHub passes to everything it starts. It begins with a folder
of this Hub, and by that its processes are found and ended. Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import requests

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

_HOST = "127.0.0.1"
_PROXY = "from configurable_http_proxy.cli import main; main()"
# Below the ephemeral ports of Linux and macOS: after a while down, a Hub finds its ports still
# free.
_PORTS = range(20_000, 32_000)
# Variables of a Hub around us (we may run in a JupyterHub terminal) that ours must not get.
_FOREIGN = ("JUPYTER", "JPY_", "CONFIGPROXY_", "HUB_IDLE_EXPORTER_", "IPYTHON", "XDG_")
_POLL_SECONDS = 0.05


class LaunchError(Exception):
    """The Hub did not start; the message has the end of its log."""


@dataclass(frozen=True)
class Ports:
    """The three ports of one Hub: users' (proxy), the Hub's own, the proxy's REST API."""

    public: int
    hub: int
    proxy_api: int

    @classmethod
    def free(cls) -> Self:
        """Pick three that are free now."""
        return cls(*free_ports(3))


def free_ports(count: int) -> list[int]:
    """Return that many TCP ports of 127.0.0.1 that are free now; no other caller gets them."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_HOST, port))
            _reserve(port)
            found.append(port)
    return found


# A Hub opens its ports seconds after they were chosen; until then others could choose them too.
_reserved: list[socket.socket] = []


def _reserve(port: int) -> None:
    """Keep a port for this process, among those that ask here; raise OSError if it is taken."""
    if sys.platform == "linux":  # elsewhere there are no names of sockets apart from files
        held = socket.socket(socket.AF_UNIX)
        _reserved.append(held)
        held.bind(f"\0hub-idle-exporter/port/{port}")


class LocalHub:
    """One JupyterHub on this machine; it can be started and stopped any number of times.

    Args:
        directory: working directory of the Hub, created if missing: database, cookie secret, log
            (`jupyterhub.log`, appended to). One directory per Hub: a Hub restarted in it, even by
            another `LocalHub`, is the same Hub.
        config: a configuration file, or the text of one. Ports, the proxy's command, the
            database in `directory` and, for root, the servers' `--allow-root` are set before
            it is read, so it may override them.
        python: the interpreter that has `jupyterhub` and `configurable-http-proxy`.
        environment: added to the Hub's environment (its services and servers see only what
            the configuration passes on).
        ports: where to listen; free ports by default, kept across restarts.
        base_url: `JupyterHub.base_url`, with a slash at both ends.
    """

    def __init__(
        self,
        directory: Path,
        config: Path | str,
        *,
        python: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
        ports: Ports | None = None,
        base_url: str = "/",
    ) -> None:
        self.directory = directory.resolve()
        self.python = str(Path(python).absolute())  # not resolved: venvs are links
        self.ports = ports or Ports.free()
        self.base_url = base_url
        self.log_path = self.directory / "jupyterhub.log"
        self.database_path = self.directory / "jupyterhub.sqlite"
        self._config = config
        self._mark = self.directory / "bin"
        # The Hub's environment; any other process started with it is ended with the Hub.
        self.environment = self._clean_environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def api_url(self) -> str:
        """The Hub's API as its services see it."""
        return f"http://{_HOST}:{self.ports.hub}{self.base_url}hub/api"

    @property
    def public_url(self) -> str:
        """The public address, through the proxy; ends with a slash."""
        return f"http://{_HOST}:{self.ports.public}{self.base_url}"

    @property
    def pid(self) -> int | None:
        """Process id of the Hub itself, None if it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def log_tail(self, lines: int = 25) -> str:
        """Return the end of the Hub's log."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def start(self, timeout: float = 60) -> None:
        """Start the Hub and return when it answers, directly and through its proxy.

        Raises:
            LaunchError: it ended, or did not answer within `timeout` seconds. Nothing is left.
        """
        if self.pid is not None:
            raise LaunchError(f"the Hub in {self.directory} is already running (pid {self.pid})")
        self._spawn()
        try:
            self._wait_until_ready(time.monotonic() + timeout)
        except BaseException:
            self.stop(grace=0)
            raise

    def stop(self, grace: float = 20) -> None:
        """End the Hub with SIGTERM (SIGKILL after `grace` s), then the rest of its processes."""
        self.stop_hub(grace)
        self._sweep(grace=3)

    def stop_hub(self, grace: float = 20) -> None:
        """End only the Hub (SIGTERM, SIGKILL after `grace` s); it stops its own processes."""
        self._signal_hub(signal.SIGTERM if grace else signal.SIGKILL)
        if self._process is not None:
            try:
                self._process.wait(grace or None)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill only the Hub, with SIGKILL: services, servers and the proxy keep running."""
        self._signal_hub(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """All processes of this Hub: itself, proxy, services, servers, kernels, terminals."""
        tree = {process for process in psutil.process_iter() if self._is_ours(process)}
        for process in list(tree):
            with contextlib.suppress(psutil.Error):
                tree.update(process.children(recursive=True))
        return sorted(tree, key=lambda process: process.pid)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _clean_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        paths = [self._mark, Path(self.python).parent, kept.get("PATH", os.defpath)]
        temporary = self.directory / "tmp"
        # The Python proxy stamps activity in local time, and the Hub reads that as UTC.
        return kept | {
            "PATH": os.pathsep.join(map(str, paths)),
            "TMPDIR": str(temporary),
            "TZ": "UTC",
        }

    def _spawn(self) -> None:
        for folder in (self._mark, self.directory / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self.python, "-m", "jupyterhub", "--config", str(self._write_config())],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _write_config(self) -> Path:
        """Write our own settings, which then load the caller's configuration."""
        caller = self.directory / "jupyterhub_config.py"
        if isinstance(self._config, str):
            caller.write_text(self._config)
        else:
            caller = self._config.resolve()
        path = self.directory / "launch_config.py"
        path.write_text(
            "c = get_config()\n"
            f"c.JupyterHub.ip = c.JupyterHub.hub_ip = {_HOST!r}\n"
            f"c.JupyterHub.port = {self.ports.public}\n"
            f"c.JupyterHub.hub_port = {self.ports.hub}\n"
            f"c.JupyterHub.base_url = {self.base_url!r}\n"
            f"c.JupyterHub.db_url = {'sqlite:///' + str(self.database_path)!r}\n"
            f"c.ConfigurableHTTPProxy.api_url = 'http://{_HOST}:{self.ports.proxy_api}'\n"
            f"c.ConfigurableHTTPProxy.command = {[self.python, '-c', _PROXY]!r}\n"
            f"c.Spawner.args = {self._server_arguments()!r}\n"
            f"load_subconfig({str(caller)!r})\n"
        )
        return path

    def _server_arguments(self) -> list[str]:
        """Return `--allow-root` for root: a user's server refuses to run as root without it."""
        return ["--allow-root"] if os.geteuid() == 0 else []

    def _wait_until_ready(self, deadline: float) -> None:
        for url in (f"{self.api_url}/", f"{self.public_url}hub/api/"):
            while not _answers(url):
                if self.pid is None:
                    raise LaunchError(f"The Hub ended while starting. Its log:\n{self.log_tail()}")
                if time.monotonic() > deadline:
                    raise LaunchError(
                        f"The Hub did not answer in time. Its log:\n{self.log_tail()}"
                    )
                time.sleep(_POLL_SECONDS)

    def _signal_hub(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            path: str = process.environ().get("PATH", "")
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            return False
        return path.split(os.pathsep)[0] == str(self._mark)

    def _sweep(self, grace: float) -> None:
        """End what is left: SIGTERM first, then SIGKILL until no process remains."""
        leftover = self.processes()
        for process in leftover:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(leftover, timeout=grace)
        while leftover := self.processes():
            for process in leftover:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(leftover, timeout=1)


def _answers(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False  # no proxy between us and this machine
        try:
            return bool(session.get(url, timeout=2).ok)
        except requests.RequestException:
            return False
