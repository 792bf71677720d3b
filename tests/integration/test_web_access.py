"""Who may read metrics and the page: TLS, client certificates, passwords, and their rotation."""

import asyncio
import base64
import http.client
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
import trustme
from structlog.testing import capture_logs
from web_service import Service, serving

from hub_idle_exporter.domain.labels import WebRefusal
from hub_idle_exporter.serving import connections, passwords, server
from hub_idle_exporter.serving.passwords import Passwords, Verdict
from hub_idle_exporter.serving.web_config import WebConfig, WebConfigSource
from hub_idle_exporter.watched_file import FileError

PASSWORD = "correct horse"
OPEN, CLOSED = ["/-/healthy", "/-/ready"], ["/", "/metrics", "/nowhere"]


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


HASH = hashed(PASSWORD)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@dataclass
class Files:
    """A folder with a web configuration, and what it names."""

    folder: Path
    authority: trustme.CA

    @property
    def path(self) -> Path:
        return self.folder / "web.yml"

    def certify(self, name: str, *identities: str) -> None:
        """Write NAME.crt and NAME.key."""
        issued = self.authority.issue_cert(*identities)
        (self.folder / f"{name}.crt").write_bytes(
            b"".join(part.bytes() for part in issued.cert_chain_pems)
        )
        issued.private_key_pem.write_to_path(self.folder / f"{name}.key")

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def source(self) -> WebConfigSource:
        return WebConfigSource(self.path, lambda _seconds: False).read_first()

    def serve(self, service: Service, text: str) -> None:
        """Write a configuration, and let the service use it."""
        self.write(text)
        service.config = self.source().value

    def client(self, name: str | None = None, server_name: str | None = None) -> ssl.SSLContext:
        """Return the context of a client, with a certificate if it has a name."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    made = Files(tmp_path, authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    made.certify("server", "127.0.0.1")
    made.certify("scraper", "prometheus.example.org")
    made.certify("other", "10.0.0.1")
    return made


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as running:
        yield running


def basic(password: str, user: str = "ana") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# ---- passwords ----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WRONG_SECONDS", 0.001)


@pytest.fixture
def guarded(service: Service, quick: None) -> Service:
    service.config = WebConfig(users={"ana": HASH, "bob": hashed("other")})
    return service


@pytest.mark.parametrize("path", CLOSED)
def test_metrics_page_and_all_else_need_a_password(guarded: Service, path: str) -> None:
    response, body = guarded.ask(path)
    assert (response.status, body) == (401, b"User name and password are needed.\n")
    assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
    status = guarded.ask(path, Authorization=basic(PASSWORD))[0].status
    assert status == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize("path", OPEN)
def test_health_and_readiness_are_open(guarded: Service, path: str) -> None:
    assert guarded.ask(path)[0].status == 200


@pytest.mark.parametrize(
    "given",
    [
        basic("wrong"), basic(""), basic(PASSWORD, "bob"), basic(PASSWORD, "nobody"),
        basic(PASSWORD, ""), basic(PASSWORD.upper()), basic(PASSWORD + "x"), basic("other", "ana"),
        "Basic " + base64.b64encode(b"ana:\xff\xfe\x00").decode(),
        "Basic " + base64.b64encode(b"ana:" + b"x" * 5000).decode(),
        "Basic " + base64.b64encode(b"\xff:x").decode(),
    ],
)  # fmt: skip
def test_a_wrong_password_is_refused_and_counted(guarded: Service, given: str) -> None:
    assert guarded.ask(Authorization=given)[0].status == 401
    assert refusals(guarded, WebRefusal.WRONG_PASSWORD) == 1


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic ", "Basic ???", "Basic YW5h", "Bearer x", "Digest x=y", "\xff"]
)
def test_without_a_password_it_is_asked_for(guarded: Service, given: str) -> None:
    response, _ = guarded.ask(Authorization=given)
    assert response.status == 401
    assert "WWW-Authenticate" in response.headers
    assert refusals(guarded, WebRefusal.WRONG_PASSWORD) == 0


def refusals(service: Service, cause: WebRefusal) -> float:
    return float(service.metrics.web_refusals.labels(cause)._value.get())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What bcrypt was asked."""
    asked: list[bytes] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, hashed_password: bytes) -> bool:
        asked.append(hashed_password)
        return real(password, hashed_password)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return asked


def test_a_right_password_is_computed_once(guarded: Service, checks: list[bytes]) -> None:
    for _ in range(5):
        assert guarded.ask(Authorization=basic(PASSWORD))[0].status == 200
    assert checks == [HASH.encode()]


