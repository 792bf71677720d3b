"""What a Prometheus remembers: samples of the past, written as OpenMetrics and read by promtool.

    history = History(at=now)
    history.counter("container_cpu_usage_seconds_total", {"pod": "jupyter-ana"}, 0.002)
    remember(promtool, directory / "data", history)

Such series end without a staleness marker, as those of an exporter that died do.
"""

import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

STEP = 15  # seconds between two scrapes
LENGTH = 600  # seconds that are remembered

Labels = Mapping[str, str]


class History:
    """Samples of the minutes before `at`; `since` and `until` are seconds from there."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.lines = defaultdict[str, list[str]](list)
        self._newest: dict[str, int] = {}

    def gauge(
        self, name: str, labels: Labels, value: float = 1, since: int = -LENGTH, until: int = 0
    ) -> None:
        """Remember a value that stays the same."""
        self._write(name, labels, lambda _age: value, since, until)

    def counter(
        self, name: str, labels: Labels, per_second: float, since: int = -LENGTH, until: int = 0
    ) -> None:
        """Remember a value that grows."""
        self._write(name, labels, lambda age: 1 + per_second * age, since, until)

    def _write(
        self, name: str, labels: Labels, value: Callable[[int], float], since: int, until: int
    ) -> None:
        text = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items() if one)
        series = f"{name}{{{text}}}"
        assert self._newest.get(series, since - 1) < since, f"written twice: {series}"
        self._newest[series] = until
        self.lines[name] += [
            f"{series} {value(second - since)} {self.at + second}"
            for second in range(since, until + 1, STEP)
        ]


def remember(promtool: str, data: Path, *histories: History) -> None:
    """Write histories, the oldest first, where a Prometheus has its data."""
    names = dict.fromkeys(name for one in histories for name in one.lines)
    lines = [line for name in names for one in histories for line in one.lines[name]]
    file = data.with_name("history.txt")
    file.write_text("\n".join([*lines, "# EOF\n"]), encoding="utf-8")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(file), str(data)]
    subprocess.run(command, check=True, capture_output=True)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
