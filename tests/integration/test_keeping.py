"""Keeping a server: it lives until the time that its user was told, and no longer."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import fake_hub as faults
import pytest
from culling_rig import HOUR, MakeRig, Rig

from hub_idle_exporter.domain.policy import JudgedServer, Reason
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.people.desk import Desk, ServerNow, Visitor, started_text
from hub_idle_exporter.people.keeper import RefusedError
from hub_idle_exporter.people.state_file import StateFile

Events = list[MutableMapping[str, Any]]
ANA, ROOT = Visitor("ana", admin=False), Visitor("root", admin=True)


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig(keep_max=8 * HOUR)


def desk_of(rig: Rig) -> Desk:
    journal = rig.metrics.journal
    return Desk(rig.client, rig.latest, rig.gatekeeper.read, rig.promises, journal)


def shown(rig: Rig, user: str = "ana", server: str = "") -> ServerNow:
    (found,) = [one for one in desk_of(rig).servers_of(user) if one.judged.server == server]
    return found


def started(rig: Rig, user: str = "ana", server: str = "") -> str:
    return started_text(shown(rig, user, server).judged)


def keep(rig: Rig, user: str = "ana", server: str = "", by: Visitor = ANA) -> float:
    """Keep a server as the page does; return until when, in the rig's time."""
    return desk_of(rig).keep(by, user, server, started(rig, user, server)).until


def kept_metric(rig: Rig, policy: str = "default") -> float | None:
    return rig.metrics.registry.get_sample_value("jupyterhub_servers_kept", {"policy": policy})


@pytest.fixture
def polled(rig: Rig) -> Rig:
    """One poll has taken the lease; ana's server was in use then."""
    rig.run("ana", idle=60)
    rig.poll()
    rig.watch(HOUR - 120)
    return rig


def test_a_kept_server_outlives_its_limit_and_is_stopped_after_the_bound(polled: Rig) -> None:
    until = keep(polled)
    assert until == pytest.approx(polled.time + 8 * HOUR, abs=2)
    polled.watch(until - polled.time - 60)
    polled.poll()
    assert polled.stops() == []
    assert kept_metric(polled) == 1
    polled.watch(62)
    polled.poll()
    assert polled.stops() == ["ana/"]
    polled.poll()
    assert kept_metric(polled) == 0


def test_a_kept_server_is_no_candidate(polled: Rig) -> None:
    keep(polled)
    polled.watch(2 * HOUR)
    polled.poll()
    snapshot = polled.latest.state.snapshot
    assert snapshot is not None
    assert snapshot.census.candidates == ()
    (one,) = snapshot.census.past_limit
    assert one.why == "is kept for another 6h"
    assert polled.withheld("kept") == 0


def test_a_released_server_is_stopped(polled: Rig) -> None:
    keep(polled)
    polled.watch(2 * HOUR)
    polled.poll()
    desk_of(polled).release(ANA, "ana", "", started(polled))
    polled.poll()
    assert polled.stops() == ["ana/"]


def test_repeated_keeps_go_up_to_the_bound_from_now(polled: Rig) -> None:
    first = keep(polled)
    polled.watch(HOUR)
    assert keep(polled) == pytest.approx(first + HOUR, abs=2)
    for _ in range(5):
        assert keep(polled) <= polled.time + 8 * HOUR + 1


def test_a_shorter_bound_does_not_shorten_a_keep(make_rig: MakeRig) -> None:
    """What was promised stays promised, also when the policy has changed since."""
    rig = make_rig(keep_max=HOUR)
    rig.run("ana", idle=60)
    rig.poll()
    one = shown(rig).judged
    rig.promises.file.save_keep(one.start, type(rig.promises.keeper.keep(one, "x", 0.0))(9e9, "x"))
    assert keep(rig) == pytest.approx(9e9, abs=1)


def test_a_new_start_is_not_kept(polled: Rig) -> None:
    keep(polled)
    server = polled.hub.server("ana")
    server.started = polled.time
    server.last_activity = polled.time
    polled.watch(2 * HOUR)
    polled.poll()
    assert polled.stops() == ["ana/"]


def test_an_old_page_does_not_keep_a_new_start(polled: Rig) -> None:
    before = started(polled)
    polled.hub.server("ana").started = polled.time
    with pytest.raises(RefusedError, match="stopped or started anew"):
        desk_of(polled).keep(ANA, "ana", "", before)


def test_max_age_is_not_held_up(make_rig: MakeRig) -> None:
    rig = make_rig(keep_max=8 * HOUR, max_age=3 * HOUR)
    rig.run("ana", idle=60, age=HOUR)
    rig.poll()
    keep(rig)
    rig.watch(2 * HOUR + 1)
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert rig.culled(reason="max_age") == 1


def test_a_pending_server_is_not_kept(polled: Rig) -> None:
    polled.hub.server("ana").ready = False
    with pytest.raises(RefusedError, match="starting or stopping"):
        keep(polled)


