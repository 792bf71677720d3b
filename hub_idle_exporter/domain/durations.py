"""Durations as people write them (`3600`, `90m`, `1h30m`, `2d`), in seconds."""

import math
import re
from itertools import pairwise

import durationpy

ALLOWED = "seconds (3600) or a duration such as 90m, 1h30m, 2d"
_LONGEST = 100 * 365 * 86400.0
# durationpy also accepts weeks, years, and `mm` for months, which looks like minutes.
_DURATION = re.compile(r"([0-9.]+[dhms])+")
# Without a leading zero: YAML 1.1 and C read 010 as 8.
_NUMBER = re.compile(r"(0|[1-9][0-9]*)([.][0-9]+)?")

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_WORDS = {"d": "day", "h": "hour", "m": "minute", "s": "second"}


def seconds_of(text: str) -> float:
    """Parse a duration; raise ValueError, saying what is allowed, if that cannot be done.

    It may be neither negative nor over a hundred years.
    """
    seconds = _parse(text)
    if not 0 <= seconds <= _LONGEST:  # NaN fails this too
        zero = ", without a leading zero" if re.match("0[0-9]", text) else ""
        raise ValueError(f"must be {ALLOWED}{zero}")
    return seconds


def _parse(text: str) -> float:
    try:
        if _NUMBER.fullmatch(text):
            return float(text)
        if _DURATION.fullmatch(text):
            return float(durationpy.from_str(text).total_seconds())
    except (durationpy.DurationError, ValueError, OverflowError):
        pass
    return math.nan


def shown(seconds: float) -> str:
    """Write seconds for people: `45s`, `1h30m`, `2d`; parts under a second are dropped."""
    left, parts = int(seconds), []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def roughly(seconds: float) -> str:
    """Write seconds in the largest unit and the one below it: `3d1h`, `2h5m`."""
    for (_, size), (_, next_size) in pairwise(_UNITS):
        if seconds >= size:
            return shown(seconds // next_size * next_size)
    return shown(seconds)


def in_words(seconds: float) -> str:
    """Write seconds for people in full words, in at most two units: `1 hour 30 minutes`."""
    parts = re.findall("([0-9]+)([dhms])", roughly(max(seconds, 0)))
    return " ".join(f"{n} {_WORDS[unit]}{'' if n == '1' else 's'}" for n, unit in parts)
