"""Which connection is cut when a port has too many, and what counts as one address."""

import pytest

from hub_idle_exporter.serving.crowd import Crowd, Limits, network_of


class Room:
    """A crowd whose connections are numbers; `cut` are those that were cut."""

    def __init__(self, limits: Limits) -> None:
        self.cut: list[int] = []
        self.crowd = Crowd(limits, self.cut.append)

    def enter(self, *connections: int, address: str = "10.0.0.1") -> None:
        for connection in connections:
            self.crowd.enter(connection, address)

    def ask(self, *connections: int) -> None:
        for connection in connections:
            self.crowd.asks(connection)


def test_where_most_are_being_answered_newcomers_are_not_cut_before_they_are_read() -> None:
    room = Room(Limits(total=20, per_address=10))
    room.enter(*range(10))
    room.ask(*range(10))
    room.enter(10, 11, 12)
    assert room.cut == [0, 1, 2]


def test_where_most_wait_one_that_is_being_answered_is_not_cut() -> None:
    room = Room(Limits(total=20, per_address=10))
    room.enter(*range(10))
    room.ask(0, 1, 2)
    room.enter(*range(10, 17))
    assert room.cut == [3, 4, 5, 6, 7, 8, 9]


def test_of_addresses_with_as_many_one_that_waits_is_cut() -> None:
    room = Room(Limits(total=2, per_address=10))
    room.enter(1, address="10.0.0.1")
    room.ask(1)
    room.enter(2, address="10.0.0.2")
    room.enter(3, address="10.0.0.3")
    assert room.cut == [2]


def test_of_addresses_with_as_many_the_one_that_has_waited_longest_is_cut() -> None:
    room = Room(Limits(total=2, per_address=10))
    room.enter(1, address="10.0.0.1")
    room.enter(2, address="10.0.0.2")
    room.ask(1)
    room.crowd.waits(1)  # it was answered, and waits anew
    room.enter(3, address="10.0.0.3")
    assert room.cut == [2]


def test_who_does_not_take_answers_is_cut_before_those_from_elsewhere() -> None:
    room = Room(Limits(total=20, per_address=10, answers=3))
    room.enter(1, address="10.0.0.1")
    room.enter(2, 3, 4, address="10.0.0.2")
    for connection in (1, 2, 3, 4):
        room.crowd.unsent(connection)
    assert room.cut == [2]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_of_ipv6_a_network_counts_as_one_address(address: str, network: str) -> None:
    """A host has all addresses of it."""
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("files", "total", "per_address"),
    [(4096, 2000, 1000), (1024, 824, 412), (256, 56, 28), (64, 20, 10)],
)
def test_where_few_files_may_be_open_there_are_fewer_connections(
    files: int, total: int, per_address: int
) -> None:
    limits = Limits().within(files)
    assert (limits.total, limits.per_address) == (total, per_address)


def test_a_port_with_limits_of_its_own_keeps_to_the_files_too() -> None:
    """The page inside the Hub has all its connections from one address, the Hub's proxy."""
    own = Limits(total=500, per_address=500, answers=64, head=32 * 1024)
    assert own.within(4096) == own
    assert own.within(400) == Limits(total=200, per_address=200, answers=64, head=32 * 1024)
