"""Remove the records of named servers, minutes after their stop (`--remove-named-servers`).

Not right after it: the user may just have started the server again, and a removal stops that too,
and may delete its volume.
"""

from collections.abc import Callable
from functools import partial

import structlog

from ..clocks import steady
from ..domain.labels import Cause
from ..domain.model import Server
from ..domain.policy import JudgedServer
from ..domain.poll_state import LatestState
from ..hub.client import Hub
from ..hub.errors import HubError
from .audit import fields
from .gatekeeper import Gatekeeper
from .later import Later
from .permits import LOOK_SECONDS, Permits

REMOVE_AFTER_SECONDS = 120.0
_TRY_AGAIN_SECONDS = 60.0

log = structlog.get_logger()


class Remover:
    """Removes named servers whose stop was verified, unless they have been used since.

    Args:
        hub: where they are removed.
        permits: mints the tokens for it, which bound how old the last look may be.
        gatekeeper: asked first.
        latest: judges by the newest poll state.
        later: runs the removals when they are due.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        permits: Permits,
        gatekeeper: Gatekeeper,
        latest: LatestState,
        later: Later,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._permits, self._clock = hub, permits, clock
        self._gatekeeper, self._latest, self._later = gatekeeper, latest, later

    def plan(self, server: JudgedServer, record: Server) -> None:
        """Remove a server later, if its record is then still the same as right after its stop."""
        self._later.call(REMOVE_AFTER_SECONDS, partial(self._remove, server, record))

    def _remove(self, server: JudgedServer, record: Server) -> None:
        closed = self._gatekeeper.closed()
        if closed is None:
            try:
                used = self._remove_unless_used(server, record)
            except HubError as error:
                closed = str(error)
            else:
                event = "named_server_kept" if used else "named_server_removed"
                log.info(event, **fields(server), **({"why": used} if used else {}))
                return
        log.debug("named_server_not_removed", **fields(server), why=closed)
        self._later.call(_TRY_AGAIN_SECONDS, partial(self._remove, server, record))

    def _remove_unless_used(self, server: JudgedServer, record: Server) -> str | None:
        """Remove a server, or say why not; raise HubError if that is not known."""
        state, token = self._latest.state, None
        good_until = self._clock() + LOOK_SECONDS
        if state.safeguards.stop_tokens:
            permit = self._permits.mint(server.user, server.server)
            token, good_until = permit.token, permit.good_until
        reading = self._hub.user(server.user, stopped_servers=True)
        found = None if reading is None else reading.server(server.server)
        if reading is None or found is None:
            return "it no longer exists"
        if not _same_stop(record, found):
            return "it was used since its stop"
        protection = state.judge.protection(reading.user, server.server, found)
        if protection is not None:
            return f"it {protection}"
        if self._clock() >= good_until:
            raise HubError(Cause.TIMEOUT, "what the Hub said about it is too old by now")
        self._hub.remove(server.user, server.server, token)
        return None


def _same_stop(before: Server, now: Server) -> bool:
    """Tell whether a stopped server has not been started since."""
    stopped = not now.ready and now.pending is None and now.started is None
    return stopped and now.last_activity == before.last_activity
