"""What decides whether a server is to be stopped, rule by rule, as tables."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from msgspec import structs

from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import (
    Judge,
    JudgedServer,
    NotCandidate,
    Policy,
    Reason,
    Rules,
    State,
)
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.domain.spare_query import Opinion
from hub_idle_exporter.policy_file import parse

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
HOUR = 3600
DEFAULT = Policy("default", HOUR)
Json = dict[str, Any]


def at(ago: float | None) -> str | None:
    """Write the time so many seconds ago."""
    return None if ago is None else datetime.fromtimestamp(NOW - ago, timezone.utc).isoformat()


def user(
    name: str = "ana", *, server: str = "", idle: float | None = 2 * HOUR, **more: Any
) -> User:
    """Decode a user with one server as the Hub sends it."""
    sent: Json = {"name": name, "admin": False, "groups": []}
    shown: Json = {"ready": True, "pending": None, "started": at(2 * HOUR)}
    shown |= {"last_activity": at(idle), "user_options": {}}
    for key, value in more.items():
        (sent if key in ("admin", "groups") else shown)[key] = value
    hidden = [key for key, value in sent.items() if value is HIDDEN]
    sent["servers"] = {server: shown}
    for key in hidden:
        del sent[key]
    return msgspec.json.decode(json.dumps(sent), type=User)


HIDDEN: Any = object()


def judge(
    *policies: Json, default: Policy = DEFAULT, scopes: list[str] | None = None, **switches: bool
) -> Judge:
    named = [{"name": f"p{number}"} | policy for number, policy in enumerate(policies)]
    text = json.dumps({"policies": named}).encode()
    found = parse(text, "test.yaml", default) if policies else (default,)
    held = ["list:users", "read:servers", "delete:servers"] if scopes is None else scopes
    return Judge(Rules(found, **switches), Granted.of(held))


def verdict_on(someone: User, by: Judge | None = None, now: float = NOW) -> JudgedServer:
    assert isinstance(someone.servers, dict)
    ((name, server),) = someone.servers.items()
    return (by or judge()).verdict(someone, name, server, now)


# ---- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle", "state", "reason"),
    [
        (HOUR - 0.001, State.ACTIVE, None),
        (HOUR, State.IDLE, Reason.IDLE),
        (HOUR + 0.001, State.IDLE, Reason.IDLE),
    ],
)
def test_the_idle_limit_is_reached_at_the_limit(
    idle: float, state: State, reason: Reason | None
) -> None:
    verdict = verdict_on(user(idle=idle))
    assert (verdict.state, verdict.reason) == (state, reason)


@pytest.mark.parametrize(("age", "reason"), [(9.999, None), (10, Reason.MAX_AGE)])
def test_max_age_is_reached_at_the_limit(age: float, reason: Reason | None) -> None:
    order = judge(default=Policy("default", HOUR, 10))
    verdict = verdict_on(user(idle=0, started=at(age)), order)
    assert (verdict.state, verdict.reason) == (State.ACTIVE, reason)


def test_max_age_zero_is_none() -> None:
    assert verdict_on(user(idle=0, started=at(10**8))).reason is None


def test_max_age_comes_before_idle() -> None:
    order = judge(default=Policy("default", HOUR, HOUR))
    assert verdict_on(user(), order).reason is Reason.MAX_AGE


def test_age_counts_from_the_start_and_idle_from_the_last_activity() -> None:
    verdict = verdict_on(user(idle=50, started=at(70)))
    assert (verdict.idle, verdict.age) == (50, 70)


# ---- never --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pending", ["spawn", "stop", "check", "rename"])
@pytest.mark.parametrize("max_age", [0, 1])
def test_pending_is_never_a_candidate(pending: str, max_age: int) -> None:
    order = judge(default=Policy("default", HOUR, max_age))
    verdict = verdict_on(user(pending=pending), order)
    assert (verdict.state, verdict.reason) == (State.PENDING, None)


@pytest.mark.parametrize("max_age", [0, 1])
def test_not_ready_is_never_a_candidate(max_age: int) -> None:
    order = judge(default=Policy("default", HOUR, max_age))
    verdict = verdict_on(user(ready=False), order)
    assert (verdict.state, verdict.reason) == (State.PENDING, None)


@pytest.mark.parametrize("max_age", [0, 1])
def test_unknown_activity_is_never_idle(max_age: int) -> None:
    order = judge(default=Policy("default", HOUR, max_age))
    verdict = verdict_on(user(idle=None, started=None), order)
    assert (verdict.state, verdict.reason) == (State.ACTIVE, None)
    assert verdict.not_candidate is NotCandidate.UNKNOWN


def test_without_last_activity_the_start_decides() -> None:
    assert verdict_on(user(idle=None, started=at(HOUR))).reason is Reason.IDLE
    assert verdict_on(user(idle=None, started=at(HOUR - 1))).reason is None


def test_without_a_start_there_is_no_max_age() -> None:
    order = judge(default=Policy("default", HOUR, 1))
    assert verdict_on(user(idle=10, started=None), order).reason is None


@pytest.mark.parametrize("ahead", [0.5, 3600, 10**7])
def test_a_time_in_the_future_is_activity_now(ahead: float) -> None:
    order = judge(default=Policy("default", 1, 1))
    verdict = verdict_on(user(idle=-ahead, started=at(-ahead)), order)
    assert (verdict.idle, verdict.age, verdict.reason) == (0, 0, None)


@pytest.mark.parametrize(
    "text", ["2027-01-15T07:00:00", "2027-01-15T07:00:00.000", "2027-01-15T12:30:00+05:30"]
)
def test_a_time_without_a_zone_is_utc(text: str) -> None:
    assert verdict_on(user(last_activity=text)).idle == HOUR


# ---- exemption and switches, which max age honours as well --------------------------------------

EITHER = pytest.mark.parametrize("max_age", [0, 1], ids=["idle", "max_age"])


@EITHER
def test_exempt_is_never_a_candidate_but_counts_as_idle(max_age: int) -> None:
    order = judge({"match": {"users": "ana"}, "exempt": True, "max_age": max_age})
    verdict = verdict_on(user(), order)
    assert (verdict.state, verdict.reason, verdict.not_candidate) == (
        State.IDLE,
        None,
        NotCandidate.EXEMPT,
    )


@EITHER
def test_the_switch_of_default_servers_spares_them_alone(max_age: int) -> None:
    order = judge(default=Policy("default", HOUR, max_age), cull_default_servers=False)
    assert verdict_on(user(), order).not_candidate is NotCandidate.SWITCHED_OFF
    assert verdict_on(user(server="gpu"), order).reason is not None


@EITHER
def test_the_switch_of_named_servers_spares_them_alone(max_age: int) -> None:
    order = judge(default=Policy("default", HOUR, max_age), cull_named_servers=False)
    assert verdict_on(user(server="gpu"), order).not_candidate is NotCandidate.SWITCHED_OFF
    assert verdict_on(user(), order).reason is not None


# ---- the reach of delete:servers ----------------------------------------------------------------


@EITHER
@pytest.mark.parametrize(
    ("scopes", "reached"),
    [
        (["delete:servers"], True),
        (["delete:servers!group=g", "delete:servers"], True),
        (["delete:servers!user=ana"], True),
        (["delete:servers!user=ben"], False),
        (["delete:servers!server=ana/gpu"], True),
        (["delete:servers!server=ana/"], False),
        (["delete:servers!server=ana/other"], False),
        (["delete:servers!group=staff"], True),
        (["delete:servers!group=g"], False),
        (["delete:servers!group=g", "delete:servers!user=ana"], True),
        (["delete:servers!service=ana"], False),
        ([], True),  # no scope at all closes the gate; a monitor still shows its candidates
    ],
)
def test_outside_the_filter_of_delete_servers_is_no_candidate(
    scopes: list[str], reached: bool, max_age: int
) -> None:
    order = judge(default=Policy("default", HOUR, max_age), scopes=scopes)
    verdict = verdict_on(user(server="gpu", groups=["staff"]), order)
    assert (verdict.reason is not None) == reached
    assert (verdict.not_candidate is NotCandidate.OUTSIDE_SCOPE) != reached


@pytest.mark.parametrize(
    ("scopes", "reached"),
    [
        (["read:servers", "delete:servers!group=g"], False),
        (["read:servers!group=g", "delete:servers!group=g"], True),
        (["read:servers!group=g", "delete:servers!group=other"], False),
        (["read:servers!group=g", "read:servers!group=h", "delete:servers!group=g"], False),
        (["read:servers!group=g", "delete:servers!group=g", "delete:servers!group=h"], True),
    ],
)
def test_hidden_groups_are_outside_the_filter_unless_seen_through_it(
    scopes: list[str], reached: bool
) -> None:
    verdict = verdict_on(user(groups=HIDDEN), judge(scopes=scopes))
    assert (verdict.reason is Reason.IDLE) == reached


# ---- what the token cannot see ------------------------------------------------------------------


@EITHER
@pytest.mark.parametrize("match", [{"groups": ["staff"]}, {"admin": True}, {"admin": False}])
def test_a_policy_that_cannot_be_decided_spares(match: Json, max_age: int) -> None:
    order = judge({"match": match, "exempt": True}, default=Policy("default", HOUR, max_age))
    verdict = verdict_on(user(groups=HIDDEN, admin=HIDDEN), order)
    assert (verdict.reason, verdict.not_candidate) == (None, NotCandidate.UNDECIDED)


def chosen(options: bytes) -> User:
    """Give a user whose `user_options` the Hub sent like this."""
    someone = user()
    server = structs.replace(someone.seen_servers[""], user_options=msgspec.Raw(options))
    return structs.replace(someone, servers={"": server})


UNREADABLE_OPTIONS = [
    b'{"profile": "gpu-a", "x": "%s"}' % (b"x" * (1 << 20)),
    b'{"profile": "gpu-a", "x": %s}' % (b"[" * 1_000_000 + b"]" * 1_000_000),
    b'{"profile": "gpu-a", ',
]


@EITHER
@pytest.mark.parametrize("options", UNREADABLE_OPTIONS, ids=["large", "deep", "broken"])
def test_options_that_cannot_be_read_spare_where_a_policy_matches_on_them(
    options: bytes, max_age: int
) -> None:
    default = Policy("default", HOUR, max_age)
    by_options = judge({"match": {"user_options": {"profile": "gpu-*"}}}, default=default)
    verdict = verdict_on(chosen(options), by_options)
    assert (verdict.reason, verdict.not_candidate) == (None, NotCandidate.UNDECIDED)
    assert verdict_on(chosen(options), judge(default=default)).reason is not None
    others = judge({"match": {"users": "ben", "user_options": {"profile": "*"}}}, default=default)
    assert verdict_on(chosen(options), others).reason is not None


@pytest.mark.parametrize("number", [b"1" * 100_000, b"-" + b"1" * 100_000, b"1e999", b"NaN"])
def test_numbers_of_any_length_hide_no_option(number: bytes) -> None:
    order = judge({"match": {"user_options": {"profile": "gpu-*"}}, "exempt": True})
    verdict = verdict_on(chosen(b'{"n": %s, "profile": "gpu-a"}' % number), order)
    assert verdict.not_candidate is NotCandidate.EXEMPT


def test_options_are_decoded_once_a_judgement_and_only_where_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded, true = list[Server](), Server.options

    def options(server: Server) -> Mapping[str, object] | None:
        decoded.append(server)
        return true(server)

    monkeypatch.setattr(Server, "options", options)
    by_profile = [{"match": {"user_options": {"profile": f"p{n}"}}} for n in range(5)]
    verdict_on(user(user_options={"profile": "p4"}), judge(*by_profile))
    assert len(decoded) == 1
    elsewhere = [{"match": {"users": "ben", "user_options": {"profile": "*"}}}]
    verdict_on(user(user_options={"profile": "p4"}), judge(*elsewhere))
    assert len(decoded) == 1


@pytest.mark.parametrize(
    "match",
    [
        {"groups": ["staff"], "users": "ben"},
        {"groups": ["staff"], "named": True},
        {"admin": True, "servers": "gpu"},
        {"admin": True, "user_options": {"profile": "*"}},
    ],
)
def test_a_policy_that_fails_on_what_is_seen_is_decided(match: Json) -> None:
    verdict = verdict_on(user(groups=HIDDEN, admin=HIDDEN), judge({"match": match}))
    assert verdict.reason is Reason.IDLE


@pytest.mark.parametrize(
    "someone", [user(groups=HIDDEN, admin=False), user(groups=["other"], admin=HIDDEN)]
)
def test_one_condition_that_fails_decides_though_another_is_hidden(someone: User) -> None:
    order = judge({"match": {"groups": ["staff"], "admin": True}})
    assert verdict_on(someone, order).reason is Reason.IDLE


def test_an_earlier_policy_that_holds_leaves_nothing_in_doubt() -> None:
    order = judge({"match": {"users": "ana"}}, {"match": {"groups": ["staff"]}, "exempt": True})
    assert verdict_on(user(groups=HIDDEN), order).reason is Reason.IDLE


# ---- matching -----------------------------------------------------------------------------------

MATCHES: list[tuple[Json, User, bool]] = [
    ({"users": "ana"}, user("ana"), True),
    ({"users": "Ana"}, user("ana"), False),
    ({"users": ["ben", "a*"]}, user("ana"), True),
    ({"users": ["ben", "b*"]}, user("ana"), False),
    ({"users": "a"}, user("ana"), False),
    ({"users": "tmp-?"}, user("tmp-1"), True),
    ({"users": "[ab]na"}, user("ana"), True),
    ({"users": "[!a]na"}, user("ana"), False),
    ({"users": "a.a"}, user("ana"), False),
    ({"users": "*"}, user("we ird@ex.org\n"), True),
    ({"users": "ünï"}, user("ünï"), True),
    ({"servers": ""}, user(server=""), True),
    ({"servers": ""}, user(server="gpu"), False),
    ({"servers": "*"}, user(server=""), True),
    ({"servers": "gpu"}, user(server="GPU"), False),
    ({"named": True}, user(server="gpu"), True),
    ({"named": True}, user(server=""), False),
    ({"named": False}, user(server=""), True),
    ({"admin": True}, user(admin=True), True),
    ({"admin": True}, user(admin=False), False),
    ({"admin": False}, user(admin=False), True),
    ({"groups": "staff"}, user(groups=["other", "staff"]), True),
    ({"groups": "staff"}, user(groups=["Staff"]), False),
    ({"groups": "st*"}, user(groups=["staff"]), True),
    ({"groups": "*"}, user(groups=[]), False),
    ({"user_options": {"profile": "gpu-*"}}, user(user_options={"profile": "gpu-a"}), True),
    ({"user_options": {"profile": "gpu-*"}}, user(user_options={"profile": "GPU-a"}), False),
    ({"user_options": {"profile": "*"}}, user(user_options={"profile": None}), False),
    ({"user_options": {"profile": "*"}}, user(user_options={"profile": 1}), False),
    ({"user_options": {"profile": "*"}}, user(user_options={"profile": True}), False),
    ({"user_options": {"profile": "*"}}, user(user_options={"profile": ["a"]}), False),
    ({"user_options": {"profile": "*"}}, user(user_options={"profile": ""}), True),
    ({"user_options": {"profile": "*"}}, user(user_options={}), False),
    ({"user_options": {"profile": "*"}}, user(user_options=None), False),
    ({"user_options": {"profile": "*"}}, user(user_options="profile"), False),
    ({"user_options": {"profile": "*"}}, user(user_options=["profile"]), False),
    ({"user_options": {"a": "x", "b": "y"}}, user(user_options={"a": "x", "b": "y"}), True),
    ({"user_options": {"a": "x", "b": "y"}}, user(user_options={"a": "x"}), False),
    ({"users": "ana", "named": True}, user(server="gpu"), True),
    ({"users": "ana", "named": True}, user(server=""), False),
]  # fmt: skip


@pytest.mark.parametrize(("match", "someone", "holds"), MATCHES)
def test_matching_is_by_case_sensitive_globs_and_all_keys(
    match: Json, someone: User, holds: bool
) -> None:
    verdict = verdict_on(someone, judge({"match": match, "exempt": True}))
    assert verdict.policy.name == ("p0" if holds else "default")


def test_the_first_policy_that_matches_wins() -> None:
    order = judge(
        {"match": {"users": "ben"}, "timeout": 1},
        {"match": {"users": "a*"}, "timeout": "3h"},
        {"match": {"users": "ana"}, "timeout": 1},
    )
    verdict = verdict_on(user(), order)
    assert (verdict.policy.name, verdict.state) == ("p1", State.ACTIVE)


def test_what_a_policy_leaves_out_it_takes_from_the_options() -> None:
    order = judge({"match": {"users": "ana"}}, default=Policy("default", 60, 77))
    policy = verdict_on(user(), order).policy
    assert (policy.timeout, policy.max_age, policy.exempt) == (60, 77, False)


def test_a_policy_may_lift_the_max_age_of_the_options() -> None:
    order = judge({"match": {"users": "ana"}, "max_age": 0}, default=Policy("default", HOUR, 1))
    assert verdict_on(user(idle=5), order).reason is None


def test_exactly_one_of_reason_and_spared_is_set() -> None:
    for someone in (user(), user(idle=1), user(pending="spawn"), user(idle=None, started=None)):
        verdict = verdict_on(someone)
        assert (verdict.reason is None) != (verdict.not_candidate is None)


# ---- the second opinion -------------------------------------------------------------------------

SAYS_1 = Opinion("q", values={"ana": {"": [1.0]}})
SAYS_0 = Opinion("q", values={"ana": {"": [0.0]}})
FAILED = Opinion("q", problem="HTTP 503")


def by_opinion(given: Opinion | None, *policies: Json, default: Policy = DEFAULT) -> Judge:
    return replace(judge(*policies, default=default), opinion=given)


@pytest.mark.parametrize(
    ("given", "would_stop"),
    [(None, True), (SAYS_0, True), (SAYS_1, False), (FAILED, False), (Opinion("q"), False)],
)
def test_who_is_spared_stays_a_candidate_that_would_not_be_stopped(
    given: Opinion | None, would_stop: bool
) -> None:
    verdict = verdict_on(user(), by_opinion(given))
    assert (verdict.reason, verdict.would_stop) == (Reason.IDLE, would_stop)
    assert (" but Prometheus" in verdict.why) == (not would_stop)


@pytest.mark.parametrize("given", [SAYS_1, FAILED, Opinion("q")])
def test_a_policy_that_goes_without_the_second_opinion_does_not_hear_it(given: Opinion) -> None:
    without = {"match": {"users": "ana"}, "spare_query": False}
    assert verdict_on(user(), by_opinion(given, without)).would_stop


@pytest.mark.parametrize("given", [SAYS_1, FAILED, Opinion("q")])
def test_the_maximum_age_does_not_wait_for_the_second_opinion(given: Opinion) -> None:
    verdict = verdict_on(user(), by_opinion(given, default=Policy("default", HOUR, 10)))
    assert (verdict.reason, verdict.would_stop) == (Reason.MAX_AGE, True)
    assert verdict.why == "is past its max_age limit"


@pytest.mark.parametrize("given", [None, SAYS_0, SAYS_1, FAILED])
def test_the_second_opinion_stops_nobody(given: Opinion | None) -> None:
    for someone in (user(idle=1), user(pending="spawn"), user(idle=None, started=None)):
        verdict = verdict_on(someone, by_opinion(given))
        assert (verdict.reason, verdict.would_stop) == (None, False)


def test_another_opinion_is_no_other_judge() -> None:
    """A stop is prepared by one, and sent by the next: the rules are the same."""
    assert by_opinion(SAYS_0) == by_opinion(SAYS_1) == judge()
    others = {"match": {"users": "ana"}, "spare_query": False}
    assert by_opinion(SAYS_0, others) != by_opinion(SAYS_0, others | {"spare_query": True})
