"""Random Hubs, clocks and whole histories against the oracle, which knows nothing of the code."""

import json
import operator
import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import msgspec
import oracle
import poll_states
import pytest
import user_oracle
from culling_rig import START, Rig
from example_counts import examples
from fake_hub import FakeHub
from fake_prometheus import FakePrometheus
from hypothesis import assume, event, given
from people_world import RULES, PeopleWorld
from world import (
    BAD_LISTS,
    BAD_STOPS,
    KERNELS,
    KINDS,
    NO_ANSWERS,
    ODD,
    SAYINGS,
    SETTINGS,
    Act,
    Disturbance,
    World,
)

from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.domain.census import MOST_NEXT, census_of, judge_all
from hub_idle_exporter.domain.gate import ClockReading, GateState
from hub_idle_exporter.domain.idle_users import UserJudge
from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.domain.model import Account, User
from hub_idle_exporter.domain.notices import Announcement, stop_due
from hub_idle_exporter.domain.policy import Judge, JudgedServer, Policy, Reason, Rules
from hub_idle_exporter.domain.poll_state import LatestState
from hub_idle_exporter.domain.requirements import clock_findings
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.domain.settings import CullSettings, UserSettings
from hub_idle_exporter.domain.spare_query import Opinion, QueryError, read_answer
from hub_idle_exporter.policy_file import parse

Json = dict[str, Any]

# ---- random Hubs --------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
NAMES = ["ana", "Ana", "tmp-1", "we ird@ex.org", "ünï", "a/b", "[x]", "*", "a\nb"]
SERVERS = ["", "", "gpu", "my srv", "GPU", "tmp-1"]
GLOBS = ["*", "ana", "A*", "tmp-*", "[at]*", "?na", "", "[!a]*", "ün*", "gpu-*", "*x*", "[x]", "g*"]
LIMITS = [1, 60, 900, 3600, 86400]
OPTIONS: list[Any] = [
    None,
    {},
    "gpu-a",
    ["profile"],
    {"profile": "gpu-a100"},
    {"profile": "GPU-a100"},
    {"profile": ["gpu-a100"]},
    {"profile": 1},
    {"profile": None},
    {"profile": True, "size": "gpu-1"},
    {"size": "ana", "profile": "ana"},
]

# Random parts are made once, from a fixed seed, and Hubs are drawn from them: that is ten times as
# many Hubs a second as drawing every part anew.
DICE = random.Random(20260301)


def some_globs() -> Any:
    return DICE.choice([DICE.choice(GLOBS), DICE.choices(GLOBS, k=DICE.randint(1, 3))])


def some_match() -> Json:
    makers: dict[str, Callable[[], Any]] = {
        "users": some_globs,
        "groups": some_globs,
        "servers": some_globs,
        "named": lambda: DICE.random() < 0.5,
        "admin": lambda: DICE.random() < 0.5,
        "user_options": lambda: {
            option: some_globs() for option in DICE.sample(["profile", "size"], DICE.randint(1, 2))
        },
    }
    return {key: makers[key]() for key in DICE.sample(list(makers), DICE.choice([1, 1, 2, 3]))}


def some_policy() -> Json:
    policy: Json = {"match": some_match()}
    keys: Json = {"timeout": LIMITS, "max_age": [0, *LIMITS], "exempt": [True, False]}
    for key, values in (keys | {"spare_query": [True, False]}).items():
        if DICE.random() < 0.4:
            policy[key] = DICE.choice(values)
    return policy


policies = st.sampled_from([some_policy() for _ in range(600)])
options = st.fixed_dictionaries(
    {
        "timeout": st.sampled_from(LIMITS),
        "max_age": st.sampled_from([0, 0, *LIMITS]),
        "cull_default_servers": st.sampled_from([True, True, False]),
        "cull_named_servers": st.sampled_from([True, True, False]),
        "policies": st.lists(policies, max_size=4).map(
            lambda each: [{"name": f"p{number}"} | one for number, one in enumerate(each)]
        ),
    }
)
filters = st.sampled_from(
    ["group=staff", "group=g", "user=ana", "user=ünï", "server=ana/", "server=tmp-1/gpu"]
)
scopes = st.builds(
    lambda *held: [scope for scopes in held for scope in scopes],
    st.just(["list:users", "proxy"]),
    st.one_of(
        st.just(["read:servers"]),
        st.lists(filters.map("read:servers!{}".format), min_size=1, max_size=2),
    ),
    st.one_of(
        st.just([]),
        st.just(["delete:servers"]),
        st.lists(filters.map("delete:servers!{}".format), min_size=1, max_size=3),
        st.just(["delete:servers", "delete:servers!group=staff"]),
    ),
)


