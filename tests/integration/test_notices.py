"""Notice before a stop: long enough before, once, and only to those who are not at work."""

import threading
from collections.abc import Callable, Hashable, MutableMapping
from pathlib import Path
from typing import Any

import fake_hub as faults
import pytest
from culling_rig import HOUR, MakeRig, Rig

from hub_idle_exporter.domain.policy import JudgedServer
from hub_idle_exporter.people.desk import Desk
from hub_idle_exporter.people.state_file import StateFile

Events = list[MutableMapping[str, Any]]
MINUTE = 60.0
NOTICE = 15 * MINUTE


class Post:
    """Tells people as a mail server does: later, or not at all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.stops: list[str] = []
        self.cancelled: list[Hashable] = []
        self.waiting: dict[Hashable, Callable[[], None]] = {}
        self.left: Callable[[], float] = lambda: 0.0
        self.deliver: Callable[[], None] = lambda: None
        self.trouble: str | None = None

    def due(
        self,
        server: JudgedServer,
        key: Hashable,
        left: Callable[[], float],
        told: Callable[[], None],
    ) -> None:
        self.asked.append((server.user, server.server, f"{server.reason}"))
        self.waiting.setdefault(key, told)
        self.left, self.deliver = left, told

    def stopped(self, server: JudgedServer) -> None:
        self.stops.append(server.user)

    def cancel(self, key: Hashable) -> None:
        self.cancelled.append(key)
        self.waiting.pop(key, None)

    def problem(self, key: Hashable) -> str | None:
        return self.trouble


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """Stops after an hour, with a notice of 15 minutes; the page counts as told."""
    return make_rig(notice=NOTICE)


def later(rig: Rig, seconds: float) -> None:
    """Let time go by, and poll."""
    rig.watch(seconds)
    rig.poll()


def announced(rig: Rig) -> dict[tuple[str, str], float]:
    """Give the servers that were announced, and in how many seconds they are due."""
    found = rig.promises.notices.announcements
    return {key[0][:2]: made.due - rig.time for key, made in found.items()}


def due_metric(rig: Rig, user: str = "ana") -> float | None:
    return rig.metrics.registry.get_sample_value(
        "jupyterhub_server_stop_due_timestamp_seconds", {"user": user, "server": ""}
    )


def test_it_is_announced_when_the_notice_is_left_and_stopped_when_it_is_over(rig: Rig) -> None:
    rig.run("ana", idle=40 * MINUTE, kernels=["idle"])
    rig.poll()
    assert announced(rig) == {}
    later(rig, 5 * MINUTE + 1)
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}
    later(rig, NOTICE - 3)
    assert rig.stops() == []
    later(rig, 4)
    assert rig.stops() == ["ana/"]


def test_nobody_is_stopped_who_was_not_announced(rig: Rig) -> None:
    """It was past its limit already when the exporter started."""
    rig.run("ana", idle=5 * HOUR, kernels=["idle"])
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("notice") == 1
    later(rig, NOTICE - 5)
    assert rig.stops() == []
    assert rig.withheld("notice") == 2
    later(rig, 6)
    assert rig.stops() == ["ana/"]


def test_activity_takes_the_announcement_back(rig: Rig, logged: Events) -> None:
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    server.last_activity = rig.time
    rig.jupyter(server).last_activity = rig.time
    later(rig, 60)
    assert announced(rig) == {}
    assert "announcement_taken_back" in [event["event"] for event in logged]
    later(rig, NOTICE)
    assert rig.stops() == []
    later(rig, HOUR - NOTICE - 30)
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}
    assert rig.stops() == []


def test_activity_of_which_the_hub_learns_late_takes_it_back(rig: Rig) -> None:
    """The Hub learns up to 330 s later: what is reported then was before the announcement."""
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    server.last_activity = rig.time - 60
    later(rig, 30)
    assert announced(rig) == {}


def test_activity_of_which_the_hub_never_learns_takes_it_back(rig: Rig) -> None:
    """Nobody looked until they were idle again past the limit: of that stop they know nothing."""
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    rig.jupyter(server).last_activity = rig.time + 60
    later(rig, 60 + HOUR + 5)
    assert rig.stops() == []
    assert rig.withheld("active_again") == 1
    later(rig, 60)
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}
    later(rig, NOTICE + 1)
    assert rig.stops() == ["ana/"]


def test_each_deadline_is_announced_once(rig: Rig, logged: Events) -> None:
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    for _ in range(5):
        later(rig, 60)
    assert [event["event"] for event in logged].count("stop_announced") == 1


def test_a_busy_server_is_not_announced(rig: Rig) -> None:
    """The busy check comes before the announcement."""
    rig.run("ana", idle=46 * MINUTE, kernels=["busy"])
    rig.poll()
    assert announced(rig) == {}
    assert rig.asked("busy") == 1
    assert rig.withheld("busy") == 0, "it is no candidate yet"


@pytest.mark.parametrize("kernels", [["idle"], []], ids=["a kernel", "no kernel"])
def test_a_server_that_is_active_by_its_own_word_is_not_announced(
    rig: Rig, kernels: list[str]
) -> None:
    rig.run("ana", idle=46 * MINUTE, own_idle=40 * MINUTE, kernels=kernels)
    rig.poll()
    assert announced(rig) == {}


def test_a_server_that_cannot_be_asked_is_not_announced(rig: Rig) -> None:
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.target.plan("GET", "*/kernels", faults.always(faults.Reply(500)))
    rig.poll()
    assert announced(rig) == {}


def test_a_stop_that_is_withheld_as_busy_takes_the_announcement_back(rig: Rig) -> None:
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    assert announced(rig)
    rig.jupyter(server).kernels[0]["execution_state"] = "busy"
    later(rig, NOTICE + 5)
    assert rig.withheld("busy") == 1
    assert announced(rig) == {}
    rig.jupyter(server).kernels[0]["execution_state"] = "idle"
    later(rig, 60)
    assert rig.stops() == []
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}
    later(rig, NOTICE + 1)
    assert rig.stops() == ["ana/"]


def test_a_stop_that_is_withheld_as_active_takes_the_announcement_back(rig: Rig) -> None:
    """The Hub knows nothing of it, the server does."""
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    rig.watch(NOTICE)
    rig.jupyter(server).last_activity = rig.time
    later(rig, 5)
    assert rig.withheld("active_again") == 1
    assert announced(rig) == {}
    assert rig.stops() == []


def test_being_busy_counts_from_before_the_announcement(make_rig: MakeRig) -> None:
    """Busy for too long protects no more: that is announced while there is time."""
    rig = make_rig(notice=NOTICE, max_busy=5 * MINUTE)
    rig.run("ana", idle=46 * MINUTE, kernels=["busy"])
    for _ in range(5):
        later(rig, MINUTE)
    assert announced(rig) == {}
    later(rig, MINUTE)
    assert set(announced(rig)) == {("ana", "")}


def test_no_server_is_asked_while_its_notice_lasts(rig: Rig) -> None:
    rig.run("ana", idle=2 * HOUR, kernels=["idle"])
    rig.poll()
    asked = len(rig.target.requests)
    assert asked
    later(rig, MINUTE)
    assert len(rig.target.requests) == asked
    assert rig.withheld("notice") == 2


def test_a_keep_takes_the_announcement_back_and_its_end_is_announced(make_rig: MakeRig) -> None:
    rig = make_rig(notice=NOTICE, keep_max=2 * HOUR)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    snapshot = rig.latest.state.snapshot
    assert snapshot is not None
    rig.promises.keeper.keep(snapshot.census.due_soon[0], "ana", rig.time)
    later(rig, 60)
    assert announced(rig) == {}
    later(rig, 2 * HOUR - NOTICE - 120)
    assert announced(rig) == {}
    later(rig, 61)
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=5)}
    later(rig, NOTICE - 10)
    assert rig.stops() == []
    later(rig, 11)
    assert rig.stops() == ["ana/"]


def test_the_end_of_a_keep_is_announced_though_nobody_looked_while_it_lasted(
    make_rig: MakeRig,
) -> None:
    """The exporter, or the Hub, was down until after its end."""
    rig = make_rig(notice=NOTICE, keep_max=HOUR)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    snapshot = rig.latest.state.snapshot
    assert snapshot is not None
    rig.promises.keep(snapshot.census.due_soon[0], "ana", rig.time)
    assert announced(rig) == {}
    later(rig, 2 * HOUR)
    assert rig.stops() == []
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}


def test_a_keep_while_the_server_is_asked_prevents_the_announcement(make_rig: MakeRig) -> None:
    rig = make_rig(notice=NOTICE, keep_max=2 * HOUR)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])

    def keep() -> None:
        snapshot = rig.latest.state.snapshot
        assert snapshot is not None
        rig.promises.keep(snapshot.census.due_soon[0], "ana", rig.time)

    rig.after_work(keep)
    rig.poll()
    assert rig.promises.keeper.keeps
    assert announced(rig) == {}


def test_a_new_start_is_announced_anew(rig: Rig) -> None:
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    server.started = rig.time - 50 * MINUTE
    later(rig, 60)
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}


def test_nothing_is_announced_without_enforce(make_rig: MakeRig) -> None:
    rig = make_rig(notice=NOTICE, enforce=False)
    rig.run("ana", idle=46 * MINUTE)
    rig.poll()
    assert announced(rig) == {}


def test_nothing_is_announced_while_the_gate_is_closed(make_rig: MakeRig) -> None:
    """After an outage everybody looks idle, and would be told."""
    rig = make_rig(notice=NOTICE, grace=10 * MINUTE)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    assert announced(rig) == {}
    later(rig, 10 * MINUTE + 1)
    assert set(announced(rig)) == {("ana", "")}


def test_a_gate_that_closes_after_asking_announces_nothing(rig: Rig) -> None:
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.after_work(lambda: rig.suspend("a test"))
    rig.poll()
    assert announced(rig) == {}


def test_max_age_is_announced_and_not_held_up(make_rig: MakeRig, post: Post) -> None:
    rig = make_rig(notice=NOTICE, max_age=3 * HOUR, tells=post)
    rig.run("ana", idle=0, age=2 * HOUR + 46 * MINUTE, kernels=["busy"])
    rig.poll()
    assert post.asked == [("ana", "", "max_age")]
    later(rig, NOTICE)  # nobody has taken the message
    assert rig.stops() == ["ana/"]
    assert rig.culled(reason="max_age") == 1


def test_who_is_past_the_maximum_age_is_told_that_there_is_no_time(
    make_rig: MakeRig, post: Post
) -> None:
    """It was past it when the exporter started: it is stopped at once."""
    rig = make_rig(notice=NOTICE, max_age=3 * HOUR, tells=post)
    rig.run("ana", idle=0, age=4 * HOUR, kernels=["busy"])
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert post.asked == [("ana", "", "max_age")]
    assert post.left() == 0


def test_who_gets_too_old_is_not_told_that_no_stop_is_due(
    make_rig: MakeRig, logged: Events
) -> None:
    rig = make_rig(notice=NOTICE, max_age=3 * HOUR)
    rig.run("ana", idle=46 * MINUTE, age=3 * HOUR - 60, kernels=["idle"])
    rig.poll()
    later(rig, 90)
    assert rig.culled(reason="max_age") == 1
    assert "announcement_taken_back" not in [event["event"] for event in logged]


def test_max_age_of_a_busy_candidate_is_announced_too(make_rig: MakeRig, post: Post) -> None:
    """It is past its idle limit, and lives because it computes, until its maximum age."""
    rig = make_rig(notice=NOTICE, max_age=3 * HOUR, tells=post)
    rig.run("ana", idle=2 * HOUR, age=2 * HOUR + 46 * MINUTE, kernels=["busy"])
    rig.poll()
    rig.watch(5)
    rig.poll()
    assert ("ana", "", "max_age") in post.asked


def test_a_longer_limit_is_announced_anew(make_rig: MakeRig) -> None:
    rig = make_rig(policies=[{"name": "p", "match": {"users": ["*"]}, "notice": "15m"}])
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    assert announced(rig)
    source = rig.source
    assert source is not None
    longer = {"name": "p", "match": {"users": ["*"]}, "notice": "15m", "timeout": "2h"}
    source.value = type(source)([longer], rig.poll_settings.default).value
    later(rig, 60)
    assert announced(rig) == {}


def test_a_hub_whose_clock_jumps_does_not_shorten_the_notice(rig: Rig) -> None:
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    assert announced(rig)
    rig.hub.clock_offset = 58.0  # less than what begins a grace period
    later(rig, NOTICE - 20)
    assert rig.stops() == []
    later(rig, 25)
    assert rig.stops() == ["ana/"]


# ---- people who could not be told --------------------------------------------------------------


def test_who_could_not_be_told_is_not_stopped(make_rig: MakeRig, post: Post) -> None:
    rig = make_rig(notice=NOTICE, tells=post)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    post.trouble = "line 1: the mail server does not answer"
    later(rig, 2 * HOUR)
    assert rig.stops() == []
    assert rig.withheld("notice") == 1
    (entry,) = rig.metrics.journal.newest(1)
    assert entry.why == (
        "nobody could be told of its stop yet: line 1: the mail server does not answer"
    )
    post.deliver()
    assert announced(rig) == {("ana", ""): pytest.approx(NOTICE, abs=2)}
    later(rig, NOTICE + 1)
    assert rig.stops() == ["ana/"]


class Crossing(Post):
    """While a notice is cancelled, the next one is announced."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile = threading.Thread()

    def cancel(self, key: Hashable) -> None:
        self.meanwhile.start()
        self.meanwhile.join(0.2)  # until it is over, or waits for us
        super().cancel(key)


