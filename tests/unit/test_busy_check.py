"""What a server's own answers mean, as tables; and how long being busy protects."""

import json
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest

from hub_idle_exporter.domain.busy_check import (
    JUPYTER,
    Activity,
    KnownKinds,
    Reply,
    ServerKind,
    Watch,
    Work,
    address_of,
    idle_at,
    judge_activity,
    judge_work,
)
from hub_idle_exporter.domain.labels import ProbeResult
from hub_idle_exporter.domain.stop_result import Address

NOW = datetime(2027, 1, 15, 8, tzinfo=timezone.utc).timestamp()
LIMIT = 3600.0
LONG_AGO, INSIDE, AT_LIMIT = "2027-01-15T01:00:00Z", "2027-01-15T07:00:01Z", "2027-01-15T07:00:00Z"
MISSING = Reply(404, b"not found", NOW)
IDLE, BUSY, ACTIVE = ProbeResult.IDLE, ProbeResult.BUSY, ProbeResult.ACTIVE
NO_JUPYTER, FAILED = ProbeResult.NO_JUPYTER, ProbeResult.FAILED


def said(value: object, now: float | None = NOW) -> Reply:
    return Reply(200, json.dumps(value).encode(), now)


def kernel(state: str, last_activity: str | None = LONG_AGO) -> dict[str, object]:
    return {"id": "1", "execution_state": state, "last_activity": last_activity, "connections": 0}


STATUS = said({"last_activity": LONG_AGO, "started": LONG_AGO, "connections": 0, "kernels": 0})
REST, NONE = said([kernel("idle")]), said([])


def work_of(kernels: Reply, terminals: Reply) -> ProbeResult:
    """Read and judge the first round of questions."""
    try:
        work = JUPYTER.read_work([kernels, terminals])
    except ValueError:
        return FAILED
    return NO_JUPYTER if work is None else judge_work(work, LIMIT).result


def activity_of(status: Reply) -> ProbeResult:
    """Read and judge the last question."""
    try:
        activity = JUPYTER.read_activity(status)
    except ValueError:
        return FAILED
    if activity is None:
        return NO_JUPYTER
    answer = judge_activity(activity, LIMIT)
    return IDLE if answer is None else answer.result


# ---- the first round: kernels and terminals -----------------------------------------------------


@pytest.mark.parametrize(
    ("kernels", "terminals", "result"),
    [
        (REST, NONE, IDLE),
        (NONE, NONE, IDLE),
        (NONE, MISSING, IDLE),
        (said([kernel("dead")]), NONE, IDLE),
        (said([kernel("idle", None)]), NONE, IDLE),
        (said([kernel("idle", AT_LIMIT)]), NONE, IDLE),
        (said([kernel("idle"), kernel("idle", INSIDE)]), NONE, ACTIVE),
        (said([kernel("busy", INSIDE)]), NONE, ACTIVE),
        (said([kernel("idle", "2030-01-01T00:00:00Z")]), NONE, ACTIVE),
        (said([kernel("idle", "2027-01-15T07:30:00")]), NONE, ACTIVE),
        (REST, said([{"name": "1", "last_activity": INSIDE}]), ACTIVE),
        (NONE, said([{"name": "1", "last_activity": INSIDE}]), ACTIVE),
        (REST, said([{"name": "1", "last_activity": LONG_AGO}]), IDLE),
        (REST, said([{"name": "1"}]), IDLE),
        (said([kernel("busy")]), NONE, BUSY),
        (said([kernel("idle"), kernel("busy")]), MISSING, BUSY),
        (said([kernel("busy", None)]), NONE, BUSY),
        (said([kernel("starting")]), NONE, BUSY),
        (said([kernel("restarting")]), NONE, BUSY),
        (MISSING, MISSING, NO_JUPYTER),
        (MISSING, Reply(500, b"", NOW), NO_JUPYTER),
        (NONE, Reply(403, b"", NOW), FAILED),
        (Reply(403, b"", NOW), Reply(403, b"", NOW), FAILED),
        (Reply(302, b"", NOW), Reply(302, b"", NOW), FAILED),
        (Reply(500, b"", NOW), MISSING, FAILED),
        (Reply(200, b"<html>", NOW), NONE, FAILED),
        (said({"id": "1"}), NONE, FAILED),
        (said([{"id": "1"}]), NONE, FAILED),
        (said([kernel("idle", "yesterday")]), NONE, FAILED),
        (REST, said([{"name": "1", "last_activity": "yesterday"}]), FAILED),
        (REST, said({"name": "1"}), FAILED),
        (Reply(200, REST.body[:-1], NOW), NONE, FAILED),
        (Reply(200, b"[" * 100_000, NOW), NONE, FAILED),
        (Reply(200, b"\xff\xfe", NOW), NONE, FAILED),
        (Reply(201, REST.body, NOW), NONE, FAILED),
    ],
)
def test_what_kernels_and_terminals_mean(
    kernels: Reply, terminals: Reply, result: ProbeResult
) -> None:
    assert work_of(kernels, terminals) is result


