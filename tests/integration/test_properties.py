"""Random Hubs, clocks and whole histories against the oracle, which knows nothing of the code."""

import json
import operator
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import fake_hub as faults
import hypothesis.strategies as st
import msgspec
import oracle
import poll_states
from culling_rig import START, Rig
from fake_hub import FakeHub, Fault, Reply, Request, Server
from hypothesis import HealthCheck, event, given, settings

from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import ClockReading, GateState
from hub_idle_exporter.domain.model import User
from hub_idle_exporter.domain.policy import Judge, Policy, Rules
from hub_idle_exporter.domain.poll_state import LatestState
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.policy_file import parse

Json = dict[str, Any]
PURE = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

# ---- random Hubs --------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
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
    for key, values in (("timeout", LIMITS), ("max_age", [0, *LIMITS]), ("exempt", [True, False])):
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
    default = Policy("default", float(given["timeout"]), float(given["max_age"]))
    text = json.dumps({"policies": given["policies"]}, ensure_ascii=False).encode()
    found = parse(text, "random.yaml", default) if given["policies"] else (default,)
    rules = Rules(found, given["cull_default_servers"], given["cull_named_servers"])
    return Judge(rules, Granted.of(held))


@settings(PURE, max_examples=1500)
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


@settings(PURE, max_examples=500)
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


# ---- random clocks ------------------------------------------------------------------------------

WAITS = [0.0, 1.0, 30.0, 60.0, 0.5, 29.5, 30.0, 59.5, 60.0, 60.5, 61.0, 90.0, 599.5, 600.0, 601.0]
JUMPS = [-100.0, 100.0, 5000.0, -3.5, 2.0]


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


happenings = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from(WAITS)),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("poll"), st.sampled_from([True, True, True, False])),
    st.tuples(st.just("failed_poll_unanswered"), st.none()),
    st.tuples(st.just("wall_jump"), st.sampled_from(JUMPS)),
    st.tuples(st.just("hub_jump"), st.sampled_from(JUMPS)),
)


@settings(PURE, max_examples=2000)
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
    if what in ("answer", "poll"):
        hub = clocks.hub if how or what == "poll" else None
        keeper.hub_answered(hub)
        told.answers.append((clocks.steady, clocks.wall, hub))
    if what in ("poll", "failed_poll_unanswered"):
        good = what == "poll" and how
        latest.state = poll_states.good() if good else poll_states.failed()
        told.good_polls.append(good)


# ---- whole histories, over HTTP -----------------------------------------------------------------

LIMIT = 3600.0
MAX_BUSY = 4 * LIMIT
SETTLE_EVERY = 60.0
POLICIES: list[Json] = [
    {"name": "exempt", "match": {"groups": ["staff"]}, "exempt": True},
    {"name": "short", "match": {"user_options": {"profile": "gpu-*"}}, "timeout": 1800},
    {"name": "named", "match": {"named": True}, "max_age": 8 * 3600},
]
TOLD: Json = {
    "timeout": LIMIT,
    "max_age": 0,
    "cull_default_servers": True,
    "cull_named_servers": True,
    "policies": POLICIES,
}
KERNELS = ["busy", "idle", "starting", "restarting", "dead", "surprise"]
ODD: dict[str, Fault] = {
    "html": faults.html(),
    "forbidden": faults.html(403),
    "broken": faults.half_body(),
    "closed": faults.close(),
    "not_found": faults.html(404),
}
BAD_LISTS: dict[str, Fault] = {
    "error": faults.always(faults.reply(500, "oops")),
    "html": faults.html(),
    "half": faults.half_body(),
    "closed": faults.close(),
}

