"""The roles to paste: enough, no more than was wanted, and beside whatever is there."""

import ast
from dataclasses import replace
from typing import Any

import pytest

from hub_idle_exporter.domain.policy import Globs, Match, Policy, Rules
from hub_idle_exporter.domain.requirements import Severity, requirements, scope_findings
from hub_idle_exporter.domain.roles import PROBER_ROLE, SERVICE_ROLE, roles
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.domain.settings import BusyCheck, CullSettings, UserSettings

DEFAULT = Policy("default", 3600.0)
PLAIN = Rules((DEFAULT,))
BY_GROUP = Rules((Policy("staff", 3600.0, match=Match(groups=Globs(["staff"]))), DEFAULT))
MONITOR = CullSettings()
REQUIRE, AUTO, OFF = (CullSettings(enforce=True, busy_check=each) for each in BusyCheck)
READ = ["list:users", "read:servers"]
MINT = ["tokens!user=idle-prober", "tokens!service=idle-prober"]
SEES_PROBER = "read:servers!user=idle-prober"
OF_PROBER = ["access:servers", "delete:servers"]
# What everybody has by the role `user`.
OF_ITSELF = ["access:servers!user=idle-prober", "delete:servers!user=idle-prober"]


def printed(
    held: list[str],
    cull: CullSettings = REQUIRE,
    rules: Rules = PLAIN,
    of_prober: list[str] | None = None,
    version: str = "6.1.1",
) -> str:
    needed = requirements(version, cull, rules)
    prober = Granted.of(OF_ITSELF + (of_prober or []))
    return roles("culler", needed, Granted.of(held), "idle-prober", prober)


def pasted(text: str) -> list[dict[str, Any]]:
    """Read roles as jupyterhub_config.py does; the log must not have to escape them."""
    assert '"' not in text
    before, _, value = text.partition("(")
    assert before == "c.JupyterHub.load_roles.extend"
    found: list[dict[str, Any]] = ast.literal_eval(value.removesuffix(")"))
    return found


def scopes(*held: str, of_prober: list[str] | None = None, rules: Rules = PLAIN) -> list[list[str]]:
    """Give the scopes of the service and of the probe user to paste for a token that has some."""
    found = pasted(printed([*held], rules=rules, of_prober=of_prober))
    return [role["scopes"] for role in found]


@pytest.mark.parametrize("cull", [MONITOR, REQUIRE, AUTO, OFF])
@pytest.mark.parametrize("rules", [PLAIN, BY_GROUP])
@pytest.mark.parametrize("version", ["", "5.5.4", "6.1.1"])
def test_they_meet_every_requirement(cull: CullSettings, rules: Rules, version: str) -> None:
    service, *others = pasted(printed([], cull, rules, version=version))
    assert service["services"] == ["culler"]
    needed = requirements(version, cull, rules)
    unmet = scope_findings(needed, Granted.of(service["scopes"]))
    assert [one for one in unmet if one.severity > Severity.NOTE] == []
    assert (set(MINT) <= set(service["scopes"])) == cull.enforce
    of_prober = {"name": PROBER_ROLE, "users": ["idle-prober"], "scopes": OF_PROBER}
    assert others == ([of_prober] if cull.enforce else [])


def test_they_grant_no_more_than_is_needed() -> None:
    assert [role["scopes"] for role in pasted(printed([], MONITOR))] == [READ]


def test_their_names_are_not_those_of_the_documented_roles() -> None:
    """A Hub that finds a role twice does not start."""
    assert not {SERVICE_ROLE, PROBER_ROLE} & {"idle-exporter", "idle-prober", "culler"}
    assert [role["name"] for role in pasted(printed([]))] == [SERVICE_ROLE, PROBER_ROLE]


def test_they_fit_a_terminal_and_one_line_of_the_log() -> None:
    text = printed([], rules=BY_GROUP)
    assert max(map(len, text.splitlines())) <= 80
    in_one_line = "".join(line.strip() for line in text.splitlines())
    assert pasted(in_one_line) == pasted(text)


# ---- filters that were chosen -------------------------------------------------------------------

