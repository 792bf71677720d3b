"""The spawners of the tests' Hubs; imported by the Hub's own Python, 3.0 to 6.x.

Both do what a test asks for in `user_options`:

start_delay, stop_delay    seconds that start() or stop() take longer
start_until, stop_until    start() or stop() waits until this file exists
stop_fails                 stop() raises, and the server lives on
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyterhub.spawner import SimpleLocalProcessSpawner, Spawner
from traitlets import Integer


class _Asked:
    """What `user_options` asks for, before the true start or stop."""

    user_options: dict[str, Any]

    async def asked(self, step: str) -> None:
        options = self.user_options or {}
        await asyncio.sleep(float(options.get(f"{step}_delay", 0)))
        until = options.get(f"{step}_until")
        while until and not Path(until).exists():
            await asyncio.sleep(0.02)
        if options.get(f"{step}_fails"):
            raise RuntimeError(f"the test asked for a {step}() that fails")


class PaperSpawner(_Asked, Spawner):  # type: ignore[misc]
    """Starts nothing: all its servers are one HTTP server that runs elsewhere, at `port`."""

    port = Integer(help="Where the one server listens on 127.0.0.1.").tag(config=True)
    alive = False

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return state | {"alive": True} if self.alive else state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.alive = bool(state.get("alive"))

    def clear_state(self) -> None:
        super().clear_state()
        self.alive = False

    @property
    def paper(self) -> Path:
        """Return the file that is there while this server is alive."""
        folder = Path("paper")
        folder.mkdir(exist_ok=True)
        return folder / quote(self.server.base_url, safe="")

    async def start(self) -> tuple[str, int]:
        await self.asked("start")
        self.alive = True
        self.paper.write_text(str(time.time()))
        return "127.0.0.1", self.port

    async def poll(self) -> int | None:
        return None if self.alive else 0

    async def stop(self, now: bool = False) -> None:
        await self.asked("stop")
        self.alive = False
        self.paper.unlink(missing_ok=True)


class JupyterSpawner(_Asked, SimpleLocalProcessSpawner):  # type: ignore[misc]
    """Real `jupyterhub-singleuser` processes; everything they write is in the user's home."""

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        env = super().user_env(env)
        for folder in ("config", "data", "runtime"):
            env[f"JUPYTER_{folder.upper()}_DIR"] = os.path.join(self.home_dir, ".jupyter", folder)  # noqa: PTH118
        env["IPYTHONDIR"] = os.path.join(self.home_dir, ".ipython")  # noqa: PTH118
        return env

    async def start(self) -> Any:
        await self.asked("start")
        return await super().start()

    async def stop(self, now: bool = False) -> None:
        await self.asked("stop")
        await super().stop(now)
