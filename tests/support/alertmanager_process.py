"""A real Alertmanager with a configuration of one's own, in a folder of its own.

with AlertmanagerServer(program, directory, configuration) as alertmanager:
    alertmanager.alerts()
"""

from pathlib import Path
from typing import Any

import yaml
from server_process import ServerProcess


class AlertmanagerServer(ServerProcess):
    """Alertmanager, alone: no cluster.

    Args:
        program: path of `alertmanager`.
        directory: where its configuration, data and log are.
        configuration: the configuration, as a mapping.
    """

    def __init__(self, program: str, directory: Path, configuration: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(configuration))
        options = ("--config.file=alertmanager.yml", "--storage.path=data")
        super().__init__(program, directory, [*options, "--cluster.listen-address="])

    def alerts(self) -> list[dict[str, str]]:
        """Give the labels of the alerts that it takes to be firing."""
        answer = self._session.get(f"{self.url}/api/v2/alerts", timeout=10)
        return [alert["labels"] for alert in answer.json()]
