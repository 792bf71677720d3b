"""The last look at a candidate: fetched again, asked itself, the gate open; any doubt spares it."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from ..domain.busy_check import BusyWatch, ProbeAnswer
from ..domain.labels import ProbeResult, Withheld
from ..domain.model import Server
from ..domain.policy import Judge, JudgedServer, NotCandidate, Reason
from ..domain.settings import CullSettings
from ..hub.client import Hub, UserReading
from ..hub.errors import HubError
from ..metrics import Metrics
from . import audit
from .cull_pass import CullPass
from .gatekeeper import Gatekeeper
from .probe import Prober

# A look at the Hub that is older than this when the stop is due is taken again.
_LOOK_SECONDS = 5.0

log = structlog.get_logger()


class WithheldError(Exception):
    """A candidate is not to be stopped; `str()` says why."""

    def __init__(self, cause: Withheld, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class Clearance:
    """Goes through everything that may spare a candidate; remembers who was seen busy.

    Args:
        hub: where a candidate is looked at again.
        prober: asks the servers themselves.
        gatekeeper: asked last.
        metrics: counts what servers answered.
        settings: whether servers are asked, and how long being busy protects.
        stopping: set when the sidecar is told to end.
        clock: our monotonic clock.
    """

    def __init__(
        self,
        hub: Hub,
        prober: Prober,
        gatekeeper: Gatekeeper,
        metrics: Metrics,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._hub, self._prober, self._gatekeeper = hub, prober, gatekeeper
        self._metrics, self._settings = metrics, settings
        self._stopping, self._clock = stopping, clock
        self._judge: Judge | None = None
        self._busy = BusyWatch()

    def update(self, judge: Judge, candidates: Iterable[JudgedServer]) -> None:
        """Judge by this from now on, also those under way.

        Forget since when a server was seen busy, unless it is still a candidate: one that is gone
        needs no memory, and one that was at work since has made a break.
        """
        self._judge = judge
        self._busy.keep({_start_of(candidate) for candidate in candidates})

    def clear(self, current: CullPass, candidate: JudgedServer) -> JudgedServer:
        """Give the candidate as it is now, free to be stopped; raise WithheldError otherwise."""
        looked = self._clock()
        fresh, now = self._look_again(candidate)
        idle = fresh.reason is Reason.IDLE
        if current.asks and (idle or self._settings.only_if_asked):
            self._ask(current, fresh, now)
            if self._clock() - looked > _LOOK_SECONDS:
                fresh, _ = self._look_again(candidate)
        elif self._settings.only_if_asked:
            raise WithheldError(Withheld.GATE, "a single pass stops only what it has asked")
        closed = "told to end" if self._stopping.is_set() else self._gatekeeper.closed()
        if closed is not None:
            raise WithheldError(Withheld.GATE, closed)
        return fresh

    def _look_again(self, candidate: JudgedServer) -> tuple[JudgedServer, float]:
        """Fetch the user again: the same server, still a candidate by the same judge."""
        try:
            reading = self._hub.user(candidate.user)
        except HubError as error:
            why = f"it could not be looked at again: {error}"
            raise WithheldError(Withheld.PROBE_FAILED, why) from None
        if reading is not None and not isinstance(reading.user.servers, dict):
            raise WithheldError(Withheld.PROBE_FAILED, "the token does not see it any more")
        server = None if reading is None else reading.server(candidate.server)
        if reading is None or server is None:
            raise WithheldError(Withheld.GONE, "it is not there any more")
        if server.started != candidate.seen.started:
            raise WithheldError(Withheld.RESTARTED, "it was restarted meanwhile")
        return self._judge_again(candidate, reading, server), reading.now

    def _judge_again(
        self, candidate: JudgedServer, reading: UserReading, server: Server
    ) -> JudgedServer:
        assert self._judge is not None  # noqa: S101 - updated before any candidate
        judged = self._judge.verdict(reading.user, candidate.server, server, reading.now)
        why_not = judged.not_candidate
        if why_not is NotCandidate.PENDING:
            raise WithheldError(Withheld.PENDING, f"it {why_not}")
        if why_not in (NotCandidate.IN_USE, NotCandidate.UNKNOWN):
            raise WithheldError(Withheld.ACTIVE_AGAIN, f"it {why_not}")
        if why_not is not None:
            raise WithheldError(Withheld.GATE, f"policy {judged.policy.name}: {why_not}")
        return judged

    def _ask(self, current: CullPass, fresh: JudgedServer, now: float) -> None:
        """Ask the server itself; only one that is at rest, or runs no Jupyter, goes on."""
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
            raise WithheldError(Withheld.GATE, f"a single pass has to be sure: {answer.why}")

    def _answer(self, current: CullPass, fresh: JudgedServer, now: float) -> ProbeAnswer:
        try:
            route = current.routes.find(fresh.user, fresh.server)
        except HubError as error:
            why = f"the proxy's routes cannot be read: {error}"
            return ProbeAnswer(ProbeResult.FAILED, why)
        limit = fresh.policy.timeout
        return self._prober.ask(fresh.user, fresh.server, route, now, limit)

    def _protect_busy(self, fresh: JudgedServer, why: str) -> None:
        """Spare a busy server, unless it was seen busy for longer than `max_busy`."""
        seconds = self._busy.busy(_start_of(fresh), self._clock())
        if seconds < self._settings.max_busy:
            raise WithheldError(Withheld.BUSY, f"{why}, seen so for {seconds:.0f} s")
        log.warning("busy_limit_reached", **audit.fields(fresh), seconds_busy=seconds, why=why)


def _start_of(server: JudgedServer) -> tuple[str, str, datetime | None]:
    """Name one start of one server."""
    return server.user, server.server, server.seen.started
