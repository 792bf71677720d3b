"""When may a server be stopped? The contract and the issues told once more, in other words.

Written from contract.md, jupyterhub-facts.md and the issues alone, before the code under test was
read; it shares no line with it. Everything comes in as the Hub sends it, decoded from JSON, with
times as text. Where these rules and the code disagree, the contract says who is right.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any

Json = dict[str, Any]
MINUTE = 60


def moment(text: str | None) -> datetime | None:
    """Read a time of the Hub; without a zone it is UTC."""
    if text is None:
        return None
    read = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return read if read.tzinfo else read.replace(tzinfo=timezone.utc)


def elapsed(text: str | None, now: datetime) -> timedelta | None:
    """Tell how long ago that was; the future counts as this very moment."""
    then = moment(text)
    return None if then is None else max(now - then, timedelta())


# ---- which policy -------------------------------------------------------------------------------


def any_glob(patterns: str | list[str], text: object) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns
    return isinstance(text, str) and any(fnmatchcase(text, pattern) for pattern in listed)


def condition_holds(key: str, wanted: Any, user: Json, server_name: str) -> bool | None:
    """Test one condition of a `match`; None: the token sees too little to tell."""
    if key == "users":
        return any_glob(wanted, user["name"])
    if key == "servers":
        return any_glob(wanted, server_name)
    if key == "named":
        return bool(wanted == (server_name != ""))
    if key == "admin":
        return bool(user["admin"] == wanted) if "admin" in user else None
    if key == "groups":
        if "groups" not in user:
            return None
        return any(any_glob(wanted, group) for group in user["groups"])
    assert key == "user_options", key
    chosen = user["servers"][server_name].get("user_options")
    if not isinstance(chosen, dict):
        return False
    return all(any_glob(globs, chosen.get(option)) for option, globs in wanted.items())


def possible_policies(user: Json, server_name: str, options: Json) -> list[Json]:
    """List the policies that may be the server's: one, unless something is hidden."""
    possible = []
    for policy in options["policies"]:
        held = [
            condition_holds(key, wanted, user, server_name)
            for key, wanted in policy["match"].items()
        ]
        if False in held:
            continue
        possible.append(policy)
        if None not in held:
            return possible
    return [*possible, {"name": "default"}]


# ---- what counts as what ------------------------------------------------------------------------


@dataclass(frozen=True)
class Opinion:
    """What a server may count as, and why it is to be stopped (None: it is not)."""

    policies: list[str]
    states: set[str]
    reason: str | None


def limit_of(policy: Json, options: Json) -> float:
    return float((options | policy)["timeout"])


def state_of(server: Json, limit: float, now: datetime) -> str:
    if server.get("pending") is not None or not server.get("ready"):
        return "pending"
    quiet = elapsed(server.get("last_activity") or server.get("started"), now)
    return "idle" if quiet is not None and quiet.total_seconds() >= limit else "active"


def delete_reaches(user: Json, server_name: str, scopes: list[str]) -> bool:
    """Tell whether the token is sure to be allowed to stop this server, or has no scope at all.

    Without `delete:servers` it is the gate that stays shut: such servers are still candidates.
    """
    held = [scope for scope in scopes if scope.split("!")[0] == "delete:servers"]
    if not held or "delete:servers" in held:
        return True
    filters = [scope.split("!", 1)[1] for scope in held]
    mine = [f"user={user['name']}", f"server={user['name']}/{server_name}"]
    mine += [f"group={group}" for group in user.get("groups", [])]
    if any(known in filters for known in mine):
        return True
    if "groups" in user:
        return False
    # Its groups are hidden, but it is seen: by a filter which, when they are the same, stops too.
    seen_by = [scope for scope in scopes if scope.split("!")[0] == "read:servers"]
    return (
        bool(seen_by)
        and "read:servers" not in seen_by
        and all(scope.split("!", 1)[1] in filters for scope in seen_by)
    )


def reason_to_stop(user: Json, name: str, policy: Json, options: Json, now: datetime) -> str | None:
    """Name the limit that is passed and that nothing protects from."""
    server = user["servers"][name]
    limit = limit_of(policy, options)
    if policy.get("exempt") or state_of(server, limit, now) == "pending":
        return None
    if not options["cull_named_servers" if name else "cull_default_servers"]:
        return None
    oldest, age = policy.get("max_age", options["max_age"]), elapsed(server.get("started"), now)
    if oldest and age is not None and age.total_seconds() >= oldest:
        return "max_age"  # the administrator's order: it comes first, for nothing else matters
    return "idle" if state_of(server, limit, now) == "idle" else None


