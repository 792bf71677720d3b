"""A real Prometheus over a folder of its own.

with PrometheusServer(path, directory, {"job": "127.0.0.1:9899"}) as prometheus:
    prometheus.instant("sum(up)", at=time.time())
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from server_process import ServerProcess

Answer = list[dict[str, Any]]


@dataclass(frozen=True)
class Scraped:
    """One target; with a token where it wants one, and what else its configuration is to say."""

    address: str
    path: str = "/metrics"
    token: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    def configuration(self, job: str) -> dict[str, Any]:
        """Give the entry of `scrape_configs`."""
        job_configuration: dict[str, Any] = {
            "job_name": job,
            "metrics_path": self.path,
            "static_configs": [{"targets": [self.address]}],
        }
        if self.token:
            job_configuration["authorization"] = {"credentials": self.token}
        return job_configuration | dict(self.more)


class PrometheusServer(ServerProcess):
    """Prometheus, scraping and evaluating every second.

    Args:
        program: path of `prometheus`.
        directory: where its configuration, data and log are.
        jobs: job → what is scraped for it.
        rules: a file of rules.
        alertmanager: the address of the Alertmanager to which alerts are sent.
    """

    def __init__(
        self,
        program: str,
        directory: Path,
        jobs: Mapping[str, Scraped],
        rules: Path | None = None,
        alertmanager: str | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        configuration: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [what.configuration(job) for job, what in jobs.items()],
        }
        if alertmanager is not None:
            target = {"static_configs": [{"targets": [alertmanager]}]}
            configuration["alerting"] = {"alertmanagers": [target]}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data")
        super().__init__(program, directory, options)

    def get(self, path: str, **parameters: object) -> Any:
        """Give the data that its API answers; AssertionError with its error."""
        response = self._session.get(
            f"{self.url}/api/v1/{path}",
            params={name.rstrip("_"): str(value) for name, value in parameters.items()},
            timeout=30,
        )
        answer = response.json()
        assert answer["status"] == "success", f"{answer.get('error')}: {parameters}"
        return answer["data"]

    def instant(self, expression: str, at: float) -> Answer:
        """Ask at one moment: `metric` and `value` of each series."""
        found: Answer = self.get("query", query=expression, time=at)["result"]
        return found

    def over(self, expression: str, start: float, end: float) -> Answer:
        """Ask over time, every second: `metric` and `values` of each series."""
        asked = {"query": expression, "start": start, "end": end, "step": 1}
        found: Answer = self.get("query_range", **asked)["result"]
        return found
