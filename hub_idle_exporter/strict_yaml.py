"""YAML read strictly: values stay as they were written; a mistake is a sentence with its line.

YAML 1.1 reads `on` as true, `010` as 8 and `1:30` as 90. Its tags build dates and bytes, and fail
in many ways. So nothing is built here: what was written is checked where it is used.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

LONGEST_TEXT = 255  # characters, as many as a name on a Hub may have
_LONGEST_SHOWN, _LONGEST_REASON = 60, 200  # characters
# Values that aliases repeat count each time: a few lines of aliases can stand for billions.
_MOST_VALUES = 100_000
_HIDDEN = "'...'"
_STANDARD = "tag:yaml.org,2002:"
_TEXT, _BOOLEAN, _NULL, _MERGE = (f"{_STANDARD}{kind}" for kind in ("str", "bool", "null", "merge"))
_READ_AS = {
    _BOOLEAN: "true or false",
    _NULL: "nothing",
    f"{_STANDARD}int": "a number",
    f"{_STANDARD}float": "a number",
    f"{_STANDARD}timestamp": "a date",
}


class MistakeError(Exception):
    """A mistake in the file; `str()` is a sentence with the line, without the file's name."""


@dataclass(frozen=True)
class Written:
    """A value as it was written, and where: on which line, in what, under which keys.

    What reads it raises MistakeError if it is something else. Of a secret, that error shows nothing
    that was written: neither values nor keys.
    """

    node: yaml.Node
    line: int
    owner: str = ""
    keys: str = ""
    is_secret: bool = False

    def mistake(self, sentence: str) -> MistakeError:
        """Return the error that says what is wrong with this value."""
        place = f"line {self.line}", self.owner, self.keys
        return MistakeError(": ".join([*filter(None, place), sentence]))

    @property
    def is_list(self) -> bool:
        """Tell whether it is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        """Tell whether it is a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was written."""
        return self.node.tag == _NULL and not self.node.value

    def items(self) -> list["Written"]:
        """Return the items of a list; anything else is one item."""
        if not self.is_list:
            return [self]
        return [self._below(item, _line(item.start_mark), self.keys) for item in self.node.value]

    def mapping(self) -> dict[str, "Written"]:
        """Return the values by their keys."""
        if not self.is_mapping:
            raise self.mistake("it must be a mapping")
        values = {}
        for key, value in self.node.value:
            line = _line(key.start_mark)
            name = self._below(key, line, self.keys).text()
            keys = f"{self.keys}.{name}" if self.keys else name
            values[name] = self._below(value, line, self.keys if self.is_secret else keys)
        return values

    def read_by(self, readers: Mapping[str, Callable[["Written"], object]]) -> dict[str, Any]:
        """Read each value of a mapping by the reader of its key; refuse other keys."""
        self.refuse_unknown(readers)
        return {key: readers[key](value) for key, value in self.mapping().items()}

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Refuse keys that are not known."""
        for key, value in self.mapping().items():
            if key not in known:
                allowed = ", ".join(f"`{one}`" for one in known)
                raise value.mistake(f"unknown key: only {allowed} can be given here")

    def scalar(self, longest: int = LONGEST_TEXT) -> str:
        """Return a single value as it was written, in quotes or not."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.mistake("it must be a single value, not a list or a mapping")
        text = str(self.node.value)
        if len(text) > longest:
            raise self.mistake(f"{self.quoted(text)} is longer than {longest} characters")
        return text

    def text(self, longest: int = LONGEST_TEXT) -> str:
        """Return a text; what YAML reads as something else has to be in quotes."""
        text = self.scalar(longest)
        if self.is_empty:
            raise self.mistake("it is empty: give a value, or leave it out")
        if self.node.tag != _TEXT:
            read_as = _READ_AS.get(self.node.tag, "a special key")
            raise self.mistake(
                f"put {self.quoted(text)} in quotes: without them YAML reads {read_as}"
            )
        if text.encode(errors="ignore").decode() != text:
            raise self.mistake(f"{self.quoted(text)}: write the character itself, not surrogates")
        return text

    def boolean(self) -> bool:
        """Return true or false, which may not be in quotes."""
        text = self.scalar()
        if self.node.tag != _BOOLEAN:
            raise self.mistake(f"{self.quoted(text)}: it must be true or false, without quotes")
        return yaml.SafeLoader.bool_values[text.lower()]

    def secret(self) -> "Written":
        """Return the same as a secret."""
        return replace(self, is_secret=True)

    def quoted(self, text: str) -> str:
        """Show a text of it in a sentence, unless it is a secret."""
        return _HIDDEN if self.is_secret else quoted(text)

    def _below(self, node: yaml.Node, line: int, keys: str) -> "Written":
        return replace(self, node=node, line=line, keys=keys)


def read(content: bytes, has_secrets: bool = False) -> Written:
    """Read a file with one document, which may be empty; raise MistakeError.

    If it has secrets, what is no valid YAML is not shown: that may be one of them.
    """
    try:
        root = yaml.compose(content, Loader=_SecretLoader if has_secrets else _Loader)
    # On odd input yaml fails in more ways than its own.
    except (yaml.YAMLError, ArithmeticError, LookupError, RecursionError, ValueError) as error:
        raise MistakeError(_explained(error, has_secrets)) from None
    return Written(root or yaml.ScalarNode(_NULL, ""), line=1)


def quoted(text: str) -> str:
    """Show a text of the file in a sentence: in quotes, escaped, cut if it is long."""
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


class _Loader(yaml.SafeLoader):
    """Composes a tree of a bounded size, without tags, duplicate keys and `<<`."""

    _quoted: Callable[[str], str] = staticmethod(quoted)

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._values = 0
        self._sizes: dict[yaml.Node | None, int] = {}  # of each finished node, in values

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self._values  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            tag = self._quoted(event.tag.replace(_STANDARD, "!!"))
            raise _mistake(event, f"the tag {tag} is not supported: leave it out")
        self._values += 1
        node = super().compose_node(parent, index)
        if not isinstance(event, yaml.AliasEvent):
            self._sizes[node] = self._values - before
        elif node in self._sizes:
            self._values += self._sizes[node]
        else:
            raise _mistake(event, "an alias may not stand for what it is part of")
        if self._values > _MOST_VALUES:
            raise _mistake(event, f"more than {_MOST_VALUES} values, counting what aliases repeat")
        return node

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Replace `<<` by the keys of other mappings, which the mapping's own keys override."""
        node = super().compose_mapping_node(anchor)
        pairs: _Pairs = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _mistake(key, "a key must be text")
            if key.value in pairs:  # YAML silently takes the last one: an exemption could be lost
                raise _mistake(key, f"duplicate key {self._quoted(key.value)}")
            pairs[key.value] = key, value
        merged: _Pairs = {}
        if "<<" in pairs and pairs["<<"][0].tag == _MERGE:
            merged = _merged(pairs.pop("<<")[1])
        node.value = list((merged | pairs).values())
        return node


