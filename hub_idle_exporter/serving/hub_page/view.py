"""What the page inside the Hub shows to somebody, computed from what the desk answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...clocks import read_clocks
from ...journal import Entry
from ...people.desk import Desk, ServerNow, Visitor
from .listing import Listing, Query, listing_of

MOST_ENDED, MOST_ENDED_OF_ALL = 5, 20


@dataclass(frozen=True)
class Everybody:
    """What only administrators see; `listing` is None if the last poll failed."""

    listing: Listing | None
    ended: Sequence[Entry]


@dataclass(frozen=True)
class View:
    """What one visitor sees, at the time `now` of our clock (seconds since 1970)."""

    visitor: Visitor
    now: float
    said: str
    own: Sequence[ServerNow]
    ended: Sequence[Entry]
    everybody: Everybody | None
    query: Query


def view_of(desk: Desk, visitor: Visitor, query: Query) -> View:
    """Ask the desk; raise HubError."""
    return View(
        visitor=visitor,
        now=read_clocks().wall,
        said=desk.said(),
        own=sorted(desk.servers_of(visitor.name), key=lambda one: one.judged.server),
        ended=desk.ended(visitor.name)[:MOST_ENDED],
        everybody=_everybody(desk, query) if visitor.admin else None,
        query=query,
    )


def _everybody(desk: Desk, query: Query) -> Everybody:
    servers = desk.all_servers()
    return Everybody(
        None if servers is None else listing_of(servers, query),
        desk.ended()[:MOST_ENDED_OF_ALL],
    )
