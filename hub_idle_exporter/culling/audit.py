"""The audit trail: count and log the outcome of each candidate of a culling pass."""

from typing import Any

import structlog

from ..domain.labels import CullFailure, Withheld
from ..domain.policy import JudgedServer
from ..metrics import Metrics

log = structlog.get_logger()


class Audit:
    """Counts and logs the outcomes of candidates; no scrape waits for the log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def withheld(self, candidate: JudgedServer, cause: Withheld, why: str) -> None:
        """Record that a candidate is not stopped."""
        self._metrics.withheld.labels(cause).inc()
        log.info("cull_withheld", **fields(candidate), outcome="withheld", cause=cause, why=why)

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
