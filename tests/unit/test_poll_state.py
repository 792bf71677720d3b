"""What is known after polls that went this way or that, and what it says to its readers."""

from dataclasses import FrozenInstanceError, replace

import poll_states
import pytest

from hub_idle_exporter.domain.gate import ClockReading
from hub_idle_exporter.domain.model import Identity
from hub_idle_exporter.domain.poll_state import INTERVALS_UNTIL_STALE, PollState
from hub_idle_exporter.domain.probe_user import NO_SAFEGUARDS, ProbeUser
from hub_idle_exporter.domain.requirements import Finding, Severity, Subject
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import CullSettings


def at(seconds: float) -> ClockReading:
    """Both clocks at a moment; the wall's is far ahead, and may not be mixed up."""
    return ClockReading(seconds, seconds + 1.8e9)


def test_nothing_is_suspended_nor_allowed_before_the_first_poll() -> None:
    state = poll_states.at_start()
    assert state.suspended_by is None
    assert state.is_stale(at(0), 60.0)
    assert (state.seconds_since_success(at(0)), state.seconds_failing(at(0))) == (None, None)


@pytest.mark.parametrize(
    ("severity", "suspends"),
    [(Severity.NOTE, False), (Severity.WARNING, False), (Severity.SUSPENDS, True)],
)
def test_what_is_grave_enough_suspends(severity: Severity, suspends: bool) -> None:
    finding = Finding(Subject.SCOPE, severity, "something is missing")
    state = replace(poll_states.good(), findings=(finding,))
    assert state.suspended_by == (("something is missing",) if suspends else ())


def test_a_failed_poll_suspends_and_keeps_what_was_known_of_the_token() -> None:
    known = replace(poll_states.good(now=at(10)), granted=Granted.of(["list:users"]))
    state = poll_states.failed("it is away", known, at(70))
    assert state.suspended_by == ("the last poll failed: it is away",)
    assert state.snapshot is None
    assert state.granted == known.granted
    assert state.seconds_since_success(at(100)) == 90


def test_everything_that_suspends_is_told() -> None:
    state = poll_states.good("one thing", "another")
    assert state.suspended_by == ("one thing", "another")


def test_nothing_protects_people_before_the_first_poll() -> None:
    """Whoever reads the state then must not be told that servers are asked."""
    assert poll_states.at_start().safeguards == NO_SAFEGUARDS
    assert len(NO_SAFEGUARDS.lacks) == 3


def test_the_roles_to_paste_are_those_of_this_service_and_this_probe_user() -> None:
    cull = CullSettings(enforce=True, probe_user="other")
    finding = Finding(Subject.PROBE_USER_ROLE, Severity.SUSPENDS, "it is missing")
    state = replace(PollState.at_start(poll_states.RULES, cull), findings=(finding,))
    assert "'services': ['idle-exporter']" in state.roles  # not known yet
    assert "'users': ['other']" in state.roles
    known = replace(state, identity=Identity("culler", "service", []))
    assert "'services': ['culler']" in known.roles
    seen = ProbeUser("other", None, ("access:servers!group=a", "access:servers!user=other"))
    assert "'delete:servers!group=a'" in replace(known, probe_user=seen).roles
    granted = Granted.of(["delete:servers!group=b"])
    assert "'access:servers!group=b'" in replace(known, granted=granted).roles


@pytest.mark.parametrize(
    ("finding", "shown"),
    [
        (Finding(Subject.PROBE_USER_ROLE, Severity.WARNING, "it is missing"), True),
        (Finding(Subject.SCOPE, Severity.SUSPENDS, "it is missing", Scope.TOKENS), True),
        (Finding(Subject.SCOPE, Severity.NOTE, "it would be needed", Scope.TOKENS), False),
        (Finding(Subject.PROBE_USER, Severity.SUSPENDS, "somebody signed in"), False),
        (Finding(Subject.CLOCKS, Severity.SUSPENDS, "set both by NTP"), False),
    ],
)
def test_roles_are_shown_where_they_help(finding: Finding, shown: bool) -> None:
    state = PollState.at_start(poll_states.RULES, CullSettings(enforce=True))
    assert state.roles == ""
    assert bool(replace(state, findings=(finding,)).roles) == shown


def test_polls_fail_since_the_first_that_failed() -> None:
    state = poll_states.failed(now=at(10))
    state = poll_states.failed(before=state, now=at(70))
    assert state.seconds_failing(at(100)) == 90
    good = poll_states.good(now=at(130))
    assert good.seconds_failing(at(200)) is None
    assert (good.error, good.suspended_by) == (None, ())


@pytest.mark.parametrize(
    ("seconds", "stale"), [(0, False), (179.9, False), (180, True), (1000, True)]
)
def test_stale_is_three_intervals_old(seconds: float, stale: bool) -> None:
    assert INTERVALS_UNTIL_STALE == 3
    assert poll_states.good(now=at(50)).is_stale(at(50 + seconds), 60.0) is stale


def test_a_clock_set_back_makes_nothing_younger_than_now() -> None:
    assert poll_states.good(now=at(50)).seconds_since_success(at(0)) == 0


def test_it_cannot_be_changed_in_place() -> None:
    state: PollState = poll_states.good()
    with pytest.raises(FrozenInstanceError):
        state.error = None  # type: ignore[misc]
