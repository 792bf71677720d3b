"""The exporter on each Python that it supports, on a real Hub; `make pythons` makes them."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunExporter, of_make_pythons
from pythons import supported
from real_culling import CULLS, NOW, runs
from real_hub import RealHub

pytestmark = pytest.mark.slow("other Pythons")


@pytest.mark.parametrize("version", supported())
def test_the_idle_are_stopped_and_a_silent_computation_is_spared(
    version: str, clean_real_hub: RealHub, run_exporter: RunExporter
) -> None:
    hub = clean_real_hub
    own = version == f"3.{sys.version_info.minor}"
    python = Path(sys.executable) if own else of_make_pythons(f".venv-py{version}")
    said = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"Python {version}.")
    hub.start_server("silent")
    hub.start_kernel("silent").run("import time; time.sleep(1e6)")
    hub.start_server("idle")
    exporter = run_exporter(hub, *NOW, "--timeout=4s", python=python)
    exporter.wait_event("culled", user="idle", timeout=40)
    exporter.wait_event("cull_withheld", user="silent", cause="busy", timeout=40)
    assert runs(hub, "silent")
    assert exporter.metrics().value(CULLS, reason="idle") == 1
    assert exporter.stop() == 0
