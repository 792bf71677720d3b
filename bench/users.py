"""What it costs a real Hub to list its idle users: for ours, sorted or not, and for the peer."""

from dataclasses import dataclass
from typing import Any

import psutil
from real_hub import ENFORCE, RealHub

from .figures import Spread
from .hubs import DAY, Address, workers
from .real import cpu_of, real_hub

# The peer is spared all deletions: its limit is past everybody's idle time.
KINDS: dict[str, dict[str, Any]] = {
    "ours": {"kind": "idle_users", "user_timeout": 30 * DAY},
    "ours_unsorted": {"kind": "idle_users", "user_timeout": 30 * DAY, "sorts": False},
    "peer": {"timeout": 3650 * DAY, "cull_users": True},
    "poll": {"kind": "ours"},
}
SCOPES = (*ENFORCE, "admin:users")


@dataclass(frozen=True)
class Plan:
    """Registered users of each Hub, how many of them are idle, and rounds."""

    registered: tuple[int, ...]
    idle: int
    rounds: int


FULL = Plan((1_000, 10_000), 100, 7)
QUICK = Plan((1_000,), 100, 3)


def listings(plan: Plan) -> list[dict[str, Any]]:
    """Measure listings among more and more registered users, of whom none has a server."""
    found = []
    with real_hub() as hub:
        token, there = hub.add_token(SCOPES), 0
        for registered in plan.registered:
            _register(hub, there, registered, plan.idle)
            there = registered
            counts = {"registered": registered, "idle": plan.idle}
            found.append({**counts, **_compare(hub, token, plan.rounds)})
    return found


def _register(hub: RealHub, begin: int, end: int, idle: int) -> None:
    names = [f"user-{number:06d}" for number in range(begin, end)]
    for first in range(0, len(names), 500):
        some = names[first : first + 500]
        hub.add_users(some)
        hub.age_users(some, idle=3600, age=400 * DAY)
    if begin == 0:
        hub.age_users(names[:idle], idle=60 * DAY, age=400 * DAY)


def _compare(hub: RealHub, token: str, rounds: int) -> dict[str, Any]:
    assert hub.pid is not None
    process = psutil.Process(hub.pid)
    spent = {name: list[float]() for name in KINDS}
    took = {name: list[float]() for name in KINDS}
    with workers(Address(hub.url, token), **KINDS) as working:
        for one in working.values():
            one.ask()
        for _ in range(rounds):
            for name, one in working.items():
                before = cpu_of(process)
                took[name].append(one.ask()["wall"])
                spent[name].append(cpu_of(process) - before)
    return {
        "hub_cpu_seconds": {name: Spread.of(values).data() for name, values in spent.items()},
        "wall_seconds": {name: Spread.of(values).data() for name, values in took.items()},
        "peer_of_ours": Spread.of_ratios(spent["peer"], spent["ours"]).data(),
    }