def test_a_server_in_use_can_be_kept(polled: Rig) -> None:
    polled.hub.server("ana").last_activity = polled.time
    keep(polled)
    polled.poll()
    assert kept_metric(polled) == 1


@pytest.mark.parametrize("policy", [{"keep_max": 0}, {"exempt": True}], ids=["no keeps", "exempt"])
def test_a_policy_may_not_offer_it(make_rig: MakeRig, policy: dict[str, Any]) -> None:
    rig = make_rig(keep_max=HOUR, policies=[{"name": "gpu", "match": {"users": ["ana"]}, **policy}])
    rig.run("ana", idle=60)
    rig.poll()
    assert shown(rig).keep_for == 0
    with pytest.raises(RefusedError, match="does not allow"):
        keep(rig)


def test_each_policy_has_its_own_bound(make_rig: MakeRig) -> None:
    long = {"name": "thesis", "match": {"users": ["ana"]}, "keep_max": "1d"}
    rig = make_rig(keep_max=HOUR, policies=[long])
    rig.run("ana", idle=60)
    rig.poll()
    assert keep(rig) == pytest.approx(rig.time + 86400, abs=1)
    rig.poll()
    assert (kept_metric(rig, "thesis"), kept_metric(rig)) == (1, 0)


def test_keeping_is_no_activity(polled: Rig) -> None:
    before = polled.hub.server("ana").last_activity
    keep(polled)
    assert polled.hub.server("ana").last_activity == before
    assert not polled.hub.log("POST", "/users/ana/activity")


def test_every_keep_is_in_the_log(polled: Rig, logged: Events) -> None:
    until = keep(polled, by=ROOT)
    desk_of(polled).release(ANA, "ana", "", started(polled))
    found = {event["event"]: event for event in logged}
    assert found["server_kept"]["user"] == "ana"
    assert found["server_kept"]["by"] == "root"
    assert found["server_kept"]["seconds"] == pytest.approx(until - polled.time, abs=1)
    assert found["server_kept"]["until"].startswith("2027-")
    assert found["server_released"]["by"] == "ana"


# ---- the last moment ----------------------------------------------------------------------------


def test_a_keep_that_comes_before_the_stop_is_honoured(rig: Rig) -> None:
    """It was looked at again and asked already: the keep is committed before the DELETE."""
    rig.run("ana", kernels=["idle"])
    one = started(rig)
    rig.after_work(lambda: desk_of(rig).keep(ANA, "ana", "", one))
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("kept") == 1


