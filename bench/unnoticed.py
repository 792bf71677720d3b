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
# Of the servers in use: each reports activity every five minutes, and polls are a minute apart.
REPORT_BETWEEN_POLLS = 1 / 5
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

    Eight polls of ours are two in full and six of changes. The peer culls once: it takes long.
    """

    servers: tuple[int, ...]
    polls: int
    rounds: int
    among: int
    culled: int
    culls: int


FULL = Plan((300, 1_000, 3_000), 8, 3, 1_000, 200, 3)
QUICK = Plan((300,), 8, 2, 300, 40, 1)


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
            found = during_polls(hub, collections, plan, kinds)
            polls.append({"servers": servers, **found})
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
    """Measure while nobody polls, and while each of these does, in turn.

    `hub_cpu_at_work` is of polls between which users report activity: what of the peer's it is.
    """
    waited = {name: Waits() for name in (NOBODY, *kinds)}
    changes, full = ({name: list[float]() for name in kinds} for _ in range(2))
    cpu = {name: list[float]() for name in kinds}
    users, at_work = [user for user, server in hub.servers() if not server], list[float]()
    with _neighbour(hub) as neighbour, workers(Address(hub.url, hub.token), **kinds) as working:
        for one in working.values():
            one.ask()
        for _ in range(plan.rounds):
            waited[NOBODY] += _while(neighbour, lambda: time.sleep(plan.polls * EVERY))
            for name, one in working.items():

                def polls(one: Process = one, name: str = name) -> None:
                    for seconds, is_full in _polls(one, plan.polls):
                        (full if is_full else changes)[name].append(seconds)

                waited[name] += _while(neighbour, polls)
                cpu[name].append(_hub_cpu(hub, one, plan.polls))
            at_work.append(_hub_cpu_at_work(hub, working["ours"], plan.polls, users))
    return {
        "waits": {name: _waits(values, collections) for name, values in waited.items()},
        "changes_seconds": {name: Spread.of(one).data() for name, one in changes.items() if one},
        "full_seconds": {name: Spread.of(one).data() for name, one in full.items()},
        "longest_poll": {name: max(full[name] + changes[name]) for name in kinds},
        "hub_cpu_seconds": {name: Spread.of(values).data() for name, values in cpu.items()},
        "of_peer": {name: Spread.of_ratios(cpu[name], cpu["peer"]).data() for name in kinds},
        "hub_cpu_at_work": Spread.of(at_work).data(),
        "at_work_of_peer": Spread.of_ratios(at_work, cpu["peer"]).data(),
    }


def _polls(one: Process, count: int) -> Iterator[tuple[float, bool]]:
    """Poll so many times, not more often than it is due; give what each took, and if in full."""
    for _ in range(count):
        begun = time.monotonic()
        answer = one.ask()
        yield answer["wall"], not (answer["did"] or {}).get("full_list_age")
        time.sleep(max(0.0, begun + EVERY - time.monotonic()))


def _hub_cpu(hub: RealHub, one: Process, polls: int) -> float:
    assert hub.pid is not None
    process = psutil.Process(hub.pid)
    before = cpu_of(process)
    one.ask(polls)
    return (cpu_of(process) - before) / polls


def _hub_cpu_at_work(hub: RealHub, one: Process, polls: int, users: Sequence[str]) -> float:
    """Poll so many times; before each some users report activity, which is not measured."""
    process, spent = psutil.Process(hub.pid), 0.0
    rounds = round(1 / REPORT_BETWEEN_POLLS)
    for number in range(polls):
        for user in users[number % rounds :: rounds]:
            hub.post_activity(user)
        before = cpu_of(process)
        one.ask()
        spent += cpu_of(process) - before
    return spent / polls


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
