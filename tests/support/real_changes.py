"""What happens at the servers of a real Hub, seen by reading only what has changed."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from real_hub import RealHub

from hub_idle_exporter.domain.model import utc
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub import active_users
from hub_idle_exporter.hub.active_users import ActiveUsers
from hub_idle_exporter.hub.client import Hub, UserListing
from hub_idle_exporter.hub.token import Token


class Counting(Hub):
    """Counts the full lists."""

    full_lists = 0

    def users(self) -> UserListing:
        self.full_lists += 1
        return super().users()


def assert_changes_are_seen(hub: RealHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers start, stop and be used, and expect each poll to see it, in full or not."""
    monkeypatch.setattr(active_users, "_FEW_USERS", 0)
    for user in ("ana", "bob", "eve"):
        hub.start_server(user)
    lately = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=1)
    own = Token.read_by(lambda: hub.token)
    connection = ConnectionSettings(hub.api_url)
    client, other = Counting(connection, own), Hub(connection, own)
    client.ask_version()
    reads = ActiveUsers(client)
    assert _servers(reads.read()) == _servers(other.users())
    happenings: list[Callable[[], object]] = [
        lambda: hub.start_server("new"),
        lambda: _stop(hub, "bob"),
        lambda: hub.start_server("ana", "lab"),
        lambda: _stop(hub, "new"),  # the list after it is a full one
        lambda: hub.post_activity("eve", at=lately),
    ]
    for happens in happenings:
        happens()
        found = reads.read()
        assert _servers(found) == _servers(other.users())
    seen = found.users["eve"].seen_servers[""].last_activity
    assert seen is not None
    assert utc(seen) >= lately
    assert client.full_lists == (2 if client.sorts_users else 6)


def _stop(hub: RealHub, user: str) -> None:
    """Stop a server, to the end: a slow stop goes on after the answer to the request."""
    hub.stop_server(user)
    hub.wait(lambda: (user, "") not in hub.servers(), 20, f"{user} stopped")


def _servers(listing: UserListing) -> set[tuple[str, str, bool]]:
    return {
        (name, server, one.ready)
        for name, user in listing.users.items()
        for server, one in user.seen_servers.items()
    }
