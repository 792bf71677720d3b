"""Moving from jupyterhub-idle-culler: what docs/migration.md tells people to do, on real Hubs.

The configuration and the old command lines are the page's own text. JupyterHub 5.5 with version 1.4
of that culler is what zero-to-jupyterhub and The Littlest JupyterHub install.
"""

import os
import re
import secrets
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from conftest import RunCommand, RunExporter, older_hub_python
from documentation import ROOT, block, blocks, text
from expected_roles import expected_roles
from exporter_process import Metrics, environment, fields
from fake_hub import Jupyter
from real_culling import idle_servers, runs
from real_hub import HUBS, PROBER, Kernel, Key, RealHub, Service
from sign_in import Browser

from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("moving from the idle culler")

PAGE = "docs/migration.md"
STOOD_THERE = block(PAGE, '"jupyterhub_idle_culler"')
PLAIN = block(PAGE, 'c.JupyterHub.services = [\n    {\n        "name": "idle-exporter"')
HOOK = block(PAGE, "post_auth_hook")
LITTLEST = text("deploy/littlest-jupyterhub/idle_exporter.py")
((_, OLD_VALUES),) = blocks("yaml", [PAGE])
IDLE, BUSY, LONG_GONE = "idle", "busy", "long-gone"
DAY = 86400.0


@pytest.fixture(scope="module", params=["", "5.5"], ids=lambda version: version or "newest")
def python(request: pytest.FixtureRequest, hub_python: Path) -> Path:
    """The interpreter of the Hub."""
    return older_hub_python(request.param) if request.param else hub_python


# ---- the configuration ---------------------------------------------------------------------------


def with_the_exporter(directory: Path) -> dict[str, str]:
    """Let a Hub's Python have the exporter, as after `pip install .`: what it lacks is ours."""
    ours = sysconfig.get_path("purelib")
    (directory / "sitecustomize.py").write_text(f"import sys\nsys.path.append({ours!r})\n")
    return {"PYTHONPATH": os.pathsep.join(map(str, (HUBS / "quick", directory, ROOT)))}


# As in both distributions the proxy is not the Hub's to end: it goes on knowing who was idle.
PROXY_TOKEN = f"c.ConfigurableHTTPProxy.auth_token = {secrets.token_hex(32)!r}\n"
LEAVES_PROXY = f"{PROXY_TOKEN}c.JupyterHub.cleanup_proxy = False\n"
FINDS_PROXY = f"{PROXY_TOKEN}c.ConfigurableHTTPProxy.should_start = False\n"


@contextmanager
def hub_at_work(directory: Path, python: Path) -> Iterator[RealHub]:
    """Run a Hub with two servers that look idle; the kernel of one of them computes."""
    variables = with_the_exporter(directory)
    with RealHub(
        directory / "hub", services=(), prober=False, activity_interval=0, python=python,
        environment=variables, config=LEAVES_PROXY,
    ) as hub:  # fmt: skip
        computing = Jupyter()
        computing.add_kernel("busy")
        hub.paper.at[f"/user/{BUSY}/"] = computing
        idle_servers(hub, IDLE, BUSY)
        yield hub


def age_long_gone(hub: RealHub) -> None:
    """Let there be a user who was last active long ago."""
    hub.ensure_user(LONG_GONE)
    hub.age_users([LONG_GONE], idle=60 * DAY, age=400 * DAY)


def restart(hub: RealHub, page: str, variables: dict[str, str] | None = None) -> None:
    """Start a Hub again with what the page configures, besides the tests' own service and role.

    The variables are the exporter's, who gets none of the Hub's.
    """
    hub.stop_hub()
    hub.extra_config = f"""{FINDS_PROXY}
of_tests = c.JupyterHub.pop("services"), c.JupyterHub.pop("load_roles")
{page}
c.JupyterHub.services.extend(of_tests[0])
c.JupyterHub.load_roles.extend(of_tests[1])
for service in c.JupyterHub.services:
    if service["name"] == "idle-exporter":
        service["environment"] = {variables or {}!r}
"""
    hub.start()


def plain_hub(_hub: RealHub) -> str:
    return PLAIN + HOOK


def littlest_jupyterhub(hub: RealHub) -> str:
    """Write the file; after all else that Hub loads it, and has no services without its culler."""
    file = hub.directory / "jupyterhub_config.d" / "zz-idle-exporter.py"
    file.parent.mkdir()
    file.write_text(LITTLEST)
    return f"c.JupyterHub.services = []\nload_subconfig({str(file)!r})\n"


