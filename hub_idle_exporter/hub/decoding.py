"""Decode the Hub's answers into typed values; anything else is a `HubError`."""

import json
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

from ..domain.labels import Cause
from ..domain.model import User, UserPage
from .errors import HubError

LONGEST_RETRY_AFTER = 600.0  # seconds; announced maintenance must not stop polls for a whole day
_Answer = TypeVar("_Answer")


def decode(body: bytes, shape: type[_Answer], where: str, mask: Callable[[str], str]) -> _Answer:
    """Decode an answer of `where`; `mask` is applied to what an error quotes from it."""
    try:
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.MsgspecError:
            return _decode_leniently(body, shape)
    except (ValueError, RecursionError) as error:
        raise HubError(
            Cause.RESPONSE,
            f"{where} does not answer like a JupyterHub API ({error}{_quotation(body, mask)}): "
            "check that --url is the Hub's API, with no login page in front",
        ) from None


def _decode_leniently(body: bytes, shape: type[_Answer]) -> _Answer:
    """Decode what a Hub may send although it is not strict JSON; raise ValueError otherwise.

    A user's own `user_options` may contain what Python's json accepts (NaN, 1e400, half a
    surrogate pair), and the Hub repeats it in every listing. No user may break polls with that.
    """
    document = json.loads(body)
    _encode_options(document)
    answer = msgspec.convert(document, shape)
    users = answer.items if isinstance(answer, UserPage) else [answer]
    for user in users:
        if isinstance(user, User):  # names go into URLs and the log, so they must be valid text
            "".join([user.name, *(user.servers or ())]).encode()
    return answer


def _encode_options(document: object) -> None:
    """Turn `user_options` back into bytes in place, as which a `Server` keeps them."""
    found = document.get("items", [document]) if isinstance(document, dict) else []
    users = [user for user in found if isinstance(user, dict)] if isinstance(found, list) else []
    for servers in (user.get("servers") for user in users):
        for server in servers.values() if isinstance(servers, dict) else ():
            if isinstance(server, dict) and "user_options" in server:
                server["user_options"] = msgspec.Raw(json.dumps(server["user_options"]).encode())


def _quotation(body: bytes, mask: Callable[[str], str]) -> str:
    """Quote the beginning of an answer, unless it may be JSON with names of users."""
    if body.lstrip()[:1] in (b"", b"{", b"["):
        return ""
    return f"; it begins {mask(body[:400].decode(errors='replace'))[:40]!r}"


def date_of(header: str | None) -> float | None:
    """Read a `Date` header as seconds since 1970; None if it is missing or unreadable."""
    try:
        moment = parsedate_to_datetime(header or "")
        return moment.astimezone(UTC).timestamp() if moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_of(header: str | None) -> float:
    """Read a `Retry-After` header in seconds; 0 if it is missing or a date."""
    if not (header and header.isascii() and header.isdigit()):
        return 0.0
    return min(float(header), LONGEST_RETRY_AFTER)
