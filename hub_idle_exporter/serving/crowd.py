"""Which connection is cut when a port has too many: the one that has waited longest.

So a new connection always gets in, whoever holds the others. One whose request is being answered is
cut only if most are like that, and counts as new after that: a client that sends requests is not
cut in favour of those that only wait.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

_Connection = TypeVar("_Connection", bound=Hashable)


@dataclass(frozen=True)
class Limits:
    """How many connections a port has: in all, of one address, with an answer not yet taken.

    `head` is how long the head of a request may be, in bytes: at each piece that arrives the whole
    head is searched for its end, so it has to be small.
    """

    total: int = 2000
    per_address: int = 1000
    answers: int = 32
    head: int = 8 * 1024

    def within(self, files: int) -> "Limits":
        """Return these limits, or lower ones for a process that may have only so many files open.

        One address keeps its share of them.
        """
        total = min(self.total, max(_FEWEST, files - _OTHER_FILES))
        return replace(self, total=total, per_address=total * self.per_address // self.total)


# Files that the process opens for other purposes: requests to the Hub, questions to servers.
_OTHER_FILES = 200
_FEWEST = 20


@dataclass
class _Guests(Generic[_Connection]):
    """The connections of one address, each from the oldest to the newest (dicts keep order)."""

    waiting: dict[_Connection, None] = field(default_factory=dict)
    asking: dict[_Connection, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.asking)

    def longest(self) -> _Connection:
        """Return the oldest of those that are more: if few wait, they have just come."""
        more = self.waiting if len(self.waiting) >= len(self.asking) else self.asking
        return next(iter(more))


class Crowd(Generic[_Connection]):
    """The open connections of a port.

    Args:
        limits: how many there may be.
        cut: closes a connection.
    """

    def __init__(self, limits: Limits, cut: Callable[[_Connection], None]) -> None:
        self._limits, self._cut = limits, cut
        self._guests: dict[str, _Guests[_Connection]] = {}
        self._addresses: dict[_Connection, str] = {}
        self._unsent: dict[_Connection, None] = {}

    def enter(self, connection: _Connection, address: str) -> None:
        """Add a connection; cut another one if there are too many."""
        key = network_of(address)
        if key in self._guests and len(self._guests[key]) >= self._limits.per_address:
            self._cut_one(self._guests[key].longest())
        elif len(self._addresses) >= self._limits.total:
            self.make_room()
        self._addresses[connection] = key
        self._guests.setdefault(key, _Guests()).waiting[connection] = None

    def make_room(self) -> bool:
        """Cut a connection of the address that has most; tell whether there was one."""
        if not self._guests:
            return False
        most = max(self._guests.values(), key=lambda guests: (len(guests), bool(guests.waiting)))
        self._cut_one(most.longest())
        return True

    def waits(self, connection: _Connection) -> None:
        """Count a connection as a new one that waits: its request, if any, has been answered."""
        if connection in self._addresses:
            key = self._addresses[connection]
            # As the newest: of addresses with as many connections the first one's are cut.
            guests = self._guests[key] = self._guests.pop(key)
            guests.asking.pop(connection, None)
            guests.waiting.pop(connection, None)
            guests.waiting[connection] = None
            self._unsent.pop(connection, None)

    def asks(self, connection: _Connection) -> None:
        """Count a connection as one that has sent a request, and waits for the answer."""
        if connection in self._addresses:
            guests = self._guests[self._addresses[connection]]
            guests.waiting.pop(connection, None)
            guests.asking[connection] = None

    def all_waiting(self) -> list[_Connection]:
        """Return the connections that wait for a request."""
        return [connection for guests in self._guests.values() for connection in guests.waiting]

    def unsent(self, connection: _Connection) -> None:
        """Add a connection whose client has not taken its answer; cut another if too many do so."""
        if connection in self._addresses:
            if len(self._unsent) >= self._limits.answers:
                self._cut_one(self._longest_unsent())
            self._unsent[connection] = None

    def _longest_unsent(self) -> _Connection:
        """Return the oldest one of the address that has most of them."""
        (most, _), *_ = Counter(self._addresses[one] for one in self._unsent).most_common(1)
        return next(one for one in self._unsent if self._addresses[one] == most)

    def leave(self, connection: _Connection) -> None:
        """Forget a connection that has ended."""
        key = self._addresses.pop(connection, None)
        if key is not None:
            self._unsent.pop(connection, None)
            guests = self._guests[key]
            guests.waiting.pop(connection, None)
            guests.asking.pop(connection, None)
            if not guests:
                del self._guests[key]

    def _cut_one(self, connection: _Connection) -> None:
        self.leave(connection)
        self._cut(connection)


def network_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the network, since a host has all of it."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return address
    return str(ip.ipv4_mapped) if ip.ipv4_mapped else str(IPv6Address(int(ip) >> 64 << 64))
