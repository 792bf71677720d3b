"""The last check of a candidate before its stop; any doubt withholds the stop."""

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from ..domain.busy_check import BusyWatch, ProbeAnswer
from ..domain.labels import ProbeResult, Withheld
from ..domain.model import Server
from ..domain.policy import Judge, JudgedServer, NotCandidate, Reason
from ..domain.poll_state import LatestState
from ..domain.settings import CullSettings
from ..hub.client import Hub, UserReading
from ..hub.errors import HubError
from ..metrics import Metrics
from . import audit
from .cull_pass import CullPass
from .gatekeeper import Gatekeeper
from .probe import Prober

# If the Hub's answer is older than this when the stop is due, the Hub is asked once more.
_ANSWER_SECONDS = 5.0

_SHUTDOWN = "the exporter is shutting down"
_ONLY_IF_ASKED = "--once stops only servers whose busy check found them idle"

log = structlog.get_logger()


class WithheldError(Exception):
    """A candidate is not stopped after all; `str()` says why."""

    def __init__(self, cause: Withheld, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class Clearance:
    """Checks everything that may withhold a stop; remembers since when servers have been busy.

    Args:
        hub: asked again about each candidate.
        prober: asks the servers themselves.
        gatekeeper: asked last.
        latest: judges by the newest poll state.
        metrics: counts the results of busy checks.
        settings: whether servers are asked, and how long being busy protects them.
        stopping: set when the sidecar shuts down.
        clock: our monotonic clock.
    """

    def __init__(
        self,
        hub: Hub,
        prober: Prober,
        gatekeeper: Gatekeeper,
        latest: LatestState,
        metrics: Metrics,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub, self._prober, self._gatekeeper = hub, prober, gatekeeper
        self._latest = latest
        self._metrics, self._settings = metrics, settings
        self._stopping, self._clock = stopping, clock
        self._busy = BusyWatch()

    def update(self, candidates: Iterable[JudgedServer]) -> None:
        """Forget since when a server has been busy unless it is still a candidate.

        Otherwise it is gone, or was used since, which counts as a break.
        """
        self._busy.keep({_start_of(candidate) for candidate in candidates})

    def clear(self, current: CullPass, candidate: JudgedServer) -> JudgedServer:
        """Return the candidate as it is now if it may be stopped; else raise WithheldError."""
        answered, judge = self._clock(), self._latest.state.judge
        fresh, now = self._check_again(candidate, judge)
        idle = fresh.reason is Reason.IDLE
        if current.asks and (idle or self._settings.only_if_asked):
            self._ask(current, fresh, now)
            if self._clock() - answered > _ANSWER_SECONDS:
                fresh, _ = self._check_again(candidate, judge)
        elif self._settings.only_if_asked:
            raise WithheldError(Withheld.GATE, _ONLY_IF_ASKED)
        closed = _SHUTDOWN if self._stopping.is_set() else self._gatekeeper.closed()
        if closed is None and self._latest.state.judge != judge:
            closed = "the policies, or the scopes of the token, have changed since it was judged"
        if closed is not None:
            raise WithheldError(Withheld.GATE, closed)
        return fresh

    def _check_again(self, candidate: JudgedServer, judge: Judge) -> tuple[JudgedServer, float]:
        """Fetch the user again: it must be the same server, and still a candidate."""
        try:
            reading = self._hub.user(candidate.user)
        except HubError as error:
            why = f"the Hub could not be asked about it again: {error}"
            raise WithheldError(Withheld.PROBE_FAILED, why) from None
        if reading is not None and not isinstance(reading.user.servers, dict):
            raise WithheldError(Withheld.PROBE_FAILED, "the token can no longer see it")
        server = None if reading is None else reading.server(candidate.server)
        if reading is None or server is None:
            raise WithheldError(Withheld.GONE, "it no longer exists")
        if server.started != candidate.seen.started:
            raise WithheldError(Withheld.RESTARTED, "it was restarted in the meantime")
        return self._judge_again(candidate, reading, server, judge), reading.now

    def _judge_again(
        self, candidate: JudgedServer, reading: UserReading, server: Server, judge: Judge
    ) -> JudgedServer:
        judged = judge.verdict(reading.user, candidate.server, server, reading.now)
        why_not = judged.not_candidate
        if why_not is NotCandidate.PENDING:
            raise WithheldError(Withheld.PENDING, f"it {why_not}")
        if why_not in (NotCandidate.IN_USE, NotCandidate.UNKNOWN):
            raise WithheldError(Withheld.ACTIVE_AGAIN, f"it {why_not}")
        if why_not is not None:
            raise WithheldError(Withheld.GATE, f"it {why_not} (policy {judged.policy.name})")
        return judged

    def _ask(self, current: CullPass, fresh: JudgedServer, now: float) -> None:
        """Ask the server itself; raise WithheldError unless it is idle or not a Jupyter server."""
        answer = self._answer(current, fresh, now)
        self._metrics.busy_checks.labels(answer.result).inc()
        current.results.append(answer.result)
        if answer.result is ProbeResult.FAILED:
            raise WithheldError(Withheld.PROBE_FAILED, answer.why)
        if answer.result is ProbeResult.BUSY:
            self._protect_busy(fresh, answer.why)
        else:
            self._busy.at_rest(_start_of(fresh))
        if answer.result is ProbeResult.ACTIVE:
            raise WithheldError(Withheld.ACTIVE_AGAIN, answer.why)
        if self._settings.only_if_asked and answer.result is not ProbeResult.IDLE:
            raise WithheldError(Withheld.GATE, f"{_ONLY_IF_ASKED} ({answer.why})")

    def _answer(self, current: CullPass, fresh: JudgedServer, now: float) -> ProbeAnswer:
        try:
            route = current.routes.find(fresh.user, fresh.server)
        except HubError as error:
            why = f"the proxy's routes could not be read: {error}"
            return ProbeAnswer(ProbeResult.FAILED, why)
        limit = fresh.policy.timeout
        return self._prober.ask(fresh.user, fresh.server, route, now, limit)

    def _protect_busy(self, fresh: JudgedServer, why: str) -> None:
        """Withhold the stop of a busy server, unless it has been busy for `max_busy`."""
        seconds = self._busy.busy(_start_of(fresh), self._clock())
        if seconds < self._settings.max_busy:
            raise WithheldError(Withheld.BUSY, f"{why}, for at least {seconds:.0f} s")
        log.warning("busy_limit_reached", **audit.fields(fresh), seconds_busy=seconds, why=why)


def _start_of(server: JudgedServer) -> tuple[str, str, datetime | None]:
    """Return the key of one start of one server."""
    return server.user, server.server, server.seen.started
