"""`servers`: all servers with verdicts, the most idle first, as a table, as JSON, and again."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import fake_hub as faults
import in_process
import pytest
from conftest import RunExporter
from fake_hub import FakeHub, closed_port, reply
from fake_hub.records import timestamp
from terminal import Terminal

from hub_idle_exporter.commands.server_table import SHORT
from hub_idle_exporter.domain.columns import width
from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.domain.labels import OF_OPINION
from hub_idle_exporter.domain.policy import NotCandidate, Reason
from hub_idle_exporter.people.state_file import StateFile

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
    assert [row["verdict"] for row in found] == [
        "candidate", "candidate", "keep", "keep", "keep",
    ]  # fmt: skip
    assert found[1]["idle"] == pytest.approx(7200, abs=5)
    assert found[1]["age"] == pytest.approx(90_000, abs=5)
    assert (found[4]["idle"], found[4]["age"]) == (None, None)
    assert found[0]["why"] == "is past its idle limit"
    assert found[4]["why"] == "has no known last activity"


def test_a_server_that_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    path, ana = tmp_path / "state.sqlite", hub.server("ana")
    started = datetime.fromisoformat(str(timestamp(ana.started)).replace("Z", "+00:00"))
    writer = StateFile.opened(path, lambda _: True)
    writer.save_keep(("ana", "", started), Keep(hub.now() + 7210, "root"))
    found = rows(tmp_path, hub, f"--state-file={path}", "--keep-max=8h")
    writer.close()
    (row,) = [row for row in found if (row["user"], row["server"]) == ("ana", "")]
    assert (row["state"], row["verdict"]) == ("idle", "keep")
    assert row["why"] == "is kept for another 2h"


NOTICED = "A candidate whose policy has a notice is stopped only when"


def test_a_notice_is_told(hub: FakeHub, tmp_path: Path) -> None:
    assert NOTICED in servers(tmp_path, hub, "--notice=15m").err
    assert NOTICED not in servers(tmp_path, hub).err


def test_table(hub: FakeHub, tmp_path: Path) -> None:
    done = servers(tmp_path, hub)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == [column.upper() for column in COLUMNS]
    assert len(lines) == 6
    assert lines[1].startswith("we ird@ex.org  (default)  idle")
    assert "?" in lines[5]
    assert len({line.index("default  ") for line in lines[1:]}) == 1, "columns are aligned"


ASKS_NOBODY = "A candidate is past its limit. This command asks no server whether it is in use;"
NOT_KNOWN = "What the running exporter found when it last asked"
EVEN_IF_IN_USE = "A candidate past its max age is stopped even if it is in use."


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ([], [ASKS_NOBODY]),
        (["--enforce"], [ASKS_NOBODY, NOT_KNOWN]),
        (["--enforce", "--busy-check=auto"], [ASKS_NOBODY, NOT_KNOWN]),
        (
            ["--enforce", "--busy-check=off"],
            ["A candidate is past its limit. With --busy-check=off it is stopped without being"],
        ),
        (["--enforce", "--max-age=100h"], [ASKS_NOBODY, NOT_KNOWN]),  # nobody is that old
        (["--max-age=26h"], [ASKS_NOBODY, EVEN_IF_IN_USE]),
        (["--max-age=1s", "--enforce"], [EVEN_IF_IN_USE]),
        (["--timeout=9d", "--enforce"], []),
    ],
)
def test_what_becomes_of_candidates_is_said_beside_the_table(
    hub: FakeHub, tmp_path: Path, options: list[str], notes: list[str]
) -> None:
    """On standard error, where no program reads it as a line of the table."""
    done = servers(tmp_path, hub, *options)
    told = done.err.splitlines()
    assert [line.startswith(note) for line, note in zip(told, notes, strict=True)] == (
        [True] * len(notes)
    )
    assert ("if it can" in done.err) == ("--busy-check=auto" in options)
    assert len(done.out.splitlines()) == 6
    assert servers(tmp_path, hub, "--json", *options).err == ""


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
        ("odd ones", "keep"), ("default", "candidate"),
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
    done = servers(tmp_path, hub, "--timeout=9d")
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


# ---- on a terminal ------------------------------------------------------------------------------

LONG = "ana.maria.gonzalez-de-la-torre@students.example.edu"


@pytest.fixture
def crowd(fake_hub: FakeHub) -> FakeHub:
    """Names of all kinds, and a server of which nothing is known."""
    fake_hub.add_server(LONG, "analysis-of-the-second-run", idle=900_050, age=1_000_050)
    fake_hub.add_server("日本語の名前", "ünï", idle=9000, age=900_000)
    fake_hub.add_server("bob", idle=330, age=430)
    fake_hub.add_server("odd", idle=None, age=None)
    return fake_hub


def on_terminal(directory: Path, hub: FakeHub, columns: int, *options: str) -> list[str]:
    with Terminal(["servers", *options], hub.url, hub.token, columns, directory=directory) as shown:
        assert shown.end() == 0
        return shown.lines


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(crowd: FakeHub, tmp_path: Path, columns: int) -> None:
    lines = on_terminal(tmp_path, crowd, columns, "--enforce", "--max-age=11d")
    assert max(map(width, lines)) <= columns
    head, *table = lines[: lines.index("")]
    assert head.split() == ["USER/SERVER", *[column.upper() for column in COLUMNS[2:]]]
    assert table[0].startswith("ana.")
    assert "…" in table[0]
    assert "/ana" in table[0]
    assert table[1].startswith("日本語の名前/ünï ")
    assert re.fullmatch(r"bob +active +5m\d+s +7m\d+s +default +keep +active", table[2])
    assert len({width(line[: line.index("default")]) for line in table}) == 1, "aligned"
    assert "unknown: the server has no known last activity." in lines
    assert "--json shows them whole." in " ".join(lines)
    assert NOT_KNOWN in " ".join(lines)


def test_where_there_is_room_the_table_is_whole(crowd: FakeHub, tmp_path: Path) -> None:
    lines = on_terminal(tmp_path, crowd, 200)
    assert lines[0].split() == [column.upper() for column in COLUMNS]
    assert lines[1].startswith(f"{LONG}  analysis-of-the-second-run")
    assert lines[1].endswith("is past its idle limit")
    assert "cut to fit" not in " ".join(lines)
    short = on_terminal(tmp_path, crowd, 145)
    assert short[0].split() == [column.upper() for column in COLUMNS]
    assert short[1].endswith("  candidate  idle")


def test_off_a_terminal_nothing_is_cut(crowd: FakeHub, tmp_path: Path) -> None:
    done = servers(tmp_path, crowd)
    assert f"{LONG}  analysis-of-the-second-run  " in done.out
    assert re.search(r" 10d10h\d+s ", done.out)
    assert "has no known last activity" in done.out


def test_each_reason_has_short_words() -> None:
    assert set(SHORT) == {*Reason, *NotCandidate, *OF_OPINION}
    assert max(map(len, SHORT.values())) <= 9


# ---- again and again ----------------------------------------------------------------------------


@pytest.fixture
def watch(crowd: FakeHub, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    with ExitStack() as stack:

        def start(*options: str, columns: int = 80, rows: int = 24) -> Terminal:
            arguments = ["servers", "--watch", "--interval=1s", *options]
            return stack.enter_context(
                Terminal(arguments, crowd.url, crowd.token, columns, rows, directory=tmp_path)
            )

        yield start


def test_watching_draws_in_place_until_ctrl_c(
    crowd: FakeHub, watch: Callable[..., Terminal]
) -> None:
    terminal = watch()
    terminal.wait_for("candidates: 2")
    assert not terminal.echoes
    crowd.add_server("zoe", idle=99_999)
    terminal.wait_for("candidates: 3")
    assert any(line.startswith("zoe") for line in terminal.frames[-1])
    assert terminal.end("\x03") == 0
    assert terminal.text.endswith("\033[?25h\033[?1049l"), "the terminal is as it was before"
    assert terminal.echoes
    assert terminal.text.count("\033[?1049h") == 1
    for frame in terminal.frames:
        assert len(frame) <= 24
        assert max(map(width, frame)) < 80


@pytest.mark.parametrize("rows", [8, 12, 20])
def test_it_fits_the_height_of_the_terminal(
    crowd: FakeHub, watch: Callable[..., Terminal], rows: int
) -> None:
    crowd.add_servers(50, idle=5)
    terminal = watch("--enforce", rows=rows)
    terminal.wait_for("candidates: 2")
    terminal.wait_for("candidates: 2")
    frame = terminal.frames[-1]
    assert rows - 3 <= len(frame) <= rows
    assert frame[0].endswith("UTC  servers: 54, candidates: 2; every 1s; Ctrl-C ends")
    (left,) = [line for line in frame if line.startswith("... and ")]
    table = frame[frame.index("") + 2 : frame.index(left)]
    assert left == f"... and {54 - len(table)} more"
    assert table[0].startswith("ana.")


def test_another_size_of_the_terminal_is_drawn_at_once(watch: Callable[..., Terminal]) -> None:
    terminal = watch("--interval=1h")
    terminal.wait_for("candidates: 2")
    before = terminal.frames[-1]
    terminal.resize(150, 30)
    terminal.wait_for("analysis-of-the-second-run")
    assert terminal.frames[-1] != before
    assert terminal.end(number=signal.SIGTERM) == 0
    assert terminal.text.endswith("\033[?1049l")


def test_a_poll_that_fails_is_shown_and_it_goes_on(
    crowd: FakeHub, watch: Callable[..., Terminal]
) -> None:
    terminal = watch()
    terminal.wait_for("candidates: 2")
    crowd.plan("GET", "/users", faults.always(reply(500)))
    terminal.wait_for("HTTP 500")
    terminal.wait_for("HTTP 500")
    said = " ".join(terminal.frames[-1])
    assert "the Hub could not be read" in said
    assert "It was last read at " in said
    assert "bob" not in said, "what was known is not shown as if it were so now"
    crowd.heal()
    terminal.wait_for("candidates: 2")
    assert terminal.end("\x03") == 0


def test_a_changed_policy_file_is_followed(
    crowd: FakeHub, watch: Callable[..., Terminal], tmp_path: Path
) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies: [{name: first, match: {users: bob}}]")
    terminal = watch(f"--policy-file={file}")
    terminal.wait_for("first")
    file.write_text("policies: [{name: second, match: {users: bob}}]")
    terminal.wait_for("second")
    file.write_text("policies: [{name: third}]")
    terminal.wait_for("needs a key `match`")
    assert "second" in " ".join(terminal.frames[-1]), "the previous policies hold"


def test_without_a_terminal_one_table_follows_another(
    crowd: FakeHub, run_exporter: RunExporter
) -> None:
    """On pipes: the lines of the tables, what is to be known beside them once, and failures."""
    given = ["servers", "--watch", "--interval=1s"]
    process = run_exporter(crowd, *given)
    process.wait_log("candidates: 2", count=3)
    crowd.plan("GET", "/users", faults.always(reply(500)))
    process.wait_log("the Hub could not be read", count=2)
    crowd.heal()
    process.wait_log(ASKS_NOBODY, count=2)
    process.wait_log("candidates: 2", count=5)
    assert process.stop(signal.SIGINT) == 0
    assert "\033" not in process.text
    assert sum(line.startswith(LONG) for line in process.lines) >= 4
    assert process.text.count(ASKS_NOBODY) == 2, "once, and again after the failure"
