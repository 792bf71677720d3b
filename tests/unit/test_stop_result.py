"""What became of a server that the Hub was asked to stop, as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from hub_idle_exporter.domain.model import Server
from hub_idle_exporter.domain.stop_result import StopResult, stop_result

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
BEGAN, SEEN = NOW - timedelta(hours=5), NOW - timedelta(hours=2)
BEFORE = Server(ready=True, started=BEGAN, last_activity=SEEN)


@pytest.mark.parametrize(
    ("after", "fate"),
    [
        (Server(last_activity=NOW), StopResult.STOPPED),
        (Server(started=BEGAN, last_activity=NOW), StopResult.STOPPED),
        (Server(last_activity=SEEN), StopResult.FORGOTTEN),
        (Server(last_activity=None), StopResult.FORGOTTEN),
        (Server(pending="stop", started=BEGAN, last_activity=SEEN), StopResult.STOPPING),
        (
            Server(pending="stop", ready=True, started=BEGAN, last_activity=SEEN),
            StopResult.STOPPING,
        ),
        (BEFORE, StopResult.RUNNING),
        (Server(ready=True, started=BEGAN, last_activity=NOW), StopResult.RUNNING),
        (Server(pending="check", started=BEGAN, last_activity=SEEN), StopResult.RUNNING),
        (Server(ready=True, started=NOW, last_activity=NOW), StopResult.REPLACED),
        (Server(pending="spawn", started=NOW, last_activity=SEEN), StopResult.REPLACED),
        (None, StopResult.REPLACED),
    ],
)
def test_fate(after: Server | None, fate: StopResult) -> None:
    assert stop_result(BEFORE, after) is fate


def test_a_failed_stop_of_a_server_without_activity_is_forgotten() -> None:
    before = Server(ready=True, started=BEGAN)
    assert stop_result(before, Server()) is StopResult.FORGOTTEN
    assert stop_result(before, Server(last_activity=NOW)) is StopResult.STOPPED


def test_zoneless_times_are_compared_as_utc() -> None:
    before = Server(ready=True, started=BEGAN, last_activity=SEEN.replace(tzinfo=None))
    assert stop_result(before, Server(last_activity=SEEN)) is StopResult.FORGOTTEN
    assert stop_result(before, Server(last_activity=NOW)) is StopResult.STOPPED


def test_a_stop_is_known_also_where_activity_was_yet_to_come() -> None:
    """A server's clock may run ahead: a stop sets last_activity to now, which is earlier."""
    before = Server(ready=True, started=BEGAN, last_activity=NOW + timedelta(seconds=30))
    assert stop_result(before, Server(last_activity=NOW)) is StopResult.STOPPED
