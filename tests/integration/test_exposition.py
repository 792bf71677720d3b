"""`/metrics` as it is served: what is kept rendered says the same as what is rendered anew."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from hub_idle_exporter.domain.census import judge_all, take
from hub_idle_exporter.domain.gate import GateState
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Judge, Policy, Rules
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.metrics import Metrics, Snapshot, exposition

RULES = Rules((Policy("default", 3600.0),))
TEXT = "text/plain;version=0.0.4"
OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
NEW_TEXT = "text/plain;version=1.0.0;escaping=allow-utf-8"


def snapshot(servers: int) -> Snapshot:
    users = [User(f"ü{n}", servers={"": Server(ready=True)}) for n in range(servers)]
    judged = judge_all(Judge(RULES, Granted()), users, 0.0)
    return Snapshot("6.1.1", take(judged, RULES), tuple(judged))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), lambda: GateState.OFF, RULES.policies)


@pytest.mark.parametrize(
    "accept", ["", TEXT, OPEN, NEW_TEXT, "application/openmetrics-text;version=x"]
)
def test_it_is_what_the_registry_says(metrics: Metrics, accept: str) -> None:
    for seen in (None, snapshot(3), snapshot(5), None, snapshot(2)):
        metrics.facts.snapshot = seen
        for _ in range(2):
            assert metrics.exposition(accept) == exposition(metrics.registry, accept)


def test_own_doings_are_always_those_of_now(metrics: Metrics) -> None:
    metrics.facts.snapshot = snapshot(1)
    for polls in (1, 2):
        metrics.polls.inc()
        assert f"polls_total {polls}.0\n".encode() in metrics.exposition(OPEN)[1]


def test_facts_are_rendered_once_for_each_snapshot_and_format(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = _count_renderings(metrics, monkeypatch)
    metrics.facts.snapshot = snapshot(1)
    for accept in (OPEN, TEXT, OPEN, TEXT):
        metrics.exposition(accept)
    assert rendered() == 2
    metrics.facts.snapshot = snapshot(2)
    assert rendered() == 4  # before it is swapped in
    metrics.exposition(OPEN)
    assert rendered() == 4
    metrics.facts.snapshot = snapshot(3)
    assert rendered() == 5  # the one format that was asked for last time
    metrics.exposition(TEXT)
    assert rendered() == 6


def test_formats_that_clients_make_up_are_not_kept(metrics: Metrics) -> None:
    metrics.facts.snapshot = snapshot(1)
    for number in range(50):
        accept = f"application/openmetrics-text;version=1.0.{number}"
        assert metrics.exposition(accept) == exposition(metrics.registry, accept)
    kept = metrics.facts._facts.asked
    assert len(kept) == 2


def _count_renderings(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count how often facts are turned into text."""
    count = 0
    facts = type(metrics.facts._facts)
    collect = facts.collect

    def counted(self: object) -> object:
        nonlocal count
        count += 1
        return collect(self)  # type: ignore[arg-type]

    monkeypatch.setattr(facts, "collect", counted)
    return lambda: count