@pytest.mark.parametrize("written", [plain_hub, littlest_jupyterhub])
def test_what_takes_its_place_stops_the_idle_spares_the_busy_and_refuses_the_prober(
    tmp_path: Path, python: Path, written: Callable[[RealHub], str]
) -> None:
    with hub_at_work(tmp_path, python) as hub:
        (port,) = free_ports(1)
        variables = {
            "HUB_IDLE_EXPORTER_GRACE": "0",
            "HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        }
        restart(hub, written(hub), variables)
        hub.wait_log("event=lease_taken")
        assert fields(hub.wait_log(f"event=culled user={IDLE} "))["reason"] == "idle"
        assert fields(hub.wait_log(f"event=cull_withheld user={BUSY} "))["cause"] == "busy"
        assert not runs(hub, IDLE)
        assert runs(hub, BUSY)
        metrics = Metrics(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text)
        assert metrics.value("hub_idle_exporter_enforcement", state="on") == 1
        assert Browser(hub.public_url).sign_in(PROBER, "any password") == 403
        assert Browser(hub.public_url).sign_in("ana", "any password") == 302


@pytest.mark.parametrize(
    "more", [["admin:users"], ["read:users:activity", "delete:users"]], ids=str
)
def test_with_the_scopes_for_it_idle_users_are_deleted_and_nobody_else(
    tmp_path: Path, hub_python: Path, more: list[str]
) -> None:
    ours = PLAIN.replace('"--enforce"', '"--enforce", "--cull-users"')
    wider = f"""{ours}{HOOK}
for role, more in zip(c.JupyterHub.load_roles, [{more}, ["delete:users"]]):
    role["scopes"].extend(more)
"""
    variables = {"HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:0"}
    with hub_at_work(tmp_path, hub_python) as hub:
        age_long_gone(hub)
        there = set(hub.users())
        restart(hub, wider, variables | {"HUB_IDLE_EXPORTER_GRACE": "0"})
        hub.wait_log(f"event=user_deleted user={LONG_GONE} ")
        assert set(hub.users()) == there - {LONG_GONE} | {PROBER}
        assert hub.wait_log(f" 204 DELETE /hub/api/users/{LONG_GONE} ({PROBER}@")


def test_what_stood_there_stops_the_idle_and_the_busy(tmp_path: Path) -> None:
    with hub_at_work(tmp_path, older_hub_python("5.5")) as hub:
        restart(hub, STOOD_THERE)
        hub.wait(lambda: not hub.servers(), 20, "both stopped")


def test_the_steps_begin_beside_the_old_culler(tmp_path: Path, run_command: RunCommand) -> None:
    """It only monitors then, and `check` with the service's token finds nothing missing."""
    token = secrets.token_hex(32)
    monitors = (PLAIN + HOOK).replace('"--enforce", ', "")
    assert "--enforce" not in monitors
    both = f"""{STOOD_THERE}
of_culler = c.JupyterHub.services, c.JupyterHub.load_roles
{monitors}
c.JupyterHub.services[0]["api_token"] = {token!r}
c.JupyterHub.services.extend(of_culler[0])
c.JupyterHub.load_roles.extend(of_culler[1])
"""
    with hub_at_work(tmp_path, older_hub_python("5.5")) as hub:
        restart(hub, both, {"HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:0"})
        hub.wait_log("event=poll_succeeded")
        done = run_command(hub, "check", "--enforce", "--timeout=3600", token=token)
        assert done.returncode == 0, done.stdout
        hub.wait(lambda: not hub.servers(), 20, "both stopped, by the old culler")
        assert "event=stopping_server" not in hub.log_path.read_text()


# ---- the old role and the old command line -------------------------------------------------------

CULLERS = ("list:users", "read:users:activity", "read:servers", "delete:servers")
CHARTS = Service("jupyterhub-idle-culler", CULLERS)
CHARTS_WITH_USERS = Service("jupyterhub-idle-culler-with-users", (*CULLERS, "admin:users"))
LITTLESTS = Service("cull-idle", (), admin=True)
OLD_SERVICES = (CHARTS, CHARTS_WITH_USERS, LITTLESTS)
AT_WORK: tuple[Key, ...] = (("silent", ""), ("silent", "lab"))


@dataclass(frozen=True)
class Old:
    """How a distribution starts the culler."""

    service: Service
    line: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.service.name} {' '.join(self.line)}"

    def options(self, hub: RealHub) -> list[str]:
        """Give all of them: the chart also says where the Hub is."""
        url = f"--url=http://localhost:{hub.ports.hub}/hub/api"
        return [*self.line] if self.service is LITTLESTS else [url, *self.line]


