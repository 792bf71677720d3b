"""One poll after another against the fake Hub, with clocks that are moved by hand."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_hub as faults
import pytest
from fake_hub import FakeHub, reply
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from traitlets.config import Config

from hub_idle_exporter.culling.enforcement import enforcement_of
from hub_idle_exporter.culling.gatekeeper import Gatekeeper
from hub_idle_exporter.culling.later import Later
from hub_idle_exporter.domain.gate import ClockReading, GateState
from hub_idle_exporter.domain.labels import Cause
from hub_idle_exporter.domain.model import version_numbers
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.poll_state import LatestState, PollError, PollState
from hub_idle_exporter.domain.requirements import Severity
from hub_idle_exporter.domain.scopes import Scope
from hub_idle_exporter.domain.settings import (
    BusyCheck,
    ConnectionSettings,
    CullSettings,
    PollSettings,
)
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.observer import Observer, rules_of
from hub_idle_exporter.people.promises import Promises
from hub_idle_exporter.people.state_file import StateFile
from hub_idle_exporter.people.tells import OnThePage
from hub_idle_exporter.policy_file import PolicySource
from hub_idle_exporter.poller import Poller, heartbeat_seconds

MONITOR = ["list:users", "read:servers"]
Logs = list[dict[str, Any]]


class World:
    """A Hub, a poller, and one clock for both."""

    def __init__(
        self,
        hub: FakeHub,
        policy_file: Path | None = None,
        enforce: bool = False,
        busy_check: str = "auto",
        **poll: Any,
    ) -> None:
        self.now = float(int(time.time()))
        self.meanwhile: Callable[[], object] = lambda: None
        self.hub = hub
        hub.clock = lambda: self.now
        self.settings = PollSettings(Policy("default", 3600.0), **poll)
        cull = CullSettings(enforce, grace=0.0, busy_check=BusyCheck(busy_check))
        default = self.settings.default
        self.source = None
        if policy_file is not None:
            self.source = PolicySource(policy_file, default, self.wait).read_first()
        self.latest = LatestState(PollState.at_start(rules_of(self.source, self.settings), cull))
        self.gatekeeper = Gatekeeper(enforce, 0.0, self.latest, self.clocks)
        self.metrics = Metrics(
            CollectorRegistry(), self.latest, self.gatekeeper.read, self.settings
        )
        self.token = hub.token
        self.client = Hub(
            ConnectionSettings(hub.url),
            Token.read_by(lambda: self.token),
            self.gatekeeper.hub_answered,
            self.metrics.observe_request,
        )
        file = StateFile(None)
        promises = Promises.of(file, OnThePage(), self.gatekeeper.hub_time)
        observer = Observer(
            self.client, self.source, self.settings, cull, self.gatekeeper, file, self.clocks
        )
        # Never started: it takes candidates and leaves them be.
        stopping = threading.Event()
        enforcement = enforcement_of(
            self.client, self.gatekeeper, promises, self.latest, self.metrics, cull,
            self.settings.interval, tls=None, later=Later(stopping, 1), stopping=stopping,
        )  # fmt: skip
        self.poller = Poller(
            observer, self.source, self.latest, self.settings, self.gatekeeper,
            enforcement if enforce else None, self.metrics, self.clocks,
        )  # fmt: skip

    def clocks(self) -> ClockReading:
        return ClockReading(self.now, self.now)

    def wait(self, seconds: float) -> bool:
        """Wait no time: the clock goes on, and what is to happen meanwhile is done."""
        self.now += seconds
        self.meanwhile()
        return False

    def poll(self, after: float = 60.0) -> bool:
        self.now += after
        return self.poller.poll()

    def error(self) -> PollError:
        error = self.latest.state.error
        assert error is not None
        return error

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        return {
            sample.name
            for family in self.metrics.registry.collect()
            for sample in family.samples
        }  # fmt: skip

    def idle_seconds(self) -> float | None:
        name = "hub_idle_exporter_idle_server_seconds_total"
        return self.value(name, policy="default")


@pytest.fixture
def world(fake_hub: FakeHub) -> World:
    return World(fake_hub)


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as written:
        yield written  # type: ignore[misc]


def said(logs: Logs, level: str = "info") -> list[str]:
    """Give the events of that level or above."""
    levels = ["debug", "info", "warning", "error"]
    least = levels.index(level)
    return [line["event"] for line in logs if levels.index(line["log_level"]) >= least]


# ---- what a poll shows --------------------------------------------------------------------------


def test_a_good_poll(world: World) -> None:
    world.hub.add_server("ana", idle=3660)
    world.hub.add_server("bob", idle=10)
    world.hub.add_server("new", pending="spawn")
    assert world.poll()
    assert world.value("jupyterhub_up") == 1
    assert world.value("jupyterhub_info", version="6.1.1") == 1
    for state in ("active", "idle", "pending"):
        assert world.value("jupyterhub_servers", policy="default", state=state) == 1
    assert world.value("jupyterhub_cull_candidates", policy="default", reason="idle") == 1
    assert world.value("hub_idle_exporter_polls_total") == 1
    assert world.value("hub_idle_exporter_last_poll_success_timestamp_seconds") == world.now
    assert world.value("hub_idle_exporter_poll_interval_seconds") == 60
    assert world.latest.state.last_success == world.clocks()


@pytest.mark.parametrize(
    ("idle", "state"), [(3599.0, "active"), (3600.0, "idle"), (3601.0, "idle")]
)
def test_idle_is_at_or_past_the_limit(world: World, idle: float, state: str) -> None:
    world.hub.add_server("ana", idle=idle)
    assert world.poll(after=0)
    assert world.value("jupyterhub_servers", policy="default", state=state) == 1


def test_the_hubs_clock_decides_and_not_ours(world: World) -> None:
    world.hub.clock_offset = -7200
    world.hub.add_server("ana", idle=3000)
    assert world.poll(after=0)
    assert world.value("jupyterhub_servers", policy="default", state="active") == 1


def test_users_without_servers_do_not_matter(world: World) -> None:
    for number in range(500):
        world.hub.add_user(f"registered-{number}")
    world.hub.add_server("ana")
    assert world.poll()
    assert len(world.hub.log("GET", "/users")) == 1
    assert world.value("jupyterhub_servers", policy="default", state="active") == 0


def test_per_server_series_only_where_they_are_wanted(fake_hub: FakeHub) -> None:
    fake_hub.add_server("a/b", "my srv")
    name = "jupyterhub_server_last_activity_timestamp_seconds"
    plain, wide = World(fake_hub), World(fake_hub, per_server_metrics=True)
    assert plain.poll()
    assert wide.poll()
    assert plain.value(name, user="a/b", server="my srv") is None
    assert wide.value(name, user="a/b", server="my srv") is not None


def test_monitoring_asks_for_nothing_but_the_hubs_own_lists(world: World) -> None:
    target = faults.FakeServer()
    with target:
        world.hub.add_server("ana", idle=999_999, target=target)
        for _ in range(3):
            assert world.poll()
            world.poller.heartbeat()
        assert target.log() == []
    assert {(r.method, r.path) for r in world.hub.log()} == {
        ("GET", "/"), ("GET", "/user"), ("GET", "/users"),
    }  # fmt: skip
    assert world.gatekeeper.state() is GateState.OFF


# ---- failures -----------------------------------------------------------------------------------


def hubs_facts(world: World) -> set[str]:
    return {name for name in world.names() if name.startswith("jupyterhub_")}


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (faults.html(), Cause.RESPONSE),
        (faults.half_body(), Cause.CONNECTION),
        (faults.always(reply(500)), Cause.HTTP),
        (faults.always(reply(401)), Cause.AUTH),
        (faults.dated(None), Cause.RESPONSE),
    ],
)
def test_facts_vanish_with_a_failed_poll_and_come_back(
    world: World, fault: faults.Fault, cause: Cause
) -> None:
    world.hub.add_server("ana")
    assert world.poll()
    before = hubs_facts(world)
    world.hub.plan("GET", "/users", fault)
    assert not world.poll()
    assert hubs_facts(world) == {"jupyterhub_up"}
    assert world.value("jupyterhub_up") == 0
    assert world.value("hub_idle_exporter_poll_failures_total", cause=cause) == 1
    assert world.value("hub_idle_exporter_polls_total") == 2
    success = world.value("hub_idle_exporter_last_poll_success_timestamp_seconds")
    assert success == world.now - 60
    world.hub.heal()
    assert world.poll()
    assert hubs_facts(world) == before


def test_a_failure_on_the_second_page_shows_nothing(world: World) -> None:
    world.hub.add_servers(300)
    world.hub.plan("GET", "/users", faults.close(), after=1)
    assert not world.poll()
    assert hubs_facts(world) == {"jupyterhub_up"}


def test_down_and_back_is_said_once_per_change(world: World, logs: Logs) -> None:
    world.hub.add_server("ana")
    world.hub.hang_up()
    assert [world.poll() for _ in range(3)] == [False] * 3
    world.hub.listen()
    assert [world.poll() for _ in range(3)] == [True] * 3
    world.hub.hang_up()
    assert [world.poll() for _ in range(3)] == [False] * 3
    world.hub.listen()
    assert world.poll()
    assert said(logs) == ["poll_failed", "poll_succeeded", "poll_failed", "poll_succeeded"]
    failed = world.value("hub_idle_exporter_poll_failures_total", cause="connection")
    assert failed == 6


def test_another_failure_is_another_change(world: World, logs: Logs) -> None:
    world.hub.plan("GET", "/users", faults.html(), times=2)
    world.poll(), world.poll()
    world.hub.plan("GET", "/users", faults.always(reply(500)), times=2)
    world.poll(), world.poll()
    assert said(logs) == ["poll_failed", "poll_failed"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_asks_to_be_left_alone_is(world: World, status: int) -> None:
    assert world.poll()
    world.hub.plan("GET", "/users", faults.retry_after(status, 300), times=1)
    assert not world.poll()
    before = len(world.hub.log())
    assert [world.poll() for _ in range(4)] == [False] * 4
    for _ in range(3):
        world.poller.heartbeat()
    assert len(world.hub.log()) == before
    assert world.poll()
    assert world.value("jupyterhub_up") == 1


def test_a_poll_that_outlasts_its_interval_says_so(world: World, logs: Logs) -> None:
    def later() -> None:
        world.now += 90

    world.hub.plan("GET", "/users", faults.before(later), times=1)
    assert world.poll()
    assert world.value("hub_idle_exporter_poll_duration_seconds") == 90
    assert "poll_exceeded_interval" in said(logs)


# ---- users who cannot be decoded ----------------------------------------------------------------


def test_a_user_who_cannot_be_decoded_is_counted_and_hides_nobody(world: World, logs: Logs) -> None:
    for name in ("ana", "odd", "zoe"):
        world.hub.add_server(name, idle=9000)
    gauge = "hub_idle_exporter_unreadable_users"
    assert world.poll()
    assert world.value(gauge) == 0
    world.hub.users["odd"].extra = {"servers": {"": {"ready": "yes"}}}
    assert world.poll()
    assert world.poll()
    assert world.value("jupyterhub_up") == 1
    assert world.value(gauge) == 1
    assert world.value("jupyterhub_servers", policy="default", state="idle") == 2
    world.hub.plan("GET", "/users", faults.close(), times=1)
    assert not world.poll()
    assert world.value(gauge) == 1, "as of the last successful poll"
    world.hub.users["odd"].extra = {}
    assert world.poll()
    assert world.value(gauge) == 0
    told = [(line["log_level"], line["users"], line["names"]) for line in logs
            if line["event"] == "users_unreadable"]  # fmt: skip
    assert told == [("debug", 0, []), ("warning", 1, ["odd"]), ("debug", 0, [])]


def test_no_name_of_those_who_cannot_be_decoded_is_in_a_metric(fake_hub: FakeHub) -> None:
    fake_hub.add_server("deep-diver")
    fake_hub.users["deep-diver"].extra = {"servers": None}
    world = World(fake_hub, per_server_metrics=True)
    assert world.poll()
    text = world.metrics.exposition("text/plain").body
    assert b"unreadable_users 1.0" in text
    assert b"deep-diver" not in text


# ---- scopes -------------------------------------------------------------------------------------


def scopes(world: World) -> dict[str, float]:
    return {
        sample.labels["scope"]: sample.value
        for family in world.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "hub_idle_exporter_scope_granted"
    }


def test_list_users_alone_is_a_missing_scope(fake_hub: FakeHub) -> None:
    fake_hub.add_server("ana")
    fake_hub.token = fake_hub.add_token(["list:users"])
    world = World(fake_hub)
    assert not world.poll()
    assert world.value("jupyterhub_up") == 0
    assert world.value("hub_idle_exporter_poll_failures_total", cause="scope") == 1
    assert scopes(world)["read:servers"] == 0
    assert scopes(world)["list:users"] == 1
    assert "read:servers" in world.error().sentence


@pytest.mark.parametrize("missing", MONITOR)
def test_each_scope_that_monitoring_needs_is_named(fake_hub: FakeHub, missing: str) -> None:
    fake_hub.token = fake_hub.add_token([scope for scope in MONITOR if scope != missing])
    world = World(fake_hub)
    assert not world.poll()
    assert world.error().cause is Cause.SCOPE
    assert missing in world.error().sentence


def test_the_smallest_scopes_are_enough(fake_hub: FakeHub) -> None:
    fake_hub.token = fake_hub.add_token(MONITOR)
    fake_hub.add_server("ana")
    world = World(fake_hub)
    assert world.poll()
    assert {name for name, granted in scopes(world).items() if granted} == set(MONITOR)


def test_a_token_for_one_group_sees_its_servers_and_fails_nowhere(
    fake_hub: FakeHub, logs: Logs
) -> None:
    fake_hub.add_user("ana", groups=["staff"])
    fake_hub.add_server("ana", idle=99_999)
    fake_hub.add_server("bob", idle=99_999)
    fake_hub.token = fake_hub.add_token(["list:users", "read:servers!group=staff"])
    world = World(fake_hub)
    assert world.poll()
    assert world.value("jupyterhub_up") == 1
    assert world.value("jupyterhub_servers", policy="default", state="idle") == 1
    assert scopes(world)["read:servers"] == 1
    assert [line["users"] for line in logs if line["event"] == "users_hidden"] == [1]


def test_servers_that_the_token_may_not_stop_are_told_once(fake_hub: FakeHub, logs: Logs) -> None:
    """A group that the token cannot see is in doubt: whoever granted the filter is to know."""
    fake_hub.add_user("ana", groups=["staff"])
    fake_hub.add_server("ana", idle=99_999)
    fake_hub.token = fake_hub.add_token([*MONITOR, "delete:servers!group=staff"])
    world = World(fake_hub, enforce=True)
    assert world.poll()
    assert world.poll()
    assert [line["servers"] for line in logs if line["event"] == "servers_outside_scope"] == [1]


def test_servers_hidden_though_the_scope_has_no_filter_are_a_failure(world: World) -> None:
    def hide(page: Any) -> Any:
        del page["items"][0]["servers"]
        return page

    world.hub.add_servers(3)
    world.hub.plan("GET", "/users", faults.rewritten(hide))
    assert not world.poll()
    assert world.error().cause is Cause.SCOPE


def test_a_scope_that_is_taken_away_shows(world: World) -> None:
    world.hub.add_server("ana")
    assert world.poll()
    assert scopes(world)["read:servers"] == 1
    world.hub.tokens[world.hub.token].scopes = ["list:users"]
    assert not world.poll()
    assert scopes(world)["read:servers"] == 0
    world.hub.tokens[world.hub.token].scopes = MONITOR
    assert world.poll()
    assert scopes(world)["read:servers"] == 1


def test_groups_that_cannot_be_seen_are_named(
    fake_hub: FakeHub, tmp_path: Path, logs: Logs
) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("policies:\n  - {name: staff, match: {groups: staff}, exempt: true}\n")
    fake_hub.add_server("ana", idle=99_999)
    fake_hub.token = fake_hub.add_token(MONITOR)
    world = World(fake_hub, policy_file=file)
    assert world.poll()
    assert world.poll()
    why = [line["why"] for line in logs if line["event"] == "requirements_not_met"]
    assert len(why) == 1
    assert "read:users:groups" in why[0]
    assert world.value("jupyterhub_cull_candidates", policy="default", reason="idle") == 0


# ---- what culling needs -------------------------------------------------------------------------

ROLES = {
    "hub-idle-exporter": [
        "list:users", "read:servers", "delete:servers", "proxy",
        "tokens!user=idle-prober", "tokens!service=idle-prober",
    ],
    "idle-prober": ["access:servers", "delete:servers"],
}  # fmt: skip


def events(logs: Logs, *names: str) -> Logs:
    return [line for line in logs if line["event"] in names]


def pasted(roles: str) -> dict[str, list[str]]:
    """Run roles from the log as a Hub's configuration; give the scopes that each name gets."""
    config = Config()
    exec(roles, {"c": config})  # noqa: S102
    added: list[dict[str, Any]] = config.JupyterHub["load_roles"].get_value([])
    assert [one["name"] for one in added] == ["idle-exporter-scopes", "idle-prober-scopes"]
    return {
        name: one["scopes"]
        for one in added
        for name in (*one.get("users", ()), *one.get("services", ()))
    }


