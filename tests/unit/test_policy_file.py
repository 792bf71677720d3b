"""What is in a policy file: every mistake is named, in one line, whatever the file holds."""

import json
import string

import pytest
import yaml
from example_counts import examples
from hypothesis import given
from hypothesis import strategies as st

from hub_idle_exporter.domain.blind_spots import chosen_by_users
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Globs, Policy
from hub_idle_exporter.policy_file import parse
from hub_idle_exporter.watched_file import FileError

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
    with pytest.raises(FileError) as caught:
        parse(content, "p.yaml", DEFAULT)
    said = str(caught.value)
    assert said.startswith("policy file p.yaml: ")
    assert said.isprintable()
    assert len(said) < 400
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
    [("90", 90), ('"90"', 90), ("1.5", 1.5), ("1h30m", 5400), ("2d", 172800), ('"1d12h"', 129600),
     ("08h", 28800)],
)  # fmt: skip
def test_durations(written: str, seconds: float) -> None:
    policy = only("name: a", "match: {users: a}", f"timeout: {written}", f"max_age: {written}")
    assert (policy.timeout, policy.max_age) == (seconds, seconds)


def test_a_timeout_is_a_policys_own_only_if_it_is_written_there() -> None:
    """Even if it is that of the options: `--timeout` would not change it."""
    text = (
        "policies: [{name: a, match: {named: true}, timeout: 1h}, {name: b, match: {named: true}}]"
    )
    assert [one.own_timeout for one in parse(text.encode(), "p.yaml", DEFAULT)] == [
        True, False, False,
    ]  # fmt: skip


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
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED_LAUGHS = "a: &a {x: y}\n" + LAUGHS[LAUGHS.index("\n") + 1 :].replace("[", "{<<: [").replace(
    "]", "]}"
)
MISTAKES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty file": ("", ["`policies`"]),
    "a comment alone": ("# nothing\n", ["`policies`"]),
    "a list at the top": ("- name: a\n", ["`policies`"]),
    "a string": ("policies", ["`policies`"]),
    "policies is a mapping": ("policies: {a: 1}\n", ["`policies`"]),
    "policies is nothing": ("policies:\n", ["`policies`"]),
    "unknown key at the top": ("policies: []\ndefaults: 1\n", ["line 2", "defaults", "`policies`"]),
    "two documents": ("policies: []\n---\npolicies: []\n", ["YAML", "line 2"]),
    "no YAML": ("policies: [\n", ["YAML", "line"]),
    "a tab": ("policies:\n\t- name: a\n", ["YAML", "line 2"]),
    "not UTF-8": (b"policies: ['\xff']", ["YAML", "UTF-8"]),
    "NUL": (b"policies: ['\x00']", ["YAML"]),
    "zeros": (bytes(5000), ["YAML"]),
    "a character that is none": ('policies: ["\\UFFFFFFFF"]\n', ["YAML"]),
    "a version of many digits": (f"%YAML {'9' * 5000}\n--- []\n", ["YAML"]),
    "an alias of nothing": (f"policies: [*{'a' * 5000}]\n", ["YAML", "line 1", "alias"]),
    "a key that is a list": ("policies: []\n? [a]\n: 1\n", ["line 2", "key"]),
    "the same key twice at the top": ("policies: []\npolicies: []\n", ["'policies'", "duplicate"]),
    "deep nesting": ("policies: " + "[" * 5000, ["nested"]),
    "deep nesting, line by line": ("policies:\n" + "- " * 5000, ["nested"]),
    "a list that aliases repeat": (
        f"policies: [&a [{'a, ' * 1000}], {'*a, ' * 100}]\n", ["line 1", "100000 values"],
    ),
    "aliases that stand for a billion values": (LAUGHS, ["100000 values"]),
    "merges that stand for a billion values": (MERGED_LAUGHS, ["100000 values"]),
    "an entry that holds itself": ("policies: &a [*a]\n", ["line 1", "alias"]),
    "an entry merged into itself": ("policies:\n- &a {<<: *a}\n", ["line 2", "alias"]),
    "a merge of a string": (entry(*FINE, "<<: a"), ["line 4", "`<<`"]),
    "a merge of strings": (entry(*FINE, "<<: [a]"), ["line 4", "`<<`"]),
    "an entry that is a string": ("policies: [a]\n", ["policy number 1", "mapping"]),
    "an entry that is empty": ("policies: [{}]\n", ["policy number 1", "`name`"]),
    "no name": (entry("match: {users: a}"), ["line 2", "policy number 1", "`name`"]),
    "name is empty": (entry('name: ""', "match: {users: a}"), ["policy ''", "name", "empty"]),
    "name is nothing": (entry("name:", "match: {users: a}"), ["number 1", "name", "empty"]),
    "name is a list": (entry("name: [a]", "match: {users: a}"), ["number 1", "name", "list"]),
    "name is default": (entry("name: default", "match: {users: a}"), ["'default'", "name"]),
    "name is long": (entry(f"name: {'a' * 256}", "match: {users: a}"), ["name", "aaa", "255"]),
    "no match": (entry("name: gpu"), ["'gpu'", "`match`"]),
    "match is empty": (entry("name: gpu", "match: {}"), ["'gpu'", "match", "condition"]),
    "match is nothing": (entry("name: gpu", "match:"), ["'gpu'", "match", "mapping"]),
    "match is a string": (entry("name: gpu", "match: all"), ["'gpu'", "match", "mapping"]),
    "unknown key": (entry(*FINE, "timeot: 5"), ["line 4", "'gpu'", "timeot", "`timeout`"]),
    "unknown key in match": (
        entry("name: gpu", "match: {user: a}"), ["'gpu'", "match.user:", "`users`"],
    ),
    "bad timeout": (entry(*FINE, "timeout: soon"), ["'gpu'", "timeout", "'soon'", "1h30m"]),
    "timeout is zero": (entry(*FINE, "timeout: 0"), ["'gpu'", "timeout", "1s"]),
    "timeout is a list": (entry(*FINE, "timeout: [5]"), ["'gpu'", "timeout", "list"]),
    "bad max_age": (entry(*FINE, "max_age: 1x"), ["line 4", "'gpu'", "max_age", "'1x'"]),
    "exempt is a string": (entry(*FINE, 'exempt: "yes"'), ["'gpu'", "exempt", "without quotes"]),
    "spare_query is a string": (entry(*FINE, 'spare_query: "no"'), ["'gpu'", "spare_query"]),
    "protect_terminals is a number": (entry(*FINE, "protect_terminals: 1"), ["protect_terminals"]),
    "exempt is a list": (entry(*FINE, "exempt: [true]"), ["'gpu'", "exempt", "list"]),
    "named is a string": (entry("name: gpu", 'match: {named: "yes"}'), ["'gpu'", "match.named"]),
    "admin is a number": (entry("name: gpu", "match: {admin: 1}"), ["'gpu'", "match.admin"]),
    "users is a mapping": (entry("name: gpu", "match: {users: {a: b}}"), ["'gpu'", "match.users"]),
    "users is nothing": (entry("name: gpu", "match: {users: }"), ["match.users", "empty"]),
    "users is empty": (entry("name: gpu", "match: {users: []}"), ["'gpu'", "match.users", "empty"]),
    "groups is empty": (entry("name: gpu", "match: {groups: []}"), ["'gpu'", "match.groups"]),
    "a glob is long": (
        entry("name: gpu", f"match: {{users: [\"{'[' * 100_000}\"]}}"), ["match.users", "255"],
    ),
    "user_options is empty": (
        entry("name: gpu", "match: {user_options: {}}"), ["'gpu'", "match.user_options", "empty"],
    ),
    "user_options is a list": (
        entry("name: gpu", "match: {user_options: [p]}"), ["match.user_options", "mapping"],
    ),
    "an option is empty": (
        entry("name: gpu", "match: {user_options: {p: []}}"), ["'gpu'", "match.user_options.p"],
    ),
    "the same key twice in a policy": (
        entry(*FINE, "timeout: 5m", "timeout: 6m"), ["line 5", "'timeout'", "duplicate"],
    ),
    "the same key twice in a match": (
        entry("name: gpu", "match: {users: a, users: b}"), ["'users'", "duplicate"],
    ),
    "a name twice": (
        entry(*FINE) + "  - name: gpu\n    match: {users: b}\n",
        ["line 4", "policy number 2", "'gpu'", "name", "twice"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_file_policy_and_key(name: str) -> None:
    text, words = MISTAKES[name]
    said = mistake(text)
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    "written",
    ["1:30", "12:00", "1:30:00", "0x10", "0b1", "1_000", "1e3", "1e400", "1.0e+400", "-5", "+5",
     ".5", "5.", ".inf", ".nan", "yes", "on", "true", "null", "~", "", "2026-01-01", "9" * 250,
     "1h 30m"],
)  # fmt: skip
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_duration_is_what_was_written_not_what_yaml_makes_of_it(written: str, quote: str) -> None:
    said = mistake(entry(*FINE, f"timeout: {quote}{written}{quote}"))
    assert "line 4: policy 'gpu': timeout: " in said
    assert repr(written[:60])[1:-1] in said
    assert "it must be seconds (3600) or a duration such as 90m, 1h30m, 2d" in said


@pytest.mark.parametrize("written", ["010", '"010"', "00", "007.5"])
def test_a_number_with_a_leading_zero_which_yaml_may_read_as_octal_is_no_duration(
    written: str,
) -> None:
    assert "without a leading zero" in mistake(entry(*FINE, f"max_age: {written}"))


AMBIGUOUS = ["on", "yes", "No", "true", "010", "12:00", "0x1f", "5", "1.5", "1_0", ".inf", ".nan",
             "2026-01-01", "null", "~", "=", "<<"]  # fmt: skip


@pytest.mark.parametrize("written", AMBIGUOUS)
@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("name", "{name: %s, match: {users: a}}"),
        ("match.users", "{name: a, match: {users: %s}}"),
        ("match.groups", "{name: a, match: {groups: [b, %s]}}"),
        ("match.user_options", "{name: a, match: {user_options: {%s : b}}}"),
        ("match.user_options.p", "{name: a, match: {user_options: {p: %s}}}"),
    ],
)
def test_a_text_that_yaml_reads_otherwise_has_to_be_in_quotes(
    written: str, key: str, line: str
) -> None:
    line = f"policies:\n  - {line}\n"
    said = mistake(line % written)
    if (written, key) != ("<<", "match.user_options"):  # that is a merge, of a string
        assert f"{key}: put '{written}' in quotes" in said
    policies(line % f"'{written}'")


