"""`check`: what is found, by name and for what, and the exit code."""

from pathlib import Path

import fake_hub as faults
import in_process
import pytest
from fake_hub import FakeHub, closed_port

MONITOR = ["list:users", "read:servers"]
ASK = ["proxy", "tokens!user=idle-prober"]
ENFORCE = [*MONITOR, "delete:servers", *ASK]


class Check:
    """Runs `check` and keeps what it said."""

    def __init__(self, directory: Path, hub: FakeHub, *arguments: str, url: str = "") -> None:
        done = in_process.run(["check", *arguments], directory, url or hub.url, hub.token)
        assert done.err == ""
        self.code, self.text = done.code, done.out

    def problems(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith("PROBLEM")]


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    if "idle-prober" not in fake_hub.users:
        fake_hub.add_user("idle-prober")
    fake_hub.users["idle-prober"].scopes = ["access:servers"]
    fake_hub.add_server("ana", idle=7200)
    fake_hub.add_server("bob", idle=5)
    return fake_hub


def allow(hub: FakeHub, scopes: list[str]) -> FakeHub:
    hub.token = hub.add_token(scopes)
    return hub


def test_all_is_well(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, allow(hub, ENFORCE), "--enforce", "--busy-check=require")
    assert (found.code, found.problems()) == (0, [])
    for words in (
        "JupyterHub 6.1.1 answers", "service hub-idle-exporter", "agree within 2 s",
        "scope list:users", "scope delete:servers", "scope tokens (only !user=idle-prober)",
        "the busy check is possible", "2 servers seen", "1 would be stopped now",
        "ana: idle, idle ",
        "The sidecar would work as configured.",
    ):  # fmt: skip
        assert words in found.text


def test_monitoring_needs_two_scopes(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, allow(hub, MONITOR))
    assert (found.code, found.problems()) == (0, [])
    assert "would be stopped with --enforce" in found.text
    assert (
        "note     the token lacks the scope delete:servers, which would be needed to stop servers"
        in found.text
    )


@pytest.mark.parametrize("missing", [*MONITOR, "delete:servers"])
def test_a_missing_scope_is_named_with_what_it_is_for(
    hub: FakeHub, tmp_path: Path, missing: str
) -> None:
    allow(hub, [scope for scope in ENFORCE if scope != missing])
    found = Check(tmp_path, hub, "--enforce")
    assert found.code == 1
    problems = found.problems()
    assert len(problems) == 1
    assert f"the token lacks the scope {missing}, which is needed to" in problems[0]
    assert "The sidecar would not work as configured." in found.text


def test_what_asking_servers_needs_is_printed_as_roles(hub: FakeHub, tmp_path: Path) -> None:
    allow(hub, [*MONITOR, "delete:servers"])
    auto = Check(tmp_path, hub, "--enforce")
    assert auto.code == 0
    assert "c.JupyterHub.load_roles = [" in auto.text
    assert '"services": ["hub-idle-exporter"]' in auto.text
    assert '"tokens!user=idle-prober"' in auto.text
    required = Check(tmp_path, hub, "--enforce", "--busy-check=require")
    assert required.code == 1
    assert any("needed to mint tokens for the busy check" in line for line in required.problems())
    off = Check(tmp_path, hub, "--enforce", "--busy-check=off")
    assert off.code == 0
    assert "load_roles" not in off.text


def test_a_prober_who_has_no_role_is_found_out(hub: FakeHub, tmp_path: Path) -> None:
    hub.users["idle-prober"].scopes = []
    found = Check(tmp_path, allow(hub, ENFORCE), "--enforce", "--busy-check=require")
    assert found.code == 1
    assert "idle-prober" in found.problems()[0]
    assert "load_roles" in found.text


def test_a_prober_who_does_not_exist_is_found_out(hub: FakeHub, tmp_path: Path) -> None:
    allow(hub, [*MONITOR, "delete:servers", "proxy", "tokens!user=nobody"])
    found = Check(
        tmp_path, hub, "--enforce", "--busy-check=require", "--probe-user=nobody"
    )  # fmt: skip
    assert found.code == 1
    assert "nobody" in found.problems()[0]
    assert "does not know the token" not in found.text


