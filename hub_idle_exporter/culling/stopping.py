"""Sends the stop of one server, and follows it until it is known what became of it."""

import threading
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

# How long a stop is followed before it is given up as slow, and how often the Hub is asked.
SLOW_SECONDS = 300.0
_FOLLOW_EVERY = 1.0

_FAILURES = {Cause.TIMEOUT: CullFailure.TIMEOUT, Cause.CONNECTION: CullFailure.CONNECTION}

log = structlog.get_logger()


class FailedError(Exception):
    """A stop that was sent did not work, or is not known to have; `str()` says why."""

    def __init__(self, cause: CullFailure, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class Stopper:
    """Stops servers that are cleared, and verifies that they stopped.

    Args:
        hub: where stops are sent.
        gatekeeper: asked before a record is removed.
        audit: told of attempts and of verified stops.
        settings: whether records of named servers are removed.
        stopping: set when the sidecar is told to end.
        clock: our monotonic clock.
    """

    def __init__(
        self,
        hub: Hub,
        gatekeeper: Gatekeeper,
        audit: Audit,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._hub, self._gatekeeper, self._audit = hub, gatekeeper, audit
        self._settings, self._stopping, self._clock = settings, stopping, clock

    def stop(self, server: JudgedServer) -> None:
        """Stop a server and see that it happened; raise FailedError otherwise."""
        begun = self._clock()
        self._audit.stopping(server)
        error = self._send(server)
        result = self._verify(server, error)
        self._audit.stopped(server, self._clock() - begun)
        if result is StopResult.STOPPED and server.server and self._settings.remove_named_servers:
            self._remove(server)

    def _send(self, server: JudgedServer) -> HubError | None:
        """Send the DELETE; give the error of one that may have worked, raise for a refused one."""
        try:
            self._hub.stop(server.user, server.server)
        except HubError as error:
            refused = error.status is not None and error.status < 500
            if refused:
                raise _failure(error) from None
            return error
        return None

    def _verify(self, server: JudgedServer, error: HubError | None) -> StopResult:
        """Follow a stop to its end: the server stopped, or FailedError says what went wrong."""
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
                why = "told to end before it was known whether the server stopped"
                raise FailedError(problem.cause, why)

    def _remove(self, server: JudgedServer) -> None:
        """Remove the record of a named server that was seen stopped."""
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
    """Tell what became of a stop; raise FailedError where the server lives on, or is not seen.

    `error` is that of a DELETE that may have worked all the same. What is not seen is no evidence
    of a stop; a user who is gone has no server.
    """
    sees = reading is not None and isinstance(reading.user.servers, dict)
    if error is not None and not sees:
        raise _failure(error)
    if reading is not None and not sees:
        why = "the token does not see any more whether it stopped"
        raise FailedError(CullFailure.HTTP, why)
    result = stop_result(server.seen, None if reading is None else reading.server(server.server))
    if result is StopResult.FORGOTTEN:
        raise FailedError(CullFailure.NOT_STOPPED, "its spawner failed to stop it")
    if result is StopResult.RUNNING:
        if error is not None:
            raise _failure(error)
        raise FailedError(CullFailure.NOT_STOPPED, "the Hub said yes, but it runs on")
    return result
