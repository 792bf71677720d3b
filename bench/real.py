"""On a real JupyterHub: what a poll costs the Hub, how long a drain takes, what it asks for."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from real_hub import PROBER, SERVICE, RealHub

from hub_idle_exporter.culling.permits import CLEAN_UP_AFTER

from . import ROOT
from .figures import Spread
from .hubs import Address, idle_user, worker, workers

SERVERS_OWN = "by the server, which looks who asks"
SHARED = "shared: poll, routes, probe user, lease"
_MINT, _LIST = "mint a token", "list tokens"
_REQUEST = re.compile(r" \d{3} (GET|POST|DELETE) /hub/api(/\S*) \(([^@)]*)@")
# What the tests' Hubs do every few seconds would be taken for the cost of polls.
_CALM = "c.Spawner.poll_interval = 3600\nc.JupyterHub.last_activity_interval = 3600\n"


@dataclass(frozen=True)
class Plan:
    """Servers of the listing benchmark; drains as (servers, seconds a stop, runs of the peer)."""

    servers: int
    registered: tuple[int, ...]
    rounds: int
    drains: tuple[tuple[int, int, int], ...]


FULL = Plan(400, (1, 10), 7, ((40, 1, 2), (10, 10, 1), (400, 1, 0)))
QUICK = Plan(200, (1,), 3, ((40, 1, 1),))
LONG = ((40, 1, 3), (40, 10, 1), (400, 1, 1), (400, 10, 0))


@contextmanager
def real_hub(config: str = "") -> Iterator[RealHub]:
    """Run a real Hub with paper servers below an ignored folder of this repository."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (
        TemporaryDirectory(prefix="bench-", dir=ROOT / ".cache") as directory,
        RealHub(Path(directory), "paper", config=_CALM + config) as hub,
    ):
        yield hub


# -- Hub CPU


def hub_cpu(plan: Plan) -> list[dict[str, Any]]:
    """Measure the Hub's own CPU time a poll, by who polls, among more registered users."""
    found = []
    with real_hub() as hub:
        names = [f"user-{number:04d}" for number in range(plan.servers)]
        hub.add_users(names)
        hub.start_servers([(name, "") for name in names])
        for times in plan.registered:
            away = range(plan.servers * (times - 1))
            for begin in range(0, len(away), 500):
                hub.add_users(f"away-{number:06d}" for number in away[begin : begin + 500])
            counts = {"servers": plan.servers, "registered": plan.servers * times}
            found.append({**counts, **_compare_hub_cpu(hub, plan.rounds)})
    return found


def _compare_hub_cpu(hub: RealHub, rounds: int) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "ours": {"timeout": 86400},
        "peer": {"timeout": 86400},
        "peer_200_a_page": {"kind": "peer", "timeout": 86400, "page_size": 200},
        "floor": {},
    }
    assert hub.pid is not None
    process, passes = psutil.Process(hub.pid), 12
    spent = {name: list[float]() for name in kinds}
    with workers(Address(hub.url, hub.token), **kinds) as working:
        for one in working.values():
            one.ask()
        for _ in range(rounds):
            for name, one in working.items():
                before = cpu_of(process)
                one.ask(passes)
                spent[name].append((cpu_of(process) - before) / passes)
    return {
        "hub_cpu_seconds": {name: Spread.of(values).data() for name, values in spent.items()},
        "ours_of_peer": Spread.of_ratios(spent["ours"], spent["peer"]).data(),
        "ours_of_peer_at_200": Spread.of_ratios(spent["ours"], spent["peer_200_a_page"]).data(),
        "ours_of_floor": Spread.of_ratios(spent["ours"], spent["floor"]).data(),
    }


def cpu_of(process: psutil.Process) -> float:
    """Give the CPU time that a process has spent."""
    times = process.cpu_times()
    return float(times.user + times.system)


# -- drains


def drains(plan: tuple[tuple[int, int, int], ...]) -> list[dict[str, Any]]:
    """Drain the same servers by ours and by the peer, at concurrency 10."""
    with real_hub() as hub:
        return [_drain(hub, *one) for one in plan]


