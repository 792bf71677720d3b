"""What people were promised: what they keep, and that they are told before a stop."""

from collections.abc import Callable
from dataclasses import dataclass

from ..clocks import steady
from ..domain.keeping import Keep
from ..domain.policy import JudgedServer
from .keeper import Keeper
from .notices import Notices, Tells
from .state_file import StateFile
from .state_rows import Stop


@dataclass(frozen=True)
class Promises:
    """Keeps and announcements, and the file that remembers both."""

    file: StateFile
    keeper: Keeper
    notices: Notices

    @classmethod
    def of(
        cls,
        file: StateFile,
        tells: Tells,
        hub_time: Callable[[], float],
        refuses: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = steady,
    ) -> "Promises":
        """Wire them together; the arguments are those of Keeper and Notices."""
        return cls(file, Keeper(file, refuses), Notices(file, tells, hub_time, clock))

    def keep(self, server: JudgedServer, by: str, now: float) -> Keep:
        """Keep a server, as Keeper does; what was announced of its stop is over, at once.

        The keep may have ended before anybody looks again: its end is to be announced too.
        """
        keep = self.keeper.keep(server, by, now)
        self.notices.take_back(server, "it is kept")
        return keep

    def stopped(self, server: JudgedServer, now: float) -> None:
        """Remember the stop of a server for its user, and tell of it."""
        self.keeper.stopped(server)
        if server.reason is not None:
            self.file.save_stop(server.key, Stop(now, server.reason, server.idle))
        self.notices.stopped(server)
