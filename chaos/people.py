"""Twenty people, each with a habit and a server, until they leave.

Each draws from a generator of their own, made from the seed of the run, so that the same seed has
the same people do the same, whatever else happens to them.
"""

import contextlib
import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import websocket
from real_hub import Kernel, server_path

from .hub import ChaosHub
from .record import Event, Key, Record

_ACT_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_START_SECONDS = 60.0
_BACK_DATED = -7200


class Servers:
    """Where the servers are, as the record says: told of each event, on any thread."""

    def __init__(self) -> None:
        self._at: dict[Key, str] = {}
        self._up: set[Key] = set()

    def told(self, event: Event) -> None:
        """Learn from one event of the record."""
        if event.what == "listening":
            self._at[event.key] = event.told["url"]
        elif event.what == "started":
            self._up.add(event.key)
        elif event.what in ("stop_ended", "stop_failed", "dead"):
            self._up.discard(event.key)

    def address(self, key: Key) -> str | None:
        """Return where a light server listens, also when it is an orphan by now."""
        return self._at.get(key)

    def is_up(self, key: Key) -> bool:
        """Tell whether it was started, and not stopped since."""
        return key in self._up


@dataclass(frozen=True)
class World:
    """What all people share; `limit` is the idle limit in seconds."""

    hub: ChaosHub
    record: Record
    servers: Servers
    limit: float

    def let(self, key: Key, what: str, by_proxy: bool = False, **more: Any) -> bool:
        """Let a person do something at their server; tell whether it took note."""
        url = self.servers.address(key)
        if url is None:
            return False
        if by_proxy:
            url = self.hub.public_url.rstrip("/") + urlsplit(url).path
        with requests.Session() as session, contextlib.suppress(requests.RequestException):
            session.trust_env = False
            return session.post(f"{url}chaos", json={"do": what, **more}, timeout=_ACT_SECONDS).ok
        return False


class Person:
    """Somebody on the Hub.

    Args:
        world: what all share.
        user: their name on the Hub.
        habit: what they do all the time.
        chance: decides for them.
    """

    def __init__(self, world: World, user: str, habit: "Habit", chance: random.Random) -> None:
        self.world, self.user, self.habit, self.chance = world, user, habit, chance
        self.key: Key = (user, habit.server)
        self.leaves = threading.Event()  # set: for good

    def live(self) -> None:
        """Come and do what the habit is, again and again, until they leave."""
        while not self.leaves.is_set():
            if self.come():
                self.habit.routine(self)

    def come(self) -> bool:
        """Start the server where it does not run; tell whether it does."""
        status, server = self._server()
        if status == 200 and server.get("ready"):
            return True
        if status == 200 and not server.get("pending"):
            self._start()
        self.pause(_LOOK_SECONDS)
        return False

    def _server(self) -> tuple[int, Any]:
        status, user = self.world.hub.ask("GET", f"/users/{self.user}")
        found = user["servers"].get(self.key[1], {}) if status == 200 else {}
        return status, found

    def _start(self) -> None:
        """Ask for a start, and wait until it is under way."""
        options = {**self.habit.nature, **draw_options(self.chance, self.habit)}
        self.world.hub.ask("POST", server_path(*self.key), {"user_options": options})

    def stop(self) -> None:
        """Stop the server themselves."""
        self.world.hub.ask("DELETE", server_path(*self.key))

    def do(self, what: str, **more: Any) -> None:
        """Do something at the server: mostly directly, at times through the proxy."""
        self.world.let(self.key, what, by_proxy=self.chance.random() < 0.2, **more)

    def pause(self, seconds: float) -> bool:
        """Do nothing for a while; tell whether to leave."""
        return self.leaves.wait(max(0.0, seconds))

    def pause_limits(self, least: float, most: float) -> None:
        """Do nothing for a random time, given in idle limits."""
        self.pause(self.chance.uniform(least, most) * self.world.limit)

    def leave(self) -> None:
        """Go away until the server was stopped, and a little longer."""
        while self.world.servers.is_up(self.key) and not self.pause(_LOOK_SECONDS):
            pass
        self.pause(self.chance.uniform(1, 6))


# -- what people do


def work(person: Person) -> None:
    """Be active again well within the limit."""
    person.do("active")
    person.pause_limits(0.1, 0.85)


def compute(person: Person) -> None:
    """Let a kernel compute for long without a sound, then be away for a moment."""
    person.do("busy")
    person.pause_limits(1.5, 3.5)
    person.do("rest")
    person.pause_limits(0.2, 1.3)


def forget(person: Person) -> None:
    """Leave for good, once more after the server was stopped."""
    person.do("active")
    person.leave()


def come_back(person: Person) -> None:
    """Leave, and come back just around the limit, when the stop is due."""
    person.do("active")
    person.pause(person.world.limit + person.chance.uniform(-0.5, 2.0))