@pytest.mark.parametrize("state", ["unknown", "terminating", "autorestarting", "", "Idle"])
def test_a_kernel_state_nobody_knows_protects(state: str) -> None:
    assert work_of(said([kernel(state)]), NONE) in (BUSY, FAILED)


# ---- the last question: status ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (STATUS, IDLE),
        (said({"last_activity": AT_LIMIT}), IDLE),
        (said({"last_activity": INSIDE}), ACTIVE),
        (said({"last_activity": "2030-01-01T00:00:00Z"}), ACTIVE),
        (said({"last_activity": "2027-01-15T07:30:00"}), ACTIVE),
        (MISSING, NO_JUPYTER),
        (Reply(403, b"", NOW), FAILED),
        (Reply(302, b"", NOW), FAILED),
        (Reply(500, b"", NOW), FAILED),
        (Reply(201, STATUS.body, NOW), FAILED),
        (Reply(200, b"<html>", NOW), FAILED),
        (Reply(200, STATUS.body[:-1], NOW), FAILED),
        (said([]), FAILED),
        (said({"kernels": 1}), FAILED),
        (said({"last_activity": None}), FAILED),
        (said({"last_activity": 12}), FAILED),
        (said({"last_activity": LONG_AGO, "started": "yesterday"}), FAILED),
    ],
)
def test_what_a_status_means(status: Reply, result: ProbeResult) -> None:
    assert activity_of(status) is result


def test_a_status_says_since_when_the_server_runs() -> None:
    """By it an orphan is told from a server that was started since."""
    activity = JUPYTER.read_activity(STATUS)
    assert activity == Activity(7 * 3600.0, datetime(2027, 1, 15, 1, tzinfo=timezone.utc))
    silent = JUPYTER.read_activity(said({"last_activity": LONG_AGO}))
    assert silent == Activity(7 * 3600.0, None)


# ---- whose clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong_by", [-7200.0, 7200.0, 86400.0])
def test_what_a_server_says_is_aged_by_its_own_clock(wrong_by: float) -> None:
    """A server that is hours off the Hub's clock dates its activity by its own, wrong, clock."""

    def text(seconds_ago: float) -> str:
        return datetime.fromtimestamp(NOW + wrong_by - seconds_ago, timezone.utc).isoformat()

    for seconds_ago, result in ((60.0, ACTIVE), (LIMIT - 1, ACTIVE), (LIMIT, IDLE)):
        when, now = text(seconds_ago), NOW + wrong_by
        assert activity_of(said({"last_activity": when}, now)) is result
        assert work_of(said([kernel("idle", when)], now), NONE) is result
        assert work_of(NONE, said([{"last_activity": when}], now)) is result


@pytest.mark.parametrize(
    ("set_by", "just_now"), [(7200, "2027-01-15T09:59:00Z"), (-7200, "2027-01-15T05:59:00Z")]
)
def test_each_answer_is_aged_by_the_clock_in_that_answer(set_by: float, just_now: str) -> None:
    """Kernels and terminals are two answers, and their user may have set the clock in between."""
    terminals = said([{"last_activity": just_now}], NOW + set_by)
    assert work_of(said([kernel("idle", LONG_AGO)], NOW), terminals) is ACTIVE
    kernels = said([kernel("idle", just_now)], NOW + set_by)
    assert work_of(kernels, said([{"last_activity": LONG_AGO}], NOW)) is ACTIVE


@pytest.mark.parametrize("undated", ["kernels", "terminals", "status"])
def test_a_server_that_does_not_say_what_time_it_is_is_not_understood(undated: str) -> None:
    """Without it, nothing tells how old the times are that it names."""
    when = {"last_activity": LONG_AGO}
    if undated == "status":
        assert activity_of(said(when, None)) is FAILED
    elif undated == "kernels":
        assert work_of(said([kernel("idle")], None), NONE) is FAILED
    else:
        assert work_of(REST, said([when], None)) is FAILED


