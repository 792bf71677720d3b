"""Connections: requests are read from them on the event loop, and the limits are kept by cutting.

No request that is being read holds a thread. Which connection is cut is decided in `crowd`.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream
from tornado.web import Application, RequestHandler

from .crowd import Crowd, Limits

# The time limits: to send the head of a request (also from the last answer to the next request's
# last byte, and with the TLS handshake), to send its body, and to take an answer.
HEAD_SECONDS = 10.0
BODY_SECONDS = 5.0
ANSWER_SECONDS = 20.0
LARGEST_BODY = 16 * 1024
_READ_AT_ONCE = 16 * 1024
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\nConnection: close\r\n\r\n"
_LINGER_NOT = struct.pack("ii", 1, 0)

Tls = Callable[[], ssl.SSLContext | None]


class Connections(HTTPServer):
    """The connections of one port: reads requests from them, and cuts those that take too much.

    Args:
        application: answers the requests.
        limits: how many connections there may be.
        tls: gives the TLS context for a new connection, None for plain HTTP.
    """

    def initialize(  # type: ignore[override]
        self, application: Application, limits: Limits, tls: Tls
    ) -> None:
        """Have no connections at first; called by the library, which wants no `__init__`."""
        super().initialize(
            application,
            max_header_size=limits.head,
            idle_connection_timeout=HEAD_SECONDS,
            max_body_size=LARGEST_BODY,
            body_timeout=BODY_SECONDS,
        )
        self._crowd: Crowd[IOStream] = Crowd(limits, cut=_cut)
        self._deadlines: dict[IOStream, asyncio.TimerHandle] = {}
        self._largest_unread = limits.head + LARGEST_BODY
        self._tls = tls
        application.settings["log_function"] = self.answered

    def add(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        """Add a connection that was just accepted."""
        sizes = {"max_buffer_size": self._largest_unread, "read_chunk_size": _READ_AT_ONCE}
        connection.setblocking(False)
        tls = self._tls()
        try:
            if tls is None:
                stream = IOStream(connection, **sizes)
            else:
                secure = tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                stream = SSLIOStream(secure, **sizes)
        except OSError:  # it has hung up meanwhile
            connection.close()
        else:
            self.handle_stream(stream, address)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Read requests from a new connection."""
        self._crowd.enter(stream, address[0])
        super().handle_stream(stream, address)

    def start_request(self, server_conn: Any, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Wait for a request on a connection, the first or the next one."""
        stream = server_conn.stream
        if self._is_outdated(stream):
            stream.close()
        self._crowd.waits(stream)
        self._cancel_deadline(stream)
        reader = super().start_request(server_conn, request_conn)
        connection = cast("HTTP1Connection", request_conn)
        return _Request(reader, connection, partial(self._crowd.asks, stream))

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection that has ended."""
        self._crowd.leave(server_conn.stream)
        self._cancel_deadline(server_conn.stream)
        super().on_close(server_conn)

    def answered(self, handler: RequestHandler) -> None:
        """Limit how long the client may take to receive an answer, which was written to it."""
        stream = stream_of(handler.request)
        if stream.writing():
            self._crowd.unsent(stream)
            later = asyncio.get_running_loop().call_later
            self._cancel_deadline(stream)
            self._deadlines[stream] = later(ANSWER_SECONDS, _cut, stream)

    def close_outdated(self) -> None:
        """Close connections made with another TLS context, unless a request is being answered.

        Those are closed after their answer. Their clients connect anew: what is asked of them, or
        told to them, in the handshake may have changed.
        """
        for stream in self._crowd.all_waiting():
            if self._is_outdated(stream):
                stream.close()

    def _is_outdated(self, stream: IOStream) -> bool:
        wire = stream.socket
        return self._tls() is not (wire.context if isinstance(wire, ssl.SSLSocket) else None)

    def make_room(self) -> bool:
        """Cut one connection; tell whether there was one."""
        return self._crowd.make_room()

    def _cancel_deadline(self, stream: IOStream) -> None:
        deadline = self._deadlines.pop(stream, None)
        if deadline is not None:
            deadline.cancel()


class _Request(HTTPMessageDelegate):
    """Reads a request as another does, tells when the whole of it has arrived, and ends early.

    The library reads on in what has arrived already, also of a client that has hung up: hundreds of
    requests or pieces of a body may have come at once.
    """

    def __init__(
        self, reader: HTTPMessageDelegate, connection: HTTP1Connection, tell: Callable[[], None]
    ) -> None:
        self._reader, self._connection, self._tell = reader, connection, tell
        self._stream = connection.stream
        self.on_connection_close = reader.on_connection_close  # type: ignore[method-assign]

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Read on, unless the client has hung up, or sends a body in pieces without a length."""
        if "Transfer-Encoding" in headers and not self._stream.closed():
            self._stream.write(_LENGTH_REQUIRED)
            self._stream.close()
        if self._stream.closed():
            self._connection.detach()
            return None
        return self._reader.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Read on, unless it took too long."""
        return None if self._stream.closed() else self._reader.data_received(chunk)

    def finish(self) -> None:
        """Tell it, and answer."""
        self._tell()
        self._reader.finish()


def stream_of(request: HTTPServerRequest) -> IOStream:
    """Return the stream that a request came by."""
    return cast("HTTP1Connection", request.connection).stream


def _cut(stream: IOStream) -> None:
    """Close a connection; what its client does not take is thrown away, by the system too."""
    if stream.writing():
        with suppress(OSError):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    stream.close()
