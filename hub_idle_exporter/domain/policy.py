"""Everything that decides whether a server is to be stopped lives here.

A `Judge` holds the rules and what the token may stop. It judges one server of one user at one
moment of the Hub's clock, twice before a stop: over the whole list, and again over what the Hub
says right before the stop. No clock, no I/O, no log.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property, lru_cache
from typing import Protocol

import msgspec
from msgspec import UnsetType

from .durations import roughly
from .keeping import Keeps, Start, kept_for
from .model import Server, User, utc
from .scopes import Granted, Scope
from .spare_query import Opinion, Spared
from .str_enum import StrEnum

DEFAULT = "default"
ServerKey = tuple[str, str]  # its user and its name, which is "" for a default server


class State(StrEnum):
    """The state in which a server is counted."""

    ACTIVE = "active"
    IDLE = "idle"
    PENDING = "pending"


class Reason(StrEnum):
    """Why a server is to be stopped."""

    IDLE = "idle"
    MAX_AGE = "max_age"


class NotCandidate(StrEnum):
    """Why a server is not a candidate; each reads on after "it"."""

    PENDING = "is starting, stopping or not ready"
    IN_USE = "was active within its limit"
    UNKNOWN = "has no known last activity"
    EXEMPT = "is exempt by its policy"
    SWITCHED_OFF = "is excluded by --cull-default-servers or --cull-named-servers"
    OUTSIDE_SCOPE = "is outside the filter of the token's delete:servers"
    KEPT = "is kept for a while"
    UNDECIDED = "may match a policy on groups, admin or user_options, which cannot be read"


# Why a server is no candidate that is past no limit.
WITHIN_LIMITS = frozenset({NotCandidate.PENDING, NotCandidate.IN_USE, NotCandidate.UNKNOWN})


@dataclass(frozen=True)
class Globs:
    """Case-sensitive globs (`fnmatchcase`); a name matches if any of them does.

    Equal if the patterns are: a policy file that is saved again unchanged changes no judge.
    """

    patterns: Sequence[str]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile("|".join(fnmatch.translate(pattern) for pattern in self.patterns))

    def match(self, name: object) -> bool:
        """Tell whether a name matches; anything but a string never does."""
        return isinstance(name, str) and self._regex.match(name) is not None


class _HasOptions(Protocol):
    def options(self) -> Mapping[str, object] | None: ...


class _ReadOnce:
    """A server while policies are tried on it: its `user_options` are decoded once at most."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._read: tuple[Mapping[str, object] | None, ...] = ()

    def options(self) -> Mapping[str, object] | None:
        if not self._read:
            self._read = (self._server.options(),)
        return self._read[0]


@dataclass(frozen=True)
class Match:
    """The conditions of a policy; all that are given must hold."""

    users: Globs | None = None
    groups: Globs | None = None
    servers: Globs | None = None
    user_options: tuple[tuple[str, Globs], ...] = ()
    named: bool | None = None
    admin: bool | None = None

    def holds(self, user: User, name: str, server: _HasOptions) -> bool | None:
        """Tell whether all conditions hold; None if too little can be seen or read to tell.

        One readable condition that fails decides, whatever else is hidden.
        """
        if not self._names_hold(user, name):
            return False
        found = [self._admin_holds(user), self._groups_hold(user)]
        if False not in found:
            found.append(self._options_hold(server))
        if False in found:
            return False
        return None if None in found else True

    def may_hold_for(self, user: User) -> bool:
        """Tell whether it may hold for any server of a user: what is about servers is ignored."""
        if self.users is not None and not self.users.match(user.name):
            return False
        return self._admin_holds(user) is not False and self._groups_hold(user) is not False

    def _names_hold(self, user: User, name: str) -> bool:
        return (
            (self.users is None or self.users.match(user.name))
            and (self.servers is None or self.servers.match(name))
            and (self.named is None or self.named == bool(name))
        )

    def _admin_holds(self, user: User) -> bool | None:
        if self.admin is None:
            return True
        return None if isinstance(user.admin, UnsetType) else user.admin == self.admin

    def _groups_hold(self, user: User) -> bool | None:
        if self.groups is None:
            return True
        if isinstance(user.groups, UnsetType):
            return None
        return any(map(self.groups.match, user.groups))

    def _options_hold(self, server: _HasOptions) -> bool | None:
        if not self.user_options:
            return True
        options = server.options()
        if options is None:
            return None
        return all(globs.match(options.get(key)) for key, globs in self.user_options)


