"""Reads our clocks, and writes times; what is decided gets a reading as an argument."""

import time
from datetime import datetime, timezone

from .domain.gate import ClockReading

# While the machine is suspended CLOCK_MONOTONIC stands still, and what we know would look fresh.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Return seconds by a clock that never jumps and runs on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


def read_clocks() -> ClockReading:
    """Read our clocks now."""
    return ClockReading(steady(), time.time())


def machine_moment(seconds: float) -> str:
    """Write a time (seconds since 1970) in UTC, as programs and `datetime` of HTML take it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
