"""Whether a list of users with servers can be brought up to date from the users last active."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.hub.changes import Changes, Order


@pytest.fixture(scope="module", autouse=True)
def small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hub_idle_exporter.hub.changes.FEWEST_READ", 1)
        patch.setattr("hub_idle_exporter.hub.changes._IN_A_ROW", 1)
        yield


NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def user(name: str, minute: float | None = 0.0, servers: Sequence[str] = ("",)) -> User:
    when = None if minute is None else at(minute)
    running = {one: Server(ready=True, started=NOON, last_activity=when) for one in servers}
    return User(name, servers=running, last_activity=when)


def known(*users: User) -> dict[str, User]:
    return {one.name: one for one in users}


ANA, BOB, EVE = user("ana", 3), user("bob", 2), user("eve", 1)
OLD = known(ANA, BOB, EVE)


def ordered(*names: str) -> Order:
    """Those who were last active first."""
    order = Order()
    order.put_in_front(names)
    return order


def test_a_page_of_nothing_new_is_enough() -> None:
    changes = Changes(OLD, ordered(*OLD))
    assert changes.take([ANA, BOB])
    assert (changes.users, changes.is_doubtful) == (OLD, False)


@pytest.mark.parametrize(
    "first",
    [
        user("new", 5),
        user("bob", 5),
        user("bob", 5, ["", "gpu"]),
        user("bob", 5, []),
        user("ana", 5),
    ],
    ids=["started", "used", "another server", "stopped", "used, and was in front before"],
)
def test_what_has_changed_is_taken_and_the_next_page_read(first: User) -> None:
    changes = Changes(OLD, ordered(*OLD))
    assert not changes.take([first])
    assert changes.take([one for one in (ANA, BOB, EVE) if one.name != first.name])
    without = {name: one for name, one in OLD.items() if name != first.name}
    assert changes.users == without | (known(first) if first.servers else {})
    assert not changes.is_doubtful


def test_a_page_of_people_without_servers_says_nothing() -> None:
    """Many may sign in at the start of a class; who has a server comes after them."""
    changes = Changes(OLD, ordered(*OLD))
    assert not changes.take([user("one", 9, []), user("two", 8, [])])
    assert changes.take([ANA, BOB])


def test_some_users_are_read_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tiny pages (`--api-page-size=1`) one who was not used would end it."""
    monkeypatch.setattr("hub_idle_exporter.hub.changes.FEWEST_READ", 25)
    many = [user(f"u{number}", -number) for number in range(60)]
    changes = Changes(known(*many), ordered(*(one.name for one in many)))
    assert [changes.take([one]) for one in many[:25]] == [False] * 24 + [True]


def test_once_all_who_were_known_were_seen_a_page_of_others_is_enough() -> None:
    used = [replace(one, last_activity=at(5)) for one in OLD.values()]
    changes = Changes(OLD, ordered(*OLD))
    assert not changes.take(used)
    assert changes.take([user("nobody", 0.5, []), user("none", 0, [])])
    assert (changes.users, changes.is_doubtful) == (known(*used), False)


def test_a_page_in_another_order_is_doubtful() -> None:
    """As of what says to be a Hub, but does not sort."""
    changes = Changes(OLD, ordered(*OLD))
    assert changes.take([EVE, BOB])
    assert changes.is_doubtful


def test_pages_may_overlap_while_users_move_to_the_front() -> None:
    changes = Changes(OLD, ordered(*OLD))
    moved = user("bob", 9)
    assert not changes.take([user("new", 10), moved])
    assert changes.take([moved, ANA, EVE])
    assert not changes.is_doubtful


def test_a_server_of_somebody_who_was_never_active_is_doubtful() -> None:
    changes = Changes(OLD, ordered(*OLD))
    assert changes.take([user("new", None)])
    assert changes.is_doubtful
    assert not Changes(OLD, ordered(*OLD)).take([user("nobody", None, [])])


def test_a_page_of_one_moment_is_in_no_order() -> None:
    """As after somebody has edited the database."""
    same = known(*(user(name, 1) for name in ("ana", "bob", "eve")))
    changes = Changes(same, ordered(*same))
    assert not changes.take([same["ana"], same["bob"]])
    assert changes.take([same["eve"]])


def test_it_ends_among_many_who_have_no_server() -> None:
    changes, pages = Changes(OLD, ordered(*OLD)), 0
    while pages < 9 and not changes.take([user(f"u{pages}-{n}", -pages, []) for n in range(50)]):
        pages += 1
    assert changes.is_doubtful
    assert pages == 4


# -- who has moved to the front, though nothing else about them is new


UNSEEN = {name: User(name, servers=one.servers) for name, one in OLD.items()}


@pytest.mark.parametrize(
    "front",
    [["bob"], ["eve"], ["eve", "bob"], ["bob", "eve"]],
    ids=" ".join,
)
def test_people_who_only_looked_at_the_hub_hide_nothing(front: list[str]) -> None:
    """They move to the front, and only their place tells: most tokens may not see when."""
    changes = Changes(UNSEEN, ordered(*UNSEEN))
    assert not changes.take([UNSEEN[name] for name in front])
    used = user("ana", 5, ["", "gpu"])
    assert not changes.take([User("ana", servers=used.servers)])


def test_after_them_the_others_come_as_before() -> None:
    changes = Changes(UNSEEN | known(user("fay")), ordered("ana", "bob", "eve", "fay"))
    assert not changes.take([UNSEEN["eve"]])
    assert changes.take([UNSEEN["ana"], UNSEEN["bob"]])


