"""How people are told without a notify file: the page and the metric say when a stop is due."""

from collections.abc import Callable, Hashable

from ..domain.policy import JudgedServer


class OnThePage:
    """Counts as told at once; a stop that was carried out is told of by the page alone.

    Args:
        count: called for each announcement.
    """

    def __init__(self, count: Callable[[], None] = lambda: None) -> None:
        self._count = count

    def due(
        self,
        _server: JudgedServer,
        _key: Hashable,
        _left: Callable[[], float],
        told: Callable[[], None],
    ) -> None:
        """Be told at once."""
        self._count()
        told()

    def stopped(self, server: JudgedServer) -> None:
        """Do nothing: what became of a server is on the page."""

    def cancel(self, key: Hashable) -> None:
        """Do nothing: nobody waits."""

    def problem(self, _key: Hashable) -> str | None:
        """Find none."""
        return None
