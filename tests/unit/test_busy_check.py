"""What a server's own answers mean, as tables; and how long being busy protects."""

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from hub_idle_exporter.domain.busy_check import (
    JUPYTER,
    Activity,
    BusyWatch,
    Reply,
    ServerKind,
    active_within,
    interpret,
    of_no_kind,
)
from hub_idle_exporter.domain.labels import ProbeResult

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
LIMIT = 3600.0
LONG_AGO, INSIDE, AT_LIMIT = "2027-01-15T01:00:00Z", "2027-01-15T07:00:01Z", "2027-01-15T07:00:00Z"
MISSING = Reply(404, b"not found")


def said(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode())


def kernel(state: str, last_activity: str | None = LONG_AGO) -> dict[str, object]:
    return {"id": "1", "execution_state": state, "last_activity": last_activity, "connections": 0}


STATUS = said({"last_activity": LONG_AGO, "started": LONG_AGO, "connections": 0, "kernels": 0})
REST, NONE = said([kernel("idle")]), said([])


@pytest.mark.parametrize(
    ("status", "kernels", "terminals", "result"),
    [
        (STATUS, REST, NONE, ProbeResult.IDLE),
        (STATUS, NONE, NONE, ProbeResult.IDLE),
        (STATUS, NONE, MISSING, ProbeResult.IDLE),
        (STATUS, said([kernel("dead")]), NONE, ProbeResult.IDLE),
        (STATUS, said([kernel("idle", None)]), NONE, ProbeResult.IDLE),
        (said({"last_activity": AT_LIMIT}), REST, NONE, ProbeResult.IDLE),
        (said({"last_activity": INSIDE}), REST, NONE, ProbeResult.ACTIVE),
        (said({"last_activity": "2030-01-01T00:00:00Z"}), REST, NONE, ProbeResult.ACTIVE),
        (said({"last_activity": "2027-01-15T07:30:00"}), REST, NONE, ProbeResult.ACTIVE),
        (STATUS, said([kernel("idle"), kernel("idle", INSIDE)]), NONE, ProbeResult.ACTIVE),
        (STATUS, REST, said([{"name": "1", "last_activity": INSIDE}]), ProbeResult.ACTIVE),
        (STATUS, REST, said([{"name": "1", "last_activity": LONG_AGO}]), ProbeResult.IDLE),
        (STATUS, REST, said([{"name": "1"}]), ProbeResult.IDLE),
        (STATUS, said([kernel("busy")]), NONE, ProbeResult.BUSY),
        (STATUS, said([kernel("idle"), kernel("busy")]), MISSING, ProbeResult.BUSY),
        (STATUS, said([kernel("starting")]), NONE, ProbeResult.BUSY),
        (STATUS, said([kernel("restarting")]), NONE, ProbeResult.BUSY),
        (MISSING, MISSING, MISSING, None),
        (MISSING, MISSING, Reply(500, b""), None),
        (MISSING, NONE, NONE, ProbeResult.FAILED),
        (STATUS, MISSING, NONE, ProbeResult.FAILED),
        (STATUS, NONE, Reply(403, b""), ProbeResult.FAILED),
        (Reply(403, b""), Reply(403, b""), Reply(403, b""), ProbeResult.FAILED),
        (Reply(302, b""), Reply(302, b""), Reply(302, b""), ProbeResult.FAILED),
        (Reply(500, b""), MISSING, MISSING, ProbeResult.FAILED),
        (Reply(200, b"<html>"), REST, NONE, ProbeResult.FAILED),
        (said([]), REST, NONE, ProbeResult.FAILED),
        (said({"kernels": 1}), REST, NONE, ProbeResult.FAILED),
        (said({"last_activity": None}), REST, NONE, ProbeResult.FAILED),
        (said({"last_activity": 12}), REST, NONE, ProbeResult.FAILED),
        (STATUS, said({"id": "1"}), NONE, ProbeResult.FAILED),
        (STATUS, said([{"id": "1"}]), NONE, ProbeResult.FAILED),
        (STATUS, said([kernel("idle", "yesterday")]), NONE, ProbeResult.FAILED),
        (STATUS, Reply(200, REST.body[:-1]), NONE, ProbeResult.FAILED),
        (STATUS, Reply(200, b"[" * 100_000), NONE, ProbeResult.FAILED),
        (STATUS, Reply(200, b"\xff\xfe"), NONE, ProbeResult.FAILED),
        (STATUS, Reply(201, REST.body), NONE, ProbeResult.FAILED),
    ],
)
def test_what_answers_mean(
    status: Reply, kernels: Reply, terminals: Reply, result: ProbeResult | None
) -> None:
    answer = interpret(JUPYTER, [status, kernels, terminals], NOW, LIMIT)
    assert (answer.result if answer else None) is result


