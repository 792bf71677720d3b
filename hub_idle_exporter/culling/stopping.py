"""Send the stop of one server, and watch it until its result is known."""

import threading
import time
from collections.abc import Callable

import structlog

from ..domain.labels import Cause, CullFailure
from ..domain.policy import JudgedServer
from ..domain.settings import CullSettings
from ..domain.stop_result import StopResult, stop_result
from ..hub.client import Hub, UserReading
from ..hub.errors import HubError
from .audit import Audit, fields
from .gatekeeper import Gatekeeper

# A stop that takes longer than this counts as slow; until then the Hub is asked this often.
SLOW_SECONDS = 300.0
_FOLLOW_EVERY = 1.0

_ORPHAN = (
    "its spawner failed to stop it: it still runs, but the Hub no longer knows about it (an "
    "orphan); stop it by hand"
)
_FAILURES = {Cause.TIMEOUT: CullFailure.TIMEOUT, Cause.CONNECTION: CullFailure.CONNECTION}

log = structlog.get_logger()


class FailedError(Exception):
    """A stop that was sent failed, or its result is not known; `str()` says why."""

    def __init__(self, cause: CullFailure, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class Stopper:
    """Stops servers that passed the last check, and verifies that they stopped.

    Args:
        hub: where stops are sent.
        gatekeeper: asked before a named server is removed.
        audit: records attempts and verified stops.
        settings: whether named servers are removed.
        stopping: set when the sidecar shuts down.
        clock: our monotonic clock.
    """

    def __init__(
        self,
        hub: Hub,
        gatekeeper: Gatekeeper,
        audit: Audit,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub, self._gatekeeper, self._audit = hub, gatekeeper, audit
        self._settings, self._stopping, self._clock = settings, stopping, clock

    def stop(self, server: JudgedServer) -> None:
        """Stop a server and verify that it stopped; raise FailedError otherwise."""
        begun = self._clock()
        self._audit.stopping(server)
        error = self._send(server)
        result = self._verify(server, error)
        self._audit.stopped(server, self._clock() - begun)
        if result is StopResult.STOPPED and server.server and self._settings.remove_named_servers:
            self._remove(server)

    def _send(self, server: JudgedServer) -> HubError | None:
        """Send the DELETE; raise if it is refused, return an error if it may have worked anyway."""
        try:
            self._hub.stop(server.user, server.server)
        except HubError as error:
            refused = error.status is not None and error.status < 500
            if refused:
                raise _failure(error) from None
            return error
        return None

    def _verify(self, server: JudgedServer, error: HubError | None) -> StopResult:
        """Watch a stop until the server has stopped; raise FailedError if it does not."""
        deadline = self._clock() + SLOW_SECONDS
        while True:
            problem = FailedError(CullFailure.SLOW, f"still stopping after {SLOW_SECONDS:.0f} s")
            try:
                reading = self._hub.user(server.user, stopped_servers=True)
            except HubError as failed:
                problem = _failure(failed)
            else:
                result = _result_seen(server, reading, error)
                if result is not StopResult.STOPPING:
                    return result
            if self._clock() > deadline:
                raise problem
            if self._stopping.wait(_FOLLOW_EVERY):
                why = "the exporter is shutting down; whether the server stopped is not known"
                raise FailedError(problem.cause, why)

    def _remove(self, server: JudgedServer) -> None:
        """Remove a named server whose stop is verified."""
        problem = self._gatekeeper.closed()
        try:
            if problem is None:
                self._hub.remove(server.user, server.server)
        except HubError as error:
            problem = str(error)
        if problem is None:
            log.info("named_server_removed", **fields(server))
        else:
            log.warning("named_server_not_removed", **fields(server), error=problem)


def _failure(error: HubError) -> FailedError:
    return FailedError(_FAILURES.get(error.cause, CullFailure.HTTP), str(error))


def _result_seen(
    server: JudgedServer, reading: UserReading | None, error: HubError | None
) -> StopResult:
    """Return the result of a stop; raise FailedError if the server still runs, or is hidden.

    `error` is that of a DELETE that may have worked anyway. A hidden server does not prove a stop;
    a user who no longer exists has no server.
    """
    sees = reading is not None and isinstance(reading.user.servers, dict)
    if error is not None and not sees:
        raise _failure(error)
    if reading is not None and not sees:
        why = "the token can no longer see whether it stopped"
        raise FailedError(CullFailure.HTTP, why)
    result = stop_result(server.seen, None if reading is None else reading.server(server.server))
    if result is StopResult.FORGOTTEN:
        raise FailedError(CullFailure.NOT_STOPPED, _ORPHAN)
    if result is StopResult.RUNNING:
        if error is not None:
            raise _failure(error)
        raise FailedError(CullFailure.NOT_STOPPED, "the Hub reported success, but it still runs")
    return result