def test_who_is_announced_anew_while_the_last_one_is_taken_back_is_told(make_rig: MakeRig) -> None:
    post = Crossing()
    rig = make_rig(notice=NOTICE, tells=post)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    snapshot, notices = rig.latest.state.snapshot, rig.promises.notices
    assert snapshot is not None
    (one,) = snapshot.census.due_soon
    post.meanwhile = threading.Thread(target=lambda: notices.announce(one, rig.time))
    notices.take_back(one, "it is busy")
    post.meanwhile.join()
    assert notices.is_needed(one, rig.time) or post.waiting


def test_the_page_says_that_somebody_could_not_be_told(make_rig: MakeRig, post: Post) -> None:
    rig = make_rig(notice=NOTICE, tells=post)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    post.trouble = "line 1: the mail server does not answer"
    later(rig, 2 * HOUR)
    desk = Desk(rig.client, rig.latest, rig.gatekeeper.read, rig.promises, rig.metrics.journal)
    (one,) = desk.servers_of("ana")
    assert one.why == (
        "It is past its limit, and was not stopped: nobody could be told of its stop yet: "
        "line 1: the mail server does not answer."
    )
    post.deliver()
    (one,) = desk.servers_of("ana")
    assert one.why == "It is past its limit, and is stopped in 15m, unless it is used."


