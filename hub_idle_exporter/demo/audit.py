"""What the sidecar reports: its audit log, its counters, its verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

_KINDS = {"culled": "stopped", "cull_withheld": "withheld", "cull_failed": "failed"}
_COUNTERS = {
    "hub_idle_exporter_culls_total": ("stopped", "reason"),
    "hub_idle_exporter_culls_withheld_total": ("withheld", "cause"),
    "hub_idle_exporter_cull_failures_total": ("failed", "cause"),
}
# Outcome of candidates and its cause → how often.
Counts = Counter[tuple[str, str]]


@dataclass(frozen=True)
class Audited:
    """One line of the audit trail: the outcome of one candidate."""

    kind: str  # "stopped", "withheld" or "failed"
    cause: str  # the reason of a stop (idle, max_age); otherwise the cause, as on /metrics
    user: str
    server: str
    policy: str
    idle: float  # seconds, 0 if unknown, like age
    age: float
    why: str  # a sentence; empty for a stop


@dataclass(frozen=True)
class Verdict:
    """The sidecar's verdict on a server now, as `servers` shows it."""

    policy: str
    idle: float
    why: str


class AuditLog:
    """Reads the sidecar's JSON log as it grows, and counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self.counts: Counts = Counter()

    def read(self) -> Iterator[Audited]:
        """Yield what was audited since the last call; complete lines only."""
        for line in self._new_lines():
            event = _decoded(line)
            if event.get("event") in _KINDS:
                audited = _audited(event)
                self.counts[audited.kind, audited.cause] += 1
                yield audited

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        text = self._path.read_text(errors="replace") if self._path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _new_lines(self) -> list[bytes]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as log:
            log.seek(self._position)
            complete, newline, _rest = log.read().rpartition(b"\n")
        self._position += len(complete) + len(newline)
        return complete.splitlines()


def _decoded(line: bytes) -> dict[str, Any]:
    """Decode an event; any other line, such as one of a traceback, gives an empty one."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _audited(event: Mapping[str, Any]) -> Audited:
    return Audited(
        kind=_KINDS[event["event"]],
        cause=event.get("cause", event["reason"]),
        user=event["user"],
        server=event["server"],
        policy=event["policy"],
        idle=event["idle"] or 0.0,
        age=event["age"] or 0.0,
        why=event.get("why", ""),
    )


def counters(metrics_url: str) -> Counts:
    """Read the same counts from the sidecar's metrics; raise requests' errors."""
    with requests.Session() as session:
        session.trust_env = False
        text = session.get(metrics_url, timeout=10).text
    found: Counts = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _COUNTERS and sample.value:
                kind, label = _COUNTERS[sample.name]
                found[kind, sample.labels[label]] += int(sample.value)
    return found


def verdicts(
    options: Sequence[str], environment: Mapping[str, str]
) -> dict[tuple[str, str], Verdict]:
    """Run the command `servers` and return its verdicts by user and server.

    Raises:
        subprocess.SubprocessError: it failed.
    """
    command = [sys.executable, "-m", "hub_idle_exporter", "servers", "--json", *options]
    done = subprocess.run(
        command, env=environment, capture_output=True, check=True, timeout=30, text=True
    )
    return {
        (row["user"], row["server"]): Verdict(row["policy"], row["idle"] or 0.0, row["why"])
        for row in json.loads(done.stdout)
    }
