"""Which exporter may stop servers of a Hub: a lease, kept at the Hub as a token of the probe user.

The Hub is a single process with one clock, so it decides by itself who came first. A token without
scopes opens nothing; its note names the holder, and it expires by the Hub's clock. Pure:
`culling/lease.py` sends the requests.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .model import ListedToken, MintedToken, seconds

LEASE_SECONDS = 120
# A token that ends this soon is left to expire: the Hub gives the id of an expired token to a new
# one, so a late request to revoke it could hit somebody else's.
REVOKE_MARGIN_SECONDS = 30.0
NOTE = "lease "
_LISTED = f"hub-idle-exporter: {NOTE}"


def note_of(nonce: str) -> str:
    """Return the note of a lease's token as the Hub lists it; `nonce` names the holder."""
    return _LISTED + nonce


@dataclass(frozen=True)
class Lease:
    """The lease that one exporter holds, until a time of the Hub's clock (seconds since 1970)."""

    nonce: str
    until: float

    def covers(self, moment: float) -> bool:
        """Tell whether the lease still holds at a moment of the Hub's clock."""
        return moment <= self.until


def held_by_another(listed: Iterable[ListedToken], nonce: str) -> bool:
    """Tell whether there is a lease of another holder."""
    return any(token.note != note_of(nonce) for token in leases(listed))


def acquired(minted: MintedToken, listed: Iterable[ListedToken], nonce: str) -> Lease | None:
    """Return the lease if ours is the first, by time and by id; None if another's may be.

    `listed` was read after ours was minted, so of two who try at once at most one is the first.
    """
    found = leases(listed)
    ours = [token for token in found if token.id == minted.id and token.note == note_of(nonce)]
    others = [token for token in found if token.note != note_of(nonce)]
    if not ours or any(_may_precede(token, ours[0]) for token in others):
        return None
    return Lease(nonce, seconds(minted.expires_at))


def renewed(held: Lease, minted: MintedToken, listed: Iterable[ListedToken]) -> Lease | None:
    """Return the renewed lease; None if it is lost.

    It is lost if it ended before the new token was created, if that is not listed, or if there is
    one of another holder.
    """
    found = leases(listed)
    ours = any(token.id == minted.id and token.note == note_of(held.nonce) for token in found)
    if not held.covers(seconds(minted.created)) or not ours or held_by_another(found, held.nonce):
        return None
    return Lease(held.nonce, seconds(minted.expires_at))


def revocable(listed: Iterable[ListedToken], nonce: str, now: float) -> list[str]:
    """Return the ids of our tokens that live long enough to be revoked.

    `now` is the Hub's clock when they were listed, in seconds since 1970.
    """
    return [
        token.id
        for token in leases(listed)
        if token.note == note_of(nonce)
        and token.expires_at is not None
        and seconds(token.expires_at) - now > REVOKE_MARGIN_SECONDS
    ]


def leases(listed: Iterable[ListedToken]) -> list[ListedToken]:
    """Return those tokens that are leases."""
    return [token for token in listed if (token.note or "").startswith(_LISTED)]


def _may_precede(token: ListedToken, ours: ListedToken) -> bool:
    """Tell whether a token was created before ours, by its time or by its id."""
    return token.created <= ours.created or _number(token.id) <= _number(ours.id)


def _number(token_id: str) -> int:
    """Read the number in an id (`a12`), which the Hub counts up; 0, the first, if there is none."""
    digits = token_id.lstrip("a")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
