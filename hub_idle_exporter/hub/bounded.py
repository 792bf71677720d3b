"""Answers bounded by us and not by who sends them: in bytes, and in seconds from first to last."""

import http.client
import io
import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from ..clocks import steady
from ..domain.labels import Cause
from .errors import HubError

LARGEST_ANSWER = 64 << 20  # bytes
_PIECE = 1 << 20


class BoundedAdapter(HTTPAdapter):
    """Sends requests, with a read timeout for the whole answer instead of for each wait for data.

    Otherwise an answer that comes byte by byte holds its request for as long as it likes, and so
    does one whose headers come like that.
    """

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Let all connections read answers in time."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def read_whole(
    answer: requests.Response, where: str, if_large: str, largest: int = LARGEST_ANSWER
) -> bytes:
    """Read the body of an answer; raise HubError for one that is too large or compressed.

    `largest` is in bytes; `if_large` says what to do about an answer that is larger.
    """
    if answer.headers.get("Content-Encoding", "").lower() not in ("", "identity"):
        raise HubError(
            Cause.RESPONSE,
            f"{where} sent a compressed answer, although none was asked for, and it was not read: "
            "turn off compression in the proxy in front of it",
        )
    pieces, size = list[bytes](), 0
    while piece := answer.raw.read(_PIECE, decode_content=False):
        pieces.append(piece)
        size += len(piece)
        if size > largest:
            raise HubError(
                Cause.RESPONSE,
                f"{where} sent an answer larger than {largest >> 20} MiB, and it was not "
                f"read to its end: {if_large}",
            )
    return b"".join(pieces)


class _Reader(io.RawIOBase):
    """Reads a socket until the time of one answer is up: the read timeout, from its beginning."""

    def __init__(self, wire: socket.socket, raw: io.RawIOBase) -> None:
        self._wire, self._raw = wire, raw
        self._until = steady() + (wire.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - steady()
        if left <= 0.0:
            raise TimeoutError
        self._wire.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Reader(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Answer


class _TlsConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
