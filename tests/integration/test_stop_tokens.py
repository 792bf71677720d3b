"""No stop on old knowledge: each stop is good for seconds, by the Hub's own clock.

In a rig the Hub's clock and ours are one, and only a test moves them.
"""

import threading
from collections.abc import Callable, MutableMapping
from typing import Any

import fake_hub as faults
import pytest
import structlog
from answers import BEFORE_THE_STOP, TOKENS
from culling_rig import HOUR, MakeRig, Rig
from fake_hub import Reply, Request, Server
from turns import watch_turns

Events = list[MutableMapping[str, Any]]
DAY = 24 * HOUR
USER, STOP = "/users/ana", "/users/ana/server"


def passes(rig: Rig, seconds: float, *more: Callable[[], object]) -> Callable[[], None]:
    """Return what lets time go by, and other things happen."""

    def happen() -> None:
        rig.time += seconds
        for one in more:
            one()

    return happen


def comes_back(rig: Rig, server: Server) -> Callable[[], None]:
    """Return what lets the user of a server work on it again, seen by the Hub and the server."""

    def work() -> None:
        server.last_activity = rig.hub.now()
        rig.jupyter(server).last_activity = rig.hub.now()

    return work


def deletes(rig: Rig) -> list[Request]:
    return rig.hub.log("DELETE", STOP)


def test_a_stop_is_sent_with_a_token_for_that_server_minted_before_the_look(rig: Rig) -> None:
    rig.run("ana")
    rig.poll()
    (body,) = rig.minted("stop")
    assert (body["scopes"], body["expires_in"]) == (["delete:servers!server=ana/"], 3)
    (minted,) = [r for r in rig.hub.log("POST", TOKENS) if r.json() == body]
    looked, verified = rig.hub.log("GET", USER)
    (delete,) = deletes(rig)
    asked = [r for r in rig.target.log("GET", "*/status") if r.at < delete.at]
    assert minted.at < looked.at < asked[-1].at < delete.at < verified.at
    stop_token = rig.hub.tokens[delete.token]
    assert stop_token.user == "idle-prober"
    assert "delete:servers!server=ana/" in stop_token.scopes
    assert rig.culled() == 1


