"""The exporter on older JupyterHubs, each in an environment of its own (`make hubs`).

One Hub of each version lives through what differs between versions: listing, scopes, stops and
their proof, tokens for asking, and a silent computation that is spared.
"""

from collections.abc import Iterator

import pytest
from conftest import RunCommand, RunExporter, older_hub_python
from real_changes import assert_changes_are_seen
from real_hub import ENFORCE, MONITOR, RealHub

HUBS = {"3": "3.0", "4": "4.0", "5": "5.4", "5.5": "5.5"}
DAY = 86400.0
pytestmark = pytest.mark.slow("older Hubs")
CULLS = "hub_idle_exporter_culls_total"


@pytest.fixture(scope="module", params=HUBS)
def older_hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealHub]:
    """A Hub with real servers that report every second; stops over a second answer 202."""
    python = older_hub_python(request.param)
    directory = tmp_path_factory.mktemp(f"hub-{request.param}")
    with RealHub(
        directory, "jupyter", activity_interval=1, slow_stop_timeout=1, python=python
    ) as hub:
        assert ".".join(map(str, hub.version[:2])) == HUBS[request.param]
        yield hub


@pytest.fixture
def hub(older_hub: RealHub) -> RealHub:
    """The Hub with nothing running."""
    older_hub.stop_all()
    return older_hub


def test_counts_and_version(hub: RealHub, run_exporter: RunExporter) -> None:
    hub.start_server("ana")
    hub.start_server("ana", "lab")
    exporter = run_exporter(hub, "--interval=1s", token=hub.add_token(MONITOR))
    metrics = exporter.wait_value(2, "jupyterhub_servers", state="active")
    version = ".".join(map(str, hub.version))
    assert metrics.value("jupyterhub_info", version=version) == 1


def test_missing_scope_is_named(hub: RealHub, run_command: RunCommand) -> None:
    hub.start_server("ana")
    done = run_command(hub, "check", "--enforce", token=hub.add_token(["list:users"]))
    assert done.returncode == 1
    assert "lacks the scope read:servers" in done.stdout
    assert "lacks the scope delete:servers" in done.stdout
    done = run_command(hub, "check", "--enforce", "--busy-check=require")
    assert done.returncode == 0, done.stdout


def test_silent_computation_is_spared_and_the_idle_are_stopped(
    hub: RealHub, run_exporter: RunExporter
) -> None:
    hub.start_server("silent")
    hub.start_server("idle")
    hub.start_server("idle", "lab")
    kernel = hub.start_kernel("silent")
    kernel.run("import time; time.sleep(1e6)")
    options = ("--enforce", "--grace=0", "--interval=1s", "--timeout=5s")
    exporter = run_exporter(hub, *options)
    exporter.wait_event("culled", user="idle", server="", timeout=60)
    exporter.wait_event("culled", user="idle", server="lab", timeout=60)
    exporter.wait_event("cull_withheld", user="silent", cause="busy", timeout=60)
    assert hub.server("silent")["ready"]
    checks = exporter.metrics().by("result", "hub_idle_exporter_busy_checks_total")
    assert checks["idle"] >= 2
    assert checks["no_jupyter"] == 0


def test_stop_that_fails_and_stop_that_takes_long(hub: RealHub, run_exporter: RunExporter) -> None:
    hub.start_server("fails", user_options={"stop_fails": True})
    hub.start_server("slow", user_options={"stop_delay": 4})
    options = ("--enforce", "--grace=0", "--interval=1s", "--timeout=5s")
    exporter = run_exporter(hub, *options)
    exporter.wait_event("cull_failed", user="fails", cause="not_stopped", timeout=60)
    culled = exporter.wait_event("culled", user="slow", timeout=60)
    assert float(culled["seconds"]) >= 4
    assert exporter.metrics().value(CULLS) == 1


def test_older_tokens_scopes_are_enough(hub: RealHub) -> None:
    """The scopes that the README grants exist in this version."""
    granted = set(hub.get("/user", token=hub.token)["scopes"])
    assert set(ENFORCE) <= granted


def test_scope_that_only_hubs_before_6_1_need_is_named(
    hub: RealHub, run_command: RunCommand
) -> None:
    """They look for the prober among the services of the filter, and refuse to mint without."""
    lesser = hub.add_token([scope for scope in ENFORCE if not scope.startswith("tokens!service")])
    done = run_command(hub, "check", "--enforce", "--busy-check=require", token=lesser)
    assert done.returncode == 1
    assert "'tokens!service=idle-prober'" in done.stdout


def test_server_whose_name_leads_up_the_path_is_asked_and_stopped(
    hub: RealHub, run_exporter: RunExporter
) -> None:
    """Hubs before 6 take such names; unquoted, the stop would go elsewhere and change nothing."""
    hub.ensure_user("ana")
    hub.start_as_it_is("/users/ana/servers/%2E%2E")
    options = ("--enforce", "--grace=0", "--interval=1s", "--timeout=5s")
    exporter = run_exporter(hub, *options)
    exporter.wait_event("culled", user="ana", server="..", timeout=60)
    assert not hub.server("ana", "..")["ready"]
    assert exporter.metrics().by("result", "hub_idle_exporter_busy_checks_total")["idle"] >= 1


def test_idle_users_are_deleted_and_who_has_a_server_is_not(
    hub: RealHub, run_exporter: RunExporter
) -> None:
    """Hubs before 5.0 do not sort users: the whole list is read."""
    hub.add_users(["away", "returns", "recent"])
    hub.start_server("works")
    hub.age_users(["away", "returns", "works"], idle=40 * DAY, age=400 * DAY)
    hub.start_server("returns")
    options = ("--enforce", "--grace=0", "--interval=1s", "--timeout=1h", "--cull-users")
    exporter = run_exporter(hub, *options, token=hub.add_token([*ENFORCE, "admin:users"]))
    exporter.wait_event("user_deleted", user="away", timeout=60)
    exporter.wait_polls(2)
    assert exporter.metrics().value("hub_idle_exporter_users_deleted_total") == 1
    assert {"returns", "recent", "works"} <= set(hub.users())
    assert hub.server("works")["ready"]


def test_what_happens_at_servers_is_seen_by_reading_only_that(
    hub: RealHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hubs before 5.0 do not sort users: the list is always read in full."""
    assert_changes_are_seen(hub, monkeypatch)