def opinion(user: Json, name: str, options: Json, scopes: list[str], now: datetime) -> Opinion:
    possible = possible_policies(user, name, options)
    states = {
        state_of(user["servers"][name], limit_of(policy, options), now) for policy in possible
    }
    reason = None
    if len(possible) == 1 and delete_reaches(user, name, scopes):
        reason = reason_to_stop(user, name, possible[0], options, now)
    return Opinion([policy["name"] for policy in possible], states, reason)


# ---- what people were promised ------------------------------------------------------------------

Start = tuple[str, str, str | None]  # user, server, and since when it runs


@dataclass(frozen=True)
class Happening:
    """One thing that people did or were told, by the Hub's clock, in the order of a history.

    `kept` until a time, `released`; `told` that a stop for a reason comes near; `at work`: so said
    the server itself, when it was asked; `forgotten`: the exporter began anew without a state file;
    `rules`: a policy was changed; `not due`: when the exporter looked, no stop was near; `unclear`:
    it is at work, for so long that this may protect it no more.
    """

    what: str
    at: datetime
    start: Start | None = None  # None: all servers
    until: datetime | None = None  # of a keep
    reason: str | None = None  # of what was told
    activity: str | None = None  # what the Hub had said of it, when telling was begun
    begun: int = 0  # how much had happened before telling was begun


@dataclass
class PeopleHistory:
    """Everything that people did and were told, from which their promises are told anew each time.

    `undo`: what takes back that they were told.
    """

    happened: list[Happening] = field(default_factory=list)
    undo = ("kept", "at work", "forgotten")

    def kept_until(self, start: Start, now: datetime) -> datetime | None:
        """Tell until when a server is kept; the end itself is no longer kept."""
        until = None
        for one in self.happened:
            if one.start in (None, start) and one.what in ("kept", "released", "forgotten"):
                until = one.until
        return until if until is not None and until > now else None

    def standing(self, start: Start, activity: str | None) -> Happening | None:
        """Give what the user was told of a stop for idleness, if nothing happened since."""
        for one in reversed(self.happened):
            if (one.what, one.start, one.reason) == ("told", start, "idle"):
                undone = [
                    later.what
                    for later in self.happened[one.begun :]
                    if later.start in (None, start) and later.what in self.undo
                ]
                return one if not undone and _no_later(activity, one.activity) else None
        return None

    def idle_from(self, start: Start, server: Json, policy: Json, now: datetime) -> datetime | None:
        """Tell from when on a server may be stopped for idleness, as far as is known.

        The latest of: its last activity and the limit; the end of a keep; what was told and the
        notice. None: it is unknown since when nothing happens there.
        """
        activity = server.get("last_activity")
        quiet_since = moment(activity or server.get("started"))
        if quiet_since is None:
            return None
        quiet_since = min(quiet_since, now)  # the future counts as this very moment
        told = self.standing(start, activity)
        ends = [
            quiet_since + timedelta(seconds=float(policy["timeout"])),
            self.kept_until(start, now),
            None if told is None else told.at + timedelta(seconds=float(policy["notice"])),
        ]
        return max(end for end in ends if end is not None)

    def forbids_stop(self, start: Start, server: Json, policy: Json, now: datetime) -> str | None:
        """Say which promise a stop for idleness would break now."""
        if self.kept_until(start, now) is not None:
            return "kept"
        told = self.standing(start, server.get("last_activity"))
        notice = timedelta(seconds=float(policy["notice"]))
        if notice and (told is None or now - told.at < notice):
            return "not told long enough before"
        return None

    def told_twice(self) -> list[Happening]:
        """List what was told though the same deadline had been told, and nothing undid that."""
        found = []
        for number, one in enumerate(self.happened):
            deadline = (one.what, one.start, one.reason, moment(one.activity))
            earlier = [
                place
                for place, other in enumerate(self.happened[:number])
                if (other.what, other.start, other.reason, moment(other.activity)) == deadline
            ]
            if one.what != "told" or not earlier:
                continue
            between = self.happened[self.happened[earlier[-1]].begun : number]
            # Other rules make another deadline; and it may be far away for a while.
            undo = (*self.undo, "rules", "not due", "unclear")
            if not any(b.start in (None, one.start) and b.what in undo for b in between):
                found.append(one)
        return found


def _no_later(activity: str | None, known: str | None) -> bool:
    """Tell whether nothing happened after what was known."""
    return activity == known or (
        activity is not None and known is not None and moment(activity) <= moment(known)  # type: ignore[operator]
    )


def start_of(user: Json, name: str) -> Start:
    return user["name"], name, user["servers"][name].get("started")


