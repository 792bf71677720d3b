"""The culler's rules, each test named after its rule, over real HTTP and still clocks."""

import threading
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote

import fake_hub as faults
import pytest
import structlog
from culling_rig import HANG_SECONDS, HOUR, FixedPolicies, MakeRig, Rig
from fake_hub import FakeHub, Fault, Reply, Request, Server

from hub_idle_exporter.clocks import steady
from hub_idle_exporter.culling import clearance, probe, removal
from hub_idle_exporter.culling.audit import Audit
from hub_idle_exporter.culling.cull_pass import RouteTable
from hub_idle_exporter.culling.probe import Prober
from hub_idle_exporter.domain.busy_check import JUPYTER, Activity, ServerKind, Work
from hub_idle_exporter.domain.busy_check import Reply as ServerReply
from hub_idle_exporter.domain.labels import CullFailure, ProbeResult
from hub_idle_exporter.domain.model import Route
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.token import Token

Events = list[MutableMapping[str, Any]]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow stops, and give up on servers that do not answer, sooner."""
    monkeypatch.setattr(probe, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(clearance, "DEADLINE_SECONDS", 0.3)


def after_listing(rig: Rig, happening: Callable[[], object]) -> None:
    """Let something happen between the list and whatever comes of it."""
    rig.hub.plan("GET", "/users", faults.after(happening), times=1)


def assert_withheld(rig: Rig, cause: str) -> None:
    assert rig.stops() == []
    assert rig.withheld(cause) == 1
    assert rig.attempted() == rig.culled() == 0


# ---- what is stopped ----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["ana", "we ird@ex.org", "ünï", "a/b"])
@pytest.mark.parametrize("name", ["", "gpu", "my srv"])
def test_an_idle_server_is_stopped_by_its_own_path(rig: Rig, user: str, name: str) -> None:
    server = rig.run(user, name)
    rig.poll()
    assert rig.stops() == [f"{user}/{name}"]
    path = f"/users/{quote(user, safe='')}/server" + (f"s/{quote(name, safe='')}" if name else "")
    assert len(rig.hub.log("DELETE", path.replace("[", "[[]"))) == 1
    assert not server.process_alive
    assert (rig.attempted(), rig.culled()) == (1, 1)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_server_whose_name_leads_up_the_path_is_asked_and_stopped_by_its_own_path(
    rig: Rig, name: str
) -> None:
    """Left as it is, it would stop nothing, and be tried first at every poll."""
    server = rig.run("ana", name)
    rig.poll()
    assert rig.stops() == [f"ana/{name}"]
    assert len(rig.hub.log("DELETE", f"/users/ana/servers/{'%2E' * len(name)}")) == 1
    assert rig.asked("idle") == 1
    assert {request.path.rpartition("/")[0] for request in rig.target.requests} == {
        f"/user/ana/{name}/api"
    }
    assert (server.process_alive, rig.culled()) == (False, 1)


def test_an_active_server_is_left_alone(rig: Rig) -> None:
    rig.run("ana", idle=HOUR - 1)
    rig.poll()
    assert rig.stops() == []
    assert rig.target.requests == []


def test_the_limit_itself_is_reached(rig: Rig) -> None:
    rig.run("ana", idle=HOUR)
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_max_age_is_the_administrators_order_whatever_runs(make_rig: MakeRig) -> None:
    """The server is asked only when it was started, by which an orphan is told after the stop."""
    rig = make_rig(max_age=HOUR)
    rig.run("ana", idle=60, age=HOUR, kernels=["busy"])
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert {request.path for request in rig.target.requests} == {"/user/ana/api/status"}
    assert rig.culled(reason="max_age") == 1


def test_max_age_stops_a_server_that_does_not_answer(make_rig: MakeRig) -> None:
    rig = make_rig(max_age=HOUR)
    rig.run("ana", idle=60, age=HOUR)
    rig.target.plan("GET", "*", faults.close())
    rig.poll()
    assert rig.culled(reason="max_age") == 1


def test_max_age_goes_before_idle_and_is_not_held_up_by_a_busy_kernel(make_rig: MakeRig) -> None:
    rig = make_rig(max_age=HOUR)
    rig.run("ana", kernels=["busy"])
    rig.poll()
    assert rig.culled(reason="max_age") == 1


# ---- monitor mode -------------------------------------------------------------------------------


def test_monitor_mode_stops_nobody_and_asks_no_server(make_rig: MakeRig) -> None:
    rig = make_rig(enforce=False, max_age=HOUR, remove_named_servers=True)
    rig.run("ana", idle=50 * HOUR, age=90 * HOUR)
    rig.run("ben", "gpu", idle=50 * HOUR, age=90 * HOUR, kernels=["idle"])
    for _ in range(3):
        assert rig.poll()
        rig.watch(HOUR)
    assert rig.hub.log("DELETE") == rig.hub.log("POST") == rig.hub.log("*", "/proxy") == []
    assert rig.target.requests == []
    candidates = rig.metrics.registry.get_sample_value(
        "jupyterhub_cull_candidates", {"policy": "default", "reason": "max_age"}
    )
    assert candidates == 2


# ---- looked at again ----------------------------------------------------------------------------


def test_active_between_listing_and_stop_is_spared(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="off")
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server, "last_activity", rig.hub.now()))
    rig.poll()
    assert_withheld(rig, "active_again")


def test_restarted_between_listing_and_stop_is_spared(rig: Rig) -> None:
    """Even where it looks idle: it is not the server that was judged."""
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server, "started", rig.hub.now() - 2 * HOUR + 1))
    rig.poll()
    assert_withheld(rig, "restarted")


def test_moved_under_another_policy_between_listing_and_stop_is_spared(make_rig: MakeRig) -> None:
    """What runs in it was judged by the limit of the other one."""
    rig = make_rig(policies=[{"name": "lab", "match": {"groups": ["lab"]}, "timeout": 1800}])
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server.user, "groups", ("lab",)))
    rig.poll()
    assert_withheld(rig, "policy")


def test_too_old_by_a_clock_that_was_set_back_is_not_stopped_as_idle(make_rig: MakeRig) -> None:
    """It was not asked: at its age that did not matter."""
    rig = make_rig(timeout=600, max_age=HOUR)
    rig.run("ana", idle=1000, age=HOUR + 5, kernels=["busy"])
    back = faults.after(lambda: setattr(rig.hub, "clock_offset", -30.0))
    rig.hub.plan("GET", "/proxy", back, times=1)
    rig.poll()
    assert_withheld(rig, "policy")


def test_restarted_is_spared_from_max_age_too(make_rig: MakeRig) -> None:
    rig = make_rig(max_age=HOUR)
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server, "started", rig.hub.now() - HOUR - 1))
    rig.poll()
    assert_withheld(rig, "restarted")


@pytest.mark.parametrize("pending", ["spawn", "stop", "check"])
def test_pending_between_listing_and_stop_is_spared(rig: Rig, pending: str) -> None:
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server, "pending", pending))
    rig.poll()
    assert_withheld(rig, "pending")


def test_not_ready_between_listing_and_stop_is_spared(rig: Rig) -> None:
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server, "ready", False))
    rig.poll()
    assert_withheld(rig, "pending")


def test_gone_between_listing_and_stop_is_no_cull(rig: Rig) -> None:
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server, "stopped", True))
    rig.poll()
    assert_withheld(rig, "gone")


def test_a_user_deleted_between_listing_and_stop_is_no_cull(rig: Rig) -> None:
    rig.run("ana")
    after_listing(rig, lambda: rig.hub.remove_user("ana"))
    rig.poll()
    assert_withheld(rig, "gone")


def test_put_into_an_exempt_group_between_listing_and_stop_is_spared(make_rig: MakeRig) -> None:
    exempt = {"name": "staff", "match": {"groups": ["staff"]}, "exempt": True}
    rig = make_rig(policies=[exempt])
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server.user, "groups", ("staff",)))
    rig.poll()
    assert rig.stops() == []


def test_moved_out_of_the_filter_of_delete_servers_between_listing_and_stop_is_spared(
    rig: Rig,
) -> None:
    scopes = rig.hub.tokens[rig.hub.token].scopes
    scopes.remove("delete:servers")
    scopes.append("delete:servers!group=lab")
    server = rig.run("ana")
    server.user.groups = ("lab",)
    after_listing(rig, lambda: setattr(server.user, "groups", ("staff",)))
    rig.poll()
    assert_withheld(rig, "policy")


@pytest.mark.parametrize(
    "fault",
    [faults.html(), faults.html(500), faults.half_body(), faults.close(), faults.dated(None)],
)
def test_what_cannot_be_looked_at_again_is_spared(rig: Rig, fault: Fault) -> None:
    rig.run("ana")
    rig.hub.plan("GET", "/users/ana", fault)
    rig.poll()
    assert_withheld(rig, "probe_failed")


def test_what_the_token_sees_no_more_is_spared(rig: Rig) -> None:
    rig.run("ana")
    hide = faults.rewritten(lambda user: {k: v for k, v in user.items() if k != "servers"})
    rig.hub.plan("GET", "/users/ana", hide)
    rig.poll()
    assert_withheld(rig, "probe_failed")


def test_a_look_is_taken_again_when_asking_took_long(rig: Rig) -> None:
    """A server that answers late leaves time for somebody to come back."""
    server = rig.run("ana")

    def late() -> None:
        rig.time += 8
        server.last_activity = rig.hub.now()

    rig.after_work(late)
    rig.poll()
    assert_withheld(rig, "active_again")


# ---- the server itself is asked -----------------------------------------------------------------


def test_activity_that_the_server_knows_and_the_hub_does_not_spares(rig: Rig) -> None:
    rig.run("ana", own_idle=HOUR - 1)
    rig.poll()
    assert_withheld(rig, "active_again")
    assert rig.asked("active") == 1


def test_activity_that_the_route_knows_spares(rig: Rig) -> None:
    server = rig.run("ana")
    server.route_activity = rig.hub.now() - HOUR + 1
    rig.poll()
    assert_withheld(rig, "active_again")


def test_activity_of_a_kernel_spares(rig: Rig) -> None:
    rig.jupyter(rig.run("ana")).add_kernel("idle", last_activity=rig.time - 60)
    rig.poll()
    assert_withheld(rig, "active_again")


def test_activity_of_a_terminal_spares(rig: Rig) -> None:
    rig.jupyter(rig.run("ana")).add_terminal(last_activity=rig.time - 60)
    rig.poll()
    assert_withheld(rig, "active_again")


def test_a_time_to_come_is_activity(rig: Rig) -> None:
    rig.run("ana", own_idle=-500)
    rig.poll()
    assert_withheld(rig, "active_again")


@pytest.mark.parametrize("state", ["busy", "starting", "restarting"])
def test_a_silent_busy_kernel_spares(rig: Rig, state: str) -> None:
    rig.run("ana", kernels=["idle", state])
    rig.poll()
    assert_withheld(rig, "busy")
    assert rig.asked("busy") == 1


@pytest.mark.parametrize("state", ["terminating", "autorestarting", "unknown", ""])
def test_a_kernel_state_nobody_knows_protects(rig: Rig, state: str) -> None:
    rig.run("ana", kernels=[state])
    rig.poll()
    assert rig.stops() == []


@pytest.mark.parametrize("state", ["idle", "dead"])
def test_kernels_at_rest_do_not_protect(rig: Rig, state: str) -> None:
    rig.run("ana", kernels=[state])
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert rig.asked("idle") == 1


def test_terminals_switched_off_do_not_protect(rig: Rig) -> None:
    rig.jupyter(rig.run("ana")).terminals = None
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_no_jupyter_there_leaves_it_to_last_activity(rig: Rig) -> None:
    rig.run("ana", jupyter=False)
    rig.run("ben", jupyter=False, idle=60)
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert rig.asked("no_jupyter") == 1


KERNEL = '[{"id": "1", "execution_state": "idle", "last_activity": "2020-01-01T00:00:00Z"}]'
ODD: list[tuple[str, str, Fault]] = [
    ("refused", "*", faults.html(403)),
    ("login page", "*", faults.redirect("/hub/login")),
    ("login page as 200", "*", faults.html()),
    ("server error", "*", faults.html(500)),
    ("proxy error", "*", faults.html(503)),
    ("no content", "*", faults.always(faults.reply(204))),
    ("garbage", "*", faults.always(faults.reply(200, b"\xff\xfe\x00"))),
    ("empty", "*", faults.always(faults.reply(200, b""))),
    ("null", "*", faults.always(faults.reply(200, "null"))),
    ("deep", "*", faults.always(faults.reply(200, "[" * 200_000))),
    ("half", "*", faults.half_body()),
    ("closed", "*", faults.close()),
    ("huge", "*", faults.huge(3)),
    ("bomb", "*", faults.bomb(50)),
    ("only status missing", "*/status", faults.html(404)),
    ("only kernels missing", "*/kernels", faults.html(404)),
    ("terminals refused", "*/terminals", faults.html(403)),
    ("half the kernels", "*/kernels", faults.always(faults.reply(200, KERNEL[:-1]))),
    ("kernels as object", "*/kernels", faults.always(faults.reply(200, "{}"))),
    ("kernel without state", "*/kernels", faults.always(faults.reply(200, [{"id": "1"}]))),
    ("state no text", "*/kernels", faults.always(faults.reply(200, [{"execution_state": 1}]))),
    ("no last_activity", "*/status", faults.always(faults.reply(200, {"kernels": 0}))),
    ("no time", "*/status", faults.always(faults.reply(200, {"last_activity": "long ago"}))),
]


@pytest.mark.parametrize(("path", "fault"), [odd[1:] for odd in ODD], ids=[odd[0] for odd in ODD])
def test_an_odd_answer_of_a_server_spares_it(rig: Rig, path: str, fault: Fault) -> None:
    rig.run("ana", kernels=["idle"])
    rig.target.plan("GET", path, fault)
    rig.poll()
    assert_withheld(rig, "probe_failed")
    assert rig.asked("failed") == 1
    assert len(rig.hub.revoked) == 1


def test_an_answer_longer_than_a_megabyte_spares(rig: Rig) -> None:
    """Though all of it is right: a server could keep us reading."""
    rig.run("ana")
    kernels = [{"execution_state": "idle", "id": "x" * 1000}] * 2000
    rig.target.plan("GET", "*/kernels", faults.always(faults.reply(200, kernels)))
    rig.poll()
    assert_withheld(rig, "probe_failed")


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("path", ["*/status", "*/kernels", "*/terminals"])
def test_a_server_that_hangs_is_given_up_and_spared(rig: Rig, path: str) -> None:
    rig.run("ana")
    rig.target.plan("GET", path, faults.hang(threading.Event()))
    rig.poll(within=10)
    assert_withheld(rig, "probe_failed")


@pytest.mark.usefixtures("fast")
def test_a_server_that_drips_is_given_up_and_spared(rig: Rig) -> None:
    rig.run("ana", kernels=["idle"])
    rig.target.plan("GET", "*/kernels", faults.drip(0.1))
    rig.poll(within=10)
    assert_withheld(rig, "probe_failed")


def test_a_server_that_refuses_connections_is_spared(rig: Rig) -> None:
    rig.run("ana")
    rig.target.hang_up()
    rig.poll()
    assert_withheld(rig, "probe_failed")


def test_a_server_without_a_route_is_spared(rig: Rig) -> None:
    rig.hub.add_server("ana", idle=2 * HOUR)
    rig.poll()
    assert_withheld(rig, "probe_failed")


@pytest.mark.parametrize("target", ["unix+http://%2Frun%2Fx", "http://", "http://[::", "ftp://x/"])
def test_a_route_that_leads_nowhere_spares(rig: Rig, target: str) -> None:
    server = rig.hub.add_server("ana", idle=2 * HOUR)
    data = {"user": "ana", "server_name": ""}
    rig.hub.routes = {"/user/ana/": {"routespec": "/user/ana/", "target": target, "data": data}}
    rig.poll()
    assert_withheld(rig, "probe_failed")
    assert server.ready


@pytest.mark.parametrize("target", ["http://a b:80/", "http://\udcff/"])
def test_a_route_that_is_no_address_fails_its_own_check_alone(
    fake_hub: FakeHub, target: str
) -> None:
    fake_hub.add_server("ana")
    hub = Hub(ConnectionSettings(fake_hub.url), Token.read_by(lambda: fake_hub.token))
    route = Route("/user/ana/", target)
    interview = Prober(hub, "idle-prober", None).interview("ana", "", route)
    assert interview.ask_work(60.0).result is ProbeResult.FAILED


@pytest.mark.parametrize(("default", "named"), [("idle", "busy"), ("busy", "idle")])
def test_one_servers_silence_is_not_taken_for_anothers(rig: Rig, default: str, named: str) -> None:
    """Each server is asked at its own route, not at that of another of the same user."""
    rig.run("ana", kernels=[default])
    rig.run("ana", "gpu", kernels=[named])
    rig.poll()
    assert rig.stops() == ["ana/" if default == "idle" else "ana/gpu"]


def test_every_busy_check_failing_is_one_loud_line(rig: Rig, logged: Events) -> None:
    for number in range(5):
        rig.run(f"u{number}")
    rig.target.plan("*", "*", faults.html(403))
    rig.poll()
    assert [e["servers"] for e in logged if e["event"] == "every_busy_check_failed"] == [5]
    assert rig.stops() == []


def test_routes_are_read_whole_and_once_a_pass(rig: Rig) -> None:
    rig.hub.page_limit_max = 200
    for number in range(450):
        rig.run(f"u{number:03d}", idle=2 * HOUR if number in (0, 201, 449) else 0)
    rig.poll()
    assert sorted(rig.stops()) == ["u000/", "u201/", "u449/"]
    assert len(rig.hub.log("GET", "/proxy")) == 3


@pytest.mark.parametrize("fault", [faults.html(), faults.html(500), faults.half_body()])
def test_routes_that_cannot_be_read_spare_everyone(rig: Rig, fault: Fault) -> None:
    rig.run("ana")
    rig.run("ben")
    rig.hub.plan("GET", "/proxy", fault)
    rig.poll()
    assert (rig.stops(), rig.withheld("probe_failed"), rig.asked("failed")) == ([], 2, 2)
    assert len(rig.hub.log("GET", "/proxy")) == 1


def test_a_second_page_of_routes_that_fails_spares_everyone(rig: Rig) -> None:
    rig.hub.page_limit_max = 50
    for number in range(60):
        rig.run(f"u{number:03d}", idle=2 * HOUR if number == 0 else 0)
    rig.hub.plan("GET", "/proxy", faults.html(502), after=1)
    rig.poll()
    assert_withheld(rig, "probe_failed")


# ---- tokens -------------------------------------------------------------------------------------


def test_a_token_is_minted_for_that_one_server_alone_and_revoked(rig: Rig) -> None:
    rig.run("we ird@ex.org", "gpu")
    rig.run("ben", idle=0)
    used: list[tuple[bool, bool]] = []

    def watch(request: Request, answer: Callable[[], Reply]) -> Reply:
        opens = rig.hub.may_access
        used.append((opens(request.token, "we ird@ex.org", "gpu"), opens(request.token, "ben", "")))
        return answer()

    rig.target.plan("GET", "*", watch)
    rig.poll()
    assert used == [(True, False)] * 4  # kernels, terminals, status; after the stop: status
    (mint,) = rig.minted("busy check")
    assert mint["scopes"] == ["access:servers!server=we ird@ex.org/gpu"]
    assert mint["expires_in"] <= 60
    (revoked,) = rig.hub.revoked
    assert revoked.user == "idle-prober"
    assert rig.stops() == ["we ird@ex.org/gpu"]


def test_the_sidecars_own_token_is_never_sent_to_a_users_server(rig: Rig) -> None:
    rig.run("ana", kernels=["busy"])
    rig.run("ben", jupyter=False)
    rig.run("eva")
    rig.target.plan("GET", "/user/eva/*", faults.redirect(f"{rig.target.origin}/steal"))
    rig.poll()
    assert len(rig.target.requests) >= 7
    for request in rig.target.requests:
        assert rig.hub.token not in str(request.headers) + request.path
        assert rig.hub.token.encode() not in request.body
    assert rig.target.log("*", "/steal") == []


def test_asking_is_no_activity_and_goes_past_the_public_proxy(rig: Rig) -> None:
    rig.run("ana")
    rig.poll()
    asked = {(r.path, r.query.get("no_track_activity")) for r in rig.target.requests}
    assert asked == {(f"/user/ana/api/{path}", "1") for path in ("status", "kernels", "terminals")}


@pytest.mark.parametrize("fault", [faults.html(403), faults.html(500), faults.close()])
def test_without_a_token_nobody_is_asked_and_nobody_stopped(rig: Rig, fault: Fault) -> None:
    rig.poll()
    rig.run("ana")
    rig.hub.plan("POST", "/users/idle-prober/tokens", fault, after=2)
    rig.poll()
    assert_withheld(rig, "probe_failed")
    assert rig.target.requests == []


def test_a_token_that_cannot_be_revoked_is_left_to_expire_and_told(
    rig: Rig, logged: Events
) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/idle-prober/tokens/*", faults.html(500))
    rig.poll()
    assert "probe_token_not_revoked" in [event["event"] for event in logged]
    assert rig.stops() == ["ana/"]


# ---- when servers cannot, or need not, be asked -------------------------------------------------

NOT_ASKING = ["list:users", "read:servers", "delete:servers"]


def test_auto_without_the_scopes_goes_by_last_activity(make_rig: MakeRig, logged: Events) -> None:
    rig = make_rig(busy_check="auto")
    rig.hub.tokens[rig.hub.token].scopes = NOT_ASKING
    rig.run("ana", kernels=["busy"])
    rig.poll()
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert rig.target.requests == []
    assert rig.counted("busy_check") == 0
    assert [e["event"] for e in logged].count("safeguards_missing") == 1


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/tokens")])
@pytest.mark.parametrize("fault", [faults.html(500), faults.close()])
def test_auto_does_not_go_blind_while_the_hub_fails(
    make_rig: MakeRig, method: str, path: str, fault: Fault
) -> None:
    """What the token may do has not changed: servers are asked again once the Hub answers."""
    rig = make_rig(busy_check="auto")
    rig.poll()
    rig.run("ana", kernels=["busy"])
    rig.hub.plan(method, f"/users/idle-prober{path}", fault)
    rig.poll()
    assert rig.stops() == []
    assert rig.counted("enforcement", state="suspended") == 1
    rig.hub.heal()
    rig.poll()
    assert (rig.stops(), rig.withheld("busy")) == ([], 1)


@pytest.mark.parametrize("missing", ["proxy", "tokens!user=idle-prober"])
def test_without_the_scopes_nobody_is_stopped_unless_told_so(
    make_rig: MakeRig, missing: str
) -> None:
    rig = make_rig()
    rig.hub.tokens[rig.hub.token].scopes.remove(missing)
    rig.run("ana")
    rig.poll()
    assert rig.stops() == []
    assert rig.counted("enforcement", state="suspended") == 1


def widen(hub: FakeHub) -> None:
    user = hub.users["idle-prober"]
    user.scopes = (*user.scopes, "admin:users")


def sign_in(hub: FakeHub) -> None:
    hub.add_server("idle-prober", idle=0)


def sign_in_and_stop(hub: FakeHub) -> None:
    hub.add_server("idle-prober", idle=0).stopped = True


@pytest.mark.parametrize("busy_check", ["require", "auto", "off"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda hub: setattr(hub.users["idle-prober"], "admin", True),
        widen,
        sign_in,
        sign_in_and_stop,
    ],
    ids=["administrator", "too many scopes", "signed in", "signed in before"],
)
def test_a_probe_user_who_may_be_somebody_stops_nobody(
    make_rig: MakeRig, wrong: Callable[[FakeHub], object], busy_check: str
) -> None:
    """Found before the pass, though all was well at the start."""
    rig = make_rig(busy_check=busy_check)
    rig.poll()
    wrong(rig.hub)
    rig.run("ana")
    rig.poll()
    assert (rig.stops(), rig.counted("enforcement", state="suspended")) == ([], 1)


def test_tokens_of_somebody_else_are_no_ability_to_ask(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="require", probe_user="other")
    rig.run("ana")
    rig.poll()
    assert rig.stops() == []


def test_off_asks_nobody(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="off")
    rig.run("ana", kernels=["busy"])
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert rig.target.requests == rig.hub.log("GET", "/proxy") == []


# ---- one pass alone (`--once`) ------------------------------------------------------------------


@pytest.mark.parametrize("max_age", [0, HOUR])
@pytest.mark.parametrize("how", ["asked and idle", "no jupyter", "not asked"])
def test_once_stops_only_what_was_itself_asked(make_rig: MakeRig, how: str, max_age: int) -> None:
    more: dict[str, Any] = {"busy_check": "off"} if how == "not asked" else {}
    rig = make_rig(only_if_asked=True, max_age=max_age, **more)
    rig.run("ana", jupyter=how != "no jupyter")
    rig.poll()
    assert rig.stops() == (["ana/"] if how == "asked and idle" else [])
    assert rig.withheld("unasked") == (0 if how == "asked and idle" else 1)


# ---- the gate, right before each stop -----------------------------------------------------------


def test_the_gate_is_asked_again_right_before_the_stop(make_rig: MakeRig) -> None:
    """A clock jumps while the server is asked."""
    rig = make_rig(grace=600)
    rig.run("ana")
    rig.poll()
    rig.watch(600)
    rig.target.plan("GET", "*/terminals", faults.after(lambda: setattr(rig, "wall_ahead", 500)))
    rig.poll()
    assert_withheld(rig, "gate")


def test_a_poll_that_fails_meanwhile_closes_the_gate(rig: Rig) -> None:
    rig.run("ana")
    rig.target.plan("GET", "*/terminals", faults.after(lambda: rig.suspend("it failed")))
    rig.poll()
    assert_withheld(rig, "gate")


def test_the_end_of_the_parent_process_closes_the_gate(make_rig: MakeRig) -> None:
    orphaned = threading.Event()
    rig = make_rig(orphaned=orphaned.is_set)
    rig.run("ana")
    after_listing(rig, orphaned.set)
    rig.poll()
    assert rig.stops() == []


def test_the_parents_end_while_a_server_is_asked_closes_the_gate(make_rig: MakeRig) -> None:
    orphaned = threading.Event()
    rig = make_rig(orphaned=orphaned.is_set)
    rig.run("ana")
    rig.target.plan("GET", "*/terminals", faults.after(orphaned.set))
    rig.poll()
    assert_withheld(rig, "gate")


def test_under_grace_nobody_is_stopped_or_asked(make_rig: MakeRig) -> None:
    rig = make_rig(grace=600)
    rig.run("ana")
    rig.poll()
    rig.watch(599)
    rig.poll()
    assert (rig.stops(), rig.target.requests) == ([], [])
    rig.watch(1)
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_after_an_outage_between_two_polls_nobody_is_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(grace=600)
    rig.poll()
    rig.watch(700)
    rig.run("ana")
    rig.hub.hang_up()
    for _ in range(3):
        rig.time += 30
        rig.poller.heartbeat()
    rig.hub.listen()
    rig.poller.heartbeat()
    rig.poll()
    assert rig.counted("enforcement", state="grace") == 1
    rig.watch(570)
    rig.poll()
    assert rig.stops() == []
    rig.watch(60)
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_the_hub_is_looked_for_between_polls(rig: Rig) -> None:
    rig.poll()
    before = len(rig.hub.log("GET", "/"))
    rig.time += 30
    rig.poller.heartbeat()
    rig.poller.heartbeat()  # it has answered just now
    assert len(rig.hub.log("GET", "/")) == before + 1


def test_a_failed_poll_suspends_stops_until_the_next_good_one(rig: Rig) -> None:
    """Also those under way: the server is asked when the next poll fails."""
    rig.run("ana")
    at_server, failed = threading.Event(), threading.Event()

    def wait(request: Request, answer: Callable[[], Reply]) -> Reply:
        at_server.set()
        assert failed.wait(10)
        return answer()

    rig.target.plan("GET", "*/terminals", wait, times=1)
    begun = rig.begin()
    assert at_server.wait(10)
    rig.hub.plan("GET", "/users", faults.html(500), times=1)
    assert not rig.poller.poll()
    failed.set()
    rig.finish(begun)
    assert_withheld(rig, "gate")
    assert rig.counted("enforcement", state="suspended") == 1
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_without_delete_servers_stops_are_suspended(rig: Rig) -> None:
    rig.hub.tokens[rig.hub.token].scopes.remove("delete:servers")
    rig.run("ana")
    rig.poll()
    assert (rig.stops(), rig.target.requests) == ([], [])
    assert rig.counted("enforcement", state="suspended") == 1


@pytest.mark.parametrize("scope", [None, "read:users:groups!group=other"])
def test_groups_that_the_token_cannot_see_suspend(make_rig: MakeRig, scope: str | None) -> None:
    rig = make_rig(policies=[{"name": "staff", "match": {"groups": "staff"}, "exempt": True}])
    scopes = rig.hub.tokens[rig.hub.token].scopes
    scopes.remove("read:users:groups")
    scopes += [scope] if scope else []
    rig.run("ana")
    rig.poll()
    assert (rig.stops(), rig.target.requests) == ([], [])
    assert rig.counted("enforcement", state="suspended") == 1


@pytest.mark.parametrize(("version", "stops"), [("2.3.1", []), ("3.0.0", ["ana/"])])
def test_a_hub_before_3_is_not_culled(
    make_rig: MakeRig, fake_hub: FakeHub, version: str, stops: list[str]
) -> None:
    fake_hub.version = version
    fake_hub.tokens[fake_hub.token].scopes.append("tokens!service=idle-prober")
    rig = make_rig(busy_check="off")
    rig.run("ana")
    rig.poll()
    assert rig.stops() == stops


# ---- incomplete lists ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [faults.html(), faults.html(502), faults.half_body(), faults.close()]
)
def test_a_second_page_that_fails_stops_nobody(rig: Rig, fault: Fault) -> None:
    rig.hub.add_servers(250, idle=2 * HOUR)
    rig.hub.plan("GET", "/users", fault, after=1)
    assert not rig.poll()
    assert rig.hub.log("DELETE") == []


@pytest.mark.parametrize(
    "fault", [faults.html(), faults.html(502), faults.half_body(), faults.close()]
)
def test_half_a_page_stops_nobody(rig: Rig, fault: Fault) -> None:
    rig.run("ana")
    rig.hub.plan("GET", "/users", fault)
    assert not rig.poll()
    assert rig.hub.log("DELETE") == []


def test_200_users_that_vanish_while_listing_stop_nobody(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="off")
    rig.hub.add_servers(700, idle=2 * HOUR)

    def vanish() -> None:
        for name in [f"u{number:06d}" for number in range(200)]:
            rig.hub.remove_user(name)

    rig.hub.plan("GET", "/users", faults.after(vanish), after=1, times=1)
    assert rig.poll()
    assert rig.stops() == []
    assert rig.withheld("list") > 0
    rig.hub.heal()
    rig.poll(within=60)
    assert len(rig.stops()) == 500


def test_a_server_that_is_toggled_while_listing_spares_nobody(make_rig: MakeRig) -> None:
    """Five times a second is enough to be gone at every second page."""
    rig = make_rig(busy_check="off", page_size=10)
    toggler = rig.hub.add_server("toggler", idle=0)
    rig.hub.add_servers(600, idle=2 * HOUR)

    def toggle() -> None:
        toggler.stopped = not toggler.stopped

    rig.hub.plan("GET", "/users", faults.before(toggle))
    assert rig.poll(within=60)
    assert len(rig.stops()) == 600
    assert rig.withheld("gate") == 0


def test_a_crowd_that_was_never_listed_spares_all(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="off", page_size=50)
    rig.hub.add_servers(200, idle=2 * HOUR)
    empty = faults.rewritten(lambda page: page | {"items": []})
    rig.hub.plan("GET", "/users", empty, after=1, times=1)
    assert rig.poll()
    assert rig.stops() == []
    assert rig.withheld("list") == 150
    assert last_pass(rig) == {"list": 150}


# ---- users who cannot be decoded ----------------------------------------------------------------


def test_a_user_who_cannot_be_decoded_is_spared_alone(rig: Rig) -> None:
    for name in ("ana", "odd", "zoe"):
        rig.run(name)
    rig.hub.users["odd"].extra = {"servers": {"": {"ready": True, "started": "long ago"}}}
    rig.poll()
    assert sorted(rig.stops()) == ["ana/", "zoe/"]


def test_who_cannot_be_decoded_right_before_the_stop_is_spared(rig: Rig) -> None:
    server = rig.run("ana")
    after_listing(rig, lambda: setattr(server.user, "extra", {"servers": None}))
    rig.poll()
    assert_withheld(rig, "probe_failed")


# ---- the stop and what comes of it --------------------------------------------------------------


def test_204_with_the_server_alive_is_not_stopped(rig: Rig, logged: Events) -> None:
    rig.run("ana", "gpu", stop_fails=True)
    rig.poll()
    rig.watch(60)
    rig.poll()
    assert rig.stops() == ["ana/gpu"]
    assert (rig.attempted(), rig.culled(), rig.failed("not_stopped")) == (1, 0, 1)
    assert [e["why"] for e in logged if e["event"] == "cull_failed"] == [
        "its spawner failed to stop it: it still runs, but the Hub no longer knows about it "
        "(an orphan); stop it by hand"
    ]


def test_204_with_the_server_still_running_is_not_stopped(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.always(faults.reply(204)))
    rig.poll()
    assert (rig.culled(), rig.failed("not_stopped")) == (0, 1)


def stop_slowly(rig: Rig, user: str) -> tuple[Server, threading.Event]:
    released = threading.Event()
    rig.hub.slow_stop_timeout = 0.02
    return rig.run(user, stop_takes=released), released


@pytest.mark.usefixtures("fast")
def test_202_is_followed_until_it_is_stopped_and_counted_once(rig: Rig) -> None:
    server, released = stop_slowly(rig, "ana")
    begun = rig.begin()
    rig.hub.wait_for("GET", "/users/ana", count=4)
    assert rig.culled() == 0
    released.set()
    rig.finish(begun)
    assert (rig.attempted(), rig.culled(), server.process_alive) == (1, 1, False)
    assert rig.stops() == ["ana/"]


@pytest.mark.usefixtures("fast")
def test_202_without_end_is_given_up_as_slow(rig: Rig) -> None:
    _, released = stop_slowly(rig, "ana")
    begun = rig.begin()
    rig.hub.wait_for("GET", "/users/ana", count=4)
    rig.time += 10 * 60
    rig.finish(begun)
    assert (rig.culled(), rig.failed("slow")) == (0, 1)
    released.set()


@pytest.mark.usefixtures("fast")
def test_no_stop_is_sent_twice_while_one_is_under_way(rig: Rig) -> None:
    server, released = stop_slowly(rig, "ana")
    rig.hub.plan("GET", "/users", faults.rewritten(_as_if_ready))
    first = rig.begin()
    rig.hub.wait_for("GET", "/users/ana", count=3)
    rig.poll()  # lists it as a candidate once more
    assert rig.stops() == ["ana/"]
    released.set()
    rig.finish(first)
    assert (rig.attempted(), rig.culled()) == (1, 1)
    assert not server.process_alive


def test_no_candidate_is_on_its_way_twice(rig: Rig) -> None:
    """It is still being asked when the next poll finds it idle again."""
    rig.run("ana")
    released = threading.Event()
    rig.target.plan("GET", "*/terminals", faults.hang(released), times=1)
    first = rig.begin()
    rig.target.wait_for("GET", "*/terminals")
    rig.poll()
    assert len(rig.target.log("GET", "*/terminals")) == 1
    released.set()
    rig.finish(first)
    assert rig.stops() == ["ana/"]


def _as_if_ready(page: Any) -> Any:
    for user in page["items"]:
        for server in user["servers"].values():
            server |= {"ready": True, "pending": None}
    return page


def stopped_but(answer: Fault) -> Fault:
    """Stop the server truly, but answer otherwise."""

    def fault(request: Request, true: Callable[[], Reply]) -> Reply:
        true()
        return answer(request, true)

    return fault


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_is_verified(rig: Rig, status: int) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", stopped_but(faults.html(status)))
    rig.poll()
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 1, 0)


def test_a_proxy_that_gave_up_is_no_refusal(rig: Rig) -> None:
    """It answers 408, and the Hub may carry out the stop all the same."""
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", stopped_but(faults.html(408)))
    rig.poll()
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 1, 0)


def test_a_5xx_with_the_server_alive_is_an_http_failure(rig: Rig) -> None:
    server = rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.html(503))
    rig.poll()
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 0, 1)
    assert server.ready


def test_a_stop_without_an_answer_is_verified(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", stopped_but(faults.close()))
    rig.poll()
    assert (rig.culled(), rig.failed("connection")) == (1, 0)


def test_a_stop_without_an_answer_and_the_server_alive_is_a_connection_failure(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.close())
    rig.poll()
    assert (rig.culled(), rig.failed("connection")) == (0, 1)


def test_a_stop_that_times_out_is_verified(make_rig: MakeRig) -> None:
    rig = make_rig(request_timeout=HANG_SECONDS)
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", stopped_but(faults.hang(threading.Event())))
    rig.poll()
    assert (rig.culled(), rig.failed("timeout")) == (1, 0)


def test_a_stop_that_times_out_with_the_server_alive_is_a_timeout(make_rig: MakeRig) -> None:
    rig = make_rig(request_timeout=HANG_SECONDS)
    rig.run("ana")

    def hang_in_vain(request: Request, answer: Callable[[], Reply]) -> Reply:
        return faults.hang(threading.Event())(request, lambda: Reply(500))

    rig.hub.plan("DELETE", "/users/ana/server", hang_in_vain)
    rig.poll()
    assert (rig.culled(), rig.failed("timeout")) == (0, 1)


@pytest.mark.parametrize("status", [400, 404, 302])
def test_a_refused_stop_is_an_http_failure(rig: Rig, status: int) -> None:
    server = rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.html(status))
    rig.poll()
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 0, 1)
    assert server.ready


@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_stop_is_not_followed(rig: Rig, status: int) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.html(status))
    rig.poll()
    assert rig.hub.log("*", "/users/ana*")[-1].method == "DELETE"


def test_a_refused_stop_with_our_own_token_is_an_http_failure(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="auto")
    rig.hub.tokens[rig.hub.token].scopes = NOT_ASKING
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.html(403))
    rig.poll()
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 0, 1)


@pytest.mark.usefixtures("fast")
def test_a_stop_that_cannot_be_verified_is_no_cull(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("GET", "/users/ana", faults.html(500), after=1)
    begun = rig.begin()
    rig.hub.wait_for("GET", "/users/ana", count=3)
    rig.time += 10 * 60
    rig.finish(begun)
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 0, 1)


@pytest.mark.usefixtures("fast")
def test_a_stop_restarted_at_once_by_its_user_is_a_cull(rig: Rig) -> None:
    server = rig.run("ana", "gpu")

    def restart(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        server.stopped, server.ready, server.process_alive = False, True, True
        server.started = server.last_activity = rig.hub.now() + 1
        return true

    rig.hub.plan("DELETE", "/users/ana/servers/gpu", restart)
    rig.poll()
    assert (rig.culled(), rig.failed("not_stopped"), server.ready) == (1, 0, True)


def hide_servers(user: Any) -> Any:
    return {key: value for key, value in user.items() if key != "servers"}


def test_what_is_out_of_sight_after_the_stop_is_no_cull(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("GET", "/users/ana", faults.rewritten(hide_servers), after=1)
    begun = rig.begin()
    rig.hub.wait_for("GET", "/users/ana", count=3)
    rig.time += 10 * 60
    rig.finish(begun)
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 0, 1)


def test_a_user_out_of_sight_after_a_stop_without_an_answer_is_no_cull(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "/users/ana/server", faults.html(502))
    rig.hub.plan("GET", "/users/ana", faults.html(404), after=1)
    rig.poll()
    assert (rig.culled(), rig.failed("http")) == (0, 1)


def test_told_to_end_while_a_server_is_asked_stops_nobody(rig: Rig) -> None:
    rig.run("ana")
    rig.run("ben")
    rig.target.plan("GET", "*/terminals", faults.after(rig.stopping.set))
    rig.begin()
    rig.target.wait_for("GET", "*/terminals")
    assert not comes(lambda: rig.hub.wait_for("DELETE", "/users/*/server", timeout=0.3))


# ---- removal ------------------------------------------------------------------------------------


def wait_for_event(logged: Events, name: str, timeout: float = 10) -> None:
    deadline = steady() + timeout
    while name not in [event["event"] for event in list(logged)]:
        assert steady() < deadline, f"no {name} in the log"
        threading.Event().wait(0.02)


def removals(rig: Rig) -> list[str]:
    return [r.path for r in rig.hub.log("DELETE", "/users/*/server*") if r.body.strip()]


def never_removed(rig: Rig) -> bool:
    """Tell whether ana's gpu keeps its record for longer than it would take to remove it."""
    path = "/users/ana/servers/gpu"
    return not comes(lambda: rig.hub.wait_for("DELETE", path, count=2, timeout=0.3))


