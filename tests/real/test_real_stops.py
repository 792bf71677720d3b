"""Stop tokens, the lease and the probe user on a real Hub, with real processes and signals."""

from pathlib import Path

import pytest
from conftest import MakeHub, RunCommand, RunExporter
from exporter_process import Exporter
from real_hub import ENFORCE, PROBER, RealHub

from hub_idle_exporter.culling.permits import Permits
from hub_idle_exporter.domain.settings import ConnectionSettings
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token

ENFORCING = ("--enforce", "--grace=0", "--interval=1s", "--timeout=1h")
# What jupyterhub-idle-culler's own documentation grants.
CULLERS = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
CULLS = "hub_idle_exporter_culls_total"


def idle(hub: RealHub, *users: str) -> None:
    for user in users:
        hub.start_server(user)
        hub.backdate(user, idle=7200, age=9000)


@pytest.fixture
def client(clean_paper_hub: RealHub) -> Hub:
    hub = clean_paper_hub
    return Hub(ConnectionSettings(hub.api_url), Token.read_by(lambda: hub.token))


@pytest.mark.parametrize("server", ["", "lab"])
def test_a_stop_that_the_hub_takes_after_its_token_expired_is_refused(
    clean_paper_hub: RealHub, client: Hub, server: str
) -> None:
    hub = clean_paper_hub
    hub.start_server("ünï", server)
    permit = Permits(client, PROBER).mint("ünï", server)
    assert 2.9 < permit.expires - permit.created < 3.1
    with hub.paused(4), pytest.raises(HubError) as refused:
        client.stop("ünï", server, permit.token)
    assert refused.value.status == 403
    assert hub.server("ünï", server)["ready"]
    client.stop("ünï", server, Permits(client, PROBER).mint("ünï", server).token)
    assert hub.server("ünï", server)["stopped"]


def test_a_stop_token_stops_that_one_server(clean_paper_hub: RealHub, client: Hub) -> None:
    hub = clean_paper_hub
    hub.start_server("ana")
    hub.start_server("bob")
    permit = Permits(client, PROBER).mint("ana", "")
    assert hub.api("DELETE", "/users/bob/server", token=permit.token).status_code == 404
    assert hub.api("GET", "/users", token=permit.token).status_code == 403
    assert hub.server("bob")["ready"]


