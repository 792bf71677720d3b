"""Decode the Hub's answers into typed values; anything else is a `HubError`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

import msgspec

from ..domain.labels import Cause
from ..domain.model import AnyUser, Pagination, User, UserPage
from .errors import HubError
from .parts import elements, members

LONGEST_RETRY_AFTER = 600.0  # seconds; announced maintenance must not stop polls for a whole day
# Bytes. Python's json needs up to 60 times the memory, and it reads what users chose.
_LARGEST_LENIENT = 1 << 20
_UNDECODABLE = (ValueError, RecursionError)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class DecodedUsers(Generic[AnyUser]):
    """A page of users; `unreadable` names those that cannot be decoded, or gives their number."""

    users: Sequence[AnyUser]
    unreadable: Sequence[str]
    pagination: Pagination


def decode(body: bytes, shape: type[_Answer], where: str, mask: Callable[[str], str]) -> _Answer:
    """Decode an answer of `where`; `mask` is applied to what an error quotes from it."""
    try:
        return _decoded(body, shape)
    except _UNDECODABLE as error:
        raise _not_a_hub(error, body, where, mask) from None


def decode_users(
    body: bytes, first: int, where: str, mask: Callable[[str], str], kind: type[AnyUser]
) -> DecodedUsers[AnyUser]:
    """Decode a page of users of this kind, the first of whom is number `first` of the list.

    A user who cannot be decoded is left out: users choose what is in their `user_options`, and
    nobody may hide the others with that.
    """
    try:
        page: UserPage[AnyUser] = msgspec.json.decode(body, type=UserPage[kind])  # type: ignore[valid-type]
    except _UNDECODABLE as error:
        try:
            return _one_by_one(memoryview(body), first, kind)
        except _UNDECODABLE:
            raise _not_a_hub(error, body, where, mask) from None
    return DecodedUsers(page.items, (), page.pagination)


def _one_by_one(body: memoryview, first: int, kind: type[AnyUser]) -> DecodedUsers[AnyUser]:
    """Decode each user of a page alone; raise ValueError if it is no page."""
    frame = {key: value for key, value in members(body) if key in (b"items", b"_pagination")}
    pagination = msgspec.json.decode(frame.get(b"_pagination", b"null"), type=Pagination)
    users, unreadable = list[AnyUser](), list[str]()
    for number, text in enumerate(elements(frame.get(b"items", memoryview(b""))), first):
        try:
            users.append(_decoded(text, kind))
        except _UNDECODABLE:
            unreadable.append(_name_in(text) or f"number {number} of the list")
    return DecodedUsers(users, unreadable, pagination)


def _name_in(text: memoryview) -> str:
    """Return the name of a user who cannot be decoded; "" if that is not readable either."""
    try:
        name = next((value for key, value in members(text) if key == b"name"), b'""')
        return msgspec.json.decode(name, type=str)
    except ValueError:
        return ""


def _decoded(text: bytes | memoryview, shape: type[_Answer]) -> _Answer:
    """Decode what a Hub may send; raise ValueError or RecursionError otherwise."""
    try:
        return msgspec.json.decode(text, type=shape)
    except _UNDECODABLE:
        if len(text) > _LARGEST_LENIENT:
            raise
        return _decoded_leniently(bytes(text), shape)


def _decoded_leniently(text: bytes, shape: type[_Answer]) -> _Answer:
    """Decode what a Hub may send although it is not strict JSON.

    A user's own `user_options` may contain what Python's json accepts (NaN, 1e400, half a
    surrogate pair), and the Hub repeats it in every listing.
    """
    document = json.loads(text)
    _encode_options(document)
    answer = msgspec.convert(document, shape)
    if isinstance(answer, User):  # names go into URLs and the log, so they must be valid text
        "".join([answer.name, *(answer.servers or ())]).encode()
    return answer


def _encode_options(user: object) -> None:
    """Turn `user_options` back into bytes in place, as which a `Server` keeps them."""
    servers = user.get("servers") if isinstance(user, dict) else None
    for server in servers.values() if isinstance(servers, dict) else ():
        if isinstance(server, dict) and "user_options" in server:
            server["user_options"] = msgspec.Raw(json.dumps(server["user_options"]).encode())


def _not_a_hub(error: Exception, body: bytes, where: str, mask: Callable[[str], str]) -> HubError:
    return HubError(
        Cause.RESPONSE,
        f"{where} does not answer like a JupyterHub API ({error}{_quotation(body, mask)}): "
        "check that --url is the Hub's API, with no login page in front",
    )


def _quotation(body: bytes, mask: Callable[[str], str]) -> str:
    """Quote the beginning of an answer, unless it may be JSON with names of users."""
    if body.lstrip()[:1] in (b"", b"{", b"["):
        return ""
    return f"; it begins {mask(body[:400].decode(errors='replace'))[:40]!r}"


def date_of(header: str | None) -> float | None:
    """Read a `Date` header as seconds since 1970; None if it is missing or unreadable."""
    try:
        moment = parsedate_to_datetime(header or "")
        return moment.astimezone(timezone.utc).timestamp() if moment.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_of(header: str | None) -> float:
    """Read a `Retry-After` header in seconds; 0 if it is missing or a date."""
    if not (header and header.isascii() and header.isdigit()):
        return 0.0
    return min(float(header), LONGEST_RETRY_AFTER)