def test_a_wrong_password_costs_the_same_for_a_user_who_does_not_exist(
    guarded: Service, checks: list[bytes]
) -> None:
    """Otherwise the time tells which names exist."""
    guarded.config = WebConfig(users={"ana": hashed(PASSWORD, cost=10)})
    for user in ("ana", "nobody"):
        guarded.ask(Authorization=basic("wrong", user))
    assert [check[:7] for check in checks] == [b"$2b$10$"] * 2


def test_a_remembered_password_ends_with_its_hash(guarded: Service) -> None:
    assert guarded.ask(Authorization=basic(PASSWORD))[0].status == 200
    guarded.config = WebConfig(users={"ana": hashed("a new one")})
    assert guarded.ask(Authorization=basic(PASSWORD))[0].status == 401
    assert guarded.ask(Authorization=basic("a new one"))[0].status == 200
    guarded.config = WebConfig(users={"bob": HASH})
    assert guarded.ask(Authorization=basic("a new one"))[0].status == 401


def test_a_long_password_counts_up_to_where_bcrypt_reads_it(guarded: Service) -> None:
    guarded.config = WebConfig(users={"ana": hashed("x" * 72)})
    assert guarded.ask(Authorization=basic("x" * 100))[0].status == 200


def test_guessing_is_slow_and_holds_up_nobody_else(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "WRONG_SECONDS", 3600.0)
    service.config = WebConfig(users={"ana": HASH})
    guessing = [service.connect() for _ in range(passwords.MOST_PER_ADDRESS)]
    for connection in guessing:
        request = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('wrong')}\r\n\r\n"
        connection.sendall(request.encode())
    answered = wait_for(lambda: service.ask(Authorization=basic("guess"), timeout=5)[0], 429)
    assert answered.headers["Retry-After"] == "2"
    assert refusals(service, WebRefusal.TOO_MANY_ATTEMPTS) >= 1
    # From elsewhere one gets in, and from there too who was in before.
    assert service.ask(Authorization=basic(PASSWORD), source="127.0.0.2")[0].status == 200
    assert service.ask(Authorization=basic(PASSWORD))[0].status == 200
    assert service.ask("/-/healthy")[0].status == 200
    for connection in guessing:
        connection.close()


def wait_for(ask: Callable[[], http.client.HTTPResponse], status: int) -> http.client.HTTPResponse:
    """Ask until the answer has a status; each guess that is not refused waits for long."""
    for _ in range(4):
        try:
            response = ask()
        except TimeoutError:
            continue
        if response.status == status:
            return response
    raise AssertionError(f"never {status}")


def test_no_number_of_guessers_keeps_out_a_newcomer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "WRONG_SECONDS", 3600.0)
    monkeypatch.setattr(passwords, "MOST", 3)
    service.config = WebConfig(users={"ana": HASH})
    request = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('wrong')}\r\n\r\n"
    with ExitStack() as stack:
        for number in range(4):
            guessing = stack.enter_context(service.connect(source=f"127.0.0.{number + 2}"))
            guessing.sendall(request.encode())
        again = wait_for(
            lambda: service.ask(Authorization=basic("guess"), timeout=5, source="127.0.0.2")[0], 429
        )
        assert again.status == 429  # it has one under way
        assert service.ask(Authorization=basic(PASSWORD))[0].status == 200


def test_a_password_and_its_hash_are_in_nothing_that_others_can_read(guarded: Service) -> None:
    with capture_logs() as events:
        for word in (PASSWORD, "a wrong one"):
            guarded.ask(Authorization=basic(word))
        answers = [guarded.ask(path, Authorization=basic(PASSWORD))[1] for path in OPEN + CLOSED]
        answers.append(guarded.ask(Authorization=basic("a wrong one"))[1])
    told = repr(events) + repr(answers) + repr(guarded.config)
    for secret in (PASSWORD, "a wrong one", HASH, basic(PASSWORD), basic("a wrong one")):
        assert secret not in told


