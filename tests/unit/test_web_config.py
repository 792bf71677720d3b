"""The web configuration file: what it may say, and how each mistake in it is named."""

from pathlib import Path

import bcrypt
import pytest

from hub_idle_exporter.serving.web_config import Found, document_of
from hub_idle_exporter.strict_yaml import MistakeError

FOLDER = Path("/etc/exporter")
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
WHOLE = f"""\
tls_server_config:
  cert_file: server.crt
  key_file: /run/keys/server.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example.org, 10.0.0.1]
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    - TLS_AES_128_GCM_SHA256
  prefer_server_cipher_suites: false
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {HASH}
  bob: "{HASH}"
"""


def test_everything_that_is_supported() -> None:
    document = document_of(WHOLE.encode())
    assert document.users == {"alice": HASH, "bob": HASH}
    assert document.headers == {
        "X-Frame-Options": "deny",
        "Strict-Transport-Security": "max-age=31536000",
    }
    tls = document.tls
    assert tls is not None
    assert [str(path) for path in tls.below(FOLDER).paths] == [
        "/etc/exporter/server.crt",
        "/run/keys/server.key",
        "/etc/exporter/ca.crt",
    ]
    assert tls.cipher_suites == ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305")
    assert tls.client_allowed_sans == {"prometheus.example.org", "10.0.0.1"}
    assert not tls.prefer_server_cipher_suites


@pytest.mark.parametrize("text", ["{}", "tls_server_config: {}\n", "basic_auth_users: {}"])
def test_a_file_without_any_is_plain_http_for_everybody(text: str) -> None:
    document = document_of(text.encode())
    assert (document.tls, document.users, document.headers) == (None, {}, {})


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "tls_server_config:\n", "basic_auth_users:\n", "http_server_config:\n",
     "http_server_config: {headers: }\n"],
)  # fmt: skip
def test_what_may_have_been_cut_off_is_refused(text: str) -> None:
    """It would open the port to everybody."""
    assert mistake(text)


TLS = "tls_server_config: {cert_file: a, key_file: b, %s}"
MISTAKES = {
    "tls_config: {}": "line 1: tls_config: unknown key: only `tls_server_config`, "
    "`http_server_config`, `basic_auth_users`, `rate_limit` can be given here",
    "[]": "line 1: it must be a mapping",
    "basic_auth_users: [a]": "line 1: basic_auth_users: it must be a mapping",
    "tls_server_config: {cert_file: a}": "line 1: tls_server_config: it needs a key `key_file`",
    "tls_server_config: {key_file: a}": "line 1: tls_server_config: it needs a key `cert_file`",
    TLS % "cert: x": "cert: not supported here: leave it out (give the name of a file)",
    TLS % "curve_preferences: [X25519]": "not supported here",
    TLS % "min_version: TLS11": "'TLS11': it must be one of TLS12, TLS13",
    TLS % "min_version: TLS13, max_version: TLS12": "`min_version` is above `max_version`",
    TLS % "client_auth_type: Never": "'Never': it must be one of NoClientCert, "
    "VerifyClientCertIfGiven, RequireAndVerifyClientCert",
    TLS % "client_auth_type: RequireAnyClientCert": "verifies nothing and is not supported: "
    "RequireAndVerifyClientCert",
    TLS % "client_auth_type: RequestClientCert": "verifies nothing",
    TLS % "client_auth_type: RequireAndVerifyClientCert": "needs `client_ca_file`",
    TLS % "client_ca_file: c": "`client_ca_file` needs `client_auth_type: "
    "RequireAndVerifyClientCert`",
    TLS % "client_allowed_sans: [x]": "`client_allowed_sans` needs `client_auth_type: "
    "RequireAndVerifyClientCert`",
    TLS % "cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]": "'TLS_RSA_WITH_RC4_128_SHA': it must be one",
    TLS % "prefer_server_cipher_suites: 'yes'": "it must be true or false",
    "rate_limit: {interval: 1s}": "rate_limit: not supported here",
    "http_server_config: {headers: {X-Powered-By: me}}": "headers.X-Powered-By: unknown key: only",
    "http_server_config: {headers: {X-Frame-Options: maybe}}": "'maybe': it must be one of deny, "
    "sameorigin",
    'http_server_config: {headers: {X-XSS-Protection: "a\\nb"}}': "that no header may have",
    'basic_auth_users: {"a:b": $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}': (
        "line 1: basic_auth_users: the name has a colon"
    ),
    "basic_auth_users: {a: b, a: c}": "line 1: duplicate key '...'",
    "{": "line 1: it is not valid YAML",
    TLS % "cipher_suites: [TLS_AES_128_GCM_SHA256]": "`cipher_suites` has none for TLS 1.2",
}


