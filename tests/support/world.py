"""A Hub, its people and one sidecar, to which anything may happen, watched by the oracle.

    world = World(Rig(hub, **SETTINGS), grace=0.0)
    world.begin({"idle": 40000.0, ...})
    world.do("wait", 630.0)
    world.do("poll", None, [Disturbance("look", late=True, seconds=20.0, act=("work", 0, "all"))])
    world.settle()

Every request to the Hub and to the servers passes through here: the world notes what the sidecar
may know, and when it learned it; it lets the clocks go on and people come back in the middle of an
answer; and whenever a stop takes effect it asks the oracle what that may rest on.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import quote

import fake_hub as faults
import oracle
from culling_rig import START, Rig
from fake_hub import PROBER, FakeHub, Fault, Jupyter, Reply, Request, Server, reply
from fake_prometheus import QUERY, FakePrometheus, answering, refusing

Json = dict[str, Any]
Act = tuple[Any, ...]

LIMIT, SHORT_LIMIT, MAX_BUSY, INTERVAL = 900.0, 450.0, 3600.0, 600.0
LONGEST_GAP = 3 * INTERVAL  # between two sightings of a busy server that still count as one
SLACK = 100.0  # what the oracle and the sidecar may differ by in how long a server was busy
SETTLE_EVERY, LONGEST_BACK_OFF = 300.0, 3600.0
ENFORCING = [*faults.ENFORCE]
POLICIES: list[Json] = [
    {"name": "exempt", "match": {"groups": ["staff"]}, "exempt": True},
    {
        "name": "short",
        "match": {"user_options": {"profile": "gpu-*"}},
        "timeout": SHORT_LIMIT,
        "protect_terminals": True,
    },
    {"name": "named", "match": {"named": True}, "max_age": 2 * 3600},
    {"name": "unheard", "match": {"groups": ["unheard"]}, "spare_query": False},
]
TOLD: Json = {
    "timeout": LIMIT,
    "max_age": 0,
    "cull_default_servers": True,
    "cull_named_servers": True,
    "policies": POLICIES,
}
SETTINGS: Json = {
    "timeout": LIMIT,
    "policies": POLICIES,
    "max_busy": MAX_BUSY,
    "poll": {"interval": INTERVAL},
}
KERNELS = ["busy", "idle", "starting", "restarting", "dead", "surprise"]
ODD: dict[str, Fault] = {
    "html": faults.html(),
    "forbidden": faults.html(403),
    "broken": faults.half_body(),
    "closed": faults.close(),
    "not_found": faults.html(404),
    "undated": faults.dated(None),
}
BAD_LISTS: dict[str, Fault] = {
    "error": faults.always(reply(500, "oops")),
    "html": faults.html(),
    "half": faults.half_body(),
    "closed": faults.close(),
}
# What a Prometheus says of a server: by its own label, by none, or of another of the same user.
SAYINGS: dict[str, list[tuple[str, str]]] = {
    "idle": [("it", "0")],
    "idle by user": [("all", "0"), ("another", "1")],
    "idle twice": [("it", "0"), ("all", "0"), ("it", "-0")],
    "in use": [("it", "0.7")],
    "in use by user": [("it", "0"), ("all", "3")],
    "in use among others": [("it", "0"), ("it", "1e-9"), ("it", "0")],
    "negative": [("all", "-1")],
    "no number": [("it", "NaN")],
    "another is idle": [("another", "0")],
    "nothing": [],
}
NO_ANSWERS: dict[str, Fault] = {
    "error": refusing(503),
    "bad query": refusing(400),
    "scalar": answering([1, "0"], "scalar"),
    "empty": answering([]),
    "html": faults.html(),
    "half": faults.half_body(),
    "closed": faults.close(),
    "warning": faults.rewritten(lambda answer: answer | {"warnings": ["a store is away"]}),
    "partial": faults.rewritten(lambda answer: answer | {"isPartial": True}),
}
# What becomes of a DELETE: refused as if it came too late, lost on its way or on its way back, or
# answered 504 by a proxy in front of the Hub, which may have carried it out or not.
BAD_STOPS = ["403", "lost", "answer lost", "504", "504 done"]
OF_SERVERS = ["kernels", "terminals", "status"]
KINDS = [
    *("list", "routes", "look", "verify", "delete", "prober", "identity"),
    *("mint", "stop token", "lease", "tokens", "revoke", "query", *OF_SERVERS),
]
LEASE, OTHERS = "hub-idle-exporter: lease ", "hub-idle-exporter: lease of another"


@dataclass(frozen=True)
class Disturbance:
    """What happens in the middle of a pass, at the first request of a kind.

    Everything stands still for so many seconds, and something is done meanwhile: before the request
    is handled, or when the answer is made and on its way (`late`).
    """

    kind: str
    late: bool
    seconds: float
    act: Act | None


@dataclass(frozen=True)
class Look:
    """What the Hub said of a server, and when; `heard` answers of Prometheus were there then."""

    at: float
    opinion: oracle.Opinion
    heard: int


@dataclass
class World:
    """Each stop that takes effect is held against the oracle; `wrong` says what was wrong."""

    rig: Rig
    grace: float
    max_culls: int = 0
    rules: Json = field(default_factory=lambda: TOLD)
    servers: list[Server] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)  # servers whose stop took effect
    ended: int = 0  # processes that a stop ended
    replaced: int = 0  # processes that their users replaced

    # What goes wrong with a server, by its number.
    odd: dict[int, str] = field(default_factory=dict)
    ahead: dict[int, float] = field(default_factory=dict)  # its clock
    unfed: set[int] = field(default_factory=set)  # nothing records its activity
    bad_stops: dict[int, str] = field(default_factory=dict)
    slow: dict[int, int] = field(default_factory=dict)  # how often is asked until it has stopped
    under_way: dict[int, int] = field(default_factory=dict)

    # What the sidecar may know, by number.
    looks: dict[int, Look] = field(default_factory=dict)
    routes: dict[int, tuple[float, str | None]] = field(default_factory=dict)
    said: dict[tuple[int, str], tuple[float, oracle.Said]] = field(default_factory=dict)
    busy: dict[tuple[int, Any], tuple[float, float]] = field(default_factory=dict)
    once_jupyter: set[tuple[int, Any]] = field(default_factory=set)
    half_told: dict[int, str] = field(default_factory=dict)  # kernels or terminals, asked together

    # What a Prometheus says, where there is one, and what was heard from it: (asked, answer).
    prometheus: FakePrometheus | None = None
    sayings: dict[int, str] = field(default_factory=dict)
    no_answer: str | None = None
    heard: list[tuple[float, oracle.Said]] = field(default_factory=list)
    of_pass: int = 0  # how much was heard when the culling pass began

    list_fault: str | None = None
    planned: list[Disturbance] = field(default_factory=list)
    hub_takes: float = 0.0  # seconds for an answer
    server_takes: float = 0.0
    unrenewed: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        wall = self.rig.time + self.rig.wall_ahead
        enforce = self.rig.settings.enforce
        self.told = oracle.GateHistory(enforce, self.grace, self.rig.time, wall)
        self.hub.slow_stop_timeout = 0.02
        self.hub.plan("*", "*", self.at_hub)
        self.rig.target.plan("*", "*", self.at_server)
        if self.prometheus is not None:
            self.prometheus.plan("POST", QUERY, self.at_prometheus)

    @property
    def hub(self) -> FakeHub:
        return self.rig.hub

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.hub.now(), timezone.utc)

    def begin(self, given: Json) -> None:
        """Let somebody's server run."""
        number = len(self.servers)
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
        if not given["fed"]:
            self.unfed.add(number)
        if given["slow"]:
            self.slow[number] = given["slow"]
        self.do_says(number, given.get("says", "idle"))

    # ---- requests, as they pass ----------------------------------------------------------------

    def at_hub(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        asked, kind = self.rig.time, _kind(request)
        with self.lock:
            with self.disturbed(kind):
                answered = self.answer_of_hub(kind, request, answer, asked)
                date = float(int(self.hub.now()))
            if answered.cut is None:
                wall = self.rig.time + self.rig.wall_ahead
                self.told.answers.append(oracle.Answer(asked, self.rig.time, wall, date))
        return replace(answered, date=formatdate(date, usegmt=True))

    def at_server(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        base, _, kind = request.path.rpartition("api/")
        number = next(n for n, server in enumerate(self.servers) if server.routespec == base)
        with self.lock:
            with self.disturbed(kind):
                answered = self.answer_of_server(number, request, answer)
                self.said[number, kind] = (self.rig.time, _said(answered))
            self.note_answer(number, kind)
        return answered

    def at_prometheus(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        asked = self.rig.time
        with self.lock, self.disturbed("query"):
            answered = self.answer_of_prometheus(request, answer)
            self.heard.append((asked, _said(answered)))
        return answered

    def answer_of_prometheus(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        odd = NO_ANSWERS.get(self.no_answer or "")
        return odd(request, answer) if odd else answer()

    @contextmanager
    def disturbed(self, kind: str) -> Iterator[None]:
        """Let what is planned for this kind of request happen before or after it is answered."""
        if kind != "terminals":  # asked for together with the kernels
            self.rig.time += self.server_takes if kind in OF_SERVERS else self.hub_takes
        found = next((one for one in self.planned if one.kind == kind), None)
        if found is not None:
            self.planned.remove(found)
        for late in (False, True):
            if found is not None and found.late == late:
                self.rig.time += found.seconds / 2
                if found.act is not None:
                    self.do(*found.act)
                self.rig.time += found.seconds / 2
            if not late:
                yield

    def answer_of_hub(
        self, kind: str, request: Request, answer: Callable[[], Reply], asked: float
    ) -> Reply:
        number = self.number_of(request)
        if kind == "list":
            return self.listed(request, answer)
        if kind == "routes":
            return self.routed(answer())
        if number is None:
            return answer()
        if kind == "delete":
            return self.deleted(number, request, answer, asked)
        if kind == "verify":
            self.go_on_stopping(number)
        found = answer()
        if kind == "look":
            self.looks[number] = Look(self.rig.time, self.opinion(number), len(self.heard))
        return found

    def number_of(self, request: Request) -> int | None:
        """Tell whose server a request of the Hub is about."""
        parts = request.path.split("/")
        users = [quote(server.user.name, safe="") for server in self.servers]
        return users.index(parts[2]) if len(parts) > 2 and parts[2] in users else None

    def answer_of_server(self, number: int, request: Request, answer: Callable[[], Reply]) -> Reply:
        """Let a server answer by its own clock."""
        odd, ahead = ODD.get(self.odd.get(number, "")), self.ahead.get(number, 0.0)
        answered = odd(request, answer) if odd else answer()
        if answered.status == 200 and ahead:
            answered = replace(answered, body=_later(answered.body, ahead))
        if answered.date is None:
            return answered
        return replace(answered, date=formatdate(self.rig.time + ahead, usegmt=True))

    # ---- what the sidecar learns ----------------------------------------------------------------

    def listed(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        """Note who is no candidate now: nobody of them can have been busy without a break."""
        fault = self.list_fault
        may_stop = "delete:servers" in self.hub.tokens[self.hub.token].scopes
        self.told.polled(fault is None and may_stop)
        if fault is not None:
            return BAD_LISTS[fault](request, answer)
        for number in range(len(self.servers)):
            if not self.is_watched(number):
                self.busy.pop(self.start_of(number), None)
        return answer()

    def is_watched(self, number: int) -> bool:
        """Tell whether a server will be asked now, unless something else is in the way."""
        return self.opinion(number).reason is not None

    def routed(self, answered: Reply) -> Reply:
        """Note what the proxy knows of the servers' activity; of some it knows none."""
        page = json.loads(answered.body)
        for number, server in enumerate(self.servers):
            route = page["items"].get(server.routespec)
            if route is not None:
                if number in self.unfed:
                    route["data"]["last_activity"] = None
                self.routes[number] = (self.rig.time, route["data"]["last_activity"])
        return replace(answered, body=json.dumps(page).encode())

    def note_answer(self, number: int, kind: str) -> None:
        """Note since when a server is busy, and whether it is Jupyter."""
        key, limit = self.start_of(number), self.limit_of(number)
        if kind == "status":
            word = oracle.word_on_activity(self.told_by(number), limit)
        elif self.half_told.setdefault(number, kind) == kind:
            return  # the other one is yet to come
        else:
            del self.half_told[number]
            word = oracle.word_on_work(self.told_by(number), limit, self.terminals_protect(number))
        if word in ("idle", "busy", "active"):
            self.once_jupyter.add(key)
        if word == "busy":
            seconds, last = self.busy.get(key, (0.0, self.rig.time))
            gap = self.rig.time - last
            counts = gap <= LONGEST_GAP + SLACK
            self.busy[key] = (seconds + (gap if counts else 0.0), self.rig.time)
        elif word == "active" or (word != "failed" and kind != "status"):
            self.busy.pop(key, None)

    def told_by(self, number: int) -> dict[str, oracle.Said]:
        return {
            path: self.said.get((number, path), (0.0, oracle.Said(0)))[1]
            for path in ("status", "kernels", "terminals")
        }

    # ---- what the oracle says -------------------------------------------------------------------

    def start_of(self, number: int) -> tuple[int, Any]:
        return number, self.servers[number].started

    def opinion(self, number: int) -> oracle.Opinion:
        """Judge a server by what the Hub says of it at this moment."""
        server = self.servers[number]
        if server.stopped:
            return oracle.Opinion([], set(), None)
        return oracle.opinion(self.sent(number), server.name, self.rules, ENFORCING, self.now)

    def sent(self, number: int) -> Json:
        """Give the user of a server as the Hub shows it at this moment."""
        server, user = self.servers[number], self.servers[number].user
        shown = {
            "ready": server.ready,
            "pending": server.pending,
            "started": iso(server.started),
            "last_activity": iso(server.last_activity),
            "user_options": server.user_options,
        }
        return {
            "name": user.name,
            "admin": user.admin,
            "groups": [*user.groups],
            "servers": {} if server.stopped else {server.name: shown},
        }

    def policy_of(self, number: int) -> Json:
        """Give the policy of a server, with what it takes from the options."""
        named = self.opinion(number).policies[:1]
        return self.rules | next((p for p in self.rules["policies"] if [p["name"]] == named), {})

    def limit_of(self, number: int) -> float:
        return float(self.policy_of(number)["timeout"])

    def terminals_protect(self, number: int) -> bool:
        return bool(self.policy_of(number).get("protect_terminals"))

    def word_of(self, number: int, said: dict[str, oracle.Said]) -> str:
        """Say what a server's answers mean, given what is known of it."""
        word = oracle.own_word(said, self.limit_of(number), self.terminals_protect(number))
        if word == "no_jupyter" and self.start_of(number) in self.once_jupyter:
            return "no longer Jupyter"
        if word == "no_jupyter" and number in self.unfed:
            return "nothing records its activity"
        return word

    def spared_by(self, number: int) -> str | None:
        """Say what protects a server at this moment, None when all rules allow its stop."""
        found = self.opinion(number)
        if found.reason is None:
            return f"judged {found}"
        spared = None if found.reason == "max_age" else self.spared_by_prometheus(number)
        if found.reason == "max_age" or spared or not self.asks:
            return spared
        server = self.servers[number]
        route = server.route_activity if server.route_activity is not None else server.last_activity
        if number not in self.unfed and oracle.inside(
            [iso(route)], self.limit_of(number), self.now
        ):
            return "the route was used"
        word = self.word_of(number, self.says_now(number))
        return None if word in ("idle", "no_jupyter") else word

    def spared_by_prometheus(self, number: int) -> str | None:
        """Say why what Prometheus would answer now withholds a stop."""
        if self.prometheus is None:
            return None
        request = Request("POST", QUERY, {}, {}, b"", 0.0)
        found = self.answer_of_prometheus(request, partial(self.prometheus.answer, request))
        return self.withheld_by(number, _said(found))

    def withheld_by(self, number: int, heard: oracle.Said) -> str | None:
        server, policy = self.servers[number], self.policy_of(number)
        return oracle.withheld_by_prometheus(server.user.name, server.name, policy, heard)

    @property
    def asks(self) -> bool:
        return self.rig.settings.busy_check != "off"

    def says_now(self, number: int) -> dict[str, oracle.Said]:
        """Give what a server would answer at this moment."""
        said = {}
        jupyter = self.jupyter(number)
        for path in ("status", "kernels", "terminals"):
            value = jupyter.says(path) if jupyter is not None else None
            true = reply(404, {"message": "Not Found"}) if value is None else reply(200, value)
            request = Request("GET", path, {}, {}, b"", 0.0)
            said[path] = _said(self.answer_of_server(number, request, partial(_same, true)))
        return said

    def what_is_wrong(self, number: int, asked: float) -> str | None:
        """Say why a stop that takes effect now, and was sent at `asked`, should not have."""
        look = self.looks.get(number)
        if look is None or self.rig.time - look.at > oracle.OLDEST_LOOK:
            return f"looked at at {look and look.at}"
        if look.opinion.reason is None:
            return f"judged {look.opinion}"
        problem = self.wrong_lease()
        if problem is None and self.asks and look.opinion.reason == "idle":
            problem = self.wrong_answers(number, asked)
        if problem is None and self.prometheus and look.opinion.reason == "idle":
            problem = self.wrong_opinion(number, look)
        return problem

    def wrong_opinion(self, number: int, look: Look) -> str | None:
        """Say what is wrong with what Prometheus said: it is heard at some time after the look."""
        known = self.heard[max(look.heard - 1, 0) :]
        good = [asked for asked, heard in known if not self.withheld_by(number, heard)]
        if not any(self.rig.time - asked <= oracle.OLDEST_OPINION for asked in good):
            return f"Prometheus said {known}"
        of_pass = [self.withheld_by(number, heard) for _, heard in self.of_this_pass(look)]
        return "a query failed in its pass" if "query_failed" in of_pass else None

    def of_this_pass(self, look: Look) -> list[tuple[float, oracle.Said]]:
        """Give what was certainly asked for this culling pass before a look."""
        return self.heard[self.of_pass : look.heard]

    def wrong_lease(self) -> str | None:
        notes = [
            token.note
            for token in self.hub.tokens.values()
            if token.note.startswith(LEASE) and token.expires and token.expires >= self.hub.now()
        ]
        if OTHERS in notes:
            return "another exporter holds the lease"
        return None if notes else "no lease is held"

    def wrong_answers(self, number: int, asked: float) -> str | None:
        """Say what is wrong with what the server and its route said, or how old that is."""
        for path, at, oldest in (
            ("status", self.rig.time, oracle.OLDEST_LOOK),
            ("kernels", asked, oracle.OLDEST_WORK),
            ("terminals", asked, oracle.OLDEST_WORK),
        ):
            said_at = self.said.get((number, path), (0.0, None))[0]
            if at - said_at > oldest:
                return f"{path} asked at {said_at}"
        word = self.word_of(number, self.told_by(number))
        read_at, used = self.routes[number]
        if oracle.inside([used], self.limit_of(number), self.now):
            return "the route was used"
        if word == "no_jupyter" and asked - read_at > oracle.OLDEST_ROUTES:
            return f"not Jupyter, and routes read at {read_at}"
        if word == "busy":
            seconds = self.busy.get(self.start_of(number), (0.0, 0.0))[0]
            return None if seconds + SLACK >= MAX_BUSY else f"busy, seen for {seconds} s"
        return None if word in ("idle", "no_jupyter") else word

    # ---- stops ----------------------------------------------------------------------------------

    def deleted(
        self, number: int, request: Request, answer: Callable[[], Reply], asked: float
    ) -> Reply:
        """Let a stop take effect, or not; where it does, hold it against the oracle."""
        server, how = self.servers[number], self.bad_stops.get(number)
        if how == "403":
            return reply(403, {"status": 403, "message": "Missing or invalid credentials."})
        if how in ("lost", "504"):
            return Reply(cut=-1) if how == "lost" else faults.html(504)(request, answer)
        running = not server.stopped and server.pending != "stop"
        wrong = self.what_is_wrong(number, asked)
        if number in self.slow:
            server.stop_takes = threading.Event()
        answered = answer()
        if running and (server.stopped or server.pending == "stop"):
            self.took_effect(number, asked, wrong)
        if answered.status >= 400:
            return answered
        bad = {"answer lost": faults.close(), "504 done": faults.html(504)}.get(how or "")
        return bad(request, lambda: answered) if bad else answered

    def took_effect(self, number: int, asked: float, wrong: str | None) -> None:
        server = self.servers[number]
        named = f"{server.user.name}/{server.name}"
        gate = self.told.allows(asked, asked + self.rig.wall_ahead)
        if wrong is not None or gate is False:
            self.wrong.append(f"{named} was stopped at {self.rig.time}: {wrong}, gate {gate}")
        self.stopped.append(named)
        if number in self.slow:
            self.under_way[number] = self.slow[number]
        elif not server.stop_fails:
            self.ended += 1

    def go_on_stopping(self, number: int) -> None:
        """Let a slow stop come to its end, once the Hub was asked often enough."""
        if number not in self.under_way:
            return
        self.under_way[number] -= 1
        server = self.servers[number]
        if self.under_way[number] == 0:
            del self.under_way[number]
            assert isinstance(server.stop_takes, threading.Event)
            server.stop_takes.set()
            while not server.stopped:
                time.sleep(0.001)
            self.ended += not server.stop_fails

    # ---- what happens ---------------------------------------------------------------------------

    def do(self, what: str, *how: Any) -> None:
        getattr(self, f"do_{what}")(*how)

    def do_wait(self, seconds: float) -> None:
        """Let time go by, the Hub in sight, the lease renewed as the sidecar's own thread does."""
        while seconds > 0:
            step = min(30.0, seconds)
            self.rig.time += step
            seconds, self.unrenewed = seconds - step, self.unrenewed + step
            at, wall = self.rig.time, self.rig.time + self.rig.wall_ahead
            self.rig.gatekeeper.hub_answered(self.hub.now())
            self.told.answers.append(oracle.Answer(at, at, wall, self.hub.now()))
            if self.unrenewed >= 90.0:
                self.rig.enforcement.election.renew()
                self.unrenewed = 0.0

    def do_sleep(self, seconds: float) -> None:
        """Let time go by without a look at the Hub."""
        self.rig.time += seconds

    def do_down(self, seconds: float) -> None:
        """Take the Hub down for a while, during which it is polled in vain."""
        self.hub.hang_up()
        self.rig.time += seconds / 2
        assert not self.rig.poll()
        self.told.polled(False)
        self.rig.poller.heartbeat()
        self.rig.time += seconds / 2
        self.hub.listen()

    def do_work(self, number: int, seen_by: str) -> None:
        """Be active half a second ago: what a stop leaves behind is later than that."""
        number %= len(self.servers)
        server, jupyter = self.servers[number], self.jupyter(number)
        if server.stopped and (jupyter is None or number in self.odd):
            return  # nobody could tell such an orphan, in use, from a server that has stopped
        if jupyter is not None:
            jupyter.last_activity = iso(self.rig.time - 0.5) or ""
        if seen_by == "all":
            server.last_activity = server.route_activity = self.hub.now() - 0.5
        elif seen_by == "route":
            server.route_activity = self.hub.now() - 0.5

    def do_kernel(self, number: int, state: str) -> None:
        jupyter = self.jupyter(number % len(self.servers))
        if jupyter is not None:
            jupyter.kernels.clear()
            jupyter.add_kernel(state, last_activity=iso(START - 50000) or "")

    def do_terminal(self, number: int) -> None:
        """Open a terminal in which nothing happens, or close it."""
        jupyter = self.jupyter(number % len(self.servers))
        if jupyter is None:
            return
        if jupyter.terminals:
            jupyter.terminals.clear()
        else:
            jupyter.add_terminal(last_activity=iso(START - 50000) or "")

    def do_says(self, number: int, what: str) -> None:
        """Let Prometheus say something else of a server."""
        self.sayings[number % len(self.servers)] = what
        if self.prometheus is None:
            return
        self.prometheus.series.clear()
        for each, saying in self.sayings.items():
            server = self.servers[each]
            names = {"it": server.name, "all": "", "another": f"{server.name} 2"}
            for whose, value in SAYINGS[saying]:
                self.prometheus.says(server.user.name, value, names[whose])

    def do_query(self, how: str | None) -> None:
        """Let the query fail in some way, or work."""
        self.no_answer = how

    def do_odd(self, number: int, how: str | None) -> None:
        _set(self.odd, number % len(self.servers), how)

    def do_server_clock(self, number: int, ahead: float) -> None:
        self.ahead[number % len(self.servers)] = ahead

    def do_bad_stop(self, number: int, how: str | None) -> None:
        _set(self.bad_stops, number % len(self.servers), how)

    def do_restart(self, number: int) -> None:
        number %= len(self.servers)
        if number in self.under_way:
            return
        server, jupyter = self.servers[number], self.jupyter(number)
        self.replaced += server.process_alive
        server.stopped, server.ready, server.pending = False, True, None
        server.process_alive = True
        server.started = server.last_activity = self.hub.now()
        server.route_activity = None
        if jupyter is not None:
            jupyter.last_activity = iso(self.rig.time) or ""

    def do_pending(self, number: int, state: str | None) -> None:
        number %= len(self.servers)
        server = self.servers[number]
        if not server.stopped and number not in self.under_way:
            server.pending, server.ready = state, state is None

    def do_hub_jump(self, seconds: float) -> None:
        self.hub.clock_offset += seconds

    def do_wall_jump(self, seconds: float) -> None:
        self.rig.wall_ahead += seconds

    def do_scope(self, has: bool) -> None:
        scopes = [scope for scope in ENFORCING if has or scope != "delete:servers"]
        self.hub.tokens[self.hub.token].scopes = scopes

    def do_another(self, seconds: float) -> None:
        """Let another exporter take the lease for so long, if nobody has it."""
        if self.wrong_lease() == "no lease is held":
            expires = self.hub.now() + seconds
            value = self.hub.add_token([], user=PROBER, expires=expires)
            self.hub.tokens[value].note = OTHERS

    def end_another(self) -> None:
        """Let the other exporter shut down: after a jump of the Hub's clock its lease has hours."""
        for token in [one for one in self.hub.tokens.values() if one.note == OTHERS]:
            del self.hub.tokens[token.value]

    def do_poll(self, fault: str | None, disturbances: list[Disturbance]) -> None:
        """Poll, and see the pass to its end; what is left of `planned` then did not happen."""
        self.list_fault, self.planned = fault, [*disturbances]
        self.of_pass = len(self.heard) + 1  # the poll's own comes first
        ended, failed = self.ended, self.counted("cull_failures")
        worked = self.rig.poll(within=30)
        self.list_fault = None
        assert worked == (fault is None)
        assert not self.wrong, self.wrong
        failed_now = self.counted("cull_failures") - failed
        assert not self.max_culls or self.ended - ended <= self.max_culls + failed_now
        self.see_that_counters_add_up()

    def counted(self, name: str) -> float:
        """Sum one of our counters over its labels."""
        return self.counted_by(self.rig, name)

    def counted_by(self, rig: Rig, name: str) -> float:
        families = rig.metrics.registry.collect()
        (found,) = (one for one in families if one.name == f"hub_idle_exporter_{name}")
        return sum(one.value for one in found.samples if one.name.endswith("_total"))

    def see_that_counters_add_up(self) -> None:
        culls, failures = self.counted("culls"), self.counted("cull_failures")
        assert self.counted("cull_attempts") == culls + failures
        assert len(self.stopped) <= culls + failures
        gone = self.ended + self.replaced
        assert culls <= gone, "more culls are counted than processes have ended"

    def mend(self) -> None:
        """Let everything be well."""
        self.do_scope(True)
        self.bad_stops.clear()
        self.do_query(None)
        self.hub.clock_offset = self.rig.wall_ahead = 0.0
        self.end_another()

    def settle(self) -> None:
        """Let everything be well for long enough, then see who is still kept."""
        self.mend()
        for _ in range(int((self.grace + LONGEST_BACK_OFF) / SETTLE_EVERY) + len(self.servers) + 3):
            self.do_wait(SETTLE_EVERY)
            self.do_poll(None, [])
            kept = [n for n in range(len(self.servers)) if self.spared_by(n) is None]
            if not kept:
                return
        raise AssertionError(f"all rules allow to stop these, yet they are kept: {kept}")

    def jupyter(self, number: int) -> Jupyter | None:
        return self.rig.target.at[self.servers[number].routespec]


def iso(seconds: Any) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _kind(request: Request) -> str:
    """Say what a request to the Hub is for."""
    parts = request.path.strip("/").split("/")
    match request.method, parts:
        case "GET", ["user"]:
            return "identity"
        case "GET", ["users"]:
            return "list"
        case "GET", ["proxy"]:
            return "routes"
        case "GET", ["users", user]:
            verifies = "include_stopped_servers" in request.query
            return "prober" if user == PROBER else ("verify" if verifies else "look")
        case "DELETE", ["users", _, "server" | "servers", *_]:
            return "delete"
        case "DELETE", ["users", _, "tokens", _]:
            return "revoke"
        case "GET", ["users", _, "tokens"]:
            return "tokens"
        case "POST", ["users", _, "tokens"]:
            note: str = request.json()["note"].removeprefix("hub-idle-exporter: ")
            return {"stop": "stop token", "busy check": "mint"}.get(note, note.partition(" ")[0])
    return "version"


def _said(answered: Reply) -> oracle.Said:
    """Give an answer of a server as the oracle reads it; of half an answer only the status."""
    if answered.cut is not None and answered.cut < 0:
        return oracle.Said(0)
    date = answered.date
    clock = None if date is None else parsedate_to_datetime(date) if date != "now" else None
    try:
        value = json.loads(answered.body[: answered.cut])
    except ValueError:
        value = None
    return oracle.Said(answered.status, value, clock)


def _later(body: bytes, seconds: float) -> bytes:
    """Write all times in a server's answer by a clock that is so far ahead."""

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if not isinstance(value, dict):
            return value
        times = {
            key: iso(
                datetime.fromisoformat(value[key].replace("Z", "+00:00")).timestamp() + seconds
            )
            for key in ("started", "last_activity")
            if isinstance(value.get(key), str)
        }
        return value | times

    try:
        return json.dumps(moved(json.loads(body))).encode()
    except ValueError:
        return body


def _same(answered: Reply) -> Reply:
    return answered


def _set(where: dict[int, str], number: int, how: str | None) -> None:
    where.pop(number, None)
    if how is not None:
        where[number] = how
