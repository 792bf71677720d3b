"""What became of a server that the Hub was asked to stop. Pure.

The Hub's 204 proves nothing: a stop that its spawner failed is answered so too, and the Hub
forgets the server. But a stop that worked moves `last_activity` to now, and a failed one does not.
"""

from enum import Enum, auto

from .model import Server, epoch


class StopResult(Enum):
    """Where a stop stands."""

    STOPPED = auto()
    REPLACED = auto()  # stopped, and gone from the records or started anew since
    STOPPING = auto()
    RUNNING = auto()
    FORGOTTEN = auto()  # the Hub counts it as stopped, but its spawner failed to stop it


def stop_result(before: Server, after: Server | None) -> StopResult:
    """Compare a server right before its stop with what the Hub says of it now (None: nothing)."""
    if after is None:
        return StopResult.REPLACED
    if after.pending == "stop":
        return StopResult.STOPPING
    if after.ready or after.pending:
        return StopResult.RUNNING if after.started == before.started else StopResult.REPLACED
    if after.last_activity is None or epoch(after.last_activity) == epoch(before.last_activity):
        return StopResult.FORGOTTEN
    return StopResult.STOPPED
