"""Words for people: what label values mean, and how numbers and times are written."""

from datetime import datetime, timezone
from itertools import chain

from ..domain.labels import LISTED, Cause, CullFailure, Outcome, ProbeResult, UserKept, Withheld
from ..domain.policy import Reason

OUTCOMES = {
    Outcome.STOPPED: "stopped",
    Outcome.FAILED: "failed to stop",
    Outcome.UNDER_WAY: "still under way",
}
REASONS = {Reason.IDLE: "idle", Reason.MAX_AGE: "too old"}
WITHHELD = {
    Withheld.ACTIVE_AGAIN: "used in the meantime",
    Withheld.BUSY: "a kernel was busy, or a terminal was open",
    Withheld.PROBE_FAILED: "no usable answer from the Hub or the server",
    Withheld.PENDING: "starting or stopping",
    Withheld.RESTARTED: "restarted in the meantime",
    Withheld.GONE: "no longer exists",
    Withheld.LIMIT: "--max-culls was reached",
    Withheld.GATE: "stops were no longer allowed",
    Withheld.POLICY: "spared by a policy or a scope that has changed",
    Withheld.LIST: "the list of users may have had gaps",
    Withheld.UNASKED: "not asked, in a single run",
    Withheld.STALE: "what was known was too old when the stop arrived",
    Withheld.IN_USE: "in use, by the spare query",
    Withheld.QUERY_FAILED: "the spare query had no answer",
    Withheld.KEPT: "somebody keeps it",
    Withheld.NOTICE: "its notice is not over, or could not be delivered",
}
# What became of a candidate, in the order in which it is told.
MEANINGS: dict[str, str] = dict(chain(OUTCOMES.items(), WITHHELD.items()))
FAILED = {
    CullFailure.HTTP: "the Hub refused, or answered with an error",
    CullFailure.TIMEOUT: "the Hub did not answer in time",
    CullFailure.CONNECTION: "the Hub could not be reached",
    CullFailure.NOT_STOPPED: "the server still runs, or nothing shows that it stopped",
    CullFailure.SLOW: "still stopping after 5 minutes",
}
ANSWERS = {
    ProbeResult.IDLE: "idle",
    ProbeResult.BUSY: "a kernel is busy, or a terminal is open",
    ProbeResult.ACTIVE: "active",
    ProbeResult.NO_JUPYTER: "not a Jupyter server",
    ProbeResult.FAILED: "no usable answer",
}
POLL_FAILURES = {
    Cause.CONNECTION: "the Hub could not be reached",
    Cause.TIMEOUT: "the Hub did not answer in time",
    Cause.HTTP: "the Hub answered with an error",
    Cause.AUTH: "the Hub does not know the token",
    Cause.SCOPE: "the token lacks a scope",
    Cause.RESPONSE: "the answer was not one of a JupyterHub API",
}
# Why an idle user is not deleted.
USER_KEPT = {
    UserKept.SERVER: "a server runs, starts or stops",
    UserKept.ADMIN: "administrator of the Hub",
    UserKept.EXEMPT: "may match a policy that exempts",
    UserKept.PROTECTED: "has a stopped server that may not be culled",
    UserKept.OWN: "the probe user, or the owner of the exporter's token",
    UserKept.SCOPE: "outside the filter of delete:users",
    UserKept.UNKNOWN: "neither a last activity nor a time of creation is known",
    UserKept.HIDDEN: "the token cannot see enough",
    UserKept.ACTIVE_AGAIN: "active in the meantime",
    UserKept.GONE: "no longer exists",
    UserKept.LOOK_FAILED: "could not be looked at again, or no token for it was made",
    UserKept.POLICY: "the policies or scopes had changed",
    UserKept.STALE: "the last look was too long ago",
    UserKept.GATE: "deletions were not allowed",
    UserKept.LIST: "the list of users may have had gaps",
    UserKept.LIMIT: "--max-culls was reached",
    UserKept.FAILURES: "three deletions in a row failed",
}
LISTED_KEPT = {cause: words for cause, words in USER_KEPT.items() if cause in LISTED}
NOT_DELETED = {**POLL_FAILURES, Cause.RESPONSE: "the user still exists, or the answer was odd"}

_NBSP = "\N{NO-BREAK SPACE}"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def spoken(seconds: float, parts: int = 4) -> str:
    """Write a duration for people: `1 h 30 min`; at most `parts` units, the largest first."""
    left, counts = int(seconds), list[tuple[int, str]]()
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or counts:
            counts.append((count, unit))
    written = [f"{count}{_NBSP}{unit}" for count, unit in counts[:parts] if count]
    return " ".join(written) or f"0{_NBSP}s"


def about(seconds: float) -> str:
    """Write a measured duration in at most two units."""
    return spoken(seconds, 2)


def brief(seconds: float) -> str:
    """Write a short duration: `12 ms`, `1.5 s`."""
    return f"{seconds * 1000:.0f}{_NBSP}ms" if seconds < 1 else f"{seconds:.1f}{_NBSP}s"


def moment(seconds: float) -> str:
    """Write a time (seconds since 1970) for people, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(seconds: float) -> str:
    """Write the time of day (seconds since 1970) for people, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M") + f"{_NBSP}UTC"


def number(count: float) -> str:
    """Write a whole number with thousands separators."""
    return f"{count:,.0f}"