def of_chart(**changed: Any) -> Old:
    """Give what the chart makes of its defaults, which are on the page, and of what is changed."""
    cull = yaml.safe_load(OLD_VALUES)["cull"] | changed
    given = {
        f"--timeout={cull['timeout']}": cull["timeout"],
        f"--cull-every={cull['every']}": cull["every"],
        f"--concurrency={cull['concurrency']}": cull["concurrency"],
        "--cull-users": cull["users"],
        "--cull-admin-users=false": not cull["adminUsers"],
        "--remove-named-servers": cull["removeNamedServers"],
        f"--max-age={cull['maxAge']}": cull["maxAge"],
    }
    service = CHARTS_WITH_USERS if cull["users"] else CHARTS
    return Old(service, tuple(option for option, said in given.items() if said))


def of_littlest(*more: str) -> Old:
    (line,) = re.findall(r"`(--timeout=\d+ --cull-every=[^`]*)`", text(PAGE))
    return Old(LITTLESTS, (*line.split(), *more))


WITH_USERS = of_chart(users=True)
OLD = [
    of_chart(),
    of_chart(adminUsers=False),
    of_chart(removeNamedServers=True),
    of_chart(maxAge=8000),
    WITH_USERS,
    of_chart(users=True, adminUsers=False, removeNamedServers=True, maxAge=8000),
    of_littlest(),
    of_littlest("--cull-users", "--remove-named-servers"),
]


@dataclass(frozen=True)
class AtWork:
    """A Hub with real servers whose kernels compute silently."""

    hub: RealHub
    kernels: dict[Key, Kernel]

    def go_on(self) -> None:
        """Start what does not run, and let all look idle to the Hub; so does one who left."""
        for key in AT_WORK:
            self.hub.ensure_user(key[0])
            if not runs(self.hub, *key):
                self.hub.start_server(*key)
                self.kernels[key] = self.hub.start_kernel(*key)
                self.kernels[key].run("import time; time.sleep(1e6)")
            self.hub.backdate(*key, idle=7200, age=9000)
        age_long_gone(self.hub)

    def computing(self) -> set[Key]:
        return {key for key, kernel in self.kernels.items() if kernel.state() == "busy"}


@pytest.fixture(scope="module")
def whole_at_work(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[AtWork]:
    with RealHub(
        tmp_path_factory.mktemp("at-work"), "jupyter", services=OLD_SERVICES, prober=False,
        activity_interval=0, python=python,
    ) as hub:  # fmt: skip
        yield AtWork(hub, {})


@pytest.fixture
def at_work(whole_at_work: AtWork) -> AtWork:
    whole_at_work.go_on()
    return whole_at_work


def roles_to_paste(old: Old) -> str:
    """Give, in one line, what `check` prints on several."""
    roles = "".join(line.strip() for line in expected_roles(old.service.name).splitlines())
    if "--cull-users" not in old.line:
        return roles
    for last, more in (
        ("'tokens!service=idle-prober',", "'read:users:activity','delete:users',"),
        ("'access:servers','delete:servers',", "'delete:users',"),
    ):
        roles = roles.replace(last, last + more)
    return roles


@pytest.mark.parametrize("old", OLD, ids=str)
def test_the_old_line_and_role_stop_nobody_and_the_log_says_what_to_grant(
    at_work: AtWork, run_exporter: RunExporter, old: Old
) -> None:
    hub = at_work.hub
    already_logged = hub.log_path.stat().st_size
    exporter = run_exporter(
        hub,
        "--enforce",
        *old.options(hub),
        token=old.service.token,
        environment={"HUB_IDLE_EXPORTER_GRACE": "0"},
    )
    unmet = exporter.wait_event("requirements_not_met")
    assert unmet["roles"] == roles_to_paste(old)
    metrics = exporter.wait_value(len(AT_WORK), "jupyterhub_cull_candidates")
    assert metrics.value("hub_idle_exporter_enforcement", state="suspended") == 1
    if "--cull-users" in old.line:
        exporter.wait_value(1, "jupyterhub_idle_users", verdict="candidate")
    assert exporter.stop() == 0
    assert at_work.computing() == set(AT_WORK)
    assert LONG_GONE in hub.users()
    assert b" DELETE " not in hub.log_path.read_bytes()[already_logged:]


@pytest.mark.parametrize("old", [WITH_USERS, of_littlest()], ids=str)
def test_the_idle_culler_itself_stops_them_with_that_line(at_work: AtWork, old: Old) -> None:
    """They were candidates indeed."""
    hub = at_work.hub
    command = [str(older_hub_python("5.5")), "-m", "jupyterhub_idle_culler", *old.options(hub)]
    with subprocess.Popen(command, env=environment(hub.url, old.service.token, {})) as culler:
        try:
            hub.wait(lambda: not hub.servers(), 30, "both stopped")
            if "--cull-users" in old.line:
                hub.wait(lambda: LONG_GONE not in hub.users(), 30, "the user deleted")
        finally:
            culler.terminate()
