"""Who may read metrics and the page: who has a password, a client certificate, or both."""

import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from tornado.httputil import HTTPServerRequest

from ..domain.labels import WebRefusal
from .connections import stream_of
from .crowd import network_of
from .passwords import Passwords, Verdict
from .web_config import WebConfig

_ASK = {"WWW-Authenticate": 'Basic realm="hub_idle_exporter", charset="UTF-8"'}


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered."""

    status: HTTPStatus
    sentence: str
    headers: Mapping[str, str] = field(default_factory=dict)
    counted: WebRefusal | None = None


_NO_PASSWORD = Refusal(HTTPStatus.UNAUTHORIZED, "User name and password are needed.", _ASK)
_WRONG = Refusal(
    HTTPStatus.UNAUTHORIZED, "User name or password is wrong.", _ASK, WebRefusal.WRONG_PASSWORD
)
_TOO_MANY = Refusal(
    HTTPStatus.TOO_MANY_REQUESTS,
    "Too many wrong passwords; try again.",
    {"Retry-After": "2"},
    WebRefusal.TOO_MANY_ATTEMPTS,
)
_REFUSALS = {
    Verdict.RIGHT: None,
    Verdict.WRONG: _WRONG,
    Verdict.TOO_MANY: _TOO_MANY,
    Verdict.GONE: _NO_PASSWORD,  # nobody reads it, and nothing is counted
}
_NO_CERTIFICATE = Refusal(
    HTTPStatus.FORBIDDEN, "A client certificate is needed.", counted=WebRefusal.CERTIFICATE
)
_WRONG_NAME = Refusal(
    HTTPStatus.FORBIDDEN,
    "The client certificate has none of the allowed names.",
    counted=WebRefusal.CERTIFICATE,
)


class Access:
    """Decides by the current web configuration.

    Args:
        config: gives the current one.
        count: called when a request is refused, but not when it merely lacks a password.
    """

    def __init__(
        self,
        config: Callable[[], WebConfig],
        count: Callable[[WebRefusal], None] = lambda _cause: None,
    ) -> None:
        self._config, self._count = config, count
        self._passwords = Passwords()

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers that each answer is to have."""
        return self._config().headers

    async def refusal(self, request: HTTPServerRequest) -> Refusal | None:
        """Say why a request is not answered; None if it is."""
        config = self._config()
        refusal = _certificate_refusal(config, request)
        if refusal is None and config.users:
            refusal = await self._password_refusal(config, request)
        if refusal is not None and refusal.counted is not None:
            self._count(refusal.counted)
        return refusal

    async def _password_refusal(
        self, config: WebConfig, request: HTTPServerRequest
    ) -> Refusal | None:
        given = credentials(request.headers.get("Authorization", ""))
        if given is None:
            return _NO_PASSWORD
        address = network_of(request.remote_ip or "")
        is_gone = stream_of(request).closed
        verdict = await self._passwords.check(config.users, *given, address, is_gone)
        return _REFUSALS[verdict]


def credentials(header: str) -> tuple[str, bytes] | None:
    """Return user and password of an `Authorization` header; None if it has none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (user.decode(errors="surrogateescape"), password) if colon else None


def _certificate_refusal(config: WebConfig, request: HTTPServerRequest) -> Refusal | None:
    if not config.client_certificate:
        return None
    wire = stream_of(request).socket
    # A connection from before the file asked for certificates, or one that ended, has none.
    certificate = wire.getpeercert() if isinstance(wire, ssl.SSLSocket) else None
    if not certificate:
        return _NO_CERTIFICATE
    if config.client_names and not config.client_names & names_of(certificate):
        return _WRONG_NAME
    return None


def names_of(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Return the subject alternative names of a certificate, as Go writes them."""
    found = certificate.get("subjectAltName", ())
    return frozenset(_address(name) if kind == "IP Address" else name for kind, name in found)


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return text
