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


def assert_changes_are_seen(hub: RealHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers start, stop and be used, and expect each poll to see it, in full or not."""
    monkeypatch.setattr(active_users, "_FEW_USERS", 0)
    for user in ("ana", "bob", "eve"):
        hub.start_server(user)
    lately = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=1)
    client = Hub(ConnectionSettings(hub.api_url), Token.read_by(lambda: hub.token))
    client.ask_version()
    reads, sorts = ActiveUsers(client), client.sorts_users
    assert _servers(reads.read()) == _servers(client.users())
    happenings: list[tuple[Callable[[], object], bool]] = [
        (lambda: hub.start_server("new"), False),
        (lambda: _stop(hub, "bob"), False),
        (lambda: hub.start_server("ana", "lab"), True),
        (lambda: _stop(hub, "new"), False),
        (lambda: hub.post_activity("eve", at=lately), False),
    ]
    for happens, full in happenings:
        happens()
        found = reads.read()
        assert _servers(found) == _servers(client.users())
        assert (found.full_at == found.now) or (sorts and not full)
    seen = found.users["eve"].seen_servers[""].last_activity
    assert seen is not None
    assert utc(seen) >= lately
    assert sorts == (found.full_at < found.now)


def _stop(hub: RealHub, user: str) -> None:
    hub.stop_server(user)
    hub.wait(lambda: not hub.server(user)["ready"], 20, f"{user} stopped")


def _servers(listing: UserListing) -> set[tuple[str, str, bool]]:
    return {
        (name, server, one.ready)
        for name, user in listing.users.items()
        for server, one in user.seen_servers.items()
    }
