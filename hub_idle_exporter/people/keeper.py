"""Keeping a server, and releasing it; in the order in which this and its stop were asked for."""

import threading
from collections import deque
from collections.abc import Callable

import structlog

from ..clocks import machine_moment
from ..domain.durations import roughly
from ..domain.keeping import Keep, Keeps, Start, kept_for
from ..domain.policy import JudgedServer, NotCandidate, Reason
from .state_file import StateFile, StateLostError

log = structlog.get_logger()

# The last stops, for a page that asked the Hub before them and goes on after them.
_MOST_STOPPED = 1000
_TOO_LATE = "It is too late: this server is being stopped."
_NOT_OFFERED = "Its policy does not allow to keep it."
_NOT_READY = "It is starting or stopping: try again when it is ready."
_UNKNOWN_START = (
    "The Hub does not say when it was started, so nothing can tell for which start to keep it."
)
_NOT_SAVED = "This could not be saved, so it does not count: tell the administrator."


class RefusedError(Exception):
    """What somebody asked for is not done; `str()` is one sentence for people."""


class Keeper:
    """Keeps servers. What is kept is committed under the lock under which stops begin.

    Args:
        file: where it is remembered.
        refuses: says why nothing can be kept now, None if it can: another exporter may be the one
            that stops servers, and would not know.
    """

    def __init__(self, file: StateFile, refuses: Callable[[], str | None] = lambda: None) -> None:
        self._file, self._refuses = file, refuses
        self._lock = threading.Lock()
        self._stopping: set[Start] = set()
        self._stopped = deque[Start](maxlen=_MOST_STOPPED)

    @property
    def keeps(self) -> Keeps:
        """Return what is kept."""
        return self._file.keeps

    def most(self, server: JudgedServer) -> float:
        """Return for how many seconds people may keep a server from now; 0 if not at all."""
        return 0.0 if server.policy.exempt else server.policy.keep_max

    def keep(self, server: JudgedServer, by: str, now: float) -> Keep:
        """Keep a server up to `now` (the Hub's clock) and its policy's `keep_max`.

        Raises RefusedError if that cannot be: then nothing has changed.
        """
        refusal = self._refusal(server)
        if refusal is not None:
            raise RefusedError(refusal)
        with self._lock:
            if server.start in self._stopping or server.start in self._stopped:
                raise RefusedError(_TOO_LATE)
            kept = kept_for(self.keeps, server.start, now) or 0.0
            keep = Keep(now + max(kept, self.most(server)), by)
            self._saved(lambda: self._file.save_keep(server.start, keep))
        seconds, until = keep.until - now, machine_moment(keep.until)
        log.info("server_kept", **_who(server, by), seconds=seconds, until=until)
        return keep

    def release(self, server: JudgedServer, by: str, now: float) -> None:
        """Keep a server no longer; raise RefusedError if it is not kept, or that is not saved."""
        with self._lock:
            if kept_for(self.keeps, server.start, now) is None:
                raise RefusedError("It is not kept.")
            self._saved(lambda: self._file.drop_keep(server.start))
        log.info("server_released", **_who(server, by))

    def begin_stop(self, server: JudgedServer, now: float) -> str | None:
        """Let nobody keep a server any more, directly before its stop; say why not if it is kept.

        `end_stop` must follow when it is known what became of the stop. The maximum age is not held
        up by a keep.
        """
        with self._lock:
            kept = kept_for(self.keeps, server.start, now)
            if kept is not None and server.reason is Reason.IDLE:
                return f"it is kept for another {roughly(kept)}"
            self._stopping.add(server.start)
            return None

    def stopped(self, server: JudgedServer) -> None:
        """Let nobody keep this start of a server any more: it was stopped."""
        with self._lock:
            self._stopped.append(server.start)

    def end_stop(self, server: JudgedServer) -> None:
        """Let people keep a server again: it was not stopped, or its next start is another one."""
        with self._lock:
            self._stopping.discard(server.start)

    def _refusal(self, server: JudgedServer) -> str | None:
        """Say why a server cannot be kept, but for what may change at any moment."""
        if not self.most(server):
            return _NOT_OFFERED
        if server.not_candidate is NotCandidate.PENDING:
            return _NOT_READY
        if server.seen.started is None:
            return _UNKNOWN_START
        return self._refuses()

    def _saved(self, save: Callable[[], None]) -> None:
        try:
            save()
        except StateLostError as error:
            log.warning("keep_not_saved", error=str(error))
            raise RefusedError(_NOT_SAVED) from None


def _who(server: JudgedServer, by: str) -> dict[str, object]:
    return {"user": server.user, "server": server.server, "by": by}
