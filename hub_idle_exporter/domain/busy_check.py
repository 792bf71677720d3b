"""What a server's own answers mean: is it in use?

The answers come from a program that its user controls. They are decoded into types, and anything
odd makes the check fail, which withholds the stop. Pure: `culling/probe.py` sends the requests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec

from .labels import ProbeResult
from .model import epoch

# Every other state protects the server, also one that Jupyter may add later.
_AT_REST = frozenset({"idle", "dead"})
_Shape = TypeVar("_Shape")


class _Status(msgspec.Struct):
    last_activity: datetime


class _Kernel(msgspec.Struct):
    execution_state: str
    last_activity: datetime | None = None


class _Terminal(msgspec.Struct):
    last_activity: datetime | None = None


@dataclass(frozen=True)
class Reply:
    """One answer of a user's server: its HTTP status and body."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Activity:
    """What a server said about itself.

    `times` are when it was active, `busy` says what is busy there (None: nothing), and `at_rest`
    is the sentence for a server where nothing is busy.
    """

    times: tuple[datetime | None, ...]
    busy: str | None
    at_rest: str


@dataclass(frozen=True)
class ServerKind:
    """A kind of program that runs as a user's server: what to ask it, and how to read its replies.

    `read` gets one reply for each of `paths`. It gives None when the program is of another kind,
    and raises ValueError, which withholds the stop, on anything odd.
    """

    name: str
    paths: tuple[str, ...]
    query: str  # without it the question itself might count as activity
    read: Callable[[Sequence[Reply]], Activity | None]


@dataclass(frozen=True)
class ProbeAnswer:
    """The result of a busy check, with a sentence for people."""

    result: ProbeResult
    why: str


def interpret(
    kind: ServerKind, replies: Sequence[Reply], now: float, limit: float
) -> ProbeAnswer | None:
    """Judge a server by its own answers; None if it is of another kind.

    `now` is the Hub's clock, `limit` the idle limit in seconds.
    """
    try:
        activity = kind.read(replies)
    except ValueError as error:
        return ProbeAnswer(ProbeResult.FAILED, str(error))
    if activity is None:
        return None
    recent = active_within(activity.times, now, limit)
    if recent is not None:
        return ProbeAnswer(ProbeResult.ACTIVE, f"the server itself was active {recent:.0f} s ago")
    if activity.busy is not None:
        return ProbeAnswer(ProbeResult.BUSY, activity.busy)
    return ProbeAnswer(ProbeResult.IDLE, f"asked: {activity.at_rest}")


def active_within(moments: Iterable[datetime | None], now: float, limit: float) -> float | None:
    """Return the seconds since the newest of these times if that is within the limit, else None.

    A time in the future counts as activity now.
    """
    ages = [max(0.0, now - seconds) for m in moments if (seconds := epoch(m)) is not None]
    return min(ages) if ages and min(ages) < limit else None


def _read_jupyter(replies: Sequence[Reply]) -> Activity | None:
    """Read `/api/status`, `/api/kernels` and `/api/terminals` of a Jupyter server."""
    status_reply, kernels_reply, terminals_reply = replies
    if status_reply.status == 404 and kernels_reply.status == 404:
        return None
    status = _decoded(status_reply, _Status, "/api/status")
    kernels = _decoded(kernels_reply, list[_Kernel], "/api/kernels")
    terminals: list[_Terminal] = []
    if terminals_reply.status != 404:  # 404: terminals are disabled
        terminals = _decoded(terminals_reply, list[_Terminal], "/api/terminals")
    working = [kernel for kernel in kernels if kernel.execution_state not in _AT_REST]
    return Activity(
        times=(
            status.last_activity,
            *(kernel.last_activity for kernel in kernels),
            *(terminal.last_activity for terminal in terminals),
        ),
        busy=f"{len(working)} of {len(kernels)} kernels busy" if working else None,
        at_rest=f"{len(kernels)} kernels, none busy",
    )


def _decoded(reply: Reply, shape: type[_Shape], path: str) -> _Shape:
    if reply.status != 200:
        raise ValueError(f"{path} answered HTTP {reply.status}")
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise ValueError(f"the answer of {path} is not that of a Jupyter server") from None


JUPYTER = ServerKind(
    "Jupyter",
    ("api/status", "api/kernels", "api/terminals"),
    "no_track_activity=1",
    _read_jupyter,
)
# The kinds that a server is asked as, in this order, until one of them is its own.
KINDS = (JUPYTER,)


def of_no_kind(kinds: Sequence[ServerKind]) -> ProbeAnswer:
    """Return the answer of a server that is of none of these kinds."""
    names = " or ".join(kind.name for kind in kinds)
    return ProbeAnswer(ProbeResult.NO_JUPYTER, f"it is not a {names} server: last_activity decides")


@dataclass
class BusyWatch:
    """Since when each server has been busy without a break, by our own clock.

    A kernel may be stuck as busy for days, and its user can fake its state. So only what we have
    observed ourselves counts, separately for each start of a server.
    """

    _since: dict[tuple[str, str, datetime | None], float] = field(default_factory=dict)

    def busy(self, server: tuple[str, str, datetime | None], now: float) -> float:
        """Record that a server is busy; return the seconds since this was first observed."""
        return now - self._since.setdefault(server, now)

    def at_rest(self, server: tuple[str, str, datetime | None]) -> None:
        """Record a break: no kernel of the server is busy."""
        self._since.pop(server, None)

    def keep(self, candidates: set[tuple[str, str, datetime | None]]) -> None:
        """Forget all others: a server that is no longer a candidate is gone, or was used since."""
        for server in self._since.keys() - candidates:  # a copy at once: workers add meanwhile
            self._since.pop(server, None)