def test_without_any_time_to_age_no_clock_is_needed() -> None:
    assert work_of(said([], None), said([], None)) is IDLE


def test_idle_at_takes_the_newest_time() -> None:
    times = [
        None,
        datetime.fromtimestamp(NOW - 50, timezone.utc),
        datetime.fromtimestamp(NOW - 9000, timezone.utc),
    ]
    assert idle_at(times, NOW) == 50
    assert idle_at([None], NOW) is None
    assert idle_at([], NOW) is None
    assert idle_at([datetime.fromtimestamp(NOW + 99, timezone.utc)], NOW) == 0
    assert idle_at([datetime.fromtimestamp(NOW - 50, timezone.utc).replace(tzinfo=None)], NOW) == 50


# ---- judged -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle", "busy", "result"),
    [
        (None, None, IDLE),
        (LIMIT, None, IDLE),
        (LIMIT - 0.001, None, ACTIVE),
        (0.0, None, ACTIVE),
        (None, "a job runs", BUSY),
        (LIMIT, "a job runs", BUSY),
        (0.0, "a job runs", ACTIVE),
    ],
)
def test_work_is_judged_by_its_activity_and_then_by_what_is_busy(
    idle: float | None, busy: str | None, result: ProbeResult
) -> None:
    answer = judge_work(Work(idle, busy, "no job runs"), LIMIT)
    assert answer.result is result
    assert ("no job runs" in answer.why) == (result is IDLE)
    assert ("a job runs" in answer.why) == (result is BUSY)


@pytest.mark.parametrize(
    ("protects", "work", "result"),
    [
        (True, Work(LIMIT, None, "", terminals=1), BUSY),
        (True, Work(None, None, "", terminals=3), BUSY),
        (True, Work(LIMIT, None, "", terminals=0), IDLE),
        (True, Work(LIMIT - 1, None, "", terminals=1), ACTIVE),
        (True, Work(LIMIT, "a job runs", "", terminals=0), BUSY),
        (False, Work(LIMIT, None, "", terminals=1), IDLE),
    ],
)
def test_an_open_terminal_counts_as_work_where_it_protects(
    protects: bool, work: Work, result: ProbeResult
) -> None:
    assert judge_work(work, LIMIT, protects).result is result
    assert protects or judge_work(work, LIMIT).result is result


SILENT = {"name": "1", "last_activity": LONG_AGO}


@pytest.mark.parametrize(
    ("terminals", "count"), [(NONE, 0), (MISSING, 0), (said([SILENT, SILENT]), 2)]
)
def test_open_terminals_are_counted_however_long_they_were_silent(
    terminals: Reply, count: int
) -> None:
    work = JUPYTER.read_work([REST, terminals])
    assert work is not None
    assert work.terminals == count


@pytest.mark.parametrize(
    ("idle", "judged"), [(0.0, ACTIVE), (LIMIT - 0.001, ACTIVE), (LIMIT, None)]
)
def test_activity_within_the_limit_protects(idle: float, judged: ProbeResult | None) -> None:
    answer = judge_activity(Activity(idle, None), LIMIT)
    assert (answer.result if answer else None) is judged


def test_another_kind_of_server_needs_only_what_to_ask_and_how_to_read_it() -> None:
    """A made-up one: it tells at one address what it does, and at another when it was used."""

    def read_work(replies: Sequence[Reply]) -> Work | None:
        (reply,) = replies
        if reply.status == 404:
            return None
        told = json.loads(reply.body)
        return Work(None, "a job runs" if told["jobs"] else None, "no job runs")

    def read_activity(reply: Reply) -> Activity | None:
        return None if reply.status == 404 else Activity(json.loads(reply.body)["idle"], None)

    kind = ServerKind("RStudio", ("rstudio/jobs",), "rstudio/status", "", read_work, read_activity)
    for jobs, result in ((0, IDLE), (1, BUSY)):
        work = kind.read_work([said({"jobs": jobs})])
        assert work is not None
        assert judge_work(work, LIMIT).result is result
    activity = kind.read_activity(said({"idle": 5}))
    assert activity is not None
    assert judge_activity(activity, LIMIT) is not None
    assert kind.read_work([MISSING]) is None
    assert kind.read_activity(MISSING) is None


# ---- what answers at the old address, after a stop ----------------------------------------------

BEGAN, LATER = (
    datetime(2027, 1, 15, 1, tzinfo=timezone.utc),
    datetime(2027, 1, 15, 7, tzinfo=timezone.utc),
)


