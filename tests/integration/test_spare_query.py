"""The second opinion: a server is stopped only where Prometheus says that it is idle."""

import gzip
import ssl
import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import fake_hub as faults
import in_process
import pytest
import trustme
from culling_rig import HOUR, PROMETHEUS_TOKEN, SPARE_QUERY, MakeRig, Rig
from fake_hub import FakeHub, Reply, Request
from fake_prometheus import QUERY, FakePrometheus, answering, refusing
from structlog.testing import capture_logs

from hub_idle_exporter.domain.labels import Withheld
from hub_idle_exporter.domain.settings import SpareQuerySettings
from hub_idle_exporter.domain.spare_query import Opinion, QueryError
from hub_idle_exporter.hub.token import token_in_file
from hub_idle_exporter.people.desk import Desk
from hub_idle_exporter.prometheus.client import Prometheus
from hub_idle_exporter.prometheus.second_opinion import SecondOpinion
from hub_idle_exporter.serving.hub_page.words import became

Events = list[MutableMapping[str, Any]]
TIMEOUT = 0.3  # seconds for a query, where it is to run out


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    with FakePrometheus() as fake:
        yield fake


@pytest.fixture
def rig(make_rig: MakeRig, prometheus: FakePrometheus) -> Rig:
    return make_rig(prometheus=prometheus.origin)


@pytest.fixture
def ana(rig: Rig) -> Rig:
    """Ana's server is idle by all that the Hub and it say."""
    rig.run("ana", kernels=["idle"])
    return rig


def spared(rig: Rig, cause: str, policy: str = "default") -> float | None:
    name = "jupyterhub_cull_candidates_spared"
    return rig.metrics.registry.get_sample_value(name, {"policy": policy, "cause": cause})


def queries(rig: Rig, result: str) -> float:
    return rig.counted("spare_queries_total", result=result)


# ---- what an answer says ------------------------------------------------------------------------


