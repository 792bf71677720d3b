"""The fault matrix: each kind of fault at each step, what comes of it, and that it recovers.

`docs/faults.md` is filled by this file: run it with `UPDATE_MATRIX=1` to write the tables.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fault_cells
import pytest
from fault_cells import Cell
from fault_steps import KINDS, STEPS

from hub_idle_exporter.culling import probe

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- filled by tests/integration/test_fault_matrix.py -->\n", "<!-- to here -->\n"
Matrix = Mapping[tuple[str, str], Cell]
ALL = [(kind, step) for kind in KINDS for step in STEPS]
# These are tried at every step in `make test` too.
QUICK = {"reset", "403", "token revoked"}
_PROCESSES = 6  # most of the time a cell waits

AS_WITHOUT = {"stopped", "stopped, removed"}
COUNTERS = {
    "poll fails": 'poll_failures_total{cause="%s"}',
    "withheld": 'culls_withheld_total{cause="%s"}',
    "stop fails": 'cull_failures_total{cause="%s"}',
}


def _run(place: tuple[int, int]) -> Cell:
    """Fill one cell, in a process of its own."""
    probe.DEADLINE_SECONDS, probe.ADDRESS_SECONDS = 2.0, 1.0
    return fault_cells.run(KINDS[place[0]], STEPS[place[1]])


def _filled(wanted: Iterable[tuple[str, str]]) -> Matrix:
    names = list(wanted)
    kinds = {kind.name: number for number, kind in enumerate(KINDS)}
    steps = {step.name: number for number, step in enumerate(STEPS)}
    with ProcessPoolExecutor(_PROCESSES) as pool:
        cells = pool.map(_run, [(kinds[kind], steps[step]) for kind, step in names])
        return dict(zip(names, cells, strict=True))


def _check(matrix: Matrix) -> None:
    wrong = {place: cell.problems for place, cell in matrix.items() if cell.problems}
    assert not wrong
    assert not [place for place, cell in matrix.items() if not cell.recovered]


def test_some_faults_at_every_step_stop_nobody_at_work_and_are_got_over() -> None:
    _check(_filled((kind.name, step.name) for kind, step in ALL if kind.name in QUICK))


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return _filled((kind.name, step.name) for kind, step in ALL)


@pytest.mark.slow("the whole fault matrix")
def test_every_fault_at_every_step_stops_nobody_at_work_and_is_got_over(matrix: Matrix) -> None:
    _check(matrix)


@pytest.mark.slow("the whole fault matrix")
def test_the_tables_in_the_docs_are_what_came_of_it(matrix: Matrix) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    written = "".join(f"{line}\n" for line in tables(matrix))
    if os.environ.get("UPDATE_MATRIX"):
        PAGE.write_text(before + BEGIN + written + END + after)
    else:
        assert shown == written


# ---- the tables ---------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Row:
    """What came of a fault, as it is shown; faults with the same share a line."""

    outcome: str
    ready: bool
    code: int

    @classmethod
    def of(cls, cell: Cell) -> "Row":
        return cls(cell.outcome, cell.ready, cell.code)

    def cells(self) -> str:
        return f"{_shown(self.outcome)} | {200 if self.ready else 503} | {self.code}"


Rows = list[tuple[Row, list[str]]]


def tables(matrix: Matrix) -> Iterator[str]:
    """Write what comes of each fault at each step, and what tells each outcome."""
    yield "| steps | what comes of it | `/-/ready` | `--once` | faults |"
    yield "|---|---|---|---|---|"
    for steps, rows in _merged(matrix):
        for number, (row, kinds) in enumerate(rows):
            name = ", ".join(steps) if number == 0 else ""
            yield f"| {name} | {row.cells()} | {', '.join(kinds)} |"
    yield ""
    yield "| what comes of it | counter | log |"
    yield "|---|---|---|"
    by_outcome: dict[str, list[Cell]] = defaultdict(list)
    for cell in matrix.values():
        by_outcome[cell.outcome].append(cell)
    for outcome in sorted(by_outcome):
        yield _told(outcome, by_outcome[outcome])


def _merged(matrix: Matrix) -> list[tuple[list[str], Rows]]:
    """Group the faults of each step by what came of them; steps with the same rows share them."""
    merged: list[tuple[list[str], Rows]] = []
    for step in STEPS:
        found: dict[Row, list[str]] = defaultdict(list)
        for kind in KINDS:
            if (kind.name, step.name) in matrix:
                found[Row.of(matrix[kind.name, step.name])].append(kind.name)
        rows = sorted(found.items())
        for steps, known in merged:
            if known == rows:
                steps.append(step.name)
                break
        else:
            merged.append(([step.name], rows))
    return merged


def _shown(outcome: str) -> str:
    return f"{outcome}, as without the fault" if outcome in AS_WITHOUT else outcome


def _told(outcome: str, cells: list[Cell]) -> str:
    parts = [part.partition(": ") for part in outcome.split(", ")]
    counter = ", ".join(f"`{COUNTERS[kind] % cause}`" for kind, _, cause in parts if cause)
    always = frozenset.intersection(*(cell.events for cell in cells))
    sometimes = frozenset.union(*(cell.events for cell in cells)) - always
    log = ", ".join(f"`{event}`" for event in sorted(always))
    if sometimes:
        log += "; at times " if log else "at times "
        log += ", ".join(f"`{event}`" for event in sorted(sometimes))
    return f"| {_shown(outcome)} | {counter} | {log} |"
