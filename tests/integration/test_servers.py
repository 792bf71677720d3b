"""`servers`: all servers with verdicts, the most idle first, as a table and as JSON."""

import json
from pathlib import Path
from typing import Any

import fake_hub as faults
import in_process
import pytest
from fake_hub import FakeHub, closed_port

COLUMNS = ["user", "server", "state", "idle", "age", "policy", "verdict", "why"]


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    """A Hub with servers in every state."""
    fake_hub.add_server("ana", idle=7200, age=90_000)
    fake_hub.add_server("ana", "my srv", idle=30, age=600)
    fake_hub.add_server("we ird@ex.org", idle=86_400, age=172_800)
    fake_hub.add_server("new", pending="spawn", idle=None, age=5)
    fake_hub.add_server("odd", idle=None, age=None)
    return fake_hub


def servers(directory: Path, hub: FakeHub, *arguments: str, url: str = "") -> in_process.Done:
    return in_process.run(["servers", *arguments], directory, url or hub.url, hub.token)


def rows(directory: Path, hub: FakeHub, *arguments: str) -> list[dict[str, Any]]:
    done = servers(directory, hub, "--json", *arguments)
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_json(hub: FakeHub, tmp_path: Path) -> None:
    found = rows(tmp_path, hub)
    assert all(list(row) == COLUMNS for row in found)
    assert [(row["user"], row["server"]) for row in found] == [
        ("we ird@ex.org", ""), ("ana", ""), ("ana", "my srv"), ("new", ""), ("odd", ""),
    ]  # fmt: skip
    assert [row["state"] for row in found] == ["idle", "idle", "active", "pending", "active"]
    assert [row["verdict"] for row in found] == ["stop", "stop", "keep", "keep", "keep"]
    assert found[1]["idle"] == pytest.approx(7200, abs=5)
    assert found[1]["age"] == pytest.approx(90_000, abs=5)
    assert (found[4]["idle"], found[4]["age"]) == (None, None)
    assert found[0]["why"] == "is past its idle limit"
    assert found[4]["why"] == "has no known last activity"


def test_table(hub: FakeHub, tmp_path: Path) -> None:
    done = servers(tmp_path, hub)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == [column.upper() for column in COLUMNS]
    assert len(lines) == 6
    assert lines[1].startswith("we ird@ex.org  (default)  idle")
    assert "?" in lines[5]
    assert len({line.index("default  ") for line in lines[1:]}) == 1, "columns are aligned"


def test_it_changes_nothing_and_asks_no_server(hub: FakeHub, tmp_path: Path) -> None:
    with faults.FakeServer() as target:
        hub.add_server("idle", idle=999_999, target=target)
        assert len(rows(tmp_path, hub, "--enforce", "--grace=0")) == 6
        assert target.log() == []
    assert {request.method for request in hub.log()} == {"GET"}


def test_policies_and_switches_show(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies:\n  - {name: odd ones, match: {users: we*}, exempt: true}\n")
    found = rows(tmp_path, hub, f"--policy-file={file}", "--max-age=1d")
    assert [(row["policy"], row["verdict"]) for row in found[:2]] == [
        ("odd ones", "keep"), ("default", "stop"),
    ]  # fmt: skip
    assert "exempt" in found[0]["why"]
    assert found[1]["why"] == "is past its max_age limit"
    kept = rows(tmp_path, hub, "--cull-default-servers=false")
    assert {row["verdict"] for row in kept} == {"keep"}
    assert "--cull-default-servers" in kept[0]["why"]


def test_no_servers(fake_hub: FakeHub, tmp_path: Path) -> None:
    done = servers(tmp_path, fake_hub)
    assert (done.code, done.out) == (0, "No servers are running.\n")
    assert rows(tmp_path, fake_hub) == []


def test_hostile_names_stay_on_their_line(fake_hub: FakeHub, tmp_path: Path) -> None:
    name = "evil\nroot  \x1b[31m\u202e"
    fake_hub.add_server(name, 'q"\\')
    done = servers(tmp_path, fake_hub)
    assert len(done.out.splitlines()) == 2
    assert "\x1b" not in done.out
    assert rows(tmp_path, fake_hub)[0]["user"] == name


def test_hidden_users_are_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.users["ana"].groups = ["staff"]
    hub.token = hub.add_token(["list:users", "read:servers!group=staff"])
    done = servers(tmp_path, hub, "--json")
    assert len(json.loads(done.out)) == 2
    assert done.err == "The servers of 3 users are hidden from the token.\n"


def test_users_who_cannot_be_decoded_are_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.users["ana"].extra = {"servers": None}
    done = servers(tmp_path, hub, "--json")
    assert done.code == 0
    assert "ana" not in done.out
    assert len(json.loads(done.out)) == 3
    assert done.err == "Users who cannot be decoded and are left out: 1 (ana).\n"


def test_names_of_those_who_cannot_be_decoded_stay_on_their_line(
    hub: FakeHub, tmp_path: Path
) -> None:
    for number in range(9):
        name = f"{number}\n\x1b[31m" + "x" * 5000
        hub.add_user(name).extra = {"servers": None}
        hub.add_server(name)
    done = servers(tmp_path, hub)
    assert done.err.count("\n") == 1
    assert "left out: 9 (0" in done.err
    assert "\x1b" not in done.err
    assert len(done.err) < 1000


def test_failures_are_one_line_and_exit_1(hub: FakeHub, tmp_path: Path) -> None:
    def failed(url: str = "") -> str:
        done = servers(tmp_path, hub, url=url)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done
        return done.err

    with closed_port() as port:
        assert "Connection refused" in failed(url=f"http://127.0.0.1:{port}/hub/api")
    true, hub.token = hub.token, "no-such-token"
    assert "does not know the token" in failed()
    hub.token = true
    hub.tokens[true].scopes = ["list:users"]
    assert "read:servers" in failed()
    hub.plan("GET", "/user", faults.html())
    assert "does not answer like a JupyterHub API" in failed()
