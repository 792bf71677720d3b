"""One culling pass: the candidates of one poll, and what its workers share."""

import threading
from collections import Counter
from collections.abc import Callable

from ..clocks import steady
from ..domain.labels import ProbeResult, Withheld
from ..domain.model import Route
from ..domain.policy import JudgedServer
from ..domain.probe_user import Safeguards
from ..domain.settings import CullSettings
from ..domain.spare_query import Opinion
from ..hub.client import Hub
from ..hub.errors import HubError
from ..prometheus.second_opinion import SecondOpinion

# How old a second opinion may be at a stop.
_OPINION_SECONDS = 30.0


class CullPass:
    """The candidates of one poll; safe to share between workers.

    `max_culls` limits how many are under way or stopped. One that is withheld, or whose stop fails,
    makes room for the next, so that such servers at the head of the list do not hold up the others.
    With `announces` nothing is stopped: these servers will be candidates when their notice is over.
    """

    def __init__(
        self,
        candidates: list[JudgedServer],
        settings: CullSettings,
        hub: Hub,
        safeguards: Safeguards,
        second_opinion: SecondOpinion | None = None,
        clock: Callable[[], float] = steady,
        announces: bool = False,
    ) -> None:
        self.safeguards, self.announces = safeguards, announces
        self.routes = RouteTable(hub, clock)
        self.opinion = PassOpinion(second_opinion)
        self.done = threading.Event()
        self.stopped = self.failed = 0
        self.withheld: Counter[Withheld] = Counter()
        self.answers: list[ProbeResult] = []
        no_limit = announces or not settings.max_culls
        self._room = len(candidates) if no_limit else settings.max_culls
        self._handled, self._open, self._taken = 0, len(candidates), 0
        self._workers = settings.concurrency
        self._lock = threading.Lock()

    def nth(self) -> int:
        """Number the workers that begin on the pass: 0 for the first, and after each has begun."""
        with self._lock:
            self._taken += 1
            return self._taken - 1 if self._taken <= self._workers else 0

    def claim_room(self) -> bool:
        """Take room for one more stop, if there is any."""
        with self._lock:
            if self._room == 0:
                return False
            self._room -= 1
            self._handled += 1
            return True

    def is_full(self, used: bool) -> bool:
        """Record that a worker is done with a candidate, and whether it used its room.

        Tell whether it is certain that no room is left for those who still wait.
        """
        with self._lock:
            self._handled -= 1
            self._room += not used
            return self._room == 0 and self._handled == 0

    def count_withheld(self, cause: Withheld) -> bool:
        """Count a candidate that is not stopped; tell whether it was the last one open."""
        with self._lock:
            self.withheld[cause] += 1
            return self._one_less()

    def count_announced(self) -> bool:
        """Count a server that was announced, or not; tell whether it was the last one open."""
        with self._lock:
            return self._one_less()

    def count_stop(self, worked: bool) -> bool:
        """Count a stop with its result; tell whether it was the last one open."""
        with self._lock:
            self.stopped += worked
            self.failed += not worked
            return self._one_less()

    def _one_less(self) -> bool:
        self._open -= 1
        return self._open == 0


class RouteTable:
    """The proxy's routes for all candidates of a pass; a failed read fails for all of them."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._hub, self._clock, self._lock = hub, clock, threading.Lock()
        self._routes: dict[tuple[str | None, str], Route] | HubError | None = None
        self._asked = 0.0

    def find(self, user: str, server: str, oldest: float) -> tuple[Route | None, float]:
        """Find a server's route, and when it was asked for, by our clock.

        That is at most `oldest` seconds ago. Raises HubError when the routes could not be read.
        """
        with self._lock:
            if self._routes is None or self._clock() - self._asked > oldest:
                self._asked = self._clock()
                self._routes = self._read()
            routes, asked = self._routes, self._asked
        if isinstance(routes, HubError):
            raise routes
        return routes.get((user, server)), asked

    def _read(self) -> dict[tuple[str | None, str], Route] | HubError:
        try:
            return {(r.data.user, r.data.server_name or ""): r for r in self._hub.routes()}
        except HubError as error:
            return error


class PassOpinion:
    """The second opinion for all candidates of a pass; a failed query fails for all of them."""

    def __init__(self, source: SecondOpinion | None) -> None:
        self._source, self._lock = source, threading.Lock()
        self._failed = source.failed if source is not None else None  # of the poll before

    def now(self) -> Opinion | None:
        """Return an opinion that is young enough for a stop; None without any."""
        if self._source is None:
            return None
        with self._lock:
            opinion = self._failed or self._source.newest(_OPINION_SECONDS)
            if opinion.problem is not None:
                self._failed = opinion
            return opinion
