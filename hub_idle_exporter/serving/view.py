"""What the page at `/` says, computed from one reading: typed, frozen, without clock or I/O.

Durations are seconds, times are seconds since 1970. A view has no user names without
`--per-server-metrics`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..domain.gate import GateState
from ..domain.labels import Outcome, Withheld
from ..domain.policy import Reason, State
from ..domain.requirements import Finding, Requirement, Severity
from ..domain.roles import names_people
from ..domain.settings import BusyCheck
from ..domain.str_enum import StrEnum
from ..domain.totals import Totals
from .counts import Count, counted
from .facts import Facts, PolicyRow, facts_of, policy_rows
from .reading import Reading
from .users import Users, users_of
from .wording import ANSWERS, FAILED, MEANINGS, POLL_FAILURES, WITHHELD

_REFRESH_SECONDS = (5, 60)
# A pass in which nothing else happened has neither stopped nor rightly spared a server.
_IN_VAIN: frozenset[Outcome | Withheld] = frozenset(
    (Outcome.FAILED, Withheld.PROBE_FAILED, Withheld.LIST, Withheld.STALE, Withheld.QUERY_FAILED)
)


class Freshness(StrEnum):
    """How current the facts about the Hub are."""

    FIRST = "first"  # no poll has finished yet
    FAILED = "failed"
    STALE = "stale"  # no poll has finished for three intervals
    FRESH = "fresh"


class Tone(StrEnum):
    """The colour of the mode: green only if servers are stopped with every protection."""

    CALM = "calm"  # this exporter is not to stop anything
    GOOD = "good"
    WARN = "warn"


@dataclass(frozen=True)
class Culls:
    """What culling has come to: in the last pass, and since the start.

    `last_pass` has only outcomes that occurred.
    """

    last_pass: tuple[Count, ...]
    stopped: tuple[tuple[str, Mapping[Reason, int]], ...]  # by policy
    withheld: tuple[Count, ...]
    failed: tuple[Count, ...]
    answers: tuple[Count, ...]

    @property
    def candidates(self) -> int:
        """Count the candidates of the last pass."""
        return sum(one.count for one in self.last_pass)

    @property
    def total(self) -> int:
        """Count all servers that were stopped since the start."""
        return sum(sum(reasons.values()) for _, reasons in self.stopped)


class ScopeStatus(StrEnum):
    """Whether the token has a scope, and whether that matters."""

    GRANTED = "granted"
    MISSING = "missing"
    UNUSED = "not granted, not needed"
    UNKNOWN = "not known yet"


@dataclass(frozen=True)
class Mode:
    """Whether servers are stopped: in a few words, and in a sentence."""

    headline: str
    why: str
    tone: Tone


@dataclass(frozen=True)
class Unmet:
    """What is missing, as sentences.

    `findings` are requirements that are not met, `lacks` is what protects people only if they are,
    and `roles` is what to paste into jupyterhub_config.py; empty if other roles would not help.
    `hidden` tells that there are roles, but that they name users who must not be named here.
    `about_users_only` tells that servers are stopped all the same, with every protection.
    """

    findings: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    roles: str = ""
    hidden: bool = False
    about_users_only: bool = False


@dataclass(frozen=True)
class View:
    """The page, before it is rendered."""

    reading: Reading
    freshness: Freshness
    mode: Mode
    unmet: Unmet
    facts: Facts | None
    policies: tuple[PolicyRow, ...]
    culls: Culls | None  # None: nothing is ever stopped
    users: Users | None  # None without --cull-users
    poll_failures: tuple[Count, ...]
    scopes: tuple[tuple[Requirement, ScopeStatus], ...]
    asking: str
    refresh: int

    @property
    def light(self) -> str:
        """Return the colour of the browser's tab: green only if all is well."""
        if self.freshness is Freshness.FAILED or self.reading.not_stopped:
            return "red"
        well = self.freshness is Freshness.FRESH and self.mode.tone is not Tone.WARN
        broken = self.reading.state.policy_error or not self.reading.web_config_valid
        broken = broken or self.reading.listing_failed or self.reading.opinion_failed
        unmet = self.unmet.findings or broken or self.reading.undelivered.count
        left_out = self.facts is not None and self.facts.unreadable_users
        return "green" if well and not (unmet or left_out) else "amber"

    @property
    def title(self) -> str:
        """Return the text of the browser's tab."""
        if self.freshness is Freshness.FAILED:
            return "Poll failed"
        if self.facts is None:
            return "First poll"
        return f"{self.facts.states[State.IDLE]:,} idle of {self.facts.running:,}"

    @property
    def idle_hours(self) -> float:
        """Return how many hours servers were idle past their limit since the start."""
        return sum(self.reading.totals.idle_server_seconds.values()) / 3600


def view_of(reading: Reading) -> View:
    """Compute the page."""
    least, most = _REFRESH_SECONDS
    unmet = _unmet(reading)
    return View(
        reading=reading,
        freshness=_freshness(reading),
        mode=_mode(reading, unmet),
        unmet=unmet,
        facts=facts_of(reading),
        policies=policy_rows(reading),
        culls=_culls(reading) if reading.enforces else None,
        users=users_of(reading),
        poll_failures=counted(POLL_FAILURES, reading.totals.poll_failures),
        scopes=_scopes(reading),
        asking=_asking(reading),
        refresh=int(max(least, min(most, reading.settings.poll.interval))),
    )