def test_who_is_being_told_is_not_told_twice(make_rig: MakeRig, post: Post) -> None:
    rig = make_rig(notice=NOTICE, tells=post)
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    for _ in range(3):
        later(rig, MINUTE)
    assert post.asked == [("ana", "", "idle")]


def test_the_message_says_the_time_that_is_left_when_it_is_sent(
    make_rig: MakeRig, post: Post
) -> None:
    rig = make_rig(notice=NOTICE, tells=post)
    rig.run("ana", idle=45 * MINUTE, kernels=["idle"])
    rig.poll()
    assert post.left() == pytest.approx(NOTICE, abs=2)
    rig.watch(HOUR)
    assert post.left() == NOTICE


def test_who_is_told_after_coming_back_is_not_announced(make_rig: MakeRig, post: Post) -> None:
    rig = make_rig(notice=NOTICE, tells=post)
    server = rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    server.last_activity = rig.time
    later(rig, 60)
    assert len(post.cancelled) == 1
    post.deliver()
    assert announced(rig) == {}


def test_a_stop_is_told_afterwards(make_rig: MakeRig, post: Post) -> None:
    rig = make_rig(tells=post)
    rig.run("ana", kernels=["idle"])
    rig.run("bob", kernels=["busy"])
    rig.poll()
    assert post.stops == ["ana"]