def test_between_the_stop_token_and_the_look_nothing_is_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token lives for seconds; other requests of ours may take all turns meanwhile."""
    rig.run("ana")
    turns = watch_turns(rig.hub, monkeypatch)
    rig.poll()
    assert [f"POST {TOKENS}", f"GET {USER}"] in turns
    assert rig.culled() == 1


def test_the_stop_token_is_never_sent_to_the_users_server(rig: Rig) -> None:
    rig.run("ana")
    rig.poll()
    (delete,) = deletes(rig)
    assert all(delete.token not in str(request.headers) for request in rig.target.requests)


def test_a_culled_server_costs_six_requests_of_ours(rig: Rig) -> None:
    """Two tokens, a look, the stop, its verification and a revocation."""
    rig.poll()
    rig.run("ana")
    before = len(rig.hub.requests)
    rig.poll()
    assert rig.culled() == 1
    polled = 2 + 1 + 2 + 3  # identity, list; routes; the probe user; the lease: mint, list, revoke
    assert len(rig.hub.requests) - before - polled == 6


@pytest.mark.parametrize("answer", [200, 500])
def test_expired_stop_tokens_do_not_pile_up_at_the_hub(rig: Rig, answer: int) -> None:
    """It deletes them when it lists tokens, and answers nobody meanwhile."""
    rig.poll()
    for number in range(60):
        rig.run(f"u{number}")
    before = len(rig.hub.log("GET", TOKENS))
    if answer != 200:
        rig.hub.plan("GET", TOKENS, faults.always(faults.reply(answer)))
    assert rig.poll(within=30)
    assert rig.culled() == 60
    of_lease = 1
    assert len(rig.hub.log("GET", TOKENS)) - before == 60 // 25 + of_lease


def test_a_server_is_asked_for_terminals_once_it_knows_who_asks(rig: Rig) -> None:
    """It asks the Hub whose token that is, and remembers: one request to the Hub, not two."""
    rig.run("ana")
    before: list[int] = []
    terminals = "*/terminals"
    count = faults.after(lambda: before.append(len(rig.target.log("GET", terminals))))
    rig.target.plan("GET", "*/kernels", count, times=1)
    rig.poll()
    assert before == [0]
    assert len(rig.target.log("GET", terminals)) == rig.culled() == 1


def test_a_server_slow_to_tell_its_kernels_is_asked_for_terminals_meanwhile(rig: Rig) -> None:
    """Asked one after another, its first answer would be old when the second one comes."""
    rig.run("ana")
    asked = threading.Event()
    met: list[bool] = []
    rig.target.plan("GET", "*/terminals", faults.before(asked.set), times=1)
    rig.target.plan("GET", "*/kernels", faults.before(lambda: met.append(asked.wait(4))), times=1)
    rig.poll()
    assert met == [True]
    assert rig.culled() == 1


def test_a_delete_that_the_hub_takes_late_stops_nobody(rig: Rig) -> None:
    """The Hub is paused with the DELETE in hand, and meanwhile the user comes back."""
    server = rig.run("ana")
    late = passes(rig, 4, comes_back(rig, server))
    rig.hub.plan("DELETE", STOP, faults.before(late), times=1)
    rig.poll()
    assert len(deletes(rig)) == 1
    assert server.ready
    assert rig.withheld("active_again") == 1
    assert rig.attempted() == rig.culled() == 0


def test_after_a_stop_that_came_too_late_the_server_is_looked_at_and_asked_anew(rig: Rig) -> None:
    rig.run("ana", kernels=["idle"])
    rig.hub.plan("DELETE", STOP, faults.before(passes(rig, 4)), times=1)
    rig.poll()
    first, second = deletes(rig)
    between = [r.path for r in rig.target.requests if first.at < r.at < second.at]
    asked = [path.rpartition("/")[2] for path in between]
    assert (sorted(asked[:2]), asked[2:]) == (["kernels", "terminals"], ["status"])
    assert len([r for r in rig.hub.log("GET", USER) if first.at < r.at < second.at]) == 1
    assert len(rig.minted("stop")) == 2
    assert (rig.attempted(), rig.culled()) == (1, 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_stop_whose_token_the_hub_refuses_is_prepared_anew(rig: Rig, status: int) -> None:
    rig.run("ana")
    rig.hub.plan("DELETE", STOP, faults.html(status), times=1)
    rig.poll()
    assert len({delete.token for delete in deletes(rig)}) == 2
    assert (rig.attempted(), rig.culled()) == (1, 1)


def test_after_three_stops_that_came_too_late_the_server_is_withheld_as_stale(
    rig: Rig, logged: Events
) -> None:
    server = rig.run("ana")
    rig.hub.plan("DELETE", STOP, faults.before(passes(rig, 11)))
    rig.poll()
    assert len(deletes(rig)) == 3
    assert server.ready
    assert (rig.withheld("stale"), rig.attempted(), rig.culled()) == (1, 0, 0)
    (loud,) = [event for event in logged if event["event"] == "every_stop_too_late"]
    assert (loud["log_level"], loud["servers"]) == ("error", 1)


def test_a_stop_that_is_too_old_by_our_own_clock_is_not_sent(rig: Rig) -> None:
    """The sidecar is paused after the server's last answer."""
    server = rig.run("ana")
    late = passes(rig, 4, comes_back(rig, server))
    rig.target.plan("GET", "*/status", faults.after(late), times=1)
    rig.poll()
    assert (deletes(rig), server.ready) == ([], True)
    assert rig.withheld("active_again") == 1


def test_a_computation_that_began_while_the_sidecar_was_paused_is_asked_for_anew(rig: Rig) -> None:
    """Kernels are asked first, and are older than the rest when the stop is due."""
    server = rig.run("ana", kernels=["idle"])

    def compute() -> None:
        rig.jupyter(server).kernels[0]["execution_state"] = "busy"

    rig.after_work(passes(rig, 11, compute))
    rig.poll()
    assert (deletes(rig), rig.withheld("busy")) == ([], 1)


def test_a_pause_between_look_and_last_question_is_stale_and_no_fault_of_the_server(
    rig: Rig,
) -> None:
    rig.run("ana")
    rig.hub.plan("GET", USER, faults.after(passes(rig, 4)), times=3)
    rig.poll()
    assert (deletes(rig), rig.withheld("stale"), rig.withheld("probe_failed")) == ([], 1, 0)


