"""Which requests to a fake Hub are sent in one turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_hub import FakeHub

from hub_idle_exporter.hub.client import Hub


def watch_turns(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that gets, after each turn, what the Hub was asked for in it."""
    turns, original = list[list[str]](), Hub.in_turn

    @contextmanager
    def watched(client: Hub) -> Iterator[None]:
        with original(client):
            before = len(hub.log())
            yield
            turns.append([f"{one.method} {one.path}" for one in hub.log()[before:]])

    monkeypatch.setattr(Hub, "in_turn", watched)
    return turns
