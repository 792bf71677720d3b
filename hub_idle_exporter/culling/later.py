"""Threads for what is due later: looking whether a slow stop has ended, removing records."""

import heapq
import itertools
import threading
from collections.abc import Callable

from ..clocks import steady

Job = Callable[[], object]


class Later:
    """Runs jobs when they are due.

    Args:
        stopping: set when the sidecar shuts down.
        threads: how many jobs run at once. One may wait for seconds: on Kubernetes nothing answers
            at the address of a pod that is gone.
        clock: our clock.
        wake_every: seconds after which it looks at the clock and for a shutdown at the latest.
    """

    def __init__(
        self,
        stopping: threading.Event,
        threads: int,
        clock: Callable[[], float] = steady,
        wake_every: float = 1.0,
    ) -> None:
        self._stopping, self._threads = stopping, threads
        self._clock, self._wake_every = clock, wake_every
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._jobs: list[tuple[float, int, Job, Job | None]] = []

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._threads):
            threading.Thread(target=self._run, name=f"later-{number}", daemon=True).start()

    def call(self, seconds: float, job: Job, at_shutdown: Job | None = None) -> None:
        """Run a job after so many seconds, or the other one when the sidecar shuts down first."""
        with self._changed:
            due = self._clock() + seconds
            heapq.heappush(self._jobs, (due, next(self._numbers), job, at_shutdown))
            self._changed.notify()

    def _run(self) -> None:
        while (job := self._next_due()) is not None:
            job()
        with self._changed:
            left, self._jobs = self._jobs, []
        for _, _, _, at_shutdown in sorted(left, key=lambda one: one[:2]):
            if at_shutdown is not None:
                at_shutdown()

    def _next_due(self) -> Job | None:
        """Wait for the next job that is due; None when the sidecar shuts down."""
        with self._changed:
            while not self._stopping.is_set():
                pause = self._jobs[0][0] - self._clock() if self._jobs else self._wake_every
                if pause <= 0:
                    return heapq.heappop(self._jobs)[2]
                self._changed.wait(min(pause, self._wake_every))
        return None