def test_kernels_are_at_most_ten_seconds_old_when_the_hub_takes_the_stop(rig: Rig) -> None:
    """The sidecar is paused between the kernels' answer and the minting of the stop token."""
    rig.run("ana", kernels=["idle"])
    asked: list[float] = []
    rig.target.plan("GET", "*/kernels", faults.after(lambda: asked.append(rig.time)))
    rig.hub.plan("POST", TOKENS, faults.before(passes(rig, 9.5)), after=3, times=1)
    rig.hub.plan("DELETE", STOP, faults.before(passes(rig, 2.5)))
    rig.poll()
    assert rig.culled() == 1
    assert len(asked) == 2
    assert rig.time - asked[-1] < 10


def test_on_a_slow_hub_too_kernels_are_at_most_ten_seconds_old(rig: Rig) -> None:
    """Stop tokens live longer there, but not longer than what was known before."""
    for _ in range(3):
        rig.client.pace.answered(2.0)
    rig.hub.plan("*", "*", faults.before(passes(rig, 2)))
    rig.run("ana", kernels=["idle"])
    rig.target.plan("GET", "*/terminals", faults.after(passes(rig, 3.5)), times=1)
    rig.poll()
    first, *later = (body["expires_in"] for body in rig.minted("stop"))
    assert first == 6
    assert set(later) <= {7}


