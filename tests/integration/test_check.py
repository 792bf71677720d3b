"""`check`: what is found, by name and for what, and the exit code."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import fake_hub as faults
import in_process
import pytest
from expected_roles import expected_roles
from fake_hub import MINT, MONITOR, OF_PROBER, PROBER, FakeHub, Reply, Request, closed_port, reply

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.people.state_file import StateFile

ENFORCE = [*MONITOR, "delete:servers", "proxy", *MINT]
CULLERS_ROLE = [*MONITOR, "delete:servers"]  # that of jupyterhub-idle-culler
MODES = ("require", "auto", "off")
ALL_WELL = "the user idle-prober has the scopes it needs, and nobody was seen to sign in as it"
TRIED = "tokens of the user idle-prober work: one was minted, used and revoked"


class Check:
    """Runs `check` and keeps what it said."""

    def __init__(self, directory: Path, hub: FakeHub, *arguments: str, url: str = "") -> None:
        done = in_process.run(["check", *arguments], directory, url or hub.url, hub.token)
        assert done.err == ""
        self.code, self.text = done.code, done.out

    def said(self, kind: str) -> list[str]:
        """Give the sentences of a kind: ok, note, warning, PROBLEM."""
        return re.findall(rf"^{kind} +(.*)$", self.text, re.MULTILINE)

    def problems(self) -> list[str]:
        return self.said("PROBLEM")


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    fake_hub.add_server("ana", idle=7200)
    fake_hub.add_server("bob", idle=5)
    return fake_hub


def allow(hub: FakeHub, scopes: list[str]) -> FakeHub:
    hub.token = hub.add_token(scopes)
    return hub


def lifetimes(hub: FakeHub, before: set[str]) -> list[int]:
    """Give for how many seconds each token of the probe user is valid that is left behind."""
    left = [token for value, token in hub.tokens.items() if value not in before]
    assert {token.user for token in left} <= {PROBER}
    return [round((token.expires or 0) - token.created) for token in left]


def test_all_is_well(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, allow(hub, ENFORCE), "--enforce")
    assert (found.code, found.problems(), found.said("warning")) == (0, [], [])
    for words in (
        "JupyterHub 6.1.1 answers", "service hub-idle-exporter", "agree within 2 s",
        "scope list:users", "scope delete:servers", "scope tokens (only !", ALL_WELL, TRIED,
        "2 servers seen", "ana: idle, idle ",
        "1 would be stopped now, after the grace period of 10m: 1 past the idle limit, "
        "unless found in use",
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


# ---- the roles, and the probe user --------------------------------------------------------------

ROLES = (
    "These roles are enough. Put them at the end of jupyterhub_config.py, in place of any that you "
    f"pasted there before, and restart the Hub:\n{expected_roles('hub-idle-exporter')}\n"
)


@pytest.mark.parametrize("version", ["6.1.1", "5.4.6"])
def test_with_the_idle_cullers_own_role_the_missing_ones_are_printed(
    hub: FakeHub, tmp_path: Path, version: str
) -> None:
    """Both token scopes from the start: before 6.1 the second one is needed, later none minds."""
    hub.version = version
    found = Check(tmp_path, allow(hub, CULLERS_ROLE), "--enforce")
    assert found.code == 1
    assert [line.partition(", which")[0] for line in found.problems()] == [
        "the token lacks the scope proxy",
        "the token lacks the scopes tokens!user=idle-prober and tokens!service=idle-prober",
    ]
    assert found.text.count(ROLES) == found.text.count("load_roles") == 1


def test_what_is_missing_is_a_warning_for_those_who_go_without(
    hub: FakeHub, tmp_path: Path
) -> None:
    allow(hub, CULLERS_ROLE)
    for mode, lacking in (("auto", ["scope proxy", "scopes tokens!"]), ("off", ["scopes tokens!"])):
        found = Check(tmp_path, hub, "--enforce", f"--busy-check={mode}")
        assert (found.code, found.problems()) == (0, [])
        warnings = found.said("warning")
        starts = [*(f"the token lacks the {one}" for one in lacking), "servers are not asked",
                  "no stop token", "no lease"]  # fmt: skip
        for warning, start in zip(warnings, starts, strict=True):
            assert warning.startswith(start)
        assert all(one.endswith(f" (--busy-check={mode})") for one in warnings[-3:])
        assert "1 past the idle limit, without being asked whether they are in use" in found.text
        assert "load_roles" in found.text


def test_who_chooses_not_to_ask_is_told_what_that_means(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, hub, "--enforce", "--busy-check=off")
    assert (found.code, found.problems()) == (0, [])
    (warning,) = found.said("warning")
    assert warning.startswith("servers are not asked before they are stopped")
    assert TRIED in found.said("ok")
    assert "load_roles" not in found.text


def test_a_minted_token_is_used_and_revoked(hub: FakeHub, tmp_path: Path) -> None:
    before = set(hub.tokens)
    assert TRIED in Check(tmp_path, hub, "--enforce").said("ok")
    (revoked,) = hub.revoked
    assert revoked.user == PROBER
    assert revoked.value in [request.token for request in hub.log("GET", "/user")]
    assert lifetimes(hub, before) == [1]


@pytest.mark.parametrize("mode", MODES)
def test_tokens_that_the_hub_refuses_are_found_by_using_one(
    hub: FakeHub, tmp_path: Path, mode: str
) -> None:
    """As where the authenticator's `refresh_user` rejects a user who never signed in."""

    def stale(request: Request, answer: Callable[[], Reply]) -> Reply:
        forbidden = reply(403, {"status": 403, "message": "Forbidden"})
        return answer() if request.token == hub.token else forbidden

    hub.plan("GET", "/user", stale)
    found = Check(tmp_path, hub, "--enforce", f"--busy-check={mode}")
    assert found.code == 1
    (problem,) = found.problems()
    assert "refuses tokens of the user idle-prober that it has just made" in problem
    assert "refresh_user" in problem
    assert [token.user for token in hub.revoked] == [PROBER]


