"""What became of a server that the Hub was asked to stop, as a table."""

from datetime import datetime, timedelta, timezone
from itertools import product

import pytest

from hub_idle_exporter.domain.model import Server
from hub_idle_exporter.domain.stop_result import Address, StopResult, stop_result

SENT = datetime(2027, 1, 15, 8, tzinfo=timezone.utc)
BEGAN, SEEN = SENT - timedelta(hours=5), SENT - timedelta(hours=2)
AT_ONCE, JUST_BEFORE = SENT + timedelta(milliseconds=20), SENT - timedelta(microseconds=1)
BEFORE = Server(ready=True, started=BEGAN, last_activity=SEEN)
SAME, GONE, UNKNOWN = Address.SAME, Address.GONE, Address.UNKNOWN
STOPPED, UNDECIDED, RUNNING = StopResult.STOPPED, StopResult.UNDECIDED, StopResult.RUNNING
ORPHAN, FORGOTTEN, UNPROVEN = StopResult.ORPHAN, StopResult.FORGOTTEN, StopResult.UNPROVEN

# What the Hub says afterwards, and the result where the same server still answers at the old
# address, where nothing or another one does, and where that is not known.
TABLE: list[tuple[str, Server | None, StopResult, StopResult, StopResult]] = [
    ("stopped, active since", Server(last_activity=AT_ONCE), ORPHAN, STOPPED, STOPPED),
    ("stopped, active when sent", Server(last_activity=SENT), ORPHAN, STOPPED, STOPPED),
    ("stopped, active before", Server(last_activity=JUST_BEFORE), ORPHAN, STOPPED, FORGOTTEN),
    ("stopped, as before", Server(last_activity=SEEN), ORPHAN, STOPPED, FORGOTTEN),
    ("stopped, never active", Server(last_activity=None), ORPHAN, STOPPED, FORGOTTEN),
    (
        "stopped, with a start",
        Server(started=BEGAN, last_activity=AT_ONCE),
        ORPHAN,
        STOPPED,
        STOPPED,
    ),
    ("no such server", None, ORPHAN, STOPPED, UNPROVEN),
    (
        "started again",
        Server(ready=True, started=AT_ONCE, last_activity=AT_ONCE),
        ORPHAN,
        STOPPED,
        UNPROVEN,
    ),
    (
        "starting again",
        Server(pending="spawn", started=AT_ONCE, last_activity=AT_ONCE),
        ORPHAN,
        STOPPED,
        UNPROVEN,
    ),
]
# Whatever answers, or does not, at its address: it is still there.
STILL_THERE: list[tuple[str, Server, StopResult]] = [
    ("as before", BEFORE, RUNNING),
    ("in use", Server(ready=True, started=BEGAN, last_activity=AT_ONCE), RUNNING),
    ("stopping", Server(pending="stop", started=BEGAN, last_activity=SEEN), UNDECIDED),
    ("stopping, ready", Server(ready=True, pending="stop", started=BEGAN), UNDECIDED),
    # The Hub was restarted in the middle of the stop, and has not looked yet.
    ("checked", Server(pending="check", started=BEGAN, last_activity=SEEN), UNDECIDED),
    ("checked, ready", Server(ready=True, pending="check", started=BEGAN), UNDECIDED),
    ("starting, by the same start", Server(pending="spawn", started=BEGAN), RUNNING),
]


@pytest.mark.parametrize(
    ("after", "address", "result"),
    [
        pytest.param(after, address, result, id=f"{name}-{address.name}")
        for name, after, *results in TABLE
        for address, result in zip((SAME, GONE, UNKNOWN), results, strict=True)
    ],
)
def test_a_server_that_is_gone_for_the_hub(
    after: Server | None, address: Address, result: StopResult
) -> None:
    assert stop_result(BEFORE, SENT.timestamp(), after, address) is result


@pytest.mark.parametrize(
    ("after", "address", "result"),
    [
        pytest.param(after, address, result, id=f"{name}-{address.name}")
        for (name, after, result), address in product(STILL_THERE, Address)
    ],
)
def test_a_server_that_is_still_there_for_the_hub(
    after: Server, address: Address, result: StopResult
) -> None:
    assert stop_result(BEFORE, SENT.timestamp(), after, address) is result


def test_nothing_is_stopped_that_still_answers_as_the_same_server() -> None:
    """An orphan reports its activity to the Hub, so `last_activity` looks as after a good stop."""
    for _, after, *_ in TABLE:
        assert stop_result(BEFORE, SENT.timestamp(), after, SAME) is ORPHAN


def test_activity_up_to_the_moment_of_the_stop_does_not_prove_it() -> None:
    """Stopped by its max age in the middle of work, in vain: its last activity is a second old.

    So the Hub's record is compared with the time at which the stop was sent, to the microsecond.
    """
    at_work = Server(ready=True, started=BEGAN, last_activity=SENT - timedelta(seconds=1))
    for after in (SENT - timedelta(seconds=1), JUST_BEFORE):
        record = Server(last_activity=after)
        assert stop_result(at_work, SENT.timestamp(), record, UNKNOWN) is FORGOTTEN
    assert stop_result(at_work, SENT.timestamp(), Server(last_activity=SENT), UNKNOWN) is STOPPED


def test_a_failed_stop_of_a_server_without_activity_is_forgotten() -> None:
    before = Server(ready=True, started=BEGAN)
    assert stop_result(before, SENT.timestamp(), Server(), UNKNOWN) is FORGOTTEN
    assert stop_result(before, SENT.timestamp(), Server(last_activity=AT_ONCE), UNKNOWN) is STOPPED


def test_zoneless_times_are_compared_as_utc() -> None:
    for moment, result in ((AT_ONCE, STOPPED), (SEEN, FORGOTTEN)):
        after = Server(last_activity=moment.replace(tzinfo=None))
        assert stop_result(BEFORE, SENT.timestamp(), after, UNKNOWN) is result


def test_activity_yet_to_come_proves_a_stop_only_if_it_has_changed() -> None:
    """A server whose clock runs ahead reports it; a stop that worked sets it back to now."""
    to_come = SENT + timedelta(seconds=30)
    before = Server(ready=True, started=BEGAN, last_activity=to_come)
    for moment, result in ((AT_ONCE, STOPPED), (to_come, FORGOTTEN)):
        after = Server(last_activity=moment)
        assert stop_result(before, SENT.timestamp(), after, UNKNOWN) is result
