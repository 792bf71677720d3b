"""The Hub's client against a real local HTTP server: every way in which a request can go wrong."""

import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fake_hub as faults
import pytest
from certipy import Certipy  # type: ignore[import-untyped]
from fake_hub import PROBER, FakeHub, Fault, HttpFake, Reply, Request, closed_port, reply

from hub_idle_exporter.config import internal_tls
from hub_idle_exporter.domain.labels import Cause, Operation
from hub_idle_exporter.domain.model import epoch, seconds
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token, checked_token

NAMES = ["we ird@ex.org", "ünï", "a/b", "a%2Fb", "q?x=1&y#z", "...", 'quo"te', "日本 語"]


class Recorder(HttpFake):
    """Another origin: whatever reaches it is written down."""

    def answer(self, request: Request) -> Reply:
        return reply(200, {"items": [], "_pagination": {"total": 0, "next": None}})


@contextmanager
def recorder() -> Iterator[Recorder]:
    with Recorder() as elsewhere:
        yield elsewhere


def client(
    hub: FakeHub, token: str | None = None, page_size: int = 200, timeout: float = 10, **more: Any
) -> Hub:
    value = hub.token if token is None else token
    connection = ConnectionSettings(hub.url, timeout=timeout, page_size=page_size)
    return Hub(connection, Token.read_by(lambda: value), **{"wait": lambda _seconds: None} | more)


def failure(call: Callable[[], object]) -> HubError:
    with pytest.raises(HubError) as caught:
        call()
    return caught.value


def list_with(hub: FakeHub, fault: Fault, page_size: int = 200, **more: Any) -> HubError:
    """List users while `fault` answers; give the error."""
    hub.plan("GET", "/users", fault)
    return failure(client(hub, page_size=page_size, **more).users)


# ---- pages --------------------------------------------------------------------------------------


def test_pages_are_asked_for_by_offset_and_only_active_users(fake_hub: FakeHub) -> None:
    fake_hub.add_user("nobody-home")
    fake_hub.add_servers(5)
    listing = client(fake_hub, page_size=2).users()
    assert sorted(listing.users) == [f"u{n:06d}" for n in range(5)]
    assert listing.complete
    queries = [request.query for request in fake_hub.log("GET", "/users")]
    assert queries == [
        {"state": "active", "limit": "2", "offset": offset} for offset in ("0", "2", "4")
    ]