def promised(
    user: Json, name: str, options: Json, scopes: list[str], now: datetime, people: PeopleHistory
) -> Opinion:
    """Judge a server as `opinion` does; one that is kept is not to be stopped for idleness."""
    found = opinion(user, name, options, scopes, now)
    kept = people.kept_until(start_of(user, name), now)
    return replace(found, reason=None) if kept and found.reason == "idle" else found


def due(
    user: Json,
    name: str,
    options: Json,
    scopes: list[str],
    now: datetime,
    people: PeopleHistory,
    spared: bool = False,
) -> datetime | None:
    """Tell when a server is past its limits; None: it could not be stopped then either.

    Once it is past its idle limit and Prometheus spares it, only its age counts.
    """
    possible, server = possible_policies(user, name, options), user["servers"][name]
    policy = options | possible[0]
    switched_on = options["cull_named_servers" if name else "cull_default_servers"]
    if len(possible) > 1 or policy.get("exempt") or not switched_on:
        return None
    if state_of(server, float(policy["timeout"]), now) == "pending":
        return None
    if not delete_reaches(user, name, scopes):
        return None
    started = moment(server.get("started"))
    ends = [] if spared else [people.idle_from(start_of(user, name), server, policy, now)]
    if policy["max_age"] and started is not None:
        ends.append(min(started, now) + timedelta(seconds=float(policy["max_age"])))
    return min((end for end in ends if end is not None), default=None)


# ---- the gate -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One answer of the Hub, with times in seconds.

    `asked` and `at` (when it was there) are by a clock that never jumps, `wall` is ours when it was
    there, `date` is as the Hub wrote it (None: unreadable).
    """

    asked: float
    at: float
    wall: float
    date: float | None = None

    @property
    def hub_ahead(self) -> "Range | None":
        """Tell what the Hub's clock may be ahead of the one that never jumps.

        The date is cut to the second, and was written at some time between request and answer.
        """
        return None if self.date is None else Range(self.date - self.at, self.date - self.asked + 1)


@dataclass(frozen=True)
class Range:
    """All that a number may be."""

    least: float
    most: float

    def nearest_in(self, other: "Range") -> "Range":
        """Move each number as little as is needed to lie in the other range."""
        return Range(*(min(max(end, other.least), other.most) for end in (self.least, self.most)))

    def least_move(self, other: "Range") -> float:
        return max(other.least - self.most, self.least - other.most, 0.0)

    def most_move(self, other: "Range") -> float:
        return max(other.least - self.least, self.most - other.most, 0.0)

    def exceeds(self, limit: float) -> bool | None:
        """Tell whether it is beyond the limit, on either side; None: it may be."""
        sizes = sorted((abs(self.least), abs(self.most)))
        least = 0.0 if self.least <= 0 <= self.most else sizes[0]
        return True if least > limit else (None if sizes[1] > limit else False)


@dataclass
class GateHistory:
    """Everything that happened, from which it is told anew each time whether stops are allowed."""

    enforce: bool
    grace: float
    began: float
    began_wall: float
    answers: list[Answer] = field(default_factory=list)
    polls: list[tuple[bool, int]] = field(default_factory=list)
    held_back: bool = False  # another exporter holds the lease
    taken_over: list[float] = field(default_factory=list)

    def polled(self, good: bool) -> None:
        """Note a poll: what it says of the clocks is by the answers so far."""
        self.polls.append((good, len(self.answers)))

    def allows(self, at: float, wall: float) -> bool | None:
        """Tell whether a stop may be sent now; None at the very edge of a limit: either."""
        if not self.enforce or not self.polls or not self.polls[-1][0] or self.held_back:
            return False
        last = self.answers[-1] if self.answers else Answer(self.began, self.began, self.began_wall)
        if at - last.at > MINUTE or abs(wall - at - (last.wall - last.at)) > MINUTE:
            return False
        apart = self.clocks_apart()
        forbidden = [False if apart is None else apart.exceeds(MINUTE)]
        for moment, certain in self.troubles():
            left = self.grace - (at - moment)
            forbidden.append(False if left < 0 else (True if certain and left > 0 else None))
        if True in forbidden:
            return False
        return None if None in forbidden else True

    def clocks_apart(self) -> Range | None:
        """Tell by how much the Hub's clock and ours differed at the last poll."""
        answers = self.answers[: self.polls[-1][1]]
        *_, ahead = [None, *(known for _, known in self._beliefs(answers))]
        if ahead is None:
            return None
        ours = answers[-1].wall - answers[-1].at
        return Range(ahead.least - ours, ahead.most - ours)

    def troubles(self) -> list[tuple[float, bool]]:
        """List the moments from which a grace time runs, and whether it is certain that it does."""
        found = [(self.began, True), *((moment, True) for moment in self.taken_over)]
        before = Answer(self.began, self.began, self.began_wall)
        for answer in self.answers:
            away = answer.at - before.at > MINUTE
            moved = abs(answer.wall - answer.at - (before.wall - before.at)) > MINUTE
            if away or moved:
                found.append((answer.at, True))
            before = answer
        believed = None
        for answer, known in self._beliefs(self.answers):
            says = answer.hub_ahead
            if believed and says and believed.most_move(says) > MINUTE:
                found.append((answer.at, believed.least_move(says) > MINUTE))
            believed = known
        return found

    def _beliefs(self, answers: list[Answer]) -> Iterator[tuple[Answer, Range | None]]:
        """Go through the answers, with what is known of the Hub's clock after each."""
        known: Range | None = None
        for answer in answers:
            says = answer.hub_ahead
            if says is not None:
                known = says if known is None else known.nearest_in(says)
            yield answer, known