def mistake(text: str) -> str:
    with pytest.raises(MistakeError) as caught:
        document_of(text.encode())
    return str(caught.value)


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_named(text: str) -> None:
    assert MISTAKES[text] in mistake(text)


@pytest.mark.parametrize(
    "written",
    ["sesame", "12345", "null", "'sesame'", "[sesame]", "sesame" * 100, HASH[:-1], HASH + "x",
     HASH.replace("$10$", "$15$"), HASH.replace("$10$", "$03$"), "$apr1$sesame"],
)  # fmt: skip
def test_a_password_that_is_no_hash_is_refused_and_not_shown(written: str) -> None:
    said = mistake(f"basic_auth_users:\n  alice: {written}\n")
    assert said == (
        "line 2: basic_auth_users: it must be a bcrypt hash of cost 4 to 14, "
        "as `htpasswd -B` writes it"
    )


@pytest.mark.parametrize(
    "line",
    ["alice sesame: ", "alice:sesame: x", "sesame: alice", "alice: *sesame", "alice: !sesame",
     "alice: &sesame", "sesame", "{sesame: [}", "alice: %sesame", "alice: @sesame",
     "alice: 'sesame", "0x5e5a3e: alice", "sesame: a\n  sesame: b", "*sesame : x", "? [sesame]"],
)  # fmt: skip
def test_a_password_in_the_wrong_place_is_not_shown_either(line: str) -> None:
    said = mistake(f"basic_auth_users:\n  {line}\n")
    assert "sesame" not in said
    assert "5e5a3e" not in said


KEY = "-----BEGIN PRIVATE KEY-----\\nc2VzYW1l\\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key", [f'"{KEY}"', f'"{KEY}{"x" * 5000}"', f"'{KEY}'", r'"c2VzYW1l\nc2VzYW1l"', "[c2VzYW1l]"]
)
def test_a_key_in_place_of_its_files_name_is_not_shown(key: str) -> None:
    assert "c2VzYW1l" not in mistake(f"tls_server_config: {{cert_file: a, key_file: {key}}}")


def test_what_was_read_is_not_shown_in_an_error() -> None:
    assert "sesame" not in repr(Found(b"sesame", {Path("key"): b"sesame"}))


@pytest.mark.parametrize("last", "./ABOPeu")
def test_a_hash_is_taken_only_if_passwords_can_be_checked_against_it(last: str) -> None:
    """Its salt has 128 bits, but room for four more: the library refuses hashes that have them."""
    written = HASH[:28] + last + HASH[29:]
    try:
        bcrypt.checkpw(b"sesame", written.encode())
    except ValueError:
        assert "bcrypt hash" in mistake(f"basic_auth_users: {{alice: {written}}}")
    else:
        document = document_of(f"basic_auth_users: {{alice: {written}}}".encode())
        assert document.users == {"alice": written}


def test_with_tls_1_3_alone_its_suites_cannot_be_chosen_as_in_go() -> None:
    text = TLS % "min_version: TLS13, cipher_suites: [TLS_AES_128_GCM_SHA256]"
    document = document_of(text.encode())
    assert document.tls is not None
    assert not document.tls.cipher_suites