def test_the_roles_that_are_missing_can_be_pasted_from_the_log(
    fake_hub: FakeHub, logs: Logs
) -> None:
    """Coming from jupyterhub-idle-culler with its own role: nothing is stopped until then."""
    fake_hub.token = fake_hub.add_token([*MONITOR, "delete:servers"])
    fake_hub.add_server("ana", idle=7200)
    world = World(fake_hub, enforce=True, busy_check="require")
    assert world.poll()
    assert world.poll()
    (line,) = events(logs, "requirements_not_met", "safeguards_missing", "safeguards_complete")
    assert (line["event"], line["log_level"]) == ("requirements_not_met", "error")
    assert "proxy" in line["why"]
    assert "tokens!service=idle-prober" in line["why"]
    assert pasted(line["roles"]) == ROLES
    assert "\n" not in line["roles"]
    assert '"' not in line["roles"], "logfmt would escape it"
    assert world.gatekeeper.state() is GateState.SUSPENDED
    assert fake_hub.log("DELETE") == []


def test_roles_of_a_service_with_an_odd_name_are_python_too(fake_hub: FakeHub, logs: Logs) -> None:
    service = """it's "mine"\\n]);"""
    fake_hub.token = fake_hub.add_token([*MONITOR, "delete:servers"], service=service)
    assert World(fake_hub, enforce=True, busy_check="require").poll()
    (line,) = events(logs, "requirements_not_met")
    assert pasted(line["roles"])[service] == ROLES["hub-idle-exporter"]