def test_the_same_order_by_chance_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_idle_exporter.hub.changes._IN_A_ROW", 3)
    changes = Changes(UNSEEN, ordered(*UNSEEN))
    assert not changes.take([UNSEEN["ana"], UNSEEN["bob"]])
    assert changes.take([UNSEEN["eve"]])


def test_others_may_come_after_those_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do after the first poll, which knows only who was in front."""
    monkeypatch.setattr("hub_idle_exporter.hub.changes._IN_A_ROW", 2)
    changes = Changes(UNSEEN, ordered("ana", "bob"))
    assert changes.take([UNSEEN["ana"], UNSEEN["bob"], UNSEEN["eve"]])
    changes = Changes(UNSEEN, ordered("ana", "eve"))
    assert not changes.take([UNSEEN["ana"], UNSEEN["bob"]])


def test_without_an_order_all_are_read() -> None:
    changes = Changes(UNSEEN, Order())
    assert not changes.take([UNSEEN["ana"], UNSEEN["bob"]])
    assert changes.take([UNSEEN["eve"]])


GONE = [user(f"gone{n}", 60 - n, []) for n in range(300)]


def test_after_many_have_stopped_the_next_poll_ends_among_them() -> None:
    """They stay in front of all who still work until somebody is active."""
    order = ordered(*OLD)
    first = Changes(OLD | known(*(user(one.name, -1) for one in GONE)), order)
    assert not first.take(GONE)
    assert first.take([ANA, BOB])
    assert first.users == OLD
    order.put_in_front(first.read)
    second = Changes(first.users, order)
    assert second.take(GONE[:5])
    assert (second.users, second.is_doubtful) == (OLD, False)


def test_a_crowd_without_servers_makes_a_list_doubtful_once() -> None:
    order = ordered(*OLD)
    first = Changes(OLD, order)
    assert first.take(GONE)
    assert first.is_doubtful
    order.put_in_front(first.read)
    second = Changes(OLD, order)
    assert not second.take([user("new", 61)])
    assert second.take(GONE[:50])
    assert not second.is_doubtful


def test_who_was_deleted_is_waited_for_once() -> None:
    order = ordered("gone", *OLD)
    first = Changes(OLD, order)
    assert not first.take([ANA, BOB])
    assert first.take([EVE])
    order.put_in_front(first.read)
    assert Changes(OLD, order).take([ANA])


def test_an_order_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_idle_exporter.hub.changes._MOST_REMEMBERED", 4)
    order = ordered("ana", "bob", "cid", "dan")
    order.put_in_front(["eve", "bob"])
    assert list(order.names) == ["eve", "bob", "ana", "cid"]


def test_a_database_that_sorts_by_seconds_is_in_order() -> None:
    """The Hub shows microseconds of those that it has in memory."""
    one, other = user("one", 9.0), user("other", 9.001)
    changes = Changes(OLD, ordered(*OLD))
    changes.take([one, other])
    assert not changes.is_doubtful


# -- every history of a Hub


@dataclass
class SmallHub:
    """What a Hub does: every change of a server moves its user to the front."""

    minute: float = 0.0
    users: dict[str, User] = field(default_factory=dict)

    def change(self, name: str, servers: Sequence[str] | None) -> None:
        """Start, use or stop servers of a user; None to delete the user."""
        self.minute += 1
        self.users.pop(name, None)
        if servers is not None:
            self.users[name] = user(name, self.minute, servers)

    def active(self) -> dict[str, User]:
        return {name: one for name, one in self.users.items() if one.servers}

    def page(self, size: int, number: int) -> list[User]:
        ordered = sorted(self.users.values(), key=lambda one: str(one.last_activity), reverse=True)
        return ordered[size * number : size * (number + 1)]


SERVERS: Any = st.sampled_from([None, (), ("",), ("gpu",), ("", "gpu")])
CHANGES: Any = st.lists(st.tuples(st.sampled_from("abcdefghij"), SERVERS))


@settings(max_examples=300)
@given(
    before=CHANGES, polls=st.lists(st.tuples(CHANGES, CHANGES), max_size=3), size=st.integers(1, 5)
)
def test_what_moves_users_is_never_missed(before: Any, polls: Any, size: int) -> None:
    """As long as the Hub says that so many users have servers as were found.

    Who is used while the pages are read may be seen or not; everybody else is.
    """
    hub, order = SmallHub(), Order()
    for name, servers in before:
        hub.change(name, servers)
    users, touched, deleted = hub.active(), set[str](), False
    for after, meanwhile in polls:
        for name, servers in after:
            hub.change(name, servers)
        changes = read(hub, Changes(users, order), size, dict(enumerate(meanwhile)))
        order.put_in_front(changes.read)
        deleted |= any(servers is None for _, servers in (*after, *meanwhile))
        touched |= {name for name, _ in meanwhile}
        assert deleted or not changes.is_doubtful
        if deleted or len(changes.users) != len(hub.active()):
            return
        untouched = (hub.active().keys() | changes.users.keys()) - touched
        assert all(changes.users.get(name) == hub.active().get(name) for name in untouched)
        users = changes.users


def read(hub: SmallHub, changes: Changes, size: int, later: Any) -> Changes:
    """Read pages until they are enough; after some of them something changes."""
    number = 0
    while (page := hub.page(size, number)) and not changes.take(page):
        if number in later:
            hub.change(*later[number])
        number += 1
    return changes
