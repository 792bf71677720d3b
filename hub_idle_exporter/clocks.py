"""Reads our clocks; what is decided gets a reading as an argument."""

import time

from .domain.gate import ClockReading


def read_clocks() -> ClockReading:
    """Read our clocks now."""
    return ClockReading(time.monotonic(), time.time())
