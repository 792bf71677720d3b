"""Rendering on a thread of its own: each answer once for all who wait for it.

So clients who ask again and again, or hang up and ask anew, make others wait for a few answers at
most, not for one each.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

# Answers that hold only some metrics may wait to be rendered: there is no end of different ones.
MOST_FILTERED = 8

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Wanted:
    """Which answer is wanted; two that are equal hold the same."""

    path: str
    content_type: str = ""
    gzip: bool = False
    names: tuple[str, ...] = ()


class BusyError(Exception):
    """Too many different answers wait to be rendered."""


class Renderer:
    """Renders one answer after the other, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="web-render")
        self._thread.submit(int)  # starts it now: later there may be no thread to be had
        self._turn = asyncio.Lock()
        self._waiting: dict[Wanted, asyncio.Task[Any]] = {}

    async def rendered(self, wanted: Wanted, render: Callable[[], _Value]) -> _Value:
        """Render, or wait for the same answer if it is not begun yet; raise BusyError.

        One that is begun may hold what was true before this request, so it is not shared.
        """
        rendering = self._waiting.get(wanted)
        if rendering is None:
            if wanted.names and sum(bool(one.names) for one in self._waiting) >= MOST_FILTERED:
                raise BusyError
            rendering = asyncio.get_running_loop().create_task(self._render(wanted, render))
            self._waiting[wanted] = rendering
        return cast("_Value", await asyncio.shield(rendering))

    async def _render(self, wanted: Wanted, render: Callable[[], _Value]) -> _Value:
        async with self._turn:
            del self._waiting[wanted]
            return await asyncio.get_running_loop().run_in_executor(self._thread, render)
