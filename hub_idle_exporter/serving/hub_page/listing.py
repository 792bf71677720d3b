"""Which servers an administrator sees, in which order: filters, sorting and pages of the list."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode

from ...domain.str_enum import StrEnum
from ...people.desk import ServerNow
from ..reading import ServerFilter

PAGE_SIZE = 50
_ANY = ServerFilter()


class Sort(StrEnum):
    """What the list is sorted by."""

    DUE = "due"
    IDLE = "idle"
    AGE = "age"
    USER = "user"
    SERVER = "server"
    STATE = "state"
    POLICY = "policy"
    KEPT = "kept"


_LAST = float("inf")
# What these begin with is the largest, the oldest, the latest.
_FALLING = (Sort.IDLE, Sort.AGE, Sort.KEPT)
_KEYS: Mapping[Sort, Callable[[ServerNow], tuple[object, ...]]] = {
    Sort.DUE: lambda one: (_LAST if one.due is None else one.due,),
    Sort.IDLE: lambda one: (-(one.judged.idle or 0.0),),
    Sort.AGE: lambda one: (-(one.judged.age or 0.0),),
    Sort.USER: lambda one: (one.judged.user.casefold(),),
    Sort.SERVER: lambda one: (one.judged.server.casefold(),),
    Sort.STATE: lambda one: (one.judged.state,),
    Sort.POLICY: lambda one: (one.judged.policy.name,),
    Sort.KEPT: lambda one: (-one.keep.until if one.keep else 0.0,),
}


@dataclass(frozen=True)
class Query:
    """What was asked for; what cannot be read counts as not asked for."""

    NAMES: ClassVar = ("user", "state", "policy", "reason", "kept", "sort", "reverse", "page")

    user: str = ""
    which: ServerFilter = _ANY
    kept: bool = False
    sort: Sort = Sort.DUE
    reverse: bool = False
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Query":
        """Read the query of the page."""
        try:
            which = ServerFilter.of(query)
        except ValueError:
            which = _ANY
        sort, page = query.get("sort", ""), query.get("page", "")
        return cls(
            user=query.get("user", "").strip(),
            which=which,
            kept=bool(query.get("kept")),
            sort=Sort(sort) if sort in [*Sort] else Sort.DUE,
            reverse=bool(query.get("reverse")),
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        )

    @classmethod
    def read(cls, address: str) -> "Query":
        """Read the query of an address of the page."""
        return cls.of(dict(parse_qsl(address.removeprefix("?"))))

    @property
    def filters(self) -> bool:
        """Tell whether only some are asked for."""
        return bool(self.user or self.which or self.kept)

    @property
    def falls(self) -> bool:
        """Tell whether the list goes from what is more to what is less."""
        return (self.sort in _FALLING) is not self.reverse

    def address(self) -> str:
        """Write the query of an address of the page."""
        which = self.which
        given = {
            "user": self.user, "state": which.state, "policy": which.policy,
            "reason": which.reason, "kept": self.kept and "1",
            "sort": self.sort if self.sort is not Sort.DUE else "",
            "reverse": self.reverse and "1", "page": self.page if self.page > 1 else "",
        }  # fmt: skip
        written = urlencode({name: str(value) for name, value in given.items() if value})
        return f"?{written}" if written else ""

    def sorted_by(self, sort: Sort) -> "Query":
        """Sort by something else, or the other way round."""
        return replace(self, sort=sort, reverse=sort is self.sort and not self.reverse, page=1)

    def at(self, page: int) -> "Query":
        """Turn to a page."""
        return replace(self, page=page)

    def holds(self, one: ServerNow) -> bool:
        """Tell whether a server is asked for."""
        return (
            (not self.kept or one.keep is not None)
            and self.user.casefold() in one.judged.user.casefold()
            and self.which.holds(one.judged)
        )


@dataclass(frozen=True)
class Listing:
    """One page of the servers that were asked for; `matching` is how many there are on all."""

    query: Query
    shown: Sequence[ServerNow]
    matching: int
    total: int
    policies: Sequence[str]

    @property
    def pages(self) -> int:
        """Return how many pages there are."""
        return max(1, -(-self.matching // PAGE_SIZE))

    @property
    def first(self) -> int:
        """Return the number of the first server shown."""
        return (self.query.page - 1) * PAGE_SIZE + 1


def listing_of(servers: Sequence[ServerNow], query: Query) -> Listing:
    """Return the page that was asked for, or the last one."""
    matching = [one for one in servers if query.holds(one)]
    matching.sort(key=lambda one: (_KEYS[query.sort](one), one.judged.key), reverse=query.reverse)
    pages = max(1, -(-len(matching) // PAGE_SIZE))
    page = min(max(query.page, 1), pages)
    return Listing(
        query.at(page),
        matching[(page - 1) * PAGE_SIZE : page * PAGE_SIZE],
        len(matching),
        len(servers),
        sorted({one.judged.policy.name for one in servers}),
    )
