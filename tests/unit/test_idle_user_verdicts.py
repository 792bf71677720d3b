"""What keeps an idle user whom the Hub describes oddly, or only in part: examples, one each."""

import json
from typing import Any

import msgspec
import pytest

from hub_idle_exporter.domain.idle_users import UserJudge
from hub_idle_exporter.domain.labels import UserKept
from hub_idle_exporter.domain.model import Account
from hub_idle_exporter.domain.policy import Globs, Judge, Match, Policy, Rules
from hub_idle_exporter.domain.scopes import Granted
from hub_idle_exporter.domain.settings import UserSettings

NOW = 1_800_000_000.0
LONG_AGO = "2020-01-01T00:00:00Z"
DEFAULT = Policy("default", 3600.0)
STAFF = Policy("staff", 3600.0, exempt=True, match=Match(groups=Globs(["staff"])))
STOPPED = {"stopped": True, "ready": False, "pending": None, "last_activity": LONG_AGO}
IDLE: dict[str, Any] = {
    "name": "ana", "admin": False, "groups": [], "created": LONG_AGO, "last_activity": LONG_AGO,
    "servers": {"": STOPPED},
}  # fmt: skip


def verdict(account: dict[str, Any], *policies: Policy) -> UserKept | str:
    judge = Judge(Rules((*policies, DEFAULT)), Granted())
    users = UserJudge(judge, UserSettings(delete=True), frozenset())
    judged = users.verdict(msgspec.json.decode(json.dumps(account), type=Account), NOW)
    return "active" if judged is None else judged.kept or "candidate"


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in IDLE.items() if key not in keys}


def with_server(**changes: object) -> dict[str, Any]:
    server = {key: value for key, value in (STOPPED | changes).items() if value != "missing"}
    return IDLE | {"servers": {"lab": server}}


@pytest.mark.parametrize("account", [IDLE, IDLE | {"servers": {}}, with_server()])
def test_an_idle_user_is_a_candidate(account: dict[str, Any]) -> None:
    assert verdict(account) == "candidate"
    assert verdict(account, STAFF) == "candidate"


@pytest.mark.parametrize(
    "account", [with_server(stopped="missing"), with_server(stopped=False),
                with_server(ready=True), with_server(pending="spawn")]
)  # fmt: skip
def test_a_server_is_at_rest_only_where_the_hub_says_so_in_full(account: dict[str, Any]) -> None:
    assert verdict(account) is UserKept.SERVER


@pytest.mark.parametrize("hidden", ["servers", "admin", "last_activity"])
def test_whose_data_is_hidden_is_kept(hidden: str) -> None:
    assert verdict(without(hidden)) is UserKept.HIDDEN


def test_who_may_be_in_an_exempt_group_is_kept() -> None:
    assert verdict(without("groups"), STAFF) is UserKept.EXEMPT
    assert verdict(without("groups")) == "candidate"
