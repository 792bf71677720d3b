"""Cut a JSON array or object into the texts of its parts, without decoding them or recursion.

For a list that cannot be decoded as a whole because of one part: users choose what is in their
part, and how deep. Only strings and brackets are looked at; what a part contains is left to the
decoder. Nothing is copied: all texts are views into the first one.
"""

import re
from collections.abc import Iterator

# Possessive (`++`, `*+`): nothing is kept for going back, however long the text is. Python before
# 3.11.5 goes on from where the last alternative has failed, so the last one, `(?!)`, fails at once.
_STRING = rb'"(?:[^"\\]++|\\.|(?!))*+"'
_SPACE = re.compile(rb"\s*+")
_KEY = re.compile(rb'\s*+"((?:[^"\\]++|\\.|(?!))*+)"\s*+:', re.DOTALL)
# Up to the next mark; a lone quote is a string without an end.
_MARK = re.compile(rb'(?:[^"\[\]{},]++|%s|(?!))*+([\[\]{},"]|\Z)' % _STRING, re.DOTALL)
# Up to the next run of brackets: ten thousand of them are one match, and so are flat neighbours.
_FLAT = rb'[\[{](?:[^"\[\]{}]++|%s|(?!))*+[\]}]' % _STRING
_BRACKETS = re.compile(
    rb'(?:[^"\[\]{}]++|%s|%s|(?!))*+(?:([\[{]++)|([\]}]++)|("|\Z))' % (_STRING, _FLAT), re.DOTALL
)


def elements(text: memoryview) -> Iterator[memoryview]:
    """Yield the texts of an array's elements; raise ValueError if it is not an array."""
    return _parts(text, b"[", b"]")


def members(text: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield an object's keys, still escaped, and the texts of their values; else ValueError."""
    for part in _parts(text, b"{", b"}"):
        key = _KEY.match(part)
        if key is None:
            raise ValueError("a member of a JSON object has no key")
        yield key[1], part[key.end() :]


def _parts(text: memoryview, opening: bytes, closing: bytes) -> Iterator[memoryview]:
    """Yield what is between the commas of an array or object; it must be all of the text."""
    begun, mark = _after_space(text, 0) + 1, b","
    if text[begun - 1 : begun] != opening:
        raise ValueError(f"JSON has no {opening.decode()} where one is expected")
    while mark == b",":
        end, mark = _end_of_part(text, begun)
        if mark not in (b",", closing):
            raise ValueError("JSON is malformed or cut off")
        if mark == b"," or _after_space(text, begun) < end:
            yield text[begun:end]
        begun = end + 1
    if _after_space(text, begun) < len(text):
        raise ValueError("JSON goes on after its end")


def _end_of_part(text: memoryview, at: int) -> tuple[int, bytes]:
    """Return where a part ends, and the mark there."""
    while True:
        found = next(_MARK.finditer(text, at))  # right here: whatever is no mark is skipped
        if found[1] not in (b"[", b"{"):
            return found.start(1), found[1]
        at = _end_of_nested(text, found.start(1))


def _end_of_nested(text: memoryview, at: int) -> int:
    """Return the end of the array or object that begins here."""
    depth = 1
    for found in _BRACKETS.finditer(text, at + 1):
        start, end = found.span(found.lastindex or 0)
        if found.lastindex == 1:
            depth += end - start
        elif found.lastindex == 2 and end - start < depth:
            depth -= end - start
        elif found.lastindex == 2:
            return start + depth
        else:
            break
    raise ValueError("JSON is malformed or cut off")


def _after_space(text: memoryview, at: int) -> int:
    return next(_SPACE.finditer(text, at)).end()