def test_without_stop_tokens_a_look_older_than_five_seconds_is_taken_anew(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(busy_check="auto")
    rig.hub.users["idle-prober"].scopes = ["access:servers"]
    server = rig.run("ana")
    late = passes(rig, 6, comes_back(rig, server))
    rig.target.plan("GET", "*/status", faults.after(late), times=1)
    rig.poll()
    assert (deletes(rig), rig.withheld("active_again")) == ([], 1)
    rig.run("ben")
    rig.poll()
    assert rig.stops() == ["ben/"]
    assert rig.hub.log("DELETE", "/users/ben/server")[0].token == rig.hub.token


def test_a_question_that_comes_too_late_is_not_the_servers_silence(rig: Rig) -> None:
    """The Hub was slow each time: a server is not asked that could not answer in time."""
    rig.run("ana")
    rig.hub.plan("GET", USER, faults.after(passes(rig, 2.5)), times=3)
    rig.target.plan("GET", "*/status", faults.close())
    rig.poll()
    assert rig.target.log("GET", "*/status") == []
    assert (rig.asked("failed"), rig.withheld("stale")) == (0, 1)


def test_max_age_is_bound_to_the_same_token(make_rig: MakeRig) -> None:
    rig = make_rig(max_age=HOUR)
    server = rig.run("ana")

    def restart() -> None:
        server.started = server.last_activity = rig.hub.now()

    rig.hub.plan("DELETE", STOP, faults.before(passes(rig, 4, restart)), times=1)
    rig.poll()
    assert server.ready
    assert (rig.withheld("restarted"), rig.culled(reason="max_age")) == (1, 0)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("who", ["server", "hub", "both"])
def test_two_seconds_an_answer_are_slow_and_not_for_ever(rig: Rig, who: str, when: str) -> None:
    """Whether the request takes long to arrive, or the answer to come back."""
    slow = {"before": faults.before, "after": faults.after}[when](passes(rig, 2))
    rig.run("ana", kernels=["idle"], idle=0)
    if who != "hub":  # kernels and terminals are asked at once: time goes by for one of them
        rig.target.plan("GET", "*/kernels", slow)
        rig.target.plan("GET", "*/status", slow)
    if who != "server":
        rig.hub.plan("*", "/user*", slow)
    for _ in range(3):  # so that it is known to be slow
        rig.poll()
        rig.watch(60)
    rig.hub.server("ana").last_activity = rig.time - 2 * HOUR
    rig.hub.server("ana").route_activity = rig.time - 2 * HOUR
    rig.jupyter(rig.hub.server("ana")).last_activity = rig.time - 2 * HOUR
    rig.jupyter(rig.hub.server("ana")).kernels[0]["last_activity"] = "2020-01-01T00:00:00Z"
    rig.poll()
    assert rig.culled() == 1
    assert len(deletes(rig)) == 1


def test_one_pause_does_not_make_stop_tokens_live_longer(rig: Rig) -> None:
    """A paused Hub, or a paused sidecar, is not a slow one."""
    rig.poll()
    server = rig.run("ana", kernels=["idle"])
    rig.hub.plan("POST", TOKENS, faults.before(passes(rig, 5)), after=2, times=1)
    late = passes(rig, 4, comes_back(rig, server))
    rig.hub.plan("DELETE", STOP, faults.before(late), times=1)
    rig.poll()
    assert {body["expires_in"] for body in rig.minted("stop")} == {3}
    assert (server.ready, rig.withheld("active_again")) == (True, 1)


def test_a_stop_token_is_good_for_ten_seconds_at_most(rig: Rig) -> None:
    """However slow the Hub is."""
    rig.run("ana")
    for _ in range(3):
        rig.client.pace.answered(20.0)
    rig.hub.plan("*", "/user*", faults.before(passes(rig, 20)))
    rig.poll()
    assert max(body["expires_in"] for body in rig.minted("stop")) == 10


def test_a_blocked_log_never_stands_between_the_last_look_and_the_stop(rig: Rig) -> None:
    rig.run("ana")
    unblock = threading.Event()

    def block(_log: object, _name: str, event: MutableMapping[str, Any]) -> Any:
        if event.get("user") == "ana":
            unblock.wait(10)
        raise structlog.DropEvent

    structlog.configure(processors=[block])
    begun = rig.begin()
    try:
        rig.hub.wait_for("DELETE", STOP)
    finally:
        unblock.set()
    rig.finish(begun)
    assert rig.culled() == 1


def test_the_busy_checks_token_is_revoked_after_the_stop(rig: Rig) -> None:
    rig.run("ana")
    rig.poll()
    (revoke,) = [
        request
        for request in rig.hub.log("DELETE", f"{TOKENS}/*")
        if any(token.note.endswith("busy check") for token in rig.hub.revoked)
    ]
    assert revoke.at > deletes(rig)[0].at


def test_a_token_past_half_its_life_is_not_revoked(rig: Rig) -> None:
    """The Hub gives the id of an expired token to a new one: a late revoke would hit that."""
    rig.run("ana", kernels=["busy"])
    late = faults.after(passes(rig, 31))
    rig.target.plan("GET", "*/kernels", late)
    rig.poll()
    assert rig.stops() == []
    assert rig.hub.revoked == []


# ---- paused after each kind of answer ------------------------------------------------------------


@pytest.mark.parametrize("max_age", [0.0, HOUR])
@pytest.mark.parametrize("kind", BEFORE_THE_STOP)
def test_paused_after_any_answer_nothing_is_stopped_on_what_was_known_before(
    make_rig: MakeRig, kind: str, max_age: float
) -> None:
    """For twenty seconds; meanwhile the user comes back, or restarts what is too old."""
    rig = make_rig(max_age=max_age)
    where, method, path, after = BEFORE_THE_STOP[kind]
    server = rig.run("ana", kernels=["idle"])
    back = comes_back(rig, server)

    def restart() -> None:
        server.started = server.last_activity = rig.hub.now()
        back()

    pause = faults.after(passes(rig, 20, restart if max_age else back))
    target = rig.hub if where == "hub" else rig.target
    target.plan(method, path, pause, after=after, times=1)
    rig.poll()
    if not (max_age and kind in ("kernels", "terminals")):  # max age does not ask for these
        assert len(target.log(method, path)) > after
        assert server.ready
        assert rig.culled() == rig.culled(reason="max_age") == 0


@pytest.mark.parametrize("seconds", [4, 20])
@pytest.mark.parametrize(
    "kind", [k for k, (where, *_) in BEFORE_THE_STOP.items() if where == "hub"]
)
def test_a_hub_paused_with_any_request_in_hand_stops_nobody_who_came_back(
    rig: Rig, kind: str, seconds: int
) -> None:
    _, method, path, after = BEFORE_THE_STOP[kind]
    server = rig.run("ana", kernels=["idle"])
    pause = faults.before(passes(rig, seconds, comes_back(rig, server)))
    rig.hub.plan(method, path, pause, after=after, times=1)
    rig.poll()
    assert len(rig.hub.log(method, path)) > after
    assert server.ready
    assert rig.stops() == []


def test_what_the_server_answers_last_decides(rig: Rig) -> None:
    """The user comes back right after kernels and terminals were asked; the Hub knows nothing."""
    server = rig.run("ana", kernels=["idle"])

    def work() -> None:
        rig.jupyter(server).last_activity = rig.time

    rig.target.plan("GET", "*/terminals", faults.after(work))
    rig.poll()
    assert (rig.stops(), rig.withheld("active_again"), rig.asked("active")) == ([], 1, 1)


def test_a_reply_without_a_date_is_no_usable_answer(rig: Rig) -> None:
    rig.run("ana", kernels=["idle"])
    rig.target.plan("GET", "*", faults.dated(None))
    rig.poll()
    assert (rig.stops(), rig.withheld("probe_failed")) == ([], 1)


@pytest.mark.parametrize("ahead", [-5 * HOUR, 5 * HOUR])
def test_what_a_server_says_is_aged_by_its_own_clock(rig: Rig, ahead: float) -> None:
    """Its clock is hours away from the Hub's: active seconds ago is active, idle is idle."""
    rig.target.clock = lambda: rig.time + ahead
    at_work, idle = rig.run("ana", kernels=["idle"]), rig.run("ben", kernels=["idle"])
    for server, ago in ((at_work, 30.0), (idle, 2 * HOUR)):
        said = rig.jupyter(server)
        said.last_activity = rig.time + ahead - ago
        said.kernels[0]["last_activity"] = "2020-01-01T00:00:00Z"
    rig.poll()
    assert rig.stops() == ["ben/"]
    assert rig.withheld("active_again") == 1


def test_clocks_a_minute_apart_forbid_enforcement_by_name(rig: Rig) -> None:
    rig.run("ana")
    rig.hub.clock_offset = 2 * HOUR
    rig.poll()
    assert rig.stops() == []
    assert rig.counted("enforcement", state="suspended") == 1
    assert "the Hub's clock is 7200 s ahead of the exporter's" in rig.gatekeeper.read().why
    rig.hub.clock_offset = 0.0
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_an_answer_that_took_long_is_no_jump_of_the_hubs_clock(make_rig: MakeRig) -> None:
    """A DELETE of 70 s bears the time at which it was asked: that closed the gate."""
    rig = make_rig(grace=600)
    rig.poll()
    rig.watch(630)
    rig.gatekeeper.hub_answered(rig.hub.now() - 70, took=70.0)
    assert rig.counted("enforcement", state="on") == 1
    rig.gatekeeper.hub_answered(rig.hub.now() - 70, took=1.0)
    assert rig.counted("enforcement", state="grace") == 1


def odd_reply(_request: Request, _answer: Callable[[], Reply]) -> Reply:
    return faults.reply(404, {"message": "Not Found"})


def test_no_jupyter_is_stopped_by_last_activity_only_where_the_proxy_feeds_it(
    rig: Rig, logged: Events
) -> None:
    """Behind Traefik nothing tells whether an RStudio is in use."""
    fed = rig.run("fed", jupyter=False)
    for user in ("unfed", "other"):
        server = rig.run(user, jupyter=False)
        data = {"user": user, "server_name": ""}
        route = {"routespec": server.routespec, "target": rig.target.origin, "data": data}
        rig.hub.routes[server.routespec] = route
    rig.poll()
    rig.poll()
    assert rig.stops() == ["fed/"]
    assert not fed.ready
    assert rig.withheld("probe_failed") == 4
    assert [e["event"] for e in logged].count("activity_not_recorded") == 1


def test_a_start_that_once_answered_as_jupyter_never_becomes_no_jupyter(rig: Rig) -> None:
    server = rig.run("ana", kernels=["busy"])
    rig.poll()
    assert rig.withheld("busy") == 1
    rig.target.plan("GET", "*", odd_reply)
    rig.poll()
    assert (server.ready, rig.withheld("probe_failed")) == (True, 1)


def test_a_server_that_is_no_jupyter_any_more_when_asked_anew_is_spared(rig: Rig) -> None:
    """Only its kernels have gone: they may have been hidden."""
    server = rig.run("ana", kernels=["idle"])
    rig.hub.plan("DELETE", STOP, faults.before(passes(rig, 4)), times=1)
    rig.target.plan("GET", "*/kernels", faults.html(404), after=1)
    rig.poll()
    assert (server.ready, rig.withheld("probe_failed")) == (True, 1)


@pytest.mark.parametrize("kind", ["routes", "kernels", "terminals", "stop token", "look", "status"])
def test_paused_after_any_answer_no_jupyter_is_not_stopped_on_traffic_of_before(
    rig: Rig, kind: str
) -> None:
    """Only the proxy sees at once that somebody came back."""
    where, method, path, after = BEFORE_THE_STOP[kind]
    server = rig.run("ana", jupyter=False)

    def back() -> None:
        server.route_activity = rig.hub.now()

    target = rig.hub if where == "hub" else rig.target
    target.plan(method, path, faults.after(passes(rig, 20, back)), after=after, times=1)
    rig.poll()
    assert len(target.log(method, path)) > after
    assert server.ready


def test_no_jupyter_is_judged_by_traffic_of_the_last_seconds(rig: Rig) -> None:
    """The routes of a pass are read once for all servers, and others were asked in between."""
    first, second = rig.run("ana", jupyter=False), rig.run("ben", idle=9 * HOUR)

    def back() -> None:
        first.route_activity = rig.hub.now()

    rig.target.plan("GET", "*/ana/api/terminals", faults.before(passes(rig, 6, back)), times=1)
    rig.poll()
    assert (first.ready, second.ready) == (True, False)
    assert rig.withheld("active_again") == 1


def test_a_stop_that_came_too_late_does_not_begin_the_count_of_max_busy_anew(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(max_busy=2 * HOUR, poll={"interval": HOUR})
    rig.run("ana", kernels=["busy"])
    rig.poll()
    rig.watch(2 * HOUR)
    rig.hub.plan("DELETE", STOP, faults.before(passes(rig, 11)), times=3)
    rig.poll()
    assert rig.withheld("stale") == 1
    rig.poll()
    assert rig.stops()[-1:] == ["ana/"]
    assert rig.culled() == 1


def test_a_stop_token_that_cannot_be_minted_spares(rig: Rig) -> None:
    """It is not stopped with our own token instead, which would be good for ever."""
    rig.poll()
    rig.run("ana")
    rig.hub.plan("POST", TOKENS, faults.html(500), after=3)  # after those of lease and questions
    rig.poll()
    assert (rig.minted("stop") != [], deletes(rig)) == (True, [])
    assert rig.withheld("probe_failed") == 1


@pytest.mark.parametrize("break_", ["an answer", "work"])
def test_only_silence_without_a_break_counts_for_max_unanswered(
    make_rig: MakeRig, break_: str
) -> None:
    rig = make_rig(max_unanswered=2 * HOUR, poll={"interval": HOUR})
    server = rig.run("ana", kernels=["busy"])
    silent = faults.html(500)
    rig.target.plan("GET", "*", silent)
    rig.poll()
    rig.watch(60)
    if break_ == "an answer":
        rig.target.heal()
    else:
        server.last_activity = rig.hub.now()
    rig.poll()
    assert rig.withheld("busy") == (break_ == "an answer")
    rig.target.plan("GET", "*", silent)
    rig.watch(2 * HOUR)
    rig.poll()
    assert (rig.withheld("probe_failed"), rig.stops()) == (2, [])


def test_max_unanswered_judges_a_silent_server_by_last_activity(make_rig: MakeRig) -> None:
    rig = make_rig(max_unanswered=HOUR, poll={"interval": 600.0})
    rig.run("ana")
    rig.target.plan("GET", "*", faults.html(500))
    for _ in range(6):
        rig.poll()
        rig.watch(600)
    assert (rig.stops(), rig.withheld("probe_failed")) == ([], 6)
    rig.poll()
    assert rig.stops() == ["ana/"]


@pytest.mark.parametrize("path", ["/proxy", TOKENS])
def test_a_server_that_could_not_be_asked_is_not_one_that_does_not_answer(
    make_rig: MakeRig, path: str
) -> None:
    """The Hub fails for longer than --max-unanswered, at its own part of the busy check."""
    rig = make_rig(max_unanswered=HOUR, poll={"interval": 600.0}, busy_check="auto")
    rig.poll()
    server = rig.run("ana")
    rig.hub.plan("GET" if path == "/proxy" else "POST", path, faults.html(503))
    for _ in range(10):
        rig.poll()
        rig.watch(600)
    assert (server.ready, rig.stops()) == (True, [])


def test_by_default_a_silent_server_is_never_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(poll={"interval": DAY})
    rig.run("ana")
    rig.target.plan("GET", "*", faults.html(500))
    for _ in range(8):
        rig.poll()
        rig.time += DAY
    assert (rig.stops(), rig.withheld("probe_failed")) == ([], 8)
