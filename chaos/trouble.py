"""What goes wrong in a run: some of it at any time, some aimed at the middle of a stop.

The aims: a server was just asked by an exporter (its answer is still on the way), somebody was just
told that their server will be stopped (that is not answered yet, or not written down), the spawner
was just called, an exporter just said that it stops a server.
"""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import requests

from .exporters import Exporter, Post, Setup
from .hub import ChaosHub
from .policies import Policies
from .record import EXPORTERS, Event, Key, Life, Line, Record

_ONCE_SECONDS = 90.0
# So long after an aimed trouble the next one: between them exporters must have time to work.
_REST_SECONDS = 12.0
# No stop by an exporter that was killed can work after so long: its token lives for 10 s at most.
_LEASE_SECONDS = 14.0
# What happens, and how often compared with the others.
_KINDS = {
    "hub killed": 1,
    "hub paused": 2,
    "proxy killed": 1,
    "exporter ended": 2,
    "exporter paused": 2,
    "policies rewritten": 3,
    "policies in two pieces": 3,
    "policies broken": 2,
    "once": 2,
    "inbox slow": 2,
    "inbox closed": 1,
}
Healing = Callable[[], object]


@dataclass(frozen=True)
class Targets:
    """What trouble is made for; `act` lets a person be active at their server."""

    hub: ChaosHub
    posts: list[Post]
    policies: Policies
    setup: Setup
    act: Callable[[Key], object]


