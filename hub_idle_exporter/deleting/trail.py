"""The audit trail of deletions: count and log what became of each idle user."""

import threading
from typing import Any

import structlog

from ..domain.idle_users import JudgedUser
from ..domain.labels import Cause, UserKept
from ..metrics import Metrics

_CUT_SHORT = "the exporter ended before it was known whether the user was deleted"
log = structlog.get_logger()


class DeletionTrail:
    """Counts and logs what becomes of idle users; no scrape waits for the log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()  # of the next one
        self._open: JudgedUser | None = None

    def kept(self, user: JudgedUser, cause: UserKept, why: str, at_listing: bool = False) -> None:
        """Record that an idle user is not deleted; by what a listing says that is so every hour."""
        with self._metrics.counting:
            self._metrics.deletions_withheld.labels(cause).inc()
        self._is_known()
        write = log.debug if at_listing else log.info
        write("user_kept", **_fields(user), outcome="kept", cause=cause, why=why)

    def sending(self, user: JudgedUser) -> None:
        """Remember a deletion until its result is known; nothing is logged before it is sent."""
        with self._lock:
            self._open = user

    def deleted(self, user: JudgedUser) -> None:
        """Record a deletion that was verified."""
        with self._metrics.counting:
            self._metrics.users_deleted.inc()
        self._is_known()
        log.info("user_deleted", **_fields(user), outcome="deleted")

    def failed(self, user: JudgedUser, cause: Cause, why: str) -> None:
        """Record a deletion that failed, or whose result is not known."""
        with self._metrics.counting:
            self._metrics.deletion_failures.labels(cause).inc()
        self._is_known()
        log.error("user_deletion_failed", **_fields(user), outcome="failed", cause=cause, why=why)

    def cut_short(self) -> None:
        """Record the deletion that is under way while the process ends."""
        with self._lock:
            if self._open is not None:
                log.warning("deletion_cut_short", **_fields(self._open), why=_CUT_SHORT)

    def _is_known(self) -> None:
        with self._lock:
            self._open = None


def _fields(user: JudgedUser) -> dict[str, Any]:
    """Return the fields of every line about a user; idle in seconds."""
    return {"user": user.name, "idle": user.idle}
