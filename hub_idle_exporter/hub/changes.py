"""Bring a list of users with servers up to date from those who were active last.

A Hub moves a user to the front of its users by last activity when one of their servers starts, has
stopped or reports activity, and when they look at a page of the Hub. So what has changed since the
poll before is in front, and the others come after it in the order that they had.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from msgspec import UnsetType

from ..domain.model import User, utc

# Activity may be reported late, so that some of what is new is behind some that is not.
FEWEST_READ = 25
# Users who come one after another as they did before: by chance they hardly ever do.
_IN_A_ROW = 5
# Give up after so many users who had no server before either.
_MOST_OTHERS = 200
# Of those who are not in front no place is needed: it would only take memory.
_MOST_REMEMBERED = 5000


class Order:
    """The names of users, those last active first, as they were last read."""

    def __init__(self) -> None:
        self.names: Sequence[str] = ()

    def put_in_front(self, read: Iterable[str]) -> None:
        """Remember who is in front now; the others stay behind them, also who was deleted."""
        names = dict.fromkeys([*read, *self.names])
        self.names = tuple(names)[:_MOST_REMEMBERED]


class Changes:
    """Takes pages of all users, those last active first, until they go on as they did before.

    `users` are those with servers by then. `is_doubtful` tells that they may be wrong. `read` are
    the users read, in their order.

    Args:
        known: the users with servers as of the poll before, by name.
        order: the users, with servers or not, as they were last read.
    """

    def __init__(self, known: Mapping[str, User], order: Order) -> None:
        self._known, self._unseen = known, set(known)
        self._order = order.names
        self.users, self.is_doubtful = dict(known), False
        self.read: dict[str, None] = {}
        self._others = self._in_a_row = self._reached = 0
        self._goes_on = False  # from somewhere on as before

    def take(self, page: Sequence[User]) -> bool:
        """Take the next page, not empty; return True when no more are needed."""
        new = [one for one in page if self._is_new(one)]
        for user in page:
            if user.name not in self.read:  # meanwhile users move to the front: pages may overlap
                self._place(user)
        self._bring_up_to_date(new)
        self._unseen.difference_update(one.name for one in page)
        if self._others > _MOST_OTHERS or not _is_in_order(page):
            self.is_doubtful = True
        if _is_of_one_moment(page):
            self._goes_on = False
        nothing_left = not self._unseen and not new
        is_enough = (self._goes_on or nothing_left) and len(self.read) >= FEWEST_READ
        return self.is_doubtful or is_enough

    def _place(self, user: User) -> None:
        """Note whether a user comes as before: all who were in front of it still are."""
        self._others += not user.servers and user.name not in self._known
        if user.name != self._next_as_before():
            self._in_a_row = 0
        elif not self._is_new(user):
            self._in_a_row += 1
            self._goes_on = self._goes_on or self._in_a_row >= _IN_A_ROW
        self.read[user.name] = None

    def _next_as_before(self) -> str | None:
        """Return who comes next if nobody else has moved to the front."""
        while self._reached < len(self._order):
            if self._order[self._reached] not in self.read:
                return self._order[self._reached]
            self._reached += 1
        return None

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

    Nobody has a server without ever having been active. Some databases sort by whole seconds.
    """
    times = [one.last_activity for one in page if isinstance(one.last_activity, datetime)]
    shown = [utc(one).replace(microsecond=0) for one in times]
    never = any(one.last_activity is None and one.servers for one in page)
    return not never and all(earlier >= later for earlier, later in pairwise(shown))


def _is_of_one_moment(page: Sequence[User]) -> bool:
    """Tell whether all were last active at the same time, or never: then they are in no order."""
    first, last = page[0].last_activity, page[-1].last_activity
    return len(page) > 1 and not isinstance(first, UnsetType) and first == last
