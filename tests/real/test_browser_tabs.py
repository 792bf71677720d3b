"""What docs/browser-tabs.md says of open tabs, on a real Hub with real kernels.

The tab is what it is to a server: a connection to a kernel, and a request every second.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from conftest import MakeHub, RunExporter
from documentation import block, blocks
from real_culling import CULLS, NOW, runs
from real_hub import Kernel, RealHub

pytestmark = pytest.mark.slow("open tabs")

PAGE = "docs/browser-tabs.md"
ENDS_KERNELS = block(PAGE, "cull_connected")
((_, LIMITS_AGE),) = blocks("yaml", [PAGE])


@contextmanager
def open_tab(hub: RealHub, user: str) -> Iterator[Kernel]:
    """Be connected to a new kernel, and ask the server every second, as JupyterLab does."""
    kernel, closed = hub.start_kernel(user), threading.Event()

    def ask() -> None:
        while not closed.wait(1):
            with suppress(requests.RequestException, ValueError):  # of a server that stops
                kernel.listed()

    asking = threading.Thread(target=ask)
    with kernel.connected():
        asking.start()
        try:
            yield kernel
        finally:
            closed.set()
            asking.join()


def test_an_open_tab_protects_until_the_age_limit_of_the_page(
    make_hub: MakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    hub = make_hub("jupyter", activity_interval=1)
    policies = tmp_path / "policies.yaml"
    policies.write_text(LIMITS_AGE.replace("max_age: 1d", "max_age: 20s"))
    hub.start_server("ana", user_options={"profile": "cpu"})
    hub.start_server("gus", user_options={"profile": "gpu-1"})
    options = (*NOW, "--timeout=4s", f"--policy-file={policies}")
    with open_tab(hub, "ana"), open_tab(hub, "gus"):
        exporter = run_exporter(hub, *options)
        exporter.wait_event("culled", user="gus", reason="max_age", timeout=60)
        assert runs(hub, "ana")
        assert exporter.metrics().value(CULLS) == 1


def test_an_idle_kernel_is_ended_though_a_tab_is_open_and_a_busy_one_is_not(
    make_hub: MakeHub,
) -> None:
    sooner = ENDS_KERNELS.replace("=3600", "=3").replace("=300", "=1")
    hub = make_hub("jupyter", activity_interval=1, config=sooner)
    hub.start_server("ana")
    hub.start_server("ben")
    with open_tab(hub, "ana") as busy, open_tab(hub, "ben") as idle:
        busy.run("import time; time.sleep(1e6)")
        hub.wait(lambda: not idle.listed(), 30, "the idle kernel ended")
        assert runs(hub, "ben")
        assert [one["execution_state"] for one in busy.listed()] == ["busy"]
