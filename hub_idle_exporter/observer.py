"""Reads the Hub once: its version, what the token may do, all servers, each one judged."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from .clocks import read_clocks
from .culling.gatekeeper import Gatekeeper
from .domain.census import census_of, judge_all
from .domain.gate import ClockReading
from .domain.policy import Rules
from .domain.poll_state import PollError, PollState, Snapshot
from .domain.probe_user import ProbeUser, probe_user_findings, safeguards, unseen
from .domain.requirements import (
    Finding,
    Severity,
    Subject,
    clock_findings,
    grants,
    requirements,
    scope_findings,
    version_findings,
    visibility_findings,
)
from .domain.scopes import Granted, Scope
from .domain.settings import CullSettings, PollSettings
from .hub.active_users import ActiveUsers
from .hub.client import Hub
from .hub.errors import HubError
from .people.state_file import StateFile
from .policy_file import PolicySource
from .prometheus.second_opinion import SecondOpinion
from .watched_file import FileError


class Observer:
    """Reads the Hub once and computes the next poll state; it counts and stops nothing.

    Args:
        hub: the Hub to read.
        source: the policy file; None without one.
        poll: how servers are judged.
        cull: what the token must allow.
        gatekeeper: knows by how much the Hub's clock and ours differ.
        promised: knows what people keep, and what was announced.
        clocks: reads our clocks.
        second_opinion: knows who is at work; None without one.
    """

    def __init__(
        self,
        hub: Hub,
        source: PolicySource | None,
        poll: PollSettings,
        cull: CullSettings,
        gatekeeper: Gatekeeper,
        promised: StateFile,
        clocks: Callable[[], ClockReading] = read_clocks,
        second_opinion: SecondOpinion | None = None,
    ) -> None:
        self._hub, self._source = hub, source
        self._active_users = ActiveUsers(hub, lambda: clocks().monotonic)
        self._poll, self._cull = poll, cull
        self._gatekeeper, self._promised, self._clocks = gatekeeper, promised, clocks
        self._second_opinion = second_opinion

    def see_hub(self) -> None:
        """Check that the Hub answers; raise HubError if it does not."""
        self._hub.ask_version()

    def reread_files(self) -> None:
        """Read the policy file again if it has changed, and the state file of another exporter.

        What cannot be used leaves what was read before.
        """
        with suppress(FileError):
            self._promised.read_again()
        if self._source is not None:
            self._source.refresh()

    def observe(self, before: PollState, keep_all: bool = False) -> PollState:
        """Read the Hub and return the new state, whether the poll succeeded or failed.

        The state names the servers that are past a limit; with `keep_all`, all servers.
        """
        begun = self._clocks()
        rules = rules_of(self._source, self._poll)
        state = replace(
            before,
            rules=rules,
            requirements=requirements(before.version or "", self._cull, rules),
            policy_error=self._source.error if self._source else None,
            error=None,
            keeps=self._promised.keeps,
            announcements=self._promised.announcements,
        )
        with_servers = partial(self._with_servers, keep_all)
        steps = (self._with_version, self._with_token, with_servers, self._with_probe_user)
        for step in steps:
            state = self._tried(step, state)
            if state.error is not None:
                self._active_users.forget()
                break
        seconds = self._clocks().monotonic - begun.monotonic
        return self._with_clocks(replace(state, duration=seconds))

    def _tried(self, step: Callable[[PollState], PollState], state: PollState) -> PollState:
        """Take a step; the poll has failed if the Hub does not answer it."""
        try:
            return step(state)
        except HubError as error:
            problem = PollError(error.cause, str(error), error.retry_after)
            return state.failed(problem, self._clocks())

    def _with_findings(self, state: PollState, findings: tuple[Finding, ...]) -> PollState:
        """Replace the findings; the poll has failed if the Hub cannot be monitored."""
        state = replace(state, findings=findings)
        fatal = next((one for one in findings if one.severity is Severity.FATAL), None)
        if fatal is None:
            return state
        return state.failed(PollError(fatal.cause, str(fatal), finding=fatal), self._clocks())

    def _with_version(self, state: PollState) -> PollState:
        version = self._hub.version or self._hub.ask_version()
        if version_findings(version, self._cull):  # it may have been upgraded since
            version = self._hub.ask_version()
        state = replace(state, version=version)
        findings = version_findings(version, self._cull)
        return self._with_findings(state, findings) if findings else state

    def _with_token(self, state: PollState) -> PollState:
        """Add whose token it is, what it may do, and what it lacks for these settings."""
        identity = self._hub.identity()
        version, granted = self._hub.version or "", Granted.of(identity.scopes)
        needed = requirements(version, self._cull, state.rules)
        state = replace(
            state,
            version=version,
            identity=identity,
            granted=granted,
            requirements=needed,
        )
        findings = (*version_findings(version, self._cull), *scope_findings(needed, granted))
        return self._with_findings(state, findings)

    def _with_servers(self, keep_all: bool, state: PollState) -> PollState:
        """Add all servers, judged, unless the Hub hides what must be visible."""
        listing = self._active_users.read()
        users, hidden = listing.users.values(), listing.hidden_users
        granted = state.granted or Granted()
        found = visibility_findings(users, hidden, granted, state.rules)
        state = self._with_findings(state, (*state.findings, *found))
        if state.error is not None:
            return state
        if self._second_opinion is not None:
            state = replace(state, opinion=self._second_opinion.ask())
        census = census_of(judge_all(state.judge, users, listing.now), state.rules, keep_all)
        snapshot = Snapshot(
            listing.now,
            census,
            listing.complete,
            hidden,
            listing.unreadable,
            full_list_age=listing.now - listing.full_at,
        )
        return state.succeeded(snapshot, self._clocks())

    def _with_probe_user(self, state: PollState) -> PollState:
        """Add who owns the minted tokens, if the next pass may need some.

        A sign-in as that user leaves no trace in the list of users, so it is looked at at the start
        and whenever something may be stopped.
        """
        granted, needed = state.granted or Granted(), state.requirements
        may_mint = self._cull.enforce and grants(needed, Scope.TOKENS, granted)
        seen = state.probe_user
        idle = state.snapshot is None or not state.snapshot.census.candidates
        found = probe_user_findings(seen, self._cull) if seen else ()
        fine = seen is not None and all(one.is_about_users for one in found)
        try:
            if not may_mint:
                seen = None
            elif seen is None or not idle or not fine:
                seen = self._see_probe_user()
        except HubError as error:  # nothing is known, so nothing is given up
            return self._with_findings(state, (*state.findings, unseen(self._cull, str(error))))
        given = safeguards(self._cull, grants(needed, Scope.PROXY, granted), may_mint, seen)
        found = probe_user_findings(seen, self._cull) if seen else ()
        state = replace(state, probe_user=seen, safeguards=given)
        return self._with_findings(state, (*state.findings, *found))

    def _see_probe_user(self) -> ProbeUser:
        """Look at the probe user, and at all that a token of it could do; may raise HubError."""
        name = self._cull.probe_user
        reading = self._hub.user(name, stopped_servers=True)
        if reading is None:
            return ProbeUser(name, None, None)
        try:
            minted = self._hub.mint_token(name, None, 1, "what it may do")
        except HubError as error:
            if error.status not in (400, 401, 403, 404):
                raise
            return ProbeUser(name, reading.user, None, str(error))
        return ProbeUser(name, reading.user, tuple(minted.scopes))

    def _with_clocks(self, state: PollState) -> PollState:
        """Add by how much the Hub's clock and ours differ."""
        skew = self._gatekeeper.clock_skew()
        others = (one for one in state.findings if one.subject is not Subject.CLOCKS)
        findings = (*others, *clock_findings(skew, self._cull))
        return replace(state, clock_skew=skew, findings=findings)


def rules_of(source: PolicySource | None, poll: PollSettings) -> Rules:
    """Return the rules that apply now."""
    policies = source.value if source else (poll.default,)
    return Rules(policies, poll.cull_default_servers, poll.cull_named_servers)