def test_a_keep_right_before_the_delete_is_honoured(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All checks are over: only the lock that keep and stop share can tell."""
    rig.run("ana", kernels=["idle"])
    one, keeper = started(rig), rig.promises.keeper
    begin_stop = keeper.begin_stop

    def kept_first(server: JudgedServer, now: float) -> str | None:
        desk_of(rig).keep(ANA, "ana", "", one)
        return begin_stop(server, now)

    monkeypatch.setattr(keeper, "begin_stop", kept_first)
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("kept") == 1


def test_a_keep_that_comes_after_the_stop_is_too_late(rig: Rig) -> None:
    rig.run("ana", kernels=["idle"])
    one, refused = shown(rig).judged, list[str]()

    def ask() -> None:
        try:
            rig.promises.keeper.keep(one, "ana", rig.time)
        except RefusedError as error:
            refused.append(str(error))

    rig.hub.plan("DELETE", "/users/ana/server", faults.before(ask), times=1)
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert refused == ["It is too late: this server is being stopped."]
    assert rig.promises.keeper.keeps == {}


def test_a_server_whose_stop_failed_can_be_kept_again(rig: Rig) -> None:
    rig.run("ana", kernels=["idle"])
    rig.hub.plan("DELETE", "/users/ana/server", faults.always(faults.Reply(400)), times=1)
    rig.poll()
    assert rig.failed("http") == 1
    keep(rig)


# ---- who may stop, and what is not known -------------------------------------------------------


def test_an_exporter_that_waits_for_the_lease_refuses_keeps(make_rig: MakeRig) -> None:
    """The other one does not know what is kept here, and would stop the server."""
    first, second = make_rig(keep_max=HOUR), make_rig(keep_max=HOUR)
    first.run("ana", idle=60)
    first.poll()
    second.poll()
    with pytest.raises(RefusedError, match="Another exporter"):
        keep(second)
    keep(first)


def test_an_exporter_whose_lease_has_ended_refuses_keeps(polled: Rig) -> None:
    """Another one may have taken it meanwhile: nobody has asked."""
    polled.time += 10 * 60
    with pytest.raises(RefusedError, match="Another exporter"):
        keep(polled)


def test_before_the_first_poll_nothing_is_kept(rig: Rig) -> None:
    rig.run("ana", idle=60)
    with pytest.raises(RefusedError, match="at present"):
        keep(rig)


def test_while_the_hub_is_down_nothing_is_kept(polled: Rig) -> None:
    one = started(polled)
    polled.hub.plan("GET", "/users/ana", faults.always(faults.Reply(503)))
    with pytest.raises(HubError):
        desk_of(polled).keep(ANA, "ana", "", one)


def test_what_is_kept_survives_a_restart(make_rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    first = make_rig(keep_max=8 * HOUR, state=StateFile.opened(path, lambda _: True))
    first.run("ana", idle=60)
    first.poll()
    keep(first)
    first.enforcement.election.release()
    first.file.close()  # as the end of the process does
    second = make_rig(keep_max=8 * HOUR, state=StateFile.opened(path, lambda _: True))
    second.watch(2 * HOUR)
    second.poll()
    assert second.stops() == []
    assert kept_metric(second) == 1


def test_while_the_state_file_is_lost_nothing_is_stopped(make_rig: MakeRig, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    path = folder / "state.sqlite"
    rig = make_rig(keep_max=8 * HOUR, state=StateFile.opened(path, lambda _: True))
    rig.run("ana", idle=60)
    rig.poll()
    folder.rename(tmp_path / "away")
    with pytest.raises(RefusedError, match="could not be saved"):
        keep(rig)
    rig.run("bob")
    rig.poll()
    assert rig.stops() == []
    assert rig.counted("enforcement", state="suspended") == 1
    assert "state file" in rig.gatekeeper.read().why
    (tmp_path / "away").rename(folder)
    rig.poll()
    assert rig.stops() == ["bob/"]


def test_a_file_that_is_lost_during_a_pass_stops_nobody(make_rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    rig = make_rig(keep_max=8 * HOUR, state=StateFile.opened(path, lambda _: True))
    rig.run("ana", kernels=["idle"])
    rig.after_work(path.unlink)
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("gate") == 1


# ---- what people see ----------------------------------------------------------------------------


def test_people_see_when_their_server_is_stopped(polled: Rig) -> None:
    seen = shown(polled)
    assert seen.due == pytest.approx(polled.time + 60, abs=2)
    assert seen.why == "It is stopped in 1m, unless it is used."
    assert seen.keep_for == 8 * HOUR
    until = keep(polled)
    again = shown(polled)
    assert again.due == pytest.approx(until, abs=1)
    assert again.keep is not None
    assert again.keep.by == "ana"


def test_administrators_see_a_keep_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(keep_max=8 * HOUR, poll={"lists_all": True}, busy_check="require")
    rig.run("ana", kernels=["busy"])
    rig.poll()
    keep(rig, by=ROOT)
    (seen,) = desk_of(rig).all_servers() or []
    assert seen.judged.why == "is kept for another 8h"
    desk_of(rig).release(ROOT, "ana", "", started_text(seen.judged))
    (seen,) = desk_of(rig).all_servers() or []
    assert seen.judged.reason is not None


def test_administrators_see_a_release_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(keep_max=8 * HOUR, poll={"lists_all": True})
    rig.run("ana", kernels=["busy"])
    rig.poll()
    keep(rig)
    rig.poll()
    desk_of(rig).release(ROOT, "ana", "", started(rig))
    (seen,) = desk_of(rig).all_servers() or []
    assert (seen.judged.reason, seen.judged.kept) == (Reason.IDLE, None)
    assert seen.why.startswith("It is past its limit")


def test_people_see_what_prevented_the_stop(rig: Rig) -> None:
    rig.run("ana", kernels=["busy"])
    rig.poll()
    assert "1 of 1 kernels busy" in shown(rig).why


def test_people_see_what_became_of_their_last_server(rig: Rig) -> None:
    rig.run("ana")
    rig.run("bob")
    rig.poll()
    (entry,) = desk_of(rig).ended("ana")
    assert (entry.user, str(entry.outcome)) == ("ana", "stopped")
    assert entry.idle == pytest.approx(2 * HOUR, abs=5)
    assert {one.user for one in desk_of(rig).ended()} == {"ana", "bob"}


def test_people_see_that_their_server_gets_too_old(make_rig: MakeRig) -> None:
    rig = make_rig(max_age=3 * HOUR)
    rig.run("ana", idle=0, age=2 * HOUR)
    rig.poll()
    assert shown(rig).why == (
        "It is stopped in 1h, because it is too old then, even if it is used."
    )


def test_an_exporter_that_only_watches_says_so(make_rig: MakeRig) -> None:
    rig = make_rig(keep_max=HOUR, enforce=False)
    rig.run("ana")
    rig.poll()
    seen = shown(rig)
    assert (seen.due, seen.keep_for) == (None, 0.0)
    assert "only watches" in seen.why


def test_what_the_hub_said_before_the_stop_does_not_keep_a_stopped_server(rig: Rig) -> None:
    """The page has asked the Hub, and the whole stop is over before it goes on."""
    rig.run("ana", kernels=["idle"])
    one = shown(rig).judged
    rig.poll()
    assert rig.culled() == 1
    with pytest.raises(RefusedError, match="too late"):
        rig.promises.keeper.keep(one, "ana", rig.time)
    assert rig.promises.keeper.keeps == {}
