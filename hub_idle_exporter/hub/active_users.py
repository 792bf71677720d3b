"""The users with servers at each poll: read in full, or only where something has changed."""

from collections.abc import Callable

from ..clocks import steady
from .changes import Order
from .client import Hub, UserListing

# Up to here the full list is a few pages: hardly more than it takes to ask what has changed.
_FEW_USERS = 200
# What moves no user to the front (groups, a database that is edited) is seen by the fourth poll.
_POLLS = 4
# After longer, most of those at work have reported activity: nearly everything would be new.
_LONGEST_GAP = 200.0


class ActiveUsers:
    """Reads the users with servers; on a large Hub, every fourth time in full.

    In between it reads those whose servers were started, stopped or used, and compares how many
    have servers. If that leaves any doubt, the list is read in full at once.

    Args:
        hub: the Hub to read.
        clock: our clock.
    """

    def __init__(self, hub: Hub, clock: Callable[[], float] = steady) -> None:
        self._hub, self._clock = hub, clock
        self._newest: UserListing | None = None
        self._order = Order()
        self._polls = 0  # since the list was read in full, that one included
        self._asked = 0.0

    def read(self) -> UserListing:
        """Return the users with servers now; raise HubError."""
        listing = self._brought_up_to_date()
        self._polls = self._polls + 1 if listing is not None else 1
        self._newest = listing if listing is not None else self._read_in_full()
        return self._newest

    def forget(self) -> None:
        """Build on nothing known: the next list is read in full."""
        self._newest = None

    def _read_in_full(self) -> UserListing:
        listing = self._hub.users()
        if not self._order.names and self._may_go_on_from(listing):
            self._hub.ask_order(self._order)
        return listing

    def _brought_up_to_date(self) -> UserListing | None:
        """Read only what has changed; None if the list is to be read in full."""
        before, self._newest = self._newest, None  # nothing is built on after a failure
        gap, self._asked = self._clock() - self._asked, self._clock()
        if before is None or gap > _LONGEST_GAP or not self._may_go_on_from(before):
            return None
        return self._hub.changed_users(before, self._order)

    def _may_go_on_from(self, before: UserListing) -> bool:
        return (
            self._hub.sorts_users
            and self._polls < _POLLS
            and len(before.users) > _FEW_USERS
            and before.complete
            and not before.unreadable
            and not before.hidden_users
        )
