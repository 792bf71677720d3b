"""A stop is what it says: what the Hub and the server's old address say afterwards."""

import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import fake_hub as faults
import pytest
from culling_rig import HOUR, MakeRig, Rig
from fake_hub import Fault, Reply, Request, Server

from hub_idle_exporter.clocks import steady

Events = list[MutableMapping[str, Any]]
USER, STOP = "/users/ana", "/users/ana/server"


def then(rig: Rig, change: Callable[[], object]) -> None:
    """Let something happen right after the Hub has carried out the stop."""
    rig.hub.plan("DELETE", STOP, faults.after(change), times=1)


def result(rig: Rig, reason: str = "idle") -> tuple[float, float]:
    """Return how many stops were counted as culls, and as not stopped."""
    return rig.culled(reason=reason), rig.failed("not_stopped")


def test_an_orphan_that_reports_activity_is_no_cull(rig: Rig) -> None:
    """Its own report moves `last_activity` on, as a stop that worked does."""
    server = rig.run("ana", stop_fails=True)
    then(rig, lambda: setattr(server, "last_activity", rig.hub.now() + 1))
    rig.poll()
    assert result(rig) == (0, 1)


def test_a_stop_whose_process_never_died_is_no_cull(rig: Rig) -> None:
    """LocalProcessSpawner only logs it, and the Hub counts the stop as good."""
    server = rig.run("ana")
    then(rig, lambda: setattr(server, "process_alive", True))
    rig.poll()
    assert result(rig) == (0, 1)


def test_an_orphan_that_falls_silent_is_no_cull(rig: Rig) -> None:
    """It answered once after its stop, then no longer: it asks the Hub, which is paused."""
    server = rig.run("ana")
    then(rig, lambda: setattr(server, "process_alive", True))
    rig.target.plan("GET", "*/status", faults.close(), after=2)
    rig.poll()
    assert result(rig) == (0, 1)


@pytest.mark.parametrize(
    "silence", [faults.close(), faults.html(403), faults.html(503)], ids=["closed", "403", "503"]
)
def test_an_orphan_that_answers_only_later_is_no_cull(rig: Rig, silence: Fault) -> None:
    """It asks the Hub about our token, and the Hub is paused: for that long it does not answer."""
    server = rig.run("ana")
    then(rig, lambda: setattr(server, "process_alive", True))
    rig.target.plan("GET", "*/status", silence, after=1, times=1)
    rig.poll()
    assert result(rig) == (0, 1)


def test_where_nothing_takes_connections_the_result_is_not_waited_for(rig: Rig) -> None:
    """On Kubernetes nothing answers at the address of a pod that is gone."""
    rig.run("ana")
    with ExitStack() as stack:
        then(rig, lambda: stack.enter_context(dropping_connections(rig)))
        rig.poll()
    assert result(rig) == (1, 0)
    (_verified,) = [
        asked for asked in rig.hub.log("GET", USER) if "include_stopped_servers" in asked.query
    ]


