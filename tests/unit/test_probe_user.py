"""The user who owns the minted tokens: what is wrong with it, and what protects people."""

from dataclasses import replace
from datetime import datetime, timezone

import msgspec
import pytest
from msgspec import UNSET

from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.probe_user import (
    NO_SAFEGUARDS,
    ProbeUser,
    Safeguards,
    probe_user_findings,
    safeguards,
    too_wide,
    unseen,
)
from hub_idle_exporter.domain.requirements import Severity, Subject
from hub_idle_exporter.domain.settings import BusyCheck, CullSettings, UserSettings

MONITOR = CullSettings()
REQUIRE, AUTO, OFF = (CullSettings(enforce=True, busy_check=each) for each in BusyCheck)
NAME = "idle-prober"
AT = datetime(2027, 1, 15, 8, tzinfo=timezone.utc)
# What JupyterHub 6.1.1 lists for a token without scopes of a user who has the prober's role only.
OF_USER = [
    "read:servers",
    "read:shares",
    "read:tokens",
    "read:users",
    "read:users:activity",
    "read:users:groups",
    "read:users:name",
    "read:users:shares",
    "servers",
    "start:servers",
    "tokens",
    "users:activity",
    "users:shares",
]
SCOPES = ("access:servers", "delete:servers", *(f"{scope}!user={NAME}" for scope in OF_USER))
# The default server that every user has, on every Hub, though nobody ever started it.
ALWAYS_THERE = {"": Server()}
FINE = ProbeUser(NAME, User(NAME, False, (), ALWAYS_THERE), SCOPES)


def seen(**of_user: object) -> ProbeUser:
    """Give the prober with one thing about it changed."""
    assert FINE.user is not None
    return replace(FINE, user=msgspec.structs.replace(FINE.user, **of_user))


def sentence(
    found: ProbeUser, subject: Subject, severity: Severity, cull: CullSettings = REQUIRE
) -> str:
    """Give the one finding's sentence; it must be about that, and that grave."""
    (finding,) = probe_user_findings(found, cull)
    assert (finding.subject, finding.severity) == (subject, severity)
    assert NAME in str(finding)
    return str(finding)


def dangerous(found: ProbeUser, cull: CullSettings) -> str:
    """Give the sentence of a finding that no role to paste would help against."""
    assert not any(one.is_about_roles for one in probe_user_findings(found, cull))
    return sentence(found, Subject.PROBE_USER, Severity.SUSPENDS, cull)


@pytest.mark.parametrize("cull", [REQUIRE, AUTO, OFF])
def test_nothing_is_wrong_with_a_user_nobody_uses(cull: CullSettings) -> None:
    """Its default server is always listed, and is no evidence."""
    assert probe_user_findings(FINE, cull) == ()


# ---- unusable: as grave as the option says ------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (ProbeUser(NAME, None, None), f"the Hub shows no user {NAME}"),
        (replace(FINE, scopes=None, refused="HTTP 403"), "can be minted: HTTP 403"),
        (replace(FINE, scopes=SCOPES[1:]), "lacks access:servers"),
        (replace(FINE, scopes=(SCOPES[0], *SCOPES[2:])), "lacks delete:servers"),
        (replace(FINE, scopes=SCOPES[2:]), "lacks access:servers and delete:servers"),
    ],
)
def test_a_user_whose_tokens_cannot_be_used_is_as_grave_as_the_option_says(
    found: ProbeUser, said: str
) -> None:
    for cull, severity in (
        (REQUIRE, Severity.SUSPENDS),
        (AUTO, Severity.WARNING),
        (OFF, Severity.WARNING),
    ):
        assert said in sentence(found, Subject.PROBE_USER_ROLE, severity, cull)
        assert all(one.is_about_roles for one in probe_user_findings(found, cull))


def test_a_hub_that_does_not_answer_suspends_in_every_mode() -> None:
    """It may answer at the next poll: until then it takes no safeguard away."""
    for cull in (REQUIRE, AUTO, OFF):
        found = unseen(cull, "HTTP 500")
        assert (found.severity, found.is_about_roles) == (Severity.SUSPENDS, False)
        assert str(found) == f"the user {NAME} could not be looked at: HTTP 500"


def test_a_user_that_is_missing_is_told_how_to_get() -> None:
    said = sentence(ProbeUser(NAME, None, None), Subject.PROBE_USER_ROLE, Severity.SUSPENDS)
    assert "load_roles" in said
    assert f"read:servers!user={NAME}" in said


# ---- dangerous: suspends in every mode ----------------------------------------------------------

# What the Hub says of the default server of a user who signed in and came to the page that starts
# it; of one that starts, runs, was stopped; and of a named one, whatever its state.
USED = {
    "signed in": {"": Server(user_options=msgspec.Raw(b"{}"))},
    "starting": {"": Server(pending="spawn", user_options=msgspec.Raw(b"{}"))},
    "starting, without options": {"": Server(pending="spawn")},
    "running": {"": Server(ready=True, started=AT, last_activity=AT)},
    "running, never active": {"": Server(ready=True)},
    "stopping": {"": Server(pending="stop")},
    "stopped": {"": Server(last_activity=AT)},
    "named": {"": Server(), "lab": Server()},
    "only named": {"lab": Server(ready=True, started=AT)},
}


@pytest.mark.parametrize("cull", [REQUIRE, AUTO, OFF])
@pytest.mark.parametrize("servers", USED.values(), ids=USED)
def test_a_sign_in_suspends_in_every_mode(servers: dict[str, Server], cull: CullSettings) -> None:
    said = dangerous(seen(servers=servers), cull)
    assert f"somebody signed in as {NAME}" in said
    assert "refuse its sign-in" in said


