"""The values and manifests for Zero to JupyterHub, on a real Hub of the version that it has.

The chart itself is not here: `zero_to_jupyterhub` does what the chart's configuration does with
the values in deploy/zero-to-jupyterhub. The standalone exporter gets the environment that the
manifests in deploy/kubernetes give it.
"""

import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RunCommand, RunExporter, older_hub_python
from documentation import ROOT, text
from exporter_process import Exporter
from fake_hub import Jupyter
from kustomize import by_hand
from real_culling import (
    CULLS,
    FORGOTTEN,
    SILENT,
    WITHHELD,
    forget_and_compute,
    idle_servers,
    metrics_at,
    runs,
)
from real_hub import HUBS, PROBER, RealHub
from sign_in import Browser
from way_in import WayIn
from zero_to_jupyterhub import configuration, secret

from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("Zero to JupyterHub")

FILES = "deploy/zero-to-jupyterhub"
MANIFESTS = by_hand(ROOT / "deploy" / "kubernetes" / "example")
PREFIX = "HUB_IDLE_EXPORTER_"
# Not to wait for people to go home. The limit is an argument in one of the forms.
AT_ONCE = {f"{PREFIX}GRACE": "0", f"{PREFIX}INTERVAL": "1s", f"{PREFIX}TIMEOUT": "5s"}


def hub_of_the_chart(directory: Path, spawner: Any = "jupyter", base_url: str = "/") -> RealHub:
    """Make a Hub without services or roles of ours, in whose image the exporter is."""
    hub = RealHub(
        directory / "hub", spawner, services=(), prober=False, activity_interval=1,
        python=older_hub_python("5.5"), base_url=base_url,
        environment={"PYTHONPATH": f"{HUBS / 'quick'}:{ROOT}"},
    )  # fmt: skip
    program = hub.directory / "bin" / "hub-idle-exporter"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sysconfig.get_path("scripts"), program.name))
    return hub


def managed_values(hub: RealHub, port: int) -> dict[str, Any]:
    """Read the file. Only the limit is another, and the ports: the chart's may be taken here."""
    file = text(f"{FILES}/managed.yaml")
    if hub.base_url != "/":
        (instead,) = re.findall(r"`hub.baseUrl: /BASE/` it is (\S+)\. ", file)
        url = instead.replace("/BASE/", hub.base_url)
        file = file.replace("--url=http://localhost:8081/hub/api", f"--url={url}")
    assert (file.count("--url=http://localhost:8081/"), file.count("=:9899\n")) == (1, 1)
    file = file.replace("--url=http://localhost:8081/", f"--url=http://localhost:{hub.ports.hub}/")
    assert file.count("=1h\n") == 1
    file = file.replace("=1h\n", "=5s\n")
    values: dict[str, Any] = yaml.safe_load(file.replace("=:9899\n", f"=:{port}\n"))
    values["hub"]["services"]["idle-exporter"]["environment"] = AT_ONCE
    return values


def refuses_the_prober(hub: RealHub) -> bool:
    """Tell it, where anybody else is let in."""
    assert Browser(hub.public_url).sign_in("ana", "any password") == 302
    return Browser(hub.public_url).sign_in(PROBER, "any password") == 403


