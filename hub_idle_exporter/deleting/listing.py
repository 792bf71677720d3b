"""Lists idle users at an interval of its own, since that is dear, and has them deleted."""

from collections.abc import Callable
from dataclasses import replace

import structlog

from ..clocks import steady
from ..domain.idle_users import IdleUsers
from ..domain.labels import Cause, UserKept
from ..domain.poll_state import LatestState, PollState
from ..domain.settings import CullSettings
from ..hub.client import Hub
from ..hub.errors import HubError
from .deleter import Deleter

LISTING_SECONDS = 3600.0  # between two listings
_AFTER_FAILURE_SECONDS = 300.0

log = structlog.get_logger()


def read_idle_users(hub: Hub, state: PollState, cull: CullSettings) -> IdleUsers:
    """Read and judge the users who have no server; raise HubError if they cannot be listed.

    Stopped servers are read only where it depends on them whether their user is protected.
    """
    judge = state.user_judge(cull)
    listing = hub.idle_users(cull.users.timeout, judge.judge.protects_by_server)
    found = judge.all(listing.accounts, listing.now)
    return IdleUsers(listing.now, found, listing.complete, listing.unreadable)


class UserLister:
    """Lists idle users once an hour, and once more when deletions are allowed again.

    Args:
        hub: where users are listed.
        latest: the newest poll state, and where the result is published.
        cull: who counts as idle.
        deleter: deletes them; None if nobody is to be deleted.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        latest: LatestState,
        cull: CullSettings,
        deleter: Deleter | None,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._latest, self._cull = hub, latest, cull
        self._deleter, self._clock = deleter, clock
        self._next, self._waits = 0.0, False
        self._hour_ends, self._sent = 0.0, 0  # --max-culls holds for an hour, however often listed

    def list_if_due(self) -> bool:
        """List idle users if it is time, and delete them; tell whether nothing went wrong."""
        state = self._latest.state
        if state.snapshot is None:
            return True
        if not state.sees_activity:
            self._next = 0.0  # they are listed as soon as it is granted
            self._latest.users_listed(None)
            return False
        if self._clock() < self._next and not (self._waits and self._may_delete()):
            return True
        if self._clock() >= self._hour_ends:
            self._hour_ends, self._sent = self._clock() + LISTING_SECONDS, 0
        self._next, self._waits = self._clock() + LISTING_SECONDS, not self._may_delete()
        try:
            found = read_idle_users(self._hub, state, self._cull)
        except HubError as error:
            return self._failed(error)
        self._latest.users_listed(found)
        counts = " ".join(f"{verdict}:{count}" for verdict, count in sorted(found.counts.items()))
        fields = {"idle": len(found.users), "verdicts": counts, "unreadable": found.unreadable}
        log.info("users_listed", **fields)
        return self._deleter is None or self._delete(self._deleter, found)

    def _may_delete(self) -> bool:
        return self._deleter is not None and self._deleter.closed() is None

    def _failed(self, error: HubError) -> bool:
        self._latest.users_listed(None)
        if error.cause is not Cause.TIMEOUT:  # a Hub that is slow is not asked again so soon
            self._next = self._clock() + _AFTER_FAILURE_SECONDS
        log.error("users_not_listed", cause=error.cause, error=str(error))
        return False

    def _delete(self, deleter: Deleter, found: IdleUsers) -> bool:
        """Delete the candidates, and publish what is known by then of those who are idle."""
        became = deleter.delete(found, self._sent)
        self._sent = became.sent
        self._waits = self._waits or became.ended is UserKept.GATE
        if became.ended is UserKept.LOOK_FAILED:
            self._next = self._clock() + _AFTER_FAILURE_SECONDS
        self._latest.users_listed(replace(found, users=became.left))
        return became.worked
