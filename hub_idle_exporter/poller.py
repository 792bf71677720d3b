"""One poll from start to end: observe the Hub, publish the new state, start culling."""

from collections.abc import Callable

import structlog

from .clocks import read_clocks
from .culling.cull_pass import CullPass
from .culling.enforcement import Enforcement
from .culling.gatekeeper import Gatekeeper
from .domain.blind_spots import CHOSEN_BY_USERS, TOO_SHORT, chosen_by_users, is_short
from .domain.census import idle_server_seconds
from .domain.durations import shown
from .domain.gate import ClockReading
from .domain.policy import NotCandidate, Policy
from .domain.poll_state import LatestState, PollError, PollState, Snapshot
from .domain.requirements import Severity
from .domain.settings import PollSettings
from .domain.spare_query import Opinion
from .hub.errors import HubError
from .metrics import Metrics
from .observer import Observer
from .policy_file import PolicySource

_INTERVALS_COUNTED = 3
# The Hub is contacted at least this often, so that an outage of a minute is noticed.
_HEARTBEAT_SECONDS = 30.0
LIST_CHANGED = "the list of users changed too much while it was read"

log = structlog.get_logger()


class Poller:
    """Polls, publishes and starts culling; a state is logged when it changes, not at each poll.

    Args:
        observer: reads the Hub.
        source: the policy file; None without one.
        latest: where the new state is published.
        settings: the interval.
        gatekeeper: asked whether anything may be stopped.
        enforcement: stops servers; None in monitor mode.
        metrics: where everything is counted.
        clocks: reads our clocks.
    """

    def __init__(
        self,
        observer: Observer,
        source: PolicySource | None,
        latest: LatestState,
        settings: PollSettings,
        gatekeeper: Gatekeeper,
        enforcement: Enforcement | None,
        metrics: Metrics,
        clocks: Callable[[], ClockReading] = read_clocks,
    ) -> None:
        self._observer, self._source = observer, source
        self._latest, self._settings = latest, settings
        self._gatekeeper, self._enforcement = gatekeeper, enforcement
        self._metrics = metrics
        self._clocks = clocks
        self._counted_until: float | None = None  # idle time, by the Hub's clock
        self._not_before = 0.0  # the Hub asked us to wait until then, monotonic
        self._logged: dict[str, object] = {}
        self.last_pass: CullPass | None = None
        self.last_announcing: CullPass | None = None

    def poll(self) -> bool:
        """Poll once; tell whether it succeeded."""
        if self._clocks().monotonic < self._not_before:
            return False
        self._refresh_policies()
        self._metrics.polls.inc()
        state = self._observer.observe(self._latest.state, self._settings.keeps_all)
        self._metrics.render_ahead(state)
        self._latest.state = state
        self._log_duration(state.duration)
        if state.error is not None:
            self._failed(state.error)
        if state.snapshot is None:
            return False
        self._count_idle(state.snapshot)
        self._log_changes(state, state.snapshot)
        self._gatekeeper.tell_if_grace_is_over()
        self._cull(state, state.snapshot)
        return True

    def heartbeat(self) -> None:
        """Check that the Hub answers, unless it just did: outages must be noticed."""
        self._gatekeeper.tell_if_grace_is_over()
        seconds = self._gatekeeper.seconds_since_answer()
        just_now = seconds < heartbeat_seconds(self._settings.interval) / 2
        if just_now or self._clocks().monotonic < self._not_before:
            return
        try:
            self._observer.see_hub()
        except HubError as error:
            log.debug("hub_unreachable", error=str(error), seconds=seconds)

    def _failed(self, error: PollError) -> None:
        self._metrics.poll_failures.labels(error.cause).inc()
        self._not_before = self._clocks().monotonic + error.retry_after
        fields = {"cause": error.cause, "error": error.sentence}
        self._log_on_change("poll", error.sentence, log.error, "poll_failed", **fields)

    def _count_idle(self, snapshot: Snapshot) -> None:
        since, self._counted_until = self._counted_until, snapshot.read_at
        if since is None:
            return  # nothing is known about the time before the first poll
        elapsed = max(0.0, snapshot.read_at - since)
        longest = _INTERVALS_COUNTED * self._settings.interval
        for policy, seconds in idle_server_seconds(
            snapshot.census.past_limit, elapsed, longest
        ).items():
            self._metrics.idle_server_seconds.labels(policy).inc(seconds)

    def _cull(self, state: PollState, snapshot: Snapshot) -> None:
        if self._enforcement is None:
            return
        culler, candidates = self._enforcement.culler, snapshot.census.candidates
        due_soon, promises = snapshot.census.due_soon, self._enforcement.promises
        culler.update(candidates, due_soon)
        promises.file.look_after(snapshot.read_at)
        if snapshot.complete:
            promises.notices.update((*candidates, *due_soon), snapshot.read_at)
        if state.suspended_by:
            self._enforcement.election.release()  # another exporter may be able to
        else:
            self._enforcement.election.take()
        if self._gatekeeper.closed() is not None:
            return
        if not snapshot.complete:
            log.warning("list_changed_while_read", candidates_withheld=len(candidates))
            culler.withhold(candidates, LIST_CHANGED)
            return
        self.last_pass = culler.begin(candidates, state.safeguards)
        self.last_announcing = culler.announce(due_soon, state.safeguards)

    def _log_changes(self, state: PollState, snapshot: Snapshot) -> None:
        """Log what differs from the last successful poll."""
        servers = snapshot.census.total
        self._log_on_change(
            "poll", None, log.info, "poll_succeeded", version=state.version, servers=servers
        )
        hidden = snapshot.hidden_users
        write = log.warning if hidden else log.debug
        self._log_on_change("hidden", hidden, write, "users_hidden", users=hidden)
        self._log_opinion(state.opinion)
        self._log_unreadable(snapshot)
        self._log_findings(state)
        self._log_reach(snapshot)

    def _log_opinion(self, opinion: Opinion | None) -> None:
        if opinion is None:
            return
        problem, query = opinion.problem, opinion.query
        if problem is not None:
            why = "until then, only servers of policies without it are stopped for being idle"
            fields = {"error": problem, "query": query, "why": why}
            self._log_on_change("opinion", True, log.error, "spare_query_failed", **fields)
        else:
            users = len(opinion.values)
            self._log_on_change("opinion", False, log.info, "spare_query_answered", users=users)

    def _log_unreadable(self, snapshot: Snapshot) -> None:
        unreadable = snapshot.unreadable
        write = log.warning if unreadable else log.debug
        self._log_on_change(
            "unreadable",
            unreadable,
            write,
            "users_unreadable",
            users=len(unreadable),
            names=snapshot.some_unreadable,
        )

    def _log_findings(self, state: PollState) -> None:
        self._log_of_users(state)
        unmet = [one for one in state.findings if one.severity is Severity.SUSPENDS]
        needed = {"roles": _in_one_line(state.roles)} if state.roles else {}
        why = "; ".join(map(str, unmet))
        if unmet:
            fields = {"why": why} | needed
            self._log_on_change("findings", why, log.error, "requirements_not_met", **fields)
        else:
            self._log_on_change("findings", why, log.debug, "requirements_met")
        if self._enforcement is None or unmet:
            return
        lacks = "; ".join(state.safeguards.lacks)
        if lacks:
            fields = {"why": lacks} | needed
            self._log_on_change("safe", lacks, log.warning, "safeguards_missing", **fields)
        else:
            self._log_on_change("safe", None, log.info, "safeguards_complete")

    def _log_of_users(self, state: PollState) -> None:
        """Log what keeps all idle users; what suspends culling as a whole is logged anyway."""
        unmet = [one for one in state.findings if one.severity is Severity.KEEPS_USERS]
        why = "; ".join(map(str, unmet))
        if unmet:
            fields = {"why": why, "roles": _in_one_line(state.roles)}
            self._log_on_change("users", why, log.error, "user_requirements_not_met", **fields)
        else:
            self._log_on_change("users", why, log.debug, "user_requirements_met")

    def _log_reach(self, snapshot: Snapshot) -> None:
        outside = sum(
            one.not_candidate is NotCandidate.OUTSIDE_SCOPE for one in snapshot.census.past_limit
        )
        if outside:
            why = "past their limit, but not known to be inside the filter of delete:servers"
            self._log_on_change(
                "reach", True, log.info, "servers_outside_scope", servers=outside, why=why
            )
        else:
            self._log_on_change("reach", False, log.debug, "all_servers_in_scope")

    def _log_duration(self, seconds: float) -> None:
        interval = self._settings.interval
        if seconds > interval:
            log.warning("poll_exceeded_interval", seconds=seconds, interval=interval)

    def _log_on_change(
        self, topic: str, what: object, write: Callable[..., object], event: str, **fields: object
    ) -> None:
        """Log an event on a topic when it, or `what` it says, differs from the last one."""
        if self._logged.get(topic) != (event, what):
            self._logged[topic] = (event, what)
            write(event, **fields)

    def _refresh_policies(self) -> None:
        if self._source is None or not self._source.refresh():
            return
        if self._source.error is not None:
            self._metrics.reload_failures.inc()
            log.error("policy_file_invalid", error=self._source.error, kept="the previous policies")
            return
        self._metrics.reloads.inc()
        self._metrics.preregister_policies(self._source.value)
        log.info("policy_file_reloaded", policies=[p.name for p in self._source.value])
        warn_of_policies(self._source.value)


def _in_one_line(roles: str) -> str:
    """Write roles so that they can be pasted from a log of one line an event."""
    return "".join(line.strip() for line in roles.splitlines())


def warn_of_policies(policies: tuple[Policy, ...]) -> None:
    """Warn about risky policies, at the start and after each reload of their file."""
    for policy in filter(is_short, policies):
        log.warning(
            "short_timeout", policy=policy.name, timeout=shown(policy.timeout), why=TOO_SHORT
        )
    for name in chosen_by_users(policies):
        log.warning("exemption_chosen_by_users", policy=name, why=CHOSEN_BY_USERS)


def heartbeat_seconds(interval: float) -> float:
    """Return the seconds between two heartbeats."""
    return min(interval, _HEARTBEAT_SECONDS)