def _freshness(reading: Reading) -> Freshness:
    if reading.census is None:
        return Freshness.FIRST if reading.state.error is None else Freshness.FAILED
    stale = reading.state.is_stale(reading.now, reading.settings.poll.interval)
    return Freshness.STALE if stale else Freshness.FRESH


def _mode(reading: Reading, unmet: Unmet) -> Mode:
    if reading.gate.state is GateState.OFF:
        why = "Nothing is stopped without --enforce, and no user's server is contacted."
        return Mode("Monitoring", why, Tone.CALM)
    if reading.gate.state is GateState.ON:
        return _enforcing(reading, unmet)
    if reading.stands_by:
        return Mode("Standing by", f"{_sentence(reading.gate.why)}.", Tone.CALM)
    if reading.gate.state is GateState.GRACE:
        then = " The first poll after it stops servers." if reading.starts_at else ""
        return Mode("Waiting", f"{_sentence(reading.gate.why)}.{then}", Tone.WARN)
    return Mode("Suspended", _suspended(reading), Tone.WARN)


def _enforcing(reading: Reading, unmet: Unmet) -> Mode:
    if not reading.state.safeguards.asks_servers:
        headline = "Enforcing, but servers are not asked"
        return Mode(headline, "Silent computations are stopped.", Tone.WARN)
    if unmet.lacks:
        return Mode("Enforcing, with less protection", f"{_sentence(unmet.lacks[0])}.", Tone.WARN)
    if reading.last_pass.outcomes and set(reading.last_pass.outcomes) <= _IN_VAIN:
        why = "No candidate could be stopped, or asked. The log says why."
        return Mode("Enforcing, but the last pass stopped nothing", why, Tone.WARN)
    why = "Servers past their limit are stopped, unless they say that they are in use."
    return Mode("Enforcing", why, Tone.GOOD)


def _suspended(reading: Reading) -> str:
    """Say what is waited for, without repeating what the page says further down."""
    state = reading.state
    if state.error is not None:
        return "Nothing is stopped until the Hub can be read again."
    if state.suspended_by:
        return "Nothing is stopped until the requirements below are met."
    return f"{_sentence(reading.gate.why)}."


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _unmet(reading: Reading) -> Unmet:
    """Say what is missing; if it is what made the poll fail, the page says so elsewhere."""
    state = reading.state
    fatal = state.error is not None and state.error.finding is not None
    if state.snapshot is None and not fatal:
        return Unmet()
    told = (Severity.WARNING, Severity.KEEPS_USERS, Severity.SUSPENDS)
    found = [one for one in state.findings if one.severity in told]
    sentences = tuple(_shown(reading, one) for one in found)
    enforcing = reading.enforces and state.suspended_by == ()
    lacks = state.safeguards.lacks if enforcing else ()
    hidden = not reading.names_servers and names_people(state.roles, state.probe_user_name)
    users_only = not lacks and bool(found) and all(one.is_about_users for one in found)
    return Unmet(sentences, lacks, "" if hidden else state.roles, hidden, users_only)


def _shown(reading: Reading, finding: Finding) -> str:
    """Say what is missing, unless that names users who must not be named here."""
    if reading.names_servers or not names_people(str(finding), reading.state.probe_user_name):
        return str(finding)
    return "an unmet requirement names users, so it is not shown here: run hub-idle-exporter check"


def _culls(reading: Reading) -> Culls:
    totals, outcomes = reading.totals, reading.last_pass.outcomes
    return Culls(
        last_pass=counted(MEANINGS, {(value,): count for value, count in outcomes.items()}),
        stopped=_stopped(totals),
        withheld=counted(WITHHELD, totals.withheld),
        failed=counted(FAILED, totals.cull_failures),
        answers=counted(ANSWERS, totals.busy_checks),
    )


def _stopped(totals: Totals) -> tuple[tuple[str, Mapping[Reason, int]], ...]:
    names = dict.fromkeys(policy for policy, _ in totals.culls)
    return tuple(
        (name, {reason: int(totals.culls.get((name, reason), 0)) for reason in Reason})
        for name in names
    )


def _scopes(reading: Reading) -> tuple[tuple[Requirement, ScopeStatus], ...]:
    return tuple((one, _scope_status(one, reading)) for one in reading.state.requirements)


def _scope_status(requirement: Requirement, reading: Reading) -> ScopeStatus:
    state = reading.state
    if state.granted is None:
        return ScopeStatus.UNKNOWN
    if all(finding.scope is not requirement.scope for finding in state.findings):
        return ScopeStatus.GRANTED
    needed = requirement.severity > Severity.NOTE
    return ScopeStatus.MISSING if needed else ScopeStatus.UNUSED


def _asking(reading: Reading) -> str:
    """Say whether the busy check is on, and why not."""
    state = reading.state
    if not reading.enforces:
        return "off: in monitor mode no user's server is contacted"
    if reading.settings.cull.busy_check is BusyCheck.OFF:
        return "off (--busy-check): last_activity alone decides"
    if state.safeguards.asks_servers:
        return "on: each server is asked whether it is busy before it is stopped"
    if state.granted is None:
        return "not known until a poll succeeds"
    return "not possible: the roles of the token or of the probe user do not allow it"
