"""Requests and answers, as the fakes log, plan and send them."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `path` is still quoted and, on the Hub, below `/hub/api`."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float  # time.monotonic()
    closing: threading.Event = field(repr=False, compare=False, default_factory=threading.Event)

    @property
    def token(self) -> str:
        """The token of the Authorization header, or ""."""
        return re.sub(r"^(token|bearer)\s+", "", self.headers.get("authorization", ""), flags=re.I)

    def json(self) -> Any:
        return json.loads(self.body) if self.body.strip() else None


@dataclass(frozen=True)
class Reply:
    """One answer. `date` None sends no Date header; `cut` sends so many bytes, then closes.

    `drip` are the seconds between single bytes: of the body, or of all with `drip_head`.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    date: str | None = "now"
    cut: int | None = None
    drip: float = 0.0
    drip_head: bool = False


Fault = Callable[[Request, Callable[[], Reply]], Reply]


def reply(status: int = 200, body: object = b"", **headers: str) -> Reply:
    """Build a reply; a body that is neither bytes nor str is sent as JSON."""
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | headers
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class Refused(Exception):  # noqa: N818
    """An error answer of the Hub."""

    def __init__(self, status: int, message: str | None = None) -> None:
        self.reply = reply(status, {"status": status, "message": message})
