"""Whom an enforcing exporter leaves alone on a real JupyterHub: by policies, scopes and modes."""

import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from conftest import MakeHub, RunCommand, RunExporter
from fake_hub import Jupyter, always, before, reply
from real_culling import CULLS, HOUR, POLICIES, asked, idle_servers, runs
from real_hub import ENFORCE, MONITOR, RealHub, Service


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


@pytest.mark.slow("many stops in parallel")
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


@pytest.mark.slow("Hubs of their own")
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


@pytest.mark.slow("Hubs of their own")
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