def test_way_in_managed_by_zero_to_jupyterhub(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with WayIn("Zero to JupyterHub, in the Hub's pod") as way:
        hub = hub_of_the_chart(tmp_path)
        values = managed_values(hub, port)
        hub.extra_config = configuration(values, secret(values))
        with hub:
            hub.wait(lambda: metrics_at(port).value("jupyterhub_up") == 1, 20, "scraped")
            way.scraped()
            forget_and_compute(hub)
            hub.wait(lambda: metrics_at(port).value(CULLS) == 1, 30, "one stopped")
            way.culled()
            hub.wait(lambda: metrics_at(port).value(WITHHELD, cause="busy"), 30, "one spared")
            assert runs(hub, SILENT)
            assert not runs(hub, FORGOTTEN)
            assert refuses_the_prober(hub)


def test_managed_below_a_base_url(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    hub = hub_of_the_chart(tmp_path, "paper", "/jhub/")
    values = managed_values(hub, port)
    hub.extra_config = configuration(values, secret(values))
    with hub:
        computing = Jupyter()
        computing.add_kernel("busy")
        hub.paper.at[f"/jhub/user/{SILENT}/"] = computing
        idle_servers(hub, FORGOTTEN, SILENT)
        hub.wait(lambda: metrics_at(port).value(CULLS) == 1, 30, "one stopped")
        hub.wait(lambda: metrics_at(port).value(WITHHELD, cause="busy"), 30, "one spared")
        assert runs(hub, SILENT)
        assert not runs(hub, FORGOTTEN)


def test_a_hook_of_ones_own_runs_before_the_refusal(tmp_path: Path) -> None:
    """Though its entry comes after that of the values, and it is of the authenticator's class."""
    values = yaml.safe_load(text(f"{FILES}/standalone.yaml"))
    values["hub"]["extraConfig"]["zz-my-hook"] = """
def lower(authenticator, handler, auth_model):
    return auth_model | {"name": auth_model["name"].removeprefix("x-")}

c.DummyAuthenticator.post_auth_hook = lower
"""
    hub = hub_of_the_chart(tmp_path, "paper")
    hub.extra_config = configuration(values, secret(values))
    with hub:
        assert refuses_the_prober(hub)
        assert Browser(hub.public_url).sign_in(f"x-{PROBER}", "any password") == 403


# ---- standalone ----------------------------------------------------------------------------------


def environment_of_the_pod(hub: RealHub, directory: Path, token: str) -> dict[str, str]:
    """Mount what the Deployment mounts, below a directory; the Hub's port is another here."""
    pod = MANIFESTS["Deployment", "hub-idle-exporter"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = dict(MANIFESTS["ConfigMap", "hub-idle-exporter-options"]["data"])
    options |= {one["name"]: one["value"] for one in container["env"]}
    files = {
        "API_TOKEN_FILE": token,
        "POLICY_FILE": MANIFESTS["ConfigMap", "hub-idle-exporter-policy"]["data"]["policy.yaml"],
    }
    for name, content in files.items():
        file = directory / options[f"{PREFIX}{name}"].lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o440)
        options[f"{PREFIX}{name}"] = str(file)
    url = options[f"{PREFIX}URL"].replace("http://hub:8081", f"http://127.0.0.1:{hub.ports.hub}")
    # The tests read this one.
    return options | {f"{PREFIX}URL": url, f"{PREFIX}LOG_FORMAT": "logfmt"} | AT_ONCE


@contextmanager
def standalone(directory: Path) -> Iterator[tuple[RealHub, dict[str, str]]]:
    """Run the Hub; give it and the environment of the exporter's pod."""
    values = yaml.safe_load(text(f"{FILES}/standalone.yaml"))
    kept = secret(values)
    hub = hub_of_the_chart(directory)
    hub.extra_config = configuration(values, kept)
    pod = MANIFESTS["Deployment", "hub-idle-exporter"]["spec"]["template"]["spec"]
    (item,) = next(one["secret"]["items"] for one in pod["volumes"] if "secret" in one)
    with hub:
        yield hub, environment_of_the_pod(hub, directory / "pod", kept[item["key"]])


def test_way_in_standalone_on_kubernetes(
    tmp_path: Path, run_exporter: RunExporter, run_command: RunCommand
) -> None:
    with (
        WayIn("Zero to JupyterHub, a pod of its own") as way,
        standalone(tmp_path) as (hub, environment),
    ):
        checked = run_command(None, "check", environment=environment)
        assert checked.returncode == 0, checked.stdout
        exporter: Exporter = run_exporter(None, environment=environment)
        exporter.wait_value(1, "jupyterhub_up")
        way.scraped()
        forget_and_compute(hub)
        exporter.wait_value(1, CULLS)
        way.culled()
        exporter.wait_event("cull_withheld", user=SILENT, cause="busy")
        assert runs(hub, SILENT)
        assert not runs(hub, FORGOTTEN)
        assert refuses_the_prober(hub)
        warnings = {one["event"] for one in exporter.events() if one["level"] == "warning"}
        assert warnings == {"short_timeout"}, "only about the limit of this test"