@pytest.fixture
def removing(make_rig: MakeRig) -> Rig:
    return make_rig(remove_named_servers=True)


def test_a_named_server_is_removed_by_a_second_delete_minutes_after_a_verified_stop(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(remove_named_servers=True, later_speed=1.0)
    rig.run("ana", "gpu")
    rig.poll()
    assert rig.culled() == 1
    rig.later_ahead += 90
    assert never_removed(rig)
    rig.later_ahead += 30
    first, second = rig.hub.wait_for("DELETE", "/users/ana/servers/gpu", count=2)
    assert not first.body.strip()
    assert second.json() == {"remove": True}
    looked = rig.hub.log("GET", "/users/ana")[-1]
    assert first.at < looked.at < second.at


def test_a_default_server_is_never_removed(make_rig: MakeRig) -> None:
    rig = make_rig(remove_named_servers=True, concurrency=1)
    rig.run("ana", idle=9 * HOUR)
    rig.run("ben", "gpu")
    rig.poll()
    assert rig.stops() == ["ana/", "ben/gpu"]
    rig.hub.wait_for("DELETE", "/users/ben/servers/gpu", count=2)  # the other's would be before it
    assert removals(rig) == ["/users/ben/servers/gpu"]


def test_a_named_server_whose_stop_failed_keeps_its_record(
    removing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "REMOVE_AFTER_SECONDS", 0.0)
    removing.run("ana", "gpu", stop_fails=True)
    removing.poll()
    assert removing.failed("not_stopped") == 1
    assert never_removed(removing)


def test_a_named_server_restarted_at_once_is_not_removed(
    removing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = removing.run("ana", "gpu")

    def restart(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        server.stopped, server.ready = False, True
        server.started = server.last_activity = removing.hub.now() + 1
        return true

    monkeypatch.setattr(removal, "REMOVE_AFTER_SECONDS", 0.0)
    removing.hub.plan("DELETE", "/users/ana/servers/gpu", restart)
    removing.poll()
    assert never_removed(removing)


def test_once_stops_are_no_longer_allowed_a_named_server_keeps_its_record(
    make_rig: MakeRig, logged: Events
) -> None:
    """The parent Hub ends after the stop was verified, before the record is removed."""
    orphaned = threading.Event()
    rig = make_rig(remove_named_servers=True, orphaned=orphaned.is_set)
    rig.run("ana", "gpu")
    rig.hub.plan("DELETE", "/users/ana/servers/gpu", faults.after(orphaned.set))
    rig.poll()
    wait_for_event(logged, "named_server_not_removed")
    assert (rig.culled(), removals(rig)) == (1, [])


def test_without_the_option_nothing_is_removed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "REMOVE_AFTER_SECONDS", 0.0)
    rig.run("ana", "gpu")
    rig.poll()
    assert rig.culled() == 1
    assert never_removed(rig)


def test_a_removal_that_fails_is_told_and_the_cull_still_counts(
    removing: Rig, logged: Events
) -> None:
    removing.run("ana", "gpu")
    removing.hub.plan("DELETE", "/users/ana/servers/gpu", faults.html(500), after=1)
    removing.poll()
    wait_for_event(logged, "named_server_not_removed")
    assert removing.culled() == 1


# ---- how many, and in which order ---------------------------------------------------------------


def test_the_most_idle_are_stopped_first(make_rig: MakeRig) -> None:
    rig = make_rig(concurrency=1)
    for user, idle in (("b", 5), ("d", 2), ("a", 9), ("c", 3)):
        rig.run(user, idle=idle * HOUR)
    rig.poll()
    assert rig.stops() == ["a/", "b/", "c/", "d/"]


def test_max_culls_a_poll_the_most_idle_first(make_rig: MakeRig) -> None:
    rig = make_rig(max_culls=2, concurrency=10)
    for number in range(5):
        rig.run(f"u{number}", idle=(9 - number) * HOUR)
    rig.poll()
    assert sorted(rig.stops()) == ["u0/", "u1/"]
    assert rig.withheld("limit") == 3
    rig.poll()
    assert sorted(rig.stops()) == ["u0/", "u1/", "u2/", "u3/"]


def comes(wait: Callable[[], object]) -> bool:
    """Tell whether a request arrives in the time that `wait` gives it."""
    try:
        wait()
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(("kernel", "stops"), [("idle", ["u0/", "u1/"]), ("busy", ["u0/", "u2/"])])
def test_max_culls_keeps_room_for_those_still_being_asked(
    make_rig: MakeRig, kernel: str, stops: list[str]
) -> None:
    """The next one is stopped if it turns out that they are not."""
    rig = make_rig(max_culls=2, concurrency=2)
    for number in range(4):
        rig.run(f"u{number}", idle=(9 - number) * HOUR, kernels=[kernel] if number == 1 else [])

    def late(request: Request, answer: Callable[[], Reply]) -> Reply:
        rig.hub.wait_for("DELETE", "/users/u0/server")
        comes(lambda: rig.hub.wait_for("GET", "/users/u2", timeout=0.3))
        return answer()

    rig.target.plan("GET", "/user/u1/api/terminals", late)
    rig.poll()
    assert rig.stops() == stops
    assert rig.withheld("limit") == (2 if kernel == "idle" else 1)


def test_busy_servers_at_the_head_do_not_use_up_max_culls(make_rig: MakeRig) -> None:
    rig = make_rig(max_culls=1, concurrency=4)
    for number in range(4):
        rig.run(f"busy{number}", idle=9 * HOUR, kernels=["busy"])
    rig.run("idle", idle=2 * HOUR)
    rig.poll()
    assert rig.stops() == ["idle/"]
    assert rig.withheld("busy") == 4


@pytest.mark.parametrize("concurrency", [1, 3])
def test_stops_are_bounded_by_concurrency_and_truly_parallel(
    make_rig: MakeRig, concurrency: int
) -> None:
    rig = make_rig(concurrency=concurrency)
    for number in range(9):
        rig.run(f"u{number}")
    together = threading.Barrier(concurrency, timeout=10)
    lock, at_once, most = threading.Lock(), [0], [0]

    def stop(request: Request, answer: Callable[[], Reply]) -> Reply:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        together.wait()  # passes only when so many are under way at once
        with lock:
            at_once[0] -= 1
        return answer()

    rig.hub.plan("DELETE", "/users/*/server*", stop)
    rig.poll()
    assert most == [concurrency]
    assert rig.culled() == 9


def test_two_passes_at_once_stay_within_concurrency(make_rig: MakeRig) -> None:
    rig = make_rig(concurrency=2)
    released = threading.Event()
    rig.hub.plan("DELETE", "/users/*/server*", faults.hang(released))
    passes = []
    for letter in "ab":
        for number in range(3):
            rig.run(f"{letter}{number}")
        passes.append(rig.begin())
    rig.hub.wait_for("DELETE", "/users/*/server", count=2)
    assert not comes(lambda: rig.hub.wait_for("DELETE", "/users/*/server", count=3, timeout=0.3))
    released.set()
    for begun in passes:
        rig.finish(begun)
    assert rig.culled() == 6


def test_a_stop_that_hangs_holds_up_neither_others_nor_the_next_poll(make_rig: MakeRig) -> None:
    rig = make_rig(concurrency=2)
    released = threading.Event()
    rig.run("ana", idle=9 * HOUR)
    for number in range(3):
        rig.run(f"u{number}")
    rig.hub.plan("DELETE", "/users/ana/server", faults.hang(released))
    first = rig.begin()
    rig.hub.wait_for("DELETE", "/users/u?/server", count=3)
    rig.poll()
    released.set()
    rig.finish(first)
    assert rig.culled() == 4


# ---- the audit trail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernels", "stop_fails", "event"),
    [(["idle"], False, "culled"), (["busy"], False, "cull_withheld"), ([], True, "cull_failed")],
)
def test_each_end_is_one_line_of_the_audit_trail(
    rig: Rig, logged: Events, kernels: list[str], stop_fails: bool, event: str
) -> None:
    rig.run("ana", "gpu", idle=2 * HOUR, age=3 * HOUR, kernels=kernels, stop_fails=stop_fails)
    rig.poll()
    (line,) = [e for e in logged if e["event"].startswith("cull")]
    assert line["event"] == event
    told = {key: line[key] for key in ("user", "server", "policy", "reason", "idle", "age")}
    assert told == {
        "user": "ana",
        "server": "gpu",
        "policy": "default",
        "reason": "idle",
        "idle": 2 * HOUR,
        "age": 3 * HOUR,
    }
    assert line["outcome"]


# ---- busy for long ------------------------------------------------------------------------------


def test_busy_past_max_busy_is_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(max_busy=2 * HOUR, poll={"interval": HOUR})
    rig.run("ana", kernels=["busy"])
    rig.poll()
    rig.watch(2 * HOUR - 30)
    rig.poll()
    assert (rig.withheld("busy"), rig.stops()) == (2, [])
    rig.watch(60)
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_time_in_which_nobody_looked_does_not_count_as_busy(make_rig: MakeRig) -> None:
    """Sightings three intervals apart: what happened in between is not known."""
    rig = make_rig(max_busy=2 * HOUR, poll={"interval": 60.0})
    rig.run("ana", kernels=["busy"])
    for _ in range(30):
        rig.poll()
        rig.watch(300)
    assert (rig.withheld("busy"), rig.stops()) == (30, [])


def test_being_at_work_in_between_is_a_break_in_being_busy(make_rig: MakeRig) -> None:
    """Busy last night and busy tonight, at work all day: that is not busy without a break."""
    rig = make_rig(max_busy=2 * HOUR, poll={"interval": HOUR})
    server = rig.run("ana", kernels=["busy"])
    rig.poll()
    server.last_activity = rig.hub.now()
    rig.watch(60)
    rig.poll()  # active: not a candidate, and so not asked
    rig.watch(2 * HOUR)
    rig.poll()  # busy again, or still: seen busy for the first time since
    assert (rig.withheld("busy"), rig.stops()) == (2, [])


@pytest.mark.parametrize("where", ["server", "kernel"])
def test_activity_the_server_reports_itself_is_a_break_in_being_busy(
    make_rig: MakeRig, where: str
) -> None:
    rig = make_rig(max_busy=2 * HOUR, poll={"interval": HOUR})
    server = rig.run("ana", kernels=["busy"])
    rig.poll()
    jupyter = rig.jupyter(server)
    kernel = jupyter.kernels[0]
    if where == "server":
        kernel["execution_state"] = "idle"
        jupyter.last_activity = "2027-01-15T08:00:30Z"
    else:
        kernel["last_activity"] = "2027-01-15T08:00:30Z"
    rig.watch(60)
    rig.poll()
    assert rig.asked("active") == 1
    kernel["execution_state"] = "busy"
    rig.watch(2 * HOUR)
    rig.poll()
    assert (rig.withheld("busy"), rig.stops()) == (2, [])


def test_work_that_ended_is_a_break_in_being_busy(make_rig: MakeRig) -> None:
    """Even if the server was not stopped then: its last question had no answer."""
    rig = make_rig(max_busy=2 * HOUR, poll={"interval": HOUR})
    kernel = rig.jupyter(rig.run("ana", kernels=["busy"])).kernels[0]
    rig.poll()
    kernel["execution_state"] = "idle"
    rig.target.plan("GET", "*/status", faults.html(500))
    rig.watch(60)
    rig.poll()
    assert rig.withheld("probe_failed") == 1
    kernel["execution_state"] = "busy"
    rig.target.heal()
    rig.watch(2 * HOUR)
    rig.poll()
    assert (rig.withheld("busy"), rig.stops()) == (2, [])


# ---- what changes while a pass is under way -----------------------------------------------------

EXEMPT_ANA = [{"name": "ana", "match": {"users": ["ana"]}, "exempt": True}]
NOBODY = [{"name": "nobody", "match": {"users": ["nobody"]}}]


def reload(rig: Rig, policies: list[dict[str, Any]]) -> None:
    """Let the policy file hold these from the next poll on."""
    default = rig.poll_settings.default
    assert rig.source is not None
    rig.source.value = FixedPolicies(policies, default).value


@pytest.mark.parametrize("ask", [True, False])
def test_policies_that_are_reloaded_while_a_pass_is_under_way_hold_for_it(
    make_rig: MakeRig, ask: bool
) -> None:
    rig = make_rig(policies=NOBODY, busy_check="require" if ask else "off")
    rig.run("ana")
    released = threading.Event()
    hub = rig.hub
    if ask:  # judged already, and being asked
        rig.target.plan("GET", "*/terminals", faults.hang(released), times=1)
    else:
        hub.plan("GET", "/users/ana", faults.hang(released), times=1)
    begun = rig.begin()
    (rig.target if ask else hub).wait_for("GET", "*/terminals" if ask else "/users/ana")
    reload(rig, EXEMPT_ANA)
    assert rig.poller.poll()
    released.set()
    rig.finish(begun)
    assert rig.stops() == []
    assert rig.withheld("policy") == 1


def test_policies_hold_as_soon_as_the_gate_opens_again(make_rig: MakeRig) -> None:
    """Even if the log blocks the poll that opens it: no stop by the policies of before."""
    rig = make_rig(policies=NOBODY, busy_check="off")
    rig.run("ana")
    released, logged, unblock = threading.Event(), threading.Event(), threading.Event()
    rig.hub.plan("GET", "/users/ana", faults.hang(released), times=1)
    begun = rig.begin()
    rig.hub.wait_for("GET", "/users/ana")
    rig.hub.plan("GET", "/users", faults.html(500), times=1)
    assert not rig.poller.poll()
    reload(rig, EXEMPT_ANA)

    def block(_log: object, _name: str, event: MutableMapping[str, Any]) -> Any:
        if event["event"] == "poll_succeeded":
            logged.set()
            unblock.wait(10)
        raise structlog.DropEvent

    structlog.configure(processors=[block])
    polling = threading.Thread(target=rig.poller.poll)
    polling.start()
    try:
        assert logged.wait(10)
        assert rig.gatekeeper.closed() is None
        released.set()
        rig.finish(begun)
        assert rig.stops() == []
    finally:
        unblock.set()
        polling.join(10)


def test_in_a_long_pass_the_routes_are_read_again(fake_hub: FakeHub) -> None:
    token, moments = Token.read_by(lambda: fake_hub.token), [0.0]
    routes = RouteTable(Hub(ConnectionSettings(fake_hub.url), token), lambda: moments[-1])
    for now, asked in ((100.0, 100.0), (129.0, 100.0), (130.0, 100.0), (131.0, 131.0)):
        moments.append(now)
        assert routes.find("ana", "", 30.0) == (None, asked)
    assert len(fake_hub.log("GET", "/proxy")) == 2
    routes.find("ana", "", -1.0)
    assert len(fake_hub.log("GET", "/proxy")) == 3


def test_a_server_is_asked_as_one_kind_after_another_by_one_token(make_rig: MakeRig) -> None:
    def read_work(replies: Sequence[ServerReply]) -> Work | None:
        return None if replies[0].status == 404 else Work(None, "a job runs", "no job runs")

    def read_activity(_reply: ServerReply) -> Activity | None:
        return Activity(2 * HOUR, None)

    rig = make_rig()
    server = rig.run("ana", jupyter=False)
    rig.target.plan("GET", "*/rstudio/jobs", faults.always(faults.reply(200, {})))
    rstudio = ServerKind(
        "RStudio", ("rstudio/jobs",), "rstudio/status", "", read_work, read_activity
    )
    prober = Prober(rig.client, "idle-prober", None, (JUPYTER, rstudio))
    route = next(r for r in rig.client.routes() if r.data.user == "ana")
    interview = prober.interview("ana", "", route)
    answer = interview.ask_work(HOUR)
    assert (answer.result, answer.why) == (ProbeResult.BUSY, "a job runs")
    assert interview.ask_activity(HOUR, steady() + 5) is None
    paths = [request.path.removeprefix(server.routespec) for request in rig.target.log()]
    assert sorted(paths[:2]) == ["api/kernels", "api/terminals"]
    assert paths[2:] == ["rstudio/jobs", "rstudio/status"]
    assert len({request.token for request in rig.target.log()}) == 1


def test_each_stop_that_is_not_verified_when_the_exporter_ends_has_a_line(
    rig: Rig, logged: Events
) -> None:
    """A server may live on, and no later exporter can know of it: the Hub has forgotten it."""
    audit = Audit(rig.metrics)
    for user in ("stopped", "failed", "open"):
        rig.run(user)
    rig.poller.poll()
    census = rig.latest.state.snapshot
    assert census is not None
    by_user = {one.user: one for one in census.census.candidates}
    for one in by_user.values():
        audit.sent(one)
    audit.stopped(by_user["stopped"], 1.0)
    audit.failed(by_user["failed"], CullFailure.SLOW, "it is slow")
    logged.clear()
    audit.cut_short()
    cut = [line for line in logged if line["event"] == "stop_cut_short"]
    assert [line["user"] for line in cut] == ["open"]
    assert "it may still run" in cut[0]["why"]


# ---- the last pass ------------------------------------------------------------------------------


def last_pass(rig: Rig) -> dict[str, float]:
    """Give what became of the candidates of the last pass, as scraped; zeros left out."""
    (family,) = (
        family
        for family in rig.metrics.collect()
        if family.name == "hub_idle_exporter_last_pass_candidates"
    )
    return {one.labels["outcome"]: one.value for one in family.samples if one.value}


def test_each_candidate_of_the_last_pass_counts_once_however_often_it_is_withheld(
    rig: Rig,
) -> None:
    rig.run("ana")
    rig.run("bob", kernels=["busy"])
    rig.poll()
    assert last_pass(rig) == {"stopped": 1, "busy": 1}
    for _ in range(3):
        rig.watch(60)
        rig.poll()
    assert rig.withheld("busy") == 4
    assert last_pass(rig) == {"busy": 1}


def test_a_stop_that_failed_and_is_not_tried_again_yet_counts_as_failed(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", "*", faults.html(400))
    rig.poll()
    assert (rig.failed("http"), last_pass(rig)) == (1, {"failed": 1})
    rig.watch(5)
    rig.poll()
    assert (rig.failed("http"), last_pass(rig)) == (1, {"failed": 1})


def test_a_stop_that_goes_on_over_polls_is_under_way_until_it_has_ended(rig: Rig) -> None:
    """By the next poll the Hub lists it as stopping, and so as no candidate."""
    released = threading.Event()
    rig.run("ana", stop_takes=released)
    rig.hub.slow_stop_timeout = 0.0
    first = rig.begin()
    rig.hub.wait_for("DELETE", "/users/ana/server", count=1)
    rig.poller.poll()
    assert last_pass(rig) == {"under_way": 1}
    released.set()
    rig.finish(first)
    assert last_pass(rig) == {"stopped": 1}
