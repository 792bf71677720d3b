"""Take, renew and release the lease that lets one exporter per Hub stop servers.

Who holds it is decided in `domain/lease.py`, from what the Hub lists.
"""

import math
import random
import secrets
import threading
from collections.abc import Callable

import structlog

from ..clocks import steady
from ..domain.lease import (
    LEASE_SECONDS,
    NOTE,
    REVOKE_MARGIN_SECONDS,
    Lease,
    acquired,
    held_by_another,
    renewed,
    revocable,
)
from ..domain.model import MintedToken
from ..domain.poll_state import LatestState
from ..hub.client import Hub, TokenReading
from ..hub.errors import HubError
from .gatekeeper import Gatekeeper
from .permits import MOST_STOP_SECONDS

RENEW_SECONDS = 30.0
_LONGEST_WAIT = 5.0  # after two exporters tried at once

_ANOTHER = (
    "another exporter of this Hub holds the lease and stops servers; this one takes over when that "
    "one ends"
)

_NOT_HELD = "Another exporter of this Hub may be the one that stops servers, and would not know."
_SUSPENDED = "Nothing is stopped at present, and nobody knows yet by which rules it will be."

log = structlog.get_logger()


class Election:
    """Decides together with the Hub whether this exporter may stop servers.

    Args:
        hub: where leases are kept, as tokens of `owner`.
        owner: the probe user.
        latest: says whether a lease is possible, by the newest poll state.
        gatekeeper: told who holds the lease.
        stopping: set when the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        owner: str,
        latest: LatestState,
        gatekeeper: Gatekeeper,
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._owner, self._latest = hub, owner, latest
        self._gatekeeper, self._stopping, self._clock = gatekeeper, stopping, clock
        self._nonce = secrets.token_hex(8)
        self._lock = threading.Lock()  # held while the Hub is asked
        self._guard = threading.Lock()  # of the next two
        self._lease: Lease | None = None
        self._sending = 0  # stops that are on their way to the Hub
        self._quiet_at = -math.inf  # our clock: when the last stop without an answer works no more
        self._listed_at = -math.inf  # our clock
        self._other_seen = False
        self._not_before = 0.0
        self._said: str | None = None

    def start(self) -> None:
        """Start the thread that renews the lease: polls may be rarer than that."""
        threading.Thread(target=self._run, name="lease", daemon=True).start()

    def take(self) -> None:
        """Take the lease if it is free; the gatekeeper is told if another exporter holds it.

        None is taken while the sidecar shuts down: a poll may end after the lease was released.
        """
        with self._lock:
            if self._stopping.is_set():
                return
            if not self._latest.state.safeguards.lease:
                self._lease = None
                self._gatekeeper.hold_back(None)
            elif self._lease is None and self._clock() >= self._not_before:
                self._try(self._take)

    def renew(self) -> None:
        """Renew the lease if it is held; give it up if another exporter may have it."""
        with self._lock:
            if self._lease is not None:
                self._try(self._renew, self._lease)

    def release(self) -> None:
        """Let the next exporter have the lease, once no stop of ours can work any more."""
        with self._lock:
            with self._guard:
                held, self._lease, sending = self._lease, None, self._stops_may_work()
            if held is None:
                return
            try:
                kept = self._mint(int(MOST_STOP_SECONDS))[0].id if sending else None
                self._revoke(self._tokens(), but=kept)
            except HubError as error:
                log.debug("lease_not_released", error=str(error))

    def not_ours(self) -> str | None:
        """Say why this exporter is not the one that stops servers; None if it is, or may be."""
        if self._latest.state.safeguards.lease:
            lease, now = self._lease, self._gatekeeper.hub_time()
            return None if lease is not None and lease.covers(now) else _NOT_HELD
        return None if self._latest.state.suspended_by == () else _SUSPENDED

    def begin_stop(self, until: float) -> bool:
        """Tell whether a stop may be sent that works until a moment of the Hub's clock.

        If so, `end_stop` must follow. It may as well if no lease is possible: `--busy-check` allows
        that.
        """
        with self._guard:
            needed = self._latest.state.safeguards.lease
            if needed and (self._lease is None or not self._lease.covers(until)):
                return False
            self._sending += 1
            return True

    def end_stop(self, answered: bool) -> None:
        """Record that the Hub has answered a stop, or that it may still carry it out."""
        with self._guard:
            self._sending -= 1
            if not answered:
                self._quiet_at = self._clock() + MOST_STOP_SECONDS

    def _run(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            self.renew()

    def _try(self, step: Callable[..., None], *arguments: Lease) -> None:
        try:
            step(*arguments)
        except HubError as error:
            if self._lease is None:
                self._wait(f"the lease of this Hub cannot be taken: {error}")
            log.debug("lease_request_failed", error=str(error))

    def _take(self) -> None:
        if held_by_another(self._tokens().tokens, self._nonce):
            self._another()
            return
        minted, listed = self._mint()
        lease = acquired(minted, listed.tokens, self._nonce)
        if lease is None:  # another exporter tries at the same moment
            self._let_go(listed)
            self._not_before = self._clock() + random.uniform(1.0, _LONGEST_WAIT)  # noqa: S311
            self._another()
            return
        self._lease = lease
        self._gatekeeper.hold_back(None, after_another=self._other_seen)
        log.info("lease_taken", after_another=self._other_seen)
        self._other_seen, self._said = False, None

    def _renew(self, held: Lease) -> None:
        minted, listed = self._mint()
        self._lease = renewed(held, minted, listed.tokens)
        if self._lease is None:
            log.warning("lease_lost")
            self._let_go(listed)
            self._another()
        else:
            self._revoke(listed, but=minted.id)

    def _mint(self, seconds: int = LEASE_SECONDS) -> tuple[MintedToken, TokenReading]:
        """Mint a token of the lease, and list all of them after that."""
        note = NOTE + self._nonce
        minted = self._hub.mint_token(self._owner, [], seconds, note)
        return minted, self._tokens()

    def _tokens(self) -> TokenReading:
        self._listed_at = self._clock()
        return self._hub.tokens(self._owner)

    def _let_go(self, listed: TokenReading) -> None:
        """Revoke all our leases, unless a stop is on its way: then they are left to expire."""
        if not self._stops_may_work():
            self._revoke(listed)

    def _stops_may_work(self) -> bool:
        """Tell whether the Hub may still carry out a stop that was sent under our lease."""
        return self._sending > 0 or self._clock() < self._quiet_at

    def _revoke(self, listed: TokenReading, but: str | None = None) -> None:
        """Revoke our leases among tokens that were just listed, unless that was too long ago."""
        for token_id in revocable(listed.tokens, self._nonce, listed.now):
            in_time = self._clock() - self._listed_at < REVOKE_MARGIN_SECONDS / 2
            if token_id != but and in_time:
                self._hub.revoke_token(self._owner, token_id)

    def _another(self) -> None:
        self._other_seen = True
        self._wait(_ANOTHER, other_enforces=True)

    def _wait(self, why: str, other_enforces: bool = False) -> None:
        """Hold stops back, and say so once."""
        self._gatekeeper.hold_back(why, other_enforces=other_enforces)
        if self._said != why:
            self._said = why
            log.warning("lease_not_held", why=why)
