"""What a run of the whole suite says it left out."""

from collections import Counter

import pytest
from run_summary import sentence


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ({}, "no test was left out"),
        ({"outage": 1, "demo": 2}, "left to make test-all: 3 slow tests (demo, outage)"),
        ({"others": 7}, "7 tests not selected"),
        (
            {"demo": 1, "others": 7},
            "left to make test-all: 1 slow test (demo); 7 tests not selected",
        ),
    ],
)
def test_what_was_left_out_is_one_sentence(left_out: dict[str, int], said: str) -> None:
    assert sentence(Counter(left_out)) == said
