"""The scheduler knows only *when*; the clock is moved, nobody sleeps."""

import datetime as dt
import threading
from types import SimpleNamespace

import pytest

from hub_idle_exporter.scheduler import Scheduler


class Clock(threading.Event):
    """A stop event whose waiting moves the clock that `schedule` goes by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: float) -> None:
        super().__init__()
        self.now = self.start = dt.datetime(2026, 11, 22, 12, 0)  # noqa: DTZ001 - as schedule has it
        self.end = self.start + dt.timedelta(seconds=until)
        self.pauses: list[float] = []
        clock = self

        class Moved(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> "Moved":
                return clock.now  # type: ignore[return-value]

        monkeypatch.setattr("schedule.datetime", SimpleNamespace(**vars(dt) | {"datetime": Moved}))

    @property
    def seconds(self) -> float:
        return (self.now - self.start).total_seconds()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert timeout >= 0
        self.pauses.append(timeout)
        self.now += dt.timedelta(seconds=timeout)
        return self.is_set() or self.now > self.end


def test_every_job_runs_at_once_and_then_at_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, until=59)
    ran: list[tuple[str, float]] = []
    scheduler = Scheduler(clock)
    scheduler.every(30, lambda: ran.append(("poll", clock.seconds)))
    scheduler.every(20, lambda: ran.append(("heartbeat", clock.seconds)))
    scheduler.run()
    assert ran == [
        ("poll", 0), ("heartbeat", 0), ("heartbeat", 20), ("poll", 30), ("heartbeat", 40),
    ]  # fmt: skip


def test_a_job_that_takes_long_runs_once_and_not_to_catch_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch, until=400)
    begun: list[float] = []

    def poll() -> None:
        begun.append(clock.seconds)
        clock.now += dt.timedelta(seconds=100)

    scheduler = Scheduler(clock)
    scheduler.every(30, poll)
    scheduler.run()
    assert begun == [0, 130, 260, 390]


def test_nothing_runs_once_it_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, until=1000)
    ran: list[str] = []
    scheduler = Scheduler(clock)
    scheduler.every(30, clock.set)
    scheduler.every(30, lambda: ran.append("heartbeat"))
    scheduler.run()
    assert ran == []


def test_a_stop_while_waiting_ends_it_at_once() -> None:
    stopping = threading.Event()
    started = threading.Event()
    scheduler = Scheduler(stopping)
    scheduler.every(3600, started.set)
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    assert started.wait(10)
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_job_that_raises_is_a_bug_and_ends_it() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    scheduler = Scheduler(threading.Event())
    scheduler.every(1, bug)
    with pytest.raises(ZeroDivisionError):
        scheduler.run()


@pytest.mark.parametrize("hours", [-24, -1, 24])
def test_a_clock_that_is_moved_stops_no_polls(
    monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    """`schedule` goes by the wall clock: set back a day, it would not poll for a day."""
    clock = Clock(monkeypatch, until=10**6)
    ran: list[None] = []

    def poll() -> None:
        ran.append(None)
        if len(ran) == 3:
            clock.now += dt.timedelta(hours=hours)
        if len(ran) == 10:
            clock.set()

    scheduler = Scheduler(clock)
    scheduler.every(30, poll)
    scheduler.run()
    assert len(ran) == 10
    assert sum(clock.pauses) <= 10 * 31
