"""From candidates to stopped servers: look again, ask, stop, verify; whatever is in doubt lives.

Each candidate of a poll ends in exactly one way: stopped and verified, failed, or withheld; each
is counted and logged with user, server, policy, reason, idle time and age: the audit trail.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from ..domain.busy_check import BusyWatch, Finding
from ..domain.census import Judged
from ..domain.labels import Asked, Cause, CullFailure, Withheld
from ..domain.model import Route, Server
from ..domain.policy import Judge, Reason, Spared
from ..domain.stop_result import Fate, fate_of
from ..hub.client import Hub, HubError, Seen
from ..metrics import Metrics
from .gatekeeper import Gatekeeper
from .probe import Prober

# A look at the Hub that is older than this when the stop is due is taken again.
_LOOK_SECONDS = 5.0
# Routes tell of traffic that the Hub learns of minutes later: in a long pass they are read anew.
_ROUTES_SECONDS = 30.0
# How long a stop is followed before it is given up as slow, and how often the Hub is asked.
SLOW_SECONDS = 300.0
_FOLLOW_EVERY = 1.0
# Lanes set off one after another and so stay apart: all at once they would wait for each other at
# the Hub, which answers one request at a time, look by look and stop by stop. See bench/RESULTS.md.
_LANES_APART_SECONDS, _LAST_LANE_SECONDS = 0.06, 0.6

_FAILURES = {Cause.TIMEOUT: CullFailure.TIMEOUT, Cause.CONNECTION: CullFailure.CONNECTION}

log = structlog.get_logger()

ServerKey = tuple[str, str]


class _WithheldError(Exception):
    def __init__(self, cause: Withheld, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class _FailedError(Exception):
    def __init__(self, cause: CullFailure, why: str) -> None:
        super().__init__(why)
        self.cause = cause


@dataclass(frozen=True)
class Limits:
    """How stops are sent; times in seconds, `max_culls` 0 is no limit.

    With `asked_only` a server is stopped only when it was itself asked and is idle: for a single
    pass, which has no memory of outages.
    """

    concurrency: int = 10
    max_culls: int = 0
    max_busy: float = 86400.0
    remove_named_servers: bool = False
    asked_only: bool = False


class Pass:
    """The candidates of one poll on their way; safe to share between lanes.

    As many candidates are under way or stopped as `max_culls` allows: one that is spared makes
    room for the next, so that busy servers at the head never keep the others alive.
    """

    def __init__(self, candidates: list[Judged], limits: Limits, hub: Hub, asks: bool) -> None:
        self.asks = asks
        self.lanes = min(len(candidates), limits.concurrency, limits.max_culls or len(candidates))
        self.done = threading.Event()
        self.failed = self.unsure = 0
        self.findings: list[Asked] = []
        self._waiting = candidates[::-1]
        self._room = limits.max_culls or len(candidates)
        self._lanes = self.lanes
        self._undecided = 0
        self._hub, self._routes, self._routes_read = hub, None, 0.0
        self._lock, self._reading = threading.Lock(), threading.Lock()

    _routes: dict[tuple[str | None, str], Route] | HubError | None

    def take(self) -> Judged | None:
        """Take the next candidate; None when there is none, or no room."""
        with self._lock:
            if not self._waiting or self._room == 0:
                return None
            self._room -= 1
            self._undecided += 1
            return self._waiting.pop()

    def settle(self, spared: bool) -> list[Judged]:
        """Note that a candidate was spared, which makes room, or is being stopped.

        Give those for whom no room is left, as soon as that is certain.
        """
        with self._lock:
            self._undecided -= 1
            self._room += spared
            if self._undecided or self._room:
                return []
            left, self._waiting = self._waiting[::-1], []
            return left

    def leave(self) -> bool:
        """Note that a lane has ended; tell whether it was the last."""
        with self._lock:
            self._lanes -= 1
            return self._lanes == 0

    def route(self, user: str, server: str) -> Route | None:
        """Find a server's route; the proxy's are read once for all, or fail for everyone."""
        with self._reading:
            if self._routes is None or time.monotonic() - self._routes_read > _ROUTES_SECONDS:
                self._routes_read = time.monotonic()
                try:
                    routes = self._hub.routes()
                    self._routes = {(r.data.user, r.data.server_name or ""): r for r in routes}
                except HubError as error:
                    self._routes = error
        if isinstance(self._routes, HubError):
            raise self._routes
        return self._routes.get((user, server))


class Culler:
    """Stops candidates on one bounded pool of threads, while polls and scrapes go on.

    Args:
        hub: where stops are sent.
        prober: asks the servers themselves.
        gatekeeper: asked right before each stop.
        metrics: counts everything.
        limits: see `Limits`.
        stopping: set when the sidecar is told to end.
        clock: our monotonic clock.
    """

    def __init__(
        self,
        hub: Hub,
        prober: Prober,
        gatekeeper: Gatekeeper,
        metrics: Metrics,
        limits: Limits,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub, self._prober, self._gatekeeper = hub, prober, gatekeeper
        self._metrics, self._limits, self._stopping, self._clock = metrics, limits, stopping, clock
        self._judge: Judge | None = None
        self._busy = BusyWatch()
        self._claimed: set[ServerKey] = set()
        self._lanes: queue.SimpleQueue[tuple[int, Pass]] = queue.SimpleQueue()
        for number in range(limits.concurrency):
            threading.Thread(target=self._work, name=f"culler-{number}", daemon=True).start()

    def begin(self, candidates: Iterable[Judged], asks: bool) -> Pass:
        """Send candidates on their way, the most idle first, and return at once.

        Those still on their way from an earlier poll are left out. `asks` says whether the token
        allows to ask servers.
        """
        fresh = self._not_under_way(candidates)
        self._claimed.update((c.user, c.server) for c in fresh)
        new = Pass(fresh, self._limits, self._hub, asks)
        for number in range(new.lanes):
            self._lanes.put((number, new))
        if not fresh:
            new.done.set()
        return new

    def learn(self, judge: Judge, candidates: Iterable[Judged]) -> None:
        """Judge by this from now on, also those under way.

        Forget since when a server was seen busy, unless it is still a candidate: one that is gone
        needs no memory, and one that was at work since has made a break.
        """
        self._judge = judge
        self._busy.keep({_observed(candidate) for candidate in candidates})

    def spare(self, candidates: Iterable[Judged], why: str) -> None:
        """Count and log candidates that are not even to be looked at."""
        for candidate in self._not_under_way(candidates):
            self._spare(candidate, Withheld.GATE, why)

    def _not_under_way(self, candidates: Iterable[Judged]) -> list[Judged]:
        return [c for c in candidates if (c.user, c.server) not in self._claimed]

    def _work(self) -> None:
        while True:
            number, current = self._lanes.get()
            self._stopping.wait(min(number * _LANES_APART_SECONDS, _LAST_LANE_SECONDS))
            while not self._stopping.is_set() and (candidate := current.take()) is not None:
                self._handle(current, candidate)
            if current.leave():
                self._finish(current)

    def _finish(self, ended: Pass) -> None:
        if ended.findings and all(found is Asked.FAILED for found in ended.findings):
            log.error(
                "every_busy_check_failed",
                servers=len(ended.findings),
                what_to_do="no server that was asked gave an answer: run `check`",
            )
        ended.done.set()

    def _handle(self, current: Pass, candidate: Judged) -> None:
        """See one candidate through to its one end."""
        try:
            fresh = self._cleared(current, candidate)
        except _WithheldError as withheld:
            current.unsure += withheld.cause in (Withheld.PROBE_FAILED, Withheld.GATE)
            self._spare(candidate, withheld.cause, str(withheld))
            self._leave_out(current.settle(spared=True))
        else:
            self._leave_out(current.settle(spared=False))
            self._see_stopped(current, fresh)
        finally:
            self._claimed.discard((candidate.user, candidate.server))

    def _leave_out(self, left: list[Judged]) -> None:
        for candidate in left:
            self._spare(candidate, Withheld.LIMIT, f"--max-culls {self._limits.max_culls} reached")
            self._claimed.discard((candidate.user, candidate.server))

    def _see_stopped(self, current: Pass, fresh: Judged) -> None:
        try:
            self._stop(fresh)
        except _FailedError as failed:
            current.failed += 1
            self._fail(fresh, failed.cause, str(failed))

    def _cleared(self, current: Pass, candidate: Judged) -> Judged:
        """Go through everything that may spare a candidate, the gate at last."""
        looked = self._clock()
        fresh, now = self._look_again(candidate)
        idle = fresh.verdict.reason is Reason.IDLE
        if current.asks and (idle or self._limits.asked_only):
            self._ask(current, fresh, now)
            if self._clock() - looked > _LOOK_SECONDS:
                fresh, _ = self._look_again(candidate)
        elif self._limits.asked_only:
            raise _WithheldError(Withheld.GATE, "one pass alone stops only what it has asked")
        closed = "told to end" if self._stopping.is_set() else self._gatekeeper.closed()
        if closed is not None:
            raise _WithheldError(Withheld.GATE, closed)
        return fresh

    def _look_again(self, candidate: Judged) -> tuple[Judged, float]:
        """Fetch the user again: the same server, still a candidate by the same judge."""
        try:
            seen = self._hub.user(candidate.user)
        except HubError as error:
            why = f"it could not be looked at again: {error}"
            raise _WithheldError(Withheld.PROBE_FAILED, why) from None
        server = _server_of(seen, candidate.server)
        if seen is not None and not _in_sight(seen):
            raise _WithheldError(Withheld.PROBE_FAILED, "the token does not see it any more")
        if seen is None or server is None:
            raise _WithheldError(Withheld.GONE, "it is not there any more")
        if server.started != candidate.seen.started:
            raise _WithheldError(Withheld.RESTARTED, "it was started anew meanwhile")
        return self._judge_again(candidate, seen, server), seen.now

    def _judge_again(self, candidate: Judged, seen: Seen, server: Server) -> Judged:
        assert self._judge is not None  # noqa: S101 - learnt before any candidate
        verdict = self._judge.verdict(seen.user, candidate.server, server, seen.now)
        if verdict.spared is Spared.PENDING:
            raise _WithheldError(Withheld.PENDING, f"it {verdict.spared}")
        if verdict.spared in (Spared.IN_USE, Spared.UNKNOWN):
            raise _WithheldError(Withheld.ACTIVE_AGAIN, f"it {verdict.spared}")
        if verdict.spared is not None:
            raise _WithheldError(Withheld.GATE, f"policy {verdict.policy.name}: {verdict.spared}")
        return Judged(candidate.user, candidate.server, server, verdict)

    def _ask(self, current: Pass, fresh: Judged, now: float) -> None:
        """Ask the server itself; only one that is at rest, or runs no Jupyter, goes on."""
        found = self._finding(current, fresh, now)
        self._metrics.busy_checks.labels(found.asked).inc()
        current.findings.append(found.asked)
        if found.asked is Asked.FAILED:
            raise _WithheldError(Withheld.PROBE_FAILED, found.why)
        if found.asked is Asked.BUSY:
            self._protect_busy(fresh, found.why)
        else:
            self._busy.at_rest(_observed(fresh))
        if found.asked is Asked.ACTIVE:
            raise _WithheldError(Withheld.ACTIVE_AGAIN, found.why)
        if self._limits.asked_only and found.asked is not Asked.IDLE:
            raise _WithheldError(Withheld.GATE, f"one pass alone has to be sure: {found.why}")

    def _finding(self, current: Pass, fresh: Judged, now: float) -> Finding:
        try:
            route = current.route(fresh.user, fresh.server)
        except HubError as error:
            return Finding(Asked.FAILED, f"the proxy's routes cannot be read: {error}")
        limit = fresh.verdict.policy.timeout
        return self._prober.ask(fresh.user, fresh.server, route, now, limit)

    def _protect_busy(self, fresh: Judged, why: str) -> None:
        """Spare a busy server, as long as it was not seen busy for longer than `max_busy`."""
        seconds = self._busy.busy(_observed(fresh), self._clock())
        if seconds < self._limits.max_busy:
            raise _WithheldError(Withheld.BUSY, f"{why}, seen so for {seconds:.0f} s")
        log.warning("busy_for_too_long", **_audit(fresh), seconds_busy=seconds, why=why)

    def _stop(self, fresh: Judged) -> None:
        """Send the stop and see that it happened."""
        verdict = fresh.verdict
        labels = (verdict.policy.name, verdict.reason or "")
        begun = self._clock()
        log.info("stopping_server", **_audit(fresh))
        self._metrics.attempts.labels(*labels).inc()
        refusal = self._send_stop(fresh)
        fate = self._verify(fresh, refusal)
        self._metrics.cull_duration.observe(self._clock() - begun)
        self._metrics.culls.labels(*labels).inc()
        log.info("culled", **_audit(fresh), outcome="stopped", seconds=self._clock() - begun)
        if fate is Fate.STOPPED and fresh.server and self._limits.remove_named_servers:
            self._remove(fresh)

    def _send_stop(self, fresh: Judged) -> HubError | None:
        """Send the DELETE; give the error of one whose fate is open, raise for a refused one."""
        try:
            self._hub.stop(fresh.user, fresh.server)
        except HubError as error:
            refused = error.status is not None and error.status < 500
            if refused:
                raise _failure(error) from None
            return error
        return None

    def _verify(self, fresh: Judged, refusal: HubError | None) -> Fate:
        """Follow a stop to its end: the server stopped, or _FailedError says what went wrong."""
        deadline = self._clock() + SLOW_SECONDS
        while True:
            problem = _FailedError(CullFailure.SLOW, f"still stopping after {SLOW_SECONDS:.0f} s")
            try:
                seen = self._hub.user(fresh.user, stopped_servers=True)
            except HubError as error:
                problem = _failure(error)
            else:
                _raise_if_out_of_sight(seen, refusal)
                fate = fate_of(fresh.seen, _server_of(seen, fresh.server))
                if fate in (Fate.STOPPED, Fate.REPLACED):
                    return fate
                _raise_if_lost(fate, refusal)
            if self._clock() > deadline:
                raise problem
            if self._stopping.wait(_FOLLOW_EVERY):
                why = "told to end before it was known whether the server stopped"
                raise _FailedError(problem.cause, why)

    def _remove(self, fresh: Judged) -> None:
        """Remove the record of a named server that was seen stopped."""
        closed = self._gatekeeper.closed()
        try:
            if closed is None:
                self._hub.remove(fresh.user, fresh.server)
        except HubError as error:
            closed = str(error)
        if closed is None:
            log.info("named_server_removed", **_audit(fresh))
        else:
            log.warning("named_server_not_removed", **_audit(fresh), error=closed)

    def _spare(self, candidate: Judged, cause: Withheld, why: str) -> None:
        self._metrics.withheld.labels(cause).inc()
        log.info("cull_withheld", **_audit(candidate), outcome="spared", cause=cause, why=why)

    def _fail(self, fresh: Judged, cause: CullFailure, why: str) -> None:
        self._metrics.cull_failures.labels(cause).inc()
        if cause is CullFailure.NOT_STOPPED:
            why += ": it is an orphan that the Hub has forgotten; stop it by hand"
        log.error("cull_failed", **_audit(fresh), outcome="failed", cause=cause, why=why)


def _in_sight(seen: Seen | None) -> bool:
    """Tell whether the token sees the servers of a user at all."""
    return seen is not None and isinstance(seen.user.servers, dict)


def _server_of(seen: Seen | None, name: str) -> Server | None:
    """Find a server in what the Hub said of a user."""
    if seen is None or not isinstance(seen.user.servers, dict):
        return None
    return seen.user.servers.get(name)


def _failure(error: HubError) -> _FailedError:
    return _FailedError(_FAILURES.get(error.cause, CullFailure.HTTP), str(error))


def _raise_if_out_of_sight(seen: Seen | None, refusal: HubError | None) -> None:
    """Raise where what is not seen is no evidence of a stop; a user who is gone has no server."""
    if refusal is not None and not _in_sight(seen):
        raise _failure(refusal)
    if seen is not None and not _in_sight(seen):
        raise _FailedError(CullFailure.HTTP, "the token does not see any more whether it stopped")


def _raise_if_lost(fate: Fate, refusal: HubError | None) -> None:
    """Raise where the server lives on after its stop."""
    if fate is Fate.FORGOTTEN:
        raise _FailedError(CullFailure.NOT_STOPPED, "its spawner failed to stop it")
    if fate is Fate.RUNNING:
        if refusal is not None:
            raise _failure(refusal)
        raise _FailedError(CullFailure.NOT_STOPPED, "the Hub said yes, but it runs on")


def _observed(server: Judged) -> tuple[str, str, datetime | None]:
    """Name one start of one server."""
    return server.user, server.server, server.seen.started


def _audit(one: Judged) -> dict[str, Any]:
    """Give the fields of the audit trail."""
    verdict = one.verdict
    return {
        "user": one.user,
        "server": one.server,
        "policy": verdict.policy.name,
        "reason": str(verdict.reason),
        "idle": verdict.idle,
        "age": verdict.age,
    }