def restart(person: Person) -> None:
    """Stop the server just around the limit, and start it anew at once."""
    person.do("active")
    person.pause(person.world.limit + person.chance.uniform(-1.0, 1.5))
    person.stop()


def hang(person: Person) -> None:
    """Work at a server that does not answer at times."""
    person.do("active")
    person.pause_limits(0.3, 0.8)
    person.do("hang", seconds=person.chance.uniform(3, 20))
    person.do("active")
    person.pause_limits(0.3, 0.8)


def be_away(person: Person) -> None:
    """Have a server, and hardly ever use it."""
    person.do("active")
    person.pause_limits(2, 4)


def keep(person: Person) -> None:
    """Have a server that is kept, and never use it again."""
    person.do("active")
    person.leaves.wait()


def compute_for_real(person: Person) -> None:
    """Run a silent cell in a real kernel, then be away for a moment."""
    seconds = person.chance.uniform(1.5, 3) * person.world.limit
    _run_cell(person, f'note("busy"); time.sleep({seconds}); note("rest")')
    person.pause(seconds)
    person.pause_limits(0.2, 1.3)


def forget_for_real(person: Person) -> None:
    """Run a cell in a real kernel, and leave for good."""
    _run_cell(person, 'note("active")')
    person.leave()


def _run_cell(person: Person, code: str) -> None:
    """Begin a cell in a new kernel; where that goes wrong, in a run like this, nothing was done."""
    wrong = (AssertionError, OSError, ValueError, KeyError, websocket.WebSocketException)
    try:
        Kernel(person.world.hub, *person.key).run(_cell(person, code))
    except wrong:
        person.pause(_LOOK_SECONDS)


def _cell(person: Person, code: str) -> str:
    """Return code that writes into the record by itself, as a process of its server."""
    key = {"user": person.user, "server": person.habit.server}
    return (
        "import json, os, time\n"
        "def note(what):\n"
        f"    told = {json.dumps(key)} | {{'pid': os.getppid(), 'what': what}}\n"
        "    told['t'] = time.time_ns() // 1000\n"
        f"    with open({str(person.world.record.path)!r}, 'a') as file:\n"
        "        file.write(json.dumps(told) + '\\n')\n"
        f"{code}\n"
    )


# -- who they are


@dataclass(frozen=True)
class Habit:
    """A way to live: how many live so, what they do, and what their servers are like.

    `stays` says that their servers run on at the end of a run.
    """

    name: str
    count: int
    routine: Callable[[Person], None]
    server: str = ""
    nature: Mapping[str, Any] = field(default_factory=lambda: REPORTING)
    stays: bool = False


REPORTING: Mapping[str, Any] = {"report_every": 2}
SILENT: Mapping[str, Any] = {"report_every": 0}
RETURNING = {"times": 2, "returns": 0.02}
REAL = {"real": True}

HABITS = (
    Habit("works", 1, work, stays=True),
    Habit("works-behind", 1, work, nature={"report_every": 2, "skew": _BACK_DATED}, stays=True),
    Habit("works-unseen", 2, work, nature=SILENT, stays=True),
    Habit("computes", 2, compute),
    Habit("forgets", 3, forget),
    Habit("forgets-named", 1, forget, server="lab"),
    Habit("returns", 1, come_back),
    Habit("returns-unseen", 1, come_back, nature=SILENT),
    Habit("returns-asked", 1, forget, nature={**SILENT, **RETURNING}),
    Habit("restarts", 1, restart),
    Habit("keeps", 1, keep, stays=True),
    Habit("hangs", 1, hang),
    Habit("exempt", 1, be_away),
    Habit("exempt-sometimes", 1, be_away),
    Habit("really-computes", 1, compute_for_real, nature=REAL),
    Habit("really-forgets", 1, forget_for_real, nature=REAL),
)


def draw_options(chance: random.Random, habit: Habit) -> dict[str, Any]:
    """Draw how one start of a server answers, and how it is going to stop."""
    options: dict[str, Any] = {"asks_hub": chance.random() < 0.5}
    options["thinks"] = chance.choice((0.0, 0.02, 0.05))
    if habit.routine is forget and chance.random() < 0.1:
        options["slow"] = 1.0
    fate = chance.random()
    if fate < 0.08:
        options["stop_fails" if fate < 0.05 else "stop_lies"] = True
    if chance.random() < 0.25:
        options["stop_delay"] = chance.choice((1, 3, 8, 20, 40)) * chance.uniform(0.5, 1)
    return options


def crowd(world: World, seed: int) -> list[Person]:
    """Return all people of a run."""
    return [
        Person(world, user, habit, random.Random(f"{seed}/{user}"))
        for habit in HABITS
        for user in (f"{habit.name}-{number}" for number in range(1, habit.count + 1))
    ]
