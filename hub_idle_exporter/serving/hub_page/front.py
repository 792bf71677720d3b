"""What the page inside the Hub shows now: why nothing works, or what the desk answers."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ...people.desk import Desk
from .outcomes import Outcomes
from .service import Service
from .sign_in import SignIn

# What the desk asks the Hub, and how many may wait for it.
_SECONDS = 20.0
_MOST_WAITING = 32
_THREADS = 4

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Failed:
    """The sidecar does not run: nothing is polled or stopped. `why` is for administrators."""

    why: str


@dataclass(frozen=True)
class Running:
    """The sidecar runs; `unready` says why its facts are missing or stale, None if they are not."""

    desk: Desk
    unready: Callable[[], str | None]


class CrowdedError(Exception):
    """Too many wait for an answer, or it took too long."""


class Front:
    """The page inside the Hub, from the first moment of the process on.

    `state` is None while the sidecar starts.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sign_in = SignIn(service)
        self.outcomes = Outcomes()
        self.state: Failed | Running | None = None
        self.key = secrets.token_bytes(32)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="hub-page")
        self._waiting = 0

    def fail(self, why: str) -> None:
        """Show, from now on, why the sidecar does not run."""
        self.state = Failed(why)

    def open(self, desk: Desk, unready: Callable[[], str | None], key: bytes) -> None:
        """Show what the desk answers; `key` signs the cookies of sessions, also of earlier ones."""
        self.key = key
        self.state = Running(desk, unready)

    async def answered(self, question: Callable[[], _Value]) -> _Value:
        """Ask the desk, which may wait for the Hub; raise CrowdedError."""
        if self._waiting >= _MOST_WAITING:
            raise CrowdedError
        self._waiting += 1
        answer = asyncio.get_running_loop().run_in_executor(self._threads, question)
        answer.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), _SECONDS)
        except asyncio.TimeoutError:
            raise CrowdedError from None

    def _done(self, answer: "asyncio.Future[_Value]") -> None:
        self._waiting -= 1
        if not answer.cancelled():
            answer.exception()  # perhaps nobody waits for it any more