@pytest.mark.parametrize("cull", [REQUIRE, AUTO, OFF])
def test_an_administrator_suspends_in_every_mode(cull: CullSettings) -> None:
    said = dangerous(seen(admin=True), cull)
    assert "administrator" in said


@pytest.mark.parametrize("cull", [REQUIRE, AUTO, OFF])
@pytest.mark.parametrize("field", ["admin", "servers"])
def test_what_cannot_be_seen_of_it_suspends_in_every_mode(field: str, cull: CullSettings) -> None:
    """A token filtered to other users sees neither a sign-in nor an administrator."""
    said = dangerous(seen(**{field: UNSET}), cull)
    assert f"grant read:servers!user={NAME}" in said


@pytest.mark.parametrize("cull", [REQUIRE, AUTO, OFF])
@pytest.mark.parametrize("scope", ["admin:users", "servers", "tokens", "read:users", "proxy"])
def test_more_scopes_than_needed_suspend_in_every_mode(scope: str, cull: CullSettings) -> None:
    said = dangerous(replace(FINE, scopes=(*SCOPES, scope)), cull)
    assert said.endswith(f"more scopes than it needs: {scope}")


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = replace(
        seen(admin=True, servers={"": Server(ready=True)}), scopes=("admin:users", "delete:servers")
    )
    findings = probe_user_findings(found, AUTO)
    assert [one.severity for one in findings] == [Severity.WARNING, *[Severity.SUSPENDS] * 3]


# ---- scopes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "wide"),
    [
        (SCOPES, []),
        (("access:servers!group=g", "delete:servers!server=ana/"), []),
        ((*SCOPES, "shutdown", "admin:servers"), ["admin:servers", "shutdown"]),
        (("read:users!user=ana",), ["read:users!user=ana"]),
        ((f"read:users!user={NAME}2",), [f"read:users!user={NAME}2"]),
        ((f"servers!group=x!user={NAME}2",), [f"servers!group=x!user={NAME}2"]),
        (("delete:users",), []),
        # What Hubs may let everybody do, and what changes nothing: the role `user`.
        (("access:services", "list:users", "list:groups", "read:users:name"), []),
        (("access:services!service=grafana",), []),
    ],
)
def test_too_wide_is_what_reaches_beyond_the_user_itself(
    scopes: tuple[str, ...], wide: list[str]
) -> None:
    assert too_wide(scopes, NAME) == wide


# ---- what protects people -----------------------------------------------------------------------

ALL = Safeguards(asks_servers=True, stop_tokens=True, lease=True)


@pytest.mark.parametrize(
    ("cull", "given"),
    [
        (REQUIRE, ALL),
        (AUTO, ALL),
        (OFF, replace(ALL, asks_servers=False)),
        (MONITOR, NO_SAFEGUARDS),
    ],
)
def test_with_everything_granted_only_the_option_leaves_servers_unasked(
    cull: CullSettings, given: Safeguards
) -> None:
    assert safeguards(cull, True, True, FINE) == given


@pytest.mark.parametrize("cull", [REQUIRE, AUTO])
@pytest.mark.parametrize(
    ("may_find", "may_mint", "found", "given"),
    [
        (False, True, FINE, replace(ALL, asks_servers=False)),
        (True, False, FINE, NO_SAFEGUARDS),
        (True, True, None, NO_SAFEGUARDS),
        (True, True, replace(FINE, scopes=None), NO_SAFEGUARDS),
        (True, True, replace(FINE, scopes=SCOPES[1:]), replace(ALL, asks_servers=False)),
        (True, True, replace(FINE, scopes=SCOPES[:1]), replace(ALL, stop_tokens=False)),
        (True, True, replace(FINE, scopes=()), replace(NO_SAFEGUARDS, lease=True)),
    ],
)
def test_each_safeguard_needs_its_own_scopes(
    cull: CullSettings,
    may_find: bool,
    may_mint: bool,
    found: ProbeUser | None,
    given: Safeguards,
) -> None:
    assert safeguards(cull, may_find, may_mint, found) == given


def test_what_is_missing_is_told_each_by_itself() -> None:
    assert ALL.complete
    assert ALL.lacks == ()
    fields = ("asks_servers", "stop_tokens", "lease")
    for field, word in zip(fields, ("asked", "stop token", "lease"), strict=True):
        lacking = replace(ALL, **{field: False})
        assert not lacking.complete
        (said,) = lacking.lacks
        assert word in said
    assert len(NO_SAFEGUARDS.lacks) == 3


# ---- deleting users -----------------------------------------------------------------------------

DELETES = replace(REQUIRE, users=UserSettings(delete=True))


def test_it_may_delete_users_and_where_nobody_is_deleted_that_is_noted() -> None:
    """To leave --cull-users out for a while is no reason to stop culling servers."""
    able = replace(FINE, scopes=(*SCOPES, "delete:users"))
    assert probe_user_findings(able, DELETES) == ()
    said = sentence(able, Subject.DELETIONS, Severity.NOTE)
    assert "has delete:users, which is not needed" in said


def test_without_that_scope_deletions_are_less_safe() -> None:
    said = sentence(FINE, Subject.DELETIONS, Severity.WARNING, DELETES)
    assert "lacks delete:users: a deletion that is delayed" in said
    for scopes, able in ((SCOPES, False), ((*SCOPES, "delete:users!group=g"), True)):
        given = safeguards(DELETES, True, True, replace(FINE, scopes=scopes))
        assert given.deletion_tokens is able
        assert given.complete
