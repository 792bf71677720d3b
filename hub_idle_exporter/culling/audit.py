"""The audit trail: count and log the outcome of each candidate of a culling pass."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from ..domain.labels import CullFailure, Withheld
from ..domain.policy import JudgedServer
from ..metrics import Metrics

_CUT_SHORT = "the exporter ended before the Hub answered; whether the server stopped is not known"

log = structlog.get_logger()


class Audit:
    """Counts and logs the outcomes of candidates; no scrape waits for the log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()  # of the next one
        self._sending: list[JudgedServer] = []

    def withheld(self, candidate: JudgedServer, cause: Withheld, why: str) -> None:
        """Record that a candidate is not stopped."""
        self._metrics.withheld.labels(cause).inc()
        log.info("cull_withheld", **fields(candidate), outcome="withheld", cause=cause, why=why)

    @contextmanager
    def sending(self, server: JudgedServer) -> Iterator[None]:
        """Remember a stop until it is known whether it was sent; nothing is logged before."""
        with self._lock:
            self._sending.append(server)
        try:
            yield
        finally:
            with self._lock:
                self._sending.remove(server)

    def cut_short(self) -> None:
        """Record the stops that are being sent while the process ends."""
        with self._lock:
            for server in self._sending:
                log.warning("stop_cut_short", **fields(server), why=_CUT_SHORT)

    def sent(self, server: JudgedServer) -> None:
        """Record that a stop was sent, and did not come too late."""
        with self._metrics.counting:
            self._metrics.attempts.labels(*_labels(server)).inc()
        log.info("stopping_server", **fields(server))

    def stopped(self, server: JudgedServer, seconds: float) -> None:
        """Record a stop that was verified, `seconds` after it was sent."""
        with self._metrics.counting:
            self._metrics.cull_duration.observe(seconds)
            self._metrics.culls.labels(*_labels(server)).inc()
        log.info("culled", **fields(server), outcome="stopped", seconds=seconds)

    def failed(self, server: JudgedServer, cause: CullFailure, why: str) -> None:
        """Record a stop that failed."""
        self._metrics.cull_failures.labels(cause).inc()
        log.error("cull_failed", **fields(server), outcome="failed", cause=cause, why=why)


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
