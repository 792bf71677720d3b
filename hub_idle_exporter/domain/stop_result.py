"""The result of a stop, from what the Hub says about the server afterwards. Pure.

The Hub's 204 proves nothing: it is sent even when the spawner failed to stop the server, and the
Hub then forgets the server. But a stop that worked sets `last_activity` to now; a failed one does
not.
"""

from enum import Enum, auto

from .model import Server, epoch


class StopResult(Enum):
    """The result of a stop so far."""

    STOPPED = auto()
    REPLACED = auto()  # stopped, and removed or restarted since
    STOPPING = auto()
    RUNNING = auto()
    FORGOTTEN = auto()  # the Hub counts it as stopped, but its spawner failed to stop it


def stop_result(before: Server, after: Server | None) -> StopResult:
    """Compare a server before its stop with what the Hub says about it now (None: nothing)."""
    if after is None:
        return StopResult.REPLACED
    if after.pending == "stop":
        return StopResult.STOPPING
    if after.ready or after.pending:
        return StopResult.RUNNING if after.started == before.started else StopResult.REPLACED
    if after.last_activity is None or epoch(after.last_activity) == epoch(before.last_activity):
        return StopResult.FORGOTTEN
    return StopResult.STOPPED
