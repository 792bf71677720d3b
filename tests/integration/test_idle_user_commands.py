"""What `servers --users`, `check` and a single run say of idle users."""

import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fake_hub as faults
import in_process
import pytest
from conftest import RunExporter
from fake_hub import ENFORCE, FakeHub, FakeServer, Reply, Request, closed_port, reply
from fake_hub.exchange import Fault

DAY = 86400.0
READ = ["list:users", "read:servers", "read:users:activity", "read:users"]
DELETES = [*ENFORCE, "admin:users"]
CULL_USERS = ("--enforce", "--cull-users")
COLUMNS = ["user", "idle", "verdict", "why"]


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    """A Hub with two users to delete, and some who are kept."""
    idle_users(fake_hub, "ana", "we ird@ex.org", "boss", "staff")
    fake_hub.users["ana"].last_activity = fake_hub.clock() - 400 * DAY
    fake_hub.users["boss"].admin = True
    fake_hub.add_server("works", idle=5)
    fake_hub.add_user("new")
    return fake_hub


def idle_users(hub: FakeHub, *names: str) -> None:
    for name in names:
        user = hub.add_user(name)
        user.created = hub.clock() - 500 * DAY
        user.last_activity = hub.clock() - 40 * DAY


def of_idle_users(answer: Reply) -> Fault:
    """Let only the listing of idle users fail."""

    def fault(request: Request, true: Callable[[], Reply]) -> Reply:
        return answer if request.query.get("state") == "inactive" else true()

    return fault


def command(
    name: str, directory: Path, hub: FakeHub, *arguments: str, scopes: Sequence[str] = DELETES
) -> in_process.Done:
    hub.token = hub.add_token(list(scopes))
    given = [name, *arguments] if name else list(arguments)
    there = set(hub.users)
    done = in_process.run(given, directory, hub.url, hub.token)
    assert "--once" in arguments or set(hub.users) == there
    return done


# ---- servers --users ----------------------------------------------------------------------------


