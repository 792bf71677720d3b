"""The Hub's answers as typed values; what no JupyterHub answers is a `HubError`."""

import json
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

import msgspec

from ..domain.labels import Cause
from ..domain.model import User, UserPage
from .errors import HubError

LONGEST_RETRY_AFTER = 600.0  # seconds; a page for a day's maintenance must not blind us for a day
_Answer = TypeVar("_Answer")


def decode(body: bytes, shape: type[_Answer], where: str, mask: Callable[[str], str]) -> _Answer:
    """Decode an answer of `where`; what is quoted of it in an error goes through `mask`."""
    try:
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.MsgspecError:
            return _decode_leniently(body, shape)
    except (ValueError, RecursionError) as error:
        raise HubError(
            Cause.RESPONSE,
            f"{where} answered what no JupyterHub answers ({error}{_quotation(body, mask)}): "
            "is --url the Hub's API, without a login page in front?",
        ) from None


def _decode_leniently(body: bytes, shape: type[_Answer]) -> _Answer:
    """Decode what a Hub may send that is no strict JSON; raise ValueError otherwise.

    A user's own `user_options` may hold what Python's json lets through (NaN, 1e400, half a
    surrogate pair), and the Hub repeats it in every listing: nobody may blind us with that.
    """
    answer = msgspec.convert(json.loads(body), shape)
    users = answer.items if isinstance(answer, UserPage) else [answer]
    for user in users:
        if isinstance(user, User):  # a name is asked for and written: it has to be text
            "".join([user.name, *(user.servers or ())]).encode()
    return answer


def _quotation(body: bytes, mask: Callable[[str], str]) -> str:
    """Quote how an answer begins, unless it may be a user: names belong on no page."""
    if body.lstrip()[:1] in (b"", b"{", b"["):
        return ""
    return f"; it begins {mask(body[:400].decode(errors='replace'))[:40]!r}"


def date_of(header: str | None) -> float | None:
    """Read a `Date` header as seconds since 1970; None when that cannot be done."""
    try:
        moment = parsedate_to_datetime(header or "")
        return moment.astimezone(UTC).timestamp() if moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_of(header: str | None) -> float:
    """Read a `Retry-After` header that gives seconds; 0 when it does not."""
    if not (header and header.isascii() and header.isdigit()):
        return 0.0
    return min(float(header), LONGEST_RETRY_AFTER)
