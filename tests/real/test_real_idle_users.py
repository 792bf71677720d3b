"""Idle users are deleted on a real Hub: the right ones, and nothing of anybody else's."""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeHub, RunExporter, older_hub_python
from real_hub import ENFORCE, OWNER, PROBER, RealHub, Service

from hub_idle_exporter.culling.permits import Permits
from hub_idle_exporter.deleting.deleter import Deleter
from hub_idle_exporter.deleting.listing import read_idle_users
from hub_idle_exporter.domain.policy import Policy
from hub_idle_exporter.domain.settings import (
    ConnectionSettings,
    CullSettings,
    PollSettings,
    Settings,
    UserSettings,
)
from hub_idle_exporter.hub.client import Hub
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.hub.token import Token
from hub_idle_exporter.sidecar import Sidecar, assemble

DAY = 86400.0
SCOPES = [*ENFORCE, "admin:users"]
DELETES_USERS = {"name": "prober-too", "users": [PROBER], "scopes": ["delete:users"]}
LONG = {"idle": 40 * DAY, "age": 400 * DAY}
OPTIONS = ("--enforce", "--grace=0", "--interval=1s", "--cull-users", "--user-timeout=30d")
WITHHELD = "hub_idle_exporter_user_deletions_withheld_total"


def idle_users(hub: RealHub, *names: str) -> None:
    hub.add_users(names)
    hub.age_users(names, **LONG)


def untouched(hub: RealHub, names: Iterable[str]) -> dict[str, Any]:
    """Give what must not change for users who stay: their groups, roles and tokens."""
    return {
        name: (
            hub.get(f"/users/{name}")["groups"],
            hub.get(f"/users/{name}")["roles"],
            len(hub.get(f"/users/{name}/tokens")["api_tokens"]),
        )
        for name in names
    }


# ---- a whole Hub, and the exporter as a process --------------------------------------------------


@pytest.fixture(params=["", "5.5"], ids=["newest", "5.5"])
def hub(request: pytest.FixtureRequest, make_hub: MakeHub) -> RealHub:
    """A Hub with real servers; its service may delete users."""
    more = {"python": older_hub_python(request.param)} if request.param else {}
    services = [Service(scopes=SCOPES)]
    return make_hub(
        "jupyter", services=services, roles=[DELETES_USERS], activity_interval=600, **more
    )