def test_less_protection_is_said_once_and_that_it_is_back(fake_hub: FakeHub, logs: Logs) -> None:
    every = fake_hub.tokens[fake_hub.token].scopes
    fake_hub.tokens[fake_hub.token].scopes = [*MONITOR, "delete:servers"]
    world = World(fake_hub, enforce=True, busy_check="auto")
    for _ in range(2):
        assert world.poll()
    fake_hub.tokens[fake_hub.token].scopes = every
    for _ in range(2):
        assert world.poll()
    missing, complete = events(logs, "safeguards_missing", "safeguards_complete")
    assert (missing["event"], missing["log_level"]) == ("safeguards_missing", "warning")
    for words in ("servers are not asked", "no stop token", "no lease"):
        assert words in missing["why"]
    assert pasted(missing["roles"]) == ROLES
    assert (complete["event"], complete["log_level"]) == ("safeguards_complete", "info")


def test_who_chooses_not_to_ask_is_told_without_roles(fake_hub: FakeHub, logs: Logs) -> None:
    assert World(fake_hub, enforce=True, busy_check="off").poll()
    (line,) = events(logs, "safeguards_missing", "requirements_not_met")
    assert line["event"] == "safeguards_missing"
    assert line["why"].startswith("servers are not asked")
    assert "roles" not in line