OF_PHYSICS = ["access:servers!group=physics", "delete:servers!group=physics"]


def test_a_filter_of_the_token_is_kept_and_holds_for_the_probe_user_too() -> None:
    service, prober = scopes(*READ, "delete:servers!group=physics")
    assert service == [
        *READ, "read:users:groups!group=physics", "delete:servers!group=physics", "proxy", *MINT,
    ]  # fmt: skip
    assert prober == OF_PHYSICS


def test_a_scope_that_is_missing_gets_the_filter_of_one_that_is_there() -> None:
    service, prober = scopes("list:users", "read:servers!group=physics")
    assert service == [
        "list:users", "read:servers!group=physics", SEES_PROBER,
        "read:users:groups!group=physics", "delete:servers!group=physics", "proxy", *MINT,
    ]  # fmt: skip
    assert prober == OF_PHYSICS


def test_many_filters_are_all_kept() -> None:
    held = ["delete:servers!user=ana", "delete:servers!server=bo/lab"]
    service, prober = scopes(*READ, *held)
    assert set(held) <= set(service)
    assert "delete:servers" not in service
    assert prober == [
        "access:servers!server=bo/lab", "access:servers!user=ana",
        "delete:servers!server=bo/lab", "delete:servers!user=ana",
    ]  # fmt: skip


def test_users_are_listed_by_user_where_servers_are_filtered_by_server() -> None:
    service, _ = scopes("read:servers!server=bo/lab", "delete:servers")
    assert service[:3] == ["list:users!user=bo", "read:servers!server=bo/lab", SEES_PROBER]
    assert "delete:servers" in service


def test_what_is_not_filtered_stays_so() -> None:
    service, prober = scopes("list:users", "read:servers!group=physics", "delete:servers")
    assert "delete:servers" in service
    assert prober == OF_PROBER


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (["read:servers"], ["read:users:groups"]),
        (["read:servers", "read:users:groups!group=a"], ["read:users:groups"]),
        (["read:servers!group=a"], ["read:users:groups!group=a"]),
        (
            ["read:servers!group=a", "read:users:groups!group=b"],
            ["read:users:groups!group=a", "read:users:groups!group=b"],
        ),
        (["read:servers!group=a", "read:users:groups"], ["read:users:groups"]),
    ],
)
def test_policies_by_group_see_the_groups_of_all_whose_servers_are_seen(
    held: list[str], wanted: list[str]
) -> None:
    service, _ = scopes("list:users", *held, rules=BY_GROUP)
    assert [scope for scope in service if scope.startswith("read:users:groups")] == wanted


def test_filters_of_the_probe_user_are_kept() -> None:
    kept = ["access:servers!group=physics"]
    assert scopes(*READ, "delete:servers", of_prober=kept)[1] == OF_PHYSICS
    assert scopes(*READ, "delete:servers", of_prober=OF_PHYSICS)[1] == OF_PHYSICS
    wide = scopes(*READ, "delete:servers!group=physics", of_prober=["access:servers"])[1]
    assert wide == OF_PROBER


def test_what_lets_the_probe_user_be_seen_is_no_filter_that_was_chosen() -> None:
    service, prober = scopes("list:users", "read:servers!group=physics", SEES_PROBER)
    assert service.count(SEES_PROBER) == 1
    assert [scope for scope in service if "idle-prober" in scope] == [SEES_PROBER, *MINT]
    assert prober == OF_PHYSICS


def test_a_token_with_the_roles_to_paste_is_told_the_same_ones() -> None:
    once = scopes("list:users", "read:servers!group=physics")
    assert scopes(*once[0], of_prober=once[1]) == once


def test_where_users_are_deleted_the_probe_user_may_do_so_within_the_same_filters() -> None:
    cull = replace(REQUIRE, users=UserSettings(delete=True))
    service, prober = (role["scopes"] for role in pasted(printed([], cull)))
    assert {"read:users:activity", "delete:users"} <= set(service)
    assert prober == [*OF_PROBER, "delete:users"]
    _, filtered = pasted(printed([*READ, "delete:users!group=old"], cull))
    assert filtered["scopes"][-1] == "delete:users!group=old"