# ---- restarts -----------------------------------------------------------------------------------


def test_an_announcement_survives_a_restart(make_rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    first = make_rig(notice=NOTICE, state=StateFile.opened(path, lambda _: True))
    server = first.run("ana", idle=46 * MINUTE, kernels=["idle"])
    first.poll()
    first.enforcement.election.release()
    first.file.close()
    state = StateFile.opened(path, lambda _: True)
    second = make_rig(notice=NOTICE, state=state, after=first)
    later(second, NOTICE - 10)
    assert second.stops() == []
    later(second, 11)
    assert second.stops() == ["ana/"]
    assert not server.process_alive


def test_without_a_state_file_a_restart_announces_anew(make_rig: MakeRig) -> None:
    first = make_rig(notice=NOTICE)
    first.run("ana", idle=46 * MINUTE, kernels=["idle"])
    first.poll()
    first.enforcement.election.release()
    second = make_rig(notice=NOTICE, after=first)
    later(second, NOTICE + 1)
    assert second.stops() == []
    assert announced(second) == {("ana", ""): pytest.approx(NOTICE, abs=2)}
    later(second, NOTICE + 1)
    assert second.stops() == ["ana/"]


def test_an_announcement_that_cannot_be_written_does_not_count(
    make_rig: MakeRig, post: Post, tmp_path: Path
) -> None:
    path = tmp_path / "state.sqlite"
    rig = make_rig(notice=NOTICE, tells=post, state=StateFile.opened(path, lambda _: True))
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.poll()
    path.unlink()
    post.deliver()
    assert announced(rig) == {}
    later(rig, 60)
    assert len(post.asked) == 2, "people are told anew"


# ---- what is seen -------------------------------------------------------------------------------


def test_the_metric_says_when_a_stop_is_due(make_rig: MakeRig) -> None:
    rig = make_rig(notice=NOTICE, poll={"per_server_metrics": True})
    rig.run("ana", idle=46 * MINUTE, kernels=["idle"])
    rig.run("bob", idle=2 * HOUR, kernels=["idle"])
    rig.run("eve", idle=0)
    rig.poll()
    assert due_metric(rig, "eve") == pytest.approx(rig.time + HOUR, abs=2)
    assert due_metric(rig, "bob") == pytest.approx(rig.time - HOUR, abs=2)
    later(rig, 60)
    assert due_metric(rig, "bob") == pytest.approx(rig.time - 60 + NOTICE, abs=3)


def test_a_server_that_is_exempt_has_no_due_time(make_rig: MakeRig) -> None:
    exempt = {"name": "staff", "match": {"users": ["ana"]}, "exempt": True}
    rig = make_rig(policies=[exempt], poll={"per_server_metrics": True})
    rig.run("ana")
    rig.poll()
    assert due_metric(rig) is None