def written(then: datetime) -> str:
    """Write a time in one of the ways in which Hubs have written it."""
    return DICE.choice(
        [
            then.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            then.isoformat(timespec="microseconds" if then.microsecond % 1000 else "milliseconds"),
            then.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
            then.replace(tzinfo=None).isoformat(),
        ]
    )


def some_time() -> str | None:
    """Give a time at, or a hair beside, one of the limits; long ago; to come; or none."""
    near = timedelta(
        seconds=DICE.choice(LIMITS), microseconds=DICE.choice([-1_000_000, -1000, -1, 0, 0, 1])
    )
    far = DICE.choice([timedelta(), timedelta(hours=-2), timedelta(days=400)])
    return DICE.choice([written(NOW - near), written(NOW - near), written(NOW - far), None])


def some_server() -> Json:
    return {
        "ready": DICE.random() < 0.85,
        "pending": DICE.choice([None] * 6 + ["spawn", "stop", "check"]),
        "started": some_time(),
        "last_activity": some_time(),
        "user_options": DICE.choice(OPTIONS),
    }


servers = st.sampled_from([some_server() for _ in range(1500)])
users = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "servers": st.dictionaries(st.sampled_from(SERVERS), servers, min_size=1, max_size=3),
    },
    optional={
        "admin": st.booleans(),
        "groups": st.sampled_from([[], ["staff"], ["Staff", "g"], ["gpu-users"], [""]]),
    },
)


def judge_of(given: Json, held: list[str]) -> Judge:
    notice = given.get("notice", 0.0)
    default = Policy("default", float(given["timeout"]), float(given["max_age"]), notice=notice)
    text = json.dumps({"policies": given["policies"]}, ensure_ascii=False).encode()
    found = parse(text, "random.yaml", default) if given["policies"] else (default,)
    rules = Rules(found, given["cull_default_servers"], given["cull_named_servers"])
    return Judge(rules, Granted.of(held))


@examples(800)
@given(st.lists(users, min_size=1, max_size=4), options, scopes)
def test_every_verdict_is_the_oracles(hub: list[Json], given: Json, held: list[str]) -> None:
    judge = judge_of(given, held)
    for sent in hub:
        user = msgspec.json.decode(json.dumps(sent), type=User)
        assert isinstance(user.servers, dict)
        for name, server in user.servers.items():
            verdict = judge.verdict(user, name, server, NOW.timestamp())
            expected = oracle.opinion(sent, name, given, held, NOW)
            event(f"{expected.reason}, {len(expected.policies)} policies")
            assert verdict.policy.name in expected.policies
            assert verdict.state in expected.states
            assert verdict.reason == expected.reason


@examples(300)
@given(st.lists(users, min_size=1, max_size=6), options, scopes)
def test_the_census_is_the_oracles(hub: list[Json], given: Json, held: list[str]) -> None:
    judge = judge_of(given, held)
    decoded = [msgspec.json.decode(json.dumps(sent), type=User) for sent in hub]
    census = census_of(judge_all(judge, decoded, NOW.timestamp()), judge.rules)
    opinions = {
        (sent["name"], name): oracle.opinion(sent, name, given, held, NOW)
        for sent in hub
        for name in sent["servers"]
    }
    assert sum(census.servers.values()) == sum(len(sent["servers"]) for sent in hub)
    if len({sent["name"] for sent in hub}) == len(hub):
        found = {(one.user, one.server): one.reason for one in census.candidates}
        assert found == {key: one.reason for key, one in opinions.items() if one.reason}


# Answers to the spare query: of people and servers that run, and of others.
def some_sample() -> Json:
    labels = {"user": DICE.choice(NAMES), "server": DICE.choice(SERVERS), "container": "a"}
    kept = [key for key in labels if DICE.random() < 0.9]
    value = DICE.choice(["0"] * 8 + ["1", "-0", "-1", "NaN", "+Inf", "1e-400", "0.01"])
    return {"metric": {key: labels[key] for key in kept}, "value": [1, value]}