@pytest.mark.parametrize(
    "tag",
    ["!!int ''", "!!float x", "!!timestamp x", "!!binary x", "!!bool x", "!!str 5", "!!null x",
     "!!set {a}", "!!omap [a]", "!!pairs [a]", "!x a", "! a",
     "!!python/object/apply:os.system [id]"],
)  # fmt: skip
def test_tags_are_refused(tag: str) -> None:
    for line in (f"timeout: {tag}", f"? {tag}\n    : 5", f"exempt: {tag}"):
        said = mistake(entry(*FINE, line))
        assert "line 4: the tag '!" in said
        assert "leave it out" in said


@pytest.mark.parametrize(
    "line",
    ['name: "\\ud800"\n    match: {users: a}', 'name: a\n    match: {users: "a\\udfff"}',
     'name: a\n    match: {user_options: {"\\ud83d": a}}',
     'name: a\n    match: {user_options: {a: ["b", "\\udc00*"]}}',
     'name: "\\ud83d\\ude00"\n    match: {users: a}'],
)  # fmt: skip
def test_half_a_surrogate_which_no_log_and_no_metric_can_show_is_refused(line: str) -> None:
    assert "not surrogates" in mistake(f"policies:\n  - {line}\n")


def test_the_mistaken_policy_is_the_one_that_is_named() -> None:
    said = mistake(GOOD.replace("timeout: 15m", "timeout: 15 minutes"))
    assert "line 11: policy 'scratch'" in said
    assert "'gpu'" not in said


