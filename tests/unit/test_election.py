"""Which exporter may stop servers: who holds the lease, by what the Hub lists, as tables."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest

from hub_idle_exporter.domain.lease import (
    Lease,
    acquired,
    held_by_another,
    note_of,
    renewed,
    revocable,
)
from hub_idle_exporter.domain.model import ListedToken, MintedToken

BEGAN = datetime(2027, 1, 15, 8, tzinfo=timezone.utc)
NOW = BEGAN.timestamp()
OURS, OTHER = "0123abcd", "4567ef01"


def token(number: object, seconds: float, nonce: str = OURS, life: float = 120.0) -> ListedToken:
    """A lease as the Hub lists it, created so many seconds after `BEGAN`."""
    created = BEGAN + timedelta(seconds=seconds)
    return ListedToken(f"a{number}", created, note_of(nonce), created + timedelta(seconds=life))


def minted(listed: ListedToken) -> MintedToken:
    assert listed.expires_at is not None
    return MintedToken(listed.id, "secret", listed.created, listed.expires_at)


MINE = token(5, 0)
UNRELATED = [
    ListedToken("a1", BEGAN - timedelta(days=9), "my script"),
    ListedToken("a2", BEGAN - timedelta(days=9), None),
    ListedToken("a3", BEGAN - timedelta(seconds=1), "hub-idle-exporter: busy check"),
    ListedToken(
        "a4", BEGAN - timedelta(seconds=1), f"by hand, of a hub-idle-exporter: lease {OTHER}"
    ),
]


def test_only_a_lease_of_another_holder_is_in_the_way() -> None:
    assert not held_by_another([*UNRELATED, MINE], OURS)
    assert held_by_another([*UNRELATED, MINE], OTHER)
    assert held_by_another([MINE, token(6, 1, OTHER)], OURS)


# ---- taken --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "first"),
    [
        ([], True),
        (UNRELATED, True),
        ([token(6, 0.001, OTHER)], True),
        ([token(4, -0.001, OTHER)], False),
        ([token(6, -0.001, OTHER)], False),  # before ours by its time alone
        ([token(4, 0.001, OTHER)], False),  # or by its id alone: the Hub's clock was set
        ([token(6, 0, OTHER)], False),  # at the same microsecond
        ([token("x", 0.001, OTHER)], False),  # an id that says nothing of its order
        ([token("1" * 30, 0.001, OTHER)], False),
        ([token(6, 0.001, OTHER), token(4, -1, OTHER)], False),
        ([token(4, -1)], True),  # an older one of our own
    ],
)
def test_of_two_that_try_at_once_only_the_first_by_time_and_by_id_has_the_lease(
    others: Sequence[ListedToken], first: bool
) -> None:
    lease = acquired(minted(MINE), [*others, MINE], OURS)
    assert lease == (Lease(OURS, NOW + 120) if first else None)


@pytest.mark.parametrize("listed", [[], UNRELATED, [token(4, 0)], [token(5, 0, OTHER)]])
def test_a_lease_that_the_hub_does_not_list_is_not_taken(listed: list[ListedToken]) -> None:
    assert acquired(minted(MINE), listed, OURS) is None


# ---- held ---------------------------------------------------------------------------------------


def test_a_lease_covers_what_ends_before_it_does() -> None:
    lease = Lease(OURS, NOW + 120)
    assert lease.covers(NOW + 120)
    assert not lease.covers(NOW + 120.001)


def test_a_lease_is_renewed_up_to_its_last_moment() -> None:
    for seconds in (30, 120):
        newer = token(6, seconds)
        lease = renewed(Lease(OURS, NOW + 120), minted(newer), [MINE, newer])
        assert lease == Lease(OURS, NOW + seconds + 120)


def test_a_lease_that_ended_before_it_was_renewed_is_lost() -> None:
    """In between another exporter may have held it, and ended."""
    newer = token(6, 120.001)
    assert renewed(Lease(OURS, NOW + 120), minted(newer), [newer]) is None


@pytest.mark.parametrize("listed", [[], [MINE], UNRELATED])
def test_a_lease_whose_new_token_is_not_listed_is_lost(listed: list[ListedToken]) -> None:
    assert renewed(Lease(OURS, NOW + 120), minted(token(6, 30)), listed) is None


@pytest.mark.parametrize("other", [token(4, -9, OTHER), token(7, 31, OTHER)])
def test_a_lease_is_lost_when_one_of_another_holder_is_seen(other: ListedToken) -> None:
    newer = token(6, 30)
    assert renewed(Lease(OURS, NOW + 120), minted(newer), [MINE, newer, other]) is None


# ---- released -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "revoked"), [(120.0, True), (30.001, True), (30.0, False)])
def test_a_token_that_expires_soon_is_not_revoked(left: float, revoked: bool) -> None:
    """The Hub gives its id to the next one: a request that is late would hit that."""
    assert revocable([MINE], OURS, NOW + 120 - left) == (["a5"] if revoked else [])


def test_only_leases_of_our_own_are_revoked() -> None:
    mine, endless = token(7, 1), ListedToken("a8", BEGAN, note_of(OURS), None)
    listed = [*UNRELATED, MINE, token(6, 0, OTHER), mine, endless]
    assert revocable(listed, OURS, NOW) == ["a5", "a7"]
