"""Cutting JSON into its parts, against Python's own decoder, and where no decoder goes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_idle_exporter.hub.parts import elements, members

# Characters that a careless cutter trips over come often.
texts = st.text(
    st.one_of(st.sampled_from('"\\[]{},: \n'), st.characters(codec="utf-8")), max_size=8
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=20,
)
styles = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 2, "\t"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (" , ", " : ")]),
    }
)
cuts = st.floats(0, 0.999)


def written(document: object, style: dict[str, Any]) -> memoryview:
    return memoryview(json.dumps(document, **style).encode())


def same(found: list[object], expected: list[object]) -> bool:
    """Compare by what is written: NaN is not equal to itself."""
    return json.dumps(found) == json.dumps(expected)


@given(st.lists(documents, max_size=5), styles)
def test_elements_are_what_the_decoder_finds(document: list[object], style: dict[str, Any]) -> None:
    found = [json.loads(bytes(part)) for part in elements(written(document, style))]
    assert same(found, document)


@given(st.dictionaries(texts, documents, max_size=5), styles)
def test_members_are_what_the_decoder_finds(
    document: dict[str, object], style: dict[str, Any]
) -> None:
    parts = list(members(written(document, style)))
    assert [json.loads(b'"%s"' % key) for key, _ in parts] == list(document)
    assert same([json.loads(bytes(value)) for _, value in parts], list(document.values()))


@given(st.lists(documents, min_size=1, max_size=5), styles, cuts)
def test_half_an_array_is_an_error(
    document: list[object], style: dict[str, Any], cut: float
) -> None:
    whole = written(document, style)
    with pytest.raises(ValueError, match="JSON"):
        list(elements(whole[: int(len(whole) * cut)]))


@given(st.one_of(st.binary(max_size=30), st.text('"\\[]{},:1 ', max_size=30).map(str.encode)))
def test_whatever_it_is_it_ends_and_is_parts_or_an_error(text: bytes) -> None:
    for cut in (elements, members):
        try:
            parts = list(cut(memoryview(text)))
        except ValueError:
            continue
        assert len(parts) <= len(text)


@pytest.mark.parametrize(
    "text", [b"", b" ", b"7", b'"[1]"', b"{}", b"null", b"[1] 2", b"[1]]", b'["', b'["\\"]', b"[1}"]
)
def test_what_is_no_array_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        list(elements(memoryview(text)))


@pytest.mark.parametrize("text", [b"[]", b'{"a"}', b"{1: 2}", b'{"a": 1', b"{,}"])
def test_what_is_no_object_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        list(members(memoryview(text)))


@pytest.mark.parametrize("inner", [b"[%s]", b'[{"a": %s}]', b"[[], %s, {}]", b'["]", %s]'])
def test_depth_is_no_obstacle(inner: bytes) -> None:
    before, after = inner.split(b"%s")
    deep = before * 100_000 + b"1" + after * 100_000
    parts = list(elements(memoryview(b"[0, %s, 2]" % deep)))
    assert [bytes(part).strip() for part in parts] == [b"0", deep, b"2"]
