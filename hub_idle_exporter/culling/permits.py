"""Tokens to stop one server, or to delete one user, for seconds only, by the Hub's own clock.

A stop that is delayed anywhere on its way (here, in the network, in a Hub that is paused) would
otherwise still work, however old the knowledge is that it is based on. The token is minted first,
then the server is looked at, then the stop is sent with the token: if it has expired by then, the
Hub refuses the stop.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..clocks import steady
from ..domain.model import seconds
from ..hub.client import Hub
from ..hub.errors import HubError

# How long a stop token is valid, in seconds: the usual time, and the most on a slow Hub.
STOP_SECONDS, MOST_STOP_SECONDS = 3.0, 10.0
# Without a stop token: how old a look at a server may be when its stop is sent, by our clock.
LOOK_SECONDS = 5.0
# When a Hub lists a user's tokens it deletes those that have expired, one transaction each, and
# answers nobody else meanwhile. So the list is asked for before they pile up.
CLEAN_UP_AFTER = 25


@dataclass(frozen=True)
class Permit:
    """Such a token; `created` and `expires` are the Hub's clock, since 1970.

    `good_until` is from when on it may have expired, by our clock.
    """

    token: str
    created: float
    expires: float
    good_until: float

    def __repr__(self) -> str:
        return f"Permit(token=masked, expires={self.expires})"


class Permits:
    """Mints stop tokens, owned by the Hub user `owner`, whose role must have `delete:servers`."""

    def __init__(self, hub: Hub, owner: str, clock: Callable[[], float] = steady) -> None:
        self._hub, self._owner, self._clock = hub, owner, clock
        self._lock, self._minted = threading.Lock(), 0

    def clean_up(self) -> None:
        """Let the Hub delete those that have expired, before they pile up."""
        with self._lock:
            if self._minted < CLEAN_UP_AFTER:
                return
            self._minted = 0
        with suppress(HubError):
            self._hub.tokens(self._owner)

    def mint(self, user: str, server: str, at_most: float = MOST_STOP_SECONDS) -> Permit:
        """Mint a stop token for one server; raise HubError if that fails.

        It lives for at most so many seconds. Two answers of the Hub must fit into its life, or
        nothing could ever be stopped on a slow Hub.
        """
        return self._mint(f"delete:servers!server={user}/{server}", "stop", at_most)

    def mint_deletion(self, user: str) -> Permit:
        """Mint a token to delete one user, as `mint`; its owner's role must have `delete:users`."""
        return self._mint(f"delete:users!user={user}", "delete", MOST_STOP_SECONDS)

    def _mint(self, scope: str, note: str, at_most: float) -> Permit:
        with self._lock:
            self._minted += 1
        wanted = STOP_SECONDS + 2 * self._hub.pace.quickest()
        life = max(1, int(min(wanted, at_most)))
        asked = self._clock()
        minted = self._hub.mint_token(self._owner, [scope], life, note)
        created, expires = seconds(minted.created), seconds(minted.expires_at)
        return Permit(minted.token, created, expires, asked + life)