def test_monitoring_speaks_of_no_safeguards(fake_hub: FakeHub, logs: Logs) -> None:
    assert World(fake_hub).poll()
    assert events(logs, "safeguards_missing", "safeguards_complete") == []


@pytest.mark.parametrize("offset", [7200.0, -61.0])
def test_clocks_too_far_apart_suspend_by_name(fake_hub: FakeHub, logs: Logs, offset: float) -> None:
    world = World(fake_hub, enforce=True, busy_check="require")
    fake_hub.clock_offset = offset
    assert world.poll()
    (line,) = events(logs, "requirements_not_met")
    assert line["why"].startswith("the Hub's clock is ")
    assert "roles" not in line
    assert world.gatekeeper.read().why == line["why"]


def test_the_probe_user_is_looked_at_at_the_start_and_while_something_may_be_stopped(
    fake_hub: FakeHub,
) -> None:
    """Two requests a poll, and none while nobody is idle."""
    world = World(fake_hub, enforce=True, busy_check="require")

    def looks() -> int:
        return len(fake_hub.log("GET", "/users/idle-prober"))

    assert world.poll()
    assert looks() == 1, "at the start"
    assert world.poll()
    assert looks() == 1
    fake_hub.add_server("ana", idle=7200)
    assert world.poll()
    assert world.poll()
    assert looks() == 3
    asked = [request.json() for request in fake_hub.log("POST", "/users/idle-prober/tokens")]
    assert [body["expires_in"] for body in asked if body["scopes"] is None] == [1] * 3


