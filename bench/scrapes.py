"""How long a scrape of /metrics takes while the exporter does other things."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from exporter_process import Exporter

from .figures import quantile
from .hubs import Address, large_hub

# As Prometheus asks.
SCRAPE = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}
PLAIN = SCRAPE | {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Plan:
    """Servers on the Hub, and seconds of scraping in each situation."""

    servers: int
    seconds: float
    stoppable: int


FULL = Plan(10_000, 12.0, 400)
QUICK = Plan(10_000, 4.0, 200)


def latencies(plan: Plan) -> list[dict[str, Any]]:
    """Scrape in every situation; times in seconds."""
    found = []
    for per_server in (False, True):
        options = ["--per-server-metrics"] if per_server else []
        with large_hub(plan.servers) as hub:
            with exporter(hub, ["--interval=1h", *options]) as running:
                say = {"per_server": per_server}
                found.append(say | {"while": "at rest", **scrape(running, plan.seconds / 2)})
                if not per_server:
                    found.append({**say, "while": "50 at once", **crowd(running, 50)})
            with exporter(hub, ["--interval=1s", *options]) as running:
                found.append(
                    say | {"while": "polling every second", **scrape(running, plan.seconds)}
                )
    found.append({"per_server": False, "while": "culling", **while_culling(plan)})
    return found


def while_culling(plan: Plan) -> dict[str, Any]:
    """Scrape while hundreds of servers are stopped on a Hub that is polled every second."""
    options = ["--enforce", "--grace=0", "--interval=1s", "--timeout=1h"]
    with (
        large_hub(1_000, idle_share=0.0, stoppable=plan.stoppable) as hub,
        exporter(hub, options) as running,
    ):
        found = scrape(running, plan.seconds)
        stopped = running.metrics().value("hub_idle_exporter_culls_total")
    return {**found, "stopped_meanwhile": stopped}


@contextmanager
def exporter(hub: Address, options: list[str]) -> Iterator[Exporter]:
    """Run the exporter and wait for its first good poll."""
    with Exporter(hub.url, hub.token, options) as running:
        running.wait_event("poll_succeeded", timeout=60)
        yield running


def scrape(running: Exporter, seconds: float) -> dict[str, Any]:
    """Scrape again and again, and ask for `/-/healthy` in between: the floor."""
    metrics, floor = list[float](), list[float]()
    deadline = time.monotonic() + seconds
    with connection(running) as ask:
        first = ask("/metrics")  # in this format; the facts are rendered now
        while time.monotonic() < deadline:
            metrics.append(ask("/metrics"))
            floor.append(ask("/-/healthy"))
            time.sleep(0.002)
    size = len(requests.get(f"{running.address}/metrics", headers=PLAIN, timeout=60).content)
    sizes = {"size": size, "compressed": ask.size}
    return {**_summary(metrics), **sizes, "first": first, "floor_p50": quantile(sorted(floor), 0.5),
            "floor_p99": quantile(sorted(floor), 0.99)}  # fmt: skip


def crowd(running: Exporter, scrapers: int) -> dict[str, Any]:
    """Let many scrape at the same moment, again and again: each waits for those before it."""
    metrics, start = list[float](), threading.Barrier(scrapers)

    def work() -> None:
        with connection(running) as ask:
            for _ in range(10):
                start.wait(60)
                metrics.append(ask("/metrics"))

    threads = [threading.Thread(target=work) for _ in range(scrapers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _summary(metrics)


class Connection:
    """A connection that is kept, as Prometheus does; asking returns the seconds it took."""

    def __init__(self, running: Exporter) -> None:
        self._kept = http.client.HTTPConnection(urlsplit(running.address).netloc, timeout=60)
        self.size = 0  # of the last answer to /metrics, in bytes

    def __call__(self, path: str) -> float:
        begun = time.perf_counter()
        self._kept.request("GET", path, headers=SCRAPE)
        answer = self._kept.getresponse()
        body = answer.read()
        took = time.perf_counter() - begun
        assert answer.status == 200, answer.status
        if path == "/metrics":
            self.size = len(body)
        return took


@contextmanager
def connection(running: Exporter) -> Iterator[Connection]:
    """Keep one connection."""
    kept = Connection(running)
    try:
        yield kept
    finally:
        kept._kept.close()


def _summary(seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    return {
        "p50": quantile(ordered, 0.5),
        "p99": quantile(ordered, 0.99),
        "most": ordered[-1],
        "count": len(ordered),
    }