@dataclass(frozen=True)
class Policy:
    """Limits in seconds for the servers that it matches; `max_age` 0 is no limit.

    `notice` is how long before its stop a server is announced (0: not at all), `keep_max` for how
    long people may keep a server at a time (0: not at all), in seconds. `spare_query` tells whether
    the second opinion counts, `protect_terminals` whether an open terminal protects. `own_timeout`
    tells that `timeout` is its own, and not that of the options.
    """

    name: str
    timeout: float
    max_age: float = 0.0
    exempt: bool = False
    match: Match = Match()
    own_timeout: bool = False
    notice: float = 0.0
    keep_max: float = 0.0
    spare_query: bool = True
    protect_terminals: bool = False

    @property
    def limit_within_notice(self) -> tuple[str, float] | None:
        """Return the limit, by its key, that a server would pass before it could be announced."""
        for key, limit in (("timeout", self.timeout), ("max_age", self.max_age)):
            if self.notice and limit and self.notice >= limit and not self.exempt:
                return key, limit
        return None


@dataclass(frozen=True)
class Rules:
    """The policies in order, the `default` last, and the switches of the options."""

    policies: tuple[Policy, ...]
    cull_default_servers: bool = True
    cull_named_servers: bool = True

    @property
    def need_groups(self) -> bool:
        """Tell whether any policy matches on groups."""
        return any(policy.match.groups is not None for policy in self.policies)

    @property
    def need_admin(self) -> bool:
        """Tell whether any policy matches on admin."""
        return any(policy.match.admin is not None for policy in self.policies)


class JudgedServer(msgspec.Struct, frozen=True, gc=False):
    """One server of one user with the judgement on it.

    `seen` is what the Hub said of it. `idle` and `age` are seconds, None where unknown. Exactly
    one of `reason` (stop it) and `not_candidate` (do not, and why) is set. `protection` is what
    protects it whatever its idle time and age are, None if nothing does. `kept` is for how many
    seconds it is still kept, None if it is not. `spared` is why the second opinion withholds a stop
    for idleness, None if it does not, or there is none: a candidate stays one.
    """

    user: str
    server: str
    seen: Server
    policy: Policy
    state: State
    idle: float | None
    age: float | None
    reason: Reason | None
    not_candidate: NotCandidate | None
    protection: NotCandidate | None = None
    kept: float | None = None
    spared: Spared | None = None

    @property
    def key(self) -> ServerKey:
        """Return its user and its name."""
        return self.user, self.server

    @property
    def start(self) -> Start:
        """Return the key of this start of the server."""
        started = self.seen.started
        return self.user, self.server, None if started is None else utc(started)

    @property
    def why(self) -> str:
        """Say why it is to be stopped, or why not, as words that follow "it"."""
        if self.not_candidate is NotCandidate.KEPT and self.kept is not None:
            return f"is kept for another {roughly(self.kept)}"
        if self.reason is None:
            return f"{self.not_candidate}"
        but = "" if self.spared is None else f", but {self.spared.why}"
        return f"is past its {self.reason} limit{but}"

    @property
    def would_stop(self) -> bool:
        """Tell whether it is to be stopped by all that is known before it is asked itself."""
        return self.reason is not None and self.spared is None


@dataclass(frozen=True)
class Judge:
    """Judges servers by the rules, by what the token may stop, and by what people keep.

    `opinion` is the second one, None without any. Two judges are equal if the rules and the token
    are: people may keep a server at any time, and opinions change.
    """

    rules: Rules
    granted: Granted
    keeps: Keeps = field(default_factory=dict, compare=False)
    opinion: Opinion | None = field(default=None, compare=False)

    def verdict(self, user: User, name: str, server: Server, now: float) -> JudgedServer:
        """Judge one server; `now` is the Hub's clock in seconds since 1970."""
        policy, undecided = self._only_policy or self._policy_of(user, name, server)
        idle, age = _times(server, _moment(now))
        state, reason, why_not = _decide(policy, server, idle, age)
        protection = None
        if not self._protects_nobody:
            protection = self._protection(user, name, policy, undecided)
            if protection is not None and reason is not None:
                reason, why_not = None, protection
        spared = None
        if self.opinion is not None and needs_opinion(policy, reason):
            spared = self.opinion.spares(user.name, name)
        one = JudgedServer(
            user=user.name,
            server=name,
            seen=server,
            policy=policy,
            state=state,
            idle=idle,
            age=age,
            reason=reason,
            not_candidate=why_not,
            protection=protection,
            spared=spared,
        )
        return with_keep(one, kept_for(self.keeps, one.start, now)) if self.keeps else one

    def protection(self, user: User, name: str, server: Server) -> NotCandidate | None:
        """Say what protects a server whatever its idle time and age are; None if nothing does."""
        policy, undecided = self._only_policy or self._policy_of(user, name, server)
        return self._protection(user, name, policy, undecided)

    @property
    def protects_by_server(self) -> bool:
        """Tell whether it depends on a server whether something protects it, not on its user."""
        both = self.rules.cull_default_servers and self.rules.cull_named_servers
        return not both or self.granted.filtered(Scope.DELETE_SERVERS)

    @cached_property
    def _protects_nobody(self) -> bool:
        """Tell whether no server can be protected: then there is no need to look at each."""
        rules = self.rules
        return (
            len(rules.policies) == 1
            and not rules.policies[0].exempt
            and rules.cull_default_servers
            and rules.cull_named_servers
            and not self.granted.filtered(Scope.DELETE_SERVERS)
        )

    @cached_property
    def _only_policy(self) -> tuple[Policy, bool] | None:
        """Return the policy of every server, if there is only one policy."""
        return (self.rules.policies[0], False) if len(self.rules.policies) == 1 else None

    def _policy_of(self, user: User, name: str, server: Server) -> tuple[Policy, bool]:
        """Find the first policy that holds, and whether an earlier one could not be decided."""
        undecided, seen = False, _ReadOnce(server)
        for policy in self.rules.policies[:-1]:
            holds = policy.match.holds(user, name, seen)
            if holds:
                return policy, undecided
            undecided = undecided or holds is None
        return self.rules.policies[-1], undecided

    def _protection(
        self, user: User, name: str, policy: Policy, undecided: bool
    ) -> NotCandidate | None:
        """Say what protects a server that is past a limit, max age included."""
        if undecided:
            return NotCandidate.UNDECIDED
        if policy.exempt:
            return NotCandidate.EXEMPT
        if not (self.rules.cull_named_servers if name else self.rules.cull_default_servers):
            return NotCandidate.SWITCHED_OFF
        if not self.granted.may_stop(user.name, user.groups, name):
            return NotCandidate.OUTSIDE_SCOPE
        return None


