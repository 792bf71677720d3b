"""What a Prometheus scrapes: gauges that a test sets.

with ScrapeTarget() as target:
    target.says("ana", 0)
    PrometheusServer(path, directory, {"job": Scraped(target.address)})
"""

import time

from fake_hub import HttpFake, Reply, Request, reply

_BY_ITSELF, _STAMPED = "busy", "busy_stamped"


class ScrapeTarget(HttpFake):
    """Serves `busy` by user and server, and the same with a time of its own as `busy_stamped`.

    cAdvisor sends such times. Prometheus does not notice when series with them end.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], float] = {}
        super().__init__()

    @property
    def address(self) -> str:
        """Where it is scraped."""
        return f"127.0.0.1:{self.port}"

    def says(self, user: str, value: float, server: str = "") -> None:
        """Set a value."""
        self._values[user, server] = value

    def answer(self, request: Request) -> Reply:
        lines = []
        stamp = int(time.time() * 1000)
        for (user, server), value in self._values.items():
            labels = f'{{user="{user}",server="{server}"}} {value}'
            lines += [f"{_BY_ITSELF}{labels}", f"{_STAMPED}{labels} {stamp}"]
        return reply(200, "\n".join([*lines, ""]), Content_Type="text/plain; version=0.0.4")
