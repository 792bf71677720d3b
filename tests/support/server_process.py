"""A server of its own for a test, in a folder of its own: started, waited for, and ended."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from hub_idle_exporter.demo.launch import free_ports

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on


def wait_until(holds: Callable[[], object], timeout: float, what: str) -> None:
    """Poll until something holds; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not {what} within {timeout} s"
        time.sleep(0.1)


def end(process: "subprocess.Popen[Any]", patience: float) -> None:
    """End a process; by force if it has not ended within so many seconds."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ServerProcess:
    """A program of Prometheus' family: it listens on a free port, and says when it is ready.

    Args:
        program: its path.
        directory: where its data and its log are.
        options: its command line, without the address.
    """

    def __init__(self, program: str, directory: Path, options: Sequence[str]) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        self._session = requests.Session()
        self._session.trust_env = False
        self._log = (directory / "server.log").open("wb")
        self._directory = directory
        self._command = [program, *options, f"--web.listen-address={self.address}"]
        self._process = self._launched()

    def _launched(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command, cwd=self._directory, stdout=self._log, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> "Self":
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def _wait_ready(self) -> None:
        self.wait(self._is_ready, 30, f"{type(self).__name__} ready")

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        end(self._process, patience=20)
        self._log.close()
        self._session.close()

    def kill(self) -> None:
        """End it as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill it, and start it again: at the same address, over what it has written."""
        self.kill()
        self._process = self._launched()
        self._wait_ready()

    def pause(self) -> None:
        """Let it accept connections, and answer nothing, until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, holds: Callable[[], object], timeout: float, what: str) -> None:
        """Poll until something holds; AssertionError after `timeout` seconds."""
        wait_until(holds, timeout, what)

    def _is_ready(self) -> bool:
        try:
            return self._session.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False