# ---- the server's own word ----------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One answer of a server: its status, the decoded JSON (None: it is none), its own clock."""

    status: int
    value: Any = None
    clock: datetime | None = None


def own_word(said: dict[str, Said], limit: float, terminals_protect: bool = False) -> str:
    """Say what a server's answers mean: idle, busy, active, no_jupyter or failed."""
    words = {word_on_work(said, limit, terminals_protect), word_on_activity(said, limit)}
    if "failed" in words or ("no_jupyter" in words and len(words) > 1):
        return "failed"
    (worst,) = [word for word in ("no_jupyter", "active", "busy", "idle") if word in words][:1]
    return worst


def word_on_work(said: dict[str, Said], limit: float, terminals_protect: bool = False) -> str:
    """Say what the answers on kernels and terminals mean."""
    kernels, terminals = said["kernels"], said["terminals"]
    if kernels.status == 404:
        return "no_jupyter"
    if terminals.status == 404:
        terminals = Said(200, [])  # switched off
    recent = [_is_recent(answer, limit) for answer in (kernels, terminals)]
    if "failed" in recent or "active" in recent:
        return "failed" if "failed" in recent else "active"
    at_rest = all(kernel["execution_state"] in ("idle", "dead") for kernel in kernels.value)
    is_open = terminals_protect and bool(terminals.value)
    return "idle" if at_rest and not is_open else "busy"


def word_on_activity(said: dict[str, Said], limit: float) -> str:
    """Say what the answer on its last activity means."""
    status = said["status"]
    if status.status == 404:
        return "no_jupyter"
    whole = status.status == 200 and status.value is not None
    return _is_recent(Said(200, [status.value], status.clock), limit) if whole else "failed"


def _is_recent(answer: Said, limit: float) -> str:
    """Tell by the server's own clock whether something in a list was active within the limit."""
    if answer.status != 200 or answer.value is None:
        return "failed"
    times = [one["last_activity"] for one in answer.value]
    if answer.clock is None:
        return "failed" if times else "idle"  # nothing says how long ago that was
    return "active" if inside(times, limit, answer.clock) else "idle"


def inside(times: list[str | None], limit: float, now: datetime) -> bool:
    ago = [elapsed(each, now) for each in times]
    return any(each is not None and each.total_seconds() < limit for each in ago)


# ---- the second opinion -------------------------------------------------------------------------


def withheld_by_prometheus(user: str, name: str, policy: Json, heard: Said) -> str | None:
    """Say why what a Prometheus answered withholds a stop for idleness; None: it does not.

    Only a vector in which something is said of this server, and nothing but 0, lets it go.
    """
    if not policy.get("spare_query", True):
        return None
    try:
        values = values_about(user, name, heard)
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation):
        return "query_failed"
    return None if values and all(value == 0 for value in values) else "in_use"


def values_about(user: str, name: str, heard: Said) -> list[Decimal]:
    """List the values about a server; any error means that the query failed."""
    answer = heard.value
    whole = heard.status == 200 and answer["status"] == "success"
    if not whole or answer.get("warnings") or answer.get("isPartial"):
        raise ValueError(answer)
    if answer["data"]["resultType"] != "vector":
        raise ValueError(answer)
    values = []
    for sample in answer["data"]["result"]:
        labels, value = sample["metric"], Decimal(sample["value"][1])
        if user and labels.get("user") == user and labels.get("server", "") in ("", name):
            values.append(value)
    return values


# ---- what a stop may rest on --------------------------------------------------------------------

# Seconds: how old what the Hub said of the server, and the server of its last activity, may be when
# the stop takes effect; what runs in the server, when it is sent; the proxy's routes, when it is.
OLDEST_LOOK, OLDEST_WORK, OLDEST_ROUTES = 10.0, 10.0, 20.0
# The second opinion may be 30 s old after the look, and the stop takes effect within 10 s.
OLDEST_OPINION = 40.0
