"""Odd input from everywhere: never a traceback, a hang, or a stop of somebody at work.

`make fuzz` runs these with many more examples, each round with another seed. What it finds becomes
a test of its own.
"""

import http.client
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import click
import pytest
import trustme
from example_counts import examples
from fault_cells import Trial
from fault_steps import STEPS, FaultKind, Step
from hypothesis import given
from hypothesis import strategies as st
from mutations import Mutation, answering, mutations, values
from structlog.testing import capture_logs
from web_service import Service, serving

from hub_idle_exporter import cli
from hub_idle_exporter.config import settings_from
from hub_idle_exporter.domain.settings import ConfigError
from hub_idle_exporter.serving import passwords
from hub_idle_exporter.serving.web_config import WebConfig, WebConfigSource

# ---- what the Hub and the servers answer --------------------------------------------------------


@examples(60)
@given(st.sampled_from(STEPS), st.lists(mutations, min_size=1, max_size=3))
def test_an_odd_answer_stops_nobody_at_work(step: Step, changes: list[Mutation]) -> None:
    """Of one kind of request only: a Hub that lies about everything may do as it likes.

    So may a server about its own kernels: that one who computes has none, for instance.
    """
    with capture_logs() as events, Trial(FaultKind("odd", lambda *_: fault), step) as trial:
        fault = answering(*changes)
        trial.kind.begin(trial.scene, step)
        trial.pass_once()
        trial.pass_once()
        trial.scene.heal()
        trial.pass_once()
    typing, computing = trial.working
    assert typing.ready
    assert computing.ready or step.name == "kernels"
    assert trial.crashes == []
    for event in events:
        assert "Traceback" not in repr(event)
    counted = trial.rig.attempted()
    assert counted == trial.results()


# ---- files --------------------------------------------------------------------------------------

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
# JSON is YAML too, and can be changed in its structure.
WEB = json.dumps(
    {
        "tls_server_config": {
            "cert_file": "server.crt",
            "key_file": "server.key",
            "client_ca_file": "ca.crt",
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_allowed_sans": ["prometheus.example.org"],
            "min_version": "TLS12",
            "max_version": "TLS13",
            "cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "prefer_server_cipher_suites": True,
        },
        "http_server_config": {"http2": True, "headers": {"X-Frame-Options": "deny"}},
        "basic_auth_users": {"ana": HASH},
    }
).encode()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that WEB names."""
    folder = tmp_path_factory.mktemp("web")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "server.crt")
    issued.private_key_pem.write_to_path(folder / "server.key")
    return folder


@examples(300)
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode(errors="ignore"))
    | st.lists(mutations, max_size=3)
)
def test_any_web_configuration_is_used_or_refused_in_one_line(
    certified: Path, written: bytes | list[Mutation]
) -> None:
    content = written if isinstance(written, bytes) else WEB
    for change in written if isinstance(written, list) else []:
        content = change.changed(content)
    (certified / "web.yml").write_bytes(content)
    source = WebConfigSource(certified / "web.yml", lambda _seconds: False)
    assert source.refresh()
    said = source.error or ""
    assert "\n" not in said
    assert "X0h1gDsPszWURQaxFh" not in said


def test_the_web_configuration_that_is_changed_is_valid(certified: Path) -> None:
    (certified / "web.yml").write_bytes(WEB)
    assert WebConfigSource(certified / "web.yml", lambda _seconds: False).read_first().error is None


# ---- options and environment --------------------------------------------------------------------

NAMES = [one.opts[0] for one in cli.cli.params if one.param_type_name == "option"]
written = st.text(max_size=30) | values.map(str) | st.sampled_from(["", "0", "1h", ":0", "true"])


@examples(400)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), written), max_size=4),
    st.dictionaries(st.sampled_from(NAMES), written, max_size=3),
)
def test_any_option_and_variable_is_taken_or_refused_in_one_line(
    options: list[tuple[str, str]], variables: dict[str, str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            variable = cli.PREFIX + name.lstrip("-").upper().replace("-", "_").replace(".", "_")
            with suppress(ValueError, UnicodeError):  # the system takes no such variable
                patch.setenv(variable, value)
        try:
            arguments = cli.spelled_out([f"{name}={value}" for name, value in options])
            context = cli.cli.make_context("hub-idle-exporter", arguments)
            settings_from(context.params)
        except click.exceptions.Exit:
            pass  # --help, --version
        except (click.ClickException, ConfigError) as error:
            said = error.format_message() if isinstance(error, click.ClickException) else str(error)
            assert len(said.splitlines()) == 1


# ---- requests to our port -----------------------------------------------------------------------

REQUEST = (
    b"GET /metrics?name[]=jupyterhub_up HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n"
    b"Accept-Encoding: gzip\r\nAuthorization: Basic YW5hOng=\r\nContent-Length: 3\r\n\r\nabc"
)
PIECES = [b"\r\n", b"\n", b"\x00", b"\xff", b" ", b":", b"%", b"%zz", b"HTTP/1.1", b"chunked",
          b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n", b"Connection: upgrade\r\n",
          b"Expect: 100-continue\r\n", b"Host: a\r\n", b"GET / HTTP/1.1\r\n\r\n", b"?", b"#",
          b"name[]=" * 50, b"Content-Type: multipart/form-data; boundary=x\r\n"]  # fmt: skip


@dataclass
class Way:
    """How requests reach our port: in plain HTTP, with passwords, or by TLS."""

    service: Service
    tls: ssl.SSLContext | None

    def is_healthy(self) -> bool:
        """Ask for health, without password or certificate."""
        host, port = self.service.host, self.service.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=15)
            if self.tls is None
            else http.client.HTTPSConnection(host, port, timeout=15, context=self.tls)
        )
        with closing(connection):
            connection.request("GET", "/-/healthy")
            return connection.getresponse().status == 200


@pytest.fixture(scope="module", params=["plain", "passwords", "client certificates"])
def way(request: pytest.FixtureRequest, certified: Path) -> Iterator[Way]:
    with serving() as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "WRONG_SECONDS", 0.001)
        tls = None
        if request.param == "passwords":
            hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode()
            running.config = WebConfig(users={"ana": hashed})
        elif request.param == "client certificates":
            (certified / "tls.yml").write_bytes(WEB)
            source = WebConfigSource(certified / "tls.yml", lambda _seconds: False).read_first()
            running.config = source.value
            tls = ssl.create_default_context(cafile=str(certified / "ca.crt"))
        yield Way(running, tls)


@examples(100)
@given(
    st.lists(
        st.tuples(st.integers(0, len(REQUEST)), st.integers(0, 30),
                  st.sampled_from(PIECES) | st.binary(max_size=12)),
        max_size=4,
    ),
    st.integers(1, 30),
)  # fmt: skip
def test_any_request_is_answered_or_ended_and_the_next_one_too(
    way: Way, edits: list[tuple[int, int, bytes]], times: int
) -> None:
    sent = REQUEST
    for place, length, piece in edits:
        sent = sent[:place] + piece + sent[place + length :]
    with capture_logs() as events:
        answer = way.service.tell(sent * times, way.tls)
        assert answer == b"" or re.match(rb"HTTP/1\.[01] \d{3} ", answer), (sent, answer)
        assert way.is_healthy()
    assert b"Traceback" not in answer
    assert not [event for event in events if event["log_level"] == "error"], (sent, events)
