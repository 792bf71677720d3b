"""One list of users, read page by page while people come and go."""

from typing import Generic

from ..domain.labels import Cause
from ..domain.model import AnyUser, Next
from .decoding import DecodedUsers
from .errors import HubError


class UserPages(Generic[AnyUser]):
    """Collects the pages of one list, and decides which offset to read next.

    If users disappeared between two pages, the next users may have moved up past the offset. The
    list is then read again from earlier by that many: as often as it has pages, and ten times
    more. Otherwise a user who comes and goes could keep it from ever ending.

    Args:
        where: the Hub, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.users: dict[str, AnyUser] = {}
        self._left_out: dict[str, None] = {}
        self._total, self.crowd_left = 0, False
        self._farthest, self._pages, self._read_again = -1, 0, 0

    def take(self, page: DecodedUsers[AnyUser], offset: int) -> int | None:
        """Take the page at `offset`; return the offset of the next one, None at the end."""
        for user in page.users:
            self.users[user.name] = user
        for name in page.unreadable:
            self.users.pop(name, None)
            self._left_out[name] = None
        vanished = self._vanished(page.pagination.total)
        if offset > self._farthest:
            self._farthest, self._pages = offset, self._pages + 1
        if vanished and offset and self._read_again < self._pages + 10:
            self._read_again += 1
            return max(0, offset - vanished)
        return next_offset(offset, page.pagination.next, self._where)

    def _vanished(self, total: int) -> int:
        """Return by how many users the list has become shorter since the page before."""
        before, self._total = self._total, total
        vanished = max(0, before - total)
        self.crowd_left = self.crowd_left or is_crowd(vanished, before)
        return vanished

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Return those who cannot be decoded: names, or numbers where there is no name."""
        return tuple(name for name in self._left_out if name not in self.users)

    def is_complete(self, counts_users: bool) -> bool:
        """Tell whether no crowd is missing; `counts_users` tells whether `total` counts users.

        A few may be: whoever is in the list is looked at again before a stop, and whoever is not
        is not stopped. A crowd that is missing means that the list itself is wrong.
        """
        seen = len(self.users) + len(self.unreadable)
        missing = counts_users and is_crowd(self._total - seen, self._total)
        return not (self.crowd_left or missing)


def is_crowd(users: int, total: int) -> bool:
    """Tell whether this is more than come and go by themselves: over 10 and 1 % of a list."""
    return users > 10 + total / 100


def next_offset(offset: int, following: Next | None, where: str) -> int | None:
    """Return where the Hub says that the next page begins, None at the end of a list."""
    if following is not None and following.offset <= offset:
        why = f"{where} names a next page that does not advance past offset {offset}"
        raise HubError(Cause.RESPONSE, why)
    return None if following is None else following.offset