def test_nothing_is_changed(hub: FakeHub, tmp_path: Path) -> None:
    with faults.FakeServer() as target:
        hub.add_server("old", idle=999_999, age=999_999, target=target)
        before = set(hub.tokens)
        for arguments in ([], ["--enforce", "--grace=0", "--max-age=1h"]):
            assert Check(tmp_path, hub, *arguments).code == 0
        assert target.log() == []
        assert set(hub.tokens) == before
    assert hub.log("DELETE", "/users/*/server*") == []
    assert hub.server("old").ready


def test_without_enforcing_nothing_is_even_minted(hub: FakeHub, tmp_path: Path) -> None:
    assert Check(tmp_path, allow(hub, ENFORCE)).code == 0
    assert {request.method for request in hub.log()} == {"GET"}


@pytest.mark.parametrize(
    ("offset", "words"),
    [(0.0, "agree"), (100.0, "100 s ahead of ours"), (-90.0, "90 s behind ours")],
)
def test_clock_skew(hub: FakeHub, tmp_path: Path, offset: float, words: str) -> None:
    hub.clock_offset = offset
    found = Check(tmp_path, hub)
    assert found.code == 0
    assert words in found.text or words.replace("0 s", "1 s") in found.text


def test_policies(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies:\n  - {name: staff, match: {groups: staff}, exempt: true}\n")
    found = Check(tmp_path, hub, f"--policy-file={file}")
    assert found.code == 0
    assert f"policy file {file} is valid; policies: staff, default" in found.text
    blind = Check(tmp_path, allow(hub, MONITOR), f"--policy-file={file}")
    assert blind.code == 1
    assert (
        "lacks the scope read:users:groups, which is needed to match policies"
        in blind.problems()[0]
    )


def test_old_hubs(hub: FakeHub, tmp_path: Path) -> None:
    hub.version = "2.3.1"
    assert Check(tmp_path, hub).code == 0
    enforcing = Check(tmp_path, hub, "--enforce")
    assert enforcing.code == 1
    assert "3.0 or newer" in enforcing.problems()[0]
    hub.version = "1.5.1"
    old = Check(tmp_path, hub)
    assert old.code == 1
    assert "2.0 or newer" in old.problems()[0]


def test_a_filtered_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.users["ana"].groups = ["staff"]
    found = Check(tmp_path, allow(hub, ["list:users", "read:servers!group=staff"]))
    assert found.code == 0
    assert "scope read:servers (only !group=staff)" in found.text
    assert "hidden from the token" in found.text
    assert "1 servers seen" in found.text or "1 server seen" in found.text


def test_users_who_cannot_be_decoded_are_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_server("odd")
    hub.users["odd"].extra = {"servers": {"": {"ready": "yes"}}}
    found = Check(tmp_path, hub)
    assert found.code == 0
    assert "note     users who cannot be decoded and are left out: 1 (odd);" in found.text


@pytest.mark.parametrize("answer", [{}, {"name": "ana"}, {"message": "welcome"}])
def test_a_front_that_is_no_hub_is_no_identity(
    hub: FakeHub, tmp_path: Path, answer: dict[str, str]
) -> None:
    hub.plan("GET", "/user", faults.always(faults.reply(200, answer)))
    found = Check(tmp_path, hub)
    assert found.code == 1
    assert "does not answer like a JupyterHub API" in found.problems()[0]
    assert "the token belongs to" not in found.text


def test_a_token_that_is_unknown(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = "no-such-token"
    found = Check(tmp_path, hub)
    assert found.code == 1
    assert "does not know the token" in found.problems()[0]


@pytest.mark.parametrize(
    "fault", [faults.html(), faults.close(), faults.always(faults.reply(500)), faults.dated(None)]
)
def test_faults_of_the_hub(hub: FakeHub, tmp_path: Path, fault: faults.Fault) -> None:
    hub.plan("*", "*", fault)
    found = Check(tmp_path, hub)
    assert found.code == 1
    assert len(found.problems()) >= 1


def test_nobody_there(hub: FakeHub, tmp_path: Path) -> None:
    with closed_port() as port:
        found = Check(tmp_path, hub, url=f"http://127.0.0.1:{port}/hub/api")
    assert found.code == 1
    assert "Connection refused" in found.text
    assert "would not work" in found.text


def test_hostile_names_stay_on_their_line(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_server("evil\nok       all is well\x1b[2J", idle=999_999)
    found = Check(tmp_path, hub)
    assert "\x1b" not in found.text
    assert not [line for line in found.text.splitlines() if line.startswith("ok       all")]
