"""Knows only *when*: runs each job at once and then at its interval, until stopped."""

import threading
from collections.abc import Callable

import schedule


class Scheduler:
    """Runs jobs one after another on the calling thread; a late job runs once, not twice.

    `schedule` uses the wall clock. If that is set back, the next run would be late by as much, so
    all jobs are scheduled again.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._plan = schedule.Scheduler()
        self._jobs: list[tuple[float, Callable[[], object]]] = []

    def every(self, seconds: float, job: Callable[[], object]) -> None:
        """Add a job that runs at once, and again `seconds` after the end of each run."""
        self._jobs.append((seconds, job))

    def run(self) -> None:
        """Run the jobs until the stop event is set. A job that raises is a bug, and ends this."""
        for _, job in self._jobs:
            if not self._stop.is_set():
                job()
        self._plan_all()
        while not self._stop.wait(self._pause()):
            self._plan.run_pending()

    def _plan_all(self) -> None:
        self._plan.clear()
        for seconds, job in self._jobs:
            self._plan.every(seconds).seconds.do(job)  # type: ignore[arg-type]

    def _pause(self) -> float:
        """Return the seconds until the next job is due."""
        idle = self._plan.idle_seconds or 0.0
        if idle > max(seconds for seconds, _ in self._jobs) + 1:
            self._plan_all()
            idle = self._plan.idle_seconds or 0.0
        return max(0.0, idle)
