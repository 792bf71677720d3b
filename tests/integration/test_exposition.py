"""`/metrics` as it is served: what is kept rendered says the same as what is rendered anew."""

import gzip
import re
from collections.abc import Callable

import poll_states
import pytest
from poll_states import RULES
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from hub_idle_exporter.domain.census import census_of, judge_all
from hub_idle_exporter.domain.gate import GateReading, GateState
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Judge
from hub_idle_exporter.domain.poll_state import LatestState, Snapshot
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.domain.settings import PollSettings
from hub_idle_exporter.exposition import FactsText, Text
from hub_idle_exporter.metrics import Metrics

TEXT = "text/plain;version=0.0.4"
OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
OPEN_1 = "application/openmetrics-text;version=1.0.0"
NEW_TEXT = "text/plain;version=1.0.0;escaping=allow-utf-8"


def snapshot(servers: int) -> Snapshot:
    users = [User(f"ü{n}", servers={"": Server(ready=True)}) for n in range(servers)]
    judged = judge_all(Judge(RULES, Granted()), users, 0.0)
    return Snapshot(0.0, census_of(judged, RULES, keep_all=True))


@pytest.fixture
def metrics() -> Metrics:
    latest = LatestState(poll_states.at_start())
    settings = PollSettings(RULES.policies[0], per_server_metrics=True)
    return Metrics(
        CollectorRegistry(), latest, lambda _state: GateReading(GateState.OFF, ""), settings
    )


def show(metrics: Metrics, servers: int | None) -> None:
    """Let a poll end that saw so many servers, or failed."""
    if servers is None:
        metrics.latest.state = poll_states.failed()
    else:
        metrics.latest.state = poll_states.good(snapshot=snapshot(servers))


def rendered_anew(metrics: Metrics, accept: str) -> tuple[str, bytes]:
    encode, content_type = choose_encoder(accept)
    return content_type, without_process(encode(metrics.registry))


def without_process(body: bytes) -> bytes:
    """Leave out what differs from one moment to the next."""
    return re.sub(rb"(?m)^(# \w+ )?(U__)?process_.*\n", b"", body)


@pytest.mark.parametrize("accept", ["", TEXT, OPEN, NEW_TEXT])
@pytest.mark.parametrize("compressed", [False, True])
def test_it_is_what_the_registry_says(metrics: Metrics, accept: str, compressed: bool) -> None:
    for servers in (None, 3, 5, None, 2):
        show(metrics, servers)
        for _ in range(2):
            exposed = metrics.exposition(accept, compressed)
            body = gzip.decompress(exposed.body) if compressed else exposed.body
            assert (exposed.content_type, without_process(body)) == rendered_anew(metrics, accept)
            assert exposed.encoding == ("gzip" if compressed else "")


def test_a_version_that_is_none_gets_text(metrics: Metrics) -> None:
    odd = metrics.exposition("application/openmetrics-text;version=x")
    assert without_process(odd.body) == without_process(metrics.exposition("").body)
    assert odd.content_type == metrics.exposition("").content_type


@pytest.mark.parametrize("compressed", [False, True])
def test_own_doings_are_always_those_of_now(metrics: Metrics, compressed: bool) -> None:
    show(metrics, 1)
    for polls in (1, 2):
        metrics.polls.inc()
        body = metrics.exposition(OPEN, compressed).body
        text = gzip.decompress(body) if compressed else body
        assert f"polls_total {polls}.0\n".encode() in text


def test_facts_are_rendered_once_for_each_poll_and_format(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = count_renderings(monkeypatch)
    show(metrics, 1)
    for accept in (OPEN, TEXT, OPEN, TEXT):
        metrics.exposition(accept)
        metrics.exposition(accept, gzip=True)
    assert rendered() == 2
    metrics.render_ahead(metrics.latest.state)
    assert rendered() == 4  # both that were asked for


def test_what_was_scraped_is_rendered_before_the_next_poll_is_swapped_in(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(metrics, 1)
    metrics.exposition(OPEN)
    rendered = count_renderings(monkeypatch)
    for servers in (2, 3):
        state = poll_states.good(snapshot=snapshot(servers))
        metrics.render_ahead(state)
        assert rendered() == servers - 1
        metrics.latest.state = state
        metrics.exposition(OPEN)
        assert rendered() == servers - 1
    metrics.exposition(TEXT)
    assert rendered() == 3


@pytest.mark.parametrize(
    "version", ["0.0.1", "1.0.1", "2.0.0", "9999999999", "1.0.0.0", "3.x.version=1.0.0"]
)
def test_a_version_that_does_not_exist_gets_plain_text(metrics: Metrics, version: str) -> None:
    show(metrics, 1)
    exposed = metrics.exposition(f"application/openmetrics-text;version={version}")
    assert (exposed.content_type, without_process(exposed.body)) == rendered_anew(metrics, "")


def test_only_two_formats_are_kept(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    show(metrics, 1)
    formats = [f"{OPEN_1};escaping={name}" for name in ("underscores", "dots", "values")]
    for accept in formats:
        exposed = metrics.exposition(accept)
        assert (exposed.content_type, without_process(exposed.body)) == rendered_anew(
            metrics, accept
        )
    rendered = count_renderings(monkeypatch)
    for accept in formats[:2]:
        metrics.exposition(accept)
    assert rendered() == 0
    metrics.exposition(formats[2])
    assert rendered() == 1


def count_renderings(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count how often facts are turned into text."""
    count = 0
    render = FactsText._render

    def counted(self: FactsText, content_type: str) -> Text:
        nonlocal count
        count += 1
        return render(self, content_type)

    monkeypatch.setattr(FactsText, "_render", counted)
    return lambda: count
