"""Somebody else at the Hub: a small request every 10 ms, and how long each answer took.

    python -m bench.neighbour URL

A line begins, the next one ends, and is answered with the waits in seconds, as JSON.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

EVERY = 0.010  # seconds between two requests, whatever became of the ones before
_CONNECTIONS = 64


class Neighbour:
    """Asks for the Hub's version, over connections of its own that stay open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._request = (f"GET {parts.path}/ HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n").encode()
        self.waits: list[float] = []

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Ask until it is over, and wait for the last answers."""
        self.waits = []
        free = [
            await asyncio.open_connection(self._host, self._port) for _ in range(_CONNECTIONS)
        ]
        asking = set[asyncio.Task[None]]()
        due = time.perf_counter()
        while not is_over():
            asking.add(task := asyncio.create_task(self._ask(*free.pop(0), free)))
            task.add_done_callback(asking.discard)
            due += EVERY
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await asyncio.gather(*asking)
        for _, writer in free:
            writer.close()

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    ) -> None:
        begun = time.perf_counter()
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        await reader.readexactly(length)
        self.waits.append(time.perf_counter() - begun)
        free.append((reader, writer))


def main() -> None:
    """Ask from each line of standard input to the next."""
    neighbour = Neighbour(sys.argv[1])
    while sys.stdin.readline():
        over = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(neighbour.run(over.is_set)))  # noqa: B023
        thread.start()
        sys.stdin.readline()
        over.set()
        thread.join()
        print(json.dumps(neighbour.waits), flush=True)


if __name__ == "__main__":
    main()
