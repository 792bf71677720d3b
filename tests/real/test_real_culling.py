"""Culling on a real JupyterHub: nobody at work is stopped, and what is idle is.

Real servers and kernels where what they do matters, paper servers where only the Hub's side does.
"""

import re
from pathlib import Path

import psutil
import pytest
import requests
from conftest import MakeHub, RunCommand, RunExporter
from real_culling import CULLS, HOUR, NOW, POLICIES, WITHHELD, idle_servers, runs
from real_hub import ENFORCE, PROBER, RealHub

from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.token import Token

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


@pytest.mark.slow("real kernels that compute for long")
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


@pytest.mark.slow("real servers with odd names")
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


@pytest.mark.slow("a stop that fails")
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


@pytest.mark.slow("a stop of 15 seconds")
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