@pytest.mark.parametrize("lacking", OF_PROBER)
@pytest.mark.parametrize(
    ("mode", "code", "kind"), [("require", 1, "PROBLEM"), ("auto", 0, "warning")]
)
def test_a_role_of_the_probe_user_that_lacks_a_scope_is_found(
    hub: FakeHub, tmp_path: Path, lacking: str, mode: str, code: int, kind: str
) -> None:
    """Everybody has these scopes for themselves, which is not what is needed."""
    hub.users[PROBER].scopes = [scope for scope in OF_PROBER if scope != lacking]
    found = Check(tmp_path, hub, "--enforce", f"--busy-check={mode}")
    assert found.code == code
    assert f"the role of the user idle-prober lacks {lacking}" in found.said(kind)
    assert ALL_WELL not in found.text
    assert ROLES.partition("'users'")[2] in found.text
    without = {"access:servers": "servers are not asked", "delete:servers": "no stop token"}
    assert mode == "require" or found.said("warning")[-1].startswith(without[lacking])


@pytest.mark.parametrize(
    ("mode", "code", "kind"), [("require", 1, "PROBLEM"), ("auto", 0, "warning")]
)
def test_a_probe_user_who_does_not_exist_is_found(
    hub: FakeHub, tmp_path: Path, mode: str, code: int, kind: str
) -> None:
    hub.remove_user(PROBER)
    found = Check(tmp_path, hub, "--enforce", f"--busy-check={mode}")
    assert found.code == code
    assert found.said(kind)[0].startswith("the Hub shows no user idle-prober: add a role for it")
    assert "load_roles" in found.text


def test_another_name_of_the_probe_user_is_the_one_that_is_told(
    hub: FakeHub, tmp_path: Path
) -> None:
    allow(hub, [*CULLERS_ROLE, "proxy", "tokens!user=nobody"])
    found = Check(tmp_path, hub, "--enforce", "--probe-user=nobody")
    assert found.code == 1
    assert "no user nobody" in found.problems()[0]
    assert "'users': ['nobody']" in found.text
    assert "does not know the token" not in found.text


def make_admin(hub: FakeHub) -> None:
    hub.users[PROBER].admin = True


def make_powerful(hub: FakeHub) -> None:
    hub.users[PROBER].scopes = [*OF_PROBER, "admin:users"]


