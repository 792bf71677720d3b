"""What the token and the Hub must allow: which scope, what for, and how grave its lack is."""

from dataclasses import replace

import pytest

from hub_idle_exporter.domain.labels import Cause
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Globs, Match, Policy, Rules
from hub_idle_exporter.domain.requirements import (
    Finding,
    Severity,
    Subject,
    clock_findings,
    grants,
    requirements,
    scope_findings,
    token_grants,
    version_findings,
    visibility_findings,
)
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import BusyCheck, CullSettings, UserSettings

DEFAULT = Policy("default", 3600.0)
PLAIN = Rules((DEFAULT,))
BY_GROUP = Rules((Policy("staff", 3600.0, match=Match(groups=Globs(["staff"]))), DEFAULT))
BY_ADMIN = Rules((Policy("admins", 3600.0, match=Match(admin=True)), DEFAULT))
MONITOR = CullSettings()
REQUIRE, AUTO, OFF = (CullSettings(enforce=True, busy_check=each) for each in BusyCheck)
READ = ["list:users", "read:servers"]
CULL = [*READ, "delete:servers"]
MINT = ["tokens!user=idle-prober", "tokens!service=idle-prober"]
ASK = ["proxy", *MINT]
DELETES = UserSettings(delete=True)
N, W, K, S, F = Severity


def found(
    cull: CullSettings, held: list[str], version: str = "6.1.1", rules: Rules = PLAIN
) -> tuple[Finding, ...]:
    return scope_findings(requirements(version, cull, rules), Granted.of(held))


@pytest.mark.parametrize(
    ("cull", "rules", "severities"),
    [
        (MONITOR, PLAIN, [F, F, N, N, N, N]),
        (MONITOR, BY_GROUP, [F, F, S, N, N, N]),
        (AUTO, PLAIN, [F, F, N, S, W, W]),
        (REQUIRE, BY_GROUP, [F, F, S, S, S, S]),
        (OFF, PLAIN, [F, F, N, S, N, W]),
        (replace(MONITOR, users=DELETES), PLAIN, [F, F, N, N, N, N, K, N]),
        (replace(REQUIRE, users=DELETES), PLAIN, [F, F, N, S, S, S, K, K]),
    ],
)
def test_each_scope_is_as_grave_as_what_fails_without_it(
    cull: CullSettings, rules: Rules, severities: list[Severity]
) -> None:
    needed = requirements("6.1.1", cull, rules)
    assert [one.scope for one in needed] == list(Scope)[: len(severities)]
    assert [one.severity for one in needed] == severities


def grave(findings: tuple[Finding, ...]) -> list[Finding]:
    """Leave out what these settings do not need."""
    return [one for one in findings if one.severity > Severity.NOTE]


@pytest.mark.parametrize("missing", CULL)
def test_a_missing_scope_is_named_with_what_it_is_for(missing: str) -> None:
    held = [*CULL, *ASK]
    (finding,) = grave(found(REQUIRE, [scope for scope in held if scope != missing]))
    assert (finding.subject, finding.scope, finding.missing) == (Subject.SCOPE, missing, (missing,))
    assert finding.cause is Cause.SCOPE
    assert f"lacks the scope {missing}, which is needed to " in str(finding)


def test_a_scope_that_is_not_needed_is_a_note() -> None:
    notes = found(MONITOR, READ)
    assert [one.scope for one in notes] == list(Scope)[2:6]
    assert {one.severity for one in notes} == {Severity.NOTE}
    assert all("would be needed to" in str(one) for one in notes)


def test_a_filter_is_no_lack() -> None:
    filtered = ["list:users!group=g", "read:servers!group=g", "delete:servers!user=ana", *ASK]
    assert grave(found(REQUIRE, filtered)) == []


@pytest.mark.parametrize(
    ("version", "held", "missing"),
    [
        ("6.1.1", [], ("proxy", *MINT)),
        ("6.1.1", ["tokens!user=somebody", "proxy"], tuple(MINT)),
        ("6.1.1", MINT, ("proxy",)),
        ("6.1.1", ASK, ()),
        ("6.1.1", ["proxy", MINT[0]], ()),  # as roles for 6.1 could be written
        ("6.1.1", ["proxy", MINT[1]], (MINT[0],)),
        ("6.1.1", ["proxy", "tokens"], ()),
        ("5.5.4", ["proxy", MINT[0]], (MINT[1],)),
        ("5.5.4", ["proxy", MINT[1]], (MINT[0],)),
        ("5.5.4", ASK, ()),
        ("5.5.4", ["proxy", "tokens"], ()),
        ("", ["proxy", MINT[0]], (MINT[1],)),  # a Hub that is not known yet
        ("", ASK, ()),
    ],
)
@pytest.mark.parametrize(
    ("cull", "severity"), [(AUTO, Severity.WARNING), (REQUIRE, Severity.SUSPENDS)]
)
def test_what_is_missing_to_ask_servers_is_named_and_as_grave_as_the_option_says(
    version: str, held: list[str], missing: tuple[str, ...], cull: CullSettings, severity: Severity
) -> None:
    needed, granted = requirements(version, cull, PLAIN), Granted.of([*CULL, *held])
    findings = grave(scope_findings(needed, granted))
    assert tuple(scope for one in findings for scope in one.missing) == missing
    assert {one.severity for one in findings} == ({severity} if missing else set())
    assert grants(needed, Scope.TOKENS, granted) == (set(missing) <= {"proxy"})
    assert grants(needed, Scope.PROXY, granted) == ("proxy" not in missing)


