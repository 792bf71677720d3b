"""The web configuration file: TLS, passwords and headers, in the format of Prometheus' exporters.

The format is that of the exporter toolkit (https://github.com/prometheus/exporter-toolkit,
docs/web-configuration.md). What is not supported here is refused by name, never ignored.
"""

import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import strict_yaml
from ..strict_yaml import MistakeError, Written, quoted
from ..watched_file import FileError, WatchedFile, read

_LONGEST_HEADER = 4096
_LONGEST_PATH = 4096
# A hash as `htpasswd -B` writes it. A check at cost 14 takes a second, and one is done at a time.
# Of the last character of its salt only two bits count; the library takes no others.
_HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-4])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_NO_CERTIFICATE, _IF_GIVEN = "NoClientCert", "VerifyClientCertIfGiven"
_REQUIRED = "RequireAndVerifyClientCert"
# Go's names of what TLS 1.2 may use, and those of OpenSSL. Of TLS 1.3 neither lets one choose.
_SUITES = {
    f"TLS_ECDHE_{kind}_WITH_{go}": f"ECDHE-{kind}-{openssl}"
    for kind in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
_SUITES_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
HEADERS: dict[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}


@dataclass(frozen=True)
class TlsFiles:
    """What the file says about TLS."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    client_auth_type: str = _NO_CERTIFICATE
    client_allowed_sans: frozenset[str] = frozenset()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] | None = None  # those of TLS 1.2; None: OpenSSL's own
    prefer_server_cipher_suites: bool = True

    def below(self, folder: Path) -> "TlsFiles":
        """Return the same with paths that are not relative to the folder any more."""
        authority = self.client_ca_file and str(folder / self.client_ca_file)
        return replace(
            self,
            cert_file=str(folder / self.cert_file),
            key_file=str(folder / self.key_file),
            client_ca_file=authority,
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files, in the order in which they are needed."""
        return tuple(map(Path, filter(None, (self.cert_file, self.key_file, self.client_ca_file))))


@dataclass(frozen=True)
class Document:
    """A web configuration file as it was written."""

    tls: TlsFiles | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WebConfig:
    """How the port is served: nothing of it for plain HTTP without a password.

    `users` are names with their bcrypt hashes. With `client_certificate` a verified one is needed,
    with one of `client_names` if there are any.
    """

    tls: ssl.SSLContext | None = None
    client_certificate: bool = False
    client_names: frozenset[str] = frozenset()
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def protection(self) -> tuple[str, ...]:
        """Name what keeps others out."""
        has = {
            "TLS": self.tls is not None,
            "client certificates": self.client_certificate,
            "passwords": bool(self.users),
        }
        return tuple(name for name, is_there in has.items() if is_there)


@dataclass(frozen=True)
class Found:
    """The content of the file and of those that it names, each as bytes or as what is wrong."""

    content: bytes | str = field(repr=False)
    files: Mapping[Path, bytes | str] = field(repr=False)


class WebConfigSource(WatchedFile[Found, WebConfig]):
    """The web configuration of a file, and of the certificates that it names.

    Args:
        path: the file.
        wait: waits for some seconds; returns True, at once, when the exporter is to end.
    """

    def __init__(self, path: Path, wait: Callable[[float], bool]) -> None:
        super().__init__("web configuration file", path, WebConfig(), wait)

    def find(self) -> Found:
        """Read the file, and the files that it names."""
        content = read(self.path)
        try:
            tls = self._document(content).tls
        except FileError:
            tls = None
        return Found(content, {path: read(path) for path in tls.paths} if tls else {})

    def paths(self, found: Found) -> Iterable[Path]:
        """Return the files that were read."""
        return [self.path, *found.files]

    def parse(self, found: Found) -> WebConfig:
        """Return the configuration; raise FileError."""
        document = self._document(found.content)
        tls = document.tls
        for path, content in found.files.items():
            if isinstance(content, str):
                raise FileError(f"{self.name}: {path} {content}")
        try:
            context = None if tls is None else tls_context(tls)
        except (OSError, ValueError) as error:
            raise FileError(f"{self.name}: {_tls_problem(tls, error)}") from None
        return WebConfig(
            tls=context,
            client_certificate=tls is not None and tls.client_auth_type == _REQUIRED,
            client_names=tls.client_allowed_sans if tls else frozenset(),
            users=document.users,
            headers=document.headers,
        )

    def _document(self, content: bytes | str) -> Document:
        if isinstance(content, str):
            raise FileError(f"{self.name} {content}")
        try:
            document = document_of(content)
        except MistakeError as mistake:
            raise FileError(f"{self.name}: {mistake}") from None
        return replace(document, tls=document.tls and document.tls.below(self.path.parent))


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Build the context of a server; raise OSError or ValueError (also of ssl)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[files.min_version]
    context.maximum_version = _VERSIONS[files.max_version]
    context.load_cert_chain(files.cert_file, files.key_file, password=_no_password)
    context.set_alpn_protocols(["http/1.1"])
    if files.cipher_suites:
        context.set_ciphers(":".join(files.cipher_suites))
    if not files.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if files.client_auth_type != _NO_CERTIFICATE:
        # Not CERT_REQUIRED: health is open, so who has none is refused when it asks for more.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(files.client_ca_file)
    return context


def _no_password() -> str:
    """Refuse a key with a password: without this, OpenSSL would ask for it on the terminal."""
    raise ValueError("has a password, which is not supported")


def _tls_problem(tls: TlsFiles | None, error: Exception) -> str:
    """Say what OpenSSL says, which names no file."""
    files = tls or TlsFiles("", "")
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    pair = f"key_file {files.key_file} or cert_file {files.cert_file}"
    authority = f", or client_ca_file {files.client_ca_file}" if files.client_ca_file else ""
    return f"{pair}{authority} cannot be used: {reason.replace('_', ' ').lower()}"


# ---- what is written ----------------------------------------------------------------------------


def document_of(content: bytes) -> Document:
    """Read a file; raise MistakeError."""
    root = strict_yaml.read(content, has_secrets=True)
    if root.is_empty:  # it may have been cut off, and would open the port to everybody
        raise root.mistake("it is empty: write {} for plain HTTP without passwords")
    values = root.read_by(KEYS)
    return Document(
        tls=values.get("tls_server_config"),
        users=values.get("basic_auth_users", {}),
        headers=values.get("http_server_config", {}),
    )


def _tls(written: Written) -> TlsFiles | None:
    values = written.read_by(TLS_KEYS)
    if not values:
        return None
    for key in ("cert_file", "key_file"):
        if key not in values:
            raise written.mistake(f"it needs a key `{key}`")
    tls = TlsFiles(**values)
    _check_together(written, tls)
    return tls


def _check_together(written: Written, tls: TlsFiles) -> None:
    verifies = tls.client_auth_type != _NO_CERTIFICATE
    if verifies and tls.client_ca_file is None:
        raise written.mistake(f"`client_auth_type: {tls.client_auth_type}` needs `client_ca_file`")
    if tls.client_ca_file is not None and not verifies:
        raise written.mistake(f"`client_ca_file` needs `client_auth_type: {_REQUIRED}`")
    if tls.client_allowed_sans and tls.client_auth_type != _REQUIRED:
        raise written.mistake(f"`client_allowed_sans` needs `client_auth_type: {_REQUIRED}`")
    if _VERSIONS[tls.min_version] > _VERSIONS[tls.max_version]:
        raise written.mistake("`min_version` is above `max_version`")
    if tls.cipher_suites == () and tls.min_version != "TLS13":
        raise written.mistake(
            "`cipher_suites` has none for TLS 1.2: add one, or `min_version: TLS13`"
        )


def _client_auth(written: Written) -> str:
    name = written.text()
    if name in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise written.mistake(f"{quoted(name)} verifies nothing and is not supported: {_REQUIRED}")
    return _one_of(written, name, (_NO_CERTIFICATE, _IF_GIVEN, _REQUIRED))


def _version(written: Written) -> str:
    return _one_of(written, written.text(), tuple(_VERSIONS))


def _one_of(written: Written, name: str, allowed: tuple[str, ...]) -> str:
    if name not in allowed:
        raise written.mistake(f"{quoted(name)}: it must be one of {', '.join(allowed)}")
    return name


def _names(written: Written) -> frozenset[str]:
    return frozenset(item.text() for item in written.items())


def _suites(written: Written) -> tuple[str, ...] | None:
    names = [_one_of(item, item.text(), (*_SUITES, *_SUITES_13)) for item in written.items()]
    return tuple(_SUITES[name] for name in names if name in _SUITES) if names else None


def _http(written: Written) -> Mapping[str, str]:
    # HTTP/2 is offered to nobody, so whether it may be does not matter.
    values = written.read_by({"http2": Written.boolean, "headers": _headers})
    headers: Mapping[str, str] = values.get("headers", {})
    return headers


def _headers(written: Written) -> Mapping[str, str]:
    written.refuse_unknown(HEADERS)
    return {name: _header(name, value) for name, value in written.mapping().items()}


def _header(name: str, written: Written) -> str:
    text = written.text(_LONGEST_HEADER)
    if HEADERS[name]:
        return _one_of(written, text, HEADERS[name])
    if not (text.isascii() and text.isprintable()):
        raise written.mistake(f"{quoted(text)} has characters that no header may have")
    return text


def _users(written: Written) -> Mapping[str, str]:
    """Read names and hashes; none is shown, since somebody may have mixed them up."""
    users = {}
    for name, value in written.secret().mapping().items():
        if ":" in name:
            raise value.mistake("the name has a colon, which cannot be sent")
        users[name] = _hash(value)
    return users


def _hash(written: Written) -> str:
    """Read a hash, which may be the password itself instead."""
    try:
        text = written.text()
    except MistakeError:
        text = ""
    if not _HASH.fullmatch(text):
        raise written.mistake(
            "it must be a bcrypt hash of cost 4 to 14, as `htpasswd -B` writes it"
        )
    return text


def _path(written: Written) -> str:
    """Read the name of a file; by mistake it may be what is in it."""
    name = written.secret().text(_LONGEST_PATH)
    if "-----BEGIN" in name or not name.isprintable():
        raise written.mistake("it must be the name of a file, not what is in the file")
    return name


def _refused(why: str) -> Callable[[Written], object]:
    def refuse(written: Written) -> object:
        raise written.mistake(f"not supported here: leave it out ({why})")

    return refuse


_INLINE = _refused("give the name of a file")
# The keys, each with what reads it; those of TLS are the fields of TlsFiles.
KEYS: dict[str, Callable[[Written], object]] = {
    "tls_server_config": _tls,
    "http_server_config": _http,
    "basic_auth_users": _users,
    "rate_limit": _refused("limits of another kind are built in"),
}
TLS_KEYS: dict[str, Callable[[Written], object]] = {
    "cert_file": _path,
    "key_file": _path,
    "client_ca_file": _path,
    "client_auth_type": _client_auth,
    "client_allowed_sans": _names,
    "min_version": _version,
    "max_version": _version,
    "cipher_suites": _suites,
    "prefer_server_cipher_suites": Written.boolean,
    "curve_preferences": _refused("Python can set one curve at most"),
    "cert": _INLINE,
    "key": _INLINE,
    "client_ca": _INLINE,
}
