"""How long each way in takes: from nothing to the first scrape and the first verified cull.

A test that follows a page of docs/ from nothing opens a `WayIn` and says when it got so far.
`make ways` runs these tests alone and prints the table; other runs only test.
"""

import json
import os
import time
from pathlib import Path
from types import TracebackType

# Where the times go: a file with one JSON object a line.
TIMES = "HUB_IDLE_EXPORTER_WAYS_IN"


class WayIn:
    """The time since nothing was there, in seconds; written down when the test has passed."""

    def __init__(self, name: str) -> None:
        self.times: dict[str, float] = {}
        self.name = name

    def __enter__(self) -> "WayIn":
        self._began = time.monotonic()
        return self

    def _reached(self, what: str) -> None:
        self.times.setdefault(what, round(time.monotonic() - self._began, 1))

    def installed(self) -> None:
        """Say that it can be run; what follows needs no package index and no compiler."""
        self._reached("installed")

    def scraped(self) -> None:
        """Say that /metrics has answered with `jupyterhub_up 1`."""
        self._reached("scraped")

    def culled(self) -> None:
        """Say that an idle server was stopped, and that this is verified and counted."""
        self._reached("culled")

    def __exit__(
        self,
        error: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        target = os.environ.get(TIMES)
        if target and error is None:
            with Path(target).open("a") as file:
                file.write(json.dumps({"way": self.name} | self.times) + "\n")