def record_checks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Let every password be wrong; return which are checked from now on, with their hashes."""
    checked: list[tuple[bytes, bytes]] = []

    def record(password: bytes, of: bytes) -> bool:
        checked.append((password, of))
        return False

    monkeypatch.setattr(bcrypt, "checkpw", record)
    return checked


def check_all(
    checked: Passwords, users: Mapping[str, str], attempts: Sequence[tuple[str, str]]
) -> list[Verdict]:
    """Check passwords that are sent at once: pairs of an address and a password of ana."""

    async def check() -> list[Verdict]:
        return await asyncio.gather(
            *(checked.check(users, "ana", word.encode(), address) for address, word in attempts)
        )

    return asyncio.run(check())


def test_passwords_of_different_addresses_are_checked_in_turn(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise who comes from elsewhere waits for all guesses of one address."""
    computed = record_checks(monkeypatch)
    guesses = [("10.0.0.1", f"guess {number}") for number in range(6)]
    check_all(Passwords(), {"ana": HASH}, [*guesses, ("10.0.0.2", "from elsewhere")])
    assert [word for word, _ in computed].index(b"from elsewhere") <= 2


def test_a_user_who_does_not_exist_costs_what_the_dearest_hash_does(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of an answer does not tell which users there are."""
    computed = record_checks(monkeypatch)
    dear = HASH.replace("$04$", "$12$")
    assert dear != HASH
    check_all(Passwords(), {"bob": HASH, "cid": dear, "dan": HASH}, [("10.0.0.1", "x")])
    assert computed == [(b"x", dear.encode())]


def test_a_user_who_is_renamed_is_not_let_in_by_the_old_name(guarded: Service) -> None:
    assert guarded.ask(Authorization=basic(PASSWORD))[0].status == 200
    guarded.config = WebConfig(users={"scraper": HASH})
    assert guarded.ask(Authorization=basic(PASSWORD))[0].status == 401
    assert guarded.ask(Authorization=basic(PASSWORD, "scraper"))[0].status == 200


def test_for_who_has_hung_up_no_password_is_computed(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one guess from each of thousands of addresses would keep the others waiting."""
    computed = record_checks(monkeypatch)
    gone = Passwords().check({"ana": HASH}, "ana", b"x", "10.0.0.1", is_gone=lambda: True)
    assert asyncio.run(gone) is Verdict.GONE
    assert computed == []


def test_so_many_right_passwords_are_remembered_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords, "_MOST_REMEMBERED", 2)
    checked = Passwords()
    count = iter(range(100))
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: next(count) >= 0)
    for word in ("a", "b", "c", "c", "b", "a"):
        assert check_all(checked, {"ana": HASH}, [("10.0.0.1", word)]) == [Verdict.RIGHT]
    assert next(count) == 4  # a, b, c, and a again


