"""A world whose people keep servers and are told before a stop, and whose exporters are restarted.

    with PeopleWorld.begun(hub, grace=0.0, folder=tmp_path) as world:
        world.begin({...})
        world.do("keep", 0)
        world.do("exporter_ends", "killed")
        world.settle()

It notes what people did and were told, and holds that against the oracle: each stop, each
announcement, each keep, and after each poll the metrics.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from math import ceil
from pathlib import Path
from typing import Any

import oracle
from culling_rig import FixedPolicies, Rig
from fake_hub import FakeHub, Reply, Request
from fake_prometheus import FakePrometheus
from oracle import Happening, PeopleHistory
from world import (
    ENFORCING,
    INTERVAL,
    LIMIT,
    MAX_BUSY,
    POLICIES,
    SETTINGS,
    SETTLE_EVERY,
    SHORT_LIMIT,
    SLACK,
    TOLD,
    Json,
    Look,
    World,
    iso,
)

from hub_idle_exporter.domain.policy import JudgedServer
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.people.desk import Desk, Visitor, started_text
from hub_idle_exporter.people.keeper import RefusedError
from hub_idle_exporter.people.state_file import StateFile

NOTICE, KEEP_MAX = 300.0, 1800.0
ROUNDED = 2.0  # seconds: the Hub writes its clock without fractions
EXEMPT, SHORT, NAMED, UNHEARD = POLICIES
RULES: dict[str, Json] = {
    name: TOLD
    | {"notice": NOTICE, "keep_max": KEEP_MAX, "policies": [EXEMPT, short, named, UNHEARD]}
    for name, short, named in (
        ("usual", SHORT | {"notice": 120, "keep_max": 600}, NAMED),
        ("longer", SHORT | {"notice": 120, "timeout": 2 * LIMIT}, NAMED | {"keep_max": 0}),
        ("shorter", SHORT | {"notice": 60, "timeout": SHORT_LIMIT / 2}, NAMED | {"notice": 0}),
    )
}


class Post:
    """Tells people at once; while it does not `work`, as soon as it does again."""

    def __init__(self) -> None:
        self.works = True
        self.waiting: dict[Hashable, Callable[[], None]] = {}
        self.asked: Callable[[JudgedServer], Callable[[], None]] = lambda _: lambda: None

    def due(
        self,
        server: JudgedServer,
        key: Hashable,
        left: Callable[[], float],
        told: Callable[[], None],
    ) -> None:
        note = self.asked(server)

        def deliver() -> None:
            assert left() >= 0
            note()
            told()

        if self.works:
            deliver()
        else:
            self.waiting[key] = deliver

    def stopped(self, server: JudgedServer) -> None:
        pass

    def cancel(self, key: Hashable) -> None:
        self.waiting.pop(key, None)

    def problem(self, _key: Hashable) -> str | None:
        return None if self.works else "the mail server does not answer"


@dataclass
class PeopleWorld(World):
    """Tells the oracle what people do and are told."""

    post: Post = field(default_factory=Post)
    begin_rig: Callable[[Rig], Rig] = lambda _after: NotImplemented
    folder: Path | None = None  # that of the state file; None: there is none
    people: PeopleHistory = field(default_factory=PeopleHistory)
    ended_rigs: list[Rig] = field(default_factory=list)
    seen: dict[int, Json] = field(default_factory=dict)  # the user, at the last look
    limits: dict[int, float] = field(default_factory=dict)  # by which a server is asked
    expected: dict[str, Any] = field(default_factory=dict)
    before_poll: int = 0  # how much had happened
    jumped: bool = False  # whether a clock ever did

    @classmethod
    @contextmanager
    def begun(
        cls,
        hub: FakeHub,
        grace: float,
        folder: Path | None,
        prometheus: FakePrometheus | None = None,
        **settings: Any,
    ) -> Iterator["PeopleWorld"]:
        """Begin with a first exporter; all that are begun later end with it."""
        post, rules = Post(), RULES["usual"]
        more = SETTINGS | {
            "policies": rules["policies"],
            "notice": NOTICE,
            "keep_max": KEEP_MAX,
            "poll": {"interval": INTERVAL, "per_server_metrics": True},
            "prometheus": prometheus and prometheus.origin,
        }
        with ExitStack() as stack:

            def begin_rig(after: Rig | None = None) -> Rig:
                path = folder and folder / "state.sqlite"
                state = StateFile.opened(path, lambda _: True)
                rig = Rig(hub, grace=grace, state=state, tells=post, after=after, **more | settings)
                return stack.enter_context(rig)

            max_culls = settings.get("max_culls", 0)
            rig = begin_rig()
            yield cls(
                rig,
                grace,
                max_culls,
                rules,
                prometheus=prometheus,
                post=post,
                begin_rig=begin_rig,
                folder=folder,
            )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.post.asked = self.telling_begins
        self.visitor = self.hub.add_token(ENFORCING)

    # ---- what people do -------------------------------------------------------------------------

    def at_hub(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        """Let what the page asks pass by: the culler knows nothing of it."""
        if request.token == self.visitor:
            return answer()
        return super().at_hub(request, answer)

    @property
    def desk(self) -> Desk:
        """Give what stands behind the page, with a way to the Hub of its own."""
        rig, connection = self.rig, ConnectionSettings(self.hub.url)
        hub = Hub(connection, Token.read_by(lambda: self.visitor), clock=lambda: self.rig.time)
        return Desk(hub, rig.latest, rig.gatekeeper.read, rig.promises, rig.metrics.journal)

    def asked_at_desk(self, number: int, what: str) -> Any:
        """Ask for something as the page does; None if it is refused."""
        user, name = self.servers[number].user.name, self.servers[number].name
        desk, visitor = self.desk, Visitor(user, admin=False)
        try:
            (shown,) = [one.judged for one in desk.servers_of(user) if one.judged.server == name]
            return getattr(desk, what)(visitor, user, name, started_text(shown)) or True
        except (RefusedError, HubError, ValueError):
            return None

    def do_keep(self, number: int) -> None:
        number %= len(self.servers)
        kept = self.asked_at_desk(number, "keep")
        if kept is None:
            return
        start, now = self.start_text(number), self.now
        until = datetime.fromtimestamp(kept.until, timezone.utc)
        most = now + timedelta(seconds=float(self.policy_of(number)["keep_max"]))
        earlier = self.people.kept_until(start, now)
        latest = max(filter(None, (most, earlier)))
        if abs((until - latest).total_seconds()) > ROUNDED:
            self.wrong.append(f"{start} is kept until {until} and not {latest}")
        if self.servers[number].pending is not None:
            self.wrong.append(f"{start} is kept, and pending")
        if self.is_lost():
            self.wrong.append(f"{start} is kept, and the state file is lost")
        if not self.jumped and self.wrong_lease() == "another exporter holds the lease":
            self.wrong.append(f"{start} is kept, and another exporter does not know")
        self.happened("kept", number, until=until)

    def do_release(self, number: int) -> None:
        number %= len(self.servers)
        if self.asked_at_desk(number, "release"):
            self.happened("released", number)

    def happened(self, what: str, number: int, **more: Any) -> None:
        self.people.happened.append(Happening(what, self.now, self.start_text(number), **more))

    def start_text(self, number: int) -> oracle.Start:
        server = self.servers[number]
        return server.user.name, server.name, iso(server.started)

    # ---- what they are told ---------------------------------------------------------------------

    def telling_begins(self, server: JudgedServer) -> Callable[[], None]:
        """Hold an announcement against the oracle; give what is to be noted when it is read."""
        user = server.user
        number = next(n for n, one in enumerate(self.servers) if one.user.name == user)
        look, begun, reason = self.seen[number], len(self.people.happened), str(server.reason)
        problem = self.wrong_to_tell(number, reason)
        if problem is not None:
            self.wrong.append(f"{user} is told of a stop for {reason}: {problem}")
        start, activity = self.start_in(look, number), self.server_in(look, number)["last_activity"]

        def note() -> None:
            told = Happening("told", self.now, start, None, reason, activity, begun)
            self.people.happened.append(told)

        return note

    def start_in(self, look: Json, number: int) -> oracle.Start:
        return oracle.start_of(look, self.servers[number].name)

    def server_in(self, look: Json, number: int) -> Json:
        server: Json = look["servers"][self.servers[number].name]
        return server

    def wrong_to_tell(self, number: int, reason: str) -> str | None:
        """Say why nobody should have been told."""
        look, policy, at = self.seen[number], self.policy_of(number), self.rig.time
        if self.told.allows(at, at + self.rig.wall_ahead) is False:
            return "nothing may be stopped"
        if reason == "max_age":
            return None
        unheard = self.wrong_opinion(number, self.looks[number]) if self.prometheus else None
        if unheard is not None:
            return unheard
        near = self.now + timedelta(seconds=float(policy["notice"]) + ROUNDED)
        due = PeopleHistory([one for one in self.people.happened if one.what != "told"]).idle_from(
            self.start_in(look, number), self.server_in(look, number), policy, self.now
        )
        if due is None or due > near:
            return f"it is due at {due}"
        word = self.word_of(number, self.told_by(number)) if self.asks else "idle"
        seconds = self.busy.get(self.start_of(number), (0.0, 0.0))[0]
        long_busy = word == "busy" and seconds + SLACK >= MAX_BUSY
        return None if word in ("idle", "no_jupyter") or long_busy else word

    def do_post(self, works: bool) -> None:
        """Let messages arrive, or not."""
        self.post.works = works
        while works and self.post.waiting:
            _, deliver = self.post.waiting.popitem()
            deliver()

    # ---- what the exporter learns ---------------------------------------------------------------

    def at_prometheus(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        """Note who is in use: that takes back what was announced, if he is a candidate then."""
        answered = super().at_prometheus(request, answer)
        for number in range(len(self.servers)):
            if self.withheld_by(number, self.heard[-1][1]) == "in_use":
                self.happened("unclear", number)
        return answered

    def of_this_pass(self, _look: Look) -> list[tuple[float, oracle.Said]]:
        """Give nothing: it may have been asked for the announcements."""
        return []

    def answer_of_hub(
        self, kind: str, request: Request, answer: Callable[[], Reply], asked: float
    ) -> Reply:
        found = super().answer_of_hub(kind, request, answer, asked)
        number = self.number_of(request)
        if kind == "look" and number is not None:
            self.seen[number] = self.sent(number)
        return found

    def note_answer(self, number: int, kind: str) -> None:
        """Note who is at work by the server's own word: that takes back what was announced."""
        super().note_answer(number, kind)
        whole = kind == "status" or number not in self.half_told
        work, limit = self.told_by(number), self.limit_of(number)
        if kind == "status":
            word = oracle.word_on_activity(work, limit)
        else:
            word = oracle.word_on_work(work, limit, self.terminals_protect(number))
        if whole and word in ("busy", "active"):
            seconds = self.busy.get(self.start_of(number), (0.0, 0.0))[0]
            unclear = word == "busy" and seconds + SLACK >= MAX_BUSY
            self.happened("unclear" if unclear else "at work", number)

    def limit_of(self, number: int) -> float:
        """Give the limit by which a server is asked: before an announcement, less the notice."""
        return self.limits.get(number, super().limit_of(number))

    def listed(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        since = [one.what for one in self.people.happened[self.before_poll :]]
        running = [n for n, server in enumerate(self.servers) if not server.stopped]
        for number in running:
            policy, candidate = self.policy_of(number), super().is_watched(number)
            self.limits[number] = policy["timeout"] - (0.0 if candidate else policy["notice"])
            if not self.is_watched(number):
                self.happened("not due", number)
        # What happens while it polls, it may know or not.
        self.expected = (
            {}
            if since
            else {
                "due": {number: self.possible_dues(number) for number in running},
                "kept": [self.policy_of(n)["name"] for n in running if self.is_kept(n)],
            }
        )
        return super().listed(request, answer)

    def is_watched(self, number: int) -> bool:
        """Tell whether it is to be stopped, or to be told of, now."""
        return super().is_watched(number) or self.is_near(number)

    def is_near(self, number: int) -> bool:
        """Tell whether a server could be stopped for idleness once its notice has passed."""
        if self.servers[number].stopped:
            return False
        sent, name = self.sent(number), self.servers[number].name
        notice = timedelta(seconds=float(self.policy_of(number)["notice"]))
        found = oracle.promised(sent, name, self.rules, ENFORCING, self.now + notice, self.people)
        return bool(notice) and found.reason is not None

    def is_kept(self, number: int) -> bool:
        return self.people.kept_until(self.start_text(number), self.now) is not None

    def possible_dues(self, number: int) -> list[datetime | None]:
        """Give what the metric may say: only the oracle's, unless what was told is unclear.

        Nothing where the rules have changed since: people were told by those of before.
        """
        happened = self.people.happened
        untold = PeopleHistory([one for one in happened if one.what != "told"])
        start = self.start_text(number)
        told = [n for n, one in enumerate(happened) if (one.what, one.start) == ("told", start)]
        since = {
            one.what for one in happened[told[-1] if told else 0 :] if one.start in (None, start)
        }
        if told and "rules" in since:
            return []
        unclear = not since.isdisjoint(("unclear", "not due"))
        sent, name = self.sent(number), self.servers[number].name
        histories = [self.people, untold] if unclear else [self.people]
        found = [
            oracle.due(sent, name, self.rules, ENFORCING, self.now, history)
            for history in histories
        ]
        idle = super().opinion(number).reason == "idle"  # though it may be kept
        if idle and (self.planned or self.spared_by_prometheus(number)):
            aged = oracle.due(sent, name, self.rules, ENFORCING, self.now, self.people, spared=True)
            found = [*found, aged] if self.planned else [aged]
        return found

    # ---- the oracle ------------------------------------------------------------------------------

    def opinion(self, number: int) -> oracle.Opinion:
        if self.servers[number].stopped:
            return super().opinion(number)
        sent, name = self.sent(number), self.servers[number].name
        return oracle.promised(sent, name, self.rules, ENFORCING, self.now, self.people)

    def policy_of(self, number: int) -> Json:
        """Give the policy of a server, with what it takes from the options."""
        return {"name": "default"} | super().policy_of(number)

    def what_is_wrong(self, number: int, asked: float) -> str | None:
        wrong = super().what_is_wrong(number, asked)
        look = self.looks.get(number)
        if wrong is None and look is not None and look.opinion.reason == "idle":
            wrong = self.broken_promise(number)
        return wrong or ("the state file is lost" if self.is_lost() else None)

    def broken_promise(self, number: int) -> str | None:
        """Say which promise a stop for idleness breaks now, by what is certain."""
        server, policy = self.server_in(self.seen[number], number), self.policy_of(number)
        soon = self.now + timedelta(seconds=ROUNDED)
        return self.people.forbids_stop(self.start_text(number), server, policy, soon)

    def is_lost(self) -> bool:
        return self.folder is not None and not (self.folder / "state.sqlite").exists()

    # ---- what happens ---------------------------------------------------------------------------

    def do_hub_jump(self, seconds: float) -> None:
        super().do_hub_jump(seconds)
        self.jumped = True

    def do_rules(self, name: str) -> None:
        """Change the policies."""
        self.rules = RULES[name]
        self.people.happened.append(Happening("rules", self.now))
        self.apply_rules()
        self.do_poll(None, [])

    def apply_rules(self) -> None:
        assert self.rig.source is not None
        default = self.rig.poll_settings.default
        self.rig.source.value = FixedPolicies(self.rules["policies"], default).value

    def do_lose_file(self, how: str) -> None:
        """Lose the state file: a new one can be written at once, or the folder is not there."""
        if self.folder is None:
            return
        away = self.folder.with_suffix(".away")
        if how == "removed":
            (self.folder / "state.sqlite").unlink(missing_ok=True)
        elif how == "away" and not away.exists():
            self.folder.rename(away)
        elif how == "back" and away.exists():
            away.rename(self.folder)

    def do_exporter_ends(self, how: str) -> None:
        """Let another exporter take over: at once, or once the lease of a killed one is over."""
        if self.under_way:
            return
        self.do_lose_file("back")
        if self.is_lost() or self.folder is None:
            self.people.happened.append(Happening("forgotten", self.now))
        if how != "killed":
            self.rig.enforcement.election.release()
        self.rig.stopping.set()
        self.rig.file.close()
        self.ended_rigs.append(self.rig)
        self.rig = self.begin_rig(self.rig)
        self.apply_rules()
        self.forget()

    def forget(self) -> None:
        """Know nothing that an exporter has in its memory only."""
        wall = self.rig.time + self.rig.wall_ahead
        self.told = oracle.GateHistory(True, self.grace, self.rig.time, wall)
        for known in (self.looks, self.seen, self.routes, self.said, self.busy):
            known.clear()
        self.once_jupyter.clear()
        self.half_told.clear()
        self.post.waiting.clear()
        self.unrenewed = 0.0

    def counted(self, name: str) -> float:
        return sum(self.counted_by(rig, name) for rig in [*self.ended_rigs, self.rig])

    def do_poll(self, fault: str | None, disturbances: list[Any]) -> None:
        self.before_poll, self.expected = len(self.people.happened), {}
        super().do_poll(fault, disturbances)
        if fault is None and not self.jumped and self.expected:
            self.see_the_metrics()
        twice = self.people.told_twice()
        assert not twice, f"told twice: {twice}"

    def see_the_metrics(self) -> None:
        for number, dues in self.expected["due"].items():
            server = self.servers[number]
            found = self.rig.metrics.registry.get_sample_value(
                "jupyterhub_server_stop_due_timestamp_seconds",
                {"user": server.user.name, "server": server.name},
            )
            times = [None if due is None else due.timestamp() for due in dues]
            fits = [
                found is time or (None not in (found, time) and abs(found - time) <= ROUNDED)  # type: ignore[operator]
                for time in times
            ]
            assert any(fits) or not times, (number, found, times, self.people.happened)
        for policy in self.rules["policies"]:
            found = self.rig.metrics.registry.get_sample_value(
                "jupyterhub_servers_kept", {"policy": policy["name"]}
            )
            assert found == self.expected["kept"].count(policy["name"])

    def mend(self) -> None:
        """Let everything be well, and wait until everything is over that was promised."""
        super().mend()
        self.do_lose_file("back")
        self.do_post(True)
        ends = [one.until or one.at for one in self.people.happened]
        left = max([(end - self.now).total_seconds() for end in ends], default=0.0)
        for _ in range(ceil((max(left, 0.0) + NOTICE) / SETTLE_EVERY)):
            self.do_wait(SETTLE_EVERY)
            self.do_poll(None, [])
