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
# Give up after so many users who had no server before either.
_MOST_STRANGERS = 200
_MOST_REMEMBERED = 1000


class Others:
    """Remembers who had no server, and when they were last active.

    After a class has ended, those whose servers have stopped are in front of all who still work.
    One who has not been active since is where nothing new begins, like one whose servers have not
    changed.
    """

    def __init__(self) -> None:
        self._active: dict[str, datetime] = {}

    def remember(self, users: Sequence[User]) -> None:
        """Remember them, those last active first; if they are many, forget the others.

        Only once a list has been read: while it is, users move from page to page.
        """
        for user in reversed(users):
            self._active.pop(user.name, None)
            if isinstance(user.last_activity, datetime):
                self._active[user.name] = user.last_activity
        for name in list(self._active)[:-_MOST_REMEMBERED]:
            del self._active[name]

    def has_not_moved(self, user: User) -> bool:
        """Tell whether this user without a server was last active when it was remembered."""
        return user.name in self._active and self._active[user.name] == user.last_activity


class Changes:
    """Takes pages of all users, those last active first, until one brings nothing new.

    `users` are those with servers by then. `is_doubtful` tells that they may be wrong.

    Args:
        known: the users with servers as of the poll before, by name.
        others: remembers users without a server.
    """

    def __init__(self, known: Mapping[str, User], others: Others) -> None:
        self._known, self._unseen, self._remembered = known, set(known), others
        self.users, self.is_doubtful = dict(known), False
        self.others = list[User]()
        self._read = self._strangers = 0

    def take(self, page: Sequence[User]) -> bool:
        """Take the next page, not empty; return True when no more are needed."""
        seen = [one for one in page if one.name in self._known]
        others = [one for one in page if not one.servers]
        remembered = [one for one in others if self._remembered.has_not_moved(one)]
        new = [one for one in page if self._is_new(one)]
        self._bring_up_to_date(new)
        self._unseen.difference_update(one.name for one in seen)
        self.others += others
        self._strangers += sum(one.name not in self._known for one in others) - len(remembered)
        self._read += len(page)
        if self._strangers > _MOST_STRANGERS or not _is_in_order(page):
            self.is_doubtful = True
        nothing_new = not new and not _is_of_one_moment(page)
        reaches_known = bool(seen or remembered) or not self._unseen
        is_enough = nothing_new and reaches_known and self._read >= FEWEST_READ
        return self.is_doubtful or is_enough

    def _bring_up_to_date(self, new: Sequence[User]) -> None:
        for user in new:
            if user.servers:
                self.users[user.name] = user
            else:
                self.users.pop(user.name, None)

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
    """Tell whether all were last active at the same time, or never: then they are in no order."""
    first, last = page[0].last_activity, page[-1].last_activity
    return len(page) > 1 and not isinstance(first, UnsetType) and first == last
