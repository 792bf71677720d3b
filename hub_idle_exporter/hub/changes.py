"""Bring a list of users with servers up to date from those who were active last.

A Hub moves a user to the front of its users by last activity when one of their servers starts, has
stopped or reports activity. So what has changed since the poll before is in front.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import UnsetType

from ..domain.model import User, utc

# So many who were active, but had no server, may be in between.
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
        self._others = 0
        self._last: datetime | None = None

    def take(self, page: Sequence[User]) -> bool:
        """Take the next page; tell whether that is enough."""
        seen = [one for one in page if one.name in self._known]
        new = [one for one in page if self._is_new(one)]
        for user in new:
            if user.servers:
                self.users[user.name] = user
            else:
                self.users.pop(user.name, None)
        self._unseen.difference_update(one.name for one in seen)
        self._others += sum(not one.servers and one.name not in self._known for one in page)
        if self._others > _MOST_OTHERS or not self._is_in_order(page):
            self.is_doubtful = True
        tells = bool(seen) or not self._unseen
        return self.is_doubtful or (tells and not new and not _is_of_one_moment(page))

    def _is_new(self, user: User) -> bool:
        known = self._known.get(user.name)
        return bool(user.servers) if known is None else user != known

    def _is_in_order(self, page: Sequence[User]) -> bool:
        """Tell whether nobody on the page was active after those before, as far as it is shown.

        Nobody has a server without ever having been active.
        """
        for user in page:
            moment = user.last_activity
            if isinstance(moment, datetime):
                if self._last is not None and utc(moment) > self._last:
                    return False
                self._last = utc(moment)
            elif moment is None and user.servers:
                return False
        return True


def _is_of_one_moment(page: Sequence[User]) -> bool:
    """Tell whether all were last active at the same time: then they are in no order."""
    first, last = page[0].last_activity, page[-1].last_activity
    return len(page) > 1 and not isinstance(first, UnsetType) and first == last
