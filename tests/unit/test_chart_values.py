"""The values for Zero to JupyterHub in deploy/zero-to-jupyterhub, and the image for them.

tests/unit/test_docs.py compares roles and hook; tests/real/test_zero_to_jupyterhub.py runs both.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import tool_or_skip
from documentation import ROOT, text

FOLDER = "deploy/zero-to-jupyterhub"
MANAGED, STANDALONE = (
    yaml.safe_load(text(f"{FOLDER}/{form}.yaml")) for form in ("managed", "standalone")
)
# Keys of the chart's schema, which knows no others: by what is above them.
KEYS = {
    "": {"cull", "hub"},
    "cull": {"enabled"},
    "hub": {
        "annotations", "extraConfig", "image", "loadRoles", "networkPolicy", "service", "services",
    },
    "image": {"name", "tag"},
    "networkPolicy": {"ingress"},
    "service": {"extraPorts"},
}  # fmt: skip


@pytest.mark.parametrize("values", [MANAGED, STANDALONE], ids=["managed", "standalone"])
def test_there_are_only_keys_that_chart_4_4_knows(values: dict[str, Any]) -> None:
    hub = values["hub"]
    parts = {"": values, "cull": values["cull"], "hub": hub}
    parts |= {name: hub[name] for name in ("image", "networkPolicy", "service") if name in hub}
    assert all(part.keys() <= KEYS[name] for name, part in parts.items())


@pytest.mark.parametrize("values", [MANAGED, STANDALONE], ids=["managed", "standalone"])
def test_the_charts_own_culler_is_off(values: dict[str, Any]) -> None:
    assert values["cull"]["enabled"] is False


def test_all_is_about_the_port_that_the_exporter_listens_on() -> None:
    hub = MANAGED["hub"]
    (listened,) = re.findall(r"--web\.listen-address=:(\d+)", str(hub["services"]))
    (service,) = hub["service"]["extraPorts"]
    (rule,) = hub["networkPolicy"]["ingress"]
    ports = [service["port"], service["targetPort"], rule["ports"][0]["port"]]
    assert [str(port) for port in ports] == [listened] * 3
    assert hub["annotations"]["prometheus.io/port"] == listened


def test_the_exporter_that_the_hub_starts_is_in_the_image() -> None:
    (program, *_) = MANAGED["hub"]["services"]["idle-exporter"]["command"]
    assert f"/usr/local/bin/{program}\n" in text(f"{FOLDER}/Dockerfile")


def test_the_dockerfile_copies_only_what_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text(f"{FOLDER}/Dockerfile"), re.MULTILINE)
    for name in " ".join(copied).split():
        assert name.partition("/")[0] in sent
        assert (ROOT / name).exists()


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    beside = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint", path=beside) or tool_or_skip("hadolint")
    command = [hadolint, str(ROOT / FOLDER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
