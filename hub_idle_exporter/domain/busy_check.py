"""What a server's own answers mean: is it in use?

A server is asked twice: first for its work (kernels, terminals), and right before the stop once
more for its last activity, so that what decides is seconds old at most. The answers come from a
program that its user controls. They are decoded into types, and anything odd makes the check fail,
which withholds the stop. Pure: `culling/probe.py` sends the requests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec

from .keeping import Start
from .labels import ProbeResult
from .model import epoch
from .stop_result import Address

# Every other state protects the server, also one that Jupyter may add later.
_AT_REST = frozenset({"idle", "dead"})
_Shape = TypeVar("_Shape")


class _Status(msgspec.Struct):
    last_activity: datetime
    started: datetime | None = None


class _Kernel(msgspec.Struct):
    execution_state: str
    last_activity: datetime | None = None


class _Terminal(msgspec.Struct):
    last_activity: datetime | None = None


@dataclass(frozen=True)
class Reply:
    """One answer of a user's server: its HTTP status and body.

    `now` is the server's own clock (its `Date`), seconds since 1970; None if it sent none.
    """

    status: int
    body: bytes
    now: float | None


@dataclass(frozen=True)
class Work:
    """What a server said about its work.

    `idle` is the time since its newest activity in seconds, None if it told of none; `busy` says
    what is busy (None: nothing), `terminals` how many are open, and `at_rest` is the sentence for a
    server where nothing is busy.
    """

    idle: float | None
    busy: str | None
    at_rest: str
    terminals: int = 0


@dataclass(frozen=True)
class Activity:
    """When a server was last active by its own word (`idle` seconds ago), and when it started."""

    idle: float
    started: datetime | None


@dataclass(frozen=True)
class ServerKind:
    """A kind of program that runs as a user's server: what to ask it, and how to read its replies.

    `read_work` gets one reply for each of `work_paths`, `read_activity` that of `activity_path`.
    Both give None when the program is of another kind, and raise ValueError, which withholds the
    stop, on anything odd.
    """

    name: str
    work_paths: tuple[str, ...]
    activity_path: str
    query: str  # without it the question itself might count as activity
    read_work: Callable[[Sequence[Reply]], Work | None]
    read_activity: Callable[[Reply], Activity | None]


@dataclass(frozen=True)
class ProbeAnswer:
    """The result of a busy check, with a sentence for people."""

    result: ProbeResult
    why: str


def judge_work(work: Work, limit: float, protects_terminals: bool = False) -> ProbeAnswer:
    """Judge a server by its work; `limit` is the idle limit in seconds.

    `protects_terminals` tells whether an open terminal counts as work: a server does not say what
    runs in it.
    """
    if work.idle is not None and work.idle < limit:
        return _active(work.idle)
    if work.busy is not None:
        return ProbeAnswer(ProbeResult.BUSY, work.busy)
    if protects_terminals and work.terminals:
        return ProbeAnswer(ProbeResult.BUSY, f"terminals open: {work.terminals}")
    return ProbeAnswer(ProbeResult.IDLE, f"asked: {work.at_rest}")


def judge_activity(activity: Activity, limit: float) -> ProbeAnswer | None:
    """Judge a server by its last activity; None if that is past the idle limit (seconds)."""
    return _active(activity.idle) if activity.idle < limit else None


def _active(seconds: float) -> ProbeAnswer:
    return ProbeAnswer(ProbeResult.ACTIVE, f"the server itself was active {seconds:.0f} s ago")


def idle_at(moments: Iterable[datetime | None], now: float) -> float | None:
    """Return the seconds since the newest of these times; None if there is none.

    A time in the future counts as now.
    """
    return min((max(0.0, now - s) for m in moments if (s := epoch(m)) is not None), default=None)


def address_of(before: Activity | None, answer: Activity | None) -> Address:
    """Tell whether a server that answered `before` its stop still answers at its address.

    `answer` is what was said there now, None if nothing or another kind of program answered.
    """
    if answer is None:
        return Address.GONE
    if before is None or before.started is None or answer.started is None:
        return Address.UNKNOWN
    return Address.SAME if answer.started == before.started else Address.GONE


def _read_jupyter_work(replies: Sequence[Reply]) -> Work | None:
    """Read `/api/kernels` and `/api/terminals` of a Jupyter server."""
    kernels_reply, terminals_reply = replies
    if kernels_reply.status == 404:
        return None
    kernels = _decoded(kernels_reply, list[_Kernel], "/api/kernels")
    terminals: list[_Terminal] = []
    if terminals_reply.status != 404:  # 404: terminals are disabled
        terminals = _decoded(terminals_reply, list[_Terminal], "/api/terminals")
    idle = [
        idle_at((one.last_activity for one in found), _clock(reply))
        for found, reply in ((kernels, kernels_reply), (terminals, terminals_reply))
        if found
    ]
    working = [kernel for kernel in kernels if kernel.execution_state not in _AT_REST]
    return Work(
        idle=min((seconds for seconds in idle if seconds is not None), default=None),
        busy=f"{len(working)} of {len(kernels)} kernels busy" if working else None,
        at_rest=f"{len(kernels)} kernels, none busy",
        terminals=len(terminals),
    )


def _read_jupyter_activity(reply: Reply) -> Activity | None:
    """Read `/api/status` of a Jupyter server."""
    if reply.status == 404:
        return None
    status = _decoded(reply, _Status, "/api/status")
    idle = idle_at([status.last_activity], _clock(reply))
    return Activity(idle or 0.0, status.started)


def _clock(reply: Reply) -> float:
    """Return the clock by which a server's times are aged: its own, which made them."""
    if reply.now is None:
        raise ValueError("the server does not say what time it is (no Date header)")
    return reply.now