def test_servers_must_be_asked_by_default() -> None:
    """Whoever migrates from the idle culler with that culler's roles must not become blind."""
    migrated = CullSettings(enforce=True)
    assert migrated.busy_check is BusyCheck.REQUIRE
    findings = grave(found(migrated, CULL))
    assert {one.severity for one in findings} == {Severity.SUSPENDS}
    assert [one.scope for one in findings] == [Scope.PROXY, Scope.TOKENS]


def test_what_a_role_is_to_list_does_not_depend_on_the_hub() -> None:
    """Both forms of `tokens` from the start: who upgrades or moves the Hub changes no role."""
    assert token_grants("idle-prober") == tuple(MINT)
    for version in ("", "5.5.4", "6.1.1"):
        (tokens,) = (r for r in requirements(version, REQUIRE, PLAIN) if r.scope is Scope.TOKENS)
        assert tokens.grants == tuple(MINT)


def test_the_probe_users_name_is_in_what_is_asked_for() -> None:
    named = CullSettings(enforce=True, busy_check=BusyCheck.REQUIRE, probe_user="other")
    (finding,) = grave(found(named, [*CULL, *ASK]))
    assert finding.missing == ("tokens!user=other", "tokens!service=other")


def test_without_asking_no_address_is_needed_but_tokens_still_are() -> None:
    """They stop servers, and elect one exporter: without them that is less certain."""
    assert grave(found(OFF, [*CULL, *MINT])) == []
    (finding,) = grave(found(OFF, CULL))
    assert (finding.scope, finding.severity) == (Scope.TOKENS, Severity.WARNING)
    assert grave(found(MONITOR, READ)) == []


@pytest.mark.parametrize("skew", [None, 0.0, 60.0, -60.0, 59.9])
def test_clocks_a_minute_apart_are_near_enough(skew: float | None) -> None:
    assert clock_findings(skew, REQUIRE) == ()


@pytest.mark.parametrize(
    ("skew", "side"), [(60.1, "ahead of"), (7200.0, "ahead of"), (-61.0, "behind")]
)
def test_clocks_over_a_minute_apart_forbid_stops_by_name(skew: float, side: str) -> None:
    """With the Hub two hours ahead, everybody who was active seconds ago was stopped."""
    for cull in (REQUIRE, AUTO, OFF):
        (finding,) = clock_findings(skew, cull)
        assert (finding.subject, finding.severity) == (Subject.CLOCKS, Severity.SUSPENDS)
        assert f"{abs(skew):.0f} s {side}" in str(finding)
        assert not finding.is_about_roles
    (noted,) = clock_findings(skew, MONITOR)
    assert noted.severity is Severity.NOTE


@pytest.mark.parametrize(
    ("version", "cull", "severities"),
    [
        ("6.1.1", REQUIRE, []),
        ("3.0.0", REQUIRE, []),
        ("2.3.1", REQUIRE, [Severity.SUSPENDS]),
        ("2.3.1", MONITOR, []),
        ("1.5.1", MONITOR, [Severity.FATAL]),
        ("soon", MONITOR, [Severity.FATAL]),
    ],
)
def test_old_hubs(version: str, cull: CullSettings, severities: list[Severity]) -> None:
    findings = version_findings(version, cull)
    assert [one.severity for one in findings] == severities
    assert all(one.subject is Subject.VERSION for one in findings)
    assert all(one.cause is Cause.RESPONSE for one in findings)


RUNNING = {"": Server(ready=True)}
SEEN = User("ana", False, ("staff",), RUNNING)
GROUPS_HIDDEN = User("bob", False, servers=RUNNING)
ADMIN_HIDDEN = User("cy", groups=(), servers=RUNNING)
NO_SERVERS_SEEN = User("dee")
ALL = Granted.of([*READ, "read:users:groups"])


@pytest.mark.parametrize(
    ("users", "rules", "hides"),
    [
        ([SEEN], BY_GROUP, False),
        ([SEEN, GROUPS_HIDDEN], BY_GROUP, True),
        ([SEEN, GROUPS_HIDDEN], PLAIN, False),
        ([ADMIN_HIDDEN], BY_ADMIN, True),
        ([ADMIN_HIDDEN], BY_GROUP, False),
        ([NO_SERVERS_SEEN], BY_GROUP, False),
    ],
)
def test_what_a_policy_matches_on_must_be_seen(
    users: list[User], rules: Rules, hides: bool
) -> None:
    findings = visibility_findings(users, 0, ALL, rules)
    assert [one.subject for one in findings] == ([Subject.HIDDEN_POLICY_DATA] if hides else [])


def test_servers_are_hidden_by_a_filter_alone() -> None:
    (finding,) = visibility_findings([NO_SERVERS_SEEN], 1, ALL, PLAIN)
    assert (finding.subject, finding.severity) == (Subject.HIDDEN_SERVERS, Severity.FATAL)
    filtered = Granted.of(["list:users", "read:servers!group=g"])
    assert visibility_findings([NO_SERVERS_SEEN], 1, filtered, PLAIN) == ()