def sign_in(hub: FakeHub) -> None:
    hub.add_server(PROBER, idle=5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (make_admin, "the user idle-prober is an administrator of the Hub"),
        (make_powerful, "the user idle-prober has more scopes than it needs: admin:"),
        (sign_in, "somebody signed in as idle-prober, or opened its page as an administrator"),
    ],
    ids=["an administrator", "admin:users", "somebody signed in"],
)
def test_a_probe_user_that_is_dangerous_is_a_problem_in_every_mode(
    hub: FakeHub, tmp_path: Path, change: Callable[[FakeHub], None], words: str, mode: str
) -> None:
    change(hub)
    found = Check(tmp_path, hub, "--enforce", f"--busy-check={mode}")
    assert found.code == 1
    (problem,) = found.problems()
    assert problem.startswith(words)
    assert "load_roles" not in found.text, "other roles would not help"
    assert ALL_WELL not in found.text


def test_a_hub_that_does_not_mint_is_found(hub: FakeHub, tmp_path: Path) -> None:
    for status, words in (
        (400, "no token of the user idle-prober can be minted"),
        (500, "the user idle-prober could not be looked at"),
    ):
        hub.plan("POST", "/users/idle-prober/tokens", faults.always(reply(status)))
        found = Check(tmp_path, hub, "--enforce")
        assert found.code == 1
        assert words in found.problems()[0]
        assert f"HTTP {status}" in found.problems()[0]


@pytest.mark.parametrize("scope", ["read:servers", "delete:servers"])
def test_a_filter_of_the_token_is_kept_in_the_roles(
    hub: FakeHub, tmp_path: Path, scope: str
) -> None:
    """Also where it is another scope that is missing: nobody is told to grant more."""
    hub.users["ana"].groups = ["physics"]
    allow(hub, ["list:users", "read:servers!group=physics", f"{scope}!group=physics"])
    found = Check(tmp_path, hub, "--enforce")
    assert found.code == 1
    assert "'delete:servers!group=physics'," in found.text
    assert "'access:servers!group=physics'," in found.text
    assert "servers'," not in found.text, "none without the filter"


# ---- what enforcement does not see, or does not heed --------------------------------------------

BLIND = {
    "--timeout=5m": "policy default has an idle limit of 5m: the Hub learns about activity only",
    "--grace=0": "--grace=0s: for 5m30s after an outage of the Hub people at work look idle",
    "--max-busy=1h": "--max-busy=1h: a server that computes for longer than that is stopped",
    "--max-unanswered=2h": "--max-unanswered=2h: a server that gives no usable answer for so long",
    "--max-age=1d": "max age (1d by policy default): a server that is older is stopped even if",
}


@pytest.mark.parametrize("option", BLIND)
def test_what_makes_enforcing_blind_is_a_warning(hub: FakeHub, tmp_path: Path, option: str) -> None:
    found = Check(tmp_path, allow(hub, ENFORCE), "--enforce", option)
    assert (found.code, found.problems()) == (0, [])
    (warning,) = found.said("warning")
    assert warning.startswith(BLIND[option])


def test_usual_settings_are_no_warning_and_monitoring_stops_nobody(
    hub: FakeHub, tmp_path: Path
) -> None:
    options = ("--grace=330", "--max-busy=24h", "--timeout=10m", "--max-unanswered=0")
    assert Check(tmp_path, allow(hub, ENFORCE), "--enforce", *options).said("warning") == []
    blind = [option for option in BLIND if not option.startswith("--timeout")]
    assert Check(tmp_path, hub, "--busy-check=off", *blind).said("warning") == []


