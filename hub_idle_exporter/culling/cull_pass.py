"""One culling pass: the candidates of one poll, and what its workers share."""

import threading
import time

from ..domain.labels import ProbeResult
from ..domain.model import Route
from ..domain.policy import JudgedServer
from ..domain.settings import CullSettings
from ..hub.client import Hub
from ..hub.errors import HubError

# Routes show traffic that the Hub learns about minutes later, so a long pass reads them again.
_ROUTES_SECONDS = 30.0


class CullPass:
    """The candidates of one poll; safe to share between workers.

    `max_culls` limits how many are under way or stopped. One that is withheld makes room for the
    next, so that busy servers at the head of the list do not hold up the others.
    """

    def __init__(
        self, candidates: list[JudgedServer], settings: CullSettings, hub: Hub, asks: bool
    ) -> None:
        self.asks = asks
        self.routes = RouteTable(hub)
        self.done = threading.Event()
        self.failed = self.unsure = 0
        self.results: list[ProbeResult] = []
        self._room = settings.max_culls or len(candidates)
        self.workers = min(len(candidates), settings.concurrency, self._room)
        self._waiting = candidates[::-1]
        self._working = self.workers
        self._undecided = 0
        self._lock = threading.Lock()

    def next_candidate(self) -> JudgedServer | None:
        """Take the next candidate; None if none is left, or there is no room."""
        with self._lock:
            if not self._waiting or self._room == 0:
                return None
            self._room -= 1
            self._undecided += 1
            return self._waiting.pop()

    def decided(self, withheld: bool) -> list[JudgedServer]:
        """Record that a candidate is withheld, which makes room, or is being stopped.

        Return the candidates for which no room is left, once that is certain.
        """
        with self._lock:
            self._undecided -= 1
            self._room += withheld
            if self._undecided or self._room:
                return []
            left, self._waiting = self._waiting[::-1], []
            return left

    def worker_done(self) -> bool:
        """Record that a worker has finished; tell whether it was the last."""
        with self._lock:
            self._working -= 1
            return self._working == 0


class RouteTable:
    """The proxy's routes for all candidates of a pass; a failed read fails for all of them."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._lock = hub, threading.Lock()
        self._routes: dict[tuple[str | None, str], Route] | HubError | None = None
        self._read_at = 0.0

    def find(self, user: str, server: str) -> Route | None:
        """Find a server's route; raise HubError when the routes could not be read."""
        with self._lock:
            if self._routes is None or time.monotonic() - self._read_at > _ROUTES_SECONDS:
                self._read_at = time.monotonic()
                self._routes = self._read()
            routes = self._routes
        if isinstance(routes, HubError):
            raise routes
        return routes.get((user, server))

    def _read(self) -> dict[tuple[str | None, str], Route] | HubError:
        try:
            return {(r.data.user, r.data.server_name or ""): r for r in self._hub.routes()}
        except HubError as error:
            return error
