"""A large Hub is read in full at every fourth poll; in between only where something changed."""

import random
from collections.abc import Callable
from typing import Any

import fake_hub as faults
import pytest
from culling_rig import HOUR, MakeRig, Rig
from fake_hub import FakeHub, Server

from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.active_users import ActiveUsers
from hub_idle_exporter.hub.client import Hub, UserListing
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token

USERS = 300
FULL, CHANGES, COUNT = "full", "changes", "count"


class Polls:
    """A large Hub and who reads its users at each poll; its clock moves a minute a poll."""

    def __init__(self, hub: FakeHub, users: int = USERS) -> None:
        self.now = 1_000_000.0
        self.hub = hub
        hub.clock = lambda: self.now
        for number in range(users):
            hub.add_server(f"u{number:03}", idle=HOUR + number)
        self.reads = ActiveUsers(self.client(), lambda: self.now)

    def client(self) -> Hub:
        connection = ConnectionSettings(self.hub.url, page_size=50)
        return Hub(
            connection, Token.read_by(lambda: self.hub.admin_token), wait=lambda _seconds: None
        )

    def may(self, *scopes: str) -> None:
        self.hub.tokens[self.hub.admin_token].scopes = [*scopes]

    def poll(self, after: float = 60.0) -> UserListing:
        self.now += after
        self.hub.requests.clear()
        return self.reads.read()

    def asked(self) -> list[str]:
        """Name what the last poll asked for, once each."""
        return list(dict.fromkeys(map(_kind, self.hub.log("GET", "/users"))))

    def kinds(self, polls: int, after: float = 60.0) -> list[str]:
        """Poll so often; name what each poll asked for first."""
        found = []
        for _ in range(polls):
            self.poll(after)
            found.append(self.asked()[0])
        return found

    def use(self, server: Server) -> None:
        server.last_activity = server.user.last_activity = self.hub.now()


def _kind(request: Any) -> str:
    if "sort" in request.query:
        return CHANGES
    return COUNT if request.query["limit"] == "1" else FULL


@pytest.fixture
def polls(fake_hub: FakeHub) -> Polls:
    return Polls(fake_hub)


def names(listing: UserListing) -> set[str]:
    return {name for name, user in listing.users.items() if user.seen_servers}


def test_every_fourth_poll_is_full(polls: Polls) -> None:
    assert polls.kinds(9) == [FULL, CHANGES, CHANGES, CHANGES] * 2 + [FULL]


def test_in_between_one_page_and_the_number_of_users_are_read(polls: Polls) -> None:
    first = polls.poll()
    second = polls.poll()
    assert polls.asked() == [CHANGES, COUNT]
    assert len(polls.hub.log("GET", "/users")) == 2
    assert second.users == first.users
    assert (second.now - first.now, second.full_at) == (60.0, first.now)


@pytest.mark.parametrize(
    ("interval", "kinds"),
    [
        (1, [FULL, *[CHANGES] * 3, FULL]),
        (200, [FULL, *[CHANGES] * 3, FULL]),
        (201, [FULL] * 5),
    ],
)
def test_where_polls_are_rare_every_list_is_full(
    polls: Polls, interval: float, kinds: list[str]
) -> None:
    """By then most of those at work have reported activity."""
    assert polls.kinds(5, after=interval) == kinds


def test_who_starts_between_the_list_and_the_count_is_seen_at_the_second_try(polls: Polls) -> None:
    polls.poll()
    meanwhile = faults.before(lambda: starts(polls))
    polls.hub.plan("GET", "/users", meanwhile, after=1, times=1)
    found = polls.poll()
    assert polls.asked() == [CHANGES, COUNT]
    assert [_kind(one) for one in polls.hub.log("GET", "/users")].count(COUNT) == 2
    assert "new" in names(found)


def starts(polls: Polls) -> None:
    polls.hub.add_server("new", idle=0)


def starts_another(polls: Polls) -> None:
    polls.hub.add_server("u100", "gpu", idle=0)


def uses(polls: Polls) -> None:
    polls.use(polls.hub.server("u299"))


def stops(polls: Polls) -> None:
    server = polls.hub.server("u200")
    polls.use(server)
    server.stopped, server.ready = True, False


def stops_and_starts(polls: Polls) -> None:
    stops(polls)
    starts(polls)


def class_begins(polls: Polls) -> None:
    for number in range(250):
        polls.hub.add_server(f"pupil{number}", idle=0)