def test_warnings_name_the_policy(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text(
        "policies:\n"
        "  - {name: gpu, match: {users: g*}, max_age: 2d}\n"
        "  - {name: short, match: {users: s*}, timeout: 1m}\n"
        "  - {name: chosen, match: {servers: keep}, exempt: true, timeout: 1m, max_age: 1d}\n"
    )
    found = Check(tmp_path, allow(hub, ENFORCE), "--enforce", f"--policy-file={file}")
    short, chosen, aged = found.said("warning")
    assert short.startswith("policy short has an idle limit of 1m")
    assert chosen.startswith("policy chosen: users choose user_options and server names")
    assert aged.startswith("max age (2d by policy gpu)")


def test_terminals_that_nobody_asks_for_protect_nobody(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies:\n  - {name: shells, match: {users: a*}, protect_terminals: true}\n")
    options = ("--enforce", f"--policy-file={file}")
    assert Check(tmp_path, allow(hub, ENFORCE), *options).said("warning") == []
    *_, warning = Check(tmp_path, allow(hub, ENFORCE), *options, "--busy-check=off").said("warning")
    assert warning.startswith("--busy-check=off: no server is asked, so an open terminal does not")
    assert warning.endswith("(policy shells)")


def test_warnings_are_told_though_the_hub_cannot_be_read(hub: FakeHub, tmp_path: Path) -> None:
    with closed_port() as port:
        found = Check(tmp_path, hub, "--enforce", *BLIND, url=f"http://127.0.0.1:{port}/hub/api")
    assert len(found.said("warning")) == len(BLIND)


# ---- what would be stopped ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "1 past the idle limit, unless found in use; 1 past the max age, even if in use"),
        (
            ["--busy-check=off"],
            "1 past the idle limit, without being asked whether they are in use; "
            "1 past the max age, even if in use",
        ),
    ],
)
def test_max_age_is_counted_apart_and_never_said_to_spare_who_is_in_use(
    hub: FakeHub, tmp_path: Path, options: list[str], words: str
) -> None:
    hub.add_server("old", idle=5, age=200_000)
    for more in ([], ["--enforce"]):
        found = Check(tmp_path, hub, "--max-age=2d", *options, *more)
        assert found.code == 0
        assert re.search(f"2 would be stopped .*: {re.escape(words)}$", found.text, re.MULTILINE)


def test_only_old_ones_are_never_said_to_be_asked(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, hub, "--max-age=1m", "--timeout=9h")
    assert "would be stopped with --enforce: 2 past the max age, even if in use" in found.text
    assert "unless found in use" not in found.text


def test_none_would_be_stopped(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, hub, "--timeout=9h")
    assert "0 would be stopped with --enforce" in found.said("ok")


