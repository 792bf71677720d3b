"""A real process-exporter, with the configuration of a page.

with ProcessExporter(path, directory, configuration) as processes:
    PrometheusServer(path, directory, {"processes": Scraped(processes.address)})
"""

import re
from pathlib import Path

import requests
from server_process import ServerProcess


class ProcessExporter(ServerProcess):
    """Debian's `prometheus-process-exporter`; it looks at all processes of this machine.

    Args:
        program: its path.
        directory: where its configuration and log are.
        configuration: how it groups them.
    """

    def __init__(self, program: str, directory: Path, configuration: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "groups.yml").write_text(configuration)
        options = ("-config.path=groups.yml", "-recheck", "-threads=false", "-gather-smaps=false")
        super().__init__(program, directory, options)

    def _is_ready(self) -> bool:
        return self.groups() is not None

    def groups(self) -> set[str] | None:
        """Give the names of the groups that it has found; None before it answers."""
        try:
            metrics = self._session.get(f"{self.url}/metrics", timeout=5).text
        except requests.RequestException:
            return None
        return set(re.findall(r'num_procs{groupname="(.*)"}', metrics))
