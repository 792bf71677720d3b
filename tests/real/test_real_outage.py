"""A real Hub is away for longer than the limit while people work. A file of its own: it is long."""

import time

import pytest
from conftest import MakeHub, RunExporter
from exporter_process import Metrics
from real_hub import ENFORCE

from hub_idle_exporter.domain.gate import OUTAGE_SECONDS


@pytest.mark.slow("outage")
@pytest.mark.timeout(400)
def test_outage_longer_than_the_limit_stops_nobody(
    make_hub: MakeHub, run_exporter: RunExporter
) -> None:
    """All without asking servers, stop tokens and a lease: the gate alone has to hold.

    One sidecar lives through the outage, one starts together with the Hub, and one polls so
    seldom that the whole outage falls between two of its polls.
    """
    hub = make_hub("jupyter", activity_interval=1)
    hub.start_server("printer")
    hub.start_kernel("printer").run("import time\nwhile True: print('.'); time.sleep(0.5)")
    options = ("--enforce", "--timeout=30s", "--busy-check=off")
    token = hub.add_token([scope for scope in ENFORCE if not scope.startswith("tokens!")])
    steady = run_exporter(hub, *options, "--interval=1s", "--grace=25s", token=token)
    seldom = run_exporter(hub, *options, "--interval=100s", "--grace=25s", token=token)
    state = "hub_idle_exporter_enforcement"
    steady.wait_value(1, state, state="on", timeout=60)
    hub.kill()
    steady.wait_value(1, state, state="suspended")
    steady.wait_for(lambda metrics: unseen(metrics) > OUTAGE_SECONDS, timeout=180)
    hub.start()
    fresh = run_exporter(hub, *options, "--interval=1s", "--grace=25s", token=token)
    for sidecar in (steady, fresh):
        sidecar.wait_for(
            lambda metrics: (
                metrics.value("jupyterhub_up") == metrics.value(state, state="grace") == 1
            )
        )
    for sidecar in (steady, fresh):
        sidecar.wait_value(1, state, state="on", timeout=60)
        sidecar.wait_polls(2)
    seldom.wait_value(2, "hub_idle_exporter_polls_total", timeout=120)
    assert hub.server("printer")["ready"]
    for sidecar in (steady, fresh, seldom):
        assert sidecar.metrics().value("hub_idle_exporter_cull_attempts_total") == 0


def unseen(metrics: Metrics) -> float:
    """Return for how many seconds a sidecar has not read the Hub's servers, by what it says."""
    return time.time() - (
        metrics.value("hub_idle_exporter_last_poll_success_timestamp_seconds") or 0
    )
