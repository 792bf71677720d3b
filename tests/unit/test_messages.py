"""What people are told: when, why, and what to do; durations only, on a title of one line."""

import re

import pytest

from hub_idle_exporter.domain.durations import in_words
from hub_idle_exporter.domain.messages import due_words, stopped_words
from hub_idle_exporter.domain.policy import Reason

IDLE, MAX_AGE = Reason.IDLE, Reason.MAX_AGE
PAGE = "https://hub.example.org/services/idle/"


def test_an_idle_server_is_due() -> None:
    words = due_words("", IDLE, 3600, 900, PAGE)
    assert words.title == "Your server will be stopped in 15 minutes"
    assert words.body == (
        "Your server is not in use, and servers are stopped after 1 hour without use. "
        "It will be stopped in 15 minutes.\n\n"
        "If you still need it, use it: open it and run something, or keep it for longer at "
        f"{PAGE}.\n\n"
        "Save your work now: what is only in memory is lost when the server stops."
    )


def test_using_or_keeping_a_server_does_not_help_against_max_age() -> None:
    words = due_words("gpu", MAX_AGE, 86400, 5400, PAGE)
    assert words.title == 'Your server "gpu" will be stopped in 1 hour 30 minutes'
    assert "stopped 1 day after their start, also while they are used" in words.body
    assert "Using it does not prevent that." in words.body
    assert PAGE not in words.body
    assert PAGE not in stopped_words("gpu", MAX_AGE, 5.0, PAGE).body


def test_without_a_page_none_is_named() -> None:
    assert "keep" not in due_words("", IDLE, 3600, 900, "").body
    assert "keep" not in stopped_words("", IDLE, 3600, "").body


def test_a_server_was_stopped() -> None:
    words = stopped_words("", IDLE, 3720, PAGE)
    assert words.title == "Your server was stopped"
    assert "because it was not in use for 1 hour 2 minutes. You can start it again" in words.body
    assert f"keep it before you leave: {PAGE}" in words.body
    assert "not in use. You" in stopped_words("", IDLE, None, "").body


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (899.6, "in 15 minutes"),
        (890, "in 14 minutes"),
        (90, "in 1 minute"),
        (3 * 3600 - 20, "in 2 hours 59 minutes"),
        (61, "in 1 minute"),
        (59, "in less than a minute"),
        (-5, "in less than a minute"),
    ],
)
def test_nobody_is_promised_more_time_than_is_left(left: float, said: str) -> None:
    assert due_words("", IDLE, 3600, left, "").title == f"Your server will be stopped {said}"


@pytest.mark.parametrize("name", ["two\nlines", "re\rturn\x00", "\x1b[31m"])
def test_the_name_of_a_server_stays_on_its_line(name: str) -> None:
    for words in (due_words(name, IDLE, 60, 60, ""), stopped_words(name, IDLE, None, "")):
        assert words.title.isprintable()
        assert words.body.replace("\n\n", "").isprintable()


def test_neither_a_time_of_day_nor_a_zone_is_told() -> None:
    for reason in Reason:
        words = due_words("", reason, 90061, 4000, PAGE)
        assert not re.search(r"\d:\d|UTC|\d{4}", words.title + words.body)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (1, "1 second"), (90, "1 minute 30 seconds"), (7200, "2 hours"),
     (86400 * 3 + 3600, "3 days 1 hour"), (86400 + 59, "1 day"), (-1, "0 seconds")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
