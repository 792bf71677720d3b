"""CPU, time and memory of a poll against its floor and the peer, over Hubs of many sizes; soak."""

from dataclasses import dataclass
from typing import Any

from .figures import Spread
from .hubs import Address, large_hub, worker, workers

# The peer is spared all stops: its limit is past everybody's idle time. Ours judges an hour, in
# pages as of a real Hub: the fake one is so quick that they would grow. Pauses are left out, which
# take time, but none of the CPU.
KINDS: dict[str, dict[str, Any]] = {
    "floor": {},
    "ours": {"timeout": 3600, "max_share": 100, "page_size": 30},
    "peer": {"timeout": 30 * 86400},
}
# Ours reads one list in four in full, on a large Hub: four polls together are as many others.
_FULL_ONE_IN = {"ours": 4}


@dataclass(frozen=True)
class Plan:
    """How much is measured; `sizes` maps servers to rounds."""

    sizes: dict[int, int]
    running: int
    registered: tuple[int, ...]
    rounds: int
    soak: int


FULL = Plan({100: 25, 1_000: 25, 10_000: 25, 100_000: 3}, 1_000, (1, 10, 100), 25, 2_000)
QUICK = Plan({100: 9, 1_000: 9, 10_000: 9}, 1_000, (1, 10), 5, 500)


def sizes(plan: Plan) -> list[dict[str, Any]]:
    """Measure polls of each size."""
    found = []
    for servers, rounds in plan.sizes.items():
        with large_hub(servers) as hub:
            found.append({"servers": servers, **compare(hub, rounds)})
    return found


def registered(plan: Plan) -> list[dict[str, Any]]:
    """Measure polls of the same servers among more and more registered users."""
    found = []
    for times in plan.registered:
        with large_hub(plan.running, registered=plan.running * times) as hub:
            counts = {"servers": plan.running, "registered": plan.running * times}
            found.append({**counts, **compare(hub, plan.rounds)})
    return found


def compare(hub: Address, rounds: int) -> dict[str, Any]:
    """Let all kinds of worker take turns; each has one pass to warm up."""
    with workers(hub, **KINDS) as working:
        for one in working.values():
            one.ask()
        answers = {name: list[dict[str, Any]]() for name in working}
        for _ in range(rounds):
            for name, one in working.items():
                polls = _FULL_ONE_IN.get(name, 1)
                answer = one.ask(polls)
                means = {key: answer[key] / polls for key in ("cpu", "wall")}
                answers[name].append(answer | means)
    return _summary(answers)


def _summary(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    cpu = {name: [one["cpu"] for one in given] for name, given in answers.items()}
    wall = {name: [one["wall"] for one in given] for name, given in answers.items()}
    return {
        "cpu_seconds": {name: Spread.of(values).data() for name, values in cpu.items()},
        "wall_seconds": {name: Spread.of(values).data() for name, values in wall.items()},
        "cpu_of_floor": {
            name: Spread.of_ratios(cpu[name], cpu["floor"]).data() for name in ("ours", "peer")
        },
        "peer_cpu_of_ours": Spread.of_ratios(cpu["peer"], cpu["ours"]).data(),
        "memory_mb": {
            name: {key: round(max(one[key] for one in given), 1) for key in ("rss", "peak")}
            for name, given in answers.items()
        },
    }


def soak(plan: Plan) -> dict[str, Any]:
    """Poll thousands of times, enforcing, with a scrape each; nothing may grow."""
    with large_hub(200, idle_share=0.0) as hub, worker("soak", hub) as working:
        early = working.ask(plan.soak // 10)
        late = working.ask(plan.soak - plan.soak // 10)
    kept = ("rss", "peak", "threads", "files")
    return {
        "polls": plan.soak,
        "early": {key: round(early[key], 1) for key in kept},
        "late": {key: round(late[key], 1) for key in kept},
    }
