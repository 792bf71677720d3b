"""A port that no client can block: it accepts every connection, whatever the others do.

What a client may take is limited, and a limit is kept by cutting the connection that has waited
longest, never by refusing a new one: so health is answered whatever else is going on.
"""

import asyncio
import errno
import os
import resource
import socket
from contextlib import suppress
from functools import partial

import structlog
from tornado.web import Application

from .connections import Connections, Tls
from .crowd import Limits

_BACKLOG = 4096  # or less, as the system is configured
_MOST_FILES = 4096
_ACCEPTS_AT_ONCE = 64
_SPARE_FILES = 8
_PAUSE_SECONDS = 0.2
_WARN_EVERY = 60.0
_USUAL = Limits()

log = structlog.get_logger()


def _files() -> int:
    """Let the process open as many files as it may, up to some thousands; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


class _Spare:
    """File descriptors in reserve: with one a connection is accepted when no other is left.

    They are some, because another thread may be quicker to take one that was given up.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self.keep()

    def keep(self) -> None:
        """Have some, as far as they are to be had."""
        with suppress(OSError):
            while len(self._numbers) < _SPARE_FILES:
                self._numbers.append(os.open(os.devnull, os.O_RDONLY))

    def use(self) -> bool:
        """Give one up for something else; tell whether there was one."""
        if not self._numbers:
            return False
        os.close(self._numbers.pop())
        return True


class Port:
    """One address, and the application that is served there.

    Args:
        host: a name or an address; `::` is all interfaces, of IPv4 too.
        port: its number; 0 for a free one.
        application: answers the requests.
        tls: gives the TLS context for a new connection, None for plain HTTP.
        limits: how many connections there may be, as far as the system allows it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        application: Application,
        tls: Tls = lambda: None,
        limits: Limits = _USUAL,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connections = Connections(application, limits.within(_files()), tls)
        self._socket: socket.socket | None = None
        self._spare, self._warn_again_at = _Spare(), 0.0

    def listen(self) -> None:
        """Open the port; raise OSError or UnicodeError if it is not available."""
        found = socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, *_, address = found[0]
        everywhere = self._host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(
            address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=everywhere
        )
        self.take(listener)

    def take(self, listener: socket.socket) -> None:
        """Serve on a socket that listens already."""
        self._socket = listener
        self._socket.setblocking(False)

    @property
    def address(self) -> str:
        """Return the bound address as a URL, with the actual port if 0 was requested."""
        assert self._socket is not None  # noqa: S101 - listen() comes first
        host, port = self._socket.getsockname()[:2]
        scheme = "http" if self._tls() is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def open(self) -> None:
        """Start to accept connections, on the running event loop."""
        if self._socket is not None and self._socket.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._socket, partial(self._accept, self._socket))

    def renew(self) -> None:
        """Serve by the current TLS context only."""
        self._connections.close_outdated()

    async def close(self) -> None:
        """Stop accepting, and cut all connections."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        await self._connections.close_all_connections()

    def _accept(self, listener: socket.socket) -> None:
        """Accept what is waiting; if no file descriptor is left, cut somebody else's connection."""
        for accepted in range(_ACCEPTS_AT_ONCE):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Linux looks for a file descriptor first: perhaps nobody else is waiting.
                if accepted == 0:
                    self._find_descriptor(listener, error)
                return
            self._connections.add(connection, address)
            self._spare.keep()

    def _find_descriptor(self, listener: socket.socket, error: OSError) -> None:
        """Free a file descriptor for the connection that waits, or let it wait."""
        is_short = error.errno in (errno.EMFILE, errno.ENFILE)
        now = asyncio.get_running_loop().time()
        if now >= self._warn_again_at:  # not for each connection
            self._warn_again_at = now + _WARN_EVERY
            log.warning("connection_not_accepted", error=error.strerror)
        if not (is_short and (self._spare.use() or self._connections.make_room())):
            self._pause(listener)

    def _pause(self, listener: socket.socket) -> None:
        """Accept nothing for a moment: it would fail again at once, and for ever."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(_PAUSE_SECONDS, self.open)