def some_answer() -> tuple[int, Json]:
    kind = DICE.choice(["vector"] * 12 + ["scalar", "matrix", "string"])
    samples = [some_sample() for _ in range(DICE.choice([0, 1, 10, 40, 40, 40, 40, 40]))]
    odd: list[Json] = [{"warnings": ["w"]}, {"isPartial": True}, {"infos": ["i"]}]
    more = DICE.choice([{}] * 12 + odd)
    status, word = DICE.choice([(200, "success")] * 12 + [(503, "success"), (200, "error")])
    return status, {"status": word, "data": {"resultType": kind, "result": samples}, **more}


spare_answers = st.sampled_from([some_answer() for _ in range(600)])


anas = users.map(lambda sent: sent | {"name": "ana"})


@examples(400)
@given(st.lists(anas | users | anas, min_size=1, max_size=4), options, scopes, spare_answers)
def test_whom_the_second_opinion_spares_is_the_oracles(
    hub: list[Json], given: Json, held: list[str], answer: tuple[int, Json]
) -> None:
    status, sent_back = answer
    try:
        heard = Opinion.of("q", 0.0, read_answer(status, json.dumps(sent_back).encode()))
    except QueryError as error:
        heard = Opinion("q", problem=str(error))
    judge = replace(judge_of(given, held), opinion=heard)
    for sent in hub:
        user = msgspec.json.decode(json.dumps(sent), type=User)
        for name, server in user.seen_servers.items():
            verdict = judge.verdict(user, name, server, NOW.timestamp())
            expected = oracle.opinion(sent, name, given, held, NOW)
            assert verdict.reason == expected.reason
            if expected.reason is None:
                assert not verdict.would_stop
                continue
            policy = {"name": "default"} | next(
                (one for one in given["policies"] if [one["name"]] == expected.policies), {}
            )
            said = oracle.Said(status, sent_back)
            withheld = oracle.withheld_by_prometheus(user.name, name, policy, said)
            withheld = None if expected.reason == "max_age" else withheld
            event(f"{expected.reason}, {withheld}")
            assert (verdict.spared and verdict.spared.cause) == withheld
            assert verdict.would_stop == (withheld is None)


# What was promised to the people of each server: for how many seconds it is kept; how long ago they
# were told of its stop, and whether it was used since.
promises = st.lists(
    st.tuples(
        st.sampled_from([None, None, -1.0, 0.0, 0.5, 30.0, 600.0, 1e6]),
        st.sampled_from([None, 0.0, 0.5, 29.0, 600.0]),
        st.booleans(),
    ),
    min_size=12,
    max_size=12,
)


def with_notice(given: Json, notice: float) -> Json:
    """Give each policy the notice, if it is shorter than its limits, else none."""

    def fitting(policy: Json) -> float:
        limits = [(given | policy)[key] for key in ("timeout", "max_age")]
        return notice if all(notice < limit or not limit for limit in limits) else 0.0

    named = [policy | {"notice": fitting(policy)} for policy in given["policies"]]
    return given | {"notice": fitting({}), "policies": named}


@examples(300)
@given(
    st.lists(users, min_size=1, max_size=4),
    options,
    scopes,
    st.sampled_from([0.0, 0.5, 30.0, 600.0]),
    promises,
)
def test_what_is_kept_announced_and_due_is_the_oracles(
    hub: list[Json], given: Json, held: list[str], notice: float, promised: list[Any]
) -> None:
    assume(len({sent["name"] for sent in hub}) == len(hub))
    given, people, now = with_notice(given, notice), oracle.PeopleHistory(), NOW.timestamp()
    judge, keeps, announced = judge_of(given, held), dict[Any, Keep](), dict[Any, Announcement]()
    for sent in hub:
        user = msgspec.json.decode(json.dumps(sent), type=User)
        for name, server in user.seen_servers.items():
            one = judge.verdict(user, name, server, now)
            promise(one, sent, promised.pop(), people, keeps, announced)
    judge = replace(judge, keeps=keeps)
    decoded = [msgspec.json.decode(json.dumps(sent), type=User) for sent in hub]
    census = census_of(judge_all(judge, decoded, now), judge.rules, keep_all=True)
    kept, soon = Counter[str](), {(one.start, str(one.reason)) for one in census.due_soon}
    for one in census.named:
        sent = next(sent for sent in hub if sent["name"] == one.user)
        expected = oracle.promised(sent, one.server, given, held, NOW, people)
        assert one.reason == expected.reason
        if people.kept_until(oracle.start_of(sent, one.server), NOW):
            kept[one.policy.name] += 1
        due = oracle.due(sent, one.server, given, held, NOW, people)
        found = stop_due(one, announced, now)
        assert found == pytest.approx(due and due.timestamp(), abs=0.001)
        for reason in ("idle", "max_age") if not is_to_come(sent, one.server) else ():
            near = is_near(reason, sent, one, given, held, people)
            assert ((one.start, reason) in soon) == near
    assert census.kept == kept