@pytest.mark.slow("real servers, on two Hubs")
def test_the_right_users_are_gone_nobody_else_and_nothing_of_a_running_server(
    hub: RealHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    gone = {"idle", "ünï", "a b@ex.org", "had-servers", "never-active"}
    idle_users(hub, *gone)
    hub.age_users(["never-active"], idle=None, age=31 * DAY)
    hub.start_server("had-servers")
    hub.start_server("had-servers", "lab")
    hub.stop_servers([("had-servers", ""), ("had-servers", "lab")])
    hub.wait(lambda: not hub.servers(), 30, "both stopped")
    hub.age_users(["had-servers"], **LONG)

    stay = {"recent", "new", "computes", "named", "boss", "staff", OWNER}
    hub.add_users(["staff"], group="staff")
    hub.add_users(stay)
    hub.age_users(["recent"], idle=29 * DAY, age=400 * DAY)
    hub.age_users(["new"], idle=None, age=29 * DAY)
    assert hub.api("PATCH", "/users/boss", {"admin": True}).status_code == 200
    hub.start_server("computes")
    kernel = hub.start_kernel("computes")
    kernel.run("import time; time.sleep(1e6)")
    hub.start_server("named", "lab")
    hub.age_users({"computes", "named", "boss", "staff", PROBER}, **LONG)
    ran, before = running(hub), untouched(hub, stay)

    policies = tmp_path / "policies.yaml"
    policies.write_text("policies: [{name: staff, match: {groups: [staff]}, exempt: true}]")
    exporter = run_exporter(hub, *OPTIONS, "--timeout=1d", f"--policy-file={policies}")
    exporter.wait_value(len(gone), "hub_idle_exporter_users_deleted_total", timeout=60)
    exporter.wait_polls(3)

    there = set(hub.users())
    assert not gone & there
    assert stay | {PROBER} <= there
    metrics = exporter.metrics()
    assert metrics.value("hub_idle_exporter_users_deleted_total") == len(gone)
    kept = {"admin": 1, "exempt": 1, "own": 1}
    assert counted(metrics.by("cause", WITHHELD)) == kept
    assert counted(metrics.by("verdict", "jupyterhub_idle_users")) == kept
    assert {line["user"] for line in exporter.events("user_deleted")} == gone
    assert kernel.state() == "busy"
    assert running(hub) == ran
    assert untouched(hub, stay) == before
    assert exporter.stop() == 0


def counted(values: dict[str, float]) -> dict[str, float]:
    return {label: value for label, value in values.items() if value}


def running(hub: RealHub) -> dict[tuple[str, str], str | None]:
    """Give where each server that runs listens."""
    return {key: row.address for key, row in hub.rows().items() if row.active}


# ---- one user, at the last moment ----------------------------------------------------------------


@dataclass
class Listed:
    """A sidecar in this process that has listed idle users, and may delete them."""

    hub: RealHub
    sidecar: Sidecar
    deleter: Deleter

    @property
    def cull(self) -> CullSettings:
        return self.sidecar.settings.cull

    def candidates(self) -> list[str]:
        return [one.name for one in self.found.candidates]

    def list(self) -> None:
        self.found = read_idle_users(self.sidecar.hub, self.sidecar.latest.state, self.cull)

    def delete(self) -> None:
        self.deleter.delete(self.found)

    def counted(self, name: str, **labels: str) -> float | None:
        full = f"hub_idle_exporter_{name}_total"
        return self.sidecar.metrics.registry.get_sample_value(full, labels)


@pytest.fixture
def listed(clean_paper_hub: RealHub) -> Iterator[Listed]:
    """A sidecar that may delete "ana", who is idle; nobody else is."""
    hub = clean_paper_hub
    hub.api("DELETE", "/users/ana")
    idle_users(hub, "ana")
    token = hub.add_token(SCOPES)
    settings = Settings(
        ConnectionSettings(hub.api_url),
        PollSettings(Policy("default", DAY)),
        CullSettings(enforce=True, grace=0.0, users=UserSettings(delete=True)),
    )
    sidecar = assemble(settings, Token.read_by(lambda: token))
    assert sidecar.poller.poll()
    assert sidecar.enforcement is not None
    deleter = Deleter(
        sidecar.hub, sidecar.gatekeeper, sidecar.enforcement.election, sidecar.latest,
        None, sidecar.trail, settings.cull, sidecar.stopping,
    )  # fmt: skip
    ready = Listed(hub, sidecar, deleter)
    ready.list()
    assert ready.candidates() == ["ana"]
    yield ready
    sidecar.release()


def test_a_listed_user_is_deleted(listed: Listed) -> None:
    listed.delete()
    assert listed.counted("users_deleted") == 1
    assert "ana" not in listed.hub.users()
    listed.list()
    assert listed.candidates() == []


def long_ago(hub: RealHub, server: str) -> None:
    """Let ana and a server of hers have been idle, so that nothing but the server protects her."""
    hub.age_users(["ana"], **LONG)
    hub.backdate("ana", server, idle=LONG["idle"])


def works_again(hub: RealHub) -> None:
    hub.start_server("ana")


def is_starting(hub: RealHub) -> None:
    hub.start_server("ana", "lab", user_options={"start_delay": 600}, wait=None)
    long_ago(hub, "lab")


def is_stopping(hub: RealHub) -> None:
    hub.start_server("ana", user_options={"stop_delay": 3})
    threading.Thread(target=hub.stop_server, args=["ana"], daemon=True).start()
    hub.wait(lambda: hub.server("ana").get("pending") == "stop", 20, "is stopping")
    long_ago(hub, "")


def left_one_running(hub: RealHub) -> None:
    hub.start_server("ana", "lab")
    long_ago(hub, "lab")


def reports_activity(hub: RealHub) -> None:
    hub.start_server("ana")
    hub.stop_server("ana")
    hub.age_users(["ana"], **LONG)
    hub.post_activity("ana")


def was_made_administrator(hub: RealHub) -> None:
    assert hub.api("PATCH", "/users/ana", {"admin": True}).status_code == 200


def was_made_anew(hub: RealHub) -> None:
    assert hub.api("DELETE", "/users/ana").status_code == 204
    hub.add_users(["ana"])


@pytest.mark.slow("idle users of a real Hub")
@pytest.mark.parametrize(
    ("meanwhile", "cause"),
    [
        (works_again, "active_again"),
        (is_starting, "server"),
        (is_stopping, "server"),
        (left_one_running, "server"),
        (reports_activity, "active_again"),
        (was_made_administrator, "admin"),
        (was_made_anew, "active_again"),
    ],
)
def test_a_user_who_comes_back_between_listing_and_deletion_stays(
    listed: Listed, meanwhile: Callable[[RealHub], None], cause: str
) -> None:
    meanwhile(listed.hub)
    ran = running(listed.hub)
    listed.delete()
    assert "ana" in listed.hub.users()
    assert running(listed.hub) == ran
    assert listed.counted("user_deletions_withheld", cause=cause) == 1
    assert listed.counted("users_deleted") == 0


def test_a_user_who_is_gone_already_is_not_counted_as_deleted(listed: Listed) -> None:
    assert listed.hub.api("DELETE", "/users/ana").status_code == 204
    listed.delete()
    assert listed.counted("user_deletions_withheld", cause="gone") == 1
    assert listed.counted("users_deleted") == 0


@pytest.mark.slow("a Hub that is paused")
def test_a_deletion_that_the_hub_takes_after_its_token_expired_is_refused(
    make_hub: MakeHub,
) -> None:
    hub = make_hub("paper", services=[Service(scopes=SCOPES)], roles=[DELETES_USERS])
    idle_users(hub, "ünï bob", "ana")
    client = Hub(ConnectionSettings(hub.api_url), Token.read_by(lambda: hub.token))
    permit = Permits(client, PROBER).mint_deletion("ünï bob")
    with pytest.raises(HubError):
        client.delete_user("ana", permit.token)
    with hub.paused(4), pytest.raises(HubError) as refused:
        client.delete_user("ünï bob", permit.token)
    assert refused.value.status in (401, 403)
    assert {"ünï bob", "ana"} <= set(hub.users())


# ---- what the Hub does in the window that stays open (docs/idle-users.md) ------------------------


@pytest.mark.slow("idle users of a real Hub")
@pytest.mark.parametrize("meanwhile", [is_stopping, left_one_running])
def test_a_hub_refuses_to_delete_who_has_such_a_server(
    listed: Listed, meanwhile: Callable[[RealHub], None]
) -> None:
    meanwhile(listed.hub)
    ran = running(listed.hub)
    with pytest.raises(HubError):
        listed.sidecar.hub.delete_user("ana")
    assert "ana" in listed.hub.users()
    assert running(listed.hub) == ran


def test_a_hub_deletes_a_user_whose_default_server_is_ready(listed: Listed) -> None:
    """So whoever starts one after the last look, and within milliseconds, loses it."""
    works_again(listed.hub)
    listed.sidecar.hub.delete_user("ana")
    assert "ana" not in listed.hub.users()
