"""Our own counters, read at one moment for the page."""

from collections.abc import Mapping
from dataclasses import dataclass

Counts = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class Totals:
    """Counts since the start: label values → count."""

    polls: float
    poll_failures: Counts
    culls: Counts  # policy, reason
    withheld: Counts
    cull_failures: Counts
    busy_checks: Counts
    idle_server_seconds: Counts  # policy
    users_deleted: float
    deletions_withheld: Counts
    deletion_failures: Counts