def promise(
    one: JudgedServer,
    sent: Json,
    given: tuple[float | None, float | None, bool],
    people: oracle.PeopleHistory,
    keeps: dict[Any, Keep],
    announced: dict[Any, Announcement],
) -> None:
    """Let a server be kept, and its stop be announced; tell the code and the oracle."""
    (kept, told, used), start = given, oracle.start_of(sent, one.server)
    server, begun = sent["servers"][one.server], len(people.happened) + (kept is not None)
    if kept is not None:
        until = NOW + timedelta(seconds=kept)
        people.happened.append(oracle.Happening("kept", NOW, start, until))
        keeps[one.start] = Keep(until.timestamp(), "ana")
    known = server["last_activity"]
    if used and known is not None and kept is None:
        known = (
            datetime.fromisoformat(known.replace("Z", "+00:00")) - timedelta(seconds=5)
        ).isoformat()
    since = oracle.moment(known or server["started"])
    if told is None or since is None or is_to_come(sent, one.server):
        return
    at, limit = NOW - timedelta(seconds=told), since.timestamp() + one.policy.timeout
    people.happened.append(oracle.Happening("told", at, start, None, "idle", known, begun))
    limit = limit if kept is None else max(limit, keeps[one.start].until)
    made = Announcement(limit, at.timestamp() + one.policy.notice, at.timestamp())
    announced[one.start, Reason.IDLE] = made


def is_to_come(sent: Json, name: str) -> bool:
    """Tell whether a time of a server is in the future: it counts as now, whenever that is."""
    server = sent["servers"][name]
    times = map(oracle.moment, (server["last_activity"], server["started"]))
    return any(time is not None and time > NOW for time in times)


def is_near(
    reason: str,
    sent: Json,
    one: JudgedServer,
    given: Json,
    held: list[str],
    people: oracle.PeopleHistory,
) -> bool:
    """Tell whether a limit is not passed yet, and will be when the notice has passed."""
    if reason == "idle":
        ageless = [policy | {"max_age": 0} for policy in given["policies"]]
        by_then = given | {"max_age": 0, "policies": ageless}
    else:
        by_then = given
    later = NOW + timedelta(seconds=one.policy.notice)
    now = oracle.promised(sent, one.server, given, held, NOW, people).reason
    then = oracle.promised(sent, one.server, by_then, held, later, people).reason
    return bool(one.policy.notice) and then == reason and now not in (reason, "max_age")


def some_account_server() -> Json:
    """Give a server of a user who is mostly at rest, as a list with stopped servers has it."""
    server = some_server() | {"ready": False, "pending": None, "stopped": True}
    if DICE.random() < 0.85:
        server["last_activity"] = DICE.choice([None, written(NOW - timedelta(days=700))])
    odd = {"ready": True, "pending": "spawn", "stopped": False}
    if DICE.random() < 0.15:
        key = DICE.choice(list(odd))
        server[key] = odd[key]
    if DICE.random() < 0.05:
        del server["stopped"]
    return server


def some_account() -> Json:
    """Give a user who is mostly idle, and of whom little is hidden."""
    idle = DICE.choice([1, 2, 2, 30, 400]) * 86400 + DICE.choice([-1, 0, 0, 1])
    active, created = (written(NOW - timedelta(seconds=idle)), written(NOW - timedelta(days=900)))
    account: Json = {
        "name": DICE.choice(NAMES),
        "admin": DICE.random() < 0.15,
        "groups": DICE.choice([[], ["staff"], ["Staff", "g"], ["gpu-users"], [""]]),
        "servers": {
            name: some_account_server()
            for name in DICE.sample(["", "gpu"], DICE.choice([0, 0, 1, 2]))
        },
        "last_activity": DICE.choice([active] * 6 + [None, some_time()]),
        "created": DICE.choice([created, active, None]),
    }
    for key in ("last_activity", "created", "servers", "admin", "groups"):
        if DICE.random() < 0.07:
            del account[key]
    return account


