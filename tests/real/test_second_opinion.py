"""A real Hub, a real Prometheus and a real process-exporter: work in a terminal is spared."""

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import MakeHub, RunExporter, tool_or_skip
from documentation import block
from jupyter_terminal import CTRL_C, ENTER, JupyterTerminal
from process_exporter import ProcessExporter
from prometheus_process import PrometheusServer, Scraped
from real_culling import CULLS, NOW, runs
from real_hub import Key, RealHub

pytestmark = pytest.mark.slow("a Prometheus that measures real servers")

PAGE = "docs/second-opinion.md"  # "One account for all"
LIMIT = 4  # seconds
# All users here are of this run alone: process-exporter sees each server on this machine.
ANA, CY = f"ana-{secrets.token_hex(3)}", f"cy-{secrets.token_hex(3)}"
POLICIES = f"policies: [{{name: without, match: {{users: [{CY}]}}, spare_query: false}}]"
# Silent work for some minutes at most; beside all other tests it still gets its share.
WORK = "[sum(range(3 * 10**6)) for _ in range(5000)]"
# The page's hook takes the place of the arguments that the tests' Hubs have.
CONFIG = "c.Spawner.cmd = [*c.Spawner.cmd, *c.Spawner.args]\n"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[PrometheusServer]:
    """A Prometheus with what the page says of a process-exporter."""
    program = tool_or_skip("prometheus-process-exporter")
    groups = block(PAGE, "(?P<server>", "yaml")
    with ProcessExporter(program, tmp_path / "processes", groups) as processes:
        # A busy machine may take longer than a second to list its processes.
        slowly = {"scrape_interval": "3s", "scrape_timeout": "3s"}
        jobs = {"processes": Scraped(processes.address, more=slowly)}
        with PrometheusServer(tool_or_skip("prometheus"), tmp_path / "prometheus", jobs) as server:
            yield server


@pytest.fixture
def spare_query() -> str:
    """The page's query, in one line, over seconds instead of minutes."""
    query = block(PAGE, '{groupname=~".+/.*"}', "promql")
    assert "> bool 0.01)" in query
    return " ".join(query.split()).replace("[5m]", "[10s]").replace("bool 0.01", "bool 0.03")


def compute(hub: RealHub, key: Key) -> JupyterTerminal:
    """Let a server's terminal compute without a word."""
    terminal = JupyterTerminal(hub, *key)
    terminal.type(f'{sys.executable} -c "{WORK}"{ENTER}')
    hub.wait(lambda: computes(hub, key), 30, f"{key} computes")
    return terminal


def computes(hub: RealHub, key: Key) -> bool:
    server = psutil.Process(hub.rows()[key].state["pid"])
    return any(WORK in command(process) for process in server.children(recursive=True))


def command(process: psutil.Process) -> list[str]:
    """Give its command line, if it has not ended meanwhile."""
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def keys(prometheus: PrometheusServer, query: str) -> set[str]:
    return {series["metric"]["key"] for series in prometheus.instant(query, time.time())}


def test_silent_work_in_a_terminal_is_spared_and_goes_when_it_has_ended(
    prometheus: PrometheusServer,
    spare_query: str,
    make_hub: MakeHub,
    run_exporter: RunExporter,
    tmp_path: Path,
) -> None:
    config = CONFIG + block(PAGE, "c.Spawner.pre_spawn_hook")
    hub = make_hub("jupyter", config=config)
    hub.add_users([ANA, CY])
    working, resting, without = (ANA, "lab"), (ANA, ""), (CY, "")
    hub.start_servers([working, resting, without])
    terminal = compute(hub, working)
    compute(hub, without)
    hub.backdate_all([working, resting, without], idle=7200, age=9000)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    options = (*NOW, f"--timeout={LIMIT}s", f"--policy-file={tmp_path / 'policies.yaml'}")
    asking = (f"--prometheus-url={prometheus.url}", f"--spare-query={spare_query}")
    measured = f'label_join({spare_query}, "key", "/", "user", "server") == 1'
    prometheus.wait(lambda: f"{ANA}/lab" in keys(prometheus, measured), 60, "the work measured")
    assert computes(hub, without)
    exporter = run_exporter(hub, *options, *asking)
    # Without the query such work is stopped: the server itself says that it is idle.
    exporter.wait_event("culled", user=CY, policy="without", timeout=60)
    # With it, what is idle is stopped, and its user's other server is not.
    exporter.wait_event("culled", user=ANA, server="", timeout=60)
    why = f"Prometheus says 1 for it (--spare-query {spare_query})"
    exporter.wait_event("cull_withheld", user=ANA, server="lab", cause="in_use", why=why, count=2)
    hub.wait(lambda: terminal.quiet_for() > LIMIT, 20, "the work is silent for the limit")
    assert runs(hub, *working)
    assert computes(hub, working)
    ended = time.monotonic()
    terminal.type(CTRL_C)
    exporter.wait_event("culled", user=ANA, server="lab", timeout=60)
    assert time.monotonic() - ended > LIMIT
    metrics = exporter.metrics()
    assert metrics.value(CULLS, reason="idle") == 3
    assert metrics.value("hub_idle_exporter_spare_queries_total", result="failed") == 0
