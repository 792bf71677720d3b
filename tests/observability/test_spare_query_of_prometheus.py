"""A real Prometheus as the second opinion: whatever happens to it, nobody is stopped wrongly.

`tests/integration/test_spare_query.py` has the answers that it does not give, with a fake one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import fake_hub as faults
import pytest
import requests
from conftest import tool_or_skip
from culling_rig import HOUR, MakeRig, Rig
from exporter_process import Metrics
from prometheus_process import PrometheusServer, Scraped
from scrape_target import ScrapeTarget
from server_process import wait_until

from hub_idle_exporter.domain.labels import Withheld

pytestmark = pytest.mark.slow("a Prometheus that is killed")

IDLE, AT_WORK = ("ana", "bo", "dan"), "cy"
CROWD = 1000  # further users, the even ones idle
PATIENCE = 0.5  # seconds for a query, where it is not to be answered
BUSY = "last_over_time(busy[5m])"  # what `busy` was, though scrapes are late or fail
Queries = Callable[..., Rig]


@pytest.fixture(scope="module")
def target() -> Iterator[ScrapeTarget]:
    with ScrapeTarget() as exporter:
        for user in IDLE:
            exporter.says(user, 0)
        exporter.says(AT_WORK, 1)
        for number in range(CROWD):
            exporter.says(f"user-{number}", number % 2)
        yield exporter


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, target: ScrapeTarget
) -> Iterator[PrometheusServer]:
    program, folder = tool_or_skip("prometheus"), tmp_path_factory.mktemp("prometheus")
    with PrometheusServer(program, folder, {"target": Scraped(target.address)}) as server:
        knows(server, "busy")
        yield server


def guarded(name: str) -> str:
    """Give the query of a metric that says nothing once its newest sample is older than 3 s."""
    return f"{name} and timestamp({name}) > time() - 3"


def knows(prometheus: PrometheusServer, query: str) -> None:
    """Wait until a query has its series, as scraped from now on."""
    wanted = len(IDLE) + 1 + CROWD
    scraped = f"({query}) and on (user, server) timestamp(busy) > {time.time()}"
    prometheus.wait(lambda: _count(prometheus, scraped) == wanted, 20, f"{query} answered")


def knows_nothing(prometheus: PrometheusServer, query: str) -> None:
    """Wait until a query has no series."""
    prometheus.wait(lambda: _count(prometheus, query) == 0, 20, f"{query} without series")


def _count(prometheus: PrometheusServer, query: str) -> int:
    return len(prometheus.instant(query, time.time()))


@pytest.fixture
def rig_asking(make_rig: MakeRig, prometheus: PrometheusServer) -> Queries:
    """Make a rig with a spare query, over servers that are idle by all that Hub and they say."""

    def make(query: str, **options: object) -> Rig:
        rig = make_rig(prometheus=prometheus.url, spare_query=query, **options)
        for hours, user in enumerate((*IDLE, AT_WORK), 2):
            rig.run(user, idle=hours * HOUR, kernels=["idle"])
        return rig

    return make


def stopped(rig: Rig) -> list[str]:
    return sorted(server.rstrip("/") for server in rig.stops())


def poll_until_stopped(rig: Rig, servers: int) -> None:
    """Poll until so many servers are stopped: a late scrape or answer spares all of a poll."""

    def polled() -> bool:
        rig.poll()
        return len(rig.stops()) >= servers

    wait_until(polled, 20, f"{servers} servers stopped")


# ---- what it answers ----------------------------------------------------------------------------

# No query of these says of anybody that they are idle.
SPARING = {
    "NaN": ("busy * NaN", "in_use"),
    "0 / 0": ("busy / 0 * 0", "in_use"),
    "infinity": ("busy + Inf", "in_use"),
    "a filter, which leaves only who is at work": ("busy > 0.5", "in_use"),
    "no series": ("busy > 5", "in_use"),
    "a misspelt name": ("bussy", "in_use"),
    "a sum, which has no users": ("sum(busy) * 0", "in_use"),
    "another label": ('sum by (pod) (label_replace(busy, "pod", "$1", "user", "(.*)"))', "in_use"),
    "users who do not exist": ('busy{user=~"user-.+"}', "in_use"),
    "servers that do not exist": ('label_replace(busy, "server", "lab", "", "")', "in_use"),
    "a scalar": ('scalar(busy{user="ana"})', "query_failed"),
    "a string": ('"0"', "query_failed"),
    "a matrix": ("busy[1m]", "query_failed"),
    "half a query": ("rate(busy", "query_failed"),
    "a join of many to many": (f"{BUSY} * on (job) {BUSY}", "query_failed"),
    "the same labels twice": (f'label_replace({BUSY}, "user", "ana", "", "")', "query_failed"),
}


@pytest.mark.parametrize("what", SPARING)
def test_a_query_that_says_of_nobody_that_they_are_idle_spares_everybody(
    rig_asking: Queries, what: str
) -> None:
    query, cause = SPARING[what]
    rig = rig_asking(query)
    rig.poll()
    assert stopped(rig) == []
    assert rig.withheld(cause) == len(IDLE) + 1


def test_of_a_thousand_series_each_speaks_for_its_user(rig_asking: Queries) -> None:
    rig = rig_asking(BUSY)
    for number in (0, 1, CROWD - 2, CROWD - 1):
        rig.run(f"user-{number}", kernels=["idle"])
    rig.poll()
    assert stopped(rig) == sorted([*IDLE, "user-0", f"user-{CROWD - 2}"])
    assert rig.withheld("in_use") == 3


# ---- what happens to it, and to its target ------------------------------------------------------


def withheld_by_the_last_pass(rig: Rig, cause: Withheld) -> int:
    assert rig.poller.last_pass is not None
    return rig.poller.last_pass.withheld[cause]


def after_first_stop(rig: Rig, happening: Callable[[], object]) -> None:
    """Let something happen, and the opinion grow old, once the Hub has stopped a server."""

    def happens() -> None:
        happening()
        rig.watch(31)

    rig.hub.plan("DELETE", "/users/*/server", faults.after(happens), times=1)


@contextmanager
def gone(target: ScrapeTarget) -> Iterator[None]:
    """Let nobody answer Prometheus' scrapes."""
    target.hang_up()
    try:
        yield
    finally:
        target.listen()


