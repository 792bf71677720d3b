"""Idle users are deleted, and nobody else is: against a fake Hub over real HTTP."""

import threading
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import fake_hub as faults
import pytest
from answers import TOKENS
from culling_rig import HANG_SECONDS, HOUR, FixedPolicies, MakeRig, Rig
from fake_hub import ENFORCE, OF_PROBER, FakeHub, Reply, Request, User
from turns import watch_turns

from hub_idle_exporter.domain.settings import UserSettings

DAY = 24 * HOUR
DELETE = [*ENFORCE, "admin:users"]
USERS = UserSettings(delete=True)
UNSURE = {"look_failed", "gate", "list", "stale"}  # a single run that keeps users so has failed
Events = list[MutableMapping[str, Any]]


@pytest.fixture
def rig(make_rig: MakeRig, fake_hub: FakeHub) -> Rig:
    return deleting(make_rig, fake_hub)


def deleting(make_rig: MakeRig, hub: FakeHub, **options: Any) -> Rig:
    """Make a sidecar that deletes idle users, with a token that may."""
    hub.tokens[hub.token].scopes = list(options.pop("scopes", DELETE))
    rig = make_rig(users=options.pop("users", USERS), **options)
    hub.users["idle-prober"].created = rig.time
    return rig


def idle(rig: Rig, name: str, days: float = 40, **more: Any) -> User:
    """Register a user who was last active so many days ago."""
    user = rig.hub.users.get(name) or rig.hub.add_user(name, **more)
    user.created = rig.time - 300 * DAY
    user.last_activity = rig.time - days * DAY
    return user


def stopped(rig: Rig, user: str, name: str = "", **more: Any) -> None:
    """Give a user a server that is stopped."""
    more = {"idle": 60 * DAY} | more
    seen = rig.hub.users[user].last_activity if user in rig.hub.users else None
    rig.hub.add_server(user, name, ready=False, stopped=True, **more)
    rig.hub.users[user].last_activity = seen


def listed(rig: Rig) -> bool:
    """Poll, and list users."""
    rig.poll()
    return rig.lister.list_if_due()


def there(rig: Rig) -> set[str]:
    return set(rig.hub.users) - {"idle-prober"}


def deletions(rig: Rig) -> list[str]:
    """List whom the Hub was asked to delete."""
    asked = rig.hub.log("DELETE", "/users/*")
    return [unquote(one.path.split("/")[2]) for one in asked if one.path.count("/") == 2]


def kept(rig: Rig, cause: str) -> float:
    return rig.counted("user_deletions_withheld_total", cause=cause)


def found(rig: Rig, verdict: str) -> float | None:
    return rig.metrics.registry.get_sample_value("jupyterhub_idle_users", {"verdict": verdict})


def assert_kept(rig: Rig, cause: str, *names: str) -> None:
    """List, and expect these users to stay for one reason, each counted once."""
    assert listed(rig) is (cause not in UNSURE)
    assert set(names) <= there(rig)
    assert not set(names) & set(deletions(rig))
    assert kept(rig, cause) == len(names)


# ---- who is deleted ------------------------------------------------------------------------------