def rows(directory: Path, hub: FakeHub, *arguments: str) -> list[dict[str, Any]]:
    done = command("servers", directory, hub, "--users", "--json", *arguments)
    assert (done.code, done.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_the_users_are_listed_as_json_the_most_idle_first(hub: FakeHub, tmp_path: Path) -> None:
    found = rows(tmp_path, hub)
    assert all(list(row) == COLUMNS for row in found)
    assert [(row["user"], row["verdict"]) for row in found] == [
        ("ana", "candidate"), ("we ird@ex.org", "candidate"), ("boss", "keep"),
        ("staff", "candidate"),
    ]  # fmt: skip
    assert found[0]["idle"] == pytest.approx(400 * DAY, abs=5)
    assert found[2]["why"] == "is an administrator of the Hub (see --cull-admin-users)"


@pytest.mark.parametrize(
    ("options", "candidates"),
    [
        (["--user-timeout=100d"], {"ana"}),
        (["--cull-admin-users"], {"ana", "boss", "staff", "we ird@ex.org"}),
        (["--user-timeout=500d"], set()),
    ],
)
def test_the_options_decide_who_is_listed(
    hub: FakeHub, tmp_path: Path, options: list[str], candidates: set[str]
) -> None:
    found = rows(tmp_path, hub, *options)
    assert {row["user"] for row in found if row["verdict"] == "candidate"} == candidates


def test_a_policy_that_exempts_is_shown(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies: [{name: staff, match: {users: staff}, exempt: true}]")
    (staff,) = (r for r in rows(tmp_path, hub, f"--policy-file={file}") if r["user"] == "staff")
    assert (staff["verdict"], staff["why"]) == ("keep", "may match a policy that exempts")


def test_the_table_says_what_becomes_of_them(hub: FakeHub, tmp_path: Path) -> None:
    done = command("servers", tmp_path, hub, "--users")
    lines = done.out.splitlines()
    assert lines[0].split() == [column.upper() for column in COLUMNS]
    assert re.match(r"ana +(400d|399d23h59m\S+) +candidate +is past --user-timeout$", lines[1])
    assert "needs --enforce and --cull-users and cannot be undone" in done.err
    assert "Without --cull-users nobody is deleted." in done.err
    done = command("servers", tmp_path, hub, "--users", *CULL_USERS)
    assert "Without --cull-users" not in done.err


def test_an_empty_table_says_so(fake_hub: FakeHub, tmp_path: Path) -> None:
    done = command("servers", tmp_path, fake_hub, "--users")
    assert (done.code, done.out) == (0, "No users are idle past --user-timeout.\n")
    assert rows(tmp_path, fake_hub) == []


def test_to_list_them_no_scope_to_delete_is_needed(hub: FakeHub, tmp_path: Path) -> None:
    assert command("servers", tmp_path, hub, "--users", scopes=READ).code == 0


def test_without_the_scope_to_see_activity_one_line_names_it(hub: FakeHub, tmp_path: Path) -> None:
    done = command("servers", tmp_path, hub, "--users", scopes=ENFORCE)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert "lacks the scope read:users:activity" in done.err


def test_a_hub_that_cannot_be_read_is_one_line(hub: FakeHub, tmp_path: Path) -> None:
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}/hub/api"
        done = in_process.run(["servers", "--users"], tmp_path, url, hub.token)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    hub.plan("GET", "/users", of_idle_users(reply(500)))
    done = command("servers", tmp_path, hub, "--users")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "HTTP 500" in done.err


# ---- check --------------------------------------------------------------------------------------


def test_check_says_who_would_be_deleted_and_who_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    done = command("check", tmp_path, hub, *CULL_USERS)
    assert done.code == 0, done.out
    assert "ok       scope read:users:activity" in done.out
    assert "ok       scope delete:users" in done.out
    assert (
        "warning  3 users idle for 30d would be deleted, which cannot be undone, now, after the "
        "grace period of 10m" in done.out
    )
    assert re.search(r"ana: idle (400d|399d23h)", done.out)
    assert "idle users who are kept, by verdict: admin 1" in done.out
    assert "boss" not in done.out
    assert "may be deleted too" not in done.out


def test_check_warns_that_administrators_may_be_deleted(hub: FakeHub, tmp_path: Path) -> None:
    done = command("check", tmp_path, hub, *CULL_USERS, "--cull-admin-users")
    assert "warning  administrators of the Hub may be deleted too (--cull-admin-users)" in done.out
    assert "4 users idle for 30d" in done.out


@pytest.mark.parametrize("missing", ["read:users:activity", "delete:users"])
def test_check_names_a_scope_that_is_missing_for_users(
    hub: FakeHub, tmp_path: Path, missing: str
) -> None:
    scopes = {*ENFORCE, "read:users:activity", "read:users", "delete:users"} - {missing}
    if missing == "read:users:activity":
        scopes -= {"read:users"}  # which contains it
    done = command("check", tmp_path, hub, *CULL_USERS, scopes=sorted(scopes))
    assert done.code == 1
    (problem,) = (line for line in done.out.splitlines() if line.startswith("PROBLEM"))
    assert f"lacks the scope {missing}" in problem


def test_check_does_not_speak_of_users_unless_asked(hub: FakeHub, tmp_path: Path) -> None:
    done = command("check", tmp_path, hub, "--enforce", scopes=ENFORCE)
    assert done.code == 0, done.out
    for word in ("delete:users", "read:users:activity", "idle users", "would be deleted"):
        assert word not in done.out
    assert all(one.query.get("state") != "inactive" for one in hub.log("GET", "/users"))


def test_check_says_that_they_cannot_be_listed(hub: FakeHub, tmp_path: Path) -> None:
    hub.plan("GET", "/users", of_idle_users(reply(500)))
    done = command("check", tmp_path, hub, *CULL_USERS)
    assert done.code == 1
    assert "PROBLEM  idle users could not be listed" in done.out


def test_check_says_that_nobody_would_be_deleted(fake_hub: FakeHub, tmp_path: Path) -> None:
    done = command("check", tmp_path, fake_hub, *CULL_USERS)
    assert "ok       no user is idle for 30d and would be deleted" in done.out


def test_check_says_how_many_at_most(hub: FakeHub, tmp_path: Path) -> None:
    done = command("check", tmp_path, hub, *CULL_USERS, "--max-culls=2")
    assert "3 users idle for 30d would be deleted (at most 2 an hour), which" in done.out


@pytest.mark.parametrize("given", [["check", *CULL_USERS], ["servers", "--users", "--json"]])
def test_gaps_in_the_list_are_told(hub: FakeHub, tmp_path: Path, given: list[str]) -> None:
    crowd = [f"u{number:03}" for number in range(300)]
    idle_users(hub, *crowd)

    def leave(request: Request, true: Callable[[], Reply]) -> Reply:
        answer = true()
        for name in crowd[:100] if request.query.get("state") == "inactive" else ():
            hub.remove_user(name)
        return answer

    hub.plan("GET", "/users", leave, after=1, times=1)
    hub.token = hub.add_token(DELETES)
    done = in_process.run(given, tmp_path, hub.url, hub.token)
    assert "changed too much while it was read; it may have gaps" in done.out + done.err


# ---- a single run -------------------------------------------------------------------------------


def test_a_single_run_deletes_them_once(hub: FakeHub, tmp_path: Path) -> None:
    done = command("", tmp_path, hub, *CULL_USERS, "--once", "--grace=0")
    assert done.code == 0, done.err
    assert {"ana", "staff", "we ird@ex.org"}.isdisjoint(hub.users)
    assert {"boss", "new", "works"} <= set(hub.users)


def test_a_single_run_that_knows_of_no_outage_deletes_nobody(hub: FakeHub, tmp_path: Path) -> None:
    there = set(hub.users)
    done = command("", tmp_path, hub, *CULL_USERS, "--once")
    assert done.code == 1
    assert set(hub.users) >= there
    assert "cause=gate" in done.err
    assert "deletes users only with --grace 0" in done.err


def test_a_single_run_fails_where_a_user_could_not_be_deleted(hub: FakeHub, tmp_path: Path) -> None:
    hub.plan("DELETE", "/users/ana", faults.always(reply(500)))
    done = command("", tmp_path, hub, *CULL_USERS, "--once", "--grace=0")
    assert done.code == 1
    assert "ana" in hub.users
    assert "staff" not in hub.users


@pytest.mark.parametrize("options", [["--cull-users"], ["--enforce"], ["--cull-admin-users"]])
def test_only_both_options_together_delete_users(
    hub: FakeHub, tmp_path: Path, options: list[str]
) -> None:
    there = set(hub.users)
    done = command("", tmp_path, hub, *options, "--once", "--grace=0")
    assert done.code == 0, done.err
    assert set(hub.users) >= there


# ---- the sidecar --------------------------------------------------------------------------------


def test_while_a_deletion_hangs_servers_are_stopped_and_a_signal_ends_all(
    hub: FakeHub, run_exporter: RunExporter
) -> None:
    hub.token = hub.add_token(DELETES)
    hub.plan("DELETE", "/users/ana", faults.hang(threading.Event()))
    with FakeServer() as server:
        exporter = run_exporter(hub, *CULL_USERS, "--grace=0", "--interval=1", "--timeout=1h")
        hub.wait_for("DELETE", "/users/ana")
        hub.add_server("idles", idle=7200, age=9000, target=server)
        exporter.wait_event("culled", user="idles")
        assert exporter.stop() == 0
    (told,) = exporter.events("deletion_cut_short")
    assert told["user"] == "ana"
    assert exporter.events("user_deleted") == []
    (warned,) = exporter.events("users_are_deleted")
    assert "users idle for 30d are deleted, administrators are kept" in warned["why"]
