"""The users with servers at each poll: read in full, or only where something has changed."""

from .client import Hub, UserListing

# Up to here the full list is a few pages: hardly more than it takes to ask what has changed.
_FEW_USERS = 200
# What moves no user to the front (groups, a database that is edited) is seen by then.
_POLLS, _SECONDS = 3, 600.0


class ActiveUsers:
    """Reads the users with servers; on a large Hub, every third time in full.

    In between it reads those whose servers were started, stopped or used, and compares how many
    have servers. If that leaves any doubt, the list is read in full at once.

    Args:
        hub: the Hub to read.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._newest: UserListing | None = None
        self._polls = 0  # since the list was read in full, that one included

    def read(self) -> UserListing:
        """Return the users with servers now; raise HubError."""
        before, self._newest = self._newest, None  # nothing is built on after a failure
        listing = None
        if before is not None and self._may_go_on_from(before):
            listing = self._hub.changed_users(before)
        self._polls = self._polls + 1 if listing is not None else 1
        self._newest = listing if listing is not None else self._hub.users()
        return self._newest

    def _may_go_on_from(self, before: UserListing) -> bool:
        return (
            self._hub.sorts_users
            and self._polls < _POLLS
            and before.now - before.full_at < _SECONDS
            and len(before.users) > _FEW_USERS
            and before.complete
            and not before.unreadable
            and not before.hidden_users
        )