@pytest.mark.parametrize("state", ["unknown", "terminating", "autorestarting", "", "Idle"])
def test_a_kernel_state_nobody_knows_protects(state: str) -> None:
    found = interpret(JUPYTER, [STATUS, said([kernel(state)]), NONE], NOW, LIMIT)
    assert found is not None
    assert found.result in (ProbeResult.BUSY, ProbeResult.FAILED)


def test_another_kind_of_server_needs_only_what_to_ask_and_how_to_read_it() -> None:
    """A made-up one: it tells at one address when it was used, and how many jobs it runs."""

    def read(replies: Sequence[Reply]) -> Activity | None:
        (reply,) = replies
        if reply.status == 404:
            return None
        told = json.loads(reply.body)
        used = datetime.fromtimestamp(NOW - told["idle"], UTC)
        return Activity((used,), "a job runs" if told["jobs"] else None, "no job runs")

    kind = ServerKind("RStudio", ("rstudio/status",), "", read)
    for reply, result in (
        (said({"idle": 2 * LIMIT, "jobs": 0}), ProbeResult.IDLE),
        (said({"idle": 2 * LIMIT, "jobs": 1}), ProbeResult.BUSY),
        (said({"idle": 5, "jobs": 0}), ProbeResult.ACTIVE),
        (Reply(200, b"<html>"), ProbeResult.FAILED),
    ):
        answer = interpret(kind, [reply], NOW, LIMIT)
        assert answer is not None
        assert answer.result is result
    assert interpret(kind, [MISSING], NOW, LIMIT) is None
    assert "not a Jupyter or RStudio server" in of_no_kind([JUPYTER, kind]).why


def test_active_within_takes_the_newest_time() -> None:
    times = [None, datetime.fromtimestamp(NOW - 50, UTC), datetime.fromtimestamp(NOW - 9000, UTC)]
    assert active_within(times, NOW, LIMIT) == 50
    assert active_within([None], NOW, LIMIT) is None
    assert active_within([], NOW, LIMIT) is None
    assert active_within([datetime.fromtimestamp(NOW + 99, UTC)], NOW, LIMIT) == 0


ANA = ("ana", "", datetime(2027, 1, 1, tzinfo=UTC))


def test_busy_counts_from_when_it_was_first_seen() -> None:
    watch = BusyWatch()
    assert [watch.busy(ANA, now) for now in (100, 160, 400)] == [0, 60, 300]


def test_a_break_begins_the_count_anew() -> None:
    watch = BusyWatch()
    watch.busy(ANA, 100)
    watch.at_rest(ANA)
    assert watch.busy(ANA, 400) == 0


def test_each_start_of_each_server_counts_by_itself() -> None:
    watch = BusyWatch()
    watch.busy(ANA, 100)
    assert watch.busy(("ana", "gpu", ANA[2]), 400) == 0
    assert watch.busy(("ana", "", datetime(2027, 1, 2, tzinfo=UTC)), 400) == 0


def test_servers_that_run_no_more_are_forgotten() -> None:
    watch = BusyWatch()
    ben = ("ben", *ANA[1:])
    watch.busy(ANA, 100)
    watch.busy(ben, 100)
    watch.keep({ben})
    assert watch.busy(ANA, 400) == 0
    assert watch.busy(ben, 400) == 300


def test_servers_seen_busy_are_forgotten_while_others_are_noted() -> None:
    """The poll forgets while the workers note: neither may trip over the other."""
    watch = BusyWatch()
    done = threading.Event()

    def note() -> None:
        number = 0
        while not done.is_set():
            number += 1
            watch.busy((f"u{number % 5000}", "", None), 0.0)

    worker = threading.Thread(target=note)
    worker.start()
    for _ in range(300):
        watch.keep(set())
    done.set()
    worker.join()