indexes = st.integers(0, 3)
work = st.tuples(st.just("work"), indexes, st.sampled_from(["all", "server", "route"]))
restart = st.tuples(st.just("restart"), indexes)
pending = st.tuples(st.just("pending"), indexes, st.sampled_from([None, "spawn", "stop"]))
races = st.one_of(st.none(), st.none(), work, restart, pending)
polls = st.tuples(st.just("poll"), st.sampled_from([None] * 6 + list(BAD_LISTS)), races)
acts = st.one_of(
    work,
    restart,
    pending,
    polls,
    st.tuples(st.just("wait"), st.sampled_from([30.0, 600.0, 1800.0, 3600.0, 9000.0])),
    st.tuples(st.just("sleep"), st.sampled_from([45.0, 61.0, 4000.0])),
    st.tuples(st.just("kernel"), indexes, st.sampled_from(KERNELS)),
    st.tuples(st.just("odd"), indexes, st.sampled_from([None, *ODD])),
    st.tuples(st.just("down"), st.sampled_from([30.0, 90.0, 4000.0])),
    st.tuples(st.just("hub_jump"), st.sampled_from([-7200.0, 7200.0])),
    st.tuples(st.just("wall_jump"), st.sampled_from([-7200.0, 7200.0])),
    st.tuples(st.just("scope"), st.booleans()),
)
beginnings = st.fixed_dictionaries(
    {
        "idle": st.sampled_from([3600.0, 40000.0, 0.0, 1799.0, 1800.0, 3599.0]),
        "name": st.sampled_from(["", "gpu"]),
        "groups": st.sampled_from([(), (), ("staff",)]),
        "options": st.sampled_from([{}, {}, {"profile": "gpu-a"}]),
        "kernel": st.sampled_from([None, None, *KERNELS]),
        "jupyter": st.sampled_from([True, True, False]),
        "stop_fails": st.sampled_from([False, False, False, True]),
    }
)


# Past the grace after the start, trouble comes, and a poll follows at once.
TROUBLES: list[tuple[Any, ...]] = [
    ("hub_jump", 7200.0),
    ("hub_jump", -7200.0),
    ("wall_jump", 7200.0),
    ("sleep", 61.0),
    ("down", 90.0),
    ("scope", False),
    ("work", 0, "all"),
]
OPENINGS: list[list[tuple[Any, ...]]] = [
    [],
    [("wait", 630.0)],
    *([("wait", 630.0), trouble, ("poll", None, None)] for trouble in TROUBLES),
]


