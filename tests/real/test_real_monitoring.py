"""Monitoring a real JupyterHub: every number is what the Hub's own database says."""

from collections import Counter

import pytest
from conftest import MakeHub, RunCommand, RunExporter
from real_changes import assert_changes_are_seen
from real_hub import ENFORCE, MONITOR, RealHub, server_path

REGISTERED, DEFAULT, NAMED = 1000, 350, 49
UP = "jupyterhub_up"
SERVERS = "jupyterhub_servers"
LIST = "hub_idle_exporter_hub_request_duration_seconds_count"


@pytest.mark.slow("a big Hub")
@pytest.mark.timeout(400)
def test_counts_equal_the_hubs_database_on_a_big_hub(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    """1,000 registered users, 400 servers: default, named, one pending; the limit passes."""
    hub = make_hub(activity_interval=0)
    users = [f"u{number:04d}" for number in range(REGISTERED)]
    for begin in range(0, REGISTERED, 250):
        hub.add_users(users[begin : begin + 250])
    keys = [(user, "") for user in users[:DEFAULT]]
    keys += [(user, "lab") for user in users[DEFAULT - 20 : DEFAULT - 20 + NAMED]]
    hub.start_servers(keys, parallel=16, wait=240)
    hub.start_server(users[-1], user_options={"start_delay": 3600}, wait=None)
    idle = keys[::4]
    hub.backdate_all(idle, idle=7200, age=9000)
    exporter = run_exporter(hub, "--timeout=1h", "--interval=1s", token=hub.add_token(MONITOR))

    def database() -> Counter[str]:
        states: Counter[str] = Counter()
        for (user, name), row in hub.rows().items():
            if row.active and not row.state:
                states["pending"] += 1
            elif row.active:
                states["idle" if (user, name) in idle else "active"] += 1
        return states

    expected = {"active": 299, "idle": 100, "pending": 1}
    assert database() == expected
    metrics = exporter.wait_value(1, UP)
    assert metrics.by("state", SERVERS) == expected
    assert metrics.value("jupyterhub_server_idle_seconds_gcount") == 399
    # The list is nine pages at most, however many are registered: only active users are asked for.
    polls = metrics.value("hub_idle_exporter_polls_total") or 0
    assert (metrics.value(LIST, operation="list_users") or 0) <= 9 * (polls + 1)
    idle = keys[::2]
    hub.backdate_all(idle, idle=7200, age=9000)  # the limit passes for more
    assert database() == {"active": 199, "idle": 200, "pending": 1}
    exporter.wait_value(200, SERVERS, state="idle")
    assert exporter.metrics().by("state", SERVERS) == database()


def test_token_without_read_servers_is_a_failure_that_names_the_scope(
    clean_paper_hub: RealHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    hub.start_server("ana")
    # A service's token has nothing but its role's scopes.
    token = hub.add_token(["list:users"])
    exporter = run_exporter(hub, "--interval=1s", token=token)
    metrics = exporter.wait_for(
        lambda m: m.value("hub_idle_exporter_poll_failures_total", cause="scope")
    )
    assert metrics.value(UP) == 0
    assert metrics.value(SERVERS) is None
    assert metrics.value("hub_idle_exporter_scope_granted", scope="read:servers") == 0
    assert metrics.value("hub_idle_exporter_scope_granted", scope="list:users") == 1
    done = run_command(hub, "check", token=token)
    assert done.returncode == 1
    assert "lacks the scope read:servers, which is needed to see users' servers" in done.stdout


def test_token_filtered_to_a_group_sees_its_servers_and_fails_nothing(
    clean_paper_hub: RealHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    hub.add_users(["ours"], group="seminar")
    hub.start_server("ours")
    hub.start_server("theirs")
    token = hub.add_token(["list:users", "read:servers!group=seminar"])
    exporter = run_exporter(hub, "--interval=1s", token=token)
    metrics = exporter.wait_value(1, UP)
    assert metrics.value(SERVERS) == 1
    assert metrics.value("hub_idle_exporter_scope_granted", scope="read:servers") == 1
    exporter.wait_event("users_hidden", users="1")
    assert run_command(hub, "check", token=token).returncode == 0


def test_administrators_token_of_old_works(
    clean_paper_hub: RealHub, run_command: RunCommand
) -> None:
    """`admin: True` on the service grants everything."""
    done = run_command(clean_paper_hub, "check", "--enforce", token=clean_paper_hub.admin_token)
    assert done.returncode == 0, done.stdout
    assert "scope delete:servers" in done.stdout


def test_names_beyond_ascii_and_with_blanks_are_shown(
    clean_paper_hub: RealHub, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    for user in ("we ird@ex.org", "ünï"):
        hub.start_server(user)
    exporter = run_exporter(hub, "--per-server-metrics")
    metrics = exporter.wait_value(2, SERVERS)
    shown = metrics.by("user", "jupyterhub_server_started_timestamp_seconds")
    assert set(shown) == {"we ird@ex.org", "ünï"}
    table = run_command(hub, "servers").stdout
    assert "we ird@ex.org" in table
    assert "ünï" in table


def test_check_says_what_is_missing_for_asking_and_prints_the_roles(
    clean_paper_hub: RealHub, run_command: RunCommand
) -> None:
    hub = clean_paper_hub
    done = run_command(hub, "check", "--enforce")
    assert done.returncode == 0, done.stdout
    assert "tokens of the user idle-prober work" in done.stdout
    lesser = hub.add_token([*MONITOR, "delete:servers"])
    done = run_command(hub, "check", "--enforce", "--busy-check=auto", token=lesser)
    assert done.returncode == 0, done.stdout  # `auto` works without
    assert "'tokens!user=idle-prober'" in done.stdout
    done = run_command(hub, "check", "--enforce", token=lesser)
    assert done.returncode == 1
    nobody = hub.add_token([s.replace("idle-prober", "nobody") for s in ENFORCE])
    done = run_command(
        hub, "check", "--enforce", "--busy-check=require", "--probe-user=nobody", token=nobody
    )
    assert done.returncode == 1
    assert "the Hub shows no user nobody" in done.stdout


@pytest.mark.slow("a Hub that is down")
def test_hub_that_is_down_is_said_once_per_change_and_recovered_from(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    hub = make_hub()
    hub.start_server("ana")
    hub.stop_hub()
    exporter = run_exporter(hub, "--interval=1s")
    exporter.wait_value(0, UP)
    exporter.wait_polls(2)
    hub.start()
    exporter.wait_value(1, UP)
    hub.stop_hub()
    exporter.wait_value(0, UP)
    exporter.wait_polls(2)
    hub.start()
    exporter.wait_value(1, UP)
    assert exporter.metrics().value(SERVERS) == 1
    assert len(exporter.events("poll_failed")) <= 4  # refused, and perhaps reset on the way
    assert len(exporter.events("poll_succeeded")) == 2
    assert exporter.stop() == 0


@pytest.mark.parametrize("value", [b"NaN", b"1e400", b'"\\ud800"'])
def test_users_options_that_are_no_json_blind_nobody(
    clean_paper_hub: RealHub, run_exporter: RunExporter, value: bytes
) -> None:
    """A user starts a server with options that Python's json lets through and JSON forbids."""
    hub = clean_paper_hub
    hub.ensure_user("ana")
    body = b'{"user_options": {"x": ' + value + b"}}"
    headers = {
        "Authorization": f"token {hub.user_token('ana')}",
        "Content-Type": "application/json",
    }
    url = f"{hub.api_url}{server_path('ana')}"
    assert hub._http.post(url, data=body, headers=headers, timeout=30).status_code in (201, 202)
    exporter = run_exporter(hub, "--interval=1s")
    exporter.wait_value(1, "jupyterhub_servers")
    assert exporter.metrics().value("hub_idle_exporter_poll_failures_total") == 0


def test_what_happens_at_servers_is_seen_by_reading_only_that(
    clean_paper_hub: RealHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_changes_are_seen(clean_paper_hub, monkeypatch)
