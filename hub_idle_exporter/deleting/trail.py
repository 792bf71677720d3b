"""The audit trail of deletions: count and log what became of each idle user."""

import threading
from collections.abc import Sequence
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

    def kept(self, user: JudgedUser, cause: UserKept, why: str) -> None:
        """Record that a candidate is not deleted."""
        self._count_kept(cause)
        self._is_known()
        log.info("user_kept", **_fields(user), outcome="kept", cause=cause, why=why)

    def kept_by_listing(self, user: JudgedUser, cause: UserKept) -> None:
        """Record an idle user who is no candidate; the listing says that every hour."""
        self._count_kept(cause)
        why = f"the user {user.why}"
        log.debug("user_kept", **_fields(user), outcome="kept", cause=cause, why=why)

    def rest_kept(self, users: Sequence[JudgedUser], cause: UserKept, why: str) -> None:
        """Record that the rest of the candidates is not deleted."""
        self._count_kept(cause, len(users))
        for user in users:
            log.debug("user_kept", **_fields(user), outcome="kept", cause=cause, why=why)
        log.info("users_kept", users=len(users), outcome="kept", cause=cause, why=why)

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

    def _count_kept(self, cause: UserKept, users: int = 1) -> None:
        with self._metrics.counting:
            self._metrics.deletions_withheld.labels(cause).inc(users)

    def _is_known(self) -> None:
        with self._lock:
            self._open = None


def _fields(user: JudgedUser) -> dict[str, Any]:
    """Return the fields of every line about a user; idle in seconds."""
    return {"user": user.name, "idle": user.idle}
