"""The list of administrators: filters, sorting, pages, and the addresses that lead there."""

import time
from dataclasses import replace

import pytest
from standing_desk import HOUR, StandingDesk, names

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.serving.hub_page.listing import PAGE_SIZE, Query, Sort, listing_of


@pytest.fixture
def desk() -> StandingDesk:
    made = StandingDesk(time.time())
    made.add("Zoe", idle=60, age=20 * HOUR)
    made.add("ana", "lab", idle=3 * HOUR)
    made.add("gpu-1", idle=600, age=30 * HOUR)
    made.add("staff-sue", idle=9 * HOUR)
    kept = made.servers["ana", "lab"]
    made.servers["ana", "lab"] = replace(kept, keep=Keep(made.now + HOUR, "ana"))
    return made


@pytest.mark.parametrize(
    ("query", "users"),
    [
        ({}, ["ana", "Zoe", "gpu-1", "staff-sue"]),  # what is never stopped is last
        ({"sort": "idle"}, ["staff-sue", "ana", "gpu-1", "Zoe"]),
        ({"sort": "idle", "reverse": "1"}, ["Zoe", "gpu-1", "ana", "staff-sue"]),
        ({"sort": "age"}, ["gpu-1", "Zoe", "ana", "staff-sue"]),
        ({"sort": "user"}, ["ana", "gpu-1", "staff-sue", "Zoe"]),
        ({"sort": "kept"}, ["ana", "Zoe", "gpu-1", "staff-sue"]),
        ({"sort": "policy"}, ["Zoe", "ana", "gpu-1", "staff-sue"]),
        ({"user": "ZO"}, ["Zoe"]),
        ({"policy": "gpu"}, ["gpu-1"]),
        ({"state": "candidate"}, ["ana", "gpu-1"]),
        ({"reason": "max_age"}, ["gpu-1"]),
        ({"state": "idle", "sort": "user"}, ["ana", "staff-sue"]),
        ({"kept": "1"}, ["ana"]),
        ({"kept": "1", "policy": "gpu"}, []),
    ],
)
def test_what_is_listed(desk: StandingDesk, query: dict[str, str], users: list[str]) -> None:
    listing = listing_of(desk.all_servers() or [], Query.of(query))
    assert names(listing.shown) == users
    assert (listing.matching, listing.total) == (len(users), 4)


@pytest.mark.parametrize(
    "odd",
    [
        {"state": "x"},
        {"reason": "x"},
        {"sort": "x"},
        {"page": "-1"},
        {"page": "0"},
        {"page": "9" * 30},
        {"page": "²"},
        {"page": "1.5"},
    ],
)
def test_what_cannot_be_read_counts_as_not_asked_for(
    desk: StandingDesk, odd: dict[str, str]
) -> None:
    assert len(listing_of(desk.all_servers() or [], Query.of(odd)).shown) == 4


def test_the_pages_together_are_the_whole_list() -> None:
    desk = StandingDesk(time.time())
    for number in range(2 * PAGE_SIZE + 1):
        desk.add(f"user-{number:03}")
    servers = desk.all_servers() or []
    pages = [listing_of(servers, Query.of({"sort": "user", "page": f"{n}"})) for n in (1, 2, 3)]
    assert [page.first for page in pages] == [1, PAGE_SIZE + 1, 2 * PAGE_SIZE + 1]
    assert [name for page in pages for name in names(page.shown)] == sorted(
        name for name, _ in desk.servers
    )
    assert {page.pages for page in pages} == {3}
    assert listing_of([], Query()).pages == 1


def test_an_address_leads_back_to_the_same_list() -> None:
    given = {"user": "<a&b=#", "state": "idle", "policy": "x y", "reason": "idle", "kept": "1",
             "sort": "user", "reverse": "1", "page": "3"}  # fmt: skip
    query = Query.of(given)
    assert Query.read(query.address()) == query
    assert Query().address() == ""
    assert Query.read("https://evil.example/?page=2").address() == ""


def test_a_column_is_sorted_the_other_way_the_second_time() -> None:
    once = Query.of({"page": "4"}).sorted_by(Sort.IDLE)
    assert (once.sort, once.reverse, once.falls, once.page) == (Sort.IDLE, False, True, 1)
    assert once.sorted_by(Sort.IDLE).falls is False
    assert once.sorted_by(Sort.USER).falls is False
