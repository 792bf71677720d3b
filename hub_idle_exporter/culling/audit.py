"""The audit trail: count and log the outcome of each candidate of a culling pass."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from ..clocks import read_clocks
from ..domain.gate import ClockReading
from ..domain.labels import CullFailure, Outcome, Withheld
from ..domain.policy import JudgedServer, ServerKey
from ..metrics import Metrics

_NOT_VERIFIED = (
    "the exporter ended before it was known whether the server stopped: it may still run, and the "
    "Hub may no longer know about it (an orphan)"
)
_CUT_SHORT = "the exporter ended before the Hub answered; whether the server stopped is not known"

log = structlog.get_logger()


class Audit:
    """Counts and logs the outcomes of candidates; no scrape waits for the log."""

    def __init__(self, metrics: Metrics, clocks: Callable[[], ClockReading] = read_clocks) -> None:
        self._metrics, self._clocks = metrics, clocks
        self._lock = threading.Lock()  # of the next one
        # Stops whose result is not known, and what it would mean if the process ended now.
        self._open: dict[ServerKey, tuple[JudgedServer, str]] = {}

    def begin_pass(
        self, fresh: Iterable[JudgedServer], failed: Iterable[JudgedServer] = ()
    ) -> None:
        """Record that a culling pass begins; `failed` are not tried again yet."""
        with self._metrics.counting:
            self._metrics.journal.begin_pass(self._clocks().wall, fresh, failed)

    def withheld(self, candidate: JudgedServer, cause: Withheld, why: str) -> None:
        """Record that a candidate is not stopped."""
        with self._metrics.counting:
            self._metrics.withheld.labels(cause).inc()
            self._metrics.journal.ended(self._clocks().wall, candidate, cause, why)
        log.info("cull_withheld", **fields(candidate), outcome="withheld", cause=cause, why=why)

    @contextmanager
    def sending(self, server: JudgedServer) -> Iterator[None]:
        """Remember a stop until it is known whether it was sent; nothing is logged before."""
        with self._lock:
            self._open[server.key] = server, _CUT_SHORT
        try:
            yield
        finally:
            with self._lock:
                if self._open.get(server.key) == (server, _CUT_SHORT):
                    del self._open[server.key]

    def cut_short(self) -> None:
        """Record the stops that are being sent, or not verified yet, while the process ends."""
        with self._lock:
            for server, why in self._open.values():
                log.warning("stop_cut_short", **fields(server), why=why)

    def sent(self, server: JudgedServer) -> None:
        """Record that a stop was sent, and did not come too late."""
        with self._metrics.counting:
            self._metrics.attempts.labels(*_labels(server)).inc()
        with self._lock:
            self._open[server.key] = server, _NOT_VERIFIED
        log.info("stopping_server", **fields(server))

    def stopped(self, server: JudgedServer, seconds: float) -> None:
        """Record a stop that was verified, `seconds` after it was sent."""
        with self._metrics.counting:
            self._metrics.cull_duration.observe(seconds)
            self._metrics.culls.labels(*_labels(server)).inc()
            self._metrics.journal.ended(self._clocks().wall, server, Outcome.STOPPED)
        self._is_known(server)
        log.info("culled", **fields(server), outcome="stopped", seconds=seconds)

    def failed(self, server: JudgedServer, cause: CullFailure, why: str) -> None:
        """Record a stop that failed."""
        with self._metrics.counting:
            self._metrics.cull_failures.labels(cause).inc()
            self._metrics.journal.ended(self._clocks().wall, server, Outcome.FAILED, why, cause)
        self._is_known(server)
        log.error("cull_failed", **fields(server), outcome="failed", cause=cause, why=why)

    def _is_known(self, server: JudgedServer) -> None:
        """Take note that the result of a stop is known."""
        with self._lock:
            self._open.pop(server.key, None)


def fields(server: JudgedServer) -> dict[str, Any]:
    """Return the fields of every line of the audit trail; times in seconds."""
    return {
        "user": server.user,
        "server": server.server,
        "policy": server.policy.name,
        "reason": str(server.reason),
        "idle": server.idle,
        "age": server.age,
    }


def _labels(server: JudgedServer) -> tuple[str, str]:
    return server.policy.name, server.reason or ""
