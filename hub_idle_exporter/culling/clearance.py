"""The last check of a candidate before its stop; any doubt withholds the stop."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import NoReturn

import structlog

from ..clocks import steady
from ..domain.busy_check import KnownKinds, ProbeAnswer, Watch, idle_at
from ..domain.keeping import Start
from ..domain.labels import ProbeResult, Withheld
from ..domain.model import Route, Server
from ..domain.notices import due_soon
from ..domain.policy import Judge, JudgedServer, NotCandidate, Reason, needs_opinion
from ..domain.poll_state import LatestState
from ..domain.settings import CullSettings
from ..hub.client import Hub, UserReading
from ..hub.errors import HubError
from ..metrics import Metrics
from ..people.promises import Promises
from . import audit
from .cull_pass import CullPass
from .gatekeeper import Gatekeeper
from .permits import LOOK_SECONDS, Permit, Permits
from .probe import DEADLINE_SECONDS, Interview, Prober

# How old what is known about the work in a server may be when its stop is sent, by our clock; it is
# asked anew if so much time has passed before the stop token is minted.
_WORK_SECONDS, _WORK_AGAIN_SECONDS = 10.0, 5.0
# With less time than this left, a server is not asked once more: it could not answer in time.
_ASKING_SECONDS = 1.0
# Routes are read once for many servers, and again once they are so old. They show traffic of which
# the Hub learns minutes later, and for a server that is no Jupyter nothing else does.
_ROUTES_SECONDS, _TRAFFIC_SECONDS = 30.0, 5.0

_SHUTDOWN = "the exporter is shutting down"
_LONGEST_QUERY = 1000  # characters of the spare query in a line of the log
_ONLY_IF_ASKED = "--once stops only servers whose busy check found them idle"
_POLICIES_CHANGED = "the policies, or the scopes of the token, have changed since it was judged"

log = structlog.get_logger()


class WithheldError(Exception):
    """A candidate is not stopped after all; `str()` says why."""

    def __init__(self, cause: Withheld, why: str) -> None:
        super().__init__(why)
        self.cause = cause


@dataclass
class Case:
    """One candidate on its way to a stop.

    `must_answer` tells whether it is stopped only if the server itself says that it is idle.
    `route_asked` is when its route was asked for, by our clock. `tries` counts how often it was
    checked.
    """

    current: CullPass
    candidate: JudgedServer
    must_answer: bool
    route: Route | None = None
    route_asked: float = 0.0
    interview: Interview | None = None
    tries: int = 0

    @property
    def start(self) -> Start:
        """Return the key of this start of the server."""
        return self.candidate.start

    @property
    def limit(self) -> float:
        """Return the idle limit by which the server's own answers are judged, in seconds."""
        policy = self.candidate.policy
        return policy.timeout - (policy.notice if self.current.announces else 0.0)

    def work_age(self, now: float) -> float:
        """Return for how long it may have been used without our knowing; 0 if that is no matter.

        Only the proxy sees whether somebody uses what is no Jupyter server.
        """
        if self.interview is None or not self.must_answer:
            return 0.0
        asked = self.interview.work_asked
        return now - (asked if self.interview.is_known_kind else min(asked, self.route_asked))

    def work_left(self, now: float) -> float:
        """Return the seconds after which the server must be asked anew what runs in it."""
        return _WORK_SECONDS - self.work_age(now)

    def close(self) -> None:
        """Revoke what was minted for it."""
        if self.interview is not None:
            self.interview.close()


@dataclass(frozen=True)
class Cleared:
    """A server that may be stopped now.

    `token` is the stop token, if there is one. `good_until` is the time of our clock from which on
    what is known about it is too old. By the Hub's clock, in seconds since 1970, the stop is sent
    after `sent`, and works until `expires`.
    """

    case: Case
    server: JudgedServer
    token: str | None
    good_until: float
    sent: float
    expires: float


