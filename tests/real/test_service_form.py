"""The sidecar as a service with a page inside a real Hub: nothing of it ends the Hub's start."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from conftest import MakeHub
from documentation import block
from exporter_process import Metrics, fields
from hub_pages import (
    EVERYBODY,
    NAME,
    OFTEN,
    Form,
    exporters,
    lives,
    looks,
    page_service,
    page_url,
    signed_in,
)
from real_culling import runs
from real_hub import ENFORCE, RealHub

from hub_idle_exporter.demo.launch import free_ports

pytestmark = pytest.mark.slow("real Hubs that run the sidecar with a page")
ADMIN = 'c.Authenticator.admin_users = {"root-user"}'


def asked(port: int, path: str) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}{path}", timeout=20)


def enforcement(port: int) -> dict[str, float]:
    return Metrics(asked(port, "/metrics").text).by("state", "hub_idle_exporter_enforcement")


def is_ready(port: int) -> bool:
    try:
        return asked(port, "/-/ready").status_code == 200
    except requests.ConnectionError:
        return False


def test_a_bad_option_does_not_end_the_hub(make_hub: MakeHub) -> None:
    """The Hub runs on; page, port and log say what is wrong; nothing is stopped."""
    (web,) = free_ports(1)
    service = page_service("--timeout=soon", web=web)
    with socket.create_server(("127.0.0.1", web)):  # an orphan may still have the port
        hub: RealHub = make_hub(services=[service], roles=[EVERYBODY], config=ADMIN)
        said = "Invalid value for '--timeout': 'soon': must be seconds (3600)"
        assert said in looks(hub, "root-user").text.replace("&#39;", "'")
        hub.wait_log("event=port_unavailable")
    hub.wait_log("event=listening ")
    page = looks(hub, "ana")
    assert "Please tell an administrator" in page.text
    assert "soon" not in page.text
    ready = asked(web, "/-/ready")
    assert (ready.status_code, said in ready.text) == (503, True)
    assert said in asked(web, "/").text.replace("&#39;", "'")
    assert enforcement(web) == {"off": 0, "grace": 0, "suspended": 1, "on": 0}
    inside = requests.get(page_url(hub, "-/ready"), timeout=20)
    assert (inside.status_code, "soon" in inside.text) == (503, False)
    assert "start_failed" in hub.wait_log("start_failed")
    assert hub.pid is not None
    (exporter,) = exporters(hub)
    exporter.terminate()
    hub.wait_log("event=stopped crashed=false")
    hub.wait(lambda: not lives(exporter), 10, "the exporter gone")


def test_a_file_that_is_mended_is_used_without_a_restart(make_hub: MakeHub, tmp_path: Path) -> None:
    policies, token, web_config = tmp_path / "policies.yaml", tmp_path / "token", tmp_path / "web"
    state = tmp_path / "state.sqlite"
    state.write_text("something else")
    policies.write_text("policies: 1\n")
    web_config.write_text("tls: yes\n")
    for file in (policies, web_config):
        os.utime(file, (0, 0))  # written long ago: it is not waited for
    (web,) = free_ports(1)
    service = page_service(
        "--enforce",
        "--interval=1s",
        f"--policy-file={policies}",
        f"--api-token-file={token}",
        f"--web.config.file={web_config}",
        f"--state-file={state}",
        web=web,
    )
    hub: RealHub = make_hub(services=[service], roles=[EVERYBODY], config=ADMIN)
    hub.wait_log(f"--api-token-file {token} cannot be read")
    token.write_text(service.token)
    hub.wait_log(f'start_failed error="web configuration file {web_config}')
    # Without the passwords that the file may have, the open port says nothing of the error.
    assert f"{tmp_path}" not in asked(web, "/-/ready").text + asked(web, "/").text
    assert str(web_config) in looks(hub, "root-user").text
    web_config.write_text("{}\n")
    hub.wait_log(f'start_failed error="policy file {policies}')
    assert str(policies) in asked(web, "/-/ready").text
    policies.write_text("policies: []\n")
    hub.wait_log(f'start_failed error="--state-file {state}')
    state.unlink()
    hub.wait(lambda: is_ready(web), 30, "ready once all files are good")
    assert enforcement(web)["grace"] == 1
    assert requests.get(page_url(hub, "-/ready"), timeout=20).status_code == 200
    assert "cannot start" not in looks(hub, "root-user").text


def test_no_metrics_inside_the_hub(make_hub: MakeHub) -> None:
    """And the ports of a killed service are taken again by the next one."""
    page, web = free_ports(2)
    service = page_service("--interval=1s", port=page, web=web, enforce=False)
    hub: RealHub = make_hub(services=[service], roles=[EVERYBODY], config=ADMIN + OFTEN)
    hub.wait(lambda: is_ready(web), 30, "ready")
    assert requests.get(page_url(hub, "metrics"), timeout=20).status_code == 404
    assert requests.get(page_url(hub, "-/healthy"), timeout=20).text == "OK\n"
    # The Hub is killed: its orphan holds both ports until it notices.
    (orphan,) = exporters(hub)
    hub.kill()
    hub.start()
    assert looks(hub, "ana").status_code == 200
    hub.wait(lambda: not lives(orphan), 20, "the orphan gone")
    (fresh,) = exporters(hub)
    assert fresh.pid != orphan.pid
    hub.wait(lambda: is_ready(web), 30, "ready again")
    # The service is killed: the Hub starts another one.
    fresh.kill()
    hub.wait(lambda: exporters(hub) not in ([], [fresh]), 60, "started again by the Hub")
    hub.wait(lambda: is_ready(web), 30, "ready after kill -9")
    assert looks(hub, "ana").status_code == 200


def test_it_ends_while_somebody_waits_for_a_hub_that_is_silent(make_hub: MakeHub) -> None:
    (port,) = free_ports(1)
    service = page_service("--interval=1h", port=port, web=0, enforce=False)
    hub: RealHub = make_hub(services=[service], roles=[EVERYBODY])
    session, address = signed_in(hub, "ana"), page_url(hub)
    assert session.get(address, timeout=20).status_code == 200
    (exporter,) = exporters(hub)

    def visitors() -> set[object]:
        found = exporter.net_connections("tcp")
        return {one.raddr for one in found if one.raddr and one.laddr.port == port}

    with ThreadPoolExecutor(1) as somebody, hub.paused(9):
        before = visitors()
        waits = somebody.submit(session.get, address, timeout=30)
        hub.wait(lambda: visitors() - before, 10, "somebody waiting")
        exporter.terminate()
        hub.wait(lambda: not lives(exporter), 6, "the exporter gone")
        assert waits.exception() or waits.result().status_code >= 500


def test_a_kept_server_outlives_its_limit_and_is_stopped_after_the_bound(
    make_hub: MakeHub, tmp_path: Path
) -> None:
    """With the configuration of the documentation.

    Two look alike: the one that is kept on the page stays, and is stopped when that is over.
    """
    state = tmp_path / "state.sqlite"
    config = block("docs/hub-page.md", "oauth_no_confirm")
    for documented, here in (
        ("127.0.0.1:9898", "127.0.0.1:{}".format(*free_ports(1))),
        ("/var/lib/hub-idle-exporter/state.sqlite", str(state)),
        ("--keep-max=8h", "--keep-max=6s"),
        (
            '"--enforce"',
            '"--grace=0", "--interval=1s", "--web.listen-address=127.0.0.1:0", "--enforce"',
        ),
    ):
        assert config.count(documented) == 1, documented
        config = config.replace(documented, here)
    role = {"name": "of-it", "services": [NAME], "scopes": [*ENFORCE]}
    hub: RealHub = make_hub(services=[], roles=[role], config=config)
    hub.add_users(["ana", "bob"])
    hub.start_servers([("ana", ""), ("bob", "")], {"stop_delay": 0})
    session = signed_in(hub, "ana")
    html = session.get(page_url(hub), timeout=30).text
    hub.backdate("bob", idle=7200)
    hub.wait(lambda: not runs(hub, "bob"), 20, "bob's server stopped")
    form = Form(html, "keep", "ana")
    origin = hub.public_url.rstrip("/")
    answer = session.post(f"{origin}{form.path}", form.fields, headers={"Origin": origin})
    assert "is kept." in answer.text
    assert state.stat().st_mode & 0o777 == 0o600
    kept = fields(hub.wait_log("event=server_kept user=ana"))
    hub.backdate("ana", idle=7200)
    hub.wait(lambda: not runs(hub, "ana"), 30, "ana's server stopped after all")
    stopped = fields(hub.wait_log("event=stopping_server user=ana"))
    assert stopped["ts"][:19] >= kept["until"][:19], "not before"
    assert float(stopped["idle"]) > 7200
    hub.wait_log("event=culled user=ana")
    assert "stopped after 2" in session.get(page_url(hub), timeout=30).text
