"""Delete idle users one at a time; when in doubt, the user is kept."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from ..clocks import steady
from ..culling.gatekeeper import Gatekeeper
from ..culling.lease import Election
from ..culling.permits import LOOK_SECONDS, Permit, Permits
from ..domain.idle_users import IdleUsers, JudgedUser, UserJudge
from ..domain.labels import LISTED, Cause, UserKept
from ..domain.poll_state import LatestState
from ..domain.settings import CullSettings
from ..hub.client import AccountReading, Hub
from ..hub.errors import HubError
from ..policy_file import PolicySource
from .trail import DeletionTrail

# After so many failures in a row the rest of a listing is left alone.
MOST_FAILURES = 3

_LIST_CHANGED = "the list of users changed too much while it was read"
_FAILURES = f"{MOST_FAILURES} deletions in a row failed"
_SHUTDOWN = "the exporter is shutting down"
_SINGLE_RUN = "a single run knows of no outage, so it deletes users only with --grace 0"
_FILE_CHANGED = "the policy file has changed since the last poll"
_FILE_INVALID = "the policy file is invalid: what it was changed for may be to keep users"
_HUB_AWAY = f"the Hub could not be asked about {MOST_FAILURES} users in a row"
_RULES_CHANGED = "the policies, or the scopes of the token, have changed since it was judged"
_TOO_LATE = "too much time has passed since the user was looked at again"
_EXPIRED = "the Hub refused the token for this deletion, which may have expired"
_STILL_THERE = "the Hub reported success, but the user still exists"

# What says nothing about the user: the same candidate may be deleted at another time.
_UNSURE = (
    UserKept.LOOK_FAILED, UserKept.GATE, UserKept.LIST, UserKept.STALE, UserKept.FAILURES,
)  # fmt: skip


@dataclass(frozen=True)
class Deletions:
    """What became of a listing.

    `left` are the users who are idle still, as far as is known; `sent` counts the deletions that
    may have been made, `ended` tells why not all candidates were tried, and `worked` whether all
    who were not deleted were rightly kept.
    """

    left: tuple[JudgedUser, ...]
    sent: int
    ended: UserKept | None
    worked: bool


@dataclass(frozen=True)
class _Look:
    """How long another look at a user holds, by the Hub's clock and by ours; and a token."""

    holds_until: float
    good_until: float
    token: str | None