class Clearance:
    """Checks everything that may withhold a stop; remembers since when servers have been busy.

    Args:
        hub: asked again about each candidate.
        prober: asks the servers themselves.
        permits: mints the stop tokens.
        gatekeeper: asked last.
        promises: what people keep, and who was told of a stop.
        latest: judges by the newest poll state.
        metrics: counts the results of busy checks.
        settings: whether servers are asked, and how long being busy protects them.
        longest_gap: the seconds between two sightings of a busy server that still count as one.
        stopping: set when the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        prober: Prober,
        permits: Permits,
        gatekeeper: Gatekeeper,
        promises: Promises,
        latest: LatestState,
        metrics: Metrics,
        settings: CullSettings,
        longest_gap: float,
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._prober, self._permits = hub, prober, permits
        self._gatekeeper, self._latest = gatekeeper, latest
        self._keeper, self._notices = promises.keeper, promises.notices
        self._metrics, self._settings = metrics, settings
        self._stopping, self._clock = stopping, clock
        self._busy, self._unanswered = Watch(longest_gap), Watch(longest_gap)
        self._kinds, self._kinds_lock = KnownKinds(), threading.Lock()
        self._said_unfed = False

    def update(self, candidates: Iterable[JudgedServer]) -> None:
        """Forget since when a server has been busy, or silent, unless it is still a candidate.

        Those that are to be announced count too. Others are gone, or were used since, which counts
        as a break.
        """
        starts = {one.start for one in candidates}
        self._busy.keep(starts)
        self._unanswered.keep(starts)

    def open(self, current: CullPass, candidate: JudgedServer) -> Case:
        """Ask the server what runs in it; raise WithheldError if that protects it."""
        _check_spared(current, candidate)
        if not current.announces:
            self._check_told(candidate)
        self._permits.clean_up()
        asks = current.safeguards.asks_servers
        if self._settings.only_if_asked and not asks:
            raise WithheldError(Withheld.UNASKED, _ONLY_IF_ASKED)
        idle = candidate.reason is Reason.IDLE
        case = Case(current, candidate, asks and (idle or self._settings.only_if_asked))
        if asks and (case.must_answer or not current.announces):
            self._begin(case)
        return case

    def _check_told(self, candidate: JudgedServer) -> None:
        """Raise WithheldError if a stop was announced that is not due yet: there is time to ask.

        One that has to be announced first is asked before that.
        """
        now = self._gatekeeper.hub_time()
        why = self._notices.not_yet(candidate, now)
        if why is not None and not self._notices.is_needed(candidate, now):
            raise WithheldError(Withheld.NOTICE, why)

    def _begin(self, case: Case) -> None:
        """Begin the interview; what may be stopped anyway only says when it was started."""
        try:
            self._ask_first(case)
        except BaseException:
            case.close()
            raise

    def _ask_first(self, case: Case) -> None:
        problem = self._reach(case)
        if not case.must_answer:
            if case.interview is not None:
                case.interview.learn_start()
        elif problem is not None:
            self._fail(case, problem)
        else:
            self._ask_work(case)

    def _reach(self, case: Case) -> str | None:
        """Find the server and mint a token for it; say why if that fails."""
        problem = self._find_route(case, _ROUTES_SECONDS)
        if problem is not None or case.route is None:
            return problem
        user, server = case.candidate.user, case.candidate.server
        try:
            case.interview = self._prober.interview(user, server, case.route)
        except HubError as error:
            return str(error)
        return None

    def _find_route(self, case: Case, oldest: float) -> str | None:
        """Find the server's route as it was `oldest` seconds ago at most; say why if that fails."""
        user, server = case.candidate.user, case.candidate.server
        try:
            case.route, case.route_asked = case.current.routes.find(user, server, oldest)
        except HubError as error:
            return f"the proxy's routes could not be read: {error}"
        return "the proxy has no route to it" if case.route is None else None

    def clear(self, case: Case) -> Cleared:
        """Return the server as it is now if it may be stopped; else raise WithheldError.

        The stop token is minted before the server is looked at: it is as old as what is known.
        """
        case.tries += 1
        if case.tries > 1 or case.work_age(self._clock()) > _WORK_AGAIN_SECONDS:
            self._ask_work(case)
        if self._notices.is_needed(case.candidate, self._gatekeeper.hub_time()):
            self.announce(case)
        with self._hub.in_turn():
            permit = self._permit(case)
            looked, judge = self._clock(), self._judge
            fresh, now = self._check_again(case, judge)
        early = self._notices.not_yet(fresh, now)
        if early is not None:
            raise WithheldError(Withheld.NOTICE, early)
        good_until = looked + LOOK_SECONDS if permit is None else permit.good_until
        good_until = min(good_until, self._clock() + case.work_left(self._clock()))
        if case.must_answer and self._clock() + _ASKING_SECONDS < good_until:
            unused = max(case.limit, self._notices.told_for(fresh, now))
            self._ask_last(case, unused, now, good_until)
        elif case.must_answer:
            good_until = self._clock()  # too late to ask once more: the stop is prepared anew
        _check_spared(case.current, fresh)
        self._check_gate(judge)
        if permit is None:
            return Cleared(case, fresh, None, good_until, now, now + LOOK_SECONDS)
        return Cleared(case, fresh, permit.token, good_until, permit.created, permit.expires)

    def announce(self, case: Case) -> None:
        """Announce the stop of a server that is not in use; raise WithheldError if it is."""
        judge = self._judge
        fresh, now = self._check_again(case, judge)
        if case.must_answer:
            self._ask_last(case, case.limit, now, self._clock() + DEADLINE_SECONDS)
        _check_spared(case.current, fresh)
        self._check_gate(judge)
        self._notices.announce(fresh, now)

    @property
    def _judge(self) -> Judge:
        """Return the judge of now, who knows what people keep."""
        return replace(self._latest.state.judge, keeps=self._keeper.keeps)

    def _permit(self, case: Case) -> Permit | None:
        if not case.current.safeguards.stop_tokens:
            return None
        user, server = case.candidate.user, case.candidate.server
        try:
            left = case.work_left(self._clock())
            return self._permits.mint(user, server, left)
        except HubError as error:
            why = f"no stop token could be minted: {error}"
            raise WithheldError(Withheld.PROBE_FAILED, why) from None

    def _check_gate(self, judge: Judge) -> None:
        """Raise WithheldError unless stops are allowed now, by the policies of before."""
        if self._latest.state.judge != judge:
            raise WithheldError(Withheld.POLICY, _POLICIES_CHANGED)
        closed = _SHUTDOWN if self._stopping.is_set() else self._gatekeeper.closed()
        if closed is not None:
            raise WithheldError(Withheld.GATE, closed)

    def _check_again(self, case: Case, judge: Judge) -> tuple[JudgedServer, float]:
        """Fetch the user again: it must be the same server, and still a candidate."""
        candidate = case.candidate
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
        return self._judge_again(case, reading, server, judge), reading.now

    def _judge_again(
        self, case: Case, reading: UserReading, server: Server, judge: Judge
    ) -> JudgedServer:
        candidate = case.candidate
        judged = judge.verdict(reading.user, candidate.server, server, reading.now)
        if case.current.announces:
            soon = (one for one in due_soon(judged) if one.reason is candidate.reason)
            judged = next(soon, judged)
        why_not = judged.not_candidate
        if why_not is NotCandidate.PENDING:
            raise WithheldError(Withheld.PENDING, f"it {why_not}")
        if why_not in (NotCandidate.IN_USE, NotCandidate.UNKNOWN):
            raise WithheldError(Withheld.ACTIVE_AGAIN, f"it {why_not}")
        if why_not is NotCandidate.KEPT:
            raise WithheldError(Withheld.KEPT, f"it {judged.why}")
        if why_not is not None:
            raise WithheldError(Withheld.POLICY, f"it {why_not} (policy {judged.policy.name})")
        if judged.policy != candidate.policy:
            raise WithheldError(Withheld.POLICY, _POLICIES_CHANGED)
        if judged.reason is Reason.IDLE and candidate.reason is not Reason.IDLE:
            raise WithheldError(Withheld.POLICY, _POLICIES_CHANGED)
        return judged

    def _ask_work(self, case: Case) -> None:
        """Ask what runs in the server; raise WithheldError if it is in use."""
        if case.interview is None or not case.must_answer:
            return
        protects_terminals = case.candidate.policy.protect_terminals
        answer = case.interview.ask_work(case.limit, protects_terminals)
        if case.interview.is_known_kind:
            with self._kinds_lock:
                self._kinds.answered(*case.start)
        if answer.result is ProbeResult.NO_JUPYTER:
            problem = self._find_route(case, _TRAFFIC_SECONDS)
            if problem is not None:
                self._fail(case, problem)
        if answer.result in (ProbeResult.IDLE, ProbeResult.NO_JUPYTER):
            self._busy.ended(case.start)  # what is counted is the last answer
        else:
            self._judge_answer(case, answer)

    def _ask_last(self, case: Case, limit: float, now: float, deadline: float) -> None:
        """Ask whether the server was active within so many seconds.

        `now` is the Hub's clock, `deadline` is ours.
        """
        interview, route = case.interview, case.route
        if interview is None or route is None:
            return
        traffic = idle_at([route.data.last_activity], now)
        if traffic is not None and traffic < limit:
            why = f"the proxy saw traffic {traffic:.0f} s ago"
            answer = ProbeAnswer(ProbeResult.ACTIVE, why)
        else:
            last = min(deadline, self._clock() + DEADLINE_SECONDS)
            answer = interview.ask_activity(limit, last) or self._at_rest(case, interview, route)
        self._judge_answer(case, answer)

    def _at_rest(self, case: Case, interview: Interview, route: Route) -> ProbeAnswer:
        """Judge a server that was not active by its own word, or did not give any."""
        if interview.is_known_kind:
            return ProbeAnswer(ProbeResult.IDLE, "asked: idle")
        with self._kinds_lock:
            known = self._kinds.has(*case.start)
        if known:
            why = "it answered as a Jupyter server before, and no longer does"
            return ProbeAnswer(ProbeResult.FAILED, why)
        if route.data.last_activity is None:
            self._say_unfed()
            why = "it is not a Jupyter server, and the proxy does not record its activity"
            return ProbeAnswer(ProbeResult.FAILED, why)
        why = "it is not a Jupyter server: last_activity decides"
        return ProbeAnswer(ProbeResult.NO_JUPYTER, why)

    def _judge_answer(self, case: Case, answer: ProbeAnswer) -> None:
        """Count what a server answered; raise WithheldError if that protects it."""
        if answer.result is not ProbeResult.FAILED:
            self._unanswered.ended(case.start)
        if answer.result is ProbeResult.BUSY:
            self._count(case, answer)
            self._protect_busy(case, answer.why)
            return
        if answer.result is ProbeResult.FAILED:
            self._unusable(case, answer.why)
            return
        self._count(case, answer)
        if answer.result is ProbeResult.ACTIVE:
            self._busy.ended(case.start)
            raise WithheldError(Withheld.ACTIVE_AGAIN, answer.why)
        if self._settings.only_if_asked and answer.result is not ProbeResult.IDLE:
            raise WithheldError(Withheld.UNASKED, f"{_ONLY_IF_ASKED} ({answer.why})")

    def _count(self, case: Case, answer: ProbeAnswer) -> None:
        self._metrics.busy_checks.labels(answer.result).inc()
        case.current.answers.append(answer.result)

    def _unusable(self, case: Case, why: str) -> None:
        """Withhold a server that gave no usable answer, unless that has been so for too long."""
        most = self._settings.max_unanswered
        seconds = self._unanswered.seen(case.start, self._clock())
        if not most or seconds < most or self._settings.only_if_asked:
            self._fail(case, why)
        self._count(case, ProbeAnswer(ProbeResult.FAILED, why))
        log.warning("unanswered_limit_reached", **audit.fields(case.candidate), why=why)
        case.must_answer = False

    def _fail(self, case: Case, why: str) -> NoReturn:
        """Withhold a server that could not be asked."""
        self._count(case, ProbeAnswer(ProbeResult.FAILED, why))
        self._check_again(case, self._judge)  # it may be gone
        raise WithheldError(Withheld.PROBE_FAILED, why)

    def _protect_busy(self, case: Case, why: str) -> None:
        """Withhold the stop of a busy server, unless it has been busy for `max_busy`."""
        seconds = self._busy.seen(case.start, self._clock())
        if seconds < self._settings.max_busy:
            raise WithheldError(Withheld.BUSY, f"{why}, for at least {seconds:.0f} s")
        fields = audit.fields(case.candidate)
        log.warning("busy_limit_reached", **fields, seconds_busy=seconds, why=why)

    def _say_unfed(self) -> None:
        if not self._said_unfed:
            self._said_unfed = True
            log.warning(
                "activity_not_recorded",
                why="the proxy's routes have no last_activity (Traefik has none), so nothing tells "
                "whether a server is in use that is not a Jupyter server: these are not stopped",
            )


def _check_spared(current: CullPass, one: JudgedServer) -> None:
    """Raise WithheldError if the second opinion spares a candidate.

    That costs a request each 30 s, for all servers together.
    """
    if not needs_opinion(one.policy, one.reason):
        return
    opinion = current.opinion.now()
    spared = None if opinion is None else opinion.spares(one.user, one.server)
    if opinion is not None and spared is not None:
        query = shorten(opinion.query, _LONGEST_QUERY, placeholder=" …")
        raise WithheldError(spared.cause, f"{spared.why} (--spare-query {query})")