def test_idle_users_are_deleted_one_by_one_the_most_idle_first_and_nobody_else(
    rig: Rig, logged: Events
) -> None:
    idle(rig, "ana", 40)
    idle(rig, "old", 400)
    idle(rig, "bob", 29.9)
    rig.run("cy")
    assert listed(rig)
    assert deletions(rig) == ["old", "ana"]
    assert there(rig) == {"bob", "cy"}
    assert rig.counted("users_deleted_total") == 2
    told = [one for one in logged if one["event"] == "user_deleted"]
    assert [(one["user"], one["idle"] // DAY) for one in told] == [("old", 400), ("ana", 40)]


@pytest.mark.parametrize("name", ["we ird@ex.org", "ünï", "a/b", "..", "x?y#z", "%41"])
def test_names_are_quoted(rig: Rig, name: str) -> None:
    idle(rig, name)
    idle(rig, "A", 1)
    assert listed(rig)
    assert there(rig) == {"A"}


def test_the_limit_of_users_is_reached_at_the_limit(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    rig = deleting(make_rig, fake_hub, users=UserSettings(delete=True, timeout=2 * DAY))
    idle(rig, "at", 2)
    idle(rig, "below", 1.999)
    assert listed(rig)
    assert there(rig) == {"below"}


def test_whoever_was_never_active_is_judged_by_its_creation(rig: Rig) -> None:
    for name, created in (("new", 1.0), ("old", 31.0)):
        rig.hub.add_user(name).created = rig.time - created * DAY
    assert listed(rig)
    assert there(rig) == {"new"}


def test_max_age_deletes_nobody(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    rig = deleting(make_rig, fake_hub, max_age=60.0)
    idle(rig, "ana", 1)
    assert listed(rig)
    assert there(rig) == {"ana"}


def test_stopped_servers_do_not_protect(rig: Rig) -> None:
    idle(rig, "ana")
    stopped(rig, "ana")
    stopped(rig, "ana", "gpu")
    assert listed(rig)
    assert there(rig) == set()


# ---- who is not: by what a listing says ----------------------------------------------------------


def test_without_the_option_no_user_is_listed_or_deleted(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    """That is the sidecar's doing, which makes no lister then; here nothing is asked by a poll."""
    rig = deleting(make_rig, fake_hub, users=UserSettings())
    idle(rig, "ana")
    rig.poll()
    assert there(rig) == {"ana"}
    assert not any(one.query.get("state") == "inactive" for one in rig.hub.log("GET", "/users"))


def test_in_monitor_mode_idle_users_are_shown_and_nobody_is_deleted(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    rig = deleting(
        make_rig, fake_hub, enforce=False, scopes=["list:users", "read:servers", "read:users"]
    )
    idle(rig, "ana")
    idle(rig, "root", admin=True)
    assert listed(rig)
    assert (found(rig, "candidate"), found(rig, "admin"), found(rig, "exempt")) == (1, 1, 0)
    assert deletions(rig) == []
    assert kept(rig, "admin") == 0  # nobody was to be deleted


def test_administrators_are_kept_unless_said(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    rig = deleting(make_rig, fake_hub)
    idle(rig, "root", admin=True)
    assert_kept(rig, "admin", "root")
    other = deleting(make_rig, fake_hub, users=UserSettings(delete=True, admins=True))
    other.enforcement.election.release()
    rig.enforcement.election.release()
    assert listed(other)
    assert there(other) == set()


def test_the_probe_user_is_never_deleted(rig: Rig) -> None:
    rig.hub.users["idle-prober"].created = rig.time - 300 * DAY
    assert listed(rig)
    assert "idle-prober" in rig.hub.users
    assert kept(rig, "own") == 1


def test_the_owner_of_our_own_token_is_never_deleted(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    fake_hub.add_user("robot", scopes=DELETE)
    rig = deleting(make_rig, fake_hub, token=fake_hub.add_token(DELETE, user="robot"))
    idle(rig, "robot")
    assert_kept(rig, "own", "robot")


@pytest.mark.parametrize(
    "match",
    [
        {"users": ["an*"]},
        {"groups": "staff"},
        {"users": "ana", "servers": "gpu"},
        {"named": True},
        {"user_options": {"profile": "gpu-*"}},
        {"servers": "x", "admin": False},
    ],
)
def test_an_exempt_policy_keeps_users_whatever_it_says_of_servers(
    make_rig: MakeRig, fake_hub: FakeHub, match: dict[str, Any]
) -> None:
    policies = [
        {"name": "first", "match": {"users": "*"}, "timeout": 60},
        {"name": "keep", "match": match, "exempt": True},
    ]
    rig = deleting(make_rig, fake_hub, policies=policies)
    idle(rig, "ana", groups=["staff"])
    assert_kept(rig, "exempt", "ana")


@pytest.mark.parametrize("match", [{"users": "bob"}, {"groups": "staff"}, {"admin": True}])
def test_an_exempt_policy_for_others_keeps_nobody(
    make_rig: MakeRig, fake_hub: FakeHub, match: dict[str, Any]
) -> None:
    rig = deleting(make_rig, fake_hub, policies=[{"name": "p", "match": match, "exempt": True}])
    idle(rig, "ana")
    assert listed(rig)
    assert there(rig) == set()


@pytest.mark.parametrize("switch", ["cull_default_servers", "cull_named_servers"])
def test_a_user_with_a_server_that_may_not_be_stopped_is_kept(
    make_rig: MakeRig, fake_hub: FakeHub, switch: str
) -> None:
    rig = deleting(make_rig, fake_hub, poll={switch: False})
    idle(rig, "ana")
    stopped(rig, "ana", "" if "default" in switch else "gpu")
    assert_kept(rig, "protected", "ana")
    assert rig.hub.log("GET", "/users/ana") == []  # the listing says so


def test_a_user_outside_the_filter_of_the_token_is_kept(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    scopes = [*ENFORCE, "read:users:activity", "delete:users!group=course"]
    rig = deleting(make_rig, fake_hub, scopes=scopes)
    idle(rig, "ana")
    idle(rig, "bob", groups=["course"])
    assert_kept(rig, "scope", "ana")
    assert "bob" not in there(rig)


def test_whose_last_activity_is_hidden_is_not_judged_by_its_creation(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    scopes = [*ENFORCE, "read:users:activity!user=bob", "delete:users"]
    rig = deleting(make_rig, fake_hub, scopes=scopes)
    idle(rig, "ana")
    idle(rig, "bob")
    listed(rig)
    assert "ana" in there(rig)
    assert "bob" not in there(rig)
    assert kept(rig, "hidden") >= 1


def test_one_without_any_time_is_kept(rig: Rig) -> None:
    rig.hub.add_user("ana").created = None
    assert_kept(rig, "unknown", "ana")


# ---- who is not: by what is seen right before ----------------------------------------------------


def meanwhile(rig: Rig, happening: Any, name: str = "ana") -> None:
    """Let something happen after the listing, right before the user is looked at again."""
    rig.hub.plan("GET", f"/users/{name}", faults.before(happening), times=1)


def test_a_user_who_comes_back_between_listing_and_look_stays(rig: Rig) -> None:
    user = idle(rig, "ana")
    meanwhile(rig, lambda: setattr(user, "last_activity", rig.time))
    assert_kept(rig, "active_again", "ana")


@pytest.mark.parametrize("pending", [None, "spawn", "stop", "check"])
@pytest.mark.parametrize("server", ["", "gpu"])
def test_a_user_whose_server_runs_or_is_pending_at_the_look_stays(
    rig: Rig, pending: str | None, server: str
) -> None:
    """Its last activity alone would not tell: the server has not reported any yet."""
    user = idle(rig, "ana")
    then = user.last_activity

    def starts() -> None:
        rig.hub.add_server("ana", server, idle=40 * DAY, pending=pending)
        user.last_activity = then

    meanwhile(rig, starts)
    assert_kept(rig, "server", "ana")


def test_a_stopped_server_that_is_active_keeps_its_user(rig: Rig) -> None:
    """It has outlived its stop, and the Hub does not tell of its user."""
    idle(rig, "ana")
    stopped(rig, "ana", "gpu", idle=60)
    assert_kept(rig, "active_again", "ana")


def test_an_answer_about_another_user_deletes_nobody(rig: Rig) -> None:
    """A proxy that decodes %2F leads elsewhere."""
    for name in ("x/../bob", "bob"):
        idle(rig, name, 50)

    def of_bob(_request: Request, answer: Callable[[], Reply]) -> Reply:
        said = answer()
        return replace(said, body=said.body.replace(b'"x/../bob"', b'"bob"'))

    rig.hub.plan("GET", "/users/x%2F..%2Fbob", of_bob)
    assert not listed(rig)
    assert there(rig) == {"x/../bob"}
    assert kept(rig, "look_failed") == 1


def test_a_user_who_is_gone_at_the_look_is_not_deleted_again(rig: Rig) -> None:
    idle(rig, "ana")
    meanwhile(rig, lambda: rig.hub.remove_user("ana"))
    assert listed(rig)
    assert deletions(rig) == []
    assert kept(rig, "gone") == 1
    assert rig.counted("users_deleted_total") == 0


def test_a_user_who_cannot_be_looked_at_stays(rig: Rig) -> None:
    idle(rig, "ana")
    rig.hub.plan("GET", "/users/ana", faults.html(500))
    assert_kept(rig, "look_failed", "ana")


def test_a_user_who_became_an_administrator_meanwhile_stays(rig: Rig) -> None:
    user = idle(rig, "ana")
    meanwhile(rig, lambda: setattr(user, "admin", True))
    assert_kept(rig, "admin", "ana")


def test_while_the_gate_is_closed_nobody_is_deleted(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    rig = deleting(make_rig, fake_hub, grace=600)
    idle(rig, "ana")
    assert_kept(rig, "gate", "ana")


def test_a_gate_that_closes_during_the_look_keeps_the_user(rig: Rig) -> None:
    idle(rig, "ana")
    meanwhile(rig, lambda: rig.suspend("the Hub answers no poll"))
    assert_kept(rig, "gate", "ana")


def test_a_shutdown_during_the_look_keeps_the_user(rig: Rig) -> None:
    idle(rig, "ana")
    meanwhile(rig, rig.stopping.set)
    assert_kept(rig, "gate", "ana")


def test_while_the_hub_that_started_us_is_gone_nobody_is_deleted(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    ended = threading.Event()
    rig = deleting(make_rig, fake_hub, orphaned=ended.is_set)
    idle(rig, "ana")
    meanwhile(rig, ended.set)
    assert_kept(rig, "gate", "ana")


def test_a_policy_file_that_has_changed_keeps_all_until_the_next_poll(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    policies = [{"name": "staff", "match": {"users": "staff"}, "exempt": True}]
    rig = deleting(make_rig, fake_hub, policies=policies)
    for name in ("ana", "bob"):
        idle(rig, name)
    assert isinstance(rig.source, FixedPolicies)
    rig.source.current = False
    assert_kept(rig, "gate", "ana", "bob")
    rig.source.current = True
    assert rig.lister.list_if_due()
    assert there(rig) == set()


def test_while_the_policy_file_is_invalid_nobody_is_deleted(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    """Servers go on by the policies before; but who is to be kept now cannot be read."""
    policies = [{"name": "staff", "match": {"users": "staff"}, "exempt": True}]
    rig = deleting(make_rig, fake_hub, policies=policies)
    idle(rig, "ana")
    rig.run("bob")
    assert isinstance(rig.source, FixedPolicies)
    rig.source.error = "policies.yaml: a key is unknown"
    assert_kept(rig, "gate", "ana")
    assert rig.culled() == 1
    rig.source.error = None
    assert listed(rig)
    assert there(rig) == {"bob"}


def test_a_scope_that_is_missing_for_users_is_logged_with_the_roles(
    make_rig: MakeRig, fake_hub: FakeHub, logged: Events
) -> None:
    rig = deleting(make_rig, fake_hub, scopes=ENFORCE)
    assert not listed(rig)
    rig.poll()
    (told,) = (one for one in logged if one["event"] == "user_requirements_not_met")
    assert "lacks the scope read:users:activity" in told["why"]
    assert "'delete:users'" in told["roles"]


def test_without_the_scope_to_delete_servers_are_culled_and_users_kept(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    rig = deleting(make_rig, fake_hub, scopes=[*ENFORCE, "read:users:activity"])
    idle(rig, "ana")
    rig.run("bob")
    assert_kept(rig, "gate", "ana")
    assert rig.culled() == 1


def test_an_exporter_without_the_lease_deletes_nobody(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    first, second = deleting(make_rig, fake_hub), deleting(make_rig, fake_hub)
    fake_hub.clock = lambda: first.time
    idle(first, "ana")
    first.poll()
    assert_kept(second, "gate", "ana")


def test_a_lease_that_ends_too_soon_keeps_the_user(rig: Rig) -> None:
    idle(rig, "ana")
    rig.poll()

    def late() -> None:  # by the Hub's clock the lease is about to end
        rig.hub.clock = lambda: rig.time + 118

    meanwhile(rig, late)
    rig.lister.list_if_due()
    assert deletions(rig) == []
    assert kept(rig, "gate") == 1


def test_a_look_that_is_too_old_deletes_nobody(rig: Rig) -> None:
    """The process was paused between look and deletion."""
    idle(rig, "ana")

    def pause() -> None:
        rig.time += 6

    rig.hub.plan("GET", "/users/ana", faults.after(pause), times=1)
    assert_kept(rig, "stale", "ana")


def test_scopes_that_change_during_the_look_keep_the_user(rig: Rig) -> None:
    idle(rig, "ana")

    def narrower() -> None:
        fewer = ["read:users:activity", "delete:users!user=ana"]
        rig.hub.tokens[rig.hub.token].scopes = [*ENFORCE, *fewer]
        rig.poller.poll()

    rig.hub.plan("GET", "/users/ana", faults.after(narrower), times=1)
    rig.poll()
    rig.lister.list_if_due()
    assert there(rig) == {"ana"}


def test_a_crowd_that_leaves_while_listing_keeps_all(rig: Rig) -> None:
    for number in range(450):
        idle(rig, f"u{number:03}")

    def leave() -> None:
        for number in range(100):
            rig.hub.remove_user(f"u{number:03}")

    rig.poll()
    rig.hub.plan("GET", "/users", faults.after(leave), times=1)
    assert not rig.lister.list_if_due()
    assert deletions(rig) == []
    assert kept(rig, "list") >= 300


def test_no_more_are_deleted_at_a_time_than_max_culls(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    rig = deleting(make_rig, fake_hub, max_culls=2)
    for number in range(5):
        idle(rig, f"u{number}", 40 + number)
    assert listed(rig)
    assert deletions(rig) == ["u4", "u3"]
    assert kept(rig, "limit") == 3


# ---- what became of it ---------------------------------------------------------------------------


def test_a_user_who_is_still_there_counts_as_a_failure(rig: Rig) -> None:
    idle(rig, "ana")
    rig.hub.plan("DELETE", "/users/ana", faults.always(faults.reply(204)))
    assert not listed(rig)
    assert rig.counted("users_deleted_total") == 0
    assert rig.counted("user_deletion_failures_total", cause="response") == 1
    assert found(rig, "candidate") == 1


def done_but_refused(_request: Request, answer: Callable[[], Reply]) -> Reply:
    answer()
    return faults.reply(502)


def test_a_deletion_whose_answer_is_lost_counts_by_what_became_of_the_user(rig: Rig) -> None:
    for name in ("ana", "bob"):
        idle(rig, name)
    rig.hub.plan("DELETE", "/users/ana", done_but_refused)
    rig.hub.plan("DELETE", "/users/bob", faults.html(502))
    assert not listed(rig)
    assert there(rig) == {"bob"}
    assert rig.counted("users_deleted_total") == 1
    assert rig.counted("user_deletion_failures_total", cause="http") == 1


def test_a_deletion_that_is_refused_is_not_repeated_with_a_new_token(rig: Rig) -> None:
    idle(rig, "ana")

    def rotated(_request: Request, _answer: Callable[[], Reply]) -> Reply:
        rig.own_token = rig.hub.add_token(DELETE)
        return faults.reply(403)

    rig.hub.plan("DELETE", "/users/ana", rotated, times=1)
    assert not listed(rig)
    assert deletions(rig) == ["ana"]
    assert there(rig) == {"ana"}


def test_a_server_that_is_stopping_at_the_deletion_keeps_the_user(rig: Rig) -> None:
    idle(rig, "ana")

    def stops() -> None:
        rig.hub.add_server("ana", idle=60 * DAY, pending="stop")

    rig.hub.plan("DELETE", "/users/ana", faults.before(stops))
    assert listed(rig)
    assert there(rig) == {"ana"}
    assert kept(rig, "server") == 1
    assert rig.counted("user_deletion_failures_total", cause="http") == 0


@pytest.mark.parametrize("status", [400, 404])
def test_a_refusal_that_a_proxy_made_up_is_a_failure(rig: Rig, status: int) -> None:
    idle(rig, "ana")
    rig.hub.plan("DELETE", "/users/ana", faults.html(status))
    assert not listed(rig)
    assert rig.counted("user_deletion_failures_total", cause="http") == 1


def test_a_user_whom_somebody_else_deletes_first_is_not_counted_as_deleted(rig: Rig) -> None:
    idle(rig, "ana")
    rig.hub.plan("DELETE", "/users/ana", faults.before(lambda: rig.hub.remove_user("ana")))
    assert listed(rig)
    assert (rig.counted("users_deleted_total"), kept(rig, "gone")) == (0, 1)


@pytest.mark.parametrize("status", [200, 202])
def test_no_other_answer_passes_for_a_deletion(rig: Rig, status: int) -> None:
    idle(rig, "ana")
    rig.hub.plan("DELETE", "/users/ana", faults.always(faults.reply(status)))
    assert not listed(rig)
    assert rig.counted("user_deletion_failures_total", cause="http") == 1


def test_a_404_of_a_proxy_proves_no_deletion(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    idle(rig, "ana")

    def of_a_proxy(_request: Request, _answer: Callable[[], Reply]) -> Reply:
        monkeypatch.setattr(rig.hub, "headers", dict)  # the Hub's own is missing
        return faults.reply(404)

    rig.hub.plan("DELETE", "/users/ana", faults.html(502))
    rig.hub.plan("GET", "/users/ana", of_a_proxy, after=1)
    assert not listed(rig)
    assert rig.counted("users_deleted_total") == 0
    assert rig.counted("user_deletion_failures_total", cause="http") == 1


def test_deletions_that_fail_count_towards_max_culls(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    """The Hub may have deleted the user's data before it failed."""
    rig = deleting(make_rig, fake_hub, max_culls=1)
    for name in ("ana", "bob"):
        idle(rig, name)
    rig.hub.plan("DELETE", "/users/ana", faults.html(500))
    assert not listed(rig)
    assert kept(rig, "limit") == 1
    rig.watch(3601)
    assert listed(rig)
    assert there(rig) == {"ana"}


def test_a_deletion_that_takes_longer_than_we_wait_is_counted_in_the_end(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    rig = deleting(make_rig, fake_hub, request_timeout=HANG_SECONDS)
    idle(rig, "ana")
    rig.hub.plan("DELETE", "/users/ana", faults.hang(rig.stopping))
    assert not listed(rig)
    assert rig.counted("user_deletion_failures_total", cause="timeout") == 1
    rig.hub.remove_user("ana")
    rig.watch(3601)
    assert listed(rig)
    assert rig.counted("users_deleted_total") == 1
    rig.watch(3601)
    assert listed(rig)
    assert rig.counted("users_deleted_total") == 1


def test_a_hub_that_is_away_ends_the_deletions_of_a_listing_for_five_minutes(
    rig: Rig, logged: Events
) -> None:
    for number in range(9):
        idle(rig, f"u{number}")
    rig.poll()
    rig.hub.plan("GET", "/users/u*", faults.html(502))
    assert not rig.lister.list_if_due()
    assert kept(rig, "look_failed") == 9
    (told,) = (one for one in logged if one["event"] == "users_kept")
    assert (told["users"], told["cause"]) == (6, "look_failed")
    rig.hub.heal()
    rig.watch(301)
    assert listed(rig)
    assert there(rig) == set()


def test_those_whose_deletion_failed_do_not_keep_the_others_for_ever(rig: Rig) -> None:
    for number in range(6):
        idle(rig, f"u{number}", 40 + number)
    rig.hub.plan("DELETE", "/users/u[3-5]", faults.html(500))
    assert not listed(rig)
    assert deletions(rig) == ["u5", "u4", "u3"]
    rig.watch(3601)
    assert not listed(rig)
    assert there(rig) == {"u3", "u4", "u5"}


def test_after_three_failures_in_a_row_the_rest_is_left_alone(rig: Rig, logged: Events) -> None:
    for number in range(9):
        idle(rig, f"u{number}", 40 + number)
    rig.hub.plan("DELETE", "/users/u[4-7]", faults.html(500))
    assert not listed(rig)
    assert deletions(rig) == ["u8", "u7", "u6", "u5"]
    assert kept(rig, "failures") == 5
    (told,) = (one for one in logged if one["event"] == "users_kept")
    assert (told["users"], told["cause"]) == (5, "failures")


# ---- the token for it ----------------------------------------------------------------------------


@pytest.fixture
def with_tokens(rig: Rig) -> Rig:
    """A rig whose probe user may delete users."""
    rig.hub.users["idle-prober"].scopes = [*OF_PROBER, "delete:users"]
    return rig


def test_a_deletion_is_sent_with_a_token_for_that_user_minted_before_the_look(
    with_tokens: Rig,
) -> None:
    rig = with_tokens
    idle(rig, "ana")
    assert listed(rig)
    (body,) = rig.minted("delete")
    assert (body["scopes"], body["expires_in"]) == (["delete:users!user=ana"], 3)
    (minted,) = (one for one in rig.hub.log("POST", TOKENS) if one.json() == body)
    looked, verified = rig.hub.log("GET", "/users/ana")
    (delete,) = rig.hub.log("DELETE", "/users/ana")
    assert minted.at < looked.at < delete.at < verified.at
    assert rig.hub.tokens[delete.token].user == "idle-prober"
    assert rig.counted("users_deleted_total") == 1


def test_between_the_token_and_the_look_nothing_is_waited_for(
    with_tokens: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle(with_tokens, "ana")
    turns = watch_turns(with_tokens.hub, monkeypatch)
    assert listed(with_tokens)
    assert [f"POST {TOKENS}", "GET /users/ana"] in turns
    assert there(with_tokens) == set()


def test_expired_tokens_of_deletions_do_not_pile_up_at_the_hub(with_tokens: Rig) -> None:
    """It deletes them when it lists tokens, and answers nobody meanwhile."""
    rig = with_tokens
    for number in range(60):
        idle(rig, f"u{number:02}")
    rig.poll()
    before = len(rig.hub.log("GET", TOKENS))
    assert rig.lister.list_if_due()
    assert rig.counted("users_deleted_total") == 60
    assert len(rig.hub.log("GET", TOKENS)) - before == 60 // 25


def test_a_deletion_that_arrives_after_its_token_expired_keeps_the_user(with_tokens: Rig) -> None:
    rig = with_tokens
    idle(rig, "ana")

    def late() -> None:
        rig.hub.clock = lambda: rig.time + 4

    rig.hub.plan("DELETE", "/users/ana", faults.before(late))
    assert not listed(rig)
    assert there(rig) == {"ana"}
    assert kept(rig, "stale") == 1
    assert rig.counted("user_deletion_failures_total", cause="auth") == 0


def test_without_that_scope_of_the_probe_user_they_are_deleted_with_our_own_token(
    rig: Rig,
) -> None:
    idle(rig, "ana")
    assert listed(rig)
    (delete,) = rig.hub.log("DELETE", "/users/ana")
    assert delete.token == rig.own_token
    (said,) = (str(one) for one in rig.latest.state.findings if "delete:users" in str(one))
    assert "lacks delete:users: a deletion that is delayed" in said


def test_a_user_for_whom_no_token_can_be_minted_stays(with_tokens: Rig) -> None:
    rig = with_tokens
    idle(rig, "ana")
    rig.poll()
    rig.hub.plan("POST", TOKENS, faults.html(500))
    assert not rig.lister.list_if_due()
    assert kept(rig, "look_failed") == 1
    assert deletions(rig) == []


# ---- when ----------------------------------------------------------------------------------------


def listings(rig: Rig) -> int:
    asked = rig.hub.log("GET", "/users")
    return sum((one.query["state"], one.query["offset"]) == ("inactive", "0") for one in asked)


def test_users_are_listed_once_an_hour(rig: Rig) -> None:
    for _ in range(3):
        listed(rig)
    assert listings(rig) == 1
    rig.watch(3599)
    listed(rig)
    assert listings(rig) == 1
    rig.watch(2)
    listed(rig)
    assert listings(rig) == 2


def test_users_are_listed_anew_once_the_gate_opens(make_rig: MakeRig, fake_hub: FakeHub) -> None:
    rig = deleting(make_rig, fake_hub, grace=600)
    idle(rig, "ana")
    listed(rig)
    assert listings(rig) == 1
    rig.watch(601)
    listed(rig)
    assert (listings(rig), there(rig)) == (2, set())


def test_a_listing_that_was_cut_off_is_made_again_once_the_gate_opens(rig: Rig) -> None:
    for name in ("ana", "bob"):
        idle(rig, name)
    rig.poll()
    meanwhile(rig, lambda: rig.suspend("the Hub answers no poll"))
    assert not rig.lister.list_if_due()
    assert kept(rig, "gate") == 2
    rig.poll()
    assert rig.lister.list_if_due()
    assert there(rig) == set()


def test_max_culls_holds_for_an_hour_however_often_users_are_listed(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    rig = deleting(make_rig, fake_hub, max_culls=2)
    for number in range(9):
        idle(rig, f"u{number}")
    rig.poll()
    meanwhile(rig, lambda: rig.suspend("the Hub answers no poll"), "u1")
    assert not rig.lister.list_if_due()
    rig.poll()
    assert rig.lister.list_if_due()
    assert listings(rig) == 2
    assert deletions(rig) == ["u0", "u1"]
    rig.watch(3601)
    assert listed(rig)
    assert len(deletions(rig)) == 4


def test_what_a_look_finds_is_shown(rig: Rig) -> None:
    for name in ("ana", "bob"):
        idle(rig, name)
    meanwhile(rig, lambda: setattr(rig.hub.users["ana"], "admin", True), "ana")
    meanwhile(rig, lambda: setattr(rig.hub.users["bob"], "last_activity", rig.time), "bob")
    assert listed(rig)
    assert (found(rig, "candidate"), found(rig, "admin")) == (0, 1)


def test_a_listing_that_takes_too_long_is_tried_again_in_an_hour(
    make_rig: MakeRig, fake_hub: FakeHub
) -> None:
    rig = deleting(make_rig, fake_hub, request_timeout=HANG_SECONDS)
    rig.poll()
    rig.hub.plan("GET", "/users", faults.hang(rig.stopping))
    assert not rig.lister.list_if_due()
    rig.hub.heal()
    rig.watch(301)
    listed(rig)
    assert listings(rig) == 1
    rig.watch(3300)
    listed(rig)
    assert listings(rig) == 2


def test_nothing_is_listed_before_a_poll_has_succeeded_or_while_polls_fail(rig: Rig) -> None:
    idle(rig, "ana")
    assert rig.lister.list_if_due()
    rig.hub.plan("GET", "/user", faults.html(500))
    rig.poll()
    rig.lister.list_if_due()
    assert listings(rig) == 0
    assert found(rig, "candidate") is None


def test_a_listing_that_fails_is_told_and_tried_again_after_five_minutes(
    rig: Rig, logged: Events
) -> None:
    idle(rig, "ana", 1)
    rig.poll()
    rig.hub.plan("GET", "/users", faults.html(500))
    assert not rig.lister.list_if_due()
    assert [one["cause"] for one in logged if one["event"] == "users_not_listed"] == ["http"]
    assert found(rig, "candidate") is None
    assert rig.latest.listing_failed
    rig.hub.heal()
    listed(rig)
    assert listings(rig) == 1
    rig.watch(301)
    assert listed(rig)
    assert listings(rig) == 2
    assert not rig.latest.listing_failed


def test_without_the_scope_to_see_activity_it_is_told_and_listed_once_it_is_granted(
    rig: Rig,
) -> None:
    idle(rig, "ana", 1)
    assert listed(rig)
    rig.hub.tokens[rig.hub.token].scopes = [*ENFORCE, "delete:users"]
    assert not listed(rig)
    assert (listings(rig), rig.latest.listing_failed, found(rig, "own")) == (1, True, None)
    rig.hub.tokens[rig.hub.token].scopes = DELETE
    assert listed(rig)
    assert (listings(rig), rig.latest.listing_failed, found(rig, "own")) == (2, False, 0)


def test_of_a_hub_that_sorts_only_the_idle_are_read(rig: Rig) -> None:
    for number in range(1000):
        idle(rig, f"u{number:03}", 0.0 if number > 250 else 60.0)
    assert listed(rig)
    assert len(there(rig)) == 749
    asked = [one for one in rig.hub.log("GET", "/users") if one.query["state"] == "inactive"]
    assert int(asked[-1].query["offset"]) <= 251


@pytest.mark.parametrize("version", ["3.0.0", "4.1.6"])
def test_an_older_hub_is_read_whole(make_rig: MakeRig, fake_hub: FakeHub, version: str) -> None:
    fake_hub.version = version
    rig = deleting(make_rig, fake_hub)
    for number in range(450):
        idle(rig, f"u{number:03}", 60.0 if number == 449 else 1.0)
    assert listed(rig)
    assert len(there(rig)) == 449
