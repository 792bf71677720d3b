"""A real process-exporter, with the configuration of a page.

with ProcessExporter(path, directory, configuration) as processes:
    PrometheusServer(path, directory, {"processes": Scraped(processes.address)})
"""

from pathlib import Path

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
