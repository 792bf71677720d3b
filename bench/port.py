"""How long `/metrics` and `/-/healthy` take while hundreds of clients send slowly, or not at all.

    python -m bench.port http://127.0.0.1:9899      measures an exporter that runs already

Each question comes on a new connection, as a kubelet's does. The crowd is a process of its own:
some of its clients drip a request byte by byte, the others say nothing, and each connects again
when it is cut.
"""

import asyncio
import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from .figures import quantile
from .hubs import large_hub
from .scrapes import exporter

PATHS = ("/metrics", "/-/healthy")
_DRIP_SECONDS = 0.2
_PATIENCE = 30.0


@dataclass(frozen=True)
class Plan:
    """Servers on the Hub, clients that drip and that are silent, seconds of asking."""

    servers: int
    dripping: int
    silent: int
    seconds: float


FULL = Plan(1_000, 300, 600, 20.0)
QUICK = Plan(1_000, 300, 600, 6.0)


def crowded(plan: Plan) -> list[dict[str, Any]]:
    """Ask at rest, and among the crowd."""
    with large_hub(plan.servers) as hub, exporter(hub, ["--interval=5s"]) as running:
        process = psutil.Process(running.process.pid)
        return [
            measured(running.address, plan, crowd, process)
            for crowd in ((0, 0), (plan.dripping, plan.silent))
        ]


def measured(
    address: str, plan: Plan, crowd: tuple[int, int], process: psutil.Process | None = None
) -> dict[str, Any]:
    """Ask for so many seconds; times in seconds."""
    found: dict[str, list[float]] = {path: [] for path in PATHS}
    with clients(address, *crowd):
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until:
            for path, times in found.items():
                times.append(seconds_of(address, path))
            time.sleep(0.01)
        memory = process.memory_info().rss / 1e6 if process else None
    summary = {path: _summary(sorted(times)) for path, times in found.items()}
    return {"dripping": crowd[0], "silent": crowd[1], "memory_mb": memory, **summary}


def _summary(ordered: list[float]) -> dict[str, Any]:
    return {
        "p50": quantile(ordered, 0.5),
        "p99": quantile(ordered, 0.99),
        "most": ordered[-1],
        "count": len(ordered),
    }


def seconds_of(address: str, path: str) -> float:
    """Ask on a new connection; return the seconds, those of our patience if there is no answer."""
    begun = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return _PATIENCE
    finally:
        connection.close()
    return time.perf_counter() - begun


@contextmanager
def clients(address: str, dripping: int, silent: int) -> Iterator[None]:
    """Run the crowd."""
    command = [sys.executable, "-m", "bench.port", address, str(dripping), str(silent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


async def _crowd(address: str, dripping: int, silent: int) -> None:
    here = urlsplit(address)
    connected = asyncio.Semaphore(0)

    async def client(drips: bool) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(here.hostname, here.port)
                connected.release()
                await (_drip(writer) if drips else reader.read(1))
                writer.close()
            await asyncio.sleep(0.01)

    _clients = [
        asyncio.create_task(client(number < dripping)) for number in range(dripping + silent)
    ]
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_all_of(connected, len(_clients)), 10)
    print("connected", flush=True)
    await asyncio.Event().wait()


async def _all_of(connected: asyncio.Semaphore, number: int) -> None:
    for _ in range(number):
        await connected.acquire()


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Send a long head at once, but its end byte by byte: it is searched for its end each time."""
    writer.write(b"GET /metrics HTTP/1.1\r\nX-Slow: " + b"x" * 7_000)
    for _ in range(1_000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(_DRIP_SECONDS)


def main() -> None:
    """Be the crowd, or measure an exporter that runs already."""
    address, *numbers = sys.argv[1:]
    if numbers:
        dripping, silent = map(int, numbers)
        asyncio.run(_crowd(address, dripping, silent))
    for crowd in ((0, 0), (12, 0), (40, 0), (FULL.dripping, FULL.silent)):
        print(measured(address, QUICK, crowd), flush=True)


if __name__ == "__main__":
    main()