accounts = st.sampled_from([some_account() for _ in range(2000)])
deletions = st.lists(
    st.sampled_from(["delete:users", "delete:users!user=ana", "delete:users!group=staff"]),
    max_size=2,
)


@examples(1500)
@given(accounts, options, scopes, deletions, st.sampled_from([86400, 2 * 86400]), st.booleans())
def test_idle_users_are_candidates_where_the_oracle_says_so(
    sent: Json, given: Json, held: list[str], deletes: list[str], limit: int, admins: bool
) -> None:
    own = frozenset({"ünï"})
    chosen = UserSettings(delete=True, timeout=float(limit), admins=admins)
    judge = UserJudge(judge_of(given, [*held, *deletes]), chosen, own)
    account = msgspec.json.decode(json.dumps(sent), type=Account)
    judged = judge.verdict(account, NOW.timestamp())
    said = "active" if judged is None else "kept" if judged.kept else "candidate"
    told = given | {"user_timeout": limit, "cull_admin_users": admins}
    expected = user_oracle.fate(sent, told, [*held, *deletes], own, NOW)
    event(f"{expected}, {judged.kept if judged else None}")
    assert said == expected


@pytest.mark.slow("properties of what is shown")
@examples(400)
@given(st.lists(users, min_size=1, max_size=6), options, scopes)
def test_a_limit_would_make_candidates_of_those_the_oracle_names(
    hub: list[Json], given: Json, held: list[str]
) -> None:
    assume(len({sent["name"] for sent in hub}) == len(hub))
    judge = judge_of(given, held)
    decoded = [msgspec.json.decode(json.dumps(sent), type=User) for sent in hub]
    census = census_of(judge_all(judge, decoded, NOW.timestamp()), judge.rules)
    for limit, count in census.over_limit.items():
        under = given | {"timeout": limit}
        wanted = [
            oracle.opinion(sent, name, under, held, NOW).reason
            for sent in hub
            for name in sent["servers"]
        ]
        assert count == sum(reason is not None for reason in wanted)


@pytest.mark.slow("properties of what is shown")
@examples(400)
@given(
    st.lists(users, min_size=1, max_size=6),
    options,
    scopes,
    st.sampled_from([0.001, 1.0, 59.0, 3599.0, 7200.0]),
)
def test_the_next_servers_become_candidates_when_it_is_told(
    hub: list[Json], given: Json, held: list[str], early: float
) -> None:
    assume(len({sent["name"] for sent in hub}) == len(hub))
    judge, now = judge_of(given, held), NOW.timestamp()
    decoded = [msgspec.json.decode(json.dumps(sent), type=User) for sent in hub]
    census = census_of(judge_all(judge, decoded, now), judge.rules)
    told = {(one.judged.user, one.judged.server): one for one in census.next_due}
    seconds = [one.seconds for one in census.next_due]
    assert seconds == sorted(seconds)
    for sent in hub:
        for name, server in sent["servers"].items():
            times = map(oracle.moment, (server["last_activity"], server["started"]))
            if any(one is not None and one > NOW for one in times):
                continue  # it counts as active now, and will for longer than can be told
            one = told.get((sent["name"], name))
            # Of those that are not told of there is none, or none before the last that is told of.
            unseen = seconds[-1] - 0.001 if len(seconds) == MOST_NEXT else 400 * 86400
            later = NOW + timedelta(seconds=unseen if one is None else one.seconds + 0.001)
            becomes = oracle.opinion(sent, name, given, held, later).reason
            already = oracle.opinion(sent, name, given, held, NOW).reason
            assert (becomes is not None and already is None) == (one is not None)
            if one is not None and one.seconds > early:
                before = NOW + timedelta(seconds=one.seconds - early)
                assert becomes in (one.reason, "max_age")  # it may come a hair later
                assert oracle.opinion(sent, name, given, held, before).reason is None


# ---- random clocks ------------------------------------------------------------------------------

WAITS = [0.0, 1.0, 30.0, 60.0, 0.5, 29.5, 30.0, 59.5, 60.0, 60.5, 61.0, 90.0, 599.5, 600.0, 601.0]
JUMPS = [-100.0, 100.0, 5000.0, -3.5, 2.0, 50.0, -50.0]
ENFORCED = CullSettings(enforce=True)


