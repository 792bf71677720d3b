"""Culling on a real JupyterHub: nobody at work is stopped, and what is idle is.

Real servers and kernels where what they do matters, paper servers where only the Hub's side does.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import requests
from conftest import MakeHub, RunCommand, RunExporter
from fake_hub import Jupyter, always, before, reply
from real_hub import ENFORCE, MONITOR, PROBER, RealHub, Service

from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.token import Token

NOW = ("--enforce", "--grace=0", "--interval=1s")
HOUR = (*NOW, "--timeout=1h")
CULLS = "hub_idle_exporter_culls_total"
WITHHELD = "hub_idle_exporter_culls_withheld_total"


def idle_servers(hub: RealHub, *names: str, **options: object) -> None:
    """Run servers that the Hub believes idle for two hours."""
    for name in names:
        user, _, server = name.partition("/")
        # Without any the Hub would take those of the server's last start.
        hub.start_server(user, server, user_options=options or {"stop_delay": 0})
        hub.backdate(user, server, idle=7200, age=9000)


def asked(hub: RealHub) -> list[str]:
    """Return what paper servers were asked, but for what the Hub asks while they start."""
    return [request.path for request in hub.paper.log("GET", "*/api/*")]


def runs(hub: RealHub, user: str, server: str = "") -> bool:
    return bool(hub.server(user, server).get("ready"))


# ---- people at work, on real servers with real kernels -------------------------------------------


def test_silent_computation_is_spared_and_stopped_once_it_has_ended_and_the_limit_passed(
    clean_real_hub: RealHub, run_exporter: RunExporter
) -> None:
    clean_real_hub.start_server("silent")
    kernel = clean_real_hub.start_kernel("silent")
    kernel.run("import time; time.sleep(1e6)")
    exporter = run_exporter(clean_real_hub, *NOW, "--timeout=4s")
    exporter.wait_event("cull_withheld", user="silent", cause="busy", count=2, timeout=40)
    assert runs(clean_real_hub, "silent")
    kernel.interrupt()
    culled = exporter.wait_event("culled", user="silent", timeout=40)
    assert float(culled["idle"]) >= 4
    metrics = exporter.metrics()
    assert metrics.value(CULLS, reason="idle") == 1
    assert (metrics.value(WITHHELD, cause="busy") or 0) >= 2


def test_computation_without_end_is_stopped_once_seen_busy_for_max_busy(
    clean_real_hub: RealHub, run_exporter: RunExporter
) -> None:
    clean_real_hub.start_server("endless")
    clean_real_hub.start_kernel("endless").run("while True: pass")
    exporter = run_exporter(clean_real_hub, *NOW, "--timeout=4s", "--max-busy=3s")
    exporter.wait_event("cull_withheld", user="endless", cause="busy", timeout=40)
    exporter.wait_event("busy_limit_reached", user="endless", timeout=40)
    exporter.wait_event("culled", user="endless", timeout=40)


def test_activity_that_only_the_server_knows_of_protects(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    hub = make_hub("jupyter", activity_interval=300)
    hub.start_server("fresh")
    hub.start_kernel("fresh", direct=True).run_to_end("1 + 1")
    hub.backdate("fresh", idle=7200, age=9000)
    exporter = run_exporter(hub, *HOUR)
    spared = exporter.wait_event("cull_withheld", user="fresh", cause="active_again")
    assert "the server itself was active" in spared["why"]
    assert runs(hub, "fresh")


def test_names_that_need_quoting_are_asked_at_their_own_route(
    clean_real_hub: RealHub, run_exporter: RunExporter
) -> None:
    """Asked at a wrong address Jupyter would answer 404, as if there were none."""
    for user in ("we ird@ex.org", "ünï"):
        clean_real_hub.start_server(user)
        clean_real_hub.start_kernel(user, direct=True).run("import time; time.sleep(1e6)")
    exporter = run_exporter(clean_real_hub, *NOW, "--timeout=4s")
    exporter.wait_event("cull_withheld", user="we ird@ex.org", cause="busy", timeout=40)
    exporter.wait_event("cull_withheld", user="ünï", cause="busy", timeout=40)


RECORDER = """
import tornado.web
_init = tornado.web.RequestHandler.__init__
def _record(self, application, request, **more):
    with open({path!r}, "a") as file:
        print(request.uri, dict(request.headers), file=file)
    _init(self, application, request, **more)
