"""Durations as people write them, and as they are shown."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_idle_exporter.domain.durations import roughly, seconds_of, shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3600", 3600), ("0", 0), ("0.5", 0.5), ("1.5", 1.5), ("90m", 5400), ("08h", 28800),
        ("1h30m", 5400), ("2d", 172800), ("1d12h", 129600), ("1h1m1s", 3661), ("45s", 45),
        ("1.5h", 5400),
    ],
)  # fmt: skip
def test_a_duration(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "-1", "-5m", "1h30", "5 minutes", "m", "h1", "nan", "inf",
     "-inf", "1e400", "36501d", "1w", "1y", "30mm", "1d1w", "5us",
     "1µs", "1500ms", "1_000", "1e3", " 5", "٣m",
     "9" * 400, "9" * 400 + "h", "1h;", "0x10", "0b1", "1:30", "12:00", "010", "00", "01.5"],
)  # fmt: skip
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be seconds \(3600\)"):
        seconds_of(text)


@settings(deadline=None)
@given(st.text(max_size=12) | st.floats().map(str) | st.integers().map(str))
def test_anything_is_a_duration_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= seconds_of(text) <= 100 * 365 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (3600, "1h"), (5400, "1h30m"),
     (86400, "1d"), (90061, "1d1h1m1s"), (172800, "2d")],
)  # fmt: skip
def test_shown(seconds: float, text: str) -> None:
    assert shown(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (61, "1m1s"), (3599, "59m59s"), (3661, "1h1m"), (7202, "2h"),
     (90061, "1d1h"), (86400, "1d"), (3_456_001, "40d")],
)  # fmt: skip
def test_shown_roughly(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**9))
def test_what_is_shown_is_what_was_meant(seconds: int) -> None:
    assert seconds_of(shown(seconds)) == seconds