@dataclass
class Clocks:
    """The clocks of a history, in half seconds so that nothing is rounded."""

    steady: float = 1000.0
    wall_ahead: float = START
    hub_ahead: float = START

    @property
    def wall(self) -> float:
        return self.steady + self.wall_ahead

    @property
    def hub(self) -> float:
        return float(int(self.steady + self.hub_ahead))  # a Date header has whole seconds

    def read(self) -> ClockReading:
        return ClockReading(self.steady, self.wall)


# How many seconds an answer takes, and when in them the Hub writes its date.
late = st.tuples(st.sampled_from([0.0] * 8 + WAITS), st.sampled_from(["first", "last", "never"]))
happenings = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from(WAITS)),
    st.tuples(st.just("answer"), late),
    st.tuples(st.just("poll"), st.sampled_from([True, True, True, False])),
    st.tuples(st.just("failed_poll_unanswered"), st.none()),
    st.tuples(st.just("wall_jump"), st.sampled_from(JUMPS)),
    st.tuples(st.just("hub_jump"), st.sampled_from(JUMPS)),
    st.tuples(st.just("another"), st.sampled_from(["has the lease", "has ended", "was not there"])),
)


@examples(1000)
@given(
    st.sampled_from([True, True, True, True, False]),
    st.sampled_from([0.0, 60.0, 600.0]),
    st.builds(
        operator.add,
        st.sampled_from([[], [("poll", True)], [("poll", True), ("wait", 60.0), ("poll", True)]]),
        st.lists(happenings, max_size=10),
    ),
)
def test_the_gate_is_open_only_when_the_oracle_says_so(
    enforce: bool, grace: float, history: list[tuple[str, Any]]
) -> None:
    clocks = Clocks()
    latest = LatestState(poll_states.at_start())
    keeper = Gatekeeper(enforce, grace, latest, clocks.read)
    told = oracle.GateHistory(enforce, grace, clocks.steady, clocks.wall)
    for what, how in history:
        happen(what, how, clocks, keeper, latest, told)
        allowed = told.allows(clocks.steady, clocks.wall)
        event(str(allowed))
        if allowed is not None:
            assert (keeper.closed() is None) == allowed
            assert (keeper.state() is GateState.ON) == allowed
        assert (keeper.state() is GateState.OFF) == (not enforce)


def happen(
    what: str,
    how: Any,
    clocks: Clocks,
    keeper: Gatekeeper,
    latest: LatestState,
    told: oracle.GateHistory,
) -> None:
    """Let one thing happen, to the gatekeeper and in the oracle's history."""
    if what == "wait":
        clocks.steady += how
    elif what == "wall_jump":
        clocks.wall_ahead += how
    elif what == "hub_jump":
        clocks.hub_ahead += how
    elif what == "another":
        let_another(how, clocks, keeper, told)
    elif what in ("answer", "poll"):
        took, dated = how if what == "answer" else (0.0, "first")
        let_answer(took, dated, clocks, keeper, told)
    if what in ("poll", "failed_poll_unanswered"):
        good = what == "poll" and how
        unmet = [str(one) for one in clock_findings(keeper.clock_skew(), ENFORCED)]
        latest.state = poll_states.good(*unmet) if good else poll_states.failed()
        told.polled(good)


def let_answer(
    took: float, dated: str, clocks: Clocks, keeper: Gatekeeper, told: oracle.GateHistory
) -> None:
    asked, first = clocks.steady, clocks.hub
    clocks.steady += took
    date = {"first": first, "last": clocks.hub}.get(dated)
    keeper.hub_answered(date, took)
    told.answers.append(oracle.Answer(asked, clocks.steady, clocks.wall, date))


def let_another(how: str, clocks: Clocks, keeper: Gatekeeper, told: oracle.GateHistory) -> None:
    """Let another exporter take the lease, or be gone."""
    told.held_back = how == "has the lease"
    if how == "has ended":
        told.taken_over.append(clocks.steady)
    why = "another exporter holds the lease" if told.held_back else None
    keeper.hold_back(why, after_another=how == "has ended")


# ---- whole histories, over HTTP -----------------------------------------------------------------

