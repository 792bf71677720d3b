"""Knows only *when*: every job at once and then at its interval, until told to stop."""

import threading
from collections.abc import Callable

import schedule


class Scheduler:
    """Runs jobs one after another on the calling thread; a late job is run once, not twice.

    `schedule` goes by the wall clock. When that is set back, the next run would be as far away
    as the clock was moved; such a job is planned anew.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._plan = schedule.Scheduler()
        self._jobs: list[tuple[float, Callable[[], object]]] = []

    def every(self, seconds: float, job: Callable[[], object]) -> None:
        """Add a job that runs at once and then `seconds` after each run's end."""
        self._jobs.append((seconds, job))

    def run(self) -> None:
        """Run the jobs until the stop event is set. A job that raises ends it: that is a bug."""
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
        """Give the seconds until the next job is due."""
        idle = self._plan.idle_seconds or 0.0
        if idle > max(seconds for seconds, _ in self._jobs) + 1:
            self._plan_all()
            idle = self._plan.idle_seconds or 0.0
        return max(0.0, idle)