@dataclass
class World:
    """A Hub, its people and one sidecar; each stop that arrives is held against the oracle."""

    rig: Rig
    grace: float
    max_culls: int
    told: oracle.GateHistory
    servers: list[Server] = field(default_factory=list)
    odd: dict[int, str] = field(default_factory=dict)
    busy_since: dict[tuple[int, Any], float] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def hub(self) -> FakeHub:
        return self.rig.hub

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.hub.now(), UTC)

    def begin(self, given: Json, number: int) -> None:
        server = self.rig.run(
            f"user {number}@ü",
            given["name"],
            idle=given["idle"],
            age=given["idle"] + 600,
            kernels=[given["kernel"]] if given["kernel"] else [],
            jupyter=given["jupyter"],
            user_options=given["options"],
            stop_fails=given["stop_fails"],
        )
        server.user.groups = given["groups"]
        self.servers.append(server)

    # -- what the oracle is told

    def seen(self) -> None:
        self.told.answers.append(
            (self.rig.time, self.rig.time + self.rig.wall_ahead, self.hub.now())
        )

    def sent(self, server: Server) -> Json:
        """Give the user as the Hub sends it."""
        shown = {
            "ready": server.ready,
            "pending": server.pending,
            "started": iso(server.started),
            "last_activity": iso(server.last_activity),
            "user_options": server.user_options,
        }
        user = server.user
        return {
            "name": user.name,
            "admin": user.admin,
            "groups": list(user.groups),
            "servers": {server.name: shown},
        }

    def own_word(self, number: int, limit: float) -> str:
        server = self.servers[number]
        jupyter, odd = self.rig.target.at[server.routespec], self.odd.get(number)
        if odd == "not_found" or (jupyter is None and odd in (None, "broken")):
            return "no_jupyter"  # half of a 404 is a 404
        if jupyter is None or odd is not None:
            return "failed"
        said = {path: (200, jupyter.says(path)) for path in ("status", "kernels", "terminals")}
        return oracle.own_word(said, limit, self.now)

    def spared_by(self, number: int) -> str | None:
        """Say what protects a server at this moment, None when all rules allow its stop."""
        server = self.servers[number]
        if server.stopped:
            return "not running"
        found = oracle.opinion(self.sent(server), server.name, TOLD, ENFORCING, self.now)
        if found.reason is None:
            return f"judged {found}"
        if found.reason == "max_age":
            return None
        limit = {"short": 1800.0}.get(found.policies[0], LIMIT)
        route = server.route_activity if server.route_activity is not None else server.last_activity
        if oracle.inside([iso(route)], limit, self.now):
            return "the route was used"
        word = self.own_word(number, limit)
        if word == "busy":
            since = self.busy_since.get((number, server.started), self.rig.time)
            return "busy" if self.rig.time - since < MAX_BUSY else None
        return None if word in ("idle", "no_jupyter") else word

    # -- what is watched

    def at_listing(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        """See which servers are not idle now: nobody can have been busy without a break."""
        for number, server in enumerate(self.servers):
            judged = oracle.opinion(self.sent(server), server.name, TOLD, ENFORCING, self.now)
            if judged.reason is None:
                self.busy_since.pop((number, server.started), None)
        return answer()

    def at_kernels(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        for number, server in enumerate(self.servers):
            if request.path == f"{server.routespec}api/kernels":
                self.note_answer(number, server)
        return answer()

    def note_answer(self, number: int, server: Server) -> None:
        key = (number, server.started)
        word = self.own_word(number, LIMIT)
        if word == "busy":
            self.busy_since.setdefault(key, self.rig.time)
        elif word != "failed":
            self.busy_since.pop(key, None)

    def at_stop(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        for number, server in enumerate(self.servers):
            if request.path in stop_paths(server):
                self.note_stop(number, server)
        return answer()

    def note_stop(self, number: int, server: Server) -> None:
        named = f"{server.user.name}/{server.name}"
        protected = self.spared_by(number)
        gate = self.told.allows(self.rig.time, self.rig.time + self.rig.wall_ahead)
        if protected or gate is False:
            self.wrong.append(f"{named} was stopped: {protected}, gate {gate}")
        self.stopped.append(named)

    # -- what happens

    def do(self, what: str, *how: Any) -> None:
        getattr(self, f"do_{what}")(*how)

    def do_wait(self, seconds: float) -> None:
        """Let time go by, the Hub in sight."""
        while seconds > 0:
            self.rig.time += min(30.0, seconds)
            seconds -= 30.0
            self.rig.gatekeeper.hub_answered(self.hub.now())
            self.seen()

    def do_sleep(self, seconds: float) -> None:
        """Let time go by without a look at the Hub."""
        self.rig.time += seconds

    def do_down(self, seconds: float) -> None:
        """Take the Hub down for a while, during which it is polled in vain."""
        self.hub.hang_up()
        self.rig.time += seconds / 2
        assert not self.rig.poll()
        self.told.good_polls.append(False)
        self.rig.poller.heartbeat()
        self.rig.time += seconds / 2
        self.hub.listen()

    def do_work(self, number: int, seen_by: str) -> None:
        """Be active half a second ago: what a stop leaves behind is later than that."""
        just_now = self.hub.now() - 0.5
        server = self.servers[number % len(self.servers)]
        jupyter = self.rig.target.at[server.routespec]
        if jupyter is not None:
            jupyter.last_activity = iso(just_now) or ""
        if seen_by == "all":
            server.last_activity = server.route_activity = just_now
        elif seen_by == "route":
            server.route_activity = just_now

    def do_kernel(self, number: int, state: str) -> None:
        jupyter = self.rig.target.at[self.servers[number % len(self.servers)].routespec]
        if jupyter is not None:
            jupyter.kernels.clear()
            jupyter.add_kernel(state, last_activity=iso(START - 50000) or "")

    def do_odd(self, number: int, how: str | None) -> None:
        number %= len(self.servers)
        self.odd.pop(number, None)
        if how is not None:
            self.odd[number] = how
        self.arm()

    def do_restart(self, number: int) -> None:
        server = self.servers[number % len(self.servers)]
        server.stopped, server.ready, server.pending = False, True, None
        server.started = server.last_activity = self.hub.now()
        server.route_activity = None

    def do_pending(self, number: int, state: str | None) -> None:
        server = self.servers[number % len(self.servers)]
        if not server.stopped:
            server.pending, server.ready = state, state is None

    def do_hub_jump(self, seconds: float) -> None:
        self.hub.clock_offset += seconds

    def do_wall_jump(self, seconds: float) -> None:
        self.rig.wall_ahead += seconds

    def do_scope(self, has: bool) -> None:
        scopes = [scope for scope in ENFORCING if has or scope != "delete:servers"]
        self.hub.tokens[self.hub.token].scopes = scopes

    def do_poll(self, fault: str | None, race: tuple[Any, ...] | None) -> None:
        """Poll; `race` happens after the list was read and before anything is stopped."""
        self.arm(fault, race)
        self.seen()
        scope = "delete:servers" in self.hub.tokens[self.hub.token].scopes
        self.told.good_polls.append(fault is None and scope)
        before = len(self.stopped)
        worked = self.rig.poll()
        assert worked == (fault is None)
        assert not self.max_culls or len(self.stopped) - before <= self.max_culls
        assert not self.wrong, self.wrong

    def arm(self, fault: str | None = None, race: tuple[Any, ...] | None = None) -> None:
        """Plan what is watched and what goes wrong."""
        self.hub.heal()
        self.hub.plan("DELETE", "/users/*/server*", self.at_stop)
        self.hub.plan("GET", "/users", self.at_listing)
        if race is not None:
            self.hub.plan("GET", "/users", faults.after(lambda: self.do(*race)))
        if fault is not None:
            self.hub.plan("GET", "/users", BAD_LISTS[fault])
        self.rig.target.heal()
        self.rig.target.plan("GET", "*/api/kernels", self.at_kernels)
        for number, how in self.odd.items():
            self.rig.target.plan("GET", f"{self.servers[number].routespec}api/*", ODD[how])

    def settle(self) -> None:
        """Let everything be well for long enough, then see who is still kept."""
        self.do_scope(True)
        for _ in range(int(self.grace / SETTLE_EVERY) + len(self.servers) + 3):
            self.do_wait(SETTLE_EVERY)
            self.do_poll(None, None)
        kept = [number for number in range(len(self.servers)) if self.spared_by(number) is None]
        assert not kept, f"all rules allow to stop these, yet they are kept: {kept}"


ENFORCING = [*faults.ENFORCE]


def iso(seconds: Any) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def stop_paths(server: Server) -> list[str]:
    user, name = quote(server.user.name, safe=""), quote(server.name, safe="")
    return [f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"]


@settings(PURE, max_examples=100)
@given(
    st.lists(beginnings, min_size=1, max_size=4),
    st.sampled_from([0.0, 600.0]),
    st.sampled_from([0, 1]),
    st.builds(
        operator.add,
        st.sampled_from(OPENINGS),
        st.lists(st.one_of(acts, polls, polls), max_size=14),
    ),
)
def test_nobody_is_stopped_whom_the_oracle_keeps_and_nobody_is_kept_for_ever(
    people: list[Json], grace: float, max_culls: int, history: list[tuple[Any, ...]]
) -> None:
    with ExitStack() as stack:
        hub = stack.enter_context(FakeHub())
        rig = stack.enter_context(
            Rig(
                hub,
                timeout=LIMIT,
                grace=grace,
                policies=POLICIES,
                concurrency=3,
                max_culls=max_culls,
                max_busy=MAX_BUSY,
            )
        )
        told = oracle.GateHistory(True, grace, rig.time, rig.time)
        world = World(rig, grace, max_culls, told)
        for number, given_ in enumerate(people):
            world.begin(given_, number)
        for act in history:
            world.do(*act)
        world.settle()
        event(f"{len(world.stopped)} stopped of {len(people)}")
        gone = [server for server in world.servers if not server.process_alive]
        counted = sum(rig.culled(policy, reason) for policy in ALL_POLICIES for reason in REASONS)
        assert counted >= len(gone)


@settings(PURE, max_examples=25)
@given(
    st.lists(beginnings, min_size=1, max_size=4),
    st.lists(st.one_of(acts, polls, polls), max_size=14),
)
def test_monitor_mode_touches_nothing_whatever_happens(
    people: list[Json], history: list[tuple[Any, ...]]
) -> None:
    with FakeHub() as hub, Rig(hub, timeout=LIMIT, policies=POLICIES, enforce=False) as rig:
        world = World(rig, 0.0, 0, oracle.GateHistory(False, 0.0, rig.time, rig.time))
        for number, given_ in enumerate(people):
            world.begin(given_, number)
        for act in history:
            world.do(*act)
        world.do_poll(None, None)
        assert [request for request in hub.requests if request.method != "GET"] == []
        assert hub.log("GET", "/proxy") == []
        assert rig.target.requests == []
        assert rig.gatekeeper.state() is GateState.OFF


ALL_POLICIES = [*(policy["name"] for policy in POLICIES), "default"]
REASONS = ["idle", "max_age"]
