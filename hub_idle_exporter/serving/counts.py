"""How often outcomes were counted, with their words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..domain.totals import Counts

_Value = TypeVar("_Value", bound=str)


@dataclass(frozen=True)
class Count:
    """How often an outcome was counted, and what it means."""

    value: str
    meaning: str
    count: int


def counted(meanings: Mapping[_Value, str], counts: Counts) -> tuple[Count, ...]:
    """Give the outcomes that occurred."""
    found = ((value, meaning, int(counts.get((value,), 0))) for value, meaning in meanings.items())
    return tuple(Count(value, meaning, count) for value, meaning, count in found if count)
