"""Put a run together, let it run, and hand back what it left."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.people.state_file import StateFile

from .exporters import Post, Setup
from .hub import ChaosHub
from .inbox import Inbox
from .people import Servers, World, crowd
from .policies import Policies
from .record import Evidence, Key, Line, Record, event_of
from .trouble import Targets, Trouble
from .watch import Watch

LIMIT = 12.0
NOTICE = 4.0
KEEPER = ("keeps-1", "")
_MAX_AGE = 40.0
_OPTIONS = (
    "--enforce",
    f"--timeout={LIMIT:g}s",
    f"--notice={NOTICE:g}s",
    "--keep-max=1d",
    "--interval=1s",
    "--grace=3s",
    "--concurrency=4",
    "--busy-check=require",
    "--log-format=json",
    "--web.listen-address=127.0.0.1:0",
)
# A lease of an exporter that was killed (120 s), the longest stop, the limit, and some room.
_SETTLE_SECONDS = 240.0
_COUNT_SECONDS = 30.0
_START_SECONDS, _KEPT_SECONDS = 60.0, 86400.0
# The Hub answers a little later than a server is gone, and only then the attempt is counted.
_ANSWER_SECONDS = 3.0
_LOOK_SECONDS = 1.0


class HarnessError(Exception):
    """The run itself went wrong, which says nothing about the exporters."""


@dataclass(frozen=True)
class Plan:
    """What is asked for: how long trouble lasts, the seed of everything, options of exporters."""

    minutes: float
    seed: int
    options: tuple[str, ...] = ()

    @property
    def max_age(self) -> dict[str, float]:
        """Who may be stopped at work for their server's age: with every other seed, two people."""
        return {"works-1": _MAX_AGE, "computes-1": _MAX_AGE} if self.seed % 2 else {}

    def chance(self, what: str) -> random.Random:
        """Return the generator of one part of the run."""
        return random.Random(f"{self.seed}/{what}")


class Stage:
    """One run.

    Args:
        plan: what is asked for.
        directory: where everything is written.
        say: is told how far it is.
    """

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._servers = Servers()
        self._record = Record(directory / "record.jsonl")
        self._hub = ChaosHub(directory / "hub", self._record.path)
        self._world = World(self._hub, self._record, self._servers, LIMIT)
        self._people = crowd(self._world, plan.seed)
        self._policies = Policies(
            directory / "policies.yaml",
            self._record,
            plan.chance("policies"),
            always=["exempt-1"],
            sometimes=["exempt-sometimes-1"],
            max_age=plan.max_age,
        )
        options = (*_OPTIONS, f"--policy-file={self._policies.path}", *plan.options)
        self._inbox = Inbox(self._record)
        self._setup = Setup(self._hub, self._record, self._inbox, directory, options, self._hear)
        self._posts: list[Post] = []
        targets = Targets(self._hub, self._posts, self._policies, self._setup, self._act)
        self._trouble = Trouble(targets, self._record, plan.chance("trouble"), plan.minutes)
        self._crashed = threading.Event()

    def _hear(self, line: Line) -> None:
        self._trouble.hear(line)

    def _see(self, text: str) -> None:
        event = event_of(text)
        self._servers.told(event)
        self._trouble.see(event)

    def _act(self, key: Key) -> bool:
        return self._world.let(key, "active")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Start the Hub and watch the record; whatever happens, nothing runs afterwards."""
        threading.excepthook = self._note_crash
        watch = Watch(self._record.path, self._see)
        try:
            self._hub.start()
            self._hub.add_users([person.user for person in self._people])
            yield
        finally:
            self._trouble.abandon()
            for person in self._people:
                person.leaves.set()
            watch.close()
            self._hub.close()
            self._inbox.close()
            threading.excepthook = threading.__excepthook__

    def _note_crash(self, arguments: threading.ExceptHookArgs) -> None:
        self._crashed.set()
        threading.__excepthook__(arguments)

    # -- the run

    def run(self) -> Evidence:
        """Let it all happen; return what it left.

        Raises:
            HarnessError: a thread of the run crashed; its traceback was written.
        """
        for person in self._people:
            threading.Thread(target=person.live, name=person.user, daemon=True).start()
            self._wait(0.1)
        self._keep()
        self._posts += [Post(self._setup, name) for name in "AB"]
        self._say(f"{len(self._people)} people and 2 exporters are there; trouble begins")
        self._make_trouble()
        self._say("trouble has ended; everybody leaves but those at work")
        for person in self._people:
            if not person.habit.stays:
                person.leaves.set()
        self._settle()
        self._say("nothing moves any more")
        return self._evidence()

    def _keep(self) -> None:
        """Let somebody keep their server, by the state file of every exporter to come."""
        self._wait_until(lambda: bool(self._hub.server(*KEEPER).get("ready")), _START_SECONDS)
        started = self._hub.server(*KEEPER)["started"].replace("Z", "+00:00")
        start = (*KEEPER, datetime.fromisoformat(started))
        for memory in ("A", "B", "once"):
            with closing(StateFile.opened(self._setup.state_file(memory), self._closes)) as file:
                file.save_keep(start, Keep(time.time() + _KEPT_SECONDS, KEEPER[0]))
        self._record.note("kept", user=KEEPER[0], server=KEEPER[1])

    def _closes(self, _seconds: float) -> bool:
        return self._crashed.is_set()

    def _wait(self, seconds: float) -> None:
        if self._crashed.wait(seconds):
            raise HarnessError("the run itself crashed: see the traceback above")

    def _make_trouble(self) -> None:
        self._trouble.start()
        self._wait(60 * self._plan.minutes)
        self._trouble.end()

    def _settle(self) -> None:
        """Wait until all that should go is gone, and then until it is counted, but not for ever."""
        self._wait_until(lambda: not set(self._hub.servers()) - self._staying(), _SETTLE_SECONDS)
        since = time.time() + _ANSWER_SECONDS
        self._wait_until(
            lambda: all(post.now.is_settled(since) for post in self._posts), _COUNT_SECONDS
        )

    def _wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds() and time.monotonic() < deadline:
            self._wait(_LOOK_SECONDS)

    def _staying(self) -> set[Key]:
        """Return whose servers run on at the end."""
        exempt = set(self._policies.exempt)
        return {p.key for p in self._people if p.habit.stays or p.user in exempt}

    def _evidence(self) -> Evidence:
        left, ended = frozenset(self._hub.servers()), time.time()
        lives = [life for post in self._posts for life in post.lives()] + self._trouble.lives
        return Evidence(
            limit=LIMIT,
            events=self._record.read(),
            lives=tuple(lives),
            max_age=self._plan.max_age,
            left=left,
            ended=ended,
            notice=NOTICE,
        )
