"""The policy file: every mistake is named, a broken new version keeps the old one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.policy_file import PolicyError, PolicySource, chosen_by_users, parse

DEFAULT = Policy("default", 3600.0, 7200.0)
GOOD = """\
policies:
  - name: staff
    match: {groups: [staff]}
    exempt: true
  - name: gpu
    match: {user_options: {profile: "gpu-*"}}
    timeout: 2h
    max_age: 1d
  - name: scratch
    match: {users: ["tmp-*"], servers: ["*"], named: true, admin: false}
    timeout: 15m
"""


def entry(*lines: str) -> str:
    """Give a file with one policy of these lines."""
    return "policies:\n  - " + "\n    ".join(lines) + "\n"


def policies(text: str) -> tuple[Policy, ...]:
    return parse(text.encode(), "p.yaml", DEFAULT)


def only(*lines: str) -> Policy:
    """Give the one policy, that is not the default, of these lines."""
    first, default = policies(entry(*lines))
    assert default is DEFAULT
    return first


def mistake(text: str | bytes) -> str:
    """Give what is said of a file that cannot be used."""
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(PolicyError) as caught:
        parse(content, "p.yaml", DEFAULT)
    said = str(caught.value)
    assert said.startswith("policy file p.yaml")
    assert "\n" not in said
    return said


def test_the_contracts_example() -> None:
    staff, gpu, scratch, default = policies(GOOD)
    assert (staff.exempt, staff.timeout, staff.max_age) == (True, 3600, 7200)
    assert (gpu.exempt, gpu.timeout, gpu.max_age) == (False, 7200, 86400)
    assert (scratch.timeout, scratch.max_age) == (900, 7200)
    assert default is DEFAULT


def test_no_policies_leave_the_default() -> None:
    assert policies("policies: []") == (DEFAULT,)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ('"90"', 90), ("1.5", 1.5), ("1h30m", 5400), ("2d", 172800), ('"1d12h"', 129600)],
)
def test_durations(written: str, seconds: float) -> None:
    policy = only("name: a", "match: {users: a}", f"timeout: {written}", f"max_age: {written}")
    assert (policy.timeout, policy.max_age) == (seconds, seconds)


def test_max_age_zero_is_none_though_the_options_have_one() -> None:
    assert only("name: a", "match: {users: a}", "max_age: 0").max_age == 0


@pytest.mark.parametrize(
    "value", ["ana", "[ana]", "[bob, ana]", '["a*"]', '["a?a"]', '["[a-c]na"]']
)
def test_one_glob_or_a_list(value: str) -> None:
    match = only("name: a", f"match: {{users: {value}}}").match
    assert match.holds(User("ana"), "", Server())
    assert not match.holds(User("Ana"), "", Server())


def test_the_default_server_is_the_empty_name() -> None:
    match = only("name: a", 'match: {servers: ""}').match
    assert match.holds(User("ana"), "", Server())
    assert not match.holds(User("ana"), "lab", Server())


def test_policies_may_share_what_they_have_in_common() -> None:
    text = """\
policies:
  - &short
    name: short
    match: {users: a}
    timeout: 5m
  - <<: *short
    name: exempt
    exempt: true
