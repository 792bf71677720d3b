"""Options and environment → one frozen `Config`. Every bad value is named, with what is allowed."""

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from .culling.culler import Limits
from .domain.durations import shown
from .hub.client import Connection, Token
from .poller import Terms

TOKEN_VARIABLES = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")


class ConfigError(ValueError):
    """A configuration that cannot work; `str()` is one line for people."""


@dataclass(frozen=True)
class Config:
    """Everything the sidecar needs, checked; times in seconds."""

    connection: Connection
    token_file: Path | None
    policy_file: Path | None
    terms: Terms
    limits: Limits
    grace: float
    tls_directory: Path | None
    host: str
    port: int
    log_level: str
    log_format: str

    def shown(self) -> dict[str, object]:
        """Give the effective configuration for the log; there is no token in it."""
        terms, limits = self.terms, self.limits
        return {
            "url": self.connection.url,
            "api_token": f"file {self.token_file}" if self.token_file else "environment, masked",
            "enforce": terms.enforce,
            "timeout": shown(terms.default.timeout),
            "max_age": shown(terms.default.max_age) if terms.default.max_age else "none",
            "interval": shown(terms.interval),
            "grace": shown(self.grace),
            "busy_check": terms.busy_check,
            "probe_user": terms.probe_user,
            "max_busy": shown(limits.max_busy),
            "concurrency": limits.concurrency,
            "max_culls": limits.max_culls or "no limit",
            "policy_file": str(self.policy_file) if self.policy_file else "none",
            "cull_default_servers": terms.cull_default_servers,
            "cull_named_servers": terms.cull_named_servers,
            "remove_named_servers": limits.remove_named_servers,
            "per_server_metrics": terms.per_server_metrics,
            "api_page_size": self.connection.page_size,
            "request_timeout": shown(self.connection.timeout),
            "ssl_enabled": self.tls_directory is not None,
            "internal_certs_location": str(self.tls_directory) if self.tls_directory else "none",
            "ca_file": self.connection.ca_file or "system",
            "web_listen_address": f"{self.host}:{self.port}",
            "log_level": self.log_level,
            "log_format": self.log_format,
        }


def token_of(config: Config, environ: Mapping[str, str]) -> Token:
    """Find the token in its file or in the environment; raise ConfigError where there is none."""
    if config.token_file is not None:
        return _token_in_file(config.token_file)
    for variable in TOKEN_VARIABLES:
        value = environ.get(variable, "").strip()
        if value:
            return Token(partial(checked_token, value, f"the environment variable {variable}"))
    raise ConfigError(
        "no API token: set JUPYTERHUB_API_TOKEN, or name a file with --api-token-file"
    )


def _token_in_file(path: Path) -> Token:
    def read() -> str:
        return checked_token(path.read_text().strip(), f"--api-token-file {path}")

    try:
        return Token(read)
    except OSError as error:
        raise ConfigError(f"--api-token-file {path} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise ConfigError(f"--api-token-file {path} holds no text") from None


def checked_token(value: str, where: str) -> str:
    """Refuse what cannot be sent in a header, without showing it."""
    if not value:
        raise ConfigError(f"{where} is empty: it should hold the API token")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigError(f"{where} holds something that is no API token (blanks, line breaks)")
    return value


def checked_url(value: str) -> str:
    """Take a Hub API address; raise ValueError saying what is allowed."""
    try:
        parts = urlsplit(value)
        host = (parts.hostname or "").encode("idna")  # refuses what cannot be looked up
        usable = parts.scheme in ("http", "https") and host and parts.port != 0
    except ValueError:
        usable = False
    blank = not value.isprintable() or " " in value
    if not usable or blank or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("allowed is http(s)://HOST[:PORT]/PATH without user, query or fragment")
    return value.rstrip("/")


def checked_address(value: str) -> tuple[str, int]:
    """Split `[HOST]:PORT`; raise ValueError saying what is allowed. No host: all interfaces."""
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("allowed is HOST:PORT or :PORT, with a port up to 65535")
    host = host.removeprefix("[").removesuffix("]")
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - `:9899` says so
    return host or everywhere, int(port)


def internal_tls(directory: Path) -> tuple[str, str, str]:
    """Name the certificate, key and authority that the Hub made for internal_ssl."""
    pair = directory / "hub-internal" / "hub-internal"
    files = (f"{pair}.crt", f"{pair}.key", str(directory / "hub-ca_trust.crt"))
    for file in files:
        if not Path(file).is_file():
            raise ConfigError(
                f"--ssl-enabled: {file} is missing; --internal-certs-location names the "
                "folder that the Hub wrote with internal_ssl (its internal_certs_location)"
            )
    _tls_context(*files, f"--internal-certs-location {directory}")
    return files


def checked_authority(file: Path) -> str:
    """Take a file with certificate authorities; raise ConfigError where it holds none."""
    if not file.is_file():
        raise ConfigError(f"--ca-file: {file} is no file")
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ca-file: {file} holds no certificate (PEM): {error}") from None
    return str(file)


def server_tls(config: Config) -> ssl.SSLContext | None:
    """Make the TLS context for asking servers behind internal_ssl, None without it."""
    if config.tls_directory is None:
        return None
    files = internal_tls(config.tls_directory)
    return _tls_context(*files, f"--internal-certs-location {config.tls_directory}")


def _tls_context(certificate: str, key: str, authority: str, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: its certificates cannot be used: {error}") from None
    return context