class _SecretLoader(_Loader):
    """Shows nothing of what it loads."""

    _quoted = staticmethod(lambda _text: _HIDDEN)


_Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


def _merged(node: yaml.Node) -> _Pairs:
    """Return the keys and values of a mapping, or of several, of which the first counts most."""
    pairs: _Pairs = {}
    for source in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
        if not isinstance(source, yaml.MappingNode):
            raise _mistake(source, "`<<` needs a mapping or a list of mappings")
        pairs |= {key.value: (key, value) for key, value in source.value}
    return pairs


def _line(mark: Any) -> int:  # yaml has two types of marks, and a node may have none
    return mark.line + 1 if mark else 1


def _mistake(place: yaml.Node | yaml.Event, sentence: str) -> MistakeError:
    return MistakeError(f"line {_line(place.start_mark)}: {sentence}")


def _explained(error: Exception, hides: bool) -> str:
    """Say in one sentence what yaml says in several lines, about its input as `<byte string>`."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if hides:
        mark = getattr(error, "problem_mark", None)
        return f"line {_line(mark)}: it is not valid YAML" if mark else "it is not valid YAML"
    what = str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        what = ", ".join(filter(None, [error.context, error.problem]))
        what = f"line {_line(error.problem_mark)}: {what}"
    elif isinstance(error, yaml.reader.ReaderError):
        what = f"{error.reason} at position {error.position}: is it UTF-8 text?"
    return f"it is not valid YAML: {what[:_LONGEST_REASON]}"