@dataclass
class _Pass:
    """What has become of a listing so far.

    `gone` are idle no longer, and `kept` protected by now. `sent` counts deletions that may have
    been made, `looks_failed` and `failed_in_a_row` those that failed last, one after another.
    """

    sent: int
    gone: set[str] = field(default_factory=set)
    kept: dict[str, UserKept] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    causes: set[UserKept] = field(default_factory=set)
    looks_failed: int = 0
    failed_in_a_row: int = 0

    def keeps(self, user: JudgedUser, cause: UserKept) -> None:
        """Take note that a candidate is not deleted."""
        self.causes.add(cause)
        self.looks_failed = self.looks_failed + 1 if cause is UserKept.LOOK_FAILED else 0
        if cause in (UserKept.ACTIVE_AGAIN, UserKept.GONE):
            self.gone.add(user.name)
        elif cause in LISTED:
            self.kept[user.name] = cause

    def left(self, users: Iterable[JudgedUser]) -> tuple[JudgedUser, ...]:
        """Return those who are idle still, with what keeps them by now."""
        return tuple(
            msgspec.structs.replace(one, kept=self.kept.get(one.name, one.kept))
            for one in users
            if one.name not in self.gone
        )


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
        policies: the policy file; None without one.
        trail: records what became of each.
        settings: who may be deleted, and how many an hour.
        stopping: set when the sidecar shuts down.
        clock: our clock.
    """

    def __init__(
        self,
        hub: Hub,
        gatekeeper: Gatekeeper,
        election: Election,
        latest: LatestState,
        policies: PolicySource | None,
        trail: DeletionTrail,
        settings: CullSettings,
        stopping: threading.Event,
        clock: Callable[[], float] = steady,
    ) -> None:
        self._hub, self._gatekeeper, self._election = hub, gatekeeper, election
        self._latest, self._policies, self._trail = latest, policies, trail
        self._settings, self._stopping, self._clock = settings, stopping, clock
        self._permits = Permits(hub, settings.probe_user, clock)
        self._failed = frozenset[str]()  # whose deletion failed: they come last the next time
        self._unanswered = dict[str, JudgedUser]()  # whose deletion the Hub has not answered

    def closed(self) -> str | None:
        """Say why nobody may be deleted right now; None if that is allowed."""
        if self._stopping.is_set():
            return _SHUTDOWN
        if self._settings.only_if_asked:
            return _SINGLE_RUN
        if self._policies is not None and not self._policies.is_current():
            return _FILE_CHANGED
        if self._latest.state.policy_error is not None:
            return _FILE_INVALID
        return self._gatekeeper.closed() or "; ".join(self._latest.state.keeps_users) or None

    def delete(self, found: IdleUsers, sent: int = 0) -> Deletions:
        """Delete the candidates, most idle first; `sent` counts towards --max-culls."""
        for user in found.users:
            if user.kept is not None:
                self._trail.kept_by_listing(user, user.kept)
        became, ended = _Pass(sent), None
        self._settle(became)
        candidates = sorted(found.candidates, key=lambda one: one.name in self._failed)
        for place, user in enumerate(candidates):
            try:
                self._check_pass(found, became)
            except KeptError as kept:
                self._trail.rest_kept(candidates[place:], kept.cause, str(kept))
                became.causes.add(kept.cause)
                ended = kept.cause
                break
            self._delete_one(user, became)
        self._settle(became)
        self._failed = frozenset(became.failed | (self._failed - became.gone))
        worked = not became.failed and became.causes.isdisjoint(_UNSURE)
        return Deletions(became.left(found.users), became.sent, ended, worked)

    def _settle(self, became: _Pass) -> None:
        """Look again at those whose deletion had no answer: some Hubs take long."""
        for user in self._unanswered.copy().values():
            with suppress(HubError):
                if self._hub.account(user.name) is None:
                    self._trail.deleted(user)
                    became.gone.add(user.name)
                    del self._unanswered[user.name]

    def _check_pass(self, found: IdleUsers, became: _Pass) -> None:
        """Raise KeptError if no more users are to be deleted."""
        if not found.complete:
            raise KeptError(UserKept.LIST, _LIST_CHANGED)
        if became.looks_failed >= MOST_FAILURES:
            raise KeptError(UserKept.LOOK_FAILED, _HUB_AWAY)
        if became.failed_in_a_row >= MOST_FAILURES:
            raise KeptError(UserKept.FAILURES, _FAILURES)
        if 0 < self._settings.max_culls <= became.sent:
            raise KeptError(UserKept.LIMIT, f"--max-culls {self._settings.max_culls} was reached")
        self._check_gate()

    def _delete_one(self, user: JudgedUser, became: _Pass) -> None:
        """Look at a user again, delete it, and see whether it is gone."""
        self._unanswered.pop(user.name, None)
        try:
            look = self._look_again(user)
            error = self._send(user, look)
            became.sent += error is None or error.status is None or error.status >= 500
            deleted = self._verify(user, error)
        except KeptError as kept:
            self._trail.kept(user, kept.cause, str(kept))
            became.keeps(user, kept.cause)
            return
        became.looks_failed = 0
        if deleted:
            became.gone.add(user.name)
            became.failed_in_a_row = 0
            return
        became.failed.add(user.name)
        became.failed_in_a_row += 1
        if error is not None and error.status is None:
            self._unanswered[user.name] = user

    def _check_gate(self) -> None:
        closed = self.closed()
        if closed is not None:
            raise KeptError(UserKept.GATE, closed)

    def _judge(self) -> UserJudge:
        return self._latest.state.user_judge(self._settings)

    def _look_again(self, user: JudgedUser) -> _Look:
        """Fetch the user with all its servers: it must still be a candidate."""
        self._permits.clean_up()
        try:
            with self._hub.in_turn():
                judge, begun = self._judge(), self._clock()
                permit = self._permit(user)
                reading = self._hub.account(user.name)
        except HubError as error:
            raise KeptError(UserKept.LOOK_FAILED, f"the Hub could not be asked: {error}") from None
        if reading is None:
            raise KeptError(UserKept.GONE, "the user no longer exists")
        if reading.account.name != user.name:
            raise KeptError(UserKept.LOOK_FAILED, "the Hub answered about another user")
        self._check_candidate(judge, reading)
        if self._judge() != judge:
            raise KeptError(UserKept.POLICY, _RULES_CHANGED)
        self._check_gate()
        if permit is None:
            return _Look(reading.now + LOOK_SECONDS, begun + LOOK_SECONDS, None)
        return _Look(permit.expires, permit.good_until, permit.token)

    def _permit(self, user: JudgedUser) -> Permit | None:
        """Mint a token for this deletion; None where the probe user's role does not allow that."""
        if not self._latest.state.safeguards.deletion_tokens:
            return None
        return self._permits.mint_deletion(user.name)

    def _check_candidate(self, judge: UserJudge, reading: AccountReading) -> None:
        judged = judge.verdict(reading.account, reading.now)
        if judged is None:
            raise KeptError(UserKept.ACTIVE_AGAIN, "the user was active within --user-timeout")
        if judged.kept is not None:
            raise KeptError(judged.kept, f"the user {judged.why}")

    def _send(self, user: JudgedUser, look: _Look) -> HubError | None:
        """Send the deletion, with nothing but the last checks before; return what went wrong."""
        if not self._election.begin_stop(look.holds_until):
            raise KeptError(UserKept.GATE, "this exporter does not hold the lease long enough")
        self._trail.sending(user)
        error = None
        try:
            if self._clock() >= look.good_until:
                raise KeptError(UserKept.STALE, _TOO_LATE)
            self._hub.delete_user(user.name, look.token)
        except HubError as failed:
            error = failed
        finally:
            self._election.end_stop(answered=error is None or error.status is not None)
        if error is not None and look.token is not None and error.status in (401, 403):
            raise KeptError(UserKept.STALE, _EXPIRED)
        return error

    def _verify(self, user: JudgedUser, error: HubError | None) -> bool:
        """Tell whether the deletion worked, and record it; raise KeptError if the Hub refused it.

        A proxy in front of the Hub may have sent the error, so only the user itself is believed.
        """
        try:
            reading = self._hub.account(user.name)
        except HubError as unseen:
            self._trail.failed(user, (error or unseen).cause, str(error or unseen))
            return False
        if reading is None and error is not None and error.status == 404:
            raise KeptError(UserKept.GONE, "the user no longer existed")
        if reading is None:
            self._trail.deleted(user)
            return True
        if error is not None and error.status == 400:
            self._check_candidate(self._judge(), reading)
        cause, why = (error.cause, str(error)) if error else (Cause.RESPONSE, _STILL_THERE)
        self._trail.failed(user, cause, why)
        return False
