"""The processes that a benchmark sets up: a fake Hub for scale, and the workers on a Hub."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from fake_hub import FakeHub, FakeServer

from . import ROOT

DAY = 86400


@dataclass(frozen=True)
class Address:
    """Where a Hub is, and a token for it."""

    url: str
    token: str


@dataclass
class Process:
    """A process that answers a line with a line of JSON."""

    process: "subprocess.Popen[str]"

    def ask(self, line: object = 1) -> Any:
        """Send a line and wait for the answer."""
        self.tell(line)
        return self.read()

    def tell(self, line: object = 1) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        """Wait for a line, and decode it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return json.loads(line)


@contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Process]:
    """Run a module of this package; it ends when its standard input does."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Process(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def worker(kind: str, hub: Address, **options: object) -> Iterator[Process]:
    """Run a worker (`worker.py`) on a Hub."""
    arguments = ["bench.worker", kind, hub.url, json.dumps(options)]
    with running(arguments, {"JUPYTERHUB_API_TOKEN": hub.token}) as process:
        yield process


@contextmanager
def workers(hub: Address, **kinds: Mapping[str, object]) -> Iterator[dict[str, Process]]:
    """Run several workers, by name; what each is (`kind`) and its options are given."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(worker(**{"kind": name, "hub": hub, **options}))  # type: ignore[arg-type]
            for name, options in kinds.items()
        }


@contextmanager
def large_hub(running_servers: int, **options: object) -> Iterator[Address]:
    """Run a fake Hub in a process of its own, so that its CPU time is not ours."""
    with running(["bench.hubs", str(running_servers), json.dumps(options)], {}) as process:
        said = process.read()
        yield Address(said["url"], said["token"])


def idle_user(number: int) -> str:
    """Name a user whose server is idle and to be stopped."""
    return f"idle-{number:04d}"


def fill(hub: FakeHub, count: int, idle_share: float) -> None:
    """Run servers of many ages; that share of them was idle for one hour to a day."""
    chance = random.Random(1)  # noqa: S311 - the same Hub every time
    for number in range(count):
        idle = (
            chance.uniform(3700, DAY) if chance.random() < idle_share else chance.uniform(0, 3000)
        )
        age = idle + chance.uniform(0, DAY)
        hub.add_server(f"user-{number:06d}", idle=idle, age=age, user_options={"profile": "small"})


def serve() -> None:
    """Run a fake Hub until standard input ends.

    Options: `registered` users in all, the share that is idle, `stoppable` servers that stand
    behind a Jupyter server at rest and take `stop_takes` seconds to stop.
    """
    count, options = int(sys.argv[1]), json.loads(sys.argv[2])
    with FakeHub() as hub, FakeServer() as jupyter:
        hub.next_origin = hub.origin  # the peer follows it
        fill(hub, count, options.get("idle_share", 0.1))
        for number in range(options.get("stoppable", 0)):
            hub.add_server(f"gone-{number:04d}", idle=7200, target=jupyter,
                           stop_takes=options.get("stop_takes", 1.0))  # fmt: skip
        for number in range(options.get("registered", 0) - len(hub.users)):
            hub.add_user(f"away-{number:06d}")
        print(json.dumps({"url": hub.url, "token": hub.token}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    serve()
