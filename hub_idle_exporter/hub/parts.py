"""Cut a JSON array or object into the texts of its parts, without decoding them or recursion.

For a list that cannot be decoded as a whole because of one part: users choose what is in their
part, and how deep. Only strings and brackets are looked at; what a part contains is left to the
decoder. Nothing is copied: all texts are views into the first one.
"""

import re
from collections.abc import Iterator

# Repeats of groups are bounded: for each turn of one the matcher keeps what it needs to go back,
# and what is long is up to the users. Where a bound is reached, a loop goes on.
_SPACE = re.compile(rb"\s*")
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*){0,20}"'
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}("?)', re.DOTALL)
# Up to the next mark. A quote is a mark where a string is too long for the pattern, or has no end.
_MARK = re.compile(rb'[^"\[\]{},]*(?:%s[^"\[\]{},]*){0,200}([\[\]{},"]|\Z)' % _STRING, re.DOTALL)
# Up to the next run of brackets: ten thousand of them are one match, and so are flat neighbours.
_FLAT = rb'[\[{][^"\[\]{}]*(?:%s[^"\[\]{}]*){0,20}[\]}]' % _STRING
_BRACKETS = re.compile(
    rb'[^"\[\]{}]*(?:(?:%s|%s)[^"\[\]{}]*){0,200}(?:([\[{]+)|([\]}]+)|(")|\Z)' % (_STRING, _FLAT),
    re.DOTALL,
)
_OPENING, _CLOSING, _QUOTE = 1, 2, 3  # its groups
_MALFORMED = "JSON is malformed or cut off"


def elements(text: memoryview) -> Iterator[memoryview]:
    """Yield the texts of an array's elements; raise ValueError if it is not an array."""
    return _parts(text, b"[", b"]")


def members(text: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield an object's keys, still escaped, and the texts of their values; else ValueError."""
    for part in _parts(text, b"{", b"}"):
        quote = _after_space(part, 0)
        if bytes(part[quote : quote + 1]) != b'"':
            raise ValueError("a member of a JSON object has no key")
        end = _end_of_string(part, quote)
        colon = _after_space(part, end)
        if bytes(part[colon : colon + 1]) != b":":
            raise ValueError("a member of a JSON object has no value")
        yield bytes(part[quote + 1 : end - 1]), part[colon + 1 :]


def _parts(text: memoryview, opening: bytes, closing: bytes) -> Iterator[memoryview]:
    """Yield what is between the commas of an array or object; it must be all of the text."""
    begun, mark = _after_space(text, 0) + 1, b","
    if text[begun - 1 : begun] != opening:
        raise ValueError(f"JSON has no {opening.decode()} where one is expected")
    while mark == b",":
        end, mark = _end_of_part(text, begun)
        if mark not in (b",", closing):
            raise ValueError(_MALFORMED)
        if mark == b"," or _after_space(text, begun) < end:
            yield text[begun:end]
        begun = end + 1
    if _after_space(text, begun) < len(text):
        raise ValueError("JSON goes on after its end")


def _end_of_part(text: memoryview, at: int) -> tuple[int, bytes]:
    """Return where a part ends, and the mark there."""
    while True:
        found = next(_MARK.finditer(text, at))  # right here: whatever is no mark is skipped
        start, mark = found.start(1), found[1]
        if mark in (b"[", b"{"):
            at = _end_of_nested(text, start)
        elif mark == b'"':
            at = _end_of_string(text, start)
        else:
            return start, mark


def _end_of_nested(text: memoryview, at: int) -> int:
    """Return the end of the array or object that begins here."""
    depth = 1
    for found in _runs_of_brackets(text, at + 1):
        start, end = found.span(found.lastindex or 0)
        if found.lastindex == _OPENING:
            depth += end - start
        elif found.lastindex == _CLOSING and end - start < depth:
            depth -= end - start
        elif found.lastindex == _CLOSING:
            return start + depth
        else:
            break
    raise ValueError(_MALFORMED)


def _runs_of_brackets(text: memoryview, at: int) -> Iterator[re.Match[bytes]]:
    """Yield what `_BRACKETS` finds from here on, in the end something that is no bracket."""
    while True:
        for found in _BRACKETS.finditer(text, at):
            if found.lastindex == _QUOTE:
                at = _end_of_string(text, found.start(_QUOTE))
                break
            yield found
        else:
            return


def _end_of_string(text: memoryview, at: int) -> int:
    """Return the end of the string that begins here."""
    at += 1
    while True:
        found = next(_REST_OF_STRING.finditer(text, at))
        if found[1]:
            return found.end()
        if found.end() == at:
            raise ValueError(_MALFORMED)
        at = found.end()


def _after_space(text: memoryview, at: int) -> int:
    return next(_SPACE.finditer(text, at)).end()
