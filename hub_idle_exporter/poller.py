"""One poll, start to end: read the Hub, judge all of it, publish, and hand on what is to stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from msgspec import UnsetType

from .culling.culler import Culler, Pass
from .culling.gatekeeper import Gatekeeper
from .domain.census import Judged, idle_server_seconds, judge_all, survey
from .domain.durations import shown
from .domain.labels import Cause
from .domain.policy import Judge, Policy, Rules, Spared
from .domain.scopes import PURPOSE, Granted, Scope
from .hub.client import Hub, HubError, Listing, version_numbers
from .metrics import Metrics, Snapshot
from .policy_file import PolicySource, chosen_by_users

OLDEST_HUB = (2, 0)
OLDEST_HUB_TO_ENFORCE = (3, 0)
_INTERVALS_COUNTED = 3
# Below this a person at work may look idle: the Hub learns of activity every 300 s, give or take.
_SHORT_TIMEOUT = 600.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Sight:
    """What one reading of the Hub gave."""

    version: str
    granted: Granted
    listing: Listing


@dataclass(frozen=True)
class Terms:
    """How polls are judged; `interval` in seconds, `busy_check` is `auto`, `require` or `off`."""

    default: Policy
    cull_default_servers: bool = True
    cull_named_servers: bool = True
    enforce: bool = False
    busy_check: str = "auto"
    probe_user: str = "idle-prober"
    interval: float = 60.0
    per_server_metrics: bool = False


def look(hub: Hub, note: Callable[[Granted], None] = lambda _granted: None) -> Sight:
    """Read the whole Hub: its version, our scopes, all servers. Raise HubError otherwise.

    The scopes are handed to `note` as soon as they are known: one that is missing is shown even
    where nothing else can be read.
    """
    checked_version(hub.version or hub.ask_version())
    granted = Granted.of(hub.identity().scopes)
    note(granted)
    version = checked_version(hub.version or "")
    for scope in (Scope.LIST_USERS, Scope.READ_SERVERS):
        if not granted.has(scope):
            raise HubError(Cause.SCOPE, f"the token lacks the scope {scope}, {PURPOSE[scope]}")
    listing = hub.users()
    if listing.unseen and not granted.filtered(Scope.READ_SERVERS):
        raise HubError(
            Cause.SCOPE, f"the Hub hides the servers of {listing.unseen} users from the token"
        )
    return Sight(version, granted, listing)


def checked_version(version: str) -> str:
    """Give the version back; raise HubError when it is too old to be polled."""
    if version_numbers(version) < OLDEST_HUB:
        raise HubError(
            Cause.RESPONSE,
            f"JupyterHub {version!r} is too old: 2.0 or newer can be monitored, 3.0 culled",
        )
    return version


def obstacles(sight: Sight, terms: Terms, rules: Rules) -> list[str]:
    """Say what forbids stopping anything, though the Hub could be read."""
    missing = [Scope.READ_GROUPS] if rules.need_groups else []
    missing += [Scope.DELETE_SERVERS] if terms.enforce else []
    found = [
        f"the token lacks the scope {scope}, {PURPOSE[scope]}"
        for scope in missing
        if not sight.granted.has(scope)
    ]
    if not found and _is_blind(sight.listing, rules):
        found.append(
            "a policy matches on groups or admin, which the token cannot see of everyone: "
            "grant read:users:groups without a filter"
        )
    if terms.enforce and version_numbers(sight.version) < OLDEST_HUB_TO_ENFORCE:
        found.append(f"JupyterHub {sight.version} is too old to cull: 3.0 or newer is needed")
    if (
        terms.enforce
        and terms.busy_check == "require"
        and not can_ask(sight.version, sight.granted, terms)
    ):
        found.append(f"--busy-check require: {asking_needs(sight.version, terms)}")
    return found


def _is_blind(listing: Listing, rules: Rules) -> bool:
    """Tell whether a policy matches on what is hidden of somebody whose servers are seen."""
    groups, admin = rules.need_groups, rules.need_admin
    return (groups or admin) and any(
        (groups and isinstance(user.groups, UnsetType))
        or (admin and isinstance(user.admin, UnsetType))
        for user in listing.users.values()
        if user.seen_servers
    )


def can_ask(version: str, granted: Granted, terms: Terms) -> bool:
    """Tell whether servers can be asked before a stop."""
    if terms.busy_check == "off":
        return False
    return all(map(granted.allows, asking_scopes(version, terms)))


def asking_scopes(version: str, terms: Terms) -> list[str]:
    """Name the scopes that asking servers needs.

    A Hub before 6.1 that is asked by a service to mint a token looks for the user's name among
    the services of the filter; the one of the right kind is what revokes the token.
    """
    needed = [Scope.PROXY, f"tokens!user={terms.probe_user}"]
    if version_numbers(version) < (6, 1):
        needed.append(f"tokens!service={terms.probe_user}")
    return needed


def asking_needs(version: str, terms: Terms) -> str:
    """Say what asking servers needs."""
    return f"asking servers needs the scopes {', '.join(asking_scopes(version, terms))}"


class Poller:
    """Polls, publishes, and starts culling; each event is logged when it changes, not each poll.

    Args:
        hub: what is polled.
        source: the policy file; None without one.
        terms: limits and switches of the options.
        gatekeeper: told how each poll ended.
        culler: None in monitor mode.
        metrics: where everything is published.
        clock: our monotonic clock.
        wall: our wall clock, seconds since 1970.
    """

    def __init__(
        self,
        hub: Hub,
        source: PolicySource | None,
        terms: Terms,
        gatekeeper: Gatekeeper,
        culler: Culler | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._hub, self._source, self._terms = hub, source, terms
        self._gatekeeper, self._culler, self._metrics = gatekeeper, culler, metrics
        self._clock, self._wall = clock, wall
        self._last_good_poll: float | None = None  # by the Hub's clock
        self._not_before = 0.0  # the Hub asked to be left alone until then
        self._said: dict[str, object] = {}
        self.last_success: float | None = None  # by our monotonic clock
        self.last_error: HubError | None = None
        self.failing_since: float | None = None  # by our monotonic clock
        self.last_pass: Pass | None = None
        metrics.poll_interval.set(terms.interval)

    @property
    def rules(self) -> Rules:
        """Give the rules that hold now."""
        policies = self._source.policies if self._source else (self._terms.default,)
        terms = self._terms
        return Rules(policies, terms.cull_default_servers, terms.cull_named_servers)

    @property
    def policy_error(self) -> str | None:
        """Say what is wrong with the policy file as it is now; None when nothing is."""
        return self._source.error if self._source else None

    def poll(self) -> bool:
        """Poll once; tell whether it worked."""
        begun = self._clock()
        if begun < self._not_before:
            return False
        self._refresh_policies()
        self._metrics.polls.inc()
        try:
            sight = look(self._hub, self._metrics.granted)
        except HubError as error:
            self._failed(error)
            return False
        finally:
            self._time(begun)
        self._succeeded(sight)
        return True

    def heartbeat(self) -> None:
        """See whether the Hub is there, unless it has answered just now: outages must be seen."""
        seen = self._gatekeeper.seconds_since_answer()
        if seen < heartbeat_seconds(self._terms.interval) / 2 or self._clock() < self._not_before:
            return
        try:
            self._hub.ask_version()
        except HubError as error:
            log.debug("hub_unseen", error=str(error), seconds=seen)

    def _time(self, begun: float) -> None:
        seconds = self._clock() - begun
        self._metrics.poll_duration.set(seconds)
        if seconds > self._terms.interval:
            log.warning("poll_outlasts_interval", seconds=seconds, interval=self._terms.interval)

    def _failed(self, error: HubError) -> None:
        self._metrics.poll_failures.labels(error.cause).inc()
        # The error comes first: whoever finds no snapshot is to find out why.
        self.last_error = error
        if self.failing_since is None:
            self.failing_since = self._clock()
        self._metrics.facts.snapshot = None
        self._gatekeeper.poll_ended(f"the last poll failed: {error}")
        self._not_before = self._clock() + error.retry_after
        why = str(error)
        self._say("poll", why, log.error, "poll_failed", cause=error.cause, error=why)

    def _succeeded(self, sight: Sight) -> None:
        rules, listing = self.rules, sight.listing
        judge = Judge(rules, sight.granted)
        census, judged = survey(judge, listing.users.values(), listing.now)
        self._count_idle(judged, listing.now)
        named = listing.users.values() if self._terms.per_server_metrics else ()
        shown = tuple(judge_all(judge, named, listing.now))
        self._metrics.facts.snapshot = Snapshot(sight.version, census, shown)
        self._metrics.last_success.set(self._wall())
        self.last_success, self.last_error, self.failing_since = self._clock(), None, None
        self._announce(sight, rules, sum(census.servers.values()))
        self._announce_reach(judged)
        self._cull(sight, judge, census.candidates)

    def _count_idle(self, judged: list[Judged], now: float) -> None:
        since, self._last_good_poll = self._last_good_poll, now
        if since is None:
            return  # of the time before the first poll nothing was seen
        longest = _INTERVALS_COUNTED * self._terms.interval
        for policy, seconds in idle_server_seconds(judged, max(0.0, now - since), longest).items():
            self._metrics.idle_server_seconds.labels(policy).inc(seconds)

    def _cull(self, sight: Sight, judge: Judge, candidates: tuple[Judged, ...]) -> None:
        self._gatekeeper.poll_ended(*obstacles(sight, self._terms, judge.rules))
        asks = can_ask(sight.version, sight.granted, self._terms)
        self._metrics.busy_check.set(asks and self._terms.enforce)
        if self._culler is None:
            return
        self._culler.learn(judge, candidates)
        if self._gatekeeper.closed() is not None:
            return
        if not sight.listing.whole:
            log.warning("list_changed_while_read", candidates_spared=len(candidates))
            self._culler.spare(candidates, "the list changed too much while it was read")
            return
        self.last_pass = self._culler.begin(candidates, asks)

    def _announce(self, sight: Sight, rules: Rules, servers: int) -> None:
        """Say what changed since the last good poll."""
        self._say("poll", None, log.info, "poll_works", version=sight.version, servers=servers)
        unseen = sight.listing.unseen
        write = log.warning if unseen else log.debug
        self._say("unseen", unseen, write, "users_out_of_sight", users=unseen)
        why = "; ".join(obstacles(sight, self._terms, rules))
        event = "cannot_enforce" if self._terms.enforce else "cannot_judge"
        if why:
            self._say("obstacles", why, log.error, event, why=why)
        else:
            self._say("obstacles", why, log.debug, "no_obstacles")
        if self._terms.enforce:
            self._announce_busy_check(sight)

    def _announce_reach(self, judged: list[Judged]) -> None:
        beyond = sum(one.verdict.spared is Spared.REACH for one in judged)
        if beyond:
            why = "past their limit, but not seen to be inside the filter of delete:servers"
            self._say("reach", True, log.info, "servers_out_of_reach", servers=beyond, why=why)
        else:
            self._say("reach", False, log.debug, "all_in_reach")

    def _announce_busy_check(self, sight: Sight) -> None:
        asks = can_ask(sight.version, sight.granted, self._terms)
        if asks or self._terms.busy_check == "off":
            self._say("busy", asks, log.info, "busy_check", on=asks)
            return
        why = (
            f"{asking_needs(sight.version, self._terms)}: going by last_activity alone, "
            "which does not see silent computations"
        )
        self._say("busy", why, log.warning, "busy_check_impossible", why=why)

    def _say(
        self, topic: str, what: object, write: Callable[..., object], event: str, **fields: object
    ) -> None:
        """Log an event on a topic where it, or `what` it says, differs from the last one."""
        if self._said.get(topic) != (event, what):
            self._said[topic] = (event, what)
            write(event, **fields)

    def _refresh_policies(self) -> None:
        if self._source is None or not self._source.refresh():
            return
        if self._source.error is not None:
            self._metrics.reload_failures.inc()
            log.error("policy_file_refused", error=self._source.error, kept="the last good one")
            return
        self._metrics.reloads.inc()
        self._metrics.know(self._source.policies)
        log.info("policy_file_read_again", policies=[p.name for p in self._source.policies])
        warn_of(self._source.policies)


def warn_of(policies: tuple[Policy, ...]) -> None:
    """Log what may surprise about policies, at the start and whenever their file is read again."""
    for policy in policies:
        if policy.timeout < _SHORT_TIMEOUT and not policy.exempt:
            log.warning(
                "short_timeout",
                policy=policy.name,
                timeout=shown(policy.timeout),
                why="the Hub learns of activity only every 5 minutes or so: people at work may "
                "look idle; 10m or more is safe",
            )
    for name in chosen_by_users(policies):
        log.warning(
            "exemption_by_users",
            policy=name,
            why="user_options and server names are chosen by users: anyone may exempt themselves",
        )


def heartbeat_seconds(interval: float) -> float:
    """Give how often the Hub is to be seen: often enough to notice an outage of a minute."""
    return min(interval, 30.0)
