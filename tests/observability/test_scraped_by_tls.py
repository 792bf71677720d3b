"""A real Prometheus scrapes the real exporter by TLS, with a password or a client certificate."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import bcrypt
import pytest
import trustme
from conftest import tool_or_skip
from exporter_process import Exporter
from fake_hub import FakeHub
from prometheus_process import PrometheusServer, Scraped

PASSWORD = "correct horse"
# As the exporter is served, and how Prometheus asks; None: it cannot get in.
SERVED = "tls_server_config: {cert_file: server.crt, key_file: server.key%s}\n"
USERS = "basic_auth_users: {prometheus: %s}\n"
CLIENTS = ", client_ca_file: ca.crt, client_auth_type: RequireAndVerifyClientCert"
TLS: dict[str, object] = {"scheme": "https", "tls_config": {"ca_file": "ca.crt"}}
GIVEN: dict[str, object] = {"basic_auth": {"username": "prometheus", "password": PASSWORD}}
CERTIFIED = {
    "scheme": "https",
    "tls_config": {"ca_file": "ca.crt", "cert_file": "client.crt", "key_file": "client.key"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    for name, identity in (("server", "127.0.0.1"), ("client", "prometheus.example.org")):
        certify(authority, tmp_path, name, identity)
    return tmp_path


def certify(authority: trustme.CA, folder: Path, name: str, identity: str) -> None:
    issued = authority.issue_cert(identity)
    issued.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
    issued.private_key_pem.write_to_path(folder / f"{name}.key")


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


@pytest.fixture
def exporter(fake_hub: FakeHub, folder: Path) -> Iterator[Exporter]:
    fake_hub.add_server("ana")
    (folder / "web.yml").write_text(SERVED % "" + USERS % hashed(PASSWORD))
    options = [f"--web.config.file={folder / 'web.yml'}", "--interval=1s"]
    with Exporter(fake_hub.url, fake_hub.token, options) as running:
        yield running


@pytest.mark.slow("a Prometheus that scrapes by TLS")
def test_prometheus_gets_in_as_its_configuration_says(exporter: Exporter, folder: Path) -> None:
    address = exporter.address.removeprefix("https://")
    asks: dict[str, Mapping[str, object]] = {
        "by_password": TLS | GIVEN,
        "by_wrong_password": TLS | {"basic_auth": {"username": "prometheus", "password": "x"}},
        "without_password": TLS,
        "without_tls": GIVEN,
        "by_certificate": CERTIFIED,
    }
    jobs = {job: Scraped(address, more=more) for job, more in asks.items()}
    with ExitStack() as stack:
        prometheus = stack.enter_context(PrometheusServer(tool_or_skip("prometheus"), folder, jobs))
        assert up(prometheus, asks) == {"by_password"}
        users = USERS % hashed("another")
        (folder / "web.yml").write_text(SERVED % CLIENTS + USERS % hashed(PASSWORD))
        exporter.wait_event("web_config_reloaded")
        assert up(prometheus, asks) == set()
        (folder / "web.yml").write_text(SERVED % CLIENTS)
        exporter.wait_event("web_config_reloaded", count=2)
        assert up(prometheus, asks) == {"by_certificate"}
        (folder / "web.yml").write_text("tls_server_config: {certfile: x}\n" + users)
        exporter.wait_event("web_config_invalid")
        assert up(prometheus, asks) == {"by_certificate"}
        valid = "hub_idle_exporter_web_config_file_valid"
        prometheus.wait(
            lambda: prometheus.instant(f"{valid} == 0", time.time()), 20, "told to be invalid"
        )


def up(prometheus: PrometheusServer, jobs: Mapping[str, object]) -> set[str]:
    """Return the jobs that are scraped, once each has been tried again."""
    since = time.time()
    tried = f"count(timestamp(up) > {since + 1.5})"
    prometheus.wait(
        lambda: any(
            float(one["value"][1]) == len(jobs) for one in prometheus.instant(tried, time.time())
        ),
        20,
        "tried",
    )
    found = prometheus.instant("up == 1", time.time())
    return {one["metric"]["job"] for one in found}