def all_are_used(polls: Polls) -> None:
    for number in range(USERS):
        polls.now += 0.001
        polls.use(polls.hub.server(f"u{number:03}"))


def many_sign_in(polls: Polls) -> None:
    starts(polls)
    for number in range(120):
        polls.now += 0.001
        polls.hub.add_user(f"visitor{number}").last_activity = polls.now


@pytest.mark.parametrize(
    "happens",
    [
        starts,
        starts_another,
        uses,
        stops,
        stops_and_starts,
        class_begins,
        all_are_used,
        many_sign_in,
    ],
)
def test_what_happens_at_servers_is_seen_at_the_next_poll(
    polls: Polls, happens: Callable[[Polls], None]
) -> None:
    polls.poll()
    polls.now += 30
    happens(polls)
    found = polls.poll()
    assert polls.asked() == [CHANGES, COUNT]
    expected = polls.client().users().users
    assert found.users == {name: expected[name] for name in found.users}
    assert names(found) == {name for name, user in expected.items() if user.seen_servers}


def test_after_a_class_has_ended_the_next_polls_read_one_page(polls: Polls) -> None:
    """Nobody is active any more: those whose servers have stopped are in front of the others."""
    class_begins(polls)
    polls.poll()
    for number in range(250):
        polls.now += 0.001
        server = polls.hub.server(f"pupil{number}")
        polls.use(server)
        server.stopped, server.ready = True, False
    for _ in range(2):
        assert len(names(polls.poll())) == USERS
    assert polls.asked() == [CHANGES, COUNT]
    assert len(polls.hub.log("GET", "/users")) == 2
    starts(polls)
    assert polls.kinds(2) == [CHANGES, FULL]
    assert "new" in names(polls.reads.read())


def test_that_needs_no_scope_to_see_activity(polls: Polls) -> None:
    polls.may("list:users", "read:servers")
    polls.poll()
    starts(polls)
    uses(polls)
    found = polls.poll()
    assert polls.asked() == [CHANGES, COUNT]
    assert found.users == polls.client().users().users


def test_people_who_only_look_at_the_hub_hide_nobody(polls: Polls) -> None:
    """They move to the front, and the token may not see when they were active."""
    polls.may("list:users", "read:servers")
    polls.poll()
    starts_another(polls)
    visitors = [f"u{number:03}" for number in range(200, 260)]
    for name in random.Random(1).sample(visitors, len(visitors)):
        polls.now += 0.001
        polls.hub.users[name].last_activity = polls.now
    found = polls.poll()
    assert polls.asked() == [CHANGES, COUNT]
    assert found.users == polls.client().users().users


def test_who_was_deleted_is_waited_for_once(polls: Polls) -> None:
    """Somebody in front who had no server: that so many users have servers is as expected."""
    polls.hub.add_user("visitor").last_activity = polls.now
    polls.poll()
    polls.hub.remove_user("visitor")
    polls.poll()
    assert len(polls.hub.log("GET", "/users")) > 2
    polls.poll()
    assert len(polls.hub.log("GET", "/users")) == 2


def test_what_moves_nobody_is_seen_three_polls_later(polls: Polls) -> None:
    polls.poll()
    polls.hub.users["u100"].groups = ("staff",)
    seen = [polls.poll().users["u100"].groups for _ in range(4)]
    assert seen == [(), (), (), ("staff",)]


def deletes(polls: Polls) -> None:
    polls.hub.remove_user("u299")


def loses_a_record(polls: Polls) -> None:
    """As when the Hub finds after a restart that a server is gone."""
    polls.hub.server("u299").stopped = True


def does_not_sort(polls: Polls) -> None:
    polls.hub.plan("GET", "/users", faults.rewritten(_reversed), times=1)


def _reversed(page: Any) -> Any:
    return page | {"items": page["items"][::-1]}


def forgets_activity(polls: Polls) -> None:
    polls.hub.plan("GET", "/users", faults.rewritten(_without_activity), times=1)


def _without_activity(page: Any) -> Any:
    return page | {"items": [one | {"last_activity": None} for one in page["items"]]}


def sends_nobody(polls: Polls) -> None:
    polls.hub.plan("GET", "/users", faults.rewritten(lambda page: page | {"items": []}), times=1)


def sends_what_is_unreadable(polls: Polls) -> None:
    server = polls.hub.server("u100")
    server.extra = {"ready": "perhaps"}
    polls.use(server)