tornado.web.RequestHandler.__init__ = _record
"""


def test_users_server_never_sees_the_sidecars_token(
    make_hub: MakeHub, run_command: RunCommand, tmp_path: Path
) -> None:
    hub = make_hub("jupyter", activity_interval=300)
    seen = tmp_path / "seen"
    hub.start_server("thief")
    home = Path(_home(hub, "thief"))
    hub.stop_server("thief")
    config = home / ".jupyter" / "config" / "jupyter_server_config.py"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(RECORDER.format(path=str(seen)))
    hub.start_server("thief")
    hub.backdate("thief", idle=7200, age=9000)
    done = run_command(hub, "--once", "--enforce", "--timeout=1h")
    text = seen.read_text()
    assert "api/status?no_track_activity=1" in text, done.stdout + done.stderr
    assert hub.token not in text
    stolen = set(re.findall(r"'Authorization': 'token (\w+)'", text))
    assert stolen, text
    for token in stolen:  # revoked by now
        assert hub.api("GET", "/user", token=token).status_code == 403


def test_a_server_asks_the_hub_once_whose_token_asks_it(
    clean_real_hub: RealHub, run_exporter: RunExporter
) -> None:
    """Six of our requests and this one are all that a stop costs the Hub."""
    clean_real_hub.start_server("quiet")
    before = clean_real_hub.log_path.stat().st_size
    exporter = run_exporter(clean_real_hub, *NOW, "--timeout=4s")
    exporter.wait_event("culled", user="quiet", timeout=40)
    log = clean_real_hub.log_path.read_bytes()[before:].decode()
    looks = log.count("GET /hub/api/users/quiet (hub-idle-exporter@")
    assert log.count("GET /hub/api/user (idle-prober@") == looks >= 1


def _home(hub: RealHub, user: str) -> str:
    pid = hub.rows()[user, ""].state["pid"]
    return psutil.Process(pid).environ()["HOME"]


def test_probe_token_opens_one_server_and_nothing_else_and_is_gone_afterwards(
    clean_real_hub: RealHub,
) -> None:
    hub = clean_real_hub
    hub.start_server("ana")
    hub.start_server("bob")
    client = Hub(ConnectionSettings(hub.api_url), Token.read_by(lambda: hub.token))
    minted = client.mint_token(PROBER, ["access:servers!server=ana/"], 60, "busy check")

    def status(user: str) -> int:
        url = f"{hub.rows()[user, ''].address}api/status?no_track_activity=1"
        answer = requests.get(
            url, headers={"Authorization": f"token {minted.token}"}, timeout=20,
            allow_redirects=False,
        )  # fmt: skip
        return answer.status_code

    assert status("bob") == 403
    assert hub.api("GET", "/users", token=minted.token).status_code == 403
    assert hub.api("GET", "/users/ana", token=minted.token).status_code in (403, 404)
    assert hub.api("DELETE", "/users/ana/server", token=minted.token).status_code in (403, 404)
    assert status("ana") == 200
    client.revoke_token(PROBER, minted.id)
    left = [token["id"] for token in hub.get(f"/users/{PROBER}/tokens")["api_tokens"]]
    assert minted.id not in left
    assert hub.api("GET", "/user", token=minted.token).status_code == 403


# ---- between listing and stop --------------------------------------------------------------------


def test_person_who_comes_back_between_listing_and_stop_is_spared(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "first", stop_delay=3)
    idle_servers(hub, "active", "restarted", "spawning", "gone")
    hub.backdate("first", idle=9000)  # the most idle: stopped first, while the others wait
    exporter = run_exporter(hub, *HOUR, "--interval=1h", "--concurrency=1")
    hub.wait(lambda: hub.server("first").get("pending") == "stop", 20, "the first is stopping")
    hub.post_activity("active")
    for user in ("restarted", "spawning", "gone"):
        hub.stop_server(user)
    hub.start_server("restarted")
    hub.backdate("restarted", idle=7200)
    hub.start_server("spawning", user_options={"start_delay": 15}, wait=None)
    expected = {
        "active": "active_again",
        "restarted": "restarted",
        "spawning": {"pending", "restarted"},
        "gone": "gone",
    }
    for user, cause in expected.items():
        spared = exporter.wait_event("cull_withheld", user=user)
        assert spared["cause"] in cause, spared
    exporter.wait_value(1, CULLS)
    assert runs(hub, "active")
    assert runs(hub, "restarted")
    assert hub.server("spawning")["pending"] == "spawn"


def test_gate_that_closes_between_listing_and_stop_spares(
    clean_paper_hub: RealHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    """While a pass is under way a new policy asks for groups, which the token cannot see."""
    hub = clean_paper_hub
    idle_servers(hub, "slow", stop_delay=4)
    idle_servers(hub, "next")
    hub.backdate("slow", idle=9000)
    file = tmp_path / "policies.yaml"
    file.write_text("policies: [{name: none, match: {users: nobody}}]")
    token = hub.add_token([scope for scope in ENFORCE if scope != "read:users:groups"])
    options = (*HOUR, "--concurrency=1", f"--policy-file={file}")
    exporter = run_exporter(hub, *options, token=token)
    hub.wait(lambda: hub.server("slow").get("pending") == "stop", 20, "the first is stopping")
    file.write_text(POLICIES)
    exporter.wait_event("cull_withheld", user="next", timeout=40)
    assert runs(hub, "next")


# ---- stops that fail, or take their time ---------------------------------------------------------


def test_stop_that_fails_is_no_cull_though_the_hub_says_yes(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "ana", "bob/lab", stop_fails=True)
    exporter = run_exporter(hub, *HOUR, "--remove-named-servers")
    failures = "hub_idle_exporter_cull_failures_total"
    exporter.wait_value(2, failures, cause="not_stopped")
    exporter.wait_polls(3)
    metrics = exporter.metrics()
    assert metrics.value(failures, cause="not_stopped") == 2
    assert metrics.value(CULLS) == 0
    assert [e["user"] for e in exporter.events("cull_failed")].count("bob") == 1  # once, loudly
    assert ("bob", "lab") in hub.rows()  # its record stays, for whoever looks for the orphan


def test_stop_of_15_seconds_is_counted_once_when_it_has_stopped(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "slow", stop_delay=15)
    exporter = run_exporter(hub, *HOUR)
    exporter.wait_value(1, "hub_idle_exporter_cull_attempts_total")
    assert exporter.metrics().value(CULLS) == 0
    culled = exporter.wait_event("culled", user="slow", timeout=40)
    assert float(culled["seconds"]) >= 15
    assert "slow_stop" not in exporter.text
    exporter.wait_polls(2)
    metrics = exporter.metrics()
    assert metrics.value(CULLS) == 1
    assert metrics.value("hub_idle_exporter_cull_attempts_total") == 1
    assert metrics.value("hub_idle_exporter_cull_failures_total") == 0


def test_named_server_is_removed_only_where_asked_and_after_it_stopped(
    clean_paper_hub: RealHub, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "ana/keep")
    once = ("--once", "--enforce", "--timeout=1h")
    assert run_command(hub, *once).returncode == 0
    assert ("ana", "keep") in hub.rows()
    assert not runs(hub, "ana", "keep")


@pytest.mark.slow("a named server is removed two minutes after its stop")
@pytest.mark.timeout(300)
def test_named_server_is_removed_minutes_after_its_stop_unless_used_since(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    hub = make_hub()
    idle_servers(hub, "ana/go", "bob/used")
    exporter = run_exporter(hub, *HOUR, "--remove-named-servers")
    for user in ("ana", "bob"):
        exporter.wait_event("culled", user=user)
    assert {("ana", "go"), ("bob", "used")} <= hub.rows().keys()
    hub.start_server("bob", "used")
    exporter.wait_event("named_server_removed", user="ana", timeout=150)
    exporter.wait_event("named_server_kept", user="bob", timeout=30)
    assert ("ana", "go") not in hub.rows()
    assert runs(hub, "bob", "used")


# ---- who may be stopped at all -------------------------------------------------------------------

POLICIES = """
policies:
  - name: staff
    match: {groups: [st*ff]}
    exempt: true
  - name: gpu
    match: {user_options: {profile: "gpu-*"}}
    timeout: 3h
  - name: lab
    match: {servers: [lab], named: true}
    timeout: 30m
