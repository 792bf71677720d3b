"""The second opinion, asked for at each poll, and anew when it has grown old."""

import threading
from collections.abc import Callable

from ..clocks import steady
from ..domain.labels import QueryResult
from ..domain.spare_query import Opinion, QueryError
from .client import Prometheus


class SecondOpinion:
    """Asks, and remembers the newest opinion; safe to use from many threads.

    Args:
        query: the spare query.
        prometheus: who is asked.
        on_query: called with the result of each evaluation.
        clock: our clock.
    """

    def __init__(
        self,
        query: str,
        prometheus: Prometheus,
        on_query: Callable[[QueryResult], None] = lambda _result: None,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._query, self._prometheus = query, prometheus
        self._on_query, self._clock = on_query, clock
        self._lock = threading.Lock()
        self._newest: Opinion | None = None

    def ask(self) -> Opinion:
        """Ask now."""
        with self._lock:
            return self._ask()

    def newest(self, oldest: float) -> Opinion:
        """Return an opinion that is `oldest` seconds old at most; ask if there is none.

        One that is young enough does not wait for a query under way, so no stop does.
        """
        return self._young(oldest) or self._asked_once(oldest)

    @property
    def failed(self) -> Opinion | None:
        """Return the newest opinion if that is none, since the query failed."""
        newest = self._newest
        return newest if newest and newest.problem is not None else None

    def _asked_once(self, oldest: float) -> Opinion:
        with self._lock:  # perhaps another thread has asked meanwhile
            return self._young(oldest) or self._ask()

    def _young(self, oldest: float) -> Opinion | None:
        newest = self._newest
        return newest if newest and self._clock() - newest.asked <= oldest else None

    def _ask(self) -> Opinion:
        asked, result = self._clock(), QueryResult.OK
        try:
            opinion = Opinion.of(self._query, asked, self._prometheus.ask(self._query))
        except QueryError as error:
            opinion, result = Opinion(self._query, asked, problem=str(error)), QueryResult.FAILED
        self._on_query(result)
        self._newest = opinion
        return opinion