indexes = st.integers(0, 3)
work = st.tuples(st.just("work"), indexes, st.sampled_from(["all", "server", "route"]))
restart = st.tuples(st.just("restart"), indexes)
pending = st.tuples(st.just("pending"), indexes, st.sampled_from([None, "spawn", "stop"]))
kernel = st.tuples(st.just("kernel"), indexes, st.sampled_from(KERNELS))
says = st.tuples(st.just("says"), indexes, st.sampled_from([*SAYINGS]))
query = st.tuples(st.just("query"), st.sampled_from([None, None, *NO_ANSWERS]))
terminal = st.tuples(st.just("terminal"), indexes)
disturbances = st.builds(
    Disturbance,
    st.sampled_from([*KINDS, "query"]),
    late=st.booleans(),
    seconds=st.sampled_from([0.0, 0.0, 2.0, 6.0, 20.0, 20.0, 31.0, 70.0, 4000.0]),
    act=st.one_of(work, work, st.none(), restart, pending, kernel, says, query),
)
polls = st.tuples(
    st.just("poll"),
    st.sampled_from([None] * 8 + list(BAD_LISTS)),
    st.lists(disturbances, max_size=2),
)
acts = st.one_of(
    work,
    restart,
    pending,
    kernel,
    says,
    query,
    terminal,
    polls,
    st.tuples(st.just("wait"), st.sampled_from([30.0, 300.0, 450.0, 900.0, 1750.0, 2400.0])),
    st.tuples(st.just("sleep"), st.sampled_from([45.0, 61.0, 4000.0])),
    st.tuples(st.just("odd"), indexes, st.sampled_from([None, *ODD])),
    st.tuples(st.just("server_clock"), indexes, st.sampled_from([-7200.0, 7200.0, 0.0])),
    st.tuples(st.just("bad_stop"), indexes, st.sampled_from([None, *BAD_STOPS])),
    st.tuples(st.just("down"), st.sampled_from([30.0, 90.0, 4000.0])),
    st.tuples(st.just("hub_jump"), st.sampled_from([-7200.0, 7200.0])),
    st.tuples(st.just("wall_jump"), st.sampled_from([-7200.0, 7200.0])),
    st.tuples(st.just("scope"), st.booleans()),
    st.tuples(st.just("another"), st.sampled_from([60.0, 120.0])),
)
beginnings = st.fixed_dictionaries(
    {
        "idle": st.sampled_from([40000.0, 40000.0, 900.0, 0.0, 449.0, 450.0, 899.0]),
        "name": st.sampled_from(["", "gpu"]),
        "groups": st.sampled_from([(), (), (), (), ("staff",), ("unheard",)]),
        "says": st.sampled_from(["idle", "idle", "idle", *SAYINGS]),
        "options": st.sampled_from([{}, {}, {"profile": "gpu-a"}]),
        "kernel": st.sampled_from([None, None, "idle", "idle", *KERNELS]),
        "jupyter": st.sampled_from([True, True, False]),
        "fed": st.sampled_from([True, True, False]),
        "stop_fails": st.sampled_from([False, False, False, False, True]),
        "slow": st.sampled_from([0, 0, 0, 1, 3]),
    }
)


# Past the grace after the start, trouble comes, and a poll follows at once.
TROUBLES: list[Act] = [
    ("hub_jump", 7200.0),
    ("hub_jump", -7200.0),
    ("wall_jump", 7200.0),
    ("sleep", 61.0),
    ("sleep", 4000.0),
    ("down", 90.0),
    ("scope", False),
    ("another", 120.0),
    ("work", 0, "all"),
    ("says", 0, "in use"),
    ("query", "error"),
]
OPENINGS: list[list[Act]] = [
    [],
    [("wait", 630.0)],
    *([("wait", 630.0), trouble, ("poll", None, [])] for trouble in TROUBLES),
]


@examples(100)
@given(
    st.lists(beginnings, min_size=1, max_size=4),
    st.sampled_from([0.0, 600.0]),
    st.sampled_from([0, 1]),
    st.sampled_from(["require", "require", "require", "off"]),
    st.sampled_from([True, True, False]),
    st.builds(
        operator.add,
        st.sampled_from(OPENINGS),
        st.lists(st.one_of(acts, polls, polls), max_size=14),
    ),
)
def test_nobody_is_stopped_whom_the_oracle_keeps_and_nobody_is_kept_for_ever(
    people: list[Json],
    grace: float,
    max_culls: int,
    busy_check: str,
    hears: bool,
    history: list[Act],
) -> None:
    more: Json = {"concurrency": 3, "max_culls": max_culls, "busy_check": busy_check}
    with ExitStack() as stack:
        hub, prometheus = stack.enter_context(FakeHub()), None
        if hears:
            prometheus = stack.enter_context(FakePrometheus())
            more["prometheus"] = prometheus.origin
        rig = stack.enter_context(Rig(hub, grace=grace, **SETTINGS, **more))
        world = World(rig, grace, max_culls, prometheus=prometheus)
        for given_ in people:
            world.begin(given_)
        for act in history:
            world.do(*act)
        world.settle()
        event(f"{len(world.stopped)} stopped of {len(people)}")


