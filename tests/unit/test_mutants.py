"""The list of mutants stays true: each old text is there exactly once, each test exists."""

import re
from functools import cache
from pathlib import Path

import pytest
from mutant_list import MUTANTS, Mutant

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "hub_idle_exporter"


@cache
def text_of(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_a_mutant_is_still_true(mutant: Mutant) -> None:
    assert text_of(PACKAGE / mutant.file).count(mutant.old) == 1, "the rule's code has moved"
    assert mutant.old != mutant.new
    file, _, name = mutant.test.partition("::")
    assert re.search(rf"^def {name}\(", text_of(TESTS / file), re.MULTILINE), "no such test"


def test_there_are_mutants_enough() -> None:
    assert len(MUTANTS) >= 100
    assert len({mutant.file for mutant in MUTANTS}) >= 9
