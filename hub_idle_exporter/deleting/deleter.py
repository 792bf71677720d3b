"""Delete idle users one at a time; any doubt keeps the user."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..clocks import steady
from ..culling.gatekeeper import Gatekeeper
from ..culling.lease import Election
from ..culling.permits import LOOK_SECONDS
from ..domain.idle_users import IdleUsers, JudgedUser, UserJudge
from ..domain.labels import Cause, UserKept
from ..domain.poll_state import LatestState
from ..domain.settings import CullSettings
from ..hub.client import Hub
from ..hub.errors import HubError
from .trail import DeletionTrail

_LIST_CHANGED = "the list of users changed too much while it was read"
_SHUTDOWN = "the exporter is shutting down"
_SINGLE_RUN = "a single run knows of no outage, so it deletes users only with --grace 0"
_RULES_CHANGED = "the policies, or the scopes of the token, have changed since it was judged"
_TOO_LATE = "too much time has passed since it was looked at again"
_STILL_THERE = "the Hub reported success, but the user still exists"

# A Hub deletes nobody with a server that is stopping (400), or who does not exist (404).
_NOT_DELETED = {400: UserKept.SERVER, 404: UserKept.GONE}


# What says nothing about the user: the same candidate may be deleted at another time.
_UNSURE = (UserKept.LOOK_FAILED, UserKept.GATE, UserKept.LIST, UserKept.STALE)


@dataclass(frozen=True)
class Deletions:
    """The names of those who are gone, and whether all the others were rightly kept."""

    gone: frozenset[str]
    worked: bool


class KeptError(Exception):
    """A user is not deleted after all; `str()` says why."""

    def __init__(self, cause: UserKept, why: str) -> None:
        super().__init__(why)
        self.cause = cause


class Deleter:
    """Deletes the candidates of a listing of idle users, after another look at each.

    Args:
        hub: asked again about each of them, and told to delete it.
        gatekeeper: asked before each deletion.
        election: knows whether this exporter may stop servers and delete users.
        latest: judges by the newest poll state.
        trail: records what became of each.
        settings: who may be deleted, and how many of a listing.
        stopping: set when the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        gatekeeper: Gatekeeper,
        election: Election,
        latest: LatestState,
        trail: DeletionTrail,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._gatekeeper, self._election = hub, gatekeeper, election
        self._latest, self._trail, self._settings = latest, trail, settings
        self._stopping, self._clock = stopping, clock

    def closed(self) -> str | None:
        """Say why nobody may be deleted right now; None if that is allowed."""
        if self._stopping.is_set():
            return _SHUTDOWN
        if self._settings.only_if_asked:
            return _SINGLE_RUN
        return self._gatekeeper.closed() or "; ".join(self._latest.state.keeps_users) or None

    def delete(self, found: IdleUsers) -> Deletions:
        """Delete the candidates, most idle first."""
        for user in found.users:
            if user.kept is not None:
                self._trail.kept(user, user.kept, f"it {user.why}", at_listing=True)
        sent, gone, worked = 0, set[str](), True
        for user in found.candidates:
            try:
                self._check_listing(found, sent)
                now, good_until = self._look_again(user)
                error = self._send(user, now, good_until)
                sent += 1
                if self._verify(user, error):
                    gone.add(user.name)
                else:
                    worked = False
            except KeptError as kept:
                self._trail.kept(user, kept.cause, str(kept))
                worked = worked and kept.cause not in _UNSURE
        return Deletions(frozenset(gone), worked)

    def _check_listing(self, found: IdleUsers, sent: int) -> None:
        if not found.complete:
            raise KeptError(UserKept.LIST, _LIST_CHANGED)
        if 0 < self._settings.max_culls <= sent:
            raise KeptError(UserKept.LIMIT, f"--max-culls {self._settings.max_culls} was reached")
        self._check_gate()

    def _check_gate(self) -> None:
        closed = self.closed()
        if closed is not None:
            raise KeptError(UserKept.GATE, closed)

    def _judge(self) -> UserJudge:
        return self._latest.state.user_judge(self._settings)

    def _look_again(self, user: JudgedUser) -> tuple[float, float]:
        """Fetch the user with all its servers: it must still be a candidate.

        Returns the Hub's clock, and the time of ours from which on this look is too old.
        """
        judge, good_until = self._judge(), self._clock() + LOOK_SECONDS
        try:
            reading = self._hub.account(user.name)
        except HubError as error:
            why = f"the Hub could not be asked about it again: {error}"
            raise KeptError(UserKept.LOOK_FAILED, why) from None
        if reading is None:
            raise KeptError(UserKept.GONE, "it no longer exists")
        judged = judge.verdict(reading.account, reading.now)
        if judged is None:
            raise KeptError(UserKept.ACTIVE_AGAIN, "it was active within --user-timeout")
        if judged.kept is not None:
            raise KeptError(judged.kept, f"it {judged.why}")
        if self._judge() != judge:
            raise KeptError(UserKept.POLICY, _RULES_CHANGED)
        self._check_gate()
        return reading.now, good_until

    def _send(self, user: JudgedUser, now: float, good_until: float) -> HubError | None:
        """Send the deletion, with nothing but the last checks before; return what went wrong.

        Raises KeptError if it was not carried out and need not be told as a failure.
        """
        if not self._election.begin_stop(now + LOOK_SECONDS):
            raise KeptError(UserKept.GATE, "this exporter does not hold the lease long enough")
        self._trail.sending(user)
        error = None
        try:
            if self._clock() >= good_until:
                raise KeptError(UserKept.STALE, _TOO_LATE)
            self._hub.delete_user(user.name)
        except HubError as failed:
            error = failed
        finally:
            self._election.end_stop(answered=error is None or error.status is not None)
        if error is not None and error.status in _NOT_DELETED:
            raise KeptError(_NOT_DELETED[error.status], f"the Hub refused: {error}")
        return error

    def _verify(self, user: JudgedUser, error: HubError | None) -> bool:
        """Tell whether the user is gone, and record what became of the deletion."""
        try:
            gone = self._hub.account(user.name) is None
        except HubError as unseen:
            self._trail.failed(user, (error or unseen).cause, str(error or unseen))
            return False
        if gone:
            self._trail.deleted(user)
        elif error is not None:
            self._trail.failed(user, error.cause, str(error))
        else:
            self._trail.failed(user, Cause.RESPONSE, _STILL_THERE)
        return gone
