"""What a server's own answers mean: is somebody, or something, at work there?

The answers come from a program that its user controls: they are decoded into types, and whatever
is odd about them makes the check fail, which spares the server. Pure: fetching is `probe`'s.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import msgspec

from .labels import Asked
from .model import epoch

# Every other state protects, those that Jupyter may yet invent included.
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
class Replies:
    """The answers to `/api/status`, `/api/kernels` and `/api/terminals`."""

    status: Reply
    kernels: Reply
    terminals: Reply


@dataclass(frozen=True)
class Finding:
    """What a busy check found, and a sentence on it for people."""

    asked: Asked
    why: str


def interpret(replies: Replies, now: float, limit: float) -> Finding:
    """Judge a server by its own answers; `now` is the Hub's clock, `limit` the idle limit in s."""
    if replies.status.status == 404 and replies.kernels.status == 404:
        return Finding(Asked.NO_JUPYTER, "no Jupyter answers there: last_activity decides")
    try:
        times, states = _read(replies)
    except ValueError as error:
        return Finding(Asked.FAILED, str(error))
    recent = active_within(times, now, limit)
    if recent is not None:
        return Finding(Asked.ACTIVE, f"the server itself was active {recent:.0f} s ago")
    working = [state for state in states if state not in _AT_REST]
    if working:
        return Finding(Asked.BUSY, f"{len(working)} of {len(states)} kernels at work")
    return Finding(Asked.IDLE, f"asked: {len(states)} kernels, none at work")


def active_within(moments: Iterable[datetime | None], now: float, limit: float) -> float | None:
    """Give the seconds since the newest moment if that is inside the limit, else None.

    A moment in the future is activity now.
    """
    ages = [max(0.0, now - seconds) for m in moments if (seconds := epoch(m)) is not None]
    return min(ages) if ages and min(ages) < limit else None


def _read(replies: Replies) -> tuple[list[datetime | None], list[str]]:
    """Take the times of activity and the kernels' states; raise ValueError on anything odd."""
    status = _decoded(replies.status, _Status, "/api/status")
    kernels = _decoded(replies.kernels, list[_Kernel], "/api/kernels")
    terminals: list[_Terminal] = []
    if replies.terminals.status != 404:  # 404: terminals are disabled
        terminals = _decoded(replies.terminals, list[_Terminal], "/api/terminals")
    times = [status.last_activity, *(k.last_activity for k in kernels)]
    times += [terminal.last_activity for terminal in terminals]
    return times, [kernel.execution_state for kernel in kernels]


def _decoded(reply: Reply, shape: type[_Shape], path: str) -> _Shape:
    if reply.status != 200:
        raise ValueError(f"{path} answered HTTP {reply.status}")
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise ValueError(f"{path} answered what no Jupyter server answers") from None


@dataclass
class BusyWatch:
    """Since when each server was seen busy without a break, on our own clock.

    A kernel may be stuck as busy for days, and its user can fake what it says: protection lasts
    as long as we have observed it ourselves, for one start of one server.
    """

    _since: dict[tuple[str, str, datetime | None], float] = field(default_factory=dict)

    def busy(self, server: tuple[str, str, datetime | None], now: float) -> float:
        """Note that a server is busy; give the seconds since it was first seen so."""
        return now - self._since.setdefault(server, now)

    def at_rest(self, server: tuple[str, str, datetime | None]) -> None:
        """Note a break: no kernel of the server is at work."""
        self._since.pop(server, None)

    def keep(self, candidates: set[tuple[str, str, datetime | None]]) -> None:
        """Forget all but these: whoever is no candidate any more is gone, or has made a break."""
        for server in self._since.keys() - candidates:  # a copy at once: lanes add to it meanwhile
            self._since.pop(server, None)
