"""The Hub's side of the record: who asked for each stop, and what became of it.

Beyond what `spawners.py` of the tests does for `user_options` (`stop_delay`, `stop_fails`, ...):

real        a real `jupyterhub-singleuser`; otherwise `light_server.py`
stop_lies   stop() returns as if all were well, and the process lives on
"""

import json
import os
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psutil
from jupyterhub.apihandlers.users import UserServerAPIHandler
from spawners import JupyterSpawner

from .noting import note

RECORD = os.environ["CHAOS_RECORD"]
ROOT = Path(__file__).resolve().parents[2]

# Who sent the DELETE that the task at hand is about, and when the Hub took it: right before it
# checks the token, since a Hub may be paused right after. stop() runs in a task begun by it.
asked_by: ContextVar[str] = ContextVar("asked_by", default="the Hub itself")
taken_at: ContextVar[float] = ContextVar("taken_at", default=0.0)
_prepare, _delete = UserServerAPIHandler.prepare, UserServerAPIHandler.delete


async def _prepare_noting_when(self: Any) -> None:
    taken_at.set(time.time())
    await _prepare(self)


async def _delete_noting_who(self: Any, user_name: str, server_name: str = "") -> None:
    who = self.current_user
    asked_by.set(f"{who.kind} {who.name}" if who is not None else "nobody")
    note(RECORD, "delete", user=user_name, server=server_name, by=asked_by.get())
    await _delete(self, user_name, server_name)


UserServerAPIHandler.prepare = _prepare_noting_when
UserServerAPIHandler.delete = _delete_noting_who


class ChaosSpawner(JupyterSpawner):
    """Starts real processes, and writes down each start and each stop."""

    def _note(self, what: str, **told: Any) -> None:
        note(RECORD, what, user=self.user.name, server=self.name, **told)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        options = json.dumps(self.user_options or {})
        env = {**super().user_env(env), "CHAOS_RECORD": RECORD, "CHAOS_OPTIONS": options}
        return env if self.user_options.get("real") else {**env, "PYTHONPATH": str(ROOT)}

    async def start(self) -> Any:
        if not self.user_options.get("real"):
            self.cmd = [sys.executable, "-S", "-m", "chaos.hubside.light_server"]
            self.args = list[str]()
        where = await super().start()
        self._note("started", pid=self.pid)
        return where

    async def poll(self) -> int | None:
        """Tell whether it runs; what a killed Hub left behind may be dead and not buried."""
        pid = self.pid  # forgotten by those who find it dead
        status: int | None = await super().poll()
        if pid and not _runs(pid):
            self._note("dead", pid=pid)
            return 0 if status is None else status
        return status

    async def stop(self, now: bool = False) -> None:
        pid = self.pid
        self._note("stop_called", pid=pid, by=asked_by.get(), taken=taken_at.get())
        try:
            if self.user_options.get("stop_lies"):
                await self.asked("stop")
            else:
                await super().stop(now)
        except Exception:
            self._note("stop_failed", pid=pid)
            raise
        self._note("stop_ended", pid=pid, alive=_runs(pid))


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