def needs_opinion(policy: Policy, reason: Reason | None) -> bool:
    """Tell whether the second opinion can spare a server; its maximum age is not held up."""
    return reason is Reason.IDLE and policy.spare_query


def with_keep(one: JudgedServer, kept: float | None) -> JudgedServer:
    """Return the verdict on a server that people keep for so many seconds (None: that they do not).

    The maximum age is not held up by that.
    """
    if kept == one.kept:
        return one
    reason, why_not = one.reason, one.not_candidate
    if why_not is NotCandidate.KEPT:
        reason, why_not = Reason.IDLE, None
    if kept is not None and reason is Reason.IDLE:
        reason, why_not = None, NotCandidate.KEPT
    return msgspec.structs.replace(one, kept=kept, reason=reason, not_candidate=why_not)


@lru_cache(maxsize=8)
def _moment(now: float) -> datetime:
    """Turn the Hub's clock into a time; a whole list is judged at the same one."""
    return datetime.fromtimestamp(now, timezone.utc)


def _times(server: Server, now: datetime) -> tuple[float | None, float | None]:
    """Return the seconds since a server was last active and since it was started.

    A time in the future counts as now. Without a known activity the start counts.
    """
    try:
        idle = (now - server.last_activity).total_seconds()  # type: ignore[operator]
        age = (now - server.started).total_seconds()  # type: ignore[operator]
    except TypeError:  # one is unknown, or has no zone
        return _since(server.last_activity or server.started, now), _since(server.started, now)
    return idle if idle > 0.0 else 0.0, age if age > 0.0 else 0.0


def _since(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max(0.0, (now - utc(moment)).total_seconds())


# What a server counts as, why it is to be stopped, why not. Made once: Python 3.11 takes longer to
# find a member of an enum than to compare two times, and this is asked for every server.
_Outcome = tuple[State, Reason | None, NotCandidate | None]
_NOT_READY: _Outcome = (State.PENDING, None, NotCandidate.PENDING)
_IN_USE: _Outcome = (State.ACTIVE, None, NotCandidate.IN_USE)
_UNKNOWN: _Outcome = (State.ACTIVE, None, NotCandidate.UNKNOWN)
_IDLE: _Outcome = (State.IDLE, Reason.IDLE, None)
_TOO_OLD: _Outcome = (State.ACTIVE, Reason.MAX_AGE, None)
_TOO_OLD_AND_IDLE: _Outcome = (State.IDLE, Reason.MAX_AGE, None)


def _decide(policy: Policy, server: Server, idle: float | None, age: float | None) -> _Outcome:
    """Name the limit that is passed. Max age comes first: being in use does not protect."""
    if server.pending or not server.ready:
        return _NOT_READY
    is_idle = idle is not None and idle >= policy.timeout
    if policy.max_age and age is not None and age >= policy.max_age:
        return _TOO_OLD_AND_IDLE if is_idle else _TOO_OLD
    if is_idle:
        return _IDLE
    return _UNKNOWN if idle is None else _IN_USE
