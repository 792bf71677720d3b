"""Bring a list of users with servers up to date from those who were active last.

A Hub moves a user to the front of its users by last activity when one of their servers starts, has
stopped or reports activity. So what has changed since the poll before is in front.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from msgspec import UnsetType

from ..domain.model import User, utc

# Activity may be reported late, so that some of what is new is behind some that is not.
FEWEST_READ = 25
# Give up after so many users without a server.
_MOST_OTHERS = 200


class Changes:
    """Takes pages of all users, those last active first, until one brings nothing new.

    `users` are those with servers by then. `is_doubtful` tells that they may be wrong.

    Args:
        known: the users with servers as of the poll before, by name.
    """

    def __init__(self, known: Mapping[str, User]) -> None:
        self._known, self._unseen = known, set(known)
        self.users, self.is_doubtful = dict(known), False
        self._read = self._others = 0

    def take(self, page: Sequence[User]) -> bool:
        """Take the next page, not empty; return True when no more are needed."""
        seen = [one for one in page if one.name in self._known]
        new = [one for one in page if self._is_new(one)]
        for user in new:
            if user.servers:
                self.users[user.name] = user
            else:
                self.users.pop(user.name, None)
        self._unseen.difference_update(one.name for one in seen)
        self._read += len(page)
        self._others += sum(not one.servers and one.name not in self._known for one in page)
        if self._others > _MOST_OTHERS or not _is_in_order(page):
            self.is_doubtful = True
        nothing_new = not new and not _is_of_one_moment(page)
        reaches_known = self._read >= FEWEST_READ and (bool(seen) or not self._unseen)
        return self.is_doubtful or (nothing_new and reaches_known)

    def _is_new(self, user: User) -> bool:
        known = self._known.get(user.name)
        return bool(user.servers) if known is None else user != known


def _is_in_order(page: Sequence[User]) -> bool:
    """Tell whether nobody was active after those in front, as far as it is shown.

    Nobody has a server without ever having been active. Pages may overlap: meanwhile users move.
    """
    shown = [utc(one.last_activity) for one in page if isinstance(one.last_activity, datetime)]
    never = any(one.last_activity is None and one.servers for one in page)
    return not never and all(earlier >= later for earlier, later in pairwise(shown))


def _is_of_one_moment(page: Sequence[User]) -> bool:
    """Tell whether all were last active at the same time: then they are in no order."""
    first, last = page[0].last_activity, page[-1].last_activity
    return len(page) > 1 and not isinstance(first, UnsetType) and first == last