def _drain(hub: RealHub, servers: int, stop_seconds: int, peer_runs: int) -> dict[str, Any]:
    # Ours twice where it is quick, so that its spread is seen too.
    our_runs = max(peer_runs, 1 if servers * stop_seconds > 100 else 3)
    ours = [_run(hub, "cull", servers, stop_seconds) for _ in range(our_runs)]
    peer = [_run(hub, "peer", servers, stop_seconds) for _ in range(peer_runs)]
    seconds = {"ours": Spread.of([run["wall"] for run in ours]).data()}
    found: dict[str, Any] = {"servers": servers, "stop_seconds": stop_seconds, "seconds": seconds}
    found |= {"requests": ours[-1]["requests"], "shares": ours[-1]["shares"]}
    # As if nothing but the stops took time, ten at once.
    found["floor_seconds"] = -(-servers // 10) * stop_seconds
    if peer:
        seconds["peer"] = Spread.of([run["wall"] for run in peer]).data()
        found["peer_of_ours"] = seconds["peer"]["median"] / seconds["ours"]["median"]
    return found


def _run(hub: RealHub, kind: str, servers: int, stop_seconds: int) -> dict[str, Any]:
    idle_servers(hub, servers, stop_seconds)
    with worker(kind, Address(hub.url, hub.token), timeout=3600) as working:
        read = hub.log_path.stat().st_size
        answer: dict[str, Any] = working.ask()
    # The peer takes a 202 for an end; whoever is still stopping belongs to the drain.
    begun = time.monotonic()
    hub.wait(lambda: not hub.servers(), 60, "all servers stopped")
    answer["wall"] += time.monotonic() - begun
    answer["requests"] = _requests(hub.log_path, read, servers)
    answer["shares"] = _shares(answer, servers) if kind == "cull" else {}
    return answer


def idle_servers(hub: RealHub, servers: int, stop_seconds: int) -> None:
    """Start so many servers that have been idle for two hours and take so long to stop."""
    keys = [(idle_user(number), "") for number in range(servers)]
    hub.add_users(name for name, _ in keys)
    hub.start_servers(keys, {"stop_delay": stop_seconds})
    hub.backdate_all(keys, idle=7200, age=7200)
    hub.paper.guard = _guard(hub)


def _guard(hub: RealHub) -> Callable[[str, str], bool]:
    """Ask the Hub whether a token is good, once each: what a server of JupyterHub does too."""
    known: dict[str, bool] = {}

    def opens(_base: str, token: str) -> bool:
        if token not in known:
            known[token] = hub.api("GET", "/user", token=token).status_code == 200
        return known[token]

    return opens


def _requests(log: Path, begin: int, servers: int) -> dict[str, float]:
    """Count what the Hub's log says it was asked for, a culled server each."""
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode(errors="replace")
    counts: Counter[str] = Counter()
    for method, path, who in _REQUEST.findall(text):
        if who == SERVICE or (who == PROBER and method == "DELETE"):  # the stop, by its own token
            counts[_purpose(method, path)] += 1
        elif who == PROBER:
            counts[SERVERS_OWN] += 1
    # Tokens are listed once for each of the lease's that is minted or revoked, and now and then
    # so that the Hub deletes those that have expired.
    cleaning = servers // CLEAN_UP_AFTER
    of_lease = counts.pop(_LIST, 0) - cleaning
    counts[_MINT] -= of_lease
    counts[SHARED] += 2 * of_lease + cleaning
    return {purpose: round(count / servers, 2) for purpose, count in sorted(counts.items())}


def _purpose(method: str, path: str) -> str:
    if "/tokens" in path:
        return {"POST": _MINT, "DELETE": "revoke the token"}.get(method, _LIST)
    if method == "DELETE":
        return "stop"
    if path.startswith(f"/users/{PROBER}"):
        return SHARED
    if "include_stopped_servers" in path:
        return "verify"
    return "look again" if path.startswith("/users/") else SHARED


def _shares(answer: dict[str, Any], servers: int) -> dict[str, float]:
    """Part the time that one server takes of one worker: looking, asking, stopping, verifying."""
    did = answer["did"]
    spent = "hub_request_duration_seconds_sum"
    stop = did[f"{spent}/stop_server"]
    # Looking and verifying are the same request, so their number parts its time.
    asked = answer["requests"]
    look = did[f"{spent}/get_user"] * asked["look again"] / (asked["look again"] + asked["verify"])
    verify = did["cull_duration_seconds_sum"] - stop
    tokens = did[f"{spent}/mint_token"] + did[f"{spent}/revoke_token"]
    sums = {"looking": look, "asking": tokens, "stopping": stop, "verifying": verify}
    # The rest of ten workers' time: asking the server itself, and workers with no more to do.
    sums["the rest"] = max(0.0, answer["wall"] * 10 - sum(sums.values()))
    return {name: round(seconds / servers, 4) for name, seconds in sums.items()}
