"""Says in words what is due, or was done, and has it sent."""

from collections.abc import Callable, Hashable

from ..domain.labels import NotificationEvent
from ..domain.messages import Words, due_words, stopped_words
from ..domain.policy import JudgedServer, Reason
from .notifier import Notifier
from .waiting import Notice


class Teller:
    """Tells people through a notifier; it never waits.

    Args:
        notifier: sends.
        page: the address of the page where people can keep a server; "" if there is none.
    """

    def __init__(self, notifier: Notifier, page: str = "") -> None:
        self._notifier, self._page = notifier, page

    def due(
        self,
        server: JudgedServer,
        key: Hashable,
        left: Callable[[], float],
        told: Callable[[], None],
    ) -> None:
        """Tell of a stop in `left()` seconds; `told` is called once that was delivered."""
        policy, reason = server.policy, server.reason or Reason.IDLE
        limit = policy.max_age if reason is Reason.MAX_AGE else policy.timeout

        def words() -> Words:
            return due_words(server.server, reason, limit, left(), self._keep_at(server))

        notice = Notice(NotificationEvent.DUE, server.user, server.server, key, words)
        self._notifier.tell(notice, told)

    def stopped(self, server: JudgedServer) -> None:
        """Tell of a stop that was carried out."""
        reason, key = server.reason or Reason.IDLE, ("stopped", server.start)

        def words() -> Words:
            return stopped_words(server.server, reason, server.idle, self._keep_at(server))

        event = NotificationEvent.STOPPED
        notice = Notice(event, server.user, server.server, key, words)
        self._notifier.tell(notice, lambda: None)

    def cancel(self, key: Hashable) -> None:
        """Tell no longer of a stop, unless that is done."""
        self._notifier.cancel(key)

    def problem(self, key: Hashable) -> str | None:
        """Say why somebody could not be told yet; None if nothing went wrong so far."""
        return self._notifier.problem(key)

    def _keep_at(self, server: JudgedServer) -> str:
        return self._page if server.policy.keep_max else ""