def test_a_prometheus_that_hangs_in_the_middle_of_a_pass_ends_its_stops(
    rig_asking: Queries, prometheus: PrometheusServer
) -> None:
    rig = rig_asking(BUSY, concurrency=1, query_timeout=PATIENCE)
    after_first_stop(rig, prometheus.pause)
    try:
        poll_until_stopped(rig, 1)
        assert len(rig.stops()) == 1
        assert withheld_by_the_last_pass(rig, Withheld.QUERY_FAILED) == len(IDLE) - 1
    finally:
        prometheus.go_on()
    poll_until_stopped(rig, len(IDLE))
    assert stopped(rig) == sorted(IDLE)


@pytest.mark.parametrize("query", ["busy", guarded("busy_stamped")])
def test_a_target_that_is_gone_spares_all_that_it_measured(
    rig_asking: Queries, prometheus: PrometheusServer, target: ScrapeTarget, query: str
) -> None:
    rig = rig_asking(query)
    knows(prometheus, query)
    with gone(target):
        knows_nothing(prometheus, query)
        assert _count(prometheus, "busy_stamped")  # it answers on for five minutes
        rig.poll()
        assert stopped(rig) == []
        assert rig.withheld("in_use") == len(IDLE) + 1
    poll_until_stopped(rig, len(IDLE))
    assert stopped(rig) == sorted(IDLE)


def test_a_prometheus_killed_in_the_middle_of_a_pass_ends_its_stops(
    rig_asking: Queries, prometheus: PrometheusServer
) -> None:
    rig = rig_asking(BUSY, concurrency=1)
    after_first_stop(rig, prometheus.kill)
    try:
        rig.poll()
        assert len(rig.stops()) == 1
        assert rig.withheld("query_failed") == len(IDLE) - 1
        rig.poll()
        assert len(rig.stops()) == 1
    finally:
        prometheus.restart()
    rig.poll()
    assert stopped(rig) == sorted(IDLE)


def test_a_target_that_is_gone_when_prometheus_starts_again_spares_all_that_it_measured(
    rig_asking: Queries, prometheus: PrometheusServer, target: ScrapeTarget
) -> None:
    """A Prometheus does not notice either that series of before have ended: the guard does."""
    rig = rig_asking(guarded("busy"))
    prometheus.wait(lambda: _count(prometheus, "busy"), 20, "busy answered")
    prometheus.kill()
    with gone(target):
        prometheus.restart()
        assert _count(prometheus, "busy")
        knows_nothing(prometheus, guarded("busy"))
        rig.poll()
        assert stopped(rig) == []
        assert rig.withheld("in_use") == len(IDLE) + 1
    poll_until_stopped(rig, len(IDLE))
    assert stopped(rig) == sorted(IDLE)


# ---- what it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("servers", "seconds"), [(20, 30), (200, 3)])
def test_a_pass_of_ten_minutes_costs_a_request_each_30_seconds(
    rig_asking: Queries, prometheus: PrometheusServer, servers: int, seconds: int
) -> None:
    """As Prometheus itself counts them, however many servers are stopped in that time."""
    rig = rig_asking(f"{BUSY} * 0", concurrency=1)
    for number in range(servers):
        rig.run(f"user-{number}", kernels=["idle"])
    rig.hub.plan("DELETE", "/users/*/server", faults.after(lambda: rig.watch(seconds)))
    begun, before = rig.time, queries(prometheus)
    rig.poll(within=60)
    assert len(rig.stops()) == servers + len(IDLE) + 1
    minutes = (rig.time - begun) / 60
    assert minutes >= 10
    assert 1 < queries(prometheus) - before <= 1 + 2 * minutes


def queries(prometheus: PrometheusServer) -> float:
    text = requests.get(f"{prometheus.url}/metrics", timeout=20).text
    handled = Metrics(text).value("prometheus_http_requests_total", handler="/api/v1/query")
    assert handled is not None
    return handled
