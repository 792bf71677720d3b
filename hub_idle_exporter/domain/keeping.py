"""Keeping: people may say that a server of theirs is not to be stopped for a while.

A keep counts for one start of a server: a server that is started anew is not kept. It holds up the
idle limit, never the maximum age. Times are the Hub's clock, in seconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

Start = tuple[str, str, datetime | None]  # one start of one server: user, server, started


@dataclass(frozen=True)
class Keep:
    """Until when a server is kept, and who asked for that."""

    until: float
    by: str


Keeps = Mapping[Start, Keep]


def kept_for(keeps: Keeps, start: Start, now: float) -> float | None:
    """Return for how many seconds a server is still kept; None if it is not."""
    keep = keeps.get(start)
    return None if keep is None or keep.until <= now else keep.until - now
