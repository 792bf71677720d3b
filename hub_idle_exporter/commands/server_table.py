"""The table of `servers`: as it is where there is room, shorter where there is not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..domain.columns import ELLIPSIS, cut, padded, width
from ..domain.durations import roughly, shown
from ..domain.labels import Withheld
from ..domain.policy import JudgedServer, NotCandidate, Reason
from ..domain.text import printable

# The least that is left of a name. One column for user and server, and a width that fits all.
_SHORTEST_NAME = 8
_JOINED, _ANY = "user/server", 1 << 16
_GAP = "  "
_CUT = "Names are cut to fit. A wider terminal, a pipe or --json shows them whole."

# The reasons in the words of a narrow table; what these may leave open is told below it.
SHORT: Mapping[Reason | NotCandidate | Withheld | None, str] = {
    Reason.IDLE: "idle",
    Reason.MAX_AGE: "max age",
    NotCandidate.PENDING: "not ready",
    NotCandidate.IN_USE: "active",
    NotCandidate.UNKNOWN: "unknown",
    NotCandidate.EXEMPT: "exempt",
    NotCandidate.SWITCHED_OFF: "excluded",
    NotCandidate.OUTSIDE_SCOPE: "no scope",
    NotCandidate.KEPT: "kept",
    NotCandidate.UNDECIDED: "undecided",
    Withheld.IN_USE: "in use",
    Withheld.QUERY_FAILED: "no answer",
}
_OPINIONS = {
    Withheld.IN_USE: "the spare query does not say 0 for it",
    Withheld.QUERY_FAILED: "the spare query has no answer",
}
_UNCLEAR = (
    NotCandidate.UNKNOWN,
    NotCandidate.SWITCHED_OFF,
    NotCandidate.OUTSIDE_SCOPE,
    NotCandidate.UNDECIDED,
)

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """The lines of a table, the first one its head, and notes on what was left out of them."""

    lines: list[str]
    notes: list[str]


def verdict(one: JudgedServer) -> str:
    """Say what is to become of a server: nobody has asked the server itself yet."""
    return "candidate" if one.would_stop else "keep"


def table(servers: Sequence[JudgedServer], room: int | None = None) -> Table:
    """Lay a table out for so many columns; None: whole, for programs and files."""
    if not servers:
        return Table(["No servers are running."], [])
    rows = [_full(one) for one in servers]
    if room is None:
        return Table(aligned(rows), [])
    rows = [row | _times(one, roughly) for row, one in zip(rows, servers, strict=True)]
    if _fits(rows, room):
        return Table(aligned(rows), [])
    rows = [row | {"why": SHORT[_reason(one)]} for row, one in zip(rows, servers, strict=True)]
    if _fits(rows, room):
        return Table(aligned(rows), _explained(servers))
    rows = _narrowed(rows, servers, room)
    is_cut = any(ELLIPSIS in row[_JOINED] + row["policy"] for row in rows)
    return Table(aligned(rows), [*_explained(servers), *([_CUT] if is_cut else [])])


def _full(one: JudgedServer) -> Row:
    return {
        "user": printable(one.user),
        "server": printable(one.server) or "(default)",
        "state": str(one.state),
        **_times(one, shown),
        "policy": printable(one.policy.name),
        "verdict": verdict(one),
        "why": one.why,
    }


def _times(one: JudgedServer, written: Callable[[float], str]) -> Row:
    times = {"idle": one.idle, "age": one.age}
    return {name: "?" if time is None else written(time) for name, time in times.items()}


def _narrowed(rows: Sequence[Row], servers: Sequence[JudgedServer], room: int) -> list[Row]:
    """Write user and server in one column, and cut names until the table fits."""
    rows = [_joined(row, one, _ANY) for row, one in zip(rows, servers, strict=True)]
    widths, names = _widths(rows), (_JOINED, "policy")
    while _total(widths) > room:
        widest = max(names, key=lambda name: widths[name])
        if widths[widest] <= max(_SHORTEST_NAME, len(widest)):
            break
        widths[widest] -= 1
    return [
        _joined(row, one, widths[_JOINED]) | {"policy": cut(row["policy"], widths["policy"])}
        for row, one in zip(rows, servers, strict=True)
    ]


def _joined(row: Row, one: JudgedServer, room: int) -> Row:
    """Write user and server in one column of this width; nothing stands for the default server.

    If it is too narrow, the server's name gets a third of it.
    """
    user, server = printable(one.user), f"/{printable(one.server)}" if one.server else ""
    left = room - min(width(server), max(room // 3, room - width(user)))
    name = cut(user, left)
    rest = {key: text for key, text in row.items() if key not in ("user", "server", _JOINED)}
    return {_JOINED: name + cut(server, room - width(name))} | rest


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _fits(rows: Sequence[Row], room: int) -> bool:
    return _total(_widths(rows)) <= room


def _widths(rows: Sequence[Row]) -> dict[str, int]:
    return {name: max(len(name), *(width(row[name]) for row in rows)) for name in rows[0]}


def aligned(rows: Sequence[Row]) -> list[str]:
    """Write rows below their head, each column as wide as it needs to be."""
    widths = _widths(rows)
    head = {name: name.upper() for name in widths}
    return [
        _GAP.join(padded(row[name], w) for name, w in widths.items()).rstrip()
        for row in (head, *rows)
    ]


def _reason(one: JudgedServer) -> Reason | NotCandidate | Withheld | None:
    if one.reason and one.spared is not None:
        return one.spared.cause
    return one.reason or one.not_candidate


def _explained(servers: Sequence[JudgedServer]) -> list[str]:
    """Explain the short reasons in a table that leave something open."""
    there = {_reason(one) for one in servers}
    unclear = {reason: f"the server {reason}" for reason in _UNCLEAR} | _OPINIONS
    return [f"{SHORT[one]}: {what}." for one, what in unclear.items() if one in there]
