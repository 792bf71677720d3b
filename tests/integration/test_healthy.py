"""The health check of the image, against exporters that listen in all the ways they can."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from conftest import RunExporter
from fake_hub import FakeHub

from hub_idle_exporter.demo.launch import free_ports
from hub_idle_exporter.healthy import ADDRESS

BCRYPT = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
CLOSED = f"""
tls_server_config:
  cert_file: server.pem
  key_file: server.pem
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
basic_auth_users: {{prometheus: {BCRYPT}}}
"""


def healthy(address: str) -> bool:
    command = [sys.executable, "-m", "hub_idle_exporter.healthy"]
    finished = subprocess.run(command, env={ADDRESS: address}, capture_output=True, check=False)
    assert not finished.stderr
    return finished.returncode == 0


@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_it_asks_where_the_variable_says(
    fake_hub: FakeHub, run_exporter: RunExporter, host: str
) -> None:
    (port,) = free_ports(1)
    run_exporter(fake_hub, f"--web.listen-address={host}:{port}").wait_event("poll_succeeded")
    assert healthy(f"{host}:{port}")


def test_it_needs_no_password_and_no_client_certificate(
    fake_hub: FakeHub, run_exporter: RunExporter, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "server.pem"
    )
    (tmp_path / "web.yml").write_text(CLOSED)
    exporter = run_exporter(fake_hub, f"--web.config.file={tmp_path / 'web.yml'}")
    exporter.wait_event("poll_succeeded")
    assert healthy(urlsplit(exporter.address).netloc)


@pytest.mark.parametrize("address", ["", ":", ":0", "nowhere"])
def test_an_empty_or_odd_variable_causes_no_traceback(address: str) -> None:
    """Empty is unset, so it asks the port of every exporter; whoever is there."""
    assert not healthy(address) or address == ""


def test_nobody_there_is_not_healthy() -> None:
    (port,) = free_ports(1)
    assert not healthy(f":{port}")