# ---- other Hubs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "old"])
def test_what_has_no_version_is_no_hub(fake_hub: FakeHub, version: str) -> None:
    fake_hub.version = version
    world = World(fake_hub)
    assert not world.poll()
    assert world.error().cause is Cause.RESPONSE
    assert fake_hub.log("GET", "/user*") == []


@pytest.mark.parametrize("version", ["1.5.1", "0.9.6"])
def test_a_hub_before_2_is_refused(fake_hub: FakeHub, version: str) -> None:
    fake_hub.version = version
    world = World(fake_hub)
    assert not world.poll()
    assert "too old: 2.0 or newer" in world.error().sentence
    assert fake_hub.log("GET", "/users") == []


def test_a_hub_that_was_too_old_is_asked_again(fake_hub: FakeHub) -> None:
    """It was upgraded, or it was not the Hub that said so."""
    world = World(fake_hub)
    fake_hub.version = "1.5.1"
    assert not world.poll()
    fake_hub.version = "6.1.1"
    assert world.poll()


@pytest.mark.parametrize(
    "version", ["2.0.0", "2.3.1", "3.0.0", "5.4.6", "6.1.1", "7.0.0.dev", "10.0"]
)
def test_a_hub_from_2_is_polled(fake_hub: FakeHub, version: str) -> None:
    fake_hub.version = version
    assert World(fake_hub).poll()