def test_the_idle_cullers_own_roles_stop_nobody_and_say_what_to_grant(
    clean_real_hub: RealHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    """Whoever comes from that culler was blind: a silent computation looked idle."""
    hub = clean_real_hub
    hub.start_server("silent")
    hub.start_kernel("silent").run("import time; time.sleep(1e6)")
    token = hub.add_token(CULLERS)
    options = ("--enforce", "--grace=0", "--interval=1s", "--timeout=5s")
    exporter = run_exporter(hub, *options, token=token)
    exporter.wait_value(1, "jupyterhub_cull_candidates", reason="idle", policy="default")
    unmet = exporter.wait_event("requirements_not_met")
    for needed in ("'proxy'", f"'tokens!user={PROBER}'", f"'tokens!service={PROBER}'"):
        assert needed in unmet["roles"]
    exporter.wait_polls(3)
    assert exporter.metrics().value("hub_idle_exporter_enforcement", state="suspended") == 1
    assert exporter.metrics().value(CULLS) == 0
    assert hub.server("silent")["ready"]
    done = run_command(hub, "check", "--enforce", token=token)
    assert done.returncode == 1
    for needed in ("'access:servers'", "'delete:servers'"):
        assert needed in done.stdout


def two_exporters(hub: RealHub, run_exporter: RunExporter) -> tuple[Exporter, Exporter]:
    """Run one that holds the lease, and one that waits for it."""
    first = run_exporter(hub, *ENFORCING)
    first.wait_event("lease_taken")
    second = run_exporter(hub, *ENFORCING)
    second.wait_event("lease_not_held")
    return first, second


@pytest.mark.slow("an exporter that takes over")
def test_of_two_enforcing_processes_one_stops_and_the_other_takes_over(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    first, second = two_exporters(hub, run_exporter)
    second.wait_value(1, "hub_idle_exporter_enforcement", state="suspended")
    idle(hub, "ana")
    first.wait_value(1, CULLS)
    second.wait_polls(2)
    assert second.metrics().value("hub_idle_exporter_cull_attempts_total") == 0
    assert first.stop() == 0
    second.wait_event("lease_taken", after_another="true")
    idle(hub, "bob")
    second.wait_value(1, CULLS)


def test_a_single_run_ends_with_1_where_another_exporter_enforces(
    clean_paper_hub: RealHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    once = ("--once", "--enforce", "--timeout=1h")
    assert run_command(hub, *once).returncode == 0
    exporter = run_exporter(hub, *ENFORCING)  # the single run has released the lease
    exporter.wait_event("lease_taken", timeout=20)
    done = run_command(hub, *once)
    assert done.returncode == 1
    assert "holds the lease" in done.stderr


@pytest.mark.slow("a lease that expires")
@pytest.mark.timeout(300)
def test_after_a_kill_another_process_takes_over_within_two_minutes(
    clean_paper_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_paper_hub
    first, second = two_exporters(hub, run_exporter)
    first.process.kill()
    idle(hub, "ana")
    second.wait_event("lease_taken", timeout=140)
    second.wait_value(1, CULLS)


@pytest.mark.slow("a probe user or a stop of a real Hub in trouble")
def test_a_probe_user_who_could_do_more_suspends_by_name(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    wide = {"name": "too-wide", "users": [PROBER], "scopes": ["admin:users"]}
    hub = make_hub(roles=[wide])
    idle(hub, "ana")
    exporter = run_exporter(hub, *ENFORCING)
    why = exporter.wait_event("requirements_not_met")["why"]
    assert f"the user {PROBER} has more scopes than it needs: admin:" in why
    exporter.wait_polls(2)
    assert hub.server("ana")["ready"]


@pytest.mark.slow("a probe user or a stop of a real Hub in trouble")
def test_a_server_of_the_probe_user_suspends_by_name(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    hub = make_hub()
    exporter = run_exporter(hub, *ENFORCING)
    exporter.wait_event("lease_taken")
    hub.start_server(PROBER)
    hub.stop_server(PROBER)
    idle(hub, "ana")
    why = exporter.wait_event("requirements_not_met")["why"]
    assert f"somebody signed in as {PROBER}" in why
    exporter.wait_polls(2)
    assert hub.server("ana")["ready"]


@pytest.mark.slow("a probe user or a stop of a real Hub in trouble")
@pytest.mark.parametrize("missing", ["access:servers", "delete:servers"])
def test_a_role_of_the_probe_user_that_lacks_a_scope_is_named(
    make_hub: MakeHub, run_command: RunCommand, missing: str
) -> None:
    held = [scope for scope in ("access:servers", "delete:servers") if scope != missing]
    role = {"name": PROBER, "users": [PROBER], "scopes": held}
    hub = make_hub(prober=False, roles=[role])
    done = run_command(hub, "check", "--enforce")
    assert done.returncode == 1
    assert f"the role of the user {PROBER} lacks {missing}" in done.stdout


@pytest.mark.slow("a probe user or a stop of a real Hub in trouble")
def test_an_orphan_is_called_one_and_what_is_gone_is_not(
    clean_real_hub: RealHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    """A real server whose spawner failed to stop it goes on answering."""
    hub = clean_real_hub
    hub.start_server("fails", user_options={"stop_fails": True})
    hub.start_server("works")
    options = ("--enforce", "--grace=0", "--interval=1s", "--timeout=3s")
    exporter = run_exporter(hub, *options)
    failed = exporter.wait_event("cull_failed", user="fails", cause="not_stopped", timeout=60)
    assert "orphan" in failed["why"]
    exporter.wait_event("culled", user="works", timeout=60)
    assert set(ENFORCE) <= set(hub.get("/user", token=hub.token)["scopes"])
