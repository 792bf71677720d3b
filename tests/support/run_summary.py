"""One line at the end of a run of the whole suite: what it left out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest


class RunSummary:
    """Count the slow tests that are deselected, in this process or in those of xdist.

    Each worker of xdist collects, and so deselects, the whole suite: one of them is believed.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._left_out: Counter[str] = Counter()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note what is left out."""
        marks = [item.get_closest_marker("slow") for item in items]
        self._left_out.update(mark.args[0] if mark else "others" for mark in marks)

    def pytest_sessionfinish(self) -> None:
        """Tell the controller, from a worker."""
        output: dict[str, Any] | None = getattr(self._config, "workeroutput", None)
        if output is not None:
            output["left_out"] = dict(self._left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Hear it from a worker; one that crashed has nothing to say."""
        self._left_out = Counter(getattr(node, "workeroutput", {}).get("left_out", self._left_out))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the line."""
        if self._config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
            return  # somebody runs a file or two
        skipped = len(terminalreporter.stats.get("skipped", []))
        more = f"; {_tests(skipped)} skipped, see above" if skipped else ""
        terminalreporter.write_line(sentence(self._left_out) + more)


def sentence(left_out: Counter[str]) -> str:
    """Say what was left out: slow tests by what they wait for, and others."""
    others = left_out["others"]
    slow = left_out - Counter(others=others)
    parts = []
    if slow:
        what = ", ".join(sorted(slow))
        parts.append(f"left to make test-all: {_tests(slow.total(), 'slow ')} ({what})")
    if others:
        parts.append(f"{_tests(others)} not selected")
    return "; ".join(parts) or "no test was left out"


def _tests(count: int, kind: str = "") -> str:
    return f"{count} {kind}test{'s' * (count != 1)}"