def test_a_path_that_cannot_be_shown_leaves_the_sentence_one_line() -> None:
    with pytest.raises(FileError) as caught:
        parse(b"", "p\n\udcff.yaml", DEFAULT)
    assert str(caught.value).startswith("policy file p\\n\\udcff.yaml: ")


# ---- any file -----------------------------------------------------------------------------------


def complaint(content: bytes) -> str | None:
    """Give what is said of a file; None if its policies can be used."""
    try:
        found = parse(content, "p.yaml", DEFAULT)
    except FileError as error:
        return str(error)
    assert found[-1] is DEFAULT
    for policy in found:
        policy.name.encode()
        assert 1 <= policy.timeout < float("inf")
        assert 0 <= policy.max_age < float("inf")
        policy.match.holds(User("ana", groups=("a",)), "", Server())
    return None


def assert_policies_or_one_sentence(content: bytes) -> None:
    said = complaint(content)
    if said is not None:
        assert said.startswith("policy file p.yaml: ")
        assert said.isprintable()
        assert len(said) < 400


ANY_TEXT = st.text(st.characters(), max_size=200).map(
    lambda text: text.encode(errors="surrogatepass")
)
# Pieces that mean something to YAML, or to policies.
PIECES = st.sampled_from(
    [*string.punctuation, *" \n\t\r0a\x85\u2028é\U0001f600", "- ", "\n  ", "\n    ", ": ", "? ",
     "&a ", "*a ", "!!int ", "!<x> ", "<<: *a", "|\n ", ">-\n ", "---\n", "...\n", "%YAML 1.1\n",
     "1:30", "010", "1e400", ".nan", "null", "yes", '"\\ud800"', '"\\UFFFFFFFF"', '"\\x0"',
     "2026-99-99", "policies:", "\n- name: ", "match: {users: ", "user_options: {", "timeout: ",
     "exempt: true"]
)  # fmt: skip


