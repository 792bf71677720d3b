"""A user's own server: what stands at the end of a route of the proxy."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .exchange import Reply, Request, reply
from .http_fake import HttpFake
from .records import Server, timestamp


@dataclass
class Jupyter:
    """What a Jupyter server says of itself; times are epoch seconds or a str sent as it stands."""

    last_activity: float | str = 0.0
    kernels: list[dict[str, Any]] = field(default_factory=list)
    terminals: list[dict[str, Any]] | None = field(default_factory=list)  # None: disabled, 404

    def add_kernel(
        self, state: str = "idle", last_activity: float | str = 0.0, connections: int = 0
    ) -> dict[str, Any]:
        """Run a kernel; the dict returned may be changed."""
        kernel: dict[str, Any] = {"id": f"kernel-{len(self.kernels)}", "name": "python3"}
        kernel |= {"execution_state": state, "last_activity": timestamp(last_activity)}
        kernel["connections"] = connections
        self.kernels.append(kernel)
        return kernel

    def add_terminal(self, last_activity: float | str = 0.0) -> dict[str, Any]:
        """Open a terminal."""
        if self.terminals is None:
            self.terminals = []
        terminal = {"name": str(len(self.terminals) + 1), "last_activity": timestamp(last_activity)}
        self.terminals.append(terminal)
        return terminal

    def says(self, path: str, started: float | str | None = 0) -> object:
        """Return what one of the three addresses answers, None for 404."""
        states = [kernel.get("execution_state") for kernel in self.kernels]
        status: dict[str, Any] = {
            "started": timestamp(started),
            "last_activity": timestamp(self.last_activity),
        }
        status |= {"connections": len(states), "kernels": len(states)}
        answers = {"status": status, "kernels": self.kernels, "terminals": self.terminals}
        return answers.get(path)


class FakeServer(HttpFake):
    """What stands behind a route of the proxy; one may stand behind many routes.

    `jupyter` is what it says at every base, `at[routespec]` what it says at one; None there:
    no Jupyter, 404. Given to `add_server` it answers while that server's process is alive (404
    after), and wants a token that opens that server (403 without),
    and knows no other bases (404: as Jupyter, for which `%40` is another base than `@`).
    Every request, header and fault (`plan`, paths whole: "/user/ana/api/status") as on the Hub.
    """

    def __init__(self, jupyter: Jupyter | None = None, port: int = 0) -> None:
        self.jupyter: Jupyter | None = jupyter or Jupyter()
        self.at: dict[str, Jupyter | None] = {}
        self.guard: Callable[[str, str], bool] | None = None  # (base, token), where none is given
        self._guards: dict[str, Callable[[str], bool]] = {}
        self._servers: dict[str, Server] = {}
        self.clock: Callable[[], float] = time.time
        self.process: Callable[[str], float | str | None] = self._process
        super().__init__(port)

    def now(self) -> float:
        return self.clock()

    def serve(self, server: "Server", guard: Callable[[str], bool]) -> None:
        """Stand behind a server's route; `guard` is asked whether a token may come in."""
        self._guards[server.routespec] = guard
        self._servers[server.routespec] = server

    def answer(self, request: Request) -> Reply:
        base, _, path = request.path.rpartition("api/")
        jupyter = self.at.get(base, self.jupyter)
        if self._guards and base not in self._guards:
            jupyter = None
        elif base and not self._opens(base, request.token):
            return reply(403, {"message": "Forbidden", "reason": None})
        started = self.process(base)
        answers = jupyter is not None and started is not None and request.method == "GET"
        said = jupyter.says(path, started) if jupyter and answers else None
        return reply(404, {"message": "Not Found"}) if said is None else reply(200, said)

    def _process(self, base: str) -> float | str | None:
        """Tell when the server at this base was started; None if it is not alive."""
        server = self._servers.get(base)
        if server is None:
            return 0
        return (server.process_started or 0) if server.process_alive else None

    def _opens(self, base: str, token: str) -> bool:
        own = self._guards.get(base)
        if own is not None:
            return own(token)
        return self.guard is None or self.guard(base, token)