def test_a_hub_that_is_upgraded_shows(world: World) -> None:
    assert world.poll()
    world.hub.version = "7.0.0"
    assert world.poll()
    assert world.value("jupyterhub_info", version="7.0.0") == 1
    assert world.value("jupyterhub_info", version="6.1.1") is None


def test_version_numbers() -> None:
    assert version_numbers("6.1.1") == (6, 1)
    assert version_numbers("10.0.0.dev1") == (10, 0)
    assert version_numbers("5") == (5,)
    assert version_numbers("5.x") == (5,)
    assert version_numbers("²") == ()
    assert version_numbers("9" * 5000) == ()


# ---- idle server-seconds ------------------------------------------------------------------------


def test_time_idle_past_the_limit_is_summed_from_poll_to_poll(world: World) -> None:
    world.hub.add_server("ana", idle=3600 - 30)
    world.hub.add_server("bob", idle=999_999)
    assert world.poll(after=0)
    assert world.idle_seconds() == 0, "of the time before the first poll nothing was seen"
    assert world.poll(after=60)
    assert world.idle_seconds() == 30 + 60, "ana passed her limit half way"
    assert world.poll(after=60)
    assert world.idle_seconds() == 30 + 60 + 60 + 60


def test_a_gap_counts_three_intervals_at_most(world: World) -> None:
    world.hub.add_server("bob", idle=999_999)
    assert world.poll(after=0)
    world.hub.plan("GET", "/users", faults.html(), times=1)
    assert not world.poll(after=60)
    assert world.poll(after=60)
    assert world.idle_seconds() == 120, "a failed poll between two good ones loses nothing"
    assert world.poll(after=86_400)
    assert world.idle_seconds() == 120 + 180


