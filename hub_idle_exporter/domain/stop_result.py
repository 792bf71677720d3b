"""The result of a stop, from what the Hub and the server's old address say afterwards. Pure.

The Hub's 204 proves nothing: it is sent even when the spawner failed to stop the server, and the
Hub then forgets the server. A good and a failed stop look alike in the Hub's record, but for
`last_activity`, which only a stop that worked sets to now. A process that lives on also still
answers at its address, and says that it started when it did.
"""

from enum import Enum, auto

from .model import Server, epoch


class StopResult(Enum):
    """The result of a stop so far."""

    STOPPED = auto()
    UNDECIDED = auto()  # still stopping, or the Hub has not found out yet
    RUNNING = auto()
    ORPHAN = auto()  # the Hub counts it as stopped, but it still answers
    FORGOTTEN = auto()  # the Hub counts it as stopped, but its spawner failed to stop it
    UNPROVEN = auto()  # it was removed or started again since, so nothing tells


class Address(Enum):
    """What answers at the address that a server had before its stop."""

    SAME = auto()  # a server that started at the same time: it is the same
    GONE = auto()  # nothing, or another server
    SILENT = auto()  # something takes connections, but its answer tells nothing, or does not come
    UNKNOWN = auto()  # it could not be asked, before or after


def stop_result(before: Server, sent: float, after: Server | None, address: Address) -> StopResult:
    """Decide on the result of a stop.

    Args:
        before: the server before its stop.
        sent: the Hub's clock right before the stop was sent, in seconds since 1970.
        after: what the Hub says about the server now; None if it knows no such server.
        address: what answers at its old address now.
    """
    if after is not None and (after.ready or after.pending):
        if after.pending in ("stop", "check"):  # check: the Hub was restarted meanwhile
            return StopResult.UNDECIDED
        if after.started == before.started:
            return StopResult.RUNNING
    if address is Address.SAME:
        return StopResult.ORPHAN
    if address is Address.SILENT:
        return StopResult.UNDECIDED
    if address is Address.GONE:
        return StopResult.STOPPED
    if after is None or after.ready or after.pending:
        return StopResult.UNPROVEN
    return StopResult.STOPPED if _set_by_a_stop(before, sent, after) else StopResult.FORGOTTEN


def _set_by_a_stop(before: Server, sent: float, after: Server) -> bool:
    """Tell whether a stop that worked has set `last_activity`.

    If it lay in the future before the stop (the server's clock is ahead), it must have changed.
    """
    last_activity = epoch(after.last_activity)
    if last_activity is None or last_activity == epoch(before.last_activity):
        return False
    return last_activity >= sent