@examples(300)
@given(
    st.binary(max_size=200)
    | ANY_TEXT
    | st.lists(PIECES, max_size=40).map(lambda pieces: "".join(pieces).encode())
)
def test_any_file_is_policies_or_one_sentence(content: bytes) -> None:
    assert_policies_or_one_sentence(content)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
    | st.binary(max_size=3) | st.sampled_from(["1h", "90", "a*", "[!a", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)  # fmt: skip
KEYS = st.sampled_from(["name", "match", "timeout", "max_age", "exempt", "users", "servers",
                        "groups", "user_options", "named", "admin", "x"])  # fmt: skip
MATCHING = st.dictionaries(KEYS, ANYTHING | st.dictionaries(st.text(max_size=3), ANYTHING))


@examples(50)
@given(st.lists(st.dictionaries(KEYS, ANYTHING | MATCHING, max_size=5), max_size=3))
def test_any_mapping_is_policies_or_one_sentence(entries: list[object]) -> None:
    written = yaml.safe_dump({"policies": entries}, allow_unicode=True)
    assert_policies_or_one_sentence(written.encode(errors="surrogatepass"))


# Without what JSON writes as two halves.
TEXTS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=5)
GLOBS = TEXTS | st.lists(TEXTS, min_size=1, max_size=3)


@examples(50)
@given(TEXTS.filter(lambda name: name not in ("", "default")), GLOBS, st.dictionaries(TEXTS, GLOBS))
def test_any_text_in_quotes_is_what_it_says(
    name: str, users: str | list[str], options: dict[str, str | list[str]]
) -> None:
    match = {"users": users} | ({"user_options": options} if options else {})
    text = json.dumps({"policies": [{"name": name, "match": match}]})
    found, _ = parse(text.encode(), "p.yaml", DEFAULT)
    assert found.name == name
    assert found.match.users == Globs((users,) if isinstance(users, str) else tuple(users))
    assert [key for key, _ in found.match.user_options] == list(options)


# ---- policies -----------------------------------------------------------------------------------


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


# ---- what people are promised -------------------------------------------------------------------

PROMISING = Policy("default", 3600, 0, notice=900, keep_max=0)
TOO_LONG = "which must be shorter than its"


def promised(*lines: str, may_keep: bool = True, default: Policy = PROMISING) -> Policy:
    return parse(entry(*lines).encode(), "p.yaml", default, may_keep)[0]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("timeout: 15m", f"its notice is 15m, {TOO_LONG} timeout, 15m"),
        ("notice: 1h", f"its notice is 1h, {TOO_LONG} timeout, 1h"),
        ("max_age: 10m", f"its notice is 15m, {TOO_LONG} max_age, 10m"),
    ],
)
def test_a_notice_that_is_not_shorter_than_the_limits_is_refused(line: str, sentence: str) -> None:
    with pytest.raises(FileError) as caught:
        promised(*FINE, line)
    own = "give it a notice of its own, or `notice: 0`"
    assert str(caught.value).startswith("policy file p.yaml: ")
    assert "gpu" in str(caught.value)
    assert str(caught.value).endswith(f"{sentence}: {own}")


def test_a_policy_may_have_a_notice_of_its_own_or_none() -> None:
    assert promised(*FINE, "timeout: 15m", "notice: 14m").notice == 840
    assert promised(*FINE, "timeout: 15m", "notice: 0").notice == 0
    assert promised(*FINE).notice == 900


def test_who_is_exempt_needs_no_notice_that_fits() -> None:
    assert promised(*FINE, "timeout: 15m", "exempt: true").exempt


def test_a_policy_that_lets_people_keep_needs_a_state_file() -> None:
    assert promised(*FINE, "keep_max: 8h").keep_max == 8 * 3600
    assert promised(*FINE, "keep_max: 0", may_keep=False).keep_max == 0
    with pytest.raises(FileError, match=r"keep_max needs --state-file, which is not set$"):
        promised(*FINE, "keep_max: 8h", may_keep=False)


# ---- what else protects -------------------------------------------------------------------------


def test_a_policy_may_go_without_the_second_opinion() -> None:
    assert only(*FINE).spare_query
    assert not only(*FINE, "spare_query: false").spare_query
    assert DEFAULT.spare_query


def test_a_policy_may_let_terminals_protect() -> None:
    assert not only(*FINE).protect_terminals
    assert only(*FINE, "protect_terminals: true").protect_terminals
    assert not DEFAULT.protect_terminals