def test_active_servers_and_a_clock_set_back_count_nothing(world: World) -> None:
    world.hub.add_server("ana", idle=0)
    assert world.poll(after=0)
    assert world.poll(after=60)
    assert world.idle_seconds() == 0
    world.hub.add_server("bob", idle=999_999)
    world.hub.clock_offset = -1000
    assert world.poll(after=60)
    assert world.idle_seconds() == 0


# ---- heartbeat ----------------------------------------------------------------------------------


def test_the_hub_is_asked_often_enough_to_notice_an_outage() -> None:
    assert heartbeat_seconds(3600) == 30
    assert heartbeat_seconds(60) == 30
    assert heartbeat_seconds(5) == 5


def test_a_heartbeat_is_not_sent_where_the_hub_has_just_answered(world: World) -> None:
    assert world.poll()
    before = len(world.hub.log("GET", "/"))
    world.poller.heartbeat()
    assert len(world.hub.log("GET", "/")) == before
    world.now += 30
    world.poller.heartbeat()
    assert len(world.hub.log("GET", "/")) == before + 1
    assert "authorization" not in world.hub.log("GET", "/")[-1].headers


def test_a_heartbeat_without_answer_is_no_event(world: World, logs: Logs) -> None:
    world.hub.hang_up()
    world.now += 60
    world.poller.heartbeat()
    assert said(logs) == []
    assert world.gatekeeper.seconds_since_answer() == 60


# ---- the policy file ----------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(policy("first"))
    return path


def policy(name: str, timeout: str = "2h") -> str:
    return f"policies:\n  - {{name: {name}, match: {{users: a*}}, timeout: {timeout}}}\n"


def reloads(world: World) -> tuple[float | None, float | None]:
    return (
        world.value("hub_idle_exporter_policy_reloads_total"),
        world.value("hub_idle_exporter_policy_reload_failures_total"),
    )


def test_a_policy_decides_what_counts_as_idle(fake_hub: FakeHub, file: Path) -> None:
    world = World(fake_hub, policy_file=file)
    fake_hub.add_server("ana", idle=5000)
    fake_hub.add_server("bob", idle=5000)
    assert world.poll(after=0)
    assert world.value("jupyterhub_servers", policy="first", state="active") == 1
    assert world.value("jupyterhub_servers", policy="default", state="idle") == 1
    assert world.value("jupyterhub_policy_timeout_seconds", policy="first") == 7200
    assert reloads(world) == (0, 0)


