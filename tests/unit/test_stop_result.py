"""What became of a server that the Hub was asked to stop, as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from hub_idle_exporter.domain.model import Server
from hub_idle_exporter.domain.stop_result import Fate, fate_of

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
BEGAN, SEEN = NOW - timedelta(hours=5), NOW - timedelta(hours=2)
BEFORE = Server(ready=True, started=BEGAN, last_activity=SEEN)


@pytest.mark.parametrize(
    ("after", "fate"),
    [
        (Server(stopped=True, last_activity=NOW), Fate.STOPPED),
        (Server(stopped=True, started=BEGAN, last_activity=NOW), Fate.STOPPED),
        (Server(stopped=True, last_activity=SEEN), Fate.FORGOTTEN),
        (Server(stopped=True, last_activity=None), Fate.FORGOTTEN),
        (Server(pending="stop", started=BEGAN, last_activity=SEEN), Fate.STOPPING),
        (Server(pending="stop", ready=True, started=BEGAN, last_activity=SEEN), Fate.STOPPING),
        (BEFORE, Fate.RUNNING),
        (Server(ready=True, started=BEGAN, last_activity=NOW), Fate.RUNNING),
        (Server(pending="check", started=BEGAN, last_activity=SEEN), Fate.RUNNING),
        (Server(ready=True, started=NOW, last_activity=NOW), Fate.REPLACED),
        (Server(pending="spawn", started=NOW, last_activity=SEEN), Fate.REPLACED),
        (None, Fate.REPLACED),
    ],
)
def test_fate(after: Server | None, fate: Fate) -> None:
    assert fate_of(BEFORE, after) is fate


def test_a_failed_stop_of_a_server_without_activity_is_forgotten() -> None:
    before = Server(ready=True, started=BEGAN)
    assert fate_of(before, Server(stopped=True)) is Fate.FORGOTTEN
    assert fate_of(before, Server(stopped=True, last_activity=NOW)) is Fate.STOPPED


def test_zoneless_times_are_compared_as_utc() -> None:
    before = Server(ready=True, started=BEGAN, last_activity=SEEN.replace(tzinfo=None))
    assert fate_of(before, Server(stopped=True, last_activity=SEEN)) is Fate.FORGOTTEN
    assert fate_of(before, Server(stopped=True, last_activity=NOW)) is Fate.STOPPED


def test_a_stop_is_known_also_where_activity_was_yet_to_come() -> None:
    """A server's clock may run ahead: a stop sets last_activity to now, which is earlier."""
    before = Server(ready=True, started=BEGAN, last_activity=NOW + timedelta(seconds=30))
    assert fate_of(before, Server(stopped=True, last_activity=NOW)) is Fate.STOPPED