@pytest.mark.parametrize(
    "happens",
    [
        deletes,
        loses_a_record,
        does_not_sort,
        forgets_activity,
        sends_nobody,
        sends_what_is_unreadable,
    ],
)
def test_in_doubt_the_list_is_read_in_full_at_once(
    polls: Polls, happens: Callable[[Polls], None]
) -> None:
    polls.poll()
    happens(polls)
    found = polls.poll()
    assert (polls.asked()[0], polls.asked()[-1]) == (CHANGES, FULL)
    assert found.full_at == found.now
    assert ("u299" in names(found)) == (happens not in (deletes, loses_a_record))


def hides(polls: Polls) -> None:
    polls.may("list:users", "read:servers!user=u100")


def is_unreadable(polls: Polls) -> None:
    polls.hub.server("u100").extra = {"ready": "perhaps"}


def is_incomplete(polls: Polls) -> None:
    def fewer(page: Any) -> Any:
        return page | {"_pagination": page["_pagination"] | {"total": USERS + 50}}

    polls.hub.plan("GET", "/users", faults.rewritten(fewer))


def is_old(polls: Polls) -> None:
    polls.hub.version = "4.1.6"


@pytest.mark.parametrize("lacks", [hides, is_unreadable, is_incomplete, is_old])
def test_where_something_is_amiss_every_list_is_full(
    polls: Polls, lacks: Callable[[Polls], None]
) -> None:
    lacks(polls)
    assert polls.kinds(4) == [FULL] * 4


def test_a_small_hub_is_read_in_full_at_every_poll(fake_hub: FakeHub) -> None:
    assert Polls(fake_hub, users=200).kinds(4) == [FULL] * 4


@pytest.mark.parametrize("fails", [CHANGES, COUNT])
def test_after_a_failed_poll_the_list_is_full(polls: Polls, fails: str) -> None:
    polls.poll()
    failing = [fails]

    def fault(request: Any, answer: Callable[[], Any]) -> Any:
        return faults.reply(500) if _kind(request) in failing else answer()

    polls.hub.plan("GET", "/users", fault)
    with pytest.raises(HubError):
        polls.poll()
    assert polls.asked()[-1] == fails
    failing.clear()
    assert polls.kinds(3) == [FULL, CHANGES, CHANGES]


# -- what a poll of changes cannot see stops nobody


@pytest.fixture
def rig(make_rig: MakeRig, fake_hub: FakeHub) -> Rig:
    rig = make_rig(busy_check="off")
    for number in range(USERS):
        fake_hub.add_server(f"u{number:03}", idle=60 + number)
    return rig


def test_activity_that_no_list_shows_is_seen_before_a_stop(rig: Rig) -> None:
    """A server reports activity with a time in the past, behind many who have not changed."""
    server = rig.hub.add_server("ana", idle=HOUR - 30)
    assert rig.poll()
    rig.watch(60)
    server.last_activity = rig.hub.now() - 200
    assert rig.poll()
    assert rig.latest.state.snapshot is not None
    assert rig.latest.state.snapshot.full_list_age == 60
    assert (rig.withheld("active_again"), rig.stops()) == (1, [])


def is_away(rig: Rig) -> None:
    rig.hub.plan("GET", "/user", faults.always(faults.reply(503)))


def lacks_a_scope(rig: Rig) -> None:
    rig.hub.plan("GET", "/user", faults.rewritten(lambda user: user | {"scopes": []}))


@pytest.mark.parametrize("fails", [is_away, lacks_a_scope])
def test_after_a_poll_that_failed_elsewhere_the_list_is_full(
    rig: Rig, fails: Callable[[Rig], None]
) -> None:
    """Or the facts would be as old as if all polls had failed."""
    assert rig.poll()
    fails(rig)
    rig.watch(60)
    assert not rig.poll()
    rig.hub.heal()
    rig.watch(60)
    assert rig.poll()
    assert rig.latest.state.snapshot is not None
    assert rig.latest.state.snapshot.full_list_age == 0


def test_the_metrics_say_from_when_the_facts_are(rig: Rig) -> None:
    def seen() -> tuple[float, float]:
        return (rig.counted("list_timestamp_seconds"), rig.counted("full_list_timestamp_seconds"))

    assert rig.poll()
    first = seen()
    rig.watch(60)
    assert rig.poll()
    assert seen() == (first[0] + 60, first[1])
    assert first[0] == first[1]