"""
    short, exempt, _ = policies(text)
    assert (short.timeout, exempt.timeout) == (300, 300)
    assert (short.exempt, exempt.exempt) == (False, True)


# ---- mistakes -----------------------------------------------------------------------------------

FINE = ("name: gpu", "match: {users: a}")
MISTAKES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty file": ("", ["`policies`"]),
    "a comment alone": ("# nothing\n", ["`policies`"]),
    "a list at the top": ("- name: a\n", ["`policies`"]),
    "a string": ("policies", ["`policies`"]),
    "policies is a mapping": ("policies: {a: 1}\n", ["`policies`"]),
    "policies is nothing": ("policies:\n", ["`policies`"]),
    "unknown key at the top": ("policies: []\ndefaults: 1\n", ["'defaults'"]),
    "two documents": ("policies: []\n---\npolicies: []\n", ["YAML"]),
    "no YAML": ("policies: [\n", ["YAML", "line"]),
    "a tab": ("policies:\n\t- name: a\n", ["YAML"]),
    "a Python object": ("policies: !!python/object/apply:os.system [id]\n", ["YAML"]),
    "not UTF-8": (b"policies: ['\xff']", ["YAML"]),
    "NUL": (b"policies: ['\x00']", ["YAML"]),
    "a key that is a list": ("policies: []\n? [a]\n: 1\n", ["YAML"]),
    "the same key twice at the top": ("policies: []\npolicies: []\n", ["'policies'", "duplicate"]),
    "deep nesting": ("policies: " + "[" * 5000, ["YAML"]),
    "an entry that is a string": ("policies: [a]\n", ["policy number 1", "object"]),
    "an entry that is empty": ("policies: [{}]\n", ["policy number 1", "name"]),
    "an entry that holds itself": ("policies: &a [*a]\n", ["policy number 1"]),
    "no name": (entry("match: {users: a}"), ["policy number 1", "`name`"]),
    "name is a number": (entry("name: 5", "match: {users: a}"), ["policy number 1", "name"]),
    "name is empty": (entry('name: ""', "match: {users: a}"), ["policy ''", "name"]),
    "name is default": (entry("name: default", "match: {users: a}"), ["'default'", "name"]),
    "no match": (entry("name: gpu"), ["'gpu'", "`match`"]),
    "match is empty": (entry("name: gpu", "match: {}"), ["'gpu'", "match"]),
    "match is nothing": (entry("name: gpu", "match:"), ["'gpu'", "match"]),
    "match is a string": (entry("name: gpu", "match: all"), ["'gpu'", "match"]),
    "unknown key": (entry(*FINE, "timeot: 5"), ["'gpu'", "timeot"]),
    "unknown key in match": (entry("name: gpu", "match: {user: a}"), ["'gpu'", "match", "user"]),
    "bad timeout": (entry(*FINE, "timeout: soon"), ["'gpu'", "timeout", "'soon'", "1h30m"]),
    "negative timeout": (entry(*FINE, "timeout: -5"), ["'gpu'", "timeout", "-5"]),
    "timeout is zero": (entry(*FINE, "timeout: 0"), ["'gpu'", "timeout", "1s"]),
    "timeout is true": (entry(*FINE, "timeout: true"), ["'gpu'", "timeout"]),
    "timeout is a list": (entry(*FINE, "timeout: [5]"), ["'gpu'", "timeout"]),
    "timeout is not a number": (entry(*FINE, "timeout: .nan"), ["'gpu'", "timeout"]),
    "timeout has no end": (entry(*FINE, "timeout: .inf"), ["'gpu'", "timeout"]),
    "bad max_age": (entry(*FINE, "max_age: 1x"), ["'gpu'", "max_age", "'1x'"]),
    "exempt is a string": (entry(*FINE, 'exempt: "yes"'), ["'gpu'", "exempt"]),
    "named is a string": (entry("name: gpu", 'match: {named: "yes"}'), ["'gpu'", "match.named"]),
    "admin is a number": (entry("name: gpu", "match: {admin: 1}"), ["'gpu'", "match.admin"]),
    "users is a number": (entry("name: gpu", "match: {users: 5}"), ["'gpu'", "match.users"]),
    "a user is a number": (entry("name: gpu", "match: {users: [a, 5]}"), ["'gpu'", "match.users"]),
    "users is empty": (entry("name: gpu", "match: {users: []}"), ["'gpu'", "match: users"]),
    "groups is empty": (entry("name: gpu", "match: {groups: []}"), ["'gpu'", "match: groups"]),
    "user_options is empty": (
        entry("name: gpu", "match: {user_options: {}}"), ["'gpu'", "user_options"],
    ),
    "an option is empty": (
        entry("name: gpu", "match: {user_options: {p: []}}"), ["'gpu'", "user_options.p"],
    ),
    "an option is a number": (
        entry("name: gpu", "match: {user_options: {p: 5}}"), ["'gpu'", "user_options"],
    ),
    "an option's name is a number": (
        entry("name: gpu", "match: {user_options: {5: p}}"), ["'gpu'", "user_options"],
    ),
    "the same key twice in a policy": (
        entry(*FINE, "timeout: 5m", "timeout: 6m"), ["'timeout'", "duplicate"],
    ),
    "the same key twice in a match": (
        entry("name: gpu", "match: {users: a, users: b}"), ["'users'", "duplicate"],
    ),
    "a name twice": (
        entry(*FINE) + "  - name: gpu\n    match: {users: b}\n", ["'gpu'", "name", "twice"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_file_policy_and_key(name: str) -> None:
    text, words = MISTAKES[name]
    said = mistake(text)
    for word in words:
        assert word in said, said


def test_the_mistaken_policy_is_the_one_that_is_named() -> None:
    said = mistake(GOOD.replace("timeout: 15m", "timeout: 15 minutes"))
    assert "'scratch'" in said
    assert "'gpu'" not in said


def complaint(content: bytes) -> str | None:
    """Give what is said of a file, None when it can be used."""
    try:
        parse(content, "p.yaml", DEFAULT)
    except PolicyError as error:
        return str(error)
    return None


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_is_policies_or_one_sentence(content: bytes) -> None:
    assert "\n" not in (complaint(content) or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "match", "timeout", "max_age", "exempt", "users", "servers", "x"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON)), max_size=3))
def test_any_mapping_is_policies_or_one_sentence(entries: list[object]) -> None:
    said = complaint(yaml.safe_dump({"policies": entries}).encode())
    assert said is None or said.startswith("policy file p.yaml")


# ---- read again ---------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(GOOD)
    return path


def names(source: PolicySource) -> list[str]:
    return [policy.name for policy in source.policies]


GPU_ONLY = entry(*FINE)


def test_a_file_that_cannot_be_used_at_the_start_is_refused(file: Path) -> None:
    file.write_text("policies:\n")
    with pytest.raises(PolicyError, match=str(file)):
        PolicySource.load(file, DEFAULT)
    with pytest.raises(PolicyError, match="No such file"):
        PolicySource.load(file.with_name("nowhere"), DEFAULT)
    with pytest.raises(PolicyError, match="Is a directory"):
        PolicySource.load(file.parent, DEFAULT)


def test_an_unchanged_file_is_no_news(file: Path) -> None:
    source = PolicySource.load(file, DEFAULT)
    assert not source.refresh()
    file.write_text(GOOD)
    assert not source.refresh()


def test_a_changed_file_is_put_to_use(file: Path) -> None:
    source = PolicySource.load(file, DEFAULT)
    file.write_text(GPU_ONLY)
    assert source.refresh()
    assert (names(source), source.error) == (["gpu", "default"], None)
    assert not source.refresh()


def vanish(file: Path) -> None:
    file.unlink()


def become_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def break_it(file: Path) -> None:
    file.write_text(GOOD + "    timeot: 5\n")


def be_cut_short(file: Path) -> None:
    file.write_text("")


WORSE: list[Callable[[Path], None]] = [vanish, become_a_directory, break_it, be_cut_short]


def restore(file: Path, text: str) -> None:
    if file.is_dir():
        file.rmdir()
    file.write_text(text)


@pytest.mark.parametrize("worse", WORSE)
def test_a_file_that_got_worse_keeps_the_old_policies_and_says_so_once(
    file: Path, worse: Callable[[Path], None]
) -> None:
    source = PolicySource.load(file, DEFAULT)
    worse(file)
    assert source.refresh()
    assert names(source) == ["staff", "gpu", "scratch", "default"]
    assert source.error is not None
    assert str(file) in source.error
    assert not source.refresh(), "said already"
    assert source.error is not None


@pytest.mark.parametrize("worse", WORSE)
@pytest.mark.parametrize("text", [GOOD, GPU_ONLY])
def test_a_file_that_got_well_again_is_put_to_use(
    file: Path, worse: Callable[[Path], None], text: str
) -> None:
    source = PolicySource.load(file, DEFAULT)
    worse(file)
    source.refresh()
    restore(file, text)
    assert source.refresh()
    assert source.error is None
    assert len(names(source)) == (4 if text == GOOD else 2)


def test_a_broken_file_that_vanishes_and_comes_back_is_still_broken(file: Path) -> None:
    source = PolicySource.load(file, DEFAULT)
    break_it(file)
    source.refresh()
    broken = source.error
    vanish(file)
    assert source.refresh()
    break_it_anew = GOOD + "    timeot: 5\n"
    file.write_text(break_it_anew)
    assert source.refresh()
    assert source.error == broken


def test_an_exemption_that_users_choose_themselves_is_found() -> None:
    text = """\
policies:
  - {name: chosen, match: {user_options: {profile: a}}, exempt: true}
  - {name: named so, match: {servers: keep-*}, exempt: true}
  - {name: limited, match: {user_options: {profile: b}}}
  - {name: granted, match: {user_options: {profile: a}, groups: staff}, exempt: true}
  - {name: staff, match: {groups: staff}, exempt: true}
"""
    assert chosen_by_users(policies(text)) == ["chosen", "named so"]


def test_a_file_saved_again_unchanged_is_not_taken_for_new_policies() -> None:
    """Otherwise each candidate of a pass under way would be withheld, as judged by old policies."""
    again = GOOD.replace("policies:\n", "policies:  # saved again\n")
    other = GOOD.replace("gpu-*", "gpu-a*")
    assert parse(again.encode(), "a", DEFAULT) == parse(GOOD.encode(), "a", DEFAULT)
    assert parse(other.encode(), "a", DEFAULT) != parse(GOOD.encode(), "a", DEFAULT)
