"""Numbers with their spread, and the machine they were taken on."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """The median of several measurements, their quartiles, the least and the number of them."""

    median: float
    low: float
    high: float
    least: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up measurements, one at least."""
        ordered = sorted(values)
        low, median, high = (quantile(ordered, q) for q in (0.25, 0.5, 0.75))
        return cls(median, low, high, ordered[0], len(ordered))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Spread":
        """Sum up ratios, each of two measurements taken in the same round."""
        return cls.of([one / other for one, other in zip(ours, theirs, strict=True)])

    def data(self) -> dict[str, float]:
        """Give it for JSON."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the value below which that share of sorted values lies."""
    place = (len(ordered) - 1) * share
    lower = int(place)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (place - lower)


def machine() -> dict[str, Any]:
    """Say on what this runs; no name of it."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "jupyterhub": version("jupyterhub"),
        "jupyterhub-idle-culler": version("jupyterhub-idle-culler"),
        "requests": version("requests"),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def median(values: Sequence[float]) -> float:
    """Give the median."""
    return statistics.median(values)