"""


def test_policies_switches_and_max_age_decide_who_is_stopped(
    make_hub: MakeHub, run_command: RunCommand, tmp_path: Path
) -> None:
    hub = make_hub()
    hub.add_users(["boss"], group="staff")
    idle_servers(hub, "boss", "plain", "plain/lab", "plain/other")
    idle_servers(hub, "gina", profile="gpu-large")
    file = tmp_path / "policies.yaml"
    file.write_text(POLICIES)
    once = ("--once", "--enforce", "--timeout=1h", f"--policy-file={file}")

    def left() -> set[str]:
        return {f"{u}/{s}" if s else u for u, s in hub.servers()}

    assert run_command(hub, *once, "--cull-default-servers=false").returncode == 0
    assert left() == {"boss", "plain", "gina"}
    assert run_command(hub, *once, "--cull-named-servers=false").returncode == 0
    assert left() == {"boss", "gina"}  # gina's limit is three hours, she has been idle for two
    aged = (*once, "--max-age=2h", "--grace=0")
    assert run_command(hub, *aged, "--cull-default-servers=false").returncode == 0
    assert left() == {"boss", "gina"}  # max age honours the switches
    assert run_command(hub, *aged).returncode == 0
    assert left() == {"boss"}  # and exemptions


def test_policy_by_group_that_the_token_cannot_see_suspends_enforcement(
    clean_paper_hub: RealHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "plain")
    file = tmp_path / "policies.yaml"
    file.write_text(POLICIES)
    token = hub.add_token([scope for scope in ENFORCE if scope != "read:users:groups"])
    exporter = run_exporter(hub, *HOUR, f"--policy-file={file}", token=token)
    exporter.wait_value(1, "hub_idle_exporter_enforcement", state="suspended")
    assert "read:users:groups" in exporter.wait_event("requirements_not_met")["why"]
    exporter.wait_polls(2)
    assert runs(hub, "plain")


def test_server_outside_the_filter_of_delete_servers_is_no_candidate(
    clean_paper_hub: RealHub, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    hub.add_users(["ours"], group="course")
    idle_servers(hub, "ours", "theirs")
    scopes = [s for s in ENFORCE if s != "delete:servers"] + ["delete:servers!group=course"]
    token = hub.add_token(scopes)
    done = run_command(hub, "--once", "--enforce", "--timeout=1h", token=token)
    assert done.returncode == 0, done.stdout
    assert runs(hub, "theirs")
    assert not runs(hub, "ours")
    assert "theirs" not in done.stdout + done.stderr


def test_monitor_mode_touches_no_server_and_deletes_nothing(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "ana", "bob/lab")
    before_it = hub.log_tail(5000).count("DELETE /hub/api")
    exporter = run_exporter(hub, "--timeout=1s", "--max-age=1s", "--interval=1s", "--grace=0")
    exporter.wait_value(2, "jupyterhub_cull_candidates")
    exporter.wait_polls(2)
    assert exporter.stop() == 0
    assert asked(hub) == []
    assert hub.log_tail(5000).count("DELETE /hub/api") == before_it
    assert hub.log_tail(5000).count("tokens HTTP") == 0
    assert runs(hub, "ana")


def test_busy_check_off_asks_nobody(clean_paper_hub: RealHub, run_exporter: RunExporter) -> None:
    hub = clean_paper_hub
    hub.paper.jupyter = Jupyter()
    hub.paper.jupyter.add_kernel("busy")
    idle_servers(hub, "ana")
    exporter = run_exporter(hub, *HOUR, "--busy-check=off")
    exporter.wait_event("culled", user="ana")
    assert asked(hub) == []


@pytest.mark.parametrize("check", ["auto", "require"])
def test_without_the_scopes_for_asking(
    clean_paper_hub: RealHub, run_exporter: RunExporter, check: str
) -> None:
    """`auto` says so loudly and goes by last_activity, `require` stops nobody."""
    hub = clean_paper_hub
    idle_servers(hub, "ana")
    token = hub.add_token([*MONITOR, "delete:servers"])
    exporter = run_exporter(hub, *HOUR, f"--busy-check={check}", token=token)
    said = "safeguards_missing" if check == "auto" else "requirements_not_met"
    assert "'tokens!service=idle-prober'" in exporter.wait_event(said)["roles"]
    assert exporter.metrics().value("hub_idle_exporter_busy_check") == 0
    if check == "auto":
        exporter.wait_event("culled", user="ana")
    else:
        exporter.wait_value(1, "hub_idle_exporter_enforcement", state="suspended")
        exporter.wait_polls(2)
        assert runs(hub, "ana")


def test_no_jupyter_there_leaves_it_to_last_activity(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    hub.paper.jupyter = None
    idle_servers(hub, "rstudio")
    exporter = run_exporter(hub, *HOUR)
    exporter.wait_event("culled", user="rstudio")
    checks = exporter.metrics().by("result", "hub_idle_exporter_busy_checks_total")
    assert checks["no_jupyter"] == 1


def test_every_probe_failing_is_one_loud_line_and_stops_nobody(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    idle_servers(hub, "ana", "bob")
    hub.paper.plan("GET", "*", always(reply(500)))
    exporter = run_exporter(hub, *HOUR)
    exporter.wait_event("every_busy_check_failed", servers="2")
    assert runs(hub, "ana")
    assert runs(hub, "bob")


def test_many_are_stopped_in_parallel_and_polls_go_on(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    names = [f"u{number}" for number in range(10)]
    hub.add_users(names)
    hub.start_servers([(name, "") for name in names], user_options={"stop_delay": 6})
    hub.backdate_all([(name, "") for name in names], idle=7200)
    exporter = run_exporter(hub, *HOUR)

    def all_stopping() -> bool:
        return [server["pending"] for server in hub.servers().values()] == ["stop"] * 10

    hub.wait(all_stopping, 20, "all under way before the first one ended")
    polls = exporter.metrics().value("hub_idle_exporter_polls_total") or 0
    exporter.wait_value(10, CULLS)
    assert (exporter.metrics().value("hub_idle_exporter_polls_total") or 0) > polls


# ---- the sidecar and the Hub that started it -----------------------------------------------------


def sidecar_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "hub_idle_exporter", "--web.listen-address=127.0.0.1:0", *options]


def managed(*options: str, environment: Mapping[str, str] | None = None) -> Service:
    return Service(command=sidecar_command(*options), environment=environment or {})


def sidecars(hub: RealHub) -> list[psutil.Process]:
    return [p for p in hub.processes() if "hub_idle_exporter" in " ".join(p.cmdline())]


def test_killed_hub_leaves_no_enforcing_sidecar_behind(make_hub: MakeHub) -> None:
    """The Hub is killed, and started anew without --enforce: the old sidecar stops nobody."""
    enforcing = managed("--enforce", "--interval=1s", "--timeout=1h", "--grace=4s")
    hub = make_hub(services=[enforcing], slow_stop_timeout=1)
    hub.wait(lambda: "users?state" in hub.log_tail(), 40, "polled by the sidecar")
    old = sidecars(hub)[0]
    hub.start_server("ana")
    hub.backdate("ana", idle=7200, age=9000)
    hub.kill()
    # The new Hub comes with the old token, which would still work.
    hub.services = (Service(token=enforcing.token, command=sidecar_command("--interval=1s")),)
    hub.start()
    assert old.wait(10) is not None or not old.is_running()
    hub.wait(lambda: sidecars(hub), 40, "the new sidecar up")
    assert [p.pid for p in sidecars(hub)] != [old.pid]
    assert runs(hub, "ana")


def test_hub_stopped_in_good_order_takes_its_sidecar_along(make_hub: MakeHub) -> None:
    hub = make_hub(services=[managed("--interval=1s")])
    hub.wait(lambda: "users?state" in hub.log_tail(), 40, "polled by the sidecar")
    process = sidecars(hub)[0]
    hub.stop_hub()
    process.wait(10)


def test_probe_in_flight_while_its_user_comes_back(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    """Whatever happens while the server is being asked is seen in what it answers."""
    hub = clean_paper_hub
    jupyter = Jupyter()
    hub.paper.jupyter = jupyter
    idle_servers(hub, "ana")
    hub.paper.plan("GET", "*/api/kernels", before(lambda: jupyter.add_kernel("busy")))
    exporter = run_exporter(hub, *HOUR)
    exporter.wait_event("cull_withheld", user="ana", cause="busy")
    assert runs(hub, "ana")
