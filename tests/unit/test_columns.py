"""How wide texts are on a terminal, and how they fit."""

import unicodedata

import pytest
import wcwidth
from hypothesis import given
from hypothesis import strategies as st

from hub_idle_exporter.domain.columns import cut, padded, width, wrapped

TEXTS = st.text(st.sampled_from("ab cö日本e\u0301각ｱ…/-"), max_size=60)
RED = "\033[31mred\033[0m"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("ana", 3),
        ("ünï", 3),
        ("u\u0308ni\u0308", 3),  # the same with accents of their own
        ("日本語", 6),
        ("한글", 4),
        ("\u1112\u1161\u11ab", 2),  # one syllable in three parts
        ("ｱﾅ", 2),  # half width
        ("\uff21", 2),  # a full width A
        ("🚀", 2),
        ("a\u200bb", 2),
        (RED, 3),
        (f"日{RED}本", 7),
    ],
)
def test_a_text_is_as_wide_as_it_looks(text: str, columns: int) -> None:
    assert width(text) == columns
    assert width(padded(text, 20)) == 20


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("ana", 3, "ana"),
        ("ana.maria@example.edu", 11, "ana.m…e.edu"),
        ("ana.maria@example.edu", 10, "ana.m….edu"),
        ("日本語の名前", 12, "日本語の名前"),
        ("日本語の名前", 8, "日本…前"),
        ("日本語の名前", 7, "日…名前"),
        ("ab", 1, "…"),
        ("abcde\u0301", 4, "ab…e\u0301"),
        ("abcde\u0301f", 4, "ab…f"),
    ],
)
def test_a_name_is_cut_in_the_middle(text: str, room: int, shown: str) -> None:
    assert cut(text, room) == shown
    assert width(shown) <= room


# Latin, Greek, Cyrillic, Hebrew, Arabic, Thai, Kana, Han, Hangul, full and half width, emoji.
SCRIPTS = [
    (0x20, 0x24F), (0x300, 0x5FF), (0x600, 0x6FF), (0xE01, 0xE5B), (0x3041, 0x30FF),
    (0x4E00, 0x9FFF), (0x1100, 0x11FF), (0xAC00, 0xD7A3), (0xFF01, 0xFF9F), (0x1F300, 0x1F5FF),
]  # fmt: skip


@pytest.mark.parametrize(("first", "last"), SCRIPTS)
def test_terminals_agree(first: int, last: int) -> None:
    for character in map(chr, range(first, last + 1)):
        if unicodedata.category(character) not in ("Cc", "Cf", "Cn"):
            assert width(character) == wcwidth.wcwidth(character), hex(ord(character))


@given(TEXTS, st.integers(1, 40))
def test_what_is_cut_fits(text: str, room: int) -> None:
    assert width(cut(text, room)) <= room


@given(TEXTS, st.integers(4, 40))
def test_what_is_wrapped_fits_and_loses_nothing_but_blanks(text: str, room: int) -> None:
    lines = wrapped(text, room, "  ").split("\n")
    assert max(map(width, lines)) <= room
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_line_that_fits_stays_as_it_is() -> None:
    line = "  JupyterHub   http://127.0.0.1:8000/"
    assert wrapped(line, 40) == line


def test_colours_take_no_room() -> None:
    assert wrapped(f"{RED} and {RED}", 11) == f"{RED} and {RED}"
    assert wrapped(f"{RED} and {RED}", 10) == f"{RED} and\n{RED}"


def test_lines_are_indented_but_the_first() -> None:
    assert wrapped("one two three", 7, "    ") == "one two\n    thr\n    ee"
