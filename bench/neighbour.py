"""Somebody else at the Hub: a small request every 10 ms, and how long each answer took.

    python -m bench.neighbour URL

A line begins, the next one ends, and is answered with when each request was sent, by the machine's
monotonic clock, and the seconds it took, as JSON.
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
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Neighbour:
    """Asks for the Hub's version, over connections of its own that stay open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._request = f"GET {parts.path}/ HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._free: list[_Streams] = []
        self.waits: list[tuple[float, float]] = []

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Ask until it is over, and wait for the last answers."""
        for _ in range(_CONNECTIONS):
            self._free.append(await asyncio.open_connection(self._host, self._port))
        asking = set[asyncio.Task[None]]()
        due = time.monotonic()
        while not is_over():
            # With all connections waiting, a request is late; so many are enough for 0.6 s.
            if self._free:
                asking.add(task := asyncio.create_task(self._ask(self._free.pop())))
                task.add_done_callback(asking.discard)
            due += EVERY
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*asking)
        for _, writer in self._free:
            writer.close()

    async def _ask(self, streams: _Streams) -> None:
        reader, writer = streams
        begun = time.monotonic()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        self.waits.append((begun, time.monotonic() - begun))
        self._free.append(streams)


def main() -> None:
    """Ask from each line of standard input to the next."""
    while sys.stdin.readline():
        neighbour, over = Neighbour(sys.argv[1]), threading.Event()
        asking = threading.Thread(target=asyncio.run, args=[neighbour.run(over.is_set)])
        asking.start()
        sys.stdin.readline()
        over.set()
        asking.join()
        print(json.dumps(neighbour.waits), flush=True)


if __name__ == "__main__":
    main()
