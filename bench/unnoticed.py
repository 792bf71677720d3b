"""What others at a real Hub notice of it: how long their small requests wait meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from real_hub import Key, RealHub

from .figures import Spread, quantile
from .hubs import DAY, Address, Process, running, worker, workers
from .real import cpu_of, real_hub

Kinds = dict[str, dict[str, Any]]
POLLS: Kinds = {
    "ours": {"timeout": 30 * DAY},
    "whole_pages": {"kind": "floor"},
    "peer": {"timeout": 30 * DAY},
}
NOBODY = "nobody"
EVERY = 2.0  # seconds between two polls
ONE_IN = 5  # users have a named server besides


@dataclass(frozen=True)
class Plan:
    """Running servers, polls of a round and rounds; and how many servers are culled."""

    servers: tuple[int, ...]
    polls: int
    rounds: int
    culled: int


FULL = Plan((300, 1_000, 3_000), 8, 6, 200)
QUICK = Plan((300,), 4, 2, 40)


def waits(plan: Plan, kinds: Kinds = POLLS) -> dict[str, Any]:
    """Measure the waits during polls of each size, and during a cull among the most servers."""
    found = []
    with real_hub() as hub:
        keys = list[Key]()
        for servers in plan.servers:
            keys += _start(hub, len(keys), servers)
            found.append({"servers": servers, **_during_polls(hub, plan, kinds)})
    return {"polls": found}


def _start(hub: RealHub, begin: int, end: int) -> list[Key]:
    """Start servers up to this number, named ones among them."""
    keys = list[Key]()
    for number in range(begin, end):
        named = number % (ONE_IN + 1) == ONE_IN
        user = f"user-{number - number // (ONE_IN + 1) - named:05d}"
        keys.append((user, "gpu" if named else ""))
    hub.add_users([user for user, server in keys if not server])
    hub.start_servers(keys, wait=600)
    return keys


# -- polls


def _during_polls(hub: RealHub, plan: Plan, kinds: Kinds) -> dict[str, Any]:
    waited = {name: list[float]() for name in (NOBODY, *kinds)}
    took = {name: list[float]() for name in kinds}
    cpu = {name: list[float]() for name in kinds}
    with _neighbour(hub) as neighbour, workers(Address(hub.url, hub.token), **kinds) as working:
        for one in working.values():
            one.ask()
        for _ in range(plan.rounds):
            waited[NOBODY] += _while(neighbour, lambda: time.sleep(plan.polls * EVERY))
            for name, one in working.items():
                waited[name] += _while(neighbour, lambda: took[name].extend(_polls(one, plan.polls)))  # noqa: B023
                cpu[name].append(_hub_cpu(hub, one))
    return {
        "waits": {name: _waits(values) for name, values in waited.items()},
        "poll_seconds": {name: Spread.of(values).data() for name, values in took.items()},
        "hub_cpu_seconds": {name: Spread.of(values).data() for name, values in cpu.items()},
        "of_peer": {name: Spread.of_ratios(cpu[name], cpu["peer"]).data() for name in kinds},
    }


def _polls(one: Process, count: int) -> Iterator[float]:
    """Poll so many times, not more often than it is due; give what each took."""
    for _ in range(count):
        begun = time.monotonic()
        yield one.ask()["wall"]
        time.sleep(max(0.0, begun + EVERY - time.monotonic()))


def _hub_cpu(hub: RealHub, one: Process, passes: int = 5) -> float:
    assert hub.pid is not None
    process = psutil.Process(hub.pid)
    before = cpu_of(process)
    one.ask(passes)
    return (cpu_of(process) - before) / passes


@contextmanager
def _neighbour(hub: RealHub) -> Iterator[Process]:
    with running(["bench.neighbour", hub.url], {}) as process:
        yield process


def _while(neighbour: Process, does: Callable[[], object]) -> list[float]:
    """Give the neighbour's waits while something is done."""
    neighbour.tell()
    does()
    found: list[float] = neighbour.ask()
    return found


def _waits(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "most": 1.0}
    found = {name: round(quantile(ordered, share), 6) for name, share in shares.items()}
    return {**found, "count": len(ordered)}