def test_of_many_the_first_are_named_and_the_others_counted(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_servers(30, idle=999_999)
    found = Check(tmp_path, hub)
    assert found.text.count("policy default") == 20
    assert "         ... and 11 more: see `hub-idle-exporter servers`\n" in found.text


def test_a_list_that_lost_a_crowd_is_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_servers(250, idle=5)
    empty = faults.rewritten(lambda page: page | {"items": []})
    hub.plan("GET", "/users", empty, after=1, times=1)
    (note,) = [one for one in Check(tmp_path, hub).said("note") if "list of users" in one]
    assert "would stop nothing at this poll" in note


def test_an_exporter_that_holds_the_lease_is_told(hub: FakeHub, tmp_path: Path) -> None:
    """It may be the one that is checked: that is no problem."""
    words = "an exporter of this Hub holds the lease and stops servers now"
    assert words not in Check(tmp_path, hub, "--enforce").text
    held = hub.add_token([], user=PROBER, expires=hub.now() + 120)
    hub.tokens[held].note = "hub-idle-exporter: lease of another"
    found = Check(tmp_path, hub, "--enforce")
    assert found.code == 0
    assert [one for one in found.said("note") if one.startswith(words)]


# ---- nothing is changed, and the rest -----------------------------------------------------------


def test_nothing_is_changed(hub: FakeHub, tmp_path: Path) -> None:
    """But for a token without a use that expires within a second, which lists its scopes."""
    with faults.FakeServer() as target:
        hub.add_server("old", idle=999_999, age=999_999, target=target)
        before = set(hub.tokens)
        for arguments in ([], ["--enforce", "--grace=0", "--max-age=1h"]):
            assert Check(tmp_path, hub, *arguments).code == 0
        assert target.log() == []
        assert lifetimes(hub, before) == [1]
    assert hub.log("DELETE", "/users/*/server*") == []
    assert hub.server("old").ready


def test_without_enforcing_nothing_is_even_minted(hub: FakeHub, tmp_path: Path) -> None:
    assert Check(tmp_path, allow(hub, ENFORCE)).code == 0
    assert {request.method for request in hub.log()} == {"GET"}


@pytest.mark.parametrize(
    ("offset", "words"),
    [(0.0, "agree"), (50.0, "(49|5[01]) s ahead of ours"), (-40.0, "(39|4[01]) s behind ours"),
     (100.0, "(99|10[01]) s ahead of the exporter's")],
)  # fmt: skip
def test_clock_skew(hub: FakeHub, tmp_path: Path, offset: float, words: str) -> None:
    hub.clock_offset = offset
    found = Check(tmp_path, hub)
    assert found.code == 0
    assert re.search(words, found.text)


def test_clocks_that_are_too_far_apart_to_cull_are_told_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.clock_offset = -7200
    found = Check(tmp_path, hub, "--enforce")
    assert found.code == 1
    (problem,) = found.problems()
    assert re.fullmatch(
        "the Hub's clock is 7(199|200|201) s behind the exporter's: set both by NTP", problem
    )
    assert found.text.count("clock") == 1


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


def test_what_people_are_promised(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    options = ["--notice=15m", "--keep-max=8h", f"--state-file={path}"]
    found = Check(tmp_path, hub, *options)
    assert f"state file {path} is not there yet: the exporter creates it" in found.said("note")
    assert not path.exists()
    writer = StateFile.opened(path, lambda _: True)
    writer.save_keep(("ana", "", None), Keep(9e9, "ana"))
    found = Check(tmp_path, hub, *options)  # while the exporter runs
    writer.close()
    assert f"state file {path} can be read: 1 kept, 0 announced" in found.said("ok")
    assert "stops are announced before: 15m (default)" in found.said("ok")
    assert "people may keep a server at a time: 8h (default)" in found.said("ok")
    service = hub.tokens[hub.token].service
    assert f'{{"name": "user", "scopes": ["self", "access:services!service={service}"]}}' in (
        found.text
    ), "where they keep it is a page that they must be let in to"
    assert "access:services" not in Check(tmp_path, hub).text
    assert found.code == 0


def test_a_notice_that_a_restart_would_forget(hub: FakeHub, tmp_path: Path) -> None:
    found = Check(tmp_path, hub, "--notice=15m")
    assert "without --state-file a restart of the exporter announces" in found.text
    assert found.code == 0


def test_whom_notices_go_to(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "notify.txt"
    file.write_text("json://127.0.0.1:1/{user}\njson://127.0.0.1:1/all?secret=s3cretWord\n")
    file.chmod(0o600)
    found = Check(tmp_path, hub, f"--notify-file={file}")
    assert found.said("ok")[0] == (
        f"notify file {file} is valid: targets: 2, 1 of them to one person each; nothing was sent"
    )
    file.write_text("nonsense s3cretWord\n")
    found = Check(tmp_path, hub, f"--notify-file={file}")
    assert found.problems() == [f"notify file {file}: line 1: it is not a URL"]
    assert "s3cretWord" not in found.text


def test_a_state_file_that_cannot_be_used(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_text("something else")
    done = in_process.run(["check", f"--state-file={path}"], tmp_path, hub.url, hub.token)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"hub-idle-exporter: --state-file {path}: it is not a state file of this exporter\n"
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
    assert "1 server seen" in found.text


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


WEB = {
    "{}": "plain HTTP, open to all",
    "basic_auth_users: {ana: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}": (
        "passwords"
    ),
}


@pytest.mark.parametrize("written", WEB)
def test_the_web_configuration_is_told(hub: FakeHub, tmp_path: Path, written: str) -> None:
    (tmp_path / "web.yml").write_text(written)
    found = Check(tmp_path, allow(hub, MONITOR), "--web.config.file=web.yml")
    assert found.code == 0
    assert f"web configuration file web.yml is valid: {WEB[written]}" in found.said("ok")


def test_a_broken_web_configuration_is_one_problem_among_others(
    hub: FakeHub, tmp_path: Path
) -> None:
    """The rest of the report is there all the same."""
    (tmp_path / "web.yml").write_text("basic_auth_users: {ana: sesame}")
    os.utime(tmp_path / "web.yml", (1e9, 1e9))
    found = Check(tmp_path, allow(hub, MONITOR), "--web.config.file=web.yml")
    assert found.code == 1
    (problem,) = found.problems()
    assert problem.startswith("web configuration file web.yml: line 1: basic_auth_users: it must")
    assert "sesame" not in found.text
    assert "2 servers seen" in found.text