def test_a_changed_file_is_read_again(fake_hub: FakeHub, file: Path, logs: Logs) -> None:
    world = World(fake_hub, policy_file=file)
    fake_hub.add_server("ana", idle=5000)
    assert world.poll(after=0)
    file.write_text(policy("second", "1h"))
    assert world.poll(after=0)
    assert reloads(world) == (1, 0)
    assert world.value("jupyterhub_servers", policy="second", state="idle") == 1
    assert world.value("jupyterhub_servers", policy="first", state="idle") is None
    culls = world.value("hub_idle_exporter_culls_total", policy="second", reason="idle")
    assert culls == 0, "there before the first is counted"
    assert said(logs).count("policy_file_reloaded") == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text("policies"),
        lambda file: file.write_text(policy("first", "9" * 400)),
        Path.unlink,
    ],
)
def test_a_broken_file_keeps_the_old_policies_and_shows(
    fake_hub: FakeHub, file: Path, logs: Logs, spoil: Callable[[Path], object]
) -> None:
    world = World(fake_hub, policy_file=file)
    fake_hub.add_server("ana", idle=5000)
    assert world.poll(after=0)
    spoil(file)
    assert world.poll(after=0)
    assert world.poll(after=0)
    assert reloads(world) == (0, 1)
    assert world.value("jupyterhub_servers", policy="first", state="active") == 1
    assert str(file) in (world.latest.state.policy_error or "")
    assert said(logs).count("policy_file_invalid") == 1
    file.write_text(policy("first"))
    assert world.poll(after=0)
    assert reloads(world) == (1, 1)
    assert world.latest.state.policy_error is None


def test_a_file_that_is_being_written_is_left_for_the_next_poll(
    fake_hub: FakeHub, file: Path, logs: Logs
) -> None:
    world = World(fake_hub, policy_file=file)
    fake_hub.add_server("ana", idle=5000)
    assert world.poll(after=0)
    file.write_text("policies: []\n")
    world.meanwhile = lambda: file.write_text(policy("second"))
    assert world.poll(after=0)
    assert reloads(world) == (0, 0)
    assert world.value("jupyterhub_servers", policy="first", state="active") == 1
    assert world.latest.state.policy_error is None
    assert world.poll(after=0)
    assert reloads(world) == (1, 0)
    assert world.value("jupyterhub_servers", policy="second", state="active") == 1
    assert said(logs).count("policy_file_reloaded") == 1


def test_a_file_is_read_again_while_the_hub_is_away(fake_hub: FakeHub, file: Path) -> None:
    world = World(fake_hub, policy_file=file)
    fake_hub.hang_up()
    file.write_text(policy("second"))
    assert not world.poll()
    assert reloads(world) == (1, 0)
    fake_hub.listen()
    fake_hub.add_server("ana", idle=0)
    assert world.poll(after=0)
    assert world.value("jupyterhub_servers", policy="second", state="active") == 1


def test_a_reloaded_policy_that_needs_groups_suspends_at_once(
    fake_hub: FakeHub, file: Path
) -> None:
    fake_hub.token = fake_hub.add_token(MONITOR)
    world = World(fake_hub, policy_file=file)
    assert world.poll(after=0)
    assert world.latest.state.suspended_by == ()
    file.write_text("policies:\n  - {name: g, match: {groups: [staff]}, timeout: 2h}\n")
    assert world.poll(after=0)
    (why,) = world.latest.state.suspended_by or ("",)
    assert "read:users:groups" in why


def test_requirements_are_those_of_the_policies_that_hold_though_the_poll_fails(
    fake_hub: FakeHub, file: Path
) -> None:
    fake_hub.token = fake_hub.add_token(MONITOR)
    world = World(fake_hub, policy_file=file)
    assert world.poll(after=0)
    file.write_text("policies:\n  - {name: g, match: {groups: [staff]}, timeout: 2h}\n")
    fake_hub.plan("GET", "/user", faults.html(500))
    assert not world.poll(after=0)
    severities = {one.scope: one.severity for one in world.latest.state.requirements}
    assert severities[Scope.READ_GROUPS] is Severity.SUSPENDS