class Trouble:
    """Makes trouble until it is told to end; whatever it broke is then whole again.

    Args:
        targets: what trouble is made for.
        record: is told when each trouble begins and ends.
        chance: decides.
        minutes: of the run: exporters that are killed leave their Hub without one for a while.
            Their lease is taken from them after that, long before it would expire.
    """

    def __init__(
        self, targets: Targets, record: Record, chance: random.Random, minutes: float
    ) -> None:
        self._to, self._record, self._chance = targets, record, chance
        self._aiming = random.Random(chance.random())
        self._kills = {True: int(minutes), False: int(minutes / 2)}  # of the only enforcer?
        self._hub_free = threading.Lock()
        self._closing = threading.Event()
        self._numbers = count(1)
        self._maker = threading.Thread(target=self._run, name="trouble", daemon=True)
        self._timers: list[threading.Timer] = []
        self._rested_at = 0.0
        self.lives: list[Life] = []  # of exporters that ran once
        self._once_free = threading.Lock()

    # -- at any time

    def start(self) -> None:
        """Begin to make one trouble after another."""
        self._maker.start()

    def _run(self) -> None:
        kinds, weights = zip(*_KINDS.items(), strict=True)
        while not self._closing.wait(self._chance.uniform(4, 9)):
            kind, share = self._chance.choices(kinds, weights)[0], self._chance.random()
            self._make(kind, share)

    def end(self) -> None:
        """Make no more trouble, and wait until all is whole again."""
        self._closing.set()
        if self._maker.is_alive():
            self._maker.join()
        while self._timers:
            self._timers.pop().join()

    def abandon(self) -> None:
        """Make no more trouble, and mend nothing that is not being mended."""
        for timer in list(self._timers):
            timer.cancel()
        self.end()

    def _make(self, kind: str, share: float) -> None:
        """Make one trouble; `share` of the longest time it may take."""
        makers: dict[str, Callable[[float], object]] = {
            "hub killed": self._kill_hub,
            "hub paused": lambda share: self._pause_hub(2 + 28 * share**2),
            "proxy killed": self._kill_proxy,
            "exporter ended": self._end_exporter,
            "exporter paused": self._pause_one,
            "policies rewritten": lambda _: self._to.policies.rewrite(),
            "policies in two pieces": lambda _: self._to.policies.rewrite_in_two(),
            "policies broken": lambda share: self._to.policies.break_for(1 + 5 * share),
            "once": self._run_once,
            "inbox slow": lambda share: self._hold_inbox(2 + 8 * share),
            "inbox closed": lambda share: self._close_inbox(0.5 + 2 * share),
        }
        makers[kind](share)

    # -- aimed

    def see(self, event: Event) -> None:
        """Aim at what the record tells, on its thread: a few milliseconds after it happened."""
        if event.what == "asked":
            self._aim(event.key, 0.3)
        elif event.what == "told" and event.told["about"] == "idle":
            self._aim(event.key, 0.25, teller=event.by)
        elif event.what == "stop_called" and event.by in EXPORTERS:
            self._aim(event.key, 0.2)
        elif event.what == "stop_failed" and self._aiming.random() < 0.5:
            self._later(self._aiming.uniform(0, 3), lambda: self._act(event.key))

    def hear(self, line: Line) -> None:
        """Aim at what an exporter's log tells."""
        if line.event == "stopping_server":
            self._aim(line.key, 0.1)

    def _aim(self, key: Key, likely: float, teller: str = "") -> None:
        """Make trouble now, perhaps; mostly for the exporter that has just told somebody."""
        if self._closing.is_set() or self._aiming.random() > likely:
            return
        share, what = self._aiming.random(), self._aiming.random()
        if time.monotonic() >= self._rested_at and self._aimed(what, share, teller):
            self._rested_at = time.monotonic() + _REST_SECONDS + 10 * share
            self._later(self._aiming.uniform(0, 2 + 3 * share), lambda: self._act(key))

    def _aimed(self, what: float, share: float, teller: str) -> bool:
        if teller and share < 0.6:
            tellers = [post for post in self._to.posts if post.now.name == teller]
            return any(self._end(post, share, likely=1.0) for post in tellers)
        if what < 0.45:
            return self._pause_hub(2 + 14 * share)
        if what < 0.85:
            return self._pause_all(3 + 12 * share)
        if what < 0.95:
            return self._kill_hub(share)
        return self._end_exporter(share)

    def _act(self, key: Key) -> None:
        self._record.note("comes_back", user=key[0], server=key[1])
        self._to.act(key)

    # -- the troubles

    def _begin(self, what: str) -> Healing:
        """Write down that a trouble begins; what is returned writes down that it ends."""
        number = next(self._numbers)
        self._record.note("trouble_begins", trouble=what, number=number)
        return lambda: self._record.note("trouble_ends", trouble=what, number=number)

    def _later(self, seconds: float, do: Healing) -> None:
        """Do something after a while, also when the run closes before."""
        timer = threading.Timer(seconds, do)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _pause_hub(self, seconds: float) -> bool:
        hub = self._to.hub
        return self._break_hub(
            f"the Hub is paused for {seconds:.1f} s", hub.pause, seconds, hub.resume
        )

    def _kill_hub(self, share: float) -> bool:
        hub = self._to.hub
        return self._break_hub("the Hub is killed", hub.kill, 0.3 + 4 * share, hub.start)

    def _kill_proxy(self, share: float) -> bool:
        hub = self._to.hub
        return self._break_hub(
            "the proxy is killed", hub.kill_proxy, 0.3 + 2 * share, hub.start_proxy
        )

    def _break_hub(self, what: str, spoil: Healing, seconds: float, mend: Healing) -> bool:
        """Do something to the Hub or its proxy, and mend it later; one such thing at a time."""
        if not self._hub_free.acquire(blocking=False):
            return False
        spoil()
        ends = self._begin(what)

        def heal() -> None:
            mend()
            ends()
            self._hub_free.release()

        self._later(seconds, heal)
        return True

    def _hold_inbox(self, seconds: float) -> None:
        """Let exporters wait for the answers to their notices, which are received."""
        self._record.note("inbox", way="slow", seconds=round(seconds, 1))
        self._to.setup.inbox.holds_until = time.monotonic() + seconds

    def _close_inbox(self, seconds: float) -> None:
        """Refuse notices; exporters try again half a minute later."""
        self._record.note("inbox", way="closed", seconds=round(seconds, 1))
        self._to.setup.inbox.refuses_until = time.monotonic() + seconds

    def _pause_one(self, share: float) -> bool:
        """Pause one exporter, the one that enforces where that is one."""
        posts = self._to.posts
        enforcing = [post for post in posts if post.now.enforces]
        return self._pause(3 + 22 * share**2, [self._chance.choice(enforcing or posts)])

    def _pause_all(self, seconds: float) -> bool:
        """Pause all exporters: one of them is about to stop something."""
        return self._pause(seconds, self._to.posts)

    def _pause(self, seconds: float, posts: list[Post]) -> bool:
        """Pause exporters that are not ended or paused already."""
        paused = [post for post in posts if post.busy.acquire(blocking=False)]
        for post in paused:
            post.now.pause()
        if not paused:
            return False
        names = " and ".join(post.now.name for post in paused)
        ends = self._begin(f"{names} paused for {seconds:.1f} s")

        def heal() -> None:
            for post in paused:
                post.now.resume()
                post.busy.release()
            ends()

        self._later(seconds, heal)
        return True

    def _end_exporter(self, share: float) -> bool:
        """End one exporter, more often properly than not."""
        return self._end(self._aiming.choice(self._to.posts), share, likely=0.5)

    def _end(self, post: Post, share: float, likely: float) -> bool:
        """End an exporter; another one takes its place. `likely` it is killed, if it may be.

        The Hub is well then: otherwise the exporter could not give back its lease, and nothing
        would be stopped for two minutes.
        """
        if not self._hub_free.acquire(blocking=False):
            return False
        if not post.busy.acquire(blocking=False):
            self._hub_free.release()
            return False
        number = self._signal_for(post, likely)
        ends = self._begin(f"{post.now.name} ends by {number.name}")

        def heal() -> None:
            post.end(number)
            self._hub_free.release()
            self._closing.wait(0.5 + 3 * share)
            with self._to.policies.whole:
                post.start()
                post.now.wait_started()
            ends()
            post.busy.release()
            if number == signal.SIGKILL:
                self._later(_LEASE_SECONDS, self._end_lease)

        self._later(0, heal)
        return True

    def _end_lease(self) -> None:
        """Let the lease of an exporter that was killed end, unless another one has it."""
        another = any(post.now.holds_lease for post in self._to.posts) or self._once_free.locked()
        if not another:
            with contextlib.suppress(requests.RequestException, AssertionError):
                self._to.hub.revoke_leases()

    def _signal_for(self, post: Post, likely: float) -> signal.Signals:
        others = any(other.now.enforces for other in self._to.posts if other is not post)
        alone = post.now.enforces and not others
        if self._kills[alone] > 0 and self._aiming.random() < likely:
            self._kills[alone] -= 1
            return signal.SIGKILL
        return signal.SIGTERM

    def _run_once(self, _share: float) -> bool:
        """Run a third exporter for one pass."""
        if not self._once_free.acquire(blocking=False):
            return False
        self._later(0, self._pass_once)
        return True

    def _pass_once(self) -> None:
        with self._to.policies.whole:
            third = Exporter(self._to.setup, f"once{len(self.lives) + 1}", "once", ["--once"])
            third.wait_started()
        self._record.note("once", exporter=third.name)
        third.wait(self._closing, _ONCE_SECONDS)
        third.end()
        self.lives.append(third.close())
        self._once_free.release()
