"""A real Alertmanager with a configuration of one's own, in a folder of its own.

with AlertmanagerServer(program, directory, configuration) as alertmanager:
    alertmanager.alerts()
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml
from prometheus_process import wait_until

from hub_idle_exporter.demo.launch import free_ports

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on


class AlertmanagerServer:
    """Alertmanager, alone: no cluster.

    Args:
        program: path of `alertmanager`.
        directory: where its configuration, data and log are.
        configuration: the configuration, as a mapping.
    """

    def __init__(self, program: str, directory: Path, configuration: dict[str, Any]) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(configuration))
        self._session = requests.Session()
        self._session.trust_env = False
        self._log = (directory / "alertmanager.log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                "--config.file=alertmanager.yml",
                "--storage.path=data",
                f"--web.listen-address={self.address}",
                "--cluster.listen-address=",
            ],
            cwd=directory,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> "Self":
        try:
            wait_until(self._is_ready, 30, "Alertmanager ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._session.close()

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """Poll until something holds."""
        wait_until(holds, 60, what)

    def alerts(self) -> list[dict[str, str]]:
        """Give the labels of the alerts that it takes to be firing."""
        answer = self._session.get(f"http://{self.address}/api/v2/alerts", timeout=10)
        return [alert["labels"] for alert in answer.json()]

    def _is_ready(self) -> bool:
        try:
            return self._session.get(f"http://{self.address}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False