def test_a_server_of_which_a_series_says_0_is_stopped(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.says("ana", 0)
    ana.poll()
    assert ana.stops() == ["ana/"]
    assert prometheus.asked() == [SPARE_QUERY]
    assert queries(ana, "ok") == 1


@pytest.mark.parametrize("value", ["1", "0.0001", "-1", "+Inf", "-Inf", "NaN", "1e-300"])
def test_a_server_of_which_a_series_says_anything_else_is_in_use(
    ana: Rig, prometheus: FakePrometheus, value: str
) -> None:
    prometheus.says("ana", value)
    ana.poll()
    assert ana.stops() == []
    assert ana.withheld("in_use") == 1
    assert spared(ana, "in_use") == 1


@pytest.mark.parametrize("value", ["-0", "0.0", "0e7"])
def test_every_zero_is_one(ana: Rig, prometheus: FakePrometheus, value: str) -> None:
    prometheus.says("ana", value)
    ana.poll()
    assert ana.stops() == ["ana/"]


def test_an_empty_answer_is_no_evidence_of_idleness(ana: Rig, prometheus: FakePrometheus) -> None:
    ana.poll()
    assert ana.stops() == []
    assert ana.withheld("in_use") == 1
    assert queries(ana, "ok") == 1


def test_a_series_of_somebody_else_says_nothing(ana: Rig, prometheus: FakePrometheus) -> None:
    for stranger in ("an", "ana2", "Ana", "a.a", "ana ", ""):
        prometheus.says(stranger, 0)
    ana.poll()
    assert ana.stops() == []
    assert ana.withheld("in_use") == 1


def test_a_series_without_user_says_nothing_of_anybody(
    ana: Rig, prometheus: FakePrometheus
) -> None:
    prometheus.series.append(({"server": "", "pod": "jupyter-ana"}, "0"))
    ana.poll()
    assert ana.stops() == []


def test_one_series_that_is_not_0_outweighs_all_that_are(
    ana: Rig, prometheus: FakePrometheus
) -> None:
    for container in ("notebook", "sidecar", "gpu"):
        prometheus.says("ana", "0.2" if container == "sidecar" else "0", container=container)
    ana.poll()
    assert ana.stops() == []


def test_a_series_without_server_speaks_for_all_of_its_user(
    rig: Rig, prometheus: FakePrometheus
) -> None:
    for user, name in (("ana", ""), ("ana", "lab"), ("bo", ""), ("bo", "lab")):
        rig.run(user, name, kernels=["idle"])
    prometheus.says("ana", 0)
    prometheus.says("bo", 2)
    rig.poll()
    assert sorted(rig.stops()) == ["ana/", "ana/lab"]
    assert rig.withheld("in_use") == 2


def test_a_series_with_a_server_speaks_for_that_one_alone(
    rig: Rig, prometheus: FakePrometheus
) -> None:
    for name in ("", "lab", "gpu"):
        rig.run("ana", name, kernels=["idle"])
    prometheus.says("ana", 0, server="lab")
    prometheus.says("ana", 3, server="gpu")
    rig.poll()
    assert rig.stops() == ["ana/lab"]
    assert rig.withheld("in_use") == 2


def test_a_histogram_is_no_number(ana: Rig, prometheus: FakePrometheus) -> None:
    sample = {"metric": {"user": "ana"}, "histogram": [1, {"count": "0", "sum": "0"}]}
    prometheus.plan("POST", QUERY, answering([sample]))
    ana.poll()
    assert ana.stops() == []
    assert ana.withheld("in_use") == 1


def test_a_thousand_series_are_read(rig: Rig, prometheus: FakePrometheus) -> None:
    for number in range(1000):
        prometheus.says(f"user-{number}", number % 2)
    for number in (0, 1, 998, 999):
        rig.run(f"user-{number}", kernels=["idle"])
    rig.poll()
    assert sorted(rig.stops()) == ["user-0/", "user-998/"]
    assert len(prometheus.asked()) == 1


def test_names_are_compared_as_they_are(rig: Rig, prometheus: FakePrometheus) -> None:
    for name in ("ana@example.com", "Ünïcode", "a-b", "日本"):
        rig.run(name, kernels=["idle"])
        prometheus.says(name, 0)
    rig.poll()
    assert rig.withheld("in_use") == 0
    assert len(rig.stops()) == 4


# ---- no usable answer ---------------------------------------------------------------------------

UNUSABLE: dict[str, faults.Fault] = {
    "a scalar": answering([1, "0"], "scalar"),
    "a string": answering([1, "0"], "string"),
    "a matrix": answering([{"metric": {"user": "ana"}, "values": [[1, "0"]]}], "matrix"),
    "a warning": answering([{"metric": {"user": "ana"}, "value": [1, "0"]}], warnings=["partial"]),
    "no query": refusing(400, "1:6: parse error"),
    "no permission": refusing(403),
    "too slow for it": refusing(422, "query timed out"),
    "an error of its own": refusing(503),
    "a login page": faults.html(),
    "not JSON": faults.always(faults.reply(200, "OK")),
    "an error with 200": faults.always(faults.reply(200, {"status": "error", "error": "no"})),
    "a value that is no number": answering([{"metric": {"user": "ana"}, "value": [1, "idle"]}]),
    "a value that is no text": answering([{"metric": {"user": "ana"}, "value": [1, 0]}]),
    "labels that are no texts": answering([{"metric": {"user": 1}, "value": [1, "0"]}]),
    "no data": faults.always(faults.reply(200, {"status": "success"})),
    "deeply nested": faults.always(faults.reply(200, "[" * 100_000)),
    "compressed": faults.bomb(1),
    "cut": faults.half_body(),
    "closed": faults.close(),
    "a success with 500": lambda _request, answer: Reply(500, answer().body),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_without_a_usable_answer_nobody_is_stopped_for_being_idle(
    rig: Rig, prometheus: FakePrometheus, what: str
) -> None:
    prometheus.says("ana", 0)
    prometheus.says("bo", 0)
    prometheus.plan("POST", QUERY, UNUSABLE[what])
    rig.run("ana", kernels=["idle"])
    rig.run("bo", kernels=["idle"])
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("query_failed") == 2
    assert spared(rig, "query_failed") == 2
    assert queries(rig, "failed") == 1
    prometheus.heal()
    rig.poll()
    assert sorted(rig.stops()) == ["ana/", "bo/"]


def test_a_prometheus_that_is_gone_is_waited_for(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.says("ana", 0)
    prometheus.hang_up()
    ana.poll()
    assert ana.stops() == []
    assert ana.withheld("query_failed") == 1
    prometheus.listen()
    ana.poll()
    assert ana.stops() == ["ana/"]


@pytest.mark.parametrize("slowly", ["not at all", "byte by byte"])
def test_an_answer_is_not_waited_for_longer_than_its_time(
    make_rig: MakeRig, prometheus: FakePrometheus, slowly: str
) -> None:
    rig = make_rig(prometheus=prometheus.origin, query_timeout=TIMEOUT)
    rig.run("ana", kernels=["idle"])
    fault = faults.hang(threading.Event()) if slowly == "not at all" else faults.drip(0.02)
    prometheus.says("ana", 0)
    prometheus.plan("POST", QUERY, fault)
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("query_failed") == 1
    assert "timeout=300ms" in prometheus.log("POST", QUERY)[0].body.decode()


def test_infos_are_no_warnings(ana: Rig, prometheus: FakePrometheus) -> None:
    series = [{"metric": {"user": "ana"}, "value": [1, "0"]}]
    prometheus.plan("POST", QUERY, answering(series, infos=["PromQL info: metric might not be"]))
    ana.poll()
    assert ana.stops() == ["ana/"]


def test_a_failed_query_is_said_once(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.plan("POST", QUERY, refusing(400, "1:6: parse error"), times=3)
    with capture_logs() as events:
        for _ in range(4):
            ana.poll()
    said = [one for one in events if one["event"].startswith("spare_query")]
    assert [one["event"] for one in said] == ["spare_query_failed", "spare_query_answered"]
    assert "HTTP 400: 1:6: parse error" in said[0]["error"]
    assert said[0]["query"] == SPARE_QUERY


# ---- when it is asked ---------------------------------------------------------------------------


def test_it_costs_a_request_a_pass_whatever_the_number_of_servers(
    rig: Rig, prometheus: FakePrometheus
) -> None:
    for number in range(30):
        rig.run(f"user-{number}", kernels=["idle"])
        prometheus.says(f"user-{number}", 0)
    rig.poll()
    assert len(rig.stops()) == 30
    assert len(prometheus.asked()) == 1


def after_work(rig: Rig, seconds: float, happening: Callable[[], object]) -> None:
    """Let time pass, and something happen, after a server has said that it is idle."""

    def passes() -> None:
        rig.time += seconds
        rig.gatekeeper.hub_answered(rig.hub.now())
        happening()

    rig.after_work(passes)


def poll_while_work_begins(ana: Rig, prometheus: FakePrometheus) -> None:
    """Poll while Prometheus says 0; when the opinion of that poll has grown old, it says 1."""
    prometheus.says("ana", 0)

    def works() -> None:
        prometheus.series.clear()
        prometheus.says("ana", 1)

    after_work(ana, 31, works)
    ana.poll()


def test_an_opinion_that_is_old_at_a_stop_is_asked_for_anew(
    ana: Rig, prometheus: FakePrometheus
) -> None:
    poll_while_work_begins(ana, prometheus)
    assert ana.stops() == []
    assert ana.withheld("in_use") == 1
    assert len(prometheus.asked()) == 2


def test_an_opinion_that_is_old_is_asked_for_anew_once_by_all_workers(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    rig = make_rig(prometheus=prometheus.origin, concurrency=4)
    for number in range(8):
        rig.run(f"user-{number}", kernels=["idle"])
        prometheus.says(f"user-{number}", 0)
    after_work(rig, 31, lambda: None)
    rig.poll()
    assert len(rig.stops()) == 8
    assert len(prometheus.asked()) == 2


def test_the_age_of_an_opinion_counts_from_the_request(
    ana: Rig, prometheus: FakePrometheus
) -> None:
    prometheus.says("ana", 0)
    slow = faults.after(lambda: setattr(ana, "time", ana.time + 20))
    prometheus.plan("POST", QUERY, slow, times=1)
    after_work(ana, 15, prometheus.series.clear)
    ana.poll()
    assert ana.stops() == []
    assert len(prometheus.asked()) == 2


def test_an_opinion_that_is_young_at_a_stop_is_not(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.says("ana", 0)
    after_work(ana, 20, prometheus.series.clear)
    ana.poll()
    assert len(prometheus.asked()) == 1


def test_a_stop_does_not_wait_for_the_query_of_a_poll(prometheus: FakePrometheus) -> None:
    """If it has an opinion that is young enough: its stop token expires within seconds."""
    asking, during = SecondOpinion("q", client(prometheus)), list[Opinion]()
    young = asking.ask()
    prometheus.plan("POST", QUERY, faults.after(lambda: during.append(asking.newest(30.0))))
    assert asking.ask().problem is None
    assert during == [young]


def test_a_prometheus_that_dies_in_a_pass_ends_the_stops_of_that_pass(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    rig = make_rig(prometheus=prometheus.origin, concurrency=1)
    for name in ("ana", "bo", "cy"):
        rig.run(name, idle=2 * HOUR, kernels=["idle"])
        prometheus.says(name, 0)
    prometheus.plan("POST", QUERY, refusing(503), after=1, times=1)  # it answers again at once
    after_work(rig, 31, lambda: None)
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("query_failed") == 3
    assert len(prometheus.asked()) == 2
    rig.poll()
    assert len(rig.stops()) == 3


def test_a_failed_query_ends_the_stops_of_its_pass_though_it_is_answered_again(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    without = {"name": "without", "match": {"users": ["bo"]}, "spare_query": False}
    rig = make_rig(prometheus=prometheus.origin, policies=[without], concurrency=1)
    rig.run("bo", idle=3 * HOUR, kernels=["idle"])
    rig.run("ana", kernels=["idle"])
    prometheus.says("ana", 0)
    prometheus.plan("POST", QUERY, refusing(503), times=1)
    after_work(rig, 31, lambda: None)
    rig.poll()
    assert rig.stops() == ["bo/"]
    assert rig.withheld("query_failed") == 1


def test_a_query_that_fails_once_in_a_pass_ends_its_stops(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    rig = make_rig(prometheus=prometheus.origin, concurrency=1)
    for user in ("ana", "bo"):
        rig.run(user, kernels=["idle"])
        prometheus.says(user, 0)

    def refused(_request: Request, _answer: Callable[[], Reply]) -> Reply:
        rig.time += 31
        return faults.reply(503, {"status": "error"})

    after_work(rig, 31, lambda: prometheus.plan("POST", QUERY, refused, times=1))
    rig.poll()
    assert rig.stops() == []
    assert rig.withheld("query_failed") == 2
    assert len(prometheus.asked()) == 2


def test_what_prometheus_spares_is_not_asked_itself(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.says("ana", 1)
    ana.poll()
    assert ana.target.requests == []
    assert ana.minted("busy check") == []


# ---- whom it protects ---------------------------------------------------------------------------


def test_a_policy_can_go_without(make_rig: MakeRig, prometheus: FakePrometheus) -> None:
    without = {"name": "without", "match": {"users": ["bo"]}, "spare_query": False}
    rig = make_rig(prometheus=prometheus.origin, policies=[without])
    rig.run("ana", kernels=["idle"])
    rig.run("bo", kernels=["idle"])
    prometheus.plan("POST", QUERY, refusing(503))
    rig.poll()
    assert rig.stops() == ["bo/"]
    assert spared(rig, "query_failed") == 1
    assert spared(rig, "query_failed", "without") == 0


@pytest.mark.parametrize("fault", [None, refusing(503)])
def test_the_maximum_age_is_not_held_up(
    make_rig: MakeRig, prometheus: FakePrometheus, fault: faults.Fault | None
) -> None:
    rig = make_rig(prometheus=prometheus.origin, max_age=HOUR)
    prometheus.says("ana", 1)
    if fault is not None:
        prometheus.plan("POST", QUERY, fault)
    rig.run("ana", age=2 * HOUR, kernels=["busy"])
    rig.poll()
    assert rig.stops() == ["ana/"]
    assert spared(rig, "in_use") == 0


def test_it_is_no_substitute_for_asking_the_server(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.says("bo", 0)
    ana.run("bo", kernels=["busy"])
    ana.poll()
    assert ana.withheld("busy") == 1
    assert ana.stops() == []


def test_the_audit_trail_has_value_and_query(ana: Rig, prometheus: FakePrometheus) -> None:
    prometheus.says("ana", 0.37)
    with capture_logs() as events:
        ana.poll()
    (line,) = [one for one in events if one["event"] == "cull_withheld"]
    assert line["cause"] == Withheld.IN_USE
    assert line["why"] == f"Prometheus says 0.37 for it (--spare-query {SPARE_QUERY})"


def test_in_monitor_mode_it_says_what_it_would_spare(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    rig = make_rig(prometheus=prometheus.origin, enforce=False)
    rig.run("ana", kernels=["idle"])
    rig.run("bo", kernels=["idle"])
    prometheus.says("ana", 1)
    prometheus.says("bo", 0)
    rig.poll()
    assert rig.target.requests == []
    assert spared(rig, "in_use") == 1
    snapshot = rig.latest.state.snapshot
    assert snapshot is not None
    why = {one.user: (one.would_stop, one.why) for one in snapshot.census.candidates}
    assert why == {
        "ana": (False, "is past its idle limit, but Prometheus says 1 for it"),
        "bo": (True, "is past its idle limit"),
    }


# ---- notices ------------------------------------------------------------------------------------


def announced(rig: Rig) -> list[str]:
    return [user for (user, _, _), _ in rig.promises.notices.announcements]


def test_who_is_in_use_is_told_of_no_stop(make_rig: MakeRig, prometheus: FakePrometheus) -> None:
    rig = make_rig(prometheus=prometheus.origin, notice=900.0)
    for user in ("ana", "bo"):
        rig.run(user, idle=50 * 60, kernels=["idle"])
        prometheus.says(user, int(user == "ana"))
    rig.poll()
    assert announced(rig) == ["bo"]


@pytest.mark.parametrize(("idle", "is_due"), [(50 * 60, False), (2 * HOUR, True)])
def test_an_announcement_is_taken_back_from_who_is_in_use(
    make_rig: MakeRig, prometheus: FakePrometheus, idle: float, is_due: bool
) -> None:
    rig = make_rig(prometheus=prometheus.origin, notice=900.0)
    rig.run("ana", idle=idle, kernels=["idle"])
    prometheus.says("ana", 0)
    rig.poll()
    assert announced(rig) == ["ana"]
    prometheus.series.clear()
    prometheus.says("ana", 1)
    rig.watch(901)
    rig.poll()
    assert announced(rig) == []
    prometheus.series.clear()
    prometheus.says("ana", 0)
    rig.poll()
    assert announced(rig) == ["ana"]
    assert rig.stops() == []
    rig.watch(901)
    rig.poll()
    assert rig.stops() == ["ana/"]


def test_nobody_is_told_of_a_stop_by_an_old_opinion(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    rig = make_rig(prometheus=prometheus.origin, notice=900.0)
    rig.run("ana", idle=50 * 60, kernels=["idle"])
    prometheus.says("ana", 0)
    after_work(rig, 31, prometheus.series.clear)
    rig.poll()
    assert announced(rig) == []
    assert len(prometheus.asked()) == 2


def test_a_failed_query_takes_no_announcement_back(
    make_rig: MakeRig, prometheus: FakePrometheus
) -> None:
    rig = make_rig(prometheus=prometheus.origin, notice=900.0)
    rig.run("ana", kernels=["idle"])
    prometheus.says("ana", 0)
    rig.poll()
    prometheus.plan("POST", QUERY, refusing(503), times=1)
    rig.watch(901)
    rig.poll()
    assert (announced(rig), rig.stops()) == (["ana"], [])
    rig.poll()
    assert rig.stops() == ["ana/"]


# ---- the token ----------------------------------------------------------------------------------


def test_the_token_goes_to_prometheus_alone_and_the_hubs_never_does(
    ana: Rig, prometheus: FakePrometheus
) -> None:
    with FakePrometheus() as elsewhere:
        prometheus.plan("POST", QUERY, faults.redirect(f"{elsewhere.origin}{QUERY}", 307))
        ana.poll()
        assert elsewhere.requests == []
    assert ana.withheld("query_failed") == 1
    (asked,) = prometheus.log()
    assert asked.headers["authorization"] == f"Bearer {PROMETHEUS_TOKEN}"
    assert ana.own_token not in str(asked)
    assert all(PROMETHEUS_TOKEN not in str(one) for one in ana.hub.log())


def test_what_prometheus_repeats_of_the_token_is_masked(
    ana: Rig, prometheus: FakePrometheus
) -> None:
    def echo(request: Request, _answer: Callable[[], Reply]) -> Reply:
        error = {"status": "error", "error": request.headers["authorization"]}
        return faults.reply(401, error)

    prometheus.plan("POST", QUERY, echo)
    ana.poll()
    opinion = ana.latest.state.opinion
    assert opinion is not None
    assert opinion.problem == f"{prometheus.origin}: HTTP 401: Bearer ***"


# ---- terminals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protects", [True, False])
def test_an_open_terminal_protects_where_a_policy_says_so(
    make_rig: MakeRig, protects: bool
) -> None:
    policy = {"name": "shells", "match": {"users": ["*"]}, "protect_terminals": protects}
    rig = make_rig(policies=[policy], max_busy=HOUR)
    server = rig.run("ana", kernels=["idle"])
    rig.jupyter(server).add_terminal(last_activity=rig.time - 2 * HOUR)
    rig.poll()
    assert rig.withheld("busy") == protects
    assert rig.stops() == ([] if protects else ["ana/"])


def test_an_open_terminal_protects_no_longer_than_max_busy(make_rig: MakeRig) -> None:
    policy = {"name": "shells", "match": {"users": ["*"]}, "protect_terminals": True}
    rig = make_rig(policies=[policy], max_busy=120.0)
    server = rig.run("ana", kernels=["idle"])
    rig.jupyter(server).add_terminal(last_activity=rig.time - 2 * HOUR)
    for _ in range(4):
        rig.poll()
        rig.watch(60)
    assert rig.stops() == ["ana/"]
    assert rig.withheld("busy") == 2


# ---- people -------------------------------------------------------------------------------------


def told(rig: Rig, user: str) -> str:
    """Give what the page inside the Hub says to a user about their server, and its last stop."""
    journal = rig.metrics.journal
    desk = Desk(rig.client, rig.latest, rig.gatekeeper.read, rig.promises, journal)
    (one,) = desk.servers_of(user)
    assert one.withheld is not None
    assert "Prometheus" not in became(one.withheld)
    return one.why


def test_people_see_neither_query_nor_prometheus(ana: Rig, prometheus: FakePrometheus) -> None:
    poll_while_work_begins(ana, prometheus)
    is_used = "the monitoring of this JupyterHub does not say that it is idle."
    assert told(ana, "ana") == f"It is past its limit, and was not stopped: {is_used}"
    ana.poll()
    assert told(ana, "ana") == f"It is past its limit, and is not stopped now: {is_used}"
    prometheus.plan("POST", QUERY, refusing(503, "at /prometheus/data"))
    ana.poll()
    assert told(ana, "ana").endswith(
        "not stopped now: the monitoring of this JupyterHub does not answer."
    )


# ---- the request --------------------------------------------------------------------------------


def client(prometheus: FakePrometheus, token: Path | None = None) -> Prometheus:
    settings = SpareQuerySettings("up", prometheus.origin)
    sent = None if token is None else token_in_file("--prometheus-token-file", token)
    return Prometheus(settings, sent)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_was_changed_is_read_again(
    prometheus: FakePrometheus, tmp_path: Path, status: int
) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    def only_new(request: Request, answer: Callable[[], Reply]) -> Reply:
        is_new = request.headers["authorization"] == "Bearer new"
        return answer() if is_new else faults.reply(status, {"status": "error"})

    prometheus.plan("POST", QUERY, only_new)
    asks = client(prometheus, file)
    with pytest.raises(QueryError, match=f"HTTP {status}"):
        asks.ask("up")
    file.write_text("new")
    assert asks.ask("up") == []
    assert len(prometheus.asked()) == 3


def test_a_compressed_answer_is_not_unpacked(prometheus: FakePrometheus) -> None:
    """A small one could fill the memory."""

    def packed(_request: Request, answer: Callable[[], Reply]) -> Reply:
        return faults.reply(200, gzip.compress(answer().body), Content_Encoding="gzip")

    prometheus.plan("POST", QUERY, packed)
    with pytest.raises(QueryError, match="compressed answer"):
        client(prometheus).ask("up")


def test_each_query_has_a_connection_of_its_own(prometheus: FakePrometheus) -> None:
    """One that is kept until the next poll is often closed just then: a pass would be lost."""
    client(prometheus).ask("up")
    (asked,) = prometheus.log()
    assert asked.headers["connection"] == "close"


@pytest.fixture
def tls(prometheus: FakePrometheus, tmp_path: Path) -> Path:
    """The file of the CA of a Prometheus that speaks TLS."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    prometheus.speak_tls(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def over_tls(prometheus: FakePrometheus, tmp_path: Path, ca_file: Path | None) -> Prometheus:
    (tmp_path / "token").write_text("secret-of-prometheus")
    url = prometheus.origin.replace("http://", "https://")
    settings = SpareQuerySettings("up", url, ca_file=None if ca_file is None else str(ca_file))
    return Prometheus(settings, token_in_file("--prometheus-token-file", tmp_path / "token"))


def test_a_prometheus_whose_certificate_is_not_trusted_gets_no_token(
    prometheus: FakePrometheus, tls: Path, tmp_path: Path
) -> None:
    with pytest.raises(QueryError, match="--ca-file"):
        over_tls(prometheus, tmp_path, None).ask("up")
    assert prometheus.log() == []


def test_a_prometheus_of_the_ca_file_is_trusted(
    prometheus: FakePrometheus, tls: Path, tmp_path: Path
) -> None:
    prometheus.says("ana", 0)
    assert over_tls(prometheus, tmp_path, tls).ask("up") == [({"user": "ana"}, 0.0)]


def test_a_prometheus_without_tls_is_told_so(prometheus: FakePrometheus, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="failed the TLS handshake: is it http://") as error:
        over_tls(prometheus, tmp_path, None).ask("up")
    assert "--ssl-enabled" not in str(error.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True)])
def test_a_token_file_that_everybody_can_read_is_warned_about(
    fake_hub: FakeHub, prometheus: FakePrometheus, tmp_path: Path, mode: int, warned: bool
) -> None:
    file = tmp_path / "token-of-prometheus"
    file.write_text("secret-of-prometheus")
    file.chmod(mode)
    options = [f"--prometheus-url={prometheus.origin}", "--spare-query=up"]
    options += [f"--prometheus-token-file={file}", "--once"]
    done = in_process.run(options, tmp_path, fake_hub.url, fake_hub.token)
    assert ("event=prometheus_token_file_exposed" in done.err + done.out) is warned


def test_the_token_for_prometheus_is_masked_in_the_log(
    fake_hub: FakeHub, prometheus: FakePrometheus, tmp_path: Path
) -> None:
    """Even where a user has it for a name."""
    fake_hub.add_server("secret-of-prometheus", idle=999_999)
    (tmp_path / "token").write_text("secret-of-prometheus")
    options = [f"--prometheus-url={prometheus.origin}", "--spare-query=up", "--once"]
    options += [f"--prometheus-token-file={tmp_path / 'token'}", "--enforce"]
    done = in_process.run(
        [*options, "--busy-check=off", "--grace=0"], tmp_path, fake_hub.url, fake_hub.token
    )
    assert "event=cull_withheld" in done.err + done.out
    assert "secret-of-prometheus" not in done.err + done.out


def test_without_a_token_none_is_sent(prometheus: FakePrometheus) -> None:
    client(prometheus).ask("up")
    (asked,) = prometheus.log()
    assert "authorization" not in asked.headers
    assert "cookie" not in asked.headers


# ---- a single pass ------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "code"), [(None, 0), (refusing(503), 1)])
def test_once_ends_with_1_if_the_query_failed_and_not_if_a_server_is_in_use(
    fake_hub: FakeHub, prometheus: FakePrometheus, tmp_path: Path,
    fault: faults.Fault | None, code: int,
) -> None:  # fmt: skip
    fake_hub.add_server("ana", idle=999_999)
    if fault is not None:
        prometheus.plan("POST", QUERY, fault)
    options = [f"--prometheus-url={prometheus.origin}", "--spare-query=cpu > bool 0.1"]
    options += ["--once", "--enforce", "--busy-check=off", "--grace=0"]
    done = in_process.run(options, tmp_path, fake_hub.url, fake_hub.token)
    assert done.code == code
    assert fake_hub.log("DELETE", "/users/ana/*") == []
    assert len(prometheus.asked()) == 1
