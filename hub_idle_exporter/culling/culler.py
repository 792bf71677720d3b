"""Stop candidates on one bounded pool of threads.

Each candidate of a poll has exactly one outcome: stopped and verified, failed, or withheld.
"""

import queue
import threading
from collections.abc import Iterable

import structlog

from ..domain.labels import ProbeResult, Withheld
from ..domain.policy import JudgedServer
from ..domain.settings import CullSettings
from ..hub.client import Hub
from .audit import Audit
from .clearance import Clearance, WithheldError
from .cull_pass import CullPass
from .stopping import FailedError, Stopper

# Workers start one after another. If all started at once, they would send the same kind of request
# at the same moment and wait for each other at the Hub, which answers one request at a time.
_WORKERS_APART_SECONDS, _LAST_WORKER_SECONDS = 0.06, 0.6

log = structlog.get_logger()

ServerKey = tuple[str, str]


class Culler:
    """Stops candidates on its own threads, while polls and scrapes go on.

    Args:
        hub: read for the proxy's routes, once per pass.
        clearance: checks each candidate right before its stop.
        stopper: stops those that pass.
        audit: records each outcome.
        settings: how many at once, and how many per poll.
        stopping: set when the sidecar shuts down.
    """

    def __init__(
        self,
        hub: Hub,
        clearance: Clearance,
        stopper: Stopper,
        audit: Audit,
        settings: CullSettings,
        stopping: threading.Event,
    ) -> None:
        self._hub, self._settings, self._stopping = hub, settings, stopping
        self._clearance, self._stopper, self._audit = clearance, stopper, audit
        self._claimed: set[ServerKey] = set()
        self._work: queue.SimpleQueue[tuple[int, CullPass]] = queue.SimpleQueue()

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._settings.concurrency):
            threading.Thread(target=self._run, name=f"culler-{number}", daemon=True).start()

    def begin(self, candidates: Iterable[JudgedServer], asks: bool) -> CullPass:
        """Start a culling pass over the candidates, most idle first, and return at once.

        Candidates still under way from an earlier poll are left out. `asks` says whether servers
        are asked before they are stopped.
        """
        fresh = self._not_under_way(candidates)
        self._claimed.update((c.user, c.server) for c in fresh)
        new = CullPass(fresh, self._settings, self._hub, asks)
        for number in range(new.workers):
            self._work.put((number, new))
        if not fresh:
            new.done.set()
        return new

    def update(self, candidates: Iterable[JudgedServer]) -> None:
        """Take note of who is a candidate by the newest poll."""
        self._clearance.update(candidates)

    def withhold(self, candidates: Iterable[JudgedServer], why: str) -> None:
        """Withhold candidates without checking them again."""
        for candidate in self._not_under_way(candidates):
            self._audit.withheld(candidate, Withheld.GATE, why)

    def _not_under_way(self, candidates: Iterable[JudgedServer]) -> list[JudgedServer]:
        return [c for c in candidates if (c.user, c.server) not in self._claimed]

    def _run(self) -> None:
        while True:
            number, current = self._work.get()
            self._stopping.wait(min(number * _WORKERS_APART_SECONDS, _LAST_WORKER_SECONDS))
            while (
                not self._stopping.is_set() and (candidate := current.next_candidate()) is not None
            ):
                self._handle(current, candidate)
            if current.worker_done():
                self._finish(current)

    def _finish(self, ended: CullPass) -> None:
        if ended.results and all(result is ProbeResult.FAILED for result in ended.results):
            log.error(
                "every_busy_check_failed",
                servers=len(ended.results),
                what_to_do="run `hub-idle-exporter check`, and read why in cull_withheld",
            )
        ended.done.set()

    def _handle(self, current: CullPass, candidate: JudgedServer) -> None:
        """Take one candidate to its outcome."""
        try:
            fresh = self._clearance.clear(current, candidate)
        except WithheldError as withheld:
            current.unsure += withheld.cause in (Withheld.PROBE_FAILED, Withheld.GATE)
            self._audit.withheld(candidate, withheld.cause, str(withheld))
            self._leave_out(current.decided(withheld=True))
        else:
            self._leave_out(current.decided(withheld=False))
            self._stop(current, fresh)
        finally:
            self._claimed.discard((candidate.user, candidate.server))

    def _leave_out(self, left: list[JudgedServer]) -> None:
        for candidate in left:
            why = f"--max-culls {self._settings.max_culls} was reached"
            self._audit.withheld(candidate, Withheld.LIMIT, why)
            self._claimed.discard((candidate.user, candidate.server))

    def _stop(self, current: CullPass, fresh: JudgedServer) -> None:
        try:
            self._stopper.stop(fresh)
        except FailedError as failed:
            current.failed += 1
            self._audit.failed(fresh, failed.cause, str(failed))
