"""What the page says of idle users with `--cull-users`: numbers, never names."""

from dataclasses import dataclass

from ..domain.gate import GateState
from ..domain.idle_users import IdleUsers
from ..domain.totals import Counts
from .counts import Count, counted
from .reading import Reading
from .wording import LISTED_KEPT, NOT_DELETED, USER_KEPT


@dataclass(frozen=True)
class ListedUsers:
    """What the newest listing found at `at` by our clock; `complete` as in `IdleUsers`."""

    at: float
    candidates: int
    kept: tuple[Count, ...]
    complete: bool


@dataclass(frozen=True)
class Users:
    """Idle users: whether they are deleted, in a sentence, and what that has come to.

    `unlisted` says why `listed` is None.
    """

    why: str
    listed: ListedUsers | None
    unlisted: str
    deleted: int
    failed: tuple[Count, ...]
    withheld: tuple[Count, ...]


def users_of(reading: Reading) -> Users | None:
    """Tell what is known of idle users; None without `--cull-users`."""
    if not reading.settings.cull.users.delete:
        return None
    # As on /metrics: nothing is said of a Hub that cannot be read.
    found = reading.idle_users if reading.state.snapshot else None
    totals = reading.totals
    return Users(
        why=_why(reading),
        listed=None if found is None else _listed(reading, found),
        unlisted=_unlisted(reading),
        deleted=int(totals.users_deleted),
        failed=counted(NOT_DELETED, totals.deletion_failures),
        withheld=counted(USER_KEPT, totals.deletions_withheld),
    )


def _listed(reading: Reading, found: IdleUsers) -> ListedUsers:
    counts: Counts = {(verdict,): float(count) for verdict, count in found.counts.items()}
    return ListedUsers(
        at=found.read_at - (reading.state.clock_skew or 0.0),
        candidates=len(found.candidates),
        kept=counted(LISTED_KEPT, counts),
        complete=found.complete,
    )


def _unlisted(reading: Reading) -> str:
    if reading.state.error is not None:
        return "not known while the Hub cannot be read"
    if not reading.listing_failed:
        return "not listed yet"
    # A scope that is missing is named further up.
    return "could not be listed" + ("" if reading.state.keeps_users else "; the log says why")


def _why(reading: Reading) -> str:
    """Say whether they are deleted; in doubt the gate of stops has the reason."""
    state, gate = reading.state, reading.gate
    if not reading.enforces:
        return "Nobody is deleted without --enforce."
    if state.error is not None:
        return "Nobody is deleted until the Hub can be read again."
    if state.keeps_users:  # they may name users, which the page tells further up, or hides
        return "Nobody is deleted until the requirements above are met."
    if state.policy_error is not None:
        return "Nobody is deleted while the policy file is invalid."
    if gate.state is not GateState.ON:
        return f"Nobody is deleted now: {gate.why}."
    most = reading.settings.cull.max_culls
    limit = f"at most {most} an hour" if most else "at each listing"
    return f"They are deleted one at a time, {limit}."
