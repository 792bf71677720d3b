"""How wide a text is on a terminal, and how it fits into columns.

A colour takes no room, nor does an accent that is written as a character of its own; most
characters of East Asian scripts take two columns.
"""

import re
import unicodedata
from collections.abc import Iterator

_COLOUR = re.compile(r"\033\[[0-9;]*m")
_NO_ROOM = frozenset(("Mn", "Me", "Cf"))
_JAMO = range(0x1160, 0x1200)  # the later parts of a Hangul syllable are written into its first one
_WIDE = frozenset("WF")
ELLIPSIS = "…"


def width(text: str) -> int:
    """Return the number of columns that a text takes."""
    if text.isascii() and "\033" not in text:
        return len(text)
    return sum(map(_columns, _COLOUR.sub("", text)))


def _columns(character: str) -> int:
    if unicodedata.category(character) in _NO_ROOM or ord(character) in _JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def padded(text: str, room: int) -> str:
    """Fill a text up with blanks."""
    return text + " " * (room - width(text))


def cut(text: str, room: int) -> str:
    """Cut a text in the middle if it is too wide: names differ at the end as often as at the start.

    The text has no colours.
    """
    if width(text) <= room:
        return text
    left = room - width(ELLIPSIS)
    head = _first(text, (left + 1) // 2)
    tail = _first(text[::-1], left - width(head))[::-1]
    while tail and not _columns(tail[0]):  # the accent of a letter that is cut away
        tail = tail[1:]
    return head + ELLIPSIS + tail


def _first(text: str, room: int) -> str:
    taken = 0
    for place, character in enumerate(text):
        taken += _columns(character)
        if taken > room:
            return text[:place]
    return text


def wrapped(text: str, room: int, indent: str = "") -> str:
    """Break a line between words, and words that are too wide; `indent` is for all lines but one.

    Blanks between words stay as they are, so that a line that fits does not change.
    """
    lines = [""]
    for word in re.findall(r"\s*\S+", text):
        if width(lines[-1] + word) <= room:
            lines[-1] += word
            continue
        pieces = list(_pieces(word.lstrip() if lines[-1] else word, room - width(indent)))
        if lines == [""]:
            lines = [pieces.pop(0)]
        lines += [indent + piece for piece in pieces]
    return "\n".join(lines)


def _pieces(word: str, room: int) -> Iterator[str]:
    """Break a word that is too wide for a line; one that has colours stays whole."""
    while width(word) > room and "\033" not in word:
        piece = _first(word, room) or word[0]
        yield piece
        word = word[len(piece) :]
    yield word