def test_at_the_end_no_further_password_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would hold up the end of the process."""
    begun, released = threading.Event(), threading.Event()
    computed: list[bytes] = []

    def slow(password: bytes, _hashed: bytes) -> bool:
        computed.append(password)
        begun.set()
        return not released.wait(10)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with serving() as service, ExitStack() as stack:
        service.config = WebConfig(users={"ana": HASH})
        for number in range(5):
            request = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(str(number))}\r\n\r\n"
            stack.enter_context(service.connect()).sendall(request.encode())
        assert begun.wait(10)
        service.web.stop()
        released.set()
        service.web._thread.join(10)
    assert len(computed) == 1


# ---- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPEN + CLOSED)
def test_headers_are_added_to_each_answer(service: Service, path: str) -> None:
    headers = {"Strict-Transport-Security": "max-age=60", "Content-Security-Policy": "sandbox"}
    service.config = WebConfig(headers=headers)
    response, _ = service.ask(path)
    assert {name: response.headers[name] for name in headers} == headers
    assert response.headers["X-Content-Type-Options"] == "nosniff"


# ---- TLS ----------------------------------------------------------------------------------------

PLAIN_TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key%s}\n"
CLIENTS = PLAIN_TLS % (", client_ca_file: ca.crt, client_auth_type: RequireAndVerifyClientCert%s")


def ask(service: Service, tls: ssl.SSLContext | None, path: str = "/metrics") -> int:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=15)
    if tls is not None:
        connection = http.client.HTTPSConnection(
            service.host, service.port, timeout=15, context=tls
        )
    with closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def test_tls(service: Service, files: Files) -> None:
    files.serve(service, PLAIN_TLS % "")
    assert service.web.address.startswith("https://")
    assert ask(service, files.client()) == 200
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(service, None)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(service, ssl.create_default_context())


@pytest.mark.parametrize(
    ("served", "spoken"),
    [
        ("min_version: TLS13", ssl.TLSVersion.TLSv1_2),
        ("max_version: TLS12", ssl.TLSVersion.TLSv1_3),
    ],
)
def test_other_versions_of_tls_are_not_spoken(
    service: Service, files: Files, served: str, spoken: ssl.TLSVersion
) -> None:
    files.serve(service, PLAIN_TLS % f", {served}")
    assert ask(service, files.client()) == 200
    client = files.client()
    client.minimum_version = client.maximum_version = spoken
    with pytest.raises(ssl.SSLError):
        ask(service, client)


def test_the_cipher_suite_is_the_one_that_is_configured(service: Service, files: Files) -> None:
    suites = "[TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]"
    files.serve(service, PLAIN_TLS % f", max_version: TLS12, cipher_suites: {suites}")
    with (
        service.connect() as plain,
        files.client().wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        name, _, _ = secure.cipher() or ("", "", 0)
    assert name.endswith("AES256-GCM-SHA384")


@pytest.mark.parametrize("path", OPEN + CLOSED)
def test_who_has_no_client_certificate_sees_health_alone(
    service: Service, files: Files, path: str
) -> None:
    files.serve(service, CLIENTS % "")
    expected = 404 if path == "/nowhere" else 200
    assert ask(service, files.client("scraper"), path) == expected
    assert ask(service, files.client(), path) == (200 if path in OPEN else 403)


def test_a_client_certificate_of_another_authority_is_refused(
    service: Service, files: Files
) -> None:
    files.serve(service, CLIENTS % "")
    foreign = files.client()
    trustme.CA().issue_cert("prometheus.example.org").configure_cert(foreign)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(service, foreign)


@pytest.mark.parametrize(
    ("allowed", "scraper", "other"),
    [("prometheus.example.org", 200, 403), ("10.0.0.1", 403, 200), ("a, b", 403, 403)],
)
def test_only_the_names_that_are_allowed(
    service: Service, files: Files, allowed: str, scraper: int, other: int
) -> None:
    files.serve(service, CLIENTS % f", client_allowed_sans: [{allowed}]")
    assert ask(service, files.client("scraper")) == scraper
    assert ask(service, files.client("other")) == other


def test_a_certificate_only_if_it_is_given(service: Service, files: Files) -> None:
    options = ", client_ca_file: ca.crt, client_auth_type: VerifyClientCertIfGiven"
    files.serve(service, PLAIN_TLS % options)
    assert ask(service, files.client()) == 200
    assert ask(service, files.client("scraper")) == 200


def test_those_who_do_not_finish_the_handshake_do_not_keep_others_from_metrics(
    service: Service, files: Files
) -> None:
    files.serve(service, PLAIN_TLS % "")
    waiting = [service.connect() for _ in range(100)]
    for number, connection in enumerate(waiting):
        connection.sendall(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
    assert ask(service, files.client()) == 200
    for connection in waiting:
        connection.close()


# ---- files that change --------------------------------------------------------------------------


def test_a_new_certificate_is_used_at_once(service: Service, files: Files) -> None:
    files.write(PLAIN_TLS % "")
    source = files.source()
    service.config = source.value
    first = serial(service, files)
    assert not source.refresh()
    files.certify("server", "127.0.0.1")
    assert source.refresh()
    service.config = source.value
    assert serial(service, files) != first


def test_a_connection_from_before_ends_with_its_certificate(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one that is kept goes on without what is asked of new ones."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 3600.0)
    monkeypatch.setattr(server, "_CONFIG_EVERY", 0.02)
    files.write(PLAIN_TLS % "")
    context = files.client()
    with serving(source=files.source()) as service:
        kept = http.client.HTTPSConnection(service.host, service.port, timeout=15, context=context)
        with closing(kept):
            kept.request("GET", "/metrics")
            kept.getresponse().read()
            files.write(CLIENTS % "")
            assert kept.sock is not None
            assert kept.sock.recv(1) == b""


def test_a_version_that_keeps_fewer_out_is_a_warning(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CONFIG_EVERY", 0.02)
    files.write(PLAIN_TLS % "" + f"basic_auth_users: {{ana: {HASH}}}\n")
    with capture_logs() as events, serving(source=files.source()) as service:
        files.write(PLAIN_TLS % "")
        while not (told := [one for one in events if one["event"] == "web_config_reloaded"]):
            assert ask_once(service, files.client()) in (None, 200)
    found = [told[0][name] for name in ("log_level", "protection", "removed")]
    assert found == ["warning", "TLS", "passwords"]


def ask_once(service: Service, context: ssl.SSLContext) -> int | None:
    """Ask for health; None where a change of the configuration cuts the connection."""
    with suppress(OSError, http.client.HTTPException):
        return ask(service, context, "/-/healthy")
    return None


def test_a_request_that_is_being_answered_is_answered_before_its_connection_ends(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CONFIG_EVERY", 0.02)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 3600.0)
    begun, released = threading.Event(), threading.Event()

    def page() -> str:
        begun.set()
        assert released.wait(10)
        return "answered"

    files.write(PLAIN_TLS % "")
    context = files.client()
    with serving(source=files.source()) as service, service.connect() as plain:
        service.page = page
        secure = context.wrap_socket(plain, server_hostname="127.0.0.1")
        secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(10)
        files.write(CLIENTS % "")
        while not service.current().client_certificate:
            ask_once(service, context)
        released.set()
        answer = b""
        while piece := secure.recv(10_000):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"answered")


def test_a_request_that_began_before_certificates_were_needed_is_refused(
    service: Service, files: Files
) -> None:
    """In plain HTTP, for example: its connection has none, and that is no error."""
    with service.connect() as connection, capture_logs() as events:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        service.ask()
        files.serve(service, CLIENTS % "")
        connection.sendall(b"x")
        assert connection.recv(100).startswith(b"HTTP/1.1 403")
    assert errors(events) == []


def test_requests_of_a_client_that_has_hung_up_are_no_errors(
    service: Service, files: Files
) -> None:
    files.serve(service, CLIENTS % "")
    plain = service.connect()
    with (
        capture_logs() as events,
        files.client().wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 150)
        secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        secure.close()
        assert ask(service, files.client(), "/-/healthy") == 200
    assert errors(events) == []


def errors(events: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    return [event for event in events if event["log_level"] == "error"]


def serial(service: Service, files: Files) -> object:
    with (
        service.connect() as plain,
        files.client().wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return (secure.getpeercert() or {})["serialNumber"]


LOCKED = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAi9nCKHRVWdBgICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQIc1cZL9VLcwYEgZDTRBEhEaEEuwJU
-----END ENCRYPTED PRIVATE KEY-----
"""
BROKEN = {
    "a mistake": lambda files: files.write("basic_auth_users: {ana: secret}"),
    "no file": lambda files: files.path.unlink(),
    "no certificate": lambda files: (files.folder / "server.crt").unlink(),
    "a key of another certificate": lambda files: (files.folder / "other.key").replace(
        files.folder / "server.key"
    ),
    "a name that no file can have": lambda files: files.write(
        r'tls_server_config: {cert_file: "a\0", key_file: b}'
    ),
    "no PEM": lambda files: (files.folder / "server.crt").write_text("x"),
    "no PEM of the authority": lambda files: files.write(CLIENTS.replace("ca.crt", "web.yml") % ""),
    "a key with a password": lambda files: (files.folder / "server.key").write_bytes(LOCKED),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_version_that_got_worse_keeps_the_old_one_and_says_why(
    service: Service, files: Files, name: str
) -> None:
    files.write(PLAIN_TLS % "" + f"basic_auth_users: {{ana: '{HASH}'}}\n")
    source = files.source()
    before = source.value
    BROKEN[name](files)
    assert source.refresh()
    assert source.value is before
    assert source.error is not None
    assert source.error.startswith(f"web configuration file {files.path}")
    assert "secret" not in source.error
    assert "\n" not in source.error
    files.certify("server", "127.0.0.1")
    files.write(PLAIN_TLS % "")
    assert source.refresh()
    assert source.error is None


@pytest.mark.parametrize("name", BROKEN)
def test_at_the_start_it_is_refused(files: Files, name: str) -> None:
    files.write(PLAIN_TLS % "")
    BROKEN[name](files)
    with pytest.raises(FileError, match="web configuration file"):
        WebConfigSource(files.path, lambda _seconds: True).read_first()


@pytest.mark.parametrize("late", ["server.crt", "server.key", "web.yml"])
def test_a_file_that_is_mounted_late_is_waited_for(files: Files, late: str) -> None:
    """The others may be old by then."""
    files.write(PLAIN_TLS % "")
    for path in files.folder.iterdir():
        os.utime(path, (1e9, 1e9))
    content = (files.folder / late).read_bytes()
    (files.folder / late).unlink()

    waits = iter(range(100))

    def wait(_seconds: float) -> bool:
        if next(waits) == 2:  # when it was found missing already
            (files.folder / late).write_bytes(content)
        return False

    assert WebConfigSource(files.path, wait).read_first().value.tls is not None


def test_many_scrape_with_a_password_at_once(guarded: Service) -> None:
    assert guarded.ask(Authorization=basic(PASSWORD))[0].status == 200
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(guarded.ask(Authorization=basic(PASSWORD))[0].status)
        )
        for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 30
