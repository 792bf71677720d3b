"""The web server: its ports, on one event loop in a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from tornado.ioloop import IOLoop

from ..domain.text import printable
from .port import Port
from .web_config import WebConfigSource

_CONFIG_EVERY = 1.0
_STOP_SECONDS = 2.0

log = structlog.get_logger()


class WebServer:
    """Serves ports that listen already.

    Args:
        ports: what to serve.
        config: the web configuration file, which is read again when it changes; None without one.
        valid: called with whether the current version of that file is valid.
    """

    def __init__(
        self,
        ports: Sequence[Port],
        config: WebConfigSource | None = None,
        valid: Callable[[bool], None] = lambda _valid: None,
    ) -> None:
        self._ports, self._config, self._valid = ports, config, valid
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_problem)
        self._stopping = asyncio.Event()
        self._watching = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    @property
    def address(self) -> str:
        """Return the address of the first port."""
        return self._ports[0].address

    def start(self) -> None:
        """Serve, on a thread of its own."""
        _log_as_ours("tornado")
        self._thread.start()
        if self._config is not None:
            watch = threading.Thread(target=self._watch, name="web-config", daemon=True)
            watch.start()

    def stop(self) -> None:
        """Close the ports and all connections."""
        self._watching.set()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_SECONDS)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._until_stopped())
        self._loop.close()

    async def _until_stopped(self) -> None:
        IOLoop.current()  # imports what it needs now: later there may be no file descriptor for it
        for port in self._ports:
            port.open()
        await self._stopping.wait()
        for port in self._ports:
            await port.close()
        unanswered = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*unanswered, return_exceptions=True)

    def _watch(self) -> None:
        """Read the web configuration file again when it or a certificate has changed."""
        config = self._config
        while config is not None and not self._watching.wait(_CONFIG_EVERY):
            before = config.value.protection
            if not config.refresh():
                continue
            self._valid(config.error is None)
            if config.error is None:
                for port in self._ports:
                    with suppress(RuntimeError):  # it was stopped meanwhile
                        self._loop.call_soon_threadsafe(port.renew)
                _log_change(before, config.value.protection)
            else:
                log.error("web_config_invalid", error=config.error, kept="the previous version")


def _log_change(before: tuple[str, ...], now: tuple[str, ...]) -> None:
    """Tell that a new version is in use, as a warning if it keeps fewer out."""
    removed = ", ".join(name for name in before if name not in now)
    if removed:
        log.warning("web_config_reloaded", protection=", ".join(now), removed=removed)
    else:
        log.info("web_config_reloaded", protection=", ".join(now))


class _Ours(logging.Handler):
    """Writes what a library logs to our log, on one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        write = log.error if record.levelno >= logging.ERROR else log.debug
        write("http_message", message=printable(self.format(record)))


def _log_as_ours(name: str) -> None:
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [_Ours()], False
    logger.setLevel(logging.INFO)  # where it says what was wrong with a request


def _log_problem(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what went wrong on the event loop, where nobody waits for it."""
    error = context.get("exception")
    log.error("http_message", message=printable(f"{context['message']}: {error!r}"))
