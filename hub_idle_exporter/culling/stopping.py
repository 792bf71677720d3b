"""Send the stop of one server, and find out what became of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..clocks import steady
from ..domain.labels import Cause, CullFailure, Withheld
from ..domain.model import Server
from ..domain.policy import JudgedServer
from ..domain.stop_result import Address, StopResult, stop_result
from ..hub.client import Hub, UserReading
from ..hub.errors import HubError
from ..people.keeper import Keeper
from .audit import Audit
from .clearance import Cleared, WithheldError
from .lease import Election

# A stop that takes longer than this counts as slow.
SLOW_SECONDS = 300.0
# A process may need a moment to end after the Hub has forgotten it: then it is no orphan.
_ORPHAN_SECONDS = 5.0
# What takes connections but does not answer is asked again for so long: it may wait for the Hub.
_SILENT_SECONDS = 5.0
# A stop that the Hub took before its token expired is seen by then, by the Hub's clock.
_TAKEN_SECONDS = 5.0

_ORPHAN = (
    "its spawner failed to stop it: it still runs, but the Hub no longer knows about it (an "
    "orphan); stop it by hand"
)
_FORGOTTEN = (
    "its spawner reported that the stop failed, and the Hub no longer knows about the server: look "
    "for it, and stop it by hand if it still runs"
)
_UNPROVEN = "it was removed or started again right after, so nothing shows whether the stop worked"
_SHUTDOWN = "the exporter is shutting down; whether the server stopped is not known"
_FAILURES = {Cause.TIMEOUT: CullFailure.TIMEOUT, Cause.CONNECTION: CullFailure.CONNECTION}
_SENTENCES = {
    StopResult.ORPHAN: _ORPHAN,
    StopResult.FORGOTTEN: _FORGOTTEN,
    StopResult.UNPROVEN: _UNPROVEN,
    StopResult.RUNNING: "the Hub reported success, but it still runs",
}


class FailedError(Exception):
    """A stop that was sent failed, or its result is not known; `str()` says why."""

    def __init__(self, cause: CullFailure, why: str) -> None:
        super().__init__(why)
        self.cause = cause


@dataclass
class Sent:
    """A stop that the Hub may have carried out.

    `begun` is our clock when it was sent. `error` is that of a DELETE that may have worked anyway,
    `record` what the Hub says about the server once it has stopped.
    """

    cleared: Cleared
    begun: float
    error: HubError | None
    orphan_since: float | None = None
    silent_since: float | None = None
    record: Server | None = None

    @property
    def server(self) -> JudgedServer:
        """Return the server as it was right before its stop."""
        return self.cleared.server


class Stopper:
    """Stops servers that passed the last check, and verifies that they stopped.

    Args:
        hub: where stops are sent.
        election: knows whether this exporter may stop servers.
        keeper: knows what people keep, up to the moment of the stop.
        audit: records attempts.
        stopping: set when the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        election: Election,
        keeper: Keeper,
        audit: Audit,
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._election, self._audit = hub, election, audit
        self._keeper = keeper
        self._stopping, self._clock = stopping, clock

    def send(self, cleared: Cleared) -> Sent | None:
        """Send the stop; None if it is too late, because too much time has passed since the look.

        Nothing comes between the last check and the DELETE: a log may be blocked. Raises
        FailedError if the Hub refuses the stop, WithheldError if the server is kept, or another
        exporter may stop servers.
        """
        with self._audit.sending(cleared.server):
            return self._send(cleared)

    def _send(self, cleared: Cleared) -> Sent | None:
        server, begun = cleared.server, self._clock()
        if begun >= cleared.good_until:
            return None
        kept = self._keeper.begin_stop(server, cleared.sent)
        if kept is not None:
            raise WithheldError(Withheld.KEPT, kept)
        if not self._election.begin_stop(cleared.expires):
            raise WithheldError(Withheld.GATE, "this exporter's lease ends before the stop would")
        error = None
        try:
            self._hub.stop(server.user, server.server, cleared.token)
        except HubError as failed:
            error = failed
        finally:
            self._election.end_stop(answered=error is None or _is_refusal(error))
        if error is not None and cleared.token is not None and error.status in (401, 403):
            return None
        self._audit.sent(server)
        if error is not None and _is_refusal(error):
            raise _failure(error)
        return Sent(cleared, begun, error)

    def check(self, sent: Sent) -> bool:
        """Tell whether the server has stopped by now; raise FailedError once it will not."""
        problem = FailedError(CullFailure.SLOW, f"still stopping after {SLOW_SECONDS:.0f} s")
        if sent.error is not None:
            problem = _failure(sent.error)
        try:
            result = self._result(sent)
        except HubError as failed:
            result, problem = StopResult.UNDECIDED, _failure(failed)
        if result is StopResult.STOPPED:
            return True
        if result is not StopResult.UNDECIDED:
            raise problem if sent.error else _not_stopped(result)
        if self._clock() - sent.begun > SLOW_SECONDS:
            raise problem
        if self._stopping.is_set():
            raise FailedError(problem.cause, _SHUTDOWN)
        return False

    def _result(self, sent: Sent) -> StopResult:
        """Ask the Hub, and the server's old address, what became of it."""
        server = sent.server
        reading = self._hub.user(server.user, stopped_servers=True)
        if reading is not None and not isinstance(reading.user.servers, dict):
            raise HubError(Cause.SCOPE, "the token can no longer see whether it stopped")
        sent.record = None if reading is None else reading.server(server.server)
        before, record = server.seen, sent.record
        result = stop_result(before, sent.cleared.sent, record, Address.UNKNOWN)
        if result in (StopResult.UNDECIDED, StopResult.RUNNING):
            return self._while_it_runs(sent, reading, result)
        result = stop_result(before, sent.cleared.sent, record, self._address(sent))
        return self._unless_it_ends(sent, result)

    def _address(self, sent: Sent) -> Address:
        """Ask the server's old address; what it once said is not undone by silence."""
        interview = sent.cleared.case.interview
        address = Address.UNKNOWN if interview is None else interview.address()
        if address is Address.SILENT:
            sent.silent_since = sent.silent_since or self._clock()
            if self._clock() - sent.silent_since > _SILENT_SECONDS:
                address = Address.UNKNOWN
        if address in (Address.SILENT, Address.UNKNOWN) and sent.orphan_since is not None:
            return Address.SAME
        return address

    def _while_it_runs(
        self, sent: Sent, reading: UserReading | None, result: StopResult
    ) -> StopResult:
        """Wait on for a stop whose answer was lost: the Hub may not have taken it yet."""
        if result is StopResult.UNDECIDED or sent.error is None:
            return result
        if sent.cleared.token is None or reading is None:
            return StopResult.UNDECIDED
        taken_by = sent.cleared.expires + _TAKEN_SECONDS
        return result if reading.now > taken_by else StopResult.UNDECIDED

    def _unless_it_ends(self, sent: Sent, result: StopResult) -> StopResult:
        """Give a process that still answers a moment to end."""
        if result is not StopResult.ORPHAN:
            return result
        sent.orphan_since = sent.orphan_since or self._clock()
        waited = self._clock() - sent.orphan_since > _ORPHAN_SECONDS
        return result if waited else StopResult.UNDECIDED


def _is_refusal(error: HubError) -> bool:
    """Tell whether a stop was certainly not carried out; a proxy sends 408 when it gives up."""
    return error.status is not None and error.status < 500 and error.status != 408


def _not_stopped(result: StopResult) -> FailedError:
    return FailedError(CullFailure.NOT_STOPPED, _SENTENCES[result])


def _failure(error: HubError) -> FailedError:
    return FailedError(_FAILURES.get(error.cause, CullFailure.HTTP), str(error))
