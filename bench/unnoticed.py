"""What others at a real Hub notice of it: how long their small requests wait meanwhile.

A Hub's own garbage collection holds everybody up for much longer than a page does, whoever made the
garbage. So requests that met one are kept apart.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
from real_hub import Key, RealHub

from . import ROOT
from .figures import Spread, quantile
from .hubs import DAY, Address, Process, running, worker, workers
from .real import cpu_of, idle_servers, real_hub

Waits = list[tuple[float, float]]  # when a request was sent, seconds until its answer
Figures = dict[str, Any]

NOBODY, LARGE_PAGES = "nobody", "200 a page, no pause"
EVERY = 2.0  # seconds between two polls
STOP_SECONDS = 1
_CULLERS = {"bare stops": "stops", "ours": "cull", "peer": "peer"}
_NAMED_ONE_IN = 6
_COLLECTIONS = """
import gc, time

def _write_down(phase, info, begun=[0.0]):
    if phase == "start":
        begun[0] = time.monotonic()
    elif time.monotonic() - begun[0] > 0.005:
        with open({file!r}, "a") as file:
            print(begun[0], time.monotonic(), file=file)

gc.callbacks.append(_write_down)
"""


class Plan(NamedTuple):
    """Running servers, polls of a round and rounds; among how many how many are culled, how often.

    Nine polls of ours are three in full and six of changes. The peer culls once: it takes long.
    """

    servers: tuple[int, ...]
    polls: int
    rounds: int
    among: int
    culled: int
    culls: int


FULL = Plan((300, 1_000, 3_000), 9, 3, 1_000, 200, 3)
QUICK = Plan((300,), 9, 2, 300, 40, 1)


def waits(plan: Plan) -> Figures:
    """Measure the waits during polls of each size, and during culls."""
    polls, culls = list[Figures](), Figures()
    kinds: dict[str, Figures] = {
        "ours": {"timeout": 30 * DAY},
        LARGE_PAGES: {"kind": "floor"},
        "peer": {"timeout": 30 * DAY},
    }
    begun = 0
    with _watched_hub() as (hub, collections):
        for servers in plan.servers:
            _start(hub, begun, servers)
            begun = servers
            polls.append({"servers": servers, **during_polls(hub, collections, plan, kinds)})
            if servers == plan.among:
                culls = {"servers": servers, **_during_culls(hub, collections, plan)}
    return {"polls": polls, "culls": culls}


@contextmanager
def _watched_hub() -> Iterator[tuple[RealHub, Path]]:
    """Run a real Hub that writes down its garbage collections, in the file that is given."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=ROOT / ".cache") as directory:
        file = Path(directory) / "collections.txt"
        with real_hub(_COLLECTIONS.format(file=str(file))) as hub:
            yield hub, file


def _start(hub: RealHub, begin: int, end: int) -> None:
    """Start servers up to this number, named ones among them."""
    keys = list[Key]()
    for number in range(begin, end):
        rank, place = divmod(number, _NAMED_ONE_IN)
        named = place == _NAMED_ONE_IN - 1
        user = f"user-{rank * (_NAMED_ONE_IN - 1) + place - named:05d}"
        keys.append((user, "gpu" if named else ""))
    hub.add_users([user for user, server in keys if not server])
    hub.start_servers(keys, wait=600)


# -- polls


def during_polls(hub: RealHub, collections: Path, plan: Plan, kinds: dict[str, Figures]) -> Figures:
    """Measure while nobody polls, and while each of these does, in turn."""
    waited = {name: Waits() for name in (NOBODY, *kinds)}
    took = {name: list[float]() for name in kinds}
    cpu = {name: list[float]() for name in kinds}
    with _neighbour(hub) as neighbour, workers(Address(hub.url, hub.token), **kinds) as working:
        for one in working.values():
            one.ask()
        for _ in range(plan.rounds):
            waited[NOBODY] += _while(neighbour, lambda: time.sleep(plan.polls * EVERY))
            for name, one in working.items():

                def polls(one: Process = one, name: str = name) -> None:
                    took[name].extend(_polls(one, plan.polls))

                waited[name] += _while(neighbour, polls)
                cpu[name].append(_hub_cpu(hub, one, plan.polls))
    return {
        "waits": {name: _waits(values, collections) for name, values in waited.items()},
        "poll_seconds": {name: Spread.of(values).data() for name, values in took.items()},
        "longest_poll": {name: max(values) for name, values in took.items()},
        "hub_cpu_seconds": {name: Spread.of(values).data() for name, values in cpu.items()},
        "of_peer": {name: Spread.of_ratios(cpu[name], cpu["peer"]).data() for name in kinds},
    }


def _polls(one: Process, count: int) -> Iterator[float]:
    """Poll so many times, not more often than it is due; give what each took."""
    for _ in range(count):
        begun = time.monotonic()
        yield one.ask()["wall"]
        time.sleep(max(0.0, begun + EVERY - time.monotonic()))


def _hub_cpu(hub: RealHub, one: Process, polls: int) -> float:
    assert hub.pid is not None
    process = psutil.Process(hub.pid)
    before = cpu_of(process)
    one.ask(polls)
    return (cpu_of(process) - before) / polls


# -- culls


def _during_culls(hub: RealHub, collections: Path, plan: Plan) -> Figures:
    """Stop the same servers by each in turn."""
    waited = {name: Waits() for name in _CULLERS}
    took = {name: list[float]() for name in _CULLERS}
    with _neighbour(hub) as neighbour:
        for number in range(plan.culls):
            for name, kind in _CULLERS.items():
                if kind == "peer" and number:
                    continue
                idle_servers(hub, plan.culled, STOP_SECONDS)
                options = {"servers": plan.culled} if kind == "stops" else {"timeout": 3600}
                with worker(kind, Address(hub.url, hub.token), **options) as working:

                    def stops(working: Process = working, name: str = name) -> None:
                        took[name].append(working.ask()["wall"])

                    waited[name] += _while(neighbour, stops)
                hub.wait(lambda: not _is_any_idle(hub), 60, "all of them stopped")
    found = {name: _waits(values, collections) for name, values in waited.items()}
    return {"culled": plan.culled, "waits": found, "seconds": {
        name: Spread.of(values).data() for name, values in took.items()}}  # fmt: skip


def _is_any_idle(hub: RealHub) -> bool:
    return any(user.startswith("idle-") for user, _ in hub.servers())


# -- waits


@contextmanager
def _neighbour(hub: RealHub) -> Iterator[Process]:
    with running(["bench.neighbour", hub.url], {}) as process:
        yield process


def _while(neighbour: Process, does: Callable[[], object]) -> Waits:
    """Give the neighbour's waits while something is done."""
    neighbour.tell()
    does()
    found: Waits = neighbour.ask()
    return found


def _waits(waited: Waits, collections: Path) -> Figures:
    """Sum up the waits that met no collection of the Hub's, and give the longest that did."""
    periods = [tuple(map(float, line.split())) for line in _lines(collections)]
    free, met = list[float](), list[float]()
    for begun, took in waited:
        meets = any(begun < end and begin < begun + took for begin, end in periods)
        (met if meets else free).append(took)
    ordered = sorted(free)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "most": 1.0}
    found = {name: round(quantile(ordered, share), 6) for name, share in shares.items()}
    longer = {f"over_{limit}_ms": sum(took > limit / 1000 for took in free) for limit in (50, 100)}
    return {**found, **longer, "count": len(free), "while_collecting": max(met, default=None)}


def _lines(file: Path) -> Sequence[str]:
    return file.read_text().splitlines() if file.exists() else ()
