"""The second opinion: what a Prometheus answers to the spare query, and what that says of servers.

A server may be stopped only where a series about it says 0: what a query does not find may be at
work all the same, with the exporter behind it gone. Pure.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import NamedTuple

import msgspec

from .labels import Withheld
from .text import printable

_LONGEST_QUOTED = 300  # characters of what a Prometheus says
# What Prometheus 2.53 and older say among the warnings, and newer ones apart, as `infos`.
_INFO = "PromQL info: "
# How 0 is written; Python reads as 0 also what is too small for it.
_ZERO = re.compile(r"[+-]?0*\.?0*(?:[eE][+-]?[0-9]+)?")


class QueryError(Exception):
    """A query without a usable answer; `str()` is one sentence for people."""


class Series(NamedTuple):
    """One series of an answer: its labels, and its value (NaN: it is no number)."""

    labels: Mapping[str, str]
    value: float


class Spared(NamedTuple):
    """Why the second opinion withholds a stop for idleness."""

    cause: Withheld
    why: str


@dataclass(frozen=True)
class Opinion:
    """What was answered to the spare query; `problem` says why there is no usable answer.

    `values` are those of the series by user, and by server; "" is for series without a server,
    which speak for all servers of their user. `asked` is our clock.
    """

    query: str
    asked: float = 0.0
    values: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    problem: str | None = None

    @classmethod
    def of(cls, query: str, asked: float, answer: Iterable[Series]) -> "Opinion":
        """Return the opinion that is in an answer."""
        values = defaultdict[str, dict[str, list[float]]](dict)
        for labels, value in answer:
            server = labels.get("server", "")
            values[labels.get("user", "")].setdefault(server, []).append(value)
        return cls(query, asked, values)

    def value(self, user: str, server: str) -> float | None:
        """Return the value that counts for a server: the first that is not 0; None without any."""
        of_user = self.values.get(user, {}) if user else {}
        found = [value for name in dict.fromkeys((server, "")) for value in of_user.get(name, ())]
        return next((value for value in found if value != 0), 0.0) if found else None

    def spares(self, user: str, server: str) -> Spared | None:
        """Say why a server must not be stopped for being idle; None if it may be."""
        if self.problem is not None:
            why = f"Prometheus gave no usable answer: {self.problem}"
            return Spared(Withheld.QUERY_FAILED, why)
        value = self.value(user, server)
        if value is None:
            return Spared(Withheld.IN_USE, "Prometheus has no value for it")
        return Spared(Withheld.IN_USE, f"Prometheus says {value:g} for it") if value != 0 else None


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str] | None = None  # None for a histogram


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error: str = ""
    warnings: list[str] | None = None
    is_partial: bool = False  # VictoriaMetrics says so instead of a warning


def read_answer(status: int, body: bytes, mask: Callable[[str], str] = str) -> list[Series]:
    """Read what a Prometheus answered to an instant query; raise QueryError.

    `mask` is applied to what an error quotes from it. Source: Prometheus HTTP API, "Instant
    queries"; VictoriaMetrics, "Cluster availability".
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (ValueError, RecursionError):
        raise QueryError(f"HTTP {status}, and not the answer of a Prometheus") from None
    if status != 200 or answer.status != "success" or answer.data is None:
        raise QueryError(f"HTTP {status}: {_quoted(answer.error or answer.status, mask)}")
    warnings = [one for one in answer.warnings or () if not one.startswith(_INFO)]
    if warnings:  # the answer may have gaps
        raise QueryError(f"it warns: {_quoted('; '.join(warnings), mask)}")
    if answer.is_partial:
        raise QueryError("its answer is partial: not all of its storage could be read")
    if answer.data.result_type != "vector":
        given = _quoted(answer.data.result_type, mask)
        raise QueryError(f"the query returns a {given}, not a vector")
    return _series(answer.data.result)


def _series(result: msgspec.Raw) -> list[Series]:
    try:
        samples = msgspec.json.decode(result, type=list[_Sample])
        return [Series(one.metric, _number(one)) for one in samples]
    except (ValueError, RecursionError):
        raise QueryError("its vector cannot be read") from None


def _number(sample: _Sample) -> float:
    if sample.value is None:
        return nan
    number = float(sample.value[1])
    rounded = number == 0 and not _ZERO.fullmatch(sample.value[1])
    return nan if rounded else number


def _quoted(text: str, mask: Callable[[str], str]) -> str:
    return printable(mask(text))[:_LONGEST_QUOTED]
