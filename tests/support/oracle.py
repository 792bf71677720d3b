"""When may a server be stopped? The contract and the issues told once more, in other words.

Written from contract.md, jupyterhub-facts.md and the issues alone, before the code under test was
read; it shares no line with it. Everything comes in as the Hub sends it, decoded from JSON, with
times as text. Where these rules and the code disagree, the contract says who is right.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

Json = dict[str, Any]
MINUTE = 60


def moment(text: str | None) -> datetime | None:
    """Read a time of the Hub; without a zone it is UTC."""
    if text is None:
        return None
    read = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return read if read.tzinfo else read.replace(tzinfo=UTC)


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


# ---- the gate -----------------------------------------------------------------------------------


@dataclass
class GateHistory:
    """Everything that happened, from which it is told anew each time whether stops are allowed.

    Times in seconds: `at` by a clock that never jumps, `wall` by ours, `hub` by the Hub's.
    """

    enforce: bool
    grace: float
    began: float
    began_wall: float
    answers: list[tuple[float, float, float | None]] = field(default_factory=list)
    good_polls: list[bool] = field(default_factory=list)

    def allows(self, at: float, wall: float) -> bool | None:
        """Tell whether a stop may be sent now; None at the very edge of a limit: either."""
        if not self.enforce or not self.good_polls or not self.good_polls[-1]:
            return False
        known = [(self.began, self.began_wall), *((each[0], each[1]) for each in self.answers)]
        last_at, last_wall = known[-1]
        away = at - last_at
        if away > MINUTE or _jumped(wall - at, last_wall - last_at):
            return False
        since = [at - trouble - self.grace for trouble in self.troubles()]
        if min(since) < 0:
            return False
        return None if min(since) == 0 else True

    def troubles(self) -> list[float]:
        """List the moments from which a grace time runs: the start, and each end of an outage."""
        found = [self.began]
        previous = (self.began, self.began_wall)
        hub_ahead: float | None = None
        for at, wall, hub in self.answers:
            trouble = at - previous[0] > MINUTE or _jumped(wall - at, previous[1] - previous[0])
            if hub is not None:
                trouble = trouble or (hub_ahead is not None and _jumped(hub - at, hub_ahead))
                hub_ahead = hub - at
            if trouble:
                found.append(at)
            previous = (at, wall)
        return found


def _jumped(offset: float, before: float) -> bool:
    return abs(offset - before) > MINUTE


# ---- the server's own word ----------------------------------------------------------------------


def own_word(said: dict[str, tuple[int, Any]], limit: float, now: datetime) -> str:
    """Say what a server's answers mean: idle, busy, active, no_jupyter or failed.

    `said` holds for status, kernels and terminals the HTTP status and the decoded JSON.
    """
    (status_code, status), (kernels_code, kernels), (terminals_code, terminals) = (
        said[path] for path in ("status", "kernels", "terminals")
    )
    if status_code == kernels_code == 404:
        return "no_jupyter"
    if (status_code, kernels_code) != (200, 200) or terminals_code not in (200, 404):
        return "failed"
    open_terminals = terminals if terminals_code == 200 else []
    times = [status["last_activity"]]
    times += [each["last_activity"] for each in [*kernels, *open_terminals]]
    states = {kernel["execution_state"] for kernel in kernels}
    if states - {"idle", "dead", "busy", "starting", "restarting"}:
        return "failed"
    if states & {"busy", "starting", "restarting"}:
        return "busy"
    return "active" if inside(times, limit, now) else "idle"


def inside(times: list[str | None], limit: float, now: datetime) -> bool:
    ago = [elapsed(each, now) for each in times]
    return any(each is not None and each.total_seconds() < limit for each in ago)
