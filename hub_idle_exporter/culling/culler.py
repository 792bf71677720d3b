"""Stop candidates on one bounded pool of threads.

Each candidate of a poll has exactly one outcome: stopped and verified, failed, or withheld.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import structlog

from ..clocks import steady
from ..domain.keeping import Start
from ..domain.labels import ProbeResult, Withheld
from ..domain.policy import JudgedServer, Reason, ServerKey
from ..domain.probe_user import Safeguards
from ..domain.settings import CullSettings
from ..hub.client import Hub
from ..people.promises import Promises
from ..prometheus.second_opinion import SecondOpinion
from . import audit
from .audit import Audit
from .backlog import Backlog
from .clearance import Case, Clearance, WithheldError
from .cull_pass import CullPass
from .gatekeeper import Gatekeeper
from .later import Later
from .removal import Remover
from .stopping import FailedError, Sent, Stopper

# Workers start one after another. If all started at once, they would send the same kind of request
# at the same moment and wait for each other at the Hub, which answers one request at a time.
_WORKERS_APART_SECONDS, _LAST_WORKER_SECONDS = 0.06, 0.6
# How often a stop is prepared anew if it came too late.
_TRIES = 3
# Why a server is not stopped that means that somebody may use it: then no stop is due any more.
_IN_USE = (Withheld.BUSY, Withheld.ACTIVE_AGAIN, Withheld.IN_USE, Withheld.KEPT)
_TOO_LATE = f"what was known about it was too old when its stop reached the Hub, {_TRIES} times"
# How often the Hub is asked whether a slow stop has ended: at first, and at most.
_FOLLOW_SECONDS, _LONGEST_FOLLOW_SECONDS = 1.0, 5.0
# After a failed stop: the first pause, doubled each time, and the longest.
_BACK_OFF_SECONDS, _LONGEST_BACK_OFF_SECONDS = 30.0, 3600.0

log = structlog.get_logger()


@dataclass
class Failures:
    """How often the stop of each start of a server has failed, and when to try again."""

    _count: Counter[Start] = field(default_factory=Counter)
    _not_before: dict[Start, float] = field(default_factory=dict)

    def add(self, server: JudgedServer, now: float) -> None:
        """Record a failed stop at that time of our clock."""
        key = server.start
        pause = _BACK_OFF_SECONDS * 2.0 ** min(self._count[key], 20)
        self._count[key] += 1
        self._not_before[key] = now + min(pause, _LONGEST_BACK_OFF_SECONDS)

    def holds_off(self, server: JudgedServer, now: float) -> bool:
        """Tell whether it is too early to try again."""
        return now < self._not_before.get(server.start, now)

    def keep(self, candidates: Iterable[JudgedServer]) -> None:
        """Forget the servers that are no longer candidates."""
        gone = self._not_before.keys() - {one.start for one in candidates}
        for key in gone:
            del self._not_before[key], self._count[key]


class Culler:
    """Stops candidates on its own threads, while polls and scrapes go on.

    Args:
        hub: read for the proxy's routes, once per pass.
        clearance: checks each candidate right before its stop.
        stopper: stops those that pass.
        remover: removes named servers later; None if they are not removed.
        promises: what people keep, and who was told of a stop.
        later: follows slow stops.
        trail: records each outcome.
        gatekeeper: knows the Hub's clock.
        second_opinion: knows who is at work; None without one.
        settings: how many at once, and how many per poll.
        stopping: set when the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        clearance: Clearance,
        stopper: Stopper,
        remover: Remover | None,
        promises: Promises,
        later: Later,
        trail: Audit,
        gatekeeper: Gatekeeper,
        second_opinion: SecondOpinion | None,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._settings, self._stopping = hub, settings, stopping
        self._clearance, self._stopper, self._remover = clearance, stopper, remover
        self._promises = promises
        self._later, self._audit, self._clock = later, trail, clock
        self._gatekeeper, self._second_opinion = gatekeeper, second_opinion
        self._claimed: set[ServerKey] = set()
        self._announcing: set[tuple[ServerKey, Reason | None]] = set()
        self._failures = Failures()
        self._backlog = Backlog(share=max(1, settings.concurrency // 2))

    def start(self) -> None:
        """Start the threads."""
        self._later.start()
        for number in range(self._settings.concurrency):
            threading.Thread(target=self._run, name=f"culler-{number}", daemon=True).start()

    def begin(self, candidates: Iterable[JudgedServer], safeguards: Safeguards) -> CullPass:
        """Start a culling pass over the candidates, most idle first, and return at once.

        Left out are candidates still under way from an earlier poll, and those whose stop has
        failed a short time ago.
        """
        now = self._clock()
        fresh, failed = list[JudgedServer](), list[JudgedServer]()
        for one in self._not_under_way(candidates):
            (failed if self._failures.holds_off(one, now) else fresh).append(one)
        self._audit.begin_pass(fresh, failed)
        self._claimed.update(one.key for one in fresh)
        new = self._pass(fresh, safeguards)
        if not fresh:
            new.done.set()
        self._backlog.add(new, fresh)
        return new

    def announce(self, due_soon: Iterable[JudgedServer], safeguards: Safeguards) -> CullPass:
        """Announce the stops of servers that are due soon, as `begin`; nothing is stopped."""
        notices, now = self._promises.notices, self._gatekeeper.hub_time()
        new = [
            one
            for one in due_soon
            if notices.is_needed(one, now) and (one.key, one.reason) not in self._announcing
        ]
        self._announcing.update((one.key, one.reason) for one in new)
        begun = self._pass(new, safeguards, announces=True)
        if not new:
            begun.done.set()
        self._backlog.add(begun, new)
        return begun

    def _pass(
        self, servers: list[JudgedServer], safeguards: Safeguards, announces: bool = False
    ) -> CullPass:
        return CullPass(
            servers,
            self._settings,
            self._hub,
            safeguards,
            self._second_opinion,
            self._clock,
            announces,
        )

    def update(self, candidates: Iterable[JudgedServer], due_soon: Iterable[JudgedServer]) -> None:
        """Take note of who is a candidate by the newest poll, or will be when it was announced."""
        self._clearance.update([*candidates, *due_soon])
        self._failures.keep(candidates)

    def withhold(self, candidates: Iterable[JudgedServer], why: str) -> None:
        """Withhold candidates without checking them again, because the list may have gaps."""
        withheld = self._not_under_way(candidates)
        self._audit.begin_pass(withheld)
        for candidate in withheld:
            self._audit.withheld(candidate, Withheld.LIST, why)

    def _not_under_way(self, candidates: Iterable[JudgedServer]) -> list[JudgedServer]:
        return [one for one in candidates if one.key not in self._claimed]

    def _run(self) -> None:
        while not self._stopping.is_set():
            current, candidate = self._backlog.take()
            self._stopping.wait(min(current.nth() * _WORKERS_APART_SECONDS, _LAST_WORKER_SECONDS))
            if not self._stopping.is_set():
                self._handle(current, candidate)

    def _handle(self, current: CullPass, candidate: JudgedServer) -> None:
        """Take one candidate to its outcome, or to a stop that goes on."""
        if current.announces:
            self._announce(current, candidate)
            return
        cause, used = None, False
        try:
            sent = self._stop(current, candidate)
        except WithheldError as withheld:
            cause = withheld.cause
            self._withhold(current, candidate, cause, str(withheld))
        except FailedError as failed:
            self._failed(current, candidate, failed)
        else:
            used = self._follow(current, sent, _FOLLOW_SECONDS)
        full = current.is_full(used)  # before others look for room
        quick = cause not in (Withheld.PROBE_FAILED, Withheld.STALE)
        self._backlog.done(candidate.user, quick)
        if full:
            for left in self._backlog.drop(current):
                why = f"--max-culls {self._settings.max_culls} was reached"
                self._withhold(current, left, Withheld.LIMIT, why)

    def _announce(self, current: CullPass, server: JudgedServer) -> None:
        """Announce the stop of one server, unless it is in use."""
        quick = True
        try:
            with closing(self._clearance.open(current, server)) as case:
                self._clearance.announce(case)
        except WithheldError as withheld:
            quick = withheld.cause is not Withheld.PROBE_FAILED
            self._take_back(server, withheld.cause)
            log.debug("not_announced", **audit.fields(server), why=str(withheld))
        self._backlog.done(server.user, quick)
        self._announcing.discard((server.key, server.reason))
        if current.count_announced():
            current.done.set()

    def _take_back(self, server: JudgedServer, cause: Withheld) -> None:
        """Take back what was announced of a server that is in use."""
        if cause in _IN_USE:
            self._promises.notices.take_back(server, f"{cause}")

    def _stop(self, current: CullPass, candidate: JudgedServer) -> Sent:
        """Check a candidate and send its stop."""
        case = self._clearance.open(current, candidate)
        sent = None
        try:
            sent = self._send(case)
        finally:
            if sent is None:
                case.close()
        return sent

    def _send(self, case: Case) -> Sent:
        """Send a stop, prepared anew if it came too late."""
        for _ in range(_TRIES):
            sent = self._stopper.send(self._clearance.clear(case))
            if sent is not None:
                return sent
        raise WithheldError(Withheld.STALE, _TOO_LATE)

    def _follow(self, current: CullPass, sent: Sent, pause: float) -> bool:
        """Look what became of a stop, and again later if it goes on; False if it failed."""
        try:
            stopped = self._stopper.check(sent)
        except FailedError as failed:
            sent.cleared.case.close()
            self._failed(current, sent.server, failed)
            return False
        if stopped:
            sent.cleared.case.close()
            self._stopped(current, sent)
        else:
            following = min(pause * 1.5, _LONGEST_FOLLOW_SECONDS)
            look = partial(self._follow, current, sent, following)
            self._later.call(pause, look, at_shutdown=look)
        return True

    def _stopped(self, current: CullPass, sent: Sent) -> None:
        server, record = sent.server, sent.record
        self._audit.stopped(server, self._clock() - sent.begun)
        self._promises.stopped(server, sent.cleared.sent)
        if self._remover is not None and server.server and record is not None:
            self._remover.plan(server, record)
        self._ended(current, server, current.count_stop(worked=True))

    def _failed(self, current: CullPass, server: JudgedServer, failed: FailedError) -> None:
        self._failures.add(server, self._clock())
        self._audit.failed(server, failed.cause, str(failed))
        self._ended(current, server, current.count_stop(worked=False))

    def _withhold(
        self, current: CullPass, candidate: JudgedServer, cause: Withheld, why: str
    ) -> None:
        self._audit.withheld(candidate, cause, why)
        self._take_back(candidate, cause)
        self._ended(current, candidate, current.count_withheld(cause))

    def _ended(self, current: CullPass, server: JudgedServer, last: bool) -> None:
        self._promises.keeper.end_stop(server)
        self._claimed.discard(server.key)
        if last:
            _say_if_nothing_works(current)
            current.done.set()


def _say_if_nothing_works(ended: CullPass) -> None:
    """Say loudly if a whole pass stopped nothing for a reason that will not go away."""
    if ended.answers and all(result is ProbeResult.FAILED for result in ended.answers):
        log.error(
            "every_busy_check_failed",
            servers=len(ended.answers),
            what_to_do="run `hub-idle-exporter check`, and read why in cull_withheld",
        )
    stale = ended.withheld[Withheld.STALE]
    if stale and not ended.stopped and not ended.failed:
        log.error(
            "every_stop_too_late",
            servers=stale,
            what_to_do="the Hub is too slow, or refuses the tokens of the probe user: run "
            "`hub-idle-exporter check`",
        )