def _decoded(reply: Reply, shape: type[_Shape], path: str) -> _Shape:
    if reply.status != 200:
        raise ValueError(f"{path} answered HTTP {reply.status}")
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise ValueError(f"the answer of {path} is not that of a Jupyter server") from None


JUPYTER = ServerKind(
    "Jupyter",
    ("api/kernels", "api/terminals"),
    "api/status",
    "no_track_activity=1",
    _read_jupyter_work,
    _read_jupyter_activity,
)
# The kinds that a server is asked as, in this order, until one of them is its own.
KINDS = (JUPYTER,)


@dataclass
class Stretch:
    """For how long something has been seen without a break: `seconds`, up to `last_seen`."""

    seconds: float
    last_seen: float


@dataclass
class Watch:
    """For how long something has been true of each server, as seen by ourselves.

    A kernel may be stuck as busy for days, and its user can fake its state. So only the time
    between sightings that followed each other within `longest_gap` seconds counts, separately for
    each start of a server: in a longer gap nobody looked.
    """

    longest_gap: float
    _seen: dict[Start, Stretch] = field(default_factory=dict)

    def seen(self, server: Start, now: float) -> float:
        """Record that it is true now; return the seconds for which it has been."""
        stretch = self._seen.setdefault(server, Stretch(0.0, now))
        gap, stretch.last_seen = now - stretch.last_seen, now
        if gap <= self.longest_gap:
            stretch.seconds += gap
        return stretch.seconds

    def ended(self, server: Start) -> None:
        """Record a break: it is not true now."""
        self._seen.pop(server, None)

    def keep(self, candidates: set[Start]) -> None:
        """Forget all others: a server that is no longer a candidate is gone, or was used since."""
        for server in self._seen.keys() - candidates:  # a copy at once: workers add meanwhile
            self._seen.pop(server, None)


@dataclass
class KnownKinds:
    """The servers that have answered as a known kind of program; `most` bounds the memory.

    A start that did so once never counts as another kind: its user may have changed the answers.
    """

    most: int = 100_000
    _started: dict[tuple[str, str], datetime | None] = field(default_factory=dict)

    def answered(self, user: str, server: str, started: datetime | None) -> None:
        """Record that this start answered as one of the kinds."""
        self._started.pop((user, server), None)  # to the end: the oldest is forgotten first
        self._started[user, server] = started
        if len(self._started) > self.most:
            self._started.pop(next(iter(self._started)), None)

    def has(self, user: str, server: str, started: datetime | None) -> bool:
        """Tell whether this start ever answered as one of the kinds."""
        missing = object()
        return self._started.get((user, server), missing) == started
