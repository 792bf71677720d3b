"""Random changes to true answers: of JSON values, of bytes, of headers. For fuzzing."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fake_hub import Fault, Reply, Request
from hypothesis import strategies as st

ODD_NUMBERS = [0, -1, 1e308, -1e308, 2**63, 10**400, 0.1]
ODD_TEXTS = ["", "null", "2027-01-15T08:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00Z",
             "2027-01-15T08:00:00+99:99", "../..", "\ud800", "\x00", "a" * 3000, "ana", "gpu", "{}",
             "http://[::1", "http://127.0.0.1:0/", "/user/ana/gpu/"]  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20)
    | st.sampled_from([*ODD_NUMBERS, *ODD_TEXTS])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(ODD_TEXTS), inner, max_size=4)
    ),
    max_leaves=12,
)


@dataclass(frozen=True)
class Mutation:
    """One change: `how` to which place, found by walking `path`, and by which value."""

    how: str  # replace, delete, repeat, nest; bytes, cut; header
    path: tuple[int, ...]
    value: Any

    def __call__(self, answer: Reply) -> Reply:
        """Change an answer."""
        if self.how == "header":
            name = ["Date", "X-JupyterHub-Version", "Retry-After", "Content-Type",
                    "Content-Encoding", "Location"][sum(self.path) % 6]  # fmt: skip
            text = str(self.value).encode("latin-1", "replace").decode("latin-1")
            return replace(answer, headers=answer.headers | {name: " ".join(text.split())})
        return replace(answer, body=self.changed(answer.body))

    def changed(self, body: bytes) -> bytes:
        """Change a body."""
        place = sum(self.path) * 7919 % (len(body) + 1)
        if self.how == "cut":
            return body[:place]
        if self.how == "bytes":
            return body[:place] + repr(self.value).encode(errors="replace") + body[place + 1 :]
        try:
            whole = [json.loads(body)]
        except ValueError:
            return body
        _change(whole, self)
        return json.dumps(whole[0]).encode(errors="surrogatepass")


def _change(within: Any, mutation: Mutation) -> None:
    """Walk to the place, and change what is there."""
    key: Any = 0
    for number in mutation.path:
        inner = within[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        within, key = inner, keys[number % len(keys)]
    if mutation.how == "delete" and not isinstance(within, list):
        del within[key]
    elif mutation.how == "repeat":
        within[key] = [within[key]] * 3
    elif mutation.how == "nest":
        within[key] = {"a": {"b": [within[key]]}}
    else:
        within[key] = mutation.value


mutations = st.builds(
    Mutation,
    st.sampled_from(["replace", "delete", "repeat", "nest", "bytes", "cut", "header"]),
    st.lists(st.integers(0, 40), max_size=6).map(tuple),
    values,
)


def answering(*changes: Callable[[Reply], Reply]) -> Fault:
    """Answer truly, but for these changes."""

    def fault(_request: Request, answer: Callable[[], Reply]) -> Reply:
        changed = answer()
        for change in changes:
            changed = change(changed)
        return changed

    return fault