@examples(25)
@given(
    st.lists(beginnings, min_size=1, max_size=4),
    st.lists(st.one_of(acts, polls, polls), max_size=14),
)
def test_monitor_mode_touches_nothing_whatever_happens(
    people: list[Json], history: list[Act]
) -> None:
    with (
        FakeHub() as hub,
        FakePrometheus() as prometheus,
        Rig(hub, enforce=False, prometheus=prometheus.origin, **SETTINGS) as rig,
    ):
        world = World(rig, 0.0, prometheus=prometheus)
        for given_ in people:
            world.begin(given_)
        for act in history:
            world.do(*act)
        world.do("poll", None, [])
        assert [request for request in hub.requests if request.method != "GET"] == []
        assert hub.log("GET", "/proxy") == []
        assert rig.target.requests == []
        assert rig.gatekeeper.state() is GateState.OFF


# ---- whole histories of people who keep servers and are told ------------------------------------

keeps = st.tuples(st.just("keep"), indexes)
asked_for = st.one_of(keeps, keeps, st.tuples(st.just("release"), indexes))
people_polls = st.tuples(
    st.just("poll"),
    st.sampled_from([None] * 8 + list(BAD_LISTS)),
    st.lists(
        st.builds(
            Disturbance,
            st.sampled_from(KINDS),
            late=st.booleans(),
            seconds=st.sampled_from([0.0, 0.0, 2.0, 20.0]),
            act=st.one_of(work, asked_for, asked_for, kernel, restart, pending, says, query),
        ),
        max_size=2,
    ),
)
waits = st.tuples(st.just("wait"), st.sampled_from([30.0, 290.0, 310.0, 450.0, 600.0, 1750.0]))
people_acts = st.one_of(
    acts,
    asked_for,
    asked_for,
    people_polls,
    people_polls,
    waits,
    waits,
    st.tuples(st.just("post"), st.booleans()),
    st.tuples(st.just("exporter_ends"), st.sampled_from(["by itself", "killed"])),
    st.tuples(st.just("rules"), st.sampled_from([*RULES])),
    st.tuples(st.just("lose_file"), st.sampled_from(["removed", "away", "back", "back"])),
)
near_the_notice = beginnings.map(lambda one: one | {"idle": 620.0})


@examples(36)
@given(
    st.lists(st.one_of(beginnings, near_the_notice), min_size=1, max_size=3),
    st.sampled_from([0.0, 600.0]),
    st.booleans(),
    st.sampled_from(["require", "require", "require", "off"]),
    st.sampled_from([True, True, False]),
    st.builds(
        operator.add,
        st.sampled_from([[("poll", None, [])], [("wait", 630.0), ("poll", None, [])]]),
        st.lists(people_acts, max_size=14),
    ),
)
def test_nobody_is_stopped_who_was_not_told_or_keeps_the_server_and_all_others_are(
    people: list[Json],
    grace: float,
    has_file: bool,
    busy_check: str,
    hears: bool,
    history: list[Act],
) -> None:
    with (
        TemporaryDirectory() as below,
        FakeHub() as hub,
        FakePrometheus() as prometheus,
        PeopleWorld.begun(
            hub,
            grace,
            folder_of_state(below, has_file),
            prometheus if hears else None,
            concurrency=3,
            busy_check=busy_check,
        ) as world,
    ):
        for given_ in people:
            world.begin(given_)
        for act in history:
            world.do(*act)
        world.settle()
        event(f"{len(world.stopped)} stopped of {len(people)}")
        what = Counter(one.what for one in world.people.happened)
        event(f"kept {what['kept'] > 0}, told {what['told'] > 0}")


def folder_of_state(below: str, has_file: bool) -> Path | None:
    """Make the folder of a state file; None: the exporter has no such file."""
    folder = Path(below, "state")
    folder.mkdir()
    return folder if has_file else None