@pytest.mark.parametrize(
    ("before", "answer", "address"),
    [
        (Activity(9.0, BEGAN), Activity(9.0, BEGAN), Address.SAME),
        (Activity(9.0, BEGAN), Activity(0.0, BEGAN), Address.SAME),  # an orphan in use
        (Activity(9.0, BEGAN), Activity(9.0, LATER), Address.GONE),
        (Activity(9.0, BEGAN), None, Address.GONE),
        (None, None, Address.GONE),
        (None, Activity(9.0, BEGAN), Address.UNKNOWN),
        (Activity(9.0, None), Activity(9.0, BEGAN), Address.UNKNOWN),
        (Activity(9.0, BEGAN), Activity(9.0, None), Address.UNKNOWN),
        (Activity(9.0, None), Activity(9.0, None), Address.UNKNOWN),
    ],
)
def test_the_same_server_still_answers_only_if_it_was_started_at_the_same_time(
    before: Activity | None, answer: Activity | None, address: Address
) -> None:
    assert address_of(before, answer) is address


# ---- busy for how long --------------------------------------------------------------------------

ANA = ("ana", "", datetime(2027, 1, 1, tzinfo=timezone.utc))
BEN = ("ben", *ANA[1:])
GAP = 180.0


def seen(watch: Watch, *moments: float) -> list[float]:
    return [watch.seen(ANA, now) for now in moments]


def test_busy_counts_from_when_it_was_first_seen() -> None:
    assert seen(Watch(GAP), 100, 160, 340) == [0, 60, 240]


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """The exporter was down, or there was no pass: what happened meanwhile is not known."""
    assert seen(Watch(GAP), 100, 280, 460.5, 520, 86400, 86460) == [
        0,
        180,
        180,
        239.5,
        239.5,
        299.5,
    ]


def test_a_break_begins_the_count_anew() -> None:
    watch = Watch(GAP)
    seen(watch, 100, 200)
    watch.ended(ANA)
    assert seen(watch, 220, 260) == [0, 40]
    watch.ended(BEN)  # never seen: no harm


def test_each_start_of_each_server_counts_by_itself() -> None:
    watch = Watch(GAP)
    seen(watch, 100)
    assert watch.seen(("ana", "gpu", ANA[2]), 200) == 0
    assert watch.seen(("ana", "", datetime(2027, 1, 2, tzinfo=timezone.utc)), 200) == 0
    assert seen(watch, 200) == [100]


def test_servers_that_are_no_candidates_are_forgotten() -> None:
    watch = Watch(GAP)
    for server in (ANA, BEN):
        watch.seen(server, 100)
    watch.keep({BEN})
    assert watch.seen(ANA, 200) == 0
    assert watch.seen(BEN, 200) == 100


def test_servers_seen_busy_are_forgotten_while_others_are_noted() -> None:
    """The poll forgets while the workers note: neither may trip over the other."""
    watch = Watch(GAP)
    done = threading.Event()

    def note() -> None:
        number = 0
        while not done.is_set():
            number += 1
            watch.seen((f"u{number % 5000}", "", None), 0.0)

    worker = threading.Thread(target=note)
    worker.start()
    for _ in range(300):
        watch.keep(set())
    done.set()
    worker.join()


# ---- once Jupyter, always Jupyter ---------------------------------------------------------------


def test_a_start_that_answered_as_a_kind_stays_of_that_kind() -> None:
    known, user, server, started = KnownKinds(), *ANA
    assert not known.has(user, server, started)
    known.answered(user, server, started)
    assert known.has(user, server, started)
    assert not known.has(user, "gpu", started)
    assert not known.has("ben", server, started)


def test_another_start_may_be_of_another_kind() -> None:
    known = KnownKinds()
    known.answered(*ANA)
    after = (ANA[0], ANA[1], datetime(2027, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=1))
    assert not known.has(*after)
    known.answered(*after)
    assert known.has(*after)
    assert not known.has(*ANA)


def test_a_server_of_unknown_start_can_be_known_too() -> None:
    known = KnownKinds()
    assert not known.has("ana", "", None)
    known.answered("ana", "", None)
    assert known.has("ana", "", None)


def test_the_kinds_known_longest_are_forgotten_first_when_there_are_too_many() -> None:
    known = KnownKinds(most=2)
    for user in ("ana", "ben", "ana", "cy"):
        known.answered(user, "", None)
    assert [known.has(user, "", None) for user in ("ana", "ben", "cy")] == [True, False, True]
