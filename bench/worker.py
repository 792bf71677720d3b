"""One worker: a process that does one kind of pass over a Hub each time it is told to.

    python -m bench.worker KIND URL '{"timeout": 3600}'      (the token is in the environment)

It reads how many passes to make, a line each time, and answers with a line of JSON: the CPU time
of this process alone, the time that passed, its memory, and what it did.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests

from hub_idle_exporter import log
from hub_idle_exporter.deleting.listing import read_idle_users
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.settings import (
    ConnectionSettings,
    CullSettings,
    LogSettings,
    PollSettings,
    Settings,
    UserSettings,
    WebSettings,
)
from hub_idle_exporter.hub.client import PAGINATED
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.sidecar import Sidecar, assemble

from .hubs import idle_user

Work = Callable[[], object]
_Kind = TypeVar("_Kind")


def floor(url: str, token: str, page_size: int = 200) -> Work:
    """Fetch a full list, and throw it away."""
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"Authorization": f"token {token}", "Accept": PAGINATED})

    def fetch() -> None:
        _ = session.get(f"{url}/user").content
        offset: int | None = 0
        while offset is not None:
            body = session.get(
                f"{url}/users?state=active&limit={page_size}&offset={offset}"
            ).content
            offset = offset + page_size if b'"next": null' not in body[-200:] else None

    return fetch


def ours(url: str, token: str, **options: Any) -> Work:
    """Poll as the sidecar does in monitor mode."""
    running = sidecar(url, token, **options)

    def poll() -> dict[str, float]:
        assert running.poller.poll(), running.latest.state.error
        snapshot = running.latest.state.snapshot
        return {"full_list_age": snapshot.full_list_age if snapshot else 0.0}

    return poll


def idle_users(url: str, token: str, user_timeout: float, sorts: bool = True) -> Work:
    """List idle users as the sidecar does; the Hub may be taken for one that does not sort."""
    users = UserSettings(delete=True, timeout=user_timeout)
    running = sidecar(url, token, users=users)
    assert running.poller.poll(), running.latest.state.error

    def read() -> dict[str, float]:
        if not sorts:
            running.hub.version = "4.1.6"
        found = read_idle_users(running.hub, running.latest.state, running.settings.cull)
        return {"candidates": len(found.candidates)}

    return read


def cull(url: str, token: str, **options: Any) -> Work:
    """Poll and cull as the sidecar does, and wait until every candidate has met its end."""
    running = sidecar(url, token, enforce=True, **options)

    def poll_and_cull() -> dict[str, float]:
        assert running.poller.poll(), running.latest.state.error
        assert running.poller.last_pass is not None, running.gatekeeper.read().why
        running.poller.last_pass.done.wait()
        running.release()  # the lease: the next worker on this Hub needs it
        return samples(running)

    return poll_and_cull


def sidecar(
    url: str,
    token: str,
    *,
    enforce: bool = False,
    timeout: float = 3600.0,
    concurrency: int = 10,
    per_server: bool = False,
    users: UserSettings | None = None,
    max_share: int = 25,
    page_size: int = 200,
) -> Sidecar:
    """Put a sidecar together as the command does."""
    log.configure("error", "logfmt", lambda text: text)
    settings = Settings(
        connection=ConnectionSettings(
            url,
            max_connections=concurrency + 4,
            page_size=page_size,
            max_share=max_share,
        ),
        poll=PollSettings(Policy("default", timeout), per_server_metrics=per_server),
        cull=CullSettings(
            enforce=enforce, grace=0.0, concurrency=concurrency, users=users or UserSettings()
        ),
        web=WebSettings("127.0.0.1", 0),
        log=LogSettings("error"),
    )
    assembled = assemble(settings, Token.read_by(lambda: token))
    assembled.start()
    return assembled


def samples(running: Sidecar) -> dict[str, float]:
    """Give the sums and counts of what the sidecar says of itself."""
    found: dict[str, float] = {}
    for family in running.metrics.registry.collect():
        for sample in family.samples:
            if sample.name.endswith(("_sum", "_count", "_total")):
                name = sample.name.removeprefix("hub_idle_exporter_")
                found["/".join([name, *sample.labels.values()])] = sample.value
    return found


def peer(
    url: str,
    token: str,
    timeout: float = 3600.0,
    page_size: int = 0,
    cull_users: bool = False,
) -> Work:
    """Pass over the Hub as jupyterhub-idle-culler does; its log goes nowhere, formatted."""
    from jupyterhub_idle_culler import cull_idle  # type: ignore[import-not-found]

    logger = logging.getLogger("peer")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.FileHandler(os.devnull))

    def cull_once() -> None:
        asyncio.run(
            cull_idle(url, token, timeout, logger, api_page_size=page_size, cull_users=cull_users)
        )

    return cull_once


def stops(url: str, token: str, servers: int) -> Work:
    """Stop the idle servers of the bench, ten at a time, and look at none."""
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"Authorization": f"token {token}"})

    def stop(number: int) -> None:
        answer = session.delete(f"{url}/users/{idle_user(number)}/server", timeout=60)
        assert answer.status_code in (202, 204), answer.text

    def stop_all() -> None:
        with ThreadPoolExecutor(10) as workers:
            for _ in workers.map(stop, range(servers)):
                pass

    return stop_all


def soak(url: str, token: str, **options: Any) -> Work:
    """Poll, look whether the Hub is there, and render /metrics and the page."""
    from prometheus_client import generate_latest

    running = sidecar(url, token, enforce=True, **options)
    web = running.serve(lambda: True)
    web.start()

    def poll() -> dict[str, float]:
        assert running.poller.poll(), running.latest.state.error
        running.poller.heartbeat()
        generate_latest(running.metrics.registry)
        assert requests.get(f"{web.address}/metrics", timeout=10).ok
        return {}

    return poll


KINDS: dict[str, Callable[..., Work]] = {
    "floor": floor, "ours": ours, "cull": cull, "idle_users": idle_users,
    "peer": peer, "soak": soak, "stops": stops,
}  # fmt: skip


def memory() -> dict[str, float]:
    """Give the memory of this process now and at its most, in MB (10⁶ bytes)."""
    status = Path("/proc/self/status")
    now = psutil.Process().memory_info().rss / 1e6
    if not status.exists():
        return {"rss": now, "peak": now}
    # Not getrusage: after a fork and exec its maximum is that of the parent.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {"rss": now, "peak": int(lines["VmHWM"].split()[0]) * 1024 / 1e6}


def main() -> None:
    """Work each time a line says so."""
    kind, url, options = sys.argv[1:]
    work = KINDS[kind](url, os.environ["JUPYTERHUB_API_TOKEN"], **json.loads(options))
    process = psutil.Process()
    for line in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(int(line)):
            did = work()
        answer = {
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
            "threads": process.num_threads(),
            "files": process.num_fds(),
            "did": did,
            **memory(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