@contextmanager
def dropping_connections(rig: Rig) -> Iterator[None]:
    """Let connections to the servers time out: the queue of those not yet accepted is full."""
    address = ("127.0.0.1", urlsplit(rig.target.origin).port)
    rig.target.hang_up()
    with ExitStack() as stack:
        stack.enter_context(socket.create_server(address, backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield


def test_a_process_that_takes_seconds_to_end_is_a_cull(rig: Rig) -> None:
    server = rig.run("ana")
    then(rig, lambda: setattr(server, "process_alive", True))
    end = faults.before(lambda: setattr(server, "process_alive", False))
    rig.target.plan("GET", "*/status", end, after=2)  # asked before, right after, and once more
    rig.poll()
    assert result(rig) == (1, 0)


@pytest.mark.parametrize("gone", ["404", "another start"])
def test_a_process_that_is_gone_is_a_cull_though_its_spawner_raised(rig: Rig, gone: str) -> None:
    server = rig.run("ana", stop_fails=True)
    if gone == "404":
        then(rig, lambda: setattr(server, "process_alive", False))
    else:
        then(rig, lambda: server.__dict__.update(process_started=rig.time))
    rig.poll()
    assert result(rig) == (1, 0)


def test_a_refused_connection_is_gone(rig: Rig) -> None:
    rig.run("ana", stop_fails=True)
    then(rig, rig.target.hang_up)
    rig.poll()
    assert result(rig) == (1, 0)


@pytest.mark.parametrize("fails", [False, True])
def test_where_the_old_address_tells_nothing_last_activity_decides(rig: Rig, fails: bool) -> None:
    """In a service mesh something always takes the connection."""
    rig.run("ana", stop_fails=fails)
    rig.target.plan("GET", "*/status", faults.close(), after=1)
    rig.poll()
    assert result(rig) == ((0, 1) if fails else (1, 0))


def test_the_old_address_of_no_jupyter_tells_nothing(rig: Rig) -> None:
    """Before and after its stop nothing answers as a Jupyter server there."""
    rig.run("ana", jupyter=False, stop_fails=True)
    rig.poll()
    assert result(rig) == (0, 1)


def test_the_address_of_a_server_that_never_answered_tells_nothing(make_rig: MakeRig) -> None:
    """Refused before its stop, refused after it."""
    rig = make_rig(max_age=HOUR)
    rig.run("ana", stop_fails=True)
    rig.target.hang_up()
    rig.poll()
    assert result(rig, "max_age") == (0, 1)


def test_a_failed_stop_of_an_active_server_is_a_failure(make_rig: MakeRig) -> None:
    """It was active between the look and the stop: `last_activity` moved without a stop."""
    rig = make_rig(max_age=HOUR, busy_check="off")
    server = rig.run("ana", idle=0.0, stop_fails=True)

    def work() -> None:
        server.last_activity = rig.hub.now() - 0.5
        rig.time += 0.25

    rig.time += 1
    rig.hub.plan("GET", USER, faults.after(work), times=1)
    rig.poll()
    assert result(rig, "max_age") == (0, 1)


def test_a_stop_is_told_from_activity_by_the_tokens_time_not_by_whole_seconds(
    make_rig: MakeRig,
) -> None:
    """Active in the second of the stop, but before it."""
    rig = make_rig(max_age=HOUR, busy_check="off")
    server = rig.run("ana", idle=0.0, stop_fails=True)
    rig.time += 0.75

    def work() -> None:
        server.last_activity = rig.hub.now() - 0.25  # later than the look's Date, cut to 0.0

    rig.hub.plan("GET", USER, faults.after(work), times=1)
    rig.poll()
    assert result(rig, "max_age") == (0, 1)


def restarted(rig: Rig, server: Server) -> Fault:
    """Stop it, and let its user start it again before anybody looks."""

    def fault(_request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        server.stopped, server.ready, server.process_alive = False, True, True
        server.started = server.last_activity = rig.hub.now() + 1
        return true

    return fault


def test_a_server_restarted_at_once_is_a_cull_where_its_address_shows_it(rig: Rig) -> None:
    server = rig.run("ana")
    rig.hub.plan("DELETE", STOP, restarted(rig, server))
    rig.poll()
    assert (result(rig), server.ready) == ((1, 0), True)


def test_a_server_restarted_at_once_is_no_cull_where_nothing_shows_it(make_rig: MakeRig) -> None:
    rig = make_rig(busy_check="off")
    server = rig.run("ana")
    rig.hub.plan("DELETE", STOP, restarted(rig, server))
    rig.poll()
    assert result(rig) == (0, 1)


def test_a_404_counts_only_with_the_hubs_own_header(rig: Rig) -> None:
    """A proxy in front of a Hub that is away may answer 404 for a user."""
    rig.run("ana")

    def without_header(_request: Request, _answer: Callable[[], Reply]) -> Reply:
        rig.hub.headers = dict  # type: ignore[method-assign]
        return faults.reply(404, "no such page")

    rig.hub.plan("GET", USER, without_header, after=1, times=2)
    rig.poll()
    assert rig.culled() == 1
    assert len(rig.hub.log("GET", USER)) == 4  # looked on, until the Hub itself answered


def test_pending_check_of_a_restarted_hub_decides_nothing(rig: Rig) -> None:
    server = rig.run("ana")

    def checks(user: Any) -> Any:
        user["servers"][""] |= {"pending": "check", "ready": False, "started": _text(server)}
        return user

    rig.hub.plan("GET", USER, faults.rewritten(checks), after=1, times=3)
    rig.poll(within=20)
    assert result(rig) == (1, 0)
    assert len(rig.hub.log("GET", USER)) == 5


def _text(server: Server) -> str | None:
    from fake_hub.records import timestamp

    return timestamp(server.process_started)


@pytest.mark.parametrize("token", ["a stop token", "our own"])
def test_a_delete_that_works_after_its_504_is_followed_to_its_end(
    make_rig: MakeRig, token: str
) -> None:
    """A proxy gives up after a minute; the Hub has the DELETE in hand, and takes it later."""
    rig = make_rig(busy_check="auto")
    if token == "our own":
        rig.hub.users["idle-prober"].scopes = ["access:servers"]
    server = rig.run("ana")
    taken: list[Callable[[], Reply]] = []

    def keep(_request: Request, answer: Callable[[], Reply]) -> Reply:
        taken.append(answer)
        return faults.reply(504)

    rig.hub.plan("DELETE", STOP, keep)
    rig.hub.plan("GET", USER, faults.before(lambda: taken[0]()), after=2, times=1)
    rig.poll(within=20)
    assert (rig.attempted(), rig.culled(), rig.failed("http")) == (1, 1, 0)
    assert not server.process_alive


def test_a_lost_delete_is_a_failure_once_its_token_has_expired(rig: Rig) -> None:
    server = rig.run("ana")
    rig.hub.plan("DELETE", STOP, faults.close())
    began = rig.time
    rig.poll(within=20)
    assert (rig.culled(), rig.failed("connection"), server.ready) == (0, 1, True)
    assert 3 < rig.time - began < 30


def test_the_claim_of_a_lost_delete_is_kept_until_it_is_decided(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", STOP, faults.close())
    begun = rig.begin()
    rig.hub.wait_for("GET", USER, count=2)
    assert rig.poller.poll()
    rig.finish(begun, within=20)
    assert len(rig.hub.log("DELETE", STOP)) == 1
    assert (rig.attempted(), rig.failed("connection")) == (1, 1)


# ---- one server cannot hold up the others --------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(faults.html(400), "http"), (faults.always(faults.reply(204)), "not_stopped")],
)
def test_a_server_that_cannot_be_stopped_does_not_starve_the_others(
    make_rig: MakeRig, fault: Fault, cause: str
) -> None:
    rig = make_rig(max_culls=1)
    rig.run("ana", idle=9 * HOUR)
    rig.hub.plan("DELETE", STOP, fault)
    for number in range(3):
        rig.run(f"u{number}")
    rig.poll()
    assert (rig.culled(), rig.failed(cause)) == (1, 1)  # its room went to the next one
    rig.poll()
    rig.poll()
    assert rig.culled() == 3


def test_a_failed_stop_is_tried_again_with_growing_pauses(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", STOP, faults.html(400))
    tried = []
    for minute in range(18):
        rig.poll()
        tried.append((minute, len(rig.hub.log("DELETE", STOP))))
        rig.watch(60)
    at = [
        minute for (minute, now), (_, before) in zip(tried[1:], tried, strict=False) if now > before
    ]
    assert at == [1, 2, 4, 8, 16]
    assert rig.attempted() == rig.failed("http") == len(at) + 1


def test_slow_stops_do_not_hold_up_a_quick_one(make_rig: MakeRig) -> None:
    rig = make_rig(concurrency=2)
    rig.hub.slow_stop_timeout = 0.02
    released = threading.Event()
    for number in range(8):
        rig.run(f"slow{number}", idle=9 * HOUR, stop_takes=released)
    rig.run("quick")
    begun = rig.begin()
    rig.hub.wait_for("DELETE", "/users/quick/server")
    assert rig.culled() <= 1
    released.set()
    rig.finish(begun)
    assert rig.culled() == 9


def test_one_users_hanging_servers_do_not_hold_up_another_user(make_rig: MakeRig) -> None:
    rig = make_rig(concurrency=4)
    released = threading.Event()
    for number in range(60):
        rig.run("ana", f"s{number}", idle=9 * HOUR)
    rig.target.plan("GET", "/user/ana/*", faults.hang(released))
    rig.run("ben")
    begun = rig.begin()
    rig.hub.wait_for("DELETE", "/users/ben/server", timeout=10)
    assert len(rig.target.log("GET", "/user/ana/*/api/kernels")) <= 2
    rig.run("eva")
    assert rig.poller.poll()
    rig.hub.wait_for("DELETE", "/users/eva/server", timeout=10)
    released.set()
    rig.target.heal()
    rig.finish(begun, within=30)


def test_after_a_server_that_does_not_answer_its_users_others_wait(make_rig: MakeRig) -> None:
    """Even with one worker, sixty hanging servers of one user delay nobody by more than one."""
    rig = make_rig(concurrency=1)
    for number in range(5):
        rig.run("ana", f"s{number}", idle=9 * HOUR)
    rig.target.plan("GET", "/user/ana/*", faults.html(500))
    rig.run("ben")
    rig.poll()
    asked = [request.path for request in rig.target.log("GET", "*/kernels")]
    assert asked.index("/user/ben/api/kernels") == 1
    assert rig.culled() == 1


# ---- removal ------------------------------------------------------------------------------------


def wait_for_removal(logged: Events, timeout: float = 10) -> str:
    """Wait until a record was removed, or was not; return which."""
    deadline = steady() + timeout
    while not (found := [e["event"] for e in list(logged) if e["event"].startswith("named_")]):
        assert steady() < deadline, "no removal in the log"
        threading.Event().wait(0.02)
    return str(found[-1])


def removed(rig: Rig) -> list[Request]:
    return [r for r in rig.hub.log("DELETE", "/users/*/server*") if r.body.strip()]


@pytest.mark.parametrize("use", ["started again", "started and stopped again", "exempt"])
def test_a_named_server_used_since_its_stop_is_not_removed(
    make_rig: MakeRig, logged: Events, use: str
) -> None:
    policies = [{"name": "kept", "match": {"groups": ["kept"]}, "exempt": True}]
    rig = make_rig(remove_named_servers=True, policies=policies)
    server = rig.run("ana", "gpu")
    rig.poll()
    assert (rig.culled(), removed(rig)) == (1, [])
    if use == "exempt":
        server.user.groups = ("kept",)
    else:
        server.last_activity = rig.hub.now() + 5
        again = use == "started again"
        server.stopped, server.ready = not again, again
        server.started = rig.hub.now() + 5 if again else None
    assert wait_for_removal(logged) == "named_server_kept"
    assert removed(rig) == []
    assert "gpu" in rig.hub.users["ana"].servers


def test_without_a_token_for_it_a_removal_is_bound_to_a_look_of_the_last_seconds(
    make_rig: MakeRig, logged: Events
) -> None:
    """The exporter is paused after the look, and meanwhile the user starts the server again."""
    rig = make_rig(busy_check="auto", remove_named_servers=True)
    rig.hub.users["idle-prober"].scopes = ["access:servers"]
    server = rig.run("ana", "gpu")
    rig.poll()
    assert rig.culled() == 1

    def restart() -> None:
        rig.time += 6
        server.stopped, server.ready = False, True
        server.started = server.last_activity = rig.hub.now()

    rig.hub.plan("GET", USER, faults.after(restart), times=1)
    assert wait_for_removal(logged) == "named_server_not_removed"  # it is tried again
    rig.hub.wait_for("GET", USER, count=len(rig.hub.log("GET", USER)) + 1)
    assert removed(rig) == []
    assert server.ready


def test_a_removal_is_bound_to_a_token_that_was_minted_before_the_look(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(remove_named_servers=True)
    rig.run("ana", "gpu")
    rig.poll()
    stop, remove = rig.hub.wait_for("DELETE", "/users/ana/servers/gpu", count=2)
    assert remove.token not in (rig.hub.token, stop.token)
    minted, looked = rig.hub.log("POST", "/users/*/tokens")[-1], rig.hub.log("GET", USER)[-1]
    assert minted.json()["scopes"] == ["delete:servers!server=ana/gpu"]
    assert stop.at < minted.at < looked.at < remove.at
