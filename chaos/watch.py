"""See what is written into a file a few milliseconds after it was."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

# Between the last question to a server and its stop lie some ten milliseconds.
LOOK_SECONDS = 0.003


class Tail:
    """The lines of a file that grows; complete ones only."""

    def __init__(self, path: Path) -> None:
        self._path, self._position = path, 0

    def lines(self) -> Iterator[str]:
        """Yield the lines written since the last call."""
        if not self._path.exists() or self._path.stat().st_size == self._position:
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._position += len(complete) + len(newline)
        for line in complete.splitlines():
            yield line.decode(errors="replace")


class Watch:
    """Calls `tell` with each new line of a file, on a thread of its own, until closed."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._tail, self._tell = Tail(path), tell
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{path.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            for line in self._tail.lines():
                self._tell(line)

    def close(self) -> None:
        """End the thread; what was written before has been told."""
        self._closing.set()
        self._thread.join(10)
        for line in self._tail.lines():
            self._tell(line)