def test_next_url_is_never_followed(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(5)
    with recorder() as elsewhere:
        fake_hub.next_origin = elsewhere.origin
        assert len(client(fake_hub, page_size=2).users().users) == 5
        assert elsewhere.log() == []


def test_a_page_size_beyond_the_hubs_own_still_reads_everything(fake_hub: FakeHub) -> None:
    fake_hub.page_limit_max = 3
    fake_hub.add_servers(8)
    assert len(client(fake_hub, page_size=10_000).users().users) == 8


def test_every_request_says_that_it_reads_pages(fake_hub: FakeHub) -> None:
    hub = client(fake_hub)
    hub.ask_version(), hub.identity(), hub.users(), hub.routes()
    accepted = {request.headers["accept"] for request in fake_hub.log()}
    assert accepted == {"application/jupyterhub-pagination+json"}


def without_items(page: Any) -> Any:
    return page | {"items": []}


def test_a_short_page_is_not_the_last(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(5)
    fake_hub.plan("GET", "/users", faults.rewritten(without_items), times=1)
    listing = client(fake_hub, page_size=2).users()
    assert sorted(listing.users) == ["u000002", "u000003", "u000004"]


def test_a_user_who_comes_twice_is_one_user(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(5)
    hub = client(fake_hub, page_size=2)
    first = {"items": [{"name": "u000001", "servers": {"": {"ready": True}}}]}
    fake_hub.plan(
        "GET", "/users", faults.rewritten(lambda page: page | first), after=1, times=1
    )  # fmt: skip
    assert sorted(hub.users().users) == ["u000000", "u000001", "u000004"]


@pytest.mark.parametrize("at_page", [1, 2, 3])
def test_users_deleted_between_pages_hide_nobody_else(fake_hub: FakeHub, at_page: int) -> None:
    fake_hub.add_servers(8)

    def two_leave() -> None:
        fake_hub.remove_user("u000000")
        fake_hub.remove_user("u000001")

    fake_hub.plan("GET", "/users", faults.after(two_leave), after=at_page - 1, times=1)
    listing = client(fake_hub, page_size=2).users()
    assert {f"u{n:06d}" for n in range(2, 8)} <= set(listing.users)


def test_one_leaving_at_every_page_is_read_to_the_end(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(9)
    leaving = iter(range(9))
    leave = faults.after(lambda: fake_hub.remove_user(f"u{next(leaving):06d}"))
    fake_hub.plan("GET", "/users", leave, times=6)
    assert {"u000006", "u000007", "u000008"} <= set(client(fake_hub, page_size=1).users().users)


def toggle(server: Any) -> Callable[[], None]:
    """Stop a server, or start it again: its user leaves the list, or comes back to it."""

    def toggled() -> None:
        server.stopped = not server.stopped

    return toggled


@pytest.mark.parametrize("page_size", [1, 2, 10])
@pytest.mark.parametrize("first", [True, False])
def test_a_server_that_is_toggled_all_the_time_hides_no_crowd(
    fake_hub: FakeHub, page_size: int, first: bool
) -> None:
    """Its user leaves or comes back at every single page, before all others or after them."""
    if first:
        fake_hub.add_server("toggler")
    fake_hub.add_servers(page_size * 60)
    fake_hub.plan("GET", "/users", faults.before(toggle(fake_hub.add_server("toggler"))))
    # Where it is read without end, this ends it.
    fake_hub.plan("GET", "/users", faults.close(), after=1000)
    listing = client(fake_hub, page_size=page_size).users()
    missed = 60 * page_size - len(listing.users.keys() - {"toggler"})
    assert listing.complete == (missed <= 10 + page_size * 60 / 100)
    assert missed == 0 or page_size == 1


@pytest.mark.parametrize(("leaving", "complete"), [(20, True), (21, False)])
def test_a_crowd_is_more_than_ten_and_one_percent_at_once(
    fake_hub: FakeHub, leaving: int, complete: bool
) -> None:
    fake_hub.add_servers(1000)

    def leave() -> None:
        for number in range(leaving):
            fake_hub.remove_user(f"u{number:06d}")

    fake_hub.plan("GET", "/users", faults.after(leave), times=1)
    assert client(fake_hub).users().complete == complete


def test_few_at_a_time_are_no_crowd_however_many_in_the_end(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(600)
    names = iter(list(fake_hub.users)[1:])  # the first is the prober

    def ten_leave() -> None:
        for name in [next(names) for _ in range(10)]:
            fake_hub.remove_user(name)

    fake_hub.plan("GET", "/users", faults.after(ten_leave), times=20)
    assert client(fake_hub, page_size=20).users().complete


@pytest.mark.parametrize("version", ["6.1.1", "4.1.6"])
@pytest.mark.parametrize(("missing", "crowd"), [(10, False), (11, True)])
def test_a_crowd_that_was_never_seen_is_missed_where_the_total_counts_users(
    fake_hub: FakeHub, missing: int, crowd: bool, version: str
) -> None:
    """Before JupyterHub 5 the total counts servers: users with several would look like a loss."""
    fake_hub.version = version
    fake_hub.add_servers(50)
    fake_hub.plan("GET", "/users", faults.rewritten(without_items), times=1)
    listing = client(fake_hub, page_size=missing).users()
    assert len(listing.users) == 50 - missing
    assert listing.complete == (not crowd or version == "4.1.6")


def test_200_users_vanish_while_listing_and_the_list_is_not_whole(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(600)

    def leave() -> None:
        for number in range(200):
            fake_hub.remove_user(f"u{number:06d}")

    fake_hub.plan("GET", "/users", faults.after(leave), times=1)
    assert not client(fake_hub).users().complete


def test_a_hub_that_loses_its_list_is_not_whole(fake_hub: FakeHub) -> None:
    """The first page names 600, the second says that there are none."""
    fake_hub.add_servers(600)
    fake_hub.plan("GET", "/users", faults.after(fake_hub.users.clear), times=1)
    fake_hub.plan("GET", "/users", faults.before(lambda: setattr(fake_hub, "changes", -7)), after=1)
    assert not client(fake_hub).users().complete


@pytest.mark.parametrize("offset", [0, 1, 2, -1])
def test_pages_in_circles_are_refused(fake_hub: FakeHub, offset: int) -> None:
    def circling(page: Any) -> Any:
        page["_pagination"]["next"] = {"offset": offset}
        return page

    fake_hub.add_servers(9)
    fake_hub.plan("GET", "/users", faults.rewritten(circling), after=1, times=5)
    error = failure(client(fake_hub, page_size=2).users)
    assert error.cause is Cause.RESPONSE
    assert "does not advance" in str(error)
    assert len(fake_hub.log("GET", "/users")) == 2


def test_routes_are_read_whole(fake_hub: FakeHub) -> None:
    fake_hub.routes = routes(450)
    assert len(client(fake_hub).routes()) == 451


def test_a_proxy_that_drops_the_accept_header_is_refused(fake_hub: FakeHub) -> None:
    """Without the header the Hub cuts its list at 200 and says nothing."""

    def stripped(request: Request, answer: Callable[[], Reply]) -> Reply:
        return fake_hub.answer(replace(request, headers=request.headers | {"accept": "*/*"}))

    fake_hub.add_servers(3)
    error = list_with(fake_hub, stripped)
    assert error.cause is Cause.RESPONSE


# ---- faults -------------------------------------------------------------------------------------

NO_JSON = "does not answer like a JupyterHub API"
FAULTS: dict[str, tuple[Fault, Cause, str]] = {
    "login page": (faults.html(), Cause.RESPONSE, NO_JSON),
    "empty body": (faults.always(reply(200, b"")), Cause.RESPONSE, NO_JSON),
    "not utf-8": (faults.always(reply(200, b'{"items": ["\xff"]}')), Cause.RESPONSE, NO_JSON),
    "null": (faults.always(reply(200, b"null")), Cause.RESPONSE, NO_JSON),
    "no pagination": (faults.always(reply(200, {"items": []})), Cause.RESPONSE, NO_JSON),
    "deep nesting": (faults.always(reply(200, b"[" * 100_000)), Cause.RESPONSE, NO_JSON),
    "a list without items": (
        faults.always(reply(200, {"_pagination": {"total": 0, "next": None}})),
        Cause.RESPONSE, NO_JSON,
    ),
    "half a list": (
        faults.always(reply(200, b'{"items": [{"name": "ana"}, {"na')), Cause.RESPONSE, NO_JSON,
    ),
    "compressed": (faults.bomb(1), Cause.RESPONSE, "turn off compression"),
    "half a body": (faults.half_body(), Cause.CONNECTION, "cannot be reached"),
    "closed": (faults.close(), Cause.CONNECTION, "cannot be reached"),
    "404": (faults.always(reply(404, "no")), Cause.HTTP, "HTTP 404"),
    "429": (faults.retry_after(429, 7), Cause.HTTP, "HTTP 429"),
    "500": (faults.always(reply(500, "oops")), Cause.HTTP, "HTTP 500"),
    "502": (faults.always(reply(502, "bad gateway")), Cause.HTTP, "HTTP 502"),
    "503": (faults.retry_after(503, 7), Cause.HTTP, "HTTP 503"),
    "204": (faults.always(reply(204, "")), Cause.HTTP, "HTTP 204"),
    "401": (faults.always(reply(401, "who are you?")), Cause.AUTH, "does not know the token"),
    "no Date": (faults.dated(None), Cause.RESPONSE, "Date header"),
    "empty Date": (faults.dated(""), Cause.RESPONSE, "Date header"),
    "garbled Date": (faults.dated("yesterday, about noon"), Cause.RESPONSE, "Date header"),
    "Date without zone": (
        faults.dated("Sun, 22 Nov 2026 21:00:00"), Cause.RESPONSE, "Date header",
    ),
    "impossible Date": (
        faults.dated("Sun, 99 Nov 2026 99:00:00 GMT"), Cause.RESPONSE, "Date header",
    ),
    "Date beyond the calendar": (
        faults.dated("Fri, 31 Dec 9999 23:59:59 -2359"), Cause.RESPONSE, "Date header",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_a_cause_and_one_sentence(fake_hub: FakeHub, name: str) -> None:
    fault, cause, words = FAULTS[name]
    fake_hub.add_servers(3)
    error = list_with(fake_hub, fault)
    assert error.cause is cause
    assert words in str(error)
    assert "\n" not in str(error)
    assert fake_hub.url in str(error)


@pytest.mark.parametrize("page", [2, 3])
# The clock is read on the first page alone.
@pytest.mark.parametrize("name", [name for name in FAULTS if "Date" not in name])
def test_a_fault_on_a_later_page_is_no_short_list(fake_hub: FakeHub, name: str, page: int) -> None:
    fault, cause, _ = FAULTS[name]
    fake_hub.add_servers(5)
    fake_hub.plan("GET", "/users", fault, after=page - 1)
    assert failure(client(fake_hub, page_size=2).users).cause is cause


def changed(user: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> Fault:
    """Answer truly, but with fields of the first user, or of its server, replaced."""

    def change(page: Any) -> Any:
        page["items"][0].update(user or {})
        if server:
            page["items"][0]["servers"][""].update(server)
        return page

    return faults.rewritten(change)


@pytest.mark.parametrize(
    "fault",
    [
        changed({"servers": []}),
        changed({"servers": None}),
        changed({"servers": {"": "running"}}),
        changed({"servers": {"\ud800": {"ready": True}}}),
        changed({"groups": "staff"}),
        changed({"groups": [1]}),
        changed({"admin": "yes"}),
        changed(server={"ready": "yes"}),
        changed(server={"ready": None}),
        changed(server={"pending": True}),
        changed(server={"last_activity": "this morning"}),
        changed(server={"last_activity": 1_700_000_000}),
        changed(server={"started": ""}),
    ],
)
def test_a_user_who_cannot_be_decoded_is_left_out_by_name(fake_hub: FakeHub, fault: Fault) -> None:
    """Not one server less, but a user about whom nothing is known."""
    fake_hub.add_servers(3)
    fake_hub.plan("GET", "/users", fault)
    listing = client(fake_hub).users()
    assert listing.unreadable == ("u000000",)
    assert sorted(listing.users) == ["u000001", "u000002"]
    assert listing.complete


@pytest.mark.parametrize("name", [7, None, "", "\ud800", ["ana"]])
def test_a_user_without_a_readable_name_is_left_out_by_number(
    fake_hub: FakeHub, name: object
) -> None:
    def nameless(page: Any) -> Any:
        page["items"][1]["name"] = name
        return page

    fake_hub.add_servers(5)
    fake_hub.plan("GET", "/users", faults.rewritten(nameless), after=1, times=1)
    listing = client(fake_hub, page_size=2).users()
    assert listing.unreadable == ("number 4 of the list",)
    assert sorted(listing.users) == ["u000000", "u000001", "u000002", "u000004"]


@pytest.mark.parametrize("item", [7, None, "ana", [], {}])
def test_what_is_no_user_at_all_is_left_out_by_number(fake_hub: FakeHub, item: object) -> None:
    fake_hub.add_servers(3)
    fake_hub.plan(
        "GET", "/users", faults.rewritten(lambda page: page | {"items": [*page["items"], item]})
    )
    listing = client(fake_hub).users()
    assert (len(listing.users), listing.unreadable) == (3, ("number 4 of the list",))


def deep_in(fake_hub: FakeHub, user: str, levels: int) -> None:
    """Let a user's options be nested that deep."""
    depth = b"[" * levels + b"]" * levels
    fake_hub.users[user].extra = {"servers": {"": {"ready": True, "user_options": "DEEP"}}}

    def dig(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        return replace(true, body=true.body.replace(b'"DEEP"', depth))

    fake_hub.plan("GET", "/users*", dig)


@pytest.mark.parametrize("levels", [1_000, 10_000, 1_000_000])
def test_options_nested_as_deep_as_a_user_likes_hide_nobody_else(
    fake_hub: FakeHub, levels: int
) -> None:
    fake_hub.add_servers(3)
    deep_in(fake_hub, "u000001", levels)
    hub = client(fake_hub)
    listing = hub.users()
    assert {"u000000", "u000002"} <= set(listing.users)
    assert {*listing.users, *listing.unreadable} == {"u000000", "u000001", "u000002"}


def test_one_look_at_a_user_who_cannot_be_decoded_is_an_error(fake_hub: FakeHub) -> None:
    """The look before a stop: without it nothing is stopped."""
    fake_hub.add_servers(3)
    deep_in(fake_hub, "u000001", 1_000_000)
    hub = client(fake_hub)
    assert hub.users().unreadable == ("u000001",)
    assert failure(lambda: hub.user("u000001")).cause is Cause.RESPONSE
    assert hub.user("u000002") is not None


def test_the_last_word_on_a_user_counts(fake_hub: FakeHub) -> None:
    """Pages overlap when the list changes: who was readable before may not be any more."""
    fake_hub.add_servers(3)
    odd = changed({"name": "u000000", "servers": None})
    fake_hub.plan("GET", "/users", odd, after=1, times=1)
    listing = client(fake_hub, page_size=2).users()
    assert (sorted(listing.users), listing.unreadable) == (["u000001"], ("u000000",))
    fake_hub.heal()
    again = {"name": "u000000", "servers": {}}
    fake_hub.plan("GET", "/users", changed({"servers": None}), times=1)
    fake_hub.plan("GET", "/users", changed(again), after=1, times=1)
    listing = client(fake_hub, page_size=2).users()
    assert (sorted(listing.users), listing.unreadable) == (["u000000", "u000001"], ())


@pytest.mark.parametrize(
    "fault",
    [
        faults.rewritten(lambda page: page | {"items": {}}),
        faults.rewritten(lambda page: page | {"items": None}),
        faults.rewritten(lambda page: page | {"_pagination": {"total": "3", "next": None}}),
        faults.rewritten(lambda page: page | {"_pagination": {"total": 3}}),
        faults.rewritten(lambda page: page | {"_pagination": {"total": 3, "next": "more"}}),
        faults.rewritten(lambda page: page["items"]),
        faults.rewritten(lambda page: {"message": "soon", "status": 200}),
    ],
)
def test_wrong_types_are_errors_and_never_zero_servers(fake_hub: FakeHub, fault: Fault) -> None:
    fake_hub.add_servers(3)
    assert list_with(fake_hub, fault).cause is Cause.RESPONSE


def test_a_scope_that_is_missing_is_told_from_a_token_that_is_unknown(fake_hub: FakeHub) -> None:
    narrow = fake_hub.add_token(["read:servers"])
    assert failure(client(fake_hub, narrow).users).cause is Cause.SCOPE
    assert failure(client(fake_hub, "wrong").users).cause is Cause.AUTH
    assert failure(client(fake_hub, "wrong").identity).cause is Cause.AUTH


def test_minting_that_is_refused_does_not_blame_the_token_itself(fake_hub: FakeHub) -> None:
    """The Hub says "Service x not found or no permissions to generate tokens", and 403."""
    error = failure(lambda: client(fake_hub).mint_token("nobody", [], 60, "test"))
    assert error.cause is Cause.SCOPE
    assert "does not know the token" not in str(error)


def test_a_hanging_hub_is_a_timeout(fake_hub: FakeHub) -> None:
    released = threading.Event()
    error = list_with(fake_hub, faults.hang(released), timeout=0.2)
    released.set()
    assert error.cause is Cause.TIMEOUT
    assert "within 0.2 s" in str(error)


def test_nobody_listening_is_a_connection_error() -> None:
    with closed_port() as port:
        hub = Hub(
            ConnectionSettings(f"http://127.0.0.1:{port}/hub/api"), Token.read_by(lambda: "secret")
        )
        error = failure(hub.ask_version)
    assert error.cause is Cause.CONNECTION
    assert str(error).endswith("Connection refused")


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example", "ho st", "nowhere.invalid"])
def test_a_host_that_cannot_be_looked_up_is_an_error_as_any_other(host: str) -> None:
    hub = Hub(ConnectionSettings(f"http://{host}/hub/api"), Token.read_by(lambda: "secret"))
    assert failure(hub.ask_version).cause in (Cause.CONNECTION, Cause.RESPONSE)


def test_a_vanished_ca_file_is_a_connection_error(tmp_path: Path) -> None:
    connection = ConnectionSettings(
        "https://127.0.0.1:1/hub/api", ca_file=str(tmp_path / "gone.pem")
    )
    assert (
        failure(Hub(connection, Token.read_by(lambda: "secret")).ask_version).cause
        is Cause.CONNECTION
    )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("soon", 0.0), ("Sun, 22 Nov 2026 21:00:00 GMT", 0.0)],
)
def test_retry_after_is_read_in_seconds(fake_hub: FakeHub, header: str, seconds: float) -> None:
    error = list_with(fake_hub, faults.retry_after(503, header))
    assert (error.status, error.retry_after) == (503, seconds)


@pytest.mark.parametrize("header", ["86400", "9" * 400])
def test_retry_after_cannot_silence_us_for_good(fake_hub: FakeHub, header: str) -> None:
    assert list_with(fake_hub, faults.retry_after(503, header)).retry_after <= 600


# ---- bounded by us ------------------------------------------------------------------------------


def test_no_request_asks_for_compression(fake_hub: FakeHub) -> None:
    hub = client(fake_hub)
    hub.ask_version(), hub.users()
    assert {request.headers["accept-encoding"] for request in fake_hub.log()} == {"identity"}


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_an_answer_that_says_that_it_is_not_compressed_is_read(
    fake_hub: FakeHub, encoding: str
) -> None:
    plain = {"Content-Encoding": encoding}
    fake_hub.add_server("ana")
    fake_hub.plan("GET", "/users", lambda _, answer: replace(answer(), headers=plain))
    assert set(client(fake_hub).users().users) == {"ana"}


def test_an_answer_is_read_up_to_64_mib(fake_hub: FakeHub) -> None:
    error = list_with(fake_hub, faults.huge(65))
    assert error.cause is Cause.RESPONSE
    assert "larger than 64 MiB" in str(error)


def test_an_answer_that_drips_is_given_up(fake_hub: FakeHub) -> None:
    """Each byte comes in time, the answer does not; whole, it would take 2 s."""
    fake_hub.plan("GET", "/", faults.drip(0.1))
    error = failure(client(fake_hub, timeout=0.3).ask_version)
    assert error.cause is Cause.TIMEOUT
    assert "within 0.3 s" in str(error)


def test_headers_that_drip_are_given_up(fake_hub: FakeHub) -> None:
    fake_hub.plan("GET", "/", faults.drip(0.02, head=True))
    assert failure(client(fake_hub, timeout=0.3).ask_version).cause is Cause.TIMEOUT


class MovedClock:
    """A clock that a test moves, and so does what waits by it."""

    def __init__(self) -> None:
        self.now = 5.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.pauses.append(round(seconds, 6))
        self.now += seconds

    def before_each(self, seconds: float) -> Fault:
        """Let so much time go by with each request."""

        def later() -> None:
            self.now += seconds

        return faults.before(later)


def test_a_list_is_read_for_five_minutes(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(5)
    clock = MovedClock()
    fake_hub.plan("GET", "/users", clock.before_each(74))
    assert len(client(fake_hub, page_size=1, clock=clock).users().users) == 5
    fake_hub.plan("GET", "/users", clock.before_each(75))
    error = failure(client(fake_hub, page_size=1, clock=clock).users)
    assert error.cause is Cause.TIMEOUT
    assert "/users could not be read to its end within 300 s" in str(error)
    assert len(fake_hub.log("GET", "/users")) == 9


def routes(count: int) -> dict[str, dict[str, Any]]:
    return {
        f"/user/u{n}/": {"routespec": f"/user/u{n}/", "target": "http://10.0.0.1:1", "data": {}}
        for n in range(count)
    }


def test_routes_are_read_for_five_minutes(fake_hub: FakeHub) -> None:
    fake_hub.routes = routes(450)
    clock = MovedClock()
    fake_hub.plan("GET", "/proxy", clock.before_each(150))
    error = failure(client(fake_hub, clock=clock).routes)
    assert error.cause is Cause.TIMEOUT
    assert "/proxy could not be read to its end within 300 s" in str(error)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no request go ahead of turn."""
    monkeypatch.setattr("hub_idle_exporter.hub.throttle._LONGEST_WAIT", 60.0)


@pytest.mark.usefixtures("patient")
def test_of_small_requests_two_are_under_way_at_the_hub(fake_hub: FakeHub) -> None:
    fake_hub.add_server("ana")
    released = threading.Event()
    fake_hub.plan("GET", "/users/*", faults.hang(released))
    hub = client(fake_hub, fake_hub.admin_token)
    looking = [threading.Thread(target=hub.user, args=["ana"]) for _ in range(3)]
    for one in looking:
        one.start()
    fake_hub.wait_for("GET", "/users/*", count=2)
    looking[0].join(0.2)
    assert len(fake_hub.log("GET", "/users/*")) == 2
    released.set()
    for one in looking:
        one.join()
    assert len(fake_hub.log("GET", "/users/*")) == 3


def test_after_a_page_the_hub_is_left_to_others(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(90)
    fake_hub.routes = routes(450)
    clock = MovedClock()
    fake_hub.plan("GET", "/users", clock.before_each(0.1))
    fake_hub.plan("GET", "/proxy", clock.before_each(0.1))
    hub = client(fake_hub, clock=clock, wait=clock.wait)
    hub.users()
    assert [one.query["limit"] for one in fake_hub.log("GET", "/users")] == ["30"] * 3
    assert clock.pauses == [0.3] * 2
    hub.routes()
    assert clock.pauses[2:] == [0.3, 0.3, 0.2]  # a second together


def test_routes_are_soon_read_without_pauses(fake_hub: FakeHub) -> None:
    """They must be young when a server is stopped."""
    fake_hub.routes = routes(999)
    clock = MovedClock()
    fake_hub.plan("GET", "/proxy", clock.before_each(0.2))
    assert len(client(fake_hub, clock=clock, wait=clock.wait).routes()) == 1000
    assert clock.pauses == [0.6]


def test_a_list_of_one_large_page_gets_smaller_ones_when_it_takes_long(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(190)
    clock = MovedClock()
    hub = client(fake_hub, clock=clock, wait=clock.wait)
    hub.users(), hub.users()
    fake_hub.plan("GET", "/users", clock.before_each(0.1))
    hub.users(), hub.users()
    asked = [int(one.query["limit"]) for one in fake_hub.log("GET", "/users")]
    assert asked == [30, 200, 200, 200, *[30] * 7]


def test_pauses_do_not_count_towards_the_time_of_a_list(fake_hub: FakeHub) -> None:
    """A Hub whose pages take 280 s in all can be read, as it could without pauses."""
    fake_hub.add_servers(1000)
    clock = MovedClock()
    fake_hub.plan("GET", "/users", clock.before_each(14))
    connection = ConnectionSettings(fake_hub.url, page_size=50, list_seconds=1800.0)
    hub = Hub(connection, Token.read_by(lambda: fake_hub.token), wait=clock.wait, clock=clock)
    assert len(hub.users().users) == 1000
    assert sum(clock.pauses) > 20


def test_with_rare_polls_too_a_list_comes_to_its_end(fake_hub: FakeHub) -> None:
    """Pauses go on for two and a half minutes at most."""
    fake_hub.add_servers(1000)
    clock = MovedClock()
    fake_hub.plan("GET", "/users", clock.before_each(12))
    connection = ConnectionSettings(fake_hub.url, page_size=50, list_seconds=1800.0)
    hub = Hub(connection, Token.read_by(lambda: fake_hub.token), wait=clock.wait, clock=clock)
    assert len(hub.users().users) == 1000
    assert 0 < sum(clock.pauses) < 60


def test_pages_grow_where_the_hub_is_quick_and_the_next_list_begins_so(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(301)
    hub = client(fake_hub, clock=MovedClock())
    hub.users(), hub.users()
    asked = [int(one.query["limit"]) for one in fake_hub.log("GET", "/users")]
    assert asked == [30, 200, 200, 200, 200]


@pytest.mark.usefixtures("patient")
def test_requests_without_an_answer_hold_up_no_stop_and_no_look_at_the_hub(
    fake_hub: FakeHub,
) -> None:
    fake_hub.add_server("ana")
    released = threading.Event()
    fake_hub.plan("GET", "/users/*", faults.hang(released))
    hub = client(fake_hub, fake_hub.admin_token)
    looking = [threading.Thread(target=hub.user, args=["ana"]) for _ in range(2)]
    for one in looking:
        one.start()
    fake_hub.wait_for("GET", "/users/*", count=2)
    hub.stop("ana", "")
    hub.ask_version()
    hub.identity()
    released.set()
    for one in looking:
        one.join()
    assert [r.method for r in fake_hub.log() if r.path != "/users/ana"] == ["DELETE", "GET", "GET"]


def test_a_list_without_end_ends(fake_hub: FakeHub) -> None:
    """The next page always begins later: there is always one more."""

    def goes_on(page: Any) -> Any:
        offset = page["_pagination"]["offset"]
        return page | {"_pagination": {"total": 3, "next": {"offset": offset + 1}}}

    fake_hub.add_servers(3)
    clock = MovedClock()
    endless = faults.rewritten(goes_on)

    def later(request: Request, answer: Callable[[], Reply]) -> Reply:
        clock.now += 1
        return endless(request, answer) if len(fake_hub.requests) < 1000 else reply(500)

    fake_hub.plan("GET", "/users", later)
    assert failure(client(fake_hub, clock=clock).users).cause is Cause.TIMEOUT


def test_the_last_page_has_only_what_is_left_of_the_five_minutes(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(2)
    clock = MovedClock()
    fake_hub.plan("GET", "/users", clock.before_each(299.8), times=1)
    fake_hub.plan("GET", "/users", faults.drip(0.01), after=1)
    error = failure(client(fake_hub, page_size=1, clock=clock).users)
    assert error.cause is Cause.TIMEOUT
    assert "within 300 s" in str(error)


MEMORY = """
import sys, tracemalloc
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token

hub = Hub(ConnectionSettings(sys.argv[1]), Token.read_by(lambda: sys.argv[2]))
hub.ask_version()
tracemalloc.start()
try:
    listing = hub.users()
    print(tracemalloc.get_traced_memory()[1] >> 20, len(listing.users), len(listing.unreadable))
except HubError as error:
    print(tracemalloc.get_traced_memory()[1] >> 20, error)
"""


def memory_of_listing(fake_hub: FakeHub, fault: Fault) -> tuple[int, str]:
    """List users in a process of its own; give the most memory it took (MiB), and what it says."""
    fake_hub.plan("GET", "/users", fault)
    command = [sys.executable, "-c", MEMORY, fake_hub.url, fake_hub.token]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    peak, _, said = done.stdout.strip().partition(" ")
    return int(peak), said


# Empty lists: Python takes 25 times their length for them. Each user has 0.3 MB of them.
LISTS = ",".join(["[]"] * 100_000)


@pytest.mark.slow("large answers, decoded in processes of their own")
@pytest.mark.parametrize(
    ("odd", "unreadable"), [("7", 0), ("NaN", 0), ('"\\ud800"', 0), ("[" * 10**6 + "]" * 10**6, 1)]
)
def test_what_users_choose_takes_little_more_memory_than_it_is_long(
    fake_hub: FakeHub, odd: str, unreadable: int
) -> None:
    """30 MB of options; those of one user are not strict JSON, or too deep for any decoder."""
    options = [f"[{LISTS}]"] * 100 + [f"[{odd}]"]
    users = ",".join(
        f'{{"name": "u{number}", "servers": {{"": {{"user_options": {chosen}}}}}}}'
        for number, chosen in enumerate(options)
    )
    page = f'{{"items": [{users}], "_pagination": {{"total": 101, "next": null}}}}'
    peak, said = memory_of_listing(fake_hub, faults.always(reply(200, page.encode())))
    assert said == f"{101 - unreadable} {unreadable}"
    assert peak < 150


@pytest.mark.slow("large answers, decoded in processes of their own")
def test_a_user_with_large_odd_options_is_not_decoded_by_python(fake_hub: FakeHub) -> None:
    """Whoever has 30 MB of options is left out where only Python's json could read them."""
    options = ",".join([LISTS] * 100)
    user = f'{{"name": "ana", "servers": {{"": {{"user_options": [NaN, {options}]}}}}}}'
    page = f'{{"items": [{user}, {{"name": "bob"}}], "_pagination": {{"total": 2, "next": null}}}}'
    peak, said = memory_of_listing(fake_hub, faults.always(reply(200, page.encode())))
    assert said == "1 1"
    assert peak < 150


def test_a_compressed_answer_is_not_unpacked(fake_hub: FakeHub) -> None:
    peak, said = memory_of_listing(fake_hub, faults.bomb(100))
    assert "turn off compression" in said
    assert peak < 30


def test_an_answer_without_end_takes_no_memory_without_end(fake_hub: FakeHub) -> None:
    peak, said = memory_of_listing(fake_hub, faults.huge(100))
    assert "larger than 64 MiB" in said
    assert peak < 150


# ---- who answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        {"message": "welcome", "status": 200},
        {"name": "ana", "kind": "user"},
        {"name": "ana", "scopes": ["list:users"]},
        {"kind": "service", "scopes": ["list:users"]},
        {"name": "", "kind": "service", "scopes": []},
        {"name": None, "kind": "service", "scopes": []},
        {"name": "ana", "kind": 1, "scopes": []},
        {"name": "ana", "kind": "user", "scopes": "list:users"},
        {"name": "ana", "kind": "user", "scopes": {"list:users": True}},
        {"name": "ana", "kind": "user", "scopes": [1]},
    ],
)
def test_a_front_that_is_no_hub_is_no_identity(fake_hub: FakeHub, answer: object) -> None:
    """JSON and 200 prove nothing: what it says about scopes decides what is stopped."""
    fake_hub.plan("GET", "/user", faults.always(reply(200, answer)))
    error = failure(client(fake_hub).identity)
    assert error.cause is Cause.RESPONSE
    assert "does not answer like a JupyterHub API" in str(error)


@pytest.mark.parametrize(
    "version", [None, 6, "", "6", "old", "nginx/1.27", "1.27 (Ubuntu)", "6.1\n", "6.1" + "1" * 60]
)
def test_what_is_no_version_is_no_hub(fake_hub: FakeHub, version: object) -> None:
    fake_hub.plan("GET", "/", faults.always(reply(200, {"version": version})))
    hub = client(fake_hub)
    assert failure(hub.ask_version).cause is Cause.RESPONSE


# ---- the token goes nowhere else ----------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(fake_hub: FakeHub, status: int) -> None:
    with recorder() as elsewhere:
        error = list_with(fake_hub, faults.redirect(f"{elsewhere.origin}/hub/api/users", status))
        assert elsewhere.log() == []
    assert error.cause is Cause.HTTP
    assert "redirected" in str(error)
    assert "/hub/api" in str(error)


def test_a_redirect_within_the_hub_is_not_followed_either(fake_hub: FakeHub) -> None:
    list_with(fake_hub, faults.redirect(f"{fake_hub.url}/elsewhere"))
    assert fake_hub.log("GET", "/elsewhere") == []


def test_who_is_there_is_asked_without_the_token(fake_hub: FakeHub) -> None:
    client(fake_hub).ask_version()
    assert "authorization" not in fake_hub.log("GET", "/")[0].headers


def test_proxies_and_netrc_of_the_environment_are_not_used(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login a password b\n")
    netrc.chmod(0o600)
    with recorder() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("NETRC", str(netrc))
        client(fake_hub).users()
        assert proxy.log() == []
    assert fake_hub.log("GET", "/users")[0].headers["authorization"] == f"token {fake_hub.token}"


def test_cookies_are_not_kept(fake_hub: FakeHub) -> None:
    def with_cookie(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        return replace(true, headers=true.headers | {"Set-Cookie": "_xsrf=abc; Path=/"})

    fake_hub.plan("*", "*", with_cookie)
    hub = client(fake_hub)
    hub.users(), hub.users()
    assert all("cookie" not in request.headers for request in fake_hub.log())


def everything_said(error: BaseException | None) -> str:
    """Give the texts of an error and of all that led to it."""
    said = []
    while error is not None:
        said += [str(error), repr(error), repr(vars(error)) if hasattr(error, "__dict__") else ""]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(said)


@pytest.mark.parametrize("name", FAULTS)
def test_no_error_shows_the_token(fake_hub: FakeHub, name: str) -> None:
    fake_hub.add_servers(3)
    error = list_with(fake_hub, FAULTS[name][0])
    assert fake_hub.token not in everything_said(error)


def test_a_hub_that_echoes_the_token_is_not_quoted(fake_hub: FakeHub) -> None:
    error = list_with(fake_hub, faults.always(reply(200, f"{fake_hub.token} is your token")))
    assert fake_hub.token not in everything_said(error)


def test_the_token_hides_in_every_text() -> None:
    token = Token.read_by(lambda: "s3cret")
    hub = Hub(ConnectionSettings("http://127.0.0.1:1/hub/api"), token)
    assert "s3cret" not in f"{token!r} {token} {hub!r} {vars(hub)} {token.mask('a s3cret b')}"
    with pytest.raises(AttributeError):
        token.value  # type: ignore[attr-defined]  # noqa: B018


def test_a_minted_token_hides_too(fake_hub: FakeHub) -> None:
    minted = client(fake_hub).mint_token(PROBER, [], 60, "test")
    assert minted.token in fake_hub.tokens
    assert minted.token not in f"{minted!r} {minted}"


# ---- rotation -----------------------------------------------------------------------------------


def in_file(path: Path) -> Token:
    return Token.read_by(lambda: checked_token(path.read_text().strip(), "the file"))


def test_a_refused_token_is_read_again_from_its_file(fake_hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(fake_hub.token)
    hub = Hub(ConnectionSettings(fake_hub.url), in_file(file))
    hub.users()
    file.write_text(fake_hub.add_token(["list:users", "read:servers"]) + "\n")
    hub.users()
    assert len(fake_hub.log("GET", "/users")) == 2, "not read again before it is refused"
    fake_hub.tokens.pop(fake_hub.token)
    hub.users()
    assert len(fake_hub.log("GET", "/users")) == 4


@pytest.mark.parametrize("content", [None, "", "two words", "\xff"])
def test_a_token_file_that_got_worse_keeps_the_old_token(
    fake_hub: FakeHub, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    file.write_text(fake_hub.token)
    hub = Hub(ConnectionSettings(fake_hub.url), in_file(file))
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content.encode("latin-1"))
    fake_hub.plan("GET", "/users", faults.always(reply(403, "")), times=1)
    assert failure(hub.users).cause is Cause.AUTH
    hub.users()


def test_a_token_that_stays_wrong_is_sent_once_a_request(fake_hub: FakeHub) -> None:
    failure(client(fake_hub, "wrong").users)
    assert len(fake_hub.log("GET", "/users")) == 1


def test_many_requests_refused_at_once_all_go_on_with_the_new_token(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    """The first to read the new token must not leave the others with their refusal."""
    file = tmp_path / "token"
    old, new = fake_hub.token, fake_hub.add_token(["list:users", "read:servers"])
    file.write_text(old)
    hub = Hub(ConnectionSettings(fake_hub.url), in_file(file))
    file.write_text(new)
    fake_hub.tokens.pop(old)
    everyone_refused = threading.Barrier(4)

    def together(request: Request, answer: Callable[[], Reply]) -> Reply:
        if request.token == old:
            everyone_refused.wait(10)
        return answer()

    fake_hub.plan("GET", "/users", together)
    worked: list[object] = []
    threads = [threading.Thread(target=lambda: worked.append(hub.users())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(worked) == 4


# ---- names and times ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_would_lead_up_the_path_is_quoted(fake_hub: FakeHub, name: str) -> None:
    """`DELETE /users/ana/servers/..` would become `DELETE /users/ana/`."""
    quoted = "%2E" * len(name)
    for user in ("ana", name):
        fake_hub.add_server(user, name)
    hub = client(fake_hub)
    seen = hub.user(name)
    assert seen is not None
    assert seen.server(name) is not None
    hub.stop("ana", name)
    hub.remove("ana", name)
    hub.stop(name, name)
    assert list(fake_hub.users["ana"].servers) == []
    assert fake_hub.server(name, name).stopped
    hub.user(name, stopped_servers=True)
    assert [request.path for request in fake_hub.log()] == [
        f"/users/{quoted}",
        f"/users/ana/servers/{quoted}",
        f"/users/ana/servers/{quoted}",
        f"/users/{quoted}/servers/{quoted}",
        f"/users/{quoted}",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_quoted(fake_hub: FakeHub, name: str) -> None:
    fake_hub.add_server(name)
    fake_hub.add_server(name, "my srv/ü")
    hub = client(fake_hub)
    assert set(hub.users().users[name].servers or {}) == {"", "my srv/ü"}
    seen = hub.user(name)
    assert seen is not None
    assert seen.user.name == name
    hub.stop(name, "my srv/ü")
    assert fake_hub.server(name, "my srv/ü").stopped
    assert not fake_hub.server(name).stopped
    hub.stop(name, "")
    assert fake_hub.server(name).stopped
    hub.remove(name, "my srv/ü")
    assert set(fake_hub.users[name].servers) == {""}


def test_a_minted_token_has_the_scopes_the_life_and_the_note_that_were_asked_for(
    fake_hub: FakeHub,
) -> None:
    fake_hub.add_server("we ird@ex.org", "my srv")
    hub = client(fake_hub)
    scope = "access:servers!server=we ird@ex.org/my srv"
    minted = hub.mint_token(PROBER, [scope], 60, "busy check")
    token = fake_hub.tokens[minted.token]
    assert scope in token.scopes
    assert set(token.scopes) - {scope} == set(minted.scopes) - {scope} == ONLY_IDENTIFIES
    assert token.note == "hub-idle-exporter: busy check"
    assert seconds(minted.expires_at) - seconds(minted.created) == pytest.approx(60, abs=0.1)
    hub.revoke_token(PROBER, minted.id)
    hub.revoke_token(PROBER, minted.id)  # gone already: all the same
    assert minted.token not in fake_hub.tokens


# What each token may do besides, for its own user.
ONLY_IDENTIFIES = {f"read:users:name!user={PROBER}", f"read:users:groups!user={PROBER}"}


def test_a_token_without_scopes_opens_nothing(fake_hub: FakeHub) -> None:
    minted = client(fake_hub).mint_token(PROBER, [], 120, "lease x")
    assert set(minted.scopes) == ONLY_IDENTIFIES
    assert failure(client(fake_hub, minted.token).users).cause is Cause.SCOPE


def test_a_token_that_asks_for_no_scopes_in_particular_lists_all_of_its_user(
    fake_hub: FakeHub,
) -> None:
    minted = client(fake_hub).mint_token(PROBER, None, 1, "what it may do")
    assert {"access:servers", "delete:servers"} <= set(minted.scopes)
    others = set(minted.scopes) - {"access:servers", "delete:servers"}
    assert {scope.partition("!")[2] for scope in others} == {f"user={PROBER}"}


def test_the_tokens_of_a_user_are_listed_without_those_that_expired(fake_hub: FakeHub) -> None:
    now = 1_800_000_000.25
    fake_hub.clock = lambda: now
    hub = client(fake_hub)
    hub.mint_token(PROBER, [], 2, "short")
    long = hub.mint_token(PROBER, [], 60, "long")
    now += 5
    listed = hub.tokens(PROBER)
    assert [(one.id, one.note) for one in listed.tokens] == [(long.id, "hub-idle-exporter: long")]
    assert listed.tokens[0].created == long.created
    assert listed.now == pytest.approx(now, abs=1)


def test_a_stop_is_sent_with_the_token_that_was_minted_for_it(fake_hub: FakeHub) -> None:
    """Not with our own, which would work however late it arrives."""
    fake_hub.add_server("ana")
    fake_hub.add_server("bob")
    hub = client(fake_hub)
    minted = hub.mint_token(PROBER, ["delete:servers!server=ana/"], 3, "stop")
    assert failure(lambda: hub.stop("bob", "", minted.token)).status == 404
    hub.stop("ana", "", minted.token)
    assert fake_hub.server("ana").stopped
    assert not fake_hub.server("bob").stopped
    assert {request.token for request in fake_hub.log("DELETE")} == {minted.token}


def test_a_stop_token_that_has_expired_is_refused_and_ours_is_not_tried(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    """403 says that it is too late. It does not say that our own token has changed."""
    now = 1_800_000_000.0
    fake_hub.clock = lambda: now
    fake_hub.add_server("ana")
    file = tmp_path / "token"
    file.write_text(fake_hub.token)
    hub = Hub(ConnectionSettings(fake_hub.url), in_file(file))
    minted = hub.mint_token(PROBER, ["delete:servers!server=ana/"], 3, "stop")
    file.write_text(fake_hub.admin_token)
    now += 4
    assert failure(lambda: hub.stop("ana", "", minted.token)).status == 403
    assert not fake_hub.server("ana").stopped
    assert {request.token for request in fake_hub.log("DELETE")} == {minted.token}


def test_whose_a_minted_token_is_the_hub_tells_by_that_token(fake_hub: FakeHub) -> None:
    hub = client(fake_hub)
    minted = hub.mint_token(PROBER, [], 60, "check")
    owner = hub.owner_of(minted.token)
    assert (owner.name, owner.kind) == (PROBER, "user")
    assert failure(lambda: hub.owner_of("unknown")).cause is Cause.AUTH


def test_an_unknown_user_is_none(fake_hub: FakeHub) -> None:
    assert client(fake_hub).user("nobody") is None


NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("sent", "moment"),
    [
        (None, None),
        ("2026-11-22T12:00:00Z", NOON),
        ("2026-11-22T12:00:00.000Z", NOON),
        ("2026-11-22T12:00:00.000000Z", NOON),
        ("2026-11-22T12:00:00", NOON),
        ("2026-11-22T12:00:00.000000", NOON),
        ("2026-11-22T13:00:00+01:00", NOON),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)),
    ],
)
def test_times_are_read_as_any_hub_writes_them(
    fake_hub: FakeHub, sent: str | None, moment: datetime | None
) -> None:
    fake_hub.add_server("ana").last_activity = sent
    servers = client(fake_hub).users().users["ana"].servers
    assert isinstance(servers, dict)
    assert epoch(servers[""].last_activity) == (moment.timestamp() if moment else None)


def test_now_is_the_hubs_clock(fake_hub: FakeHub) -> None:
    fake_hub.clock = lambda: 1_000_000_000.0
    fake_hub.add_server("ana")
    hub = client(fake_hub)
    assert hub.users().now == 1_000_000_000
    seen = hub.user("ana")
    assert seen is not None
    assert seen.now == 1_000_000_000


def test_a_look_at_one_user_without_a_clock_is_an_error(fake_hub: FakeHub) -> None:
    fake_hub.add_server("ana")
    fake_hub.plan("GET", "/users/ana", faults.dated(None))
    assert failure(lambda: client(fake_hub).user("ana")).cause is Cause.RESPONSE


def test_personal_data_is_not_even_kept(fake_hub: FakeHub) -> None:
    secret = {"auth_state": {"password": "hunter2"}, "user_info": {"phone": "hunter2"}}
    fake_hub.add_user("ana").extra = secret
    fake_hub.add_server("ana", extra={"state": {"pod": "hunter2"}})
    assert "hunter2" not in repr(client(fake_hub).users())


def test_servers_that_are_hidden_are_not_servers_that_are_not_there(fake_hub: FakeHub) -> None:
    fake_hub.add_user("ana", groups=["staff"])
    fake_hub.add_server("ana")
    fake_hub.add_server("bob")
    token = fake_hub.add_token(["list:users", "read:servers!group=staff"])
    listing = client(fake_hub, token).users()
    assert [user.name for user in listing.users.values() if user.seen_servers] == ["ana"]
    assert listing.hidden_users == 1


# ---- what is observed ---------------------------------------------------------------------------


def test_each_request_is_observed_failures_included(fake_hub: FakeHub) -> None:
    seen: list[Operation] = []
    hub = client(fake_hub, on_request=lambda operation, _took: seen.append(operation))
    hub.ask_version(), hub.identity(), hub.users()
    fake_hub.plan("GET", "/users", faults.close())
    failure(hub.users)
    assert seen == [
        Operation.VERSION, Operation.IDENTITY, Operation.LIST_USERS, Operation.LIST_USERS,
    ]  # fmt: skip


@pytest.mark.parametrize("proxy", [False, True])
def test_each_answer_comes_with_the_seconds_that_it_took(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, proxy: bool
) -> None:
    """Its `Date` may be that old, which is no jump of a clock."""
    if proxy:  # that takes the Hub's version out
        monkeypatch.setattr(fake_hub, "headers", dict)
    moments, told = [0.0], list[float]()
    hub = client(
        fake_hub, on_answer=lambda _clock, took: told.append(took), clock=lambda: moments[-1]
    )
    fake_hub.plan("GET", "/user", faults.before(lambda: moments.append(70.0)))
    hub.identity()
    assert told == [70.0]


def test_the_hub_is_seen_when_it_answers_with_its_version(fake_hub: FakeHub) -> None:
    clocks: list[float | None] = []
    hub = client(fake_hub, on_answer=lambda clock, _took: clocks.append(clock))
    fake_hub.clock = lambda: 5.0
    fake_hub.plan("GET", "/users", faults.always(reply(500)))
    failure(hub.users)
    assert clocks == [5.0], "an error of the Hub itself is still the Hub"
    assert hub.version == "6.1.1"


def test_a_proxy_that_answers_for_the_hub_is_not_the_hub(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[float | None] = []
    monkeypatch.setattr(fake_hub, "headers", dict)  # no X-JupyterHub-Version
    list_with(
        fake_hub,
        faults.always(reply(503, "down")),
        on_answer=lambda clock, _took: clocks.append(clock),
    )
    assert clocks == []


def test_the_hub_is_seen_though_a_proxy_takes_its_version_out(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[float | None] = []
    monkeypatch.setattr(fake_hub, "headers", dict)
    client(fake_hub, on_answer=lambda clock, _took: clocks.append(clock)).users()
    assert len(clocks) == 1


def test_one_connection_is_kept_for_many_requests(fake_hub: FakeHub) -> None:
    hub = client(fake_hub, page_size=1)
    fake_hub.add_servers(5)
    hub.users()
    assert fake_hub._http is not None
    assert len(fake_hub._http.connections) == 1


# ---- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the Hub writes it with internal_ssl."""
    folder = tmp_path_factory.mktemp("internal-ssl")
    certipy = Certipy(store_dir=str(folder), remove_existing=True)
    certipy.create_ca("hub-ca")
    certipy.create_signed_pair(
        "hub-internal", "hub-ca", alt_names=["IP:127.0.0.1", "DNS:localhost"]
    )
    shutil.copy(folder / "hub-ca" / "hub-ca.crt", folder / "hub-ca_trust.crt")
    return folder


@pytest.fixture
def tls_hub(fake_hub: FakeHub, certificates: Path) -> FakeHub:
    """A Hub with internal_ssl: it has a certificate, and wants one."""
    certificate, key, authority = internal_tls(str(certificates))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    fake_hub.speak_tls(context)
    fake_hub.add_server("ana")
    return fake_hub


def tls_client(
    hub: FakeHub, authority: str | None, pair: tuple[str, str] | None, timeout: float = 10
) -> Hub:
    url = hub.url.replace("http://", "https://")
    connection = ConnectionSettings(
        url, timeout=timeout, ca_file=authority, client_certificate=pair
    )
    return Hub(connection, Token.read_by(lambda: hub.token))


def test_internal_ssl(tls_hub: FakeHub, certificates: Path) -> None:
    certificate, key, authority = internal_tls(str(certificates))
    assert set(tls_client(tls_hub, authority, (certificate, key)).users().users) == {"ana"}


def test_a_hub_whose_certificate_is_not_trusted_gets_no_token(tls_hub: FakeHub) -> None:
    error = failure(tls_client(tls_hub, None, None).users)
    assert error.cause is Cause.CONNECTION
    assert "--ca-file" in str(error)
    assert tls_hub.log() == []


def test_an_answer_that_drips_over_tls_is_given_up(tls_hub: FakeHub, certificates: Path) -> None:
    certificate, key, authority = internal_tls(str(certificates))
    hub = tls_client(tls_hub, authority, (certificate, key), timeout=0.5)
    tls_hub.plan("GET", "/user", faults.drip(0.1))
    assert failure(hub.identity).cause is Cause.TIMEOUT


def test_a_hub_that_wants_our_certificate_is_a_connection_error(
    tls_hub: FakeHub, certificates: Path
) -> None:
    error = failure(tls_client(tls_hub, internal_tls(str(certificates))[2], None).users)
    assert error.cause is Cause.CONNECTION
    assert tls_hub.log() == []
    assert "--ca-file" not in str(error)


def test_a_hub_that_speaks_no_tls_is_a_connection_error(fake_hub: FakeHub) -> None:
    error = failure(tls_client(fake_hub, None, None).users)
    assert error.cause is Cause.CONNECTION
    assert "http://" in str(error)
    assert "--ca-file" not in str(error)


def test_a_hub_that_speaks_tls_alone_is_a_connection_error(tls_hub: FakeHub) -> None:
    assert failure(client(tls_hub).users).cause in (Cause.CONNECTION, Cause.HTTP)


@pytest.mark.parametrize("odd", ["NaN", "1e400", '"\\ud800"', '"\\u0000"'])
def test_options_that_are_no_strict_json_can_still_be_matched(fake_hub: FakeHub, odd: str) -> None:
    """The Hub repeats what a user chose, and so must not decide by it whether it can be read."""
    chosen = f'{{"profile": "gpu-a", "odd": {odd}}}'
    user = f'{{"name": "ana", "servers": {{"": {{"ready": true, "user_options": {chosen}}}}}}}'
    page = f'{{"items": [{user}], "_pagination": {{"total": 1, "next": null}}}}'
    fake_hub.plan(
        "GET", "/users", faults.always(reply(200, page.encode(), Content_Type="application/json"))
    )
    fake_hub.plan("GET", "/users/ana", faults.always(reply(200, user.encode())))
    hub = client(fake_hub)
    seen = hub.user("ana")
    assert seen is not None
    for servers in (hub.users().users["ana"].seen_servers, seen.user.seen_servers):
        options = servers[""].options()
        assert isinstance(options, dict)
        assert options["profile"] == "gpu-a"
