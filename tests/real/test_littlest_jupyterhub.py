"""docs/littlest-jupyterhub.md, followed from nothing on a real Hub of the version TLJH installs.

The commands are the page's own. What stands in for TLJH is `Littlest`: its configuration, in its
order, and `tljh-config`. systemd, Traefik, its spawner and its authenticator are not there.
"""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import of_make_pythons, older_hub_python
from documentation import ROOT, block
from exporter_process import Metrics
from real_culling import CULLS, FORGOTTEN, SILENT, WITHHELD, forget_and_compute, look_idle, runs
from real_hub import PROBER, RealHub
from sign_in import Browser
from way_in import WayIn
from wheels import wheels

from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("The Littlest JupyterHub")

PAGE = "docs/littlest-jupyterhub.md"
NAME = "zz-idle-exporter.py"
REFUSED = "mallory"
# Other files of the folder, one read before ours and one after it.
OTHERS = {
    "custom.py": f"""
def refuse(authenticator, handler, auth_model):
    return None if auth_model["name"] == {REFUSED!r} else auth_model

c.DummyAuthenticator.post_auth_hook = refuse
c.JupyterHub.services.append({{"name": "another", "api_token": "of-another-service"}})
c.JupyterHub.load_roles = [{{"name": "another", "services": ["another"], "scopes": ["list:users"]}}]
""",
    "zzz-later.py": """
c.Authenticator.post_auth_hook = lambda authenticator, handler, auth_model: auth_model
""",
}


# By Python: Debian 12 has 3.11, Ubuntu 22.04 has 3.10.
@pytest.fixture(params=["", "3.10"], ids=lambda version: version or "newer")
def hub_environment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The Hub's own Python environment: what is installed into it is gone afterwards."""
    version = request.param
    python = of_make_pythons(f".venv-hub5.5-{version}") if version else older_hub_python("5.5")
    places = "import sys, sysconfig as s; print(s.get_path('purelib'), s.get_python_version())"
    asked = subprocess.run([python, "-c", places], check=True, capture_output=True, text=True)
    packages, version = asked.stdout.split()
    environment = tmp_path / "tljh" / "hub"
    subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    own = environment / "lib" / f"python{version}" / "site-packages"
    (own / "of-tljh.pth").write_text(f"{packages}\n")  # pip is there as well
    (environment / "pip.conf").write_text(f"[global]\nno-index=1\nfind-links={wheels(python)}\n")
    return environment


class Littlest:
    """A Hub that is configured as TLJH does it, with what `tljh-config` does to it."""

    def __init__(self, hub: RealHub, prefix: Path) -> None:
        self.hub, self.prefix = hub, prefix
        self.folder = prefix / "config" / "jupyterhub_config.d"
        self.folder.mkdir(parents=True, mode=0o700)
        self.settings = {"services.cull.enabled": True}
        for name, content in OTHERS.items():
            (self.folder / name).write_text(content)
        hub.extra_config = self.configuration()

    def configuration(self) -> str:
        """What is of the tests themselves comes last."""
        culler = [sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=600"]
        service = {"name": "cull-idle", "admin": True, "command": culler}
        services = [service] if self.settings["services.cull.enabled"] else []
        return f"""
from glob import glob

of_tests = c.JupyterHub.pop("services"), c.JupyterHub.pop("load_roles")
c.JupyterHub.services = {services!r}
for file in sorted(glob({str(self.folder / "*.py")!r})):
    load_subconfig(file)
c.JupyterHub.services.extend(of_tests[0])
c.JupyterHub.load_roles.extend(of_tests[1])
"""

    def follow(self, part: str) -> str:
        """Run a block of the page, for a TLJH at this prefix; return what it printed."""
        hub_port = self.hub.ports.hub
        lines = block(PAGE, part, "sh").replace("sudo ", "")
        lines = lines.replace("/opt/tljh", str(self.prefix)).replace(":15001", f":{hub_port}")
        return "".join(map(self._run, lines.splitlines()))

    def _run(self, line: str) -> str:
        match shlex.split(line):
            case ["tljh-config", "set", name, "true" | "false" as value]:
                self.settings[name] = value == "true"
            case ["tljh-config", "unset", name]:
                self.settings[name] = True  # as it is by default
            case ["tljh-config", "reload", "hub"]:
                self.reload()
            case words:
                return self._execute(words)
        return ""

    def _execute(self, words: list[str]) -> str:
        variables = {
            "PIP_CONFIG_FILE": str(self.prefix / "hub" / "pip.conf"),
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(
            words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def reload(self) -> None:
        self.hub.stop_hub()
        self.hub.extra_config = self.configuration()
        self.hub.start()

    def change(self, before: str, after: str) -> None:
        """Edit our file."""
        file = self.folder / NAME
        assert file.read_text().count(before) == 1
        file.write_text(file.read_text().replace(before, after))

    def services(self) -> set[str]:
        return set(self.hub.get("/services"))


@pytest.fixture
def littlest(tmp_path: Path, hub_environment: Path) -> Iterator[Littlest]:
    """TLJH with its own culler; one kernel computes silently, and one server is forgotten."""
    hub = RealHub(
        tmp_path / "hub", "jupyter", services=(), prober=False, activity_interval=0,
        python=hub_environment / "bin" / "python3",
    )  # fmt: skip
    littlest = Littlest(hub, hub_environment.parent)
    with hub:
        forget_and_compute(hub)
        yield littlest


def test_the_way_in_from_nothing_to_a_stop_and_out_again(littlest: Littlest) -> None:
    hub, (port,) = littlest.hub, free_ports(1)
    (python,) = (one.name for one in (littlest.prefix / "hub" / "lib").iterdir())
    assert littlest.services() == {"another", "cull-idle", "test-admin"}

    def value(name: str, **labels: str) -> float:
        return Metrics(requests.get(url, timeout=20).text).value(name, **labels) or 0

    url = f"http://127.0.0.1:{port}/metrics"
    with WayIn(f"The Littlest JupyterHub, {python}") as way:
        littlest.follow("pip install .\nsudo install")
        way.installed()
        littlest.change("--timeout=600", "--timeout=2")
        littlest.change("--interval=60", "--interval=1")
        littlest.change("--concurrency=5", f'--grace=0", "--web.listen-address=127.0.0.1:{port}')
        littlest.follow("cull.enabled false")
        look_idle(hub)
        hub.wait_log("event=poll_succeeded")
        assert value("jupyterhub_up") == 1
        way.scraped()
        hub.wait(lambda: value(CULLS, policy="default", reason="idle"), 30, "a stop")
        way.culled()
        hub.wait(lambda: value(WITHHELD, cause="busy"), 30, "a server spared")
    assert not runs(hub, FORGOTTEN)
    assert runs(hub, SILENT)
    assert littlest.services() == {"another", "idle-exporter", "test-admin"}
    for name, answer in ((PROBER, 403), (REFUSED, 403), ("ana", 302)):
        assert Browser(hub.public_url).sign_in(name, "any password") == answer, name
    littlest.follow("check --enforce")

    littlest.follow("unset services.cull.enabled")
    assert littlest.services() == {"another", "cull-idle", "test-admin"}
    assert hub.users()[PROBER]["roles"] == ["user"]
