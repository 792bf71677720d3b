"""The one error of the Hub's client: what went wrong, as a cause and a sentence for people."""

import ssl
from collections.abc import Iterator

import requests
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from ..domain.labels import Cause, Operation


class HubError(Exception):
    """A request to the Hub that failed; `str()` is one sentence for people.

    `status` is the HTTP status if there was one, `retry_after` the seconds that the Hub asked us
    to wait.
    """

    def __init__(
        self, cause: Cause, sentence: str, status: int | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(sentence)
        self.cause, self.status, self.retry_after = cause, status, retry_after


_IF_NO_TLS = "is it http://, or does it need --ssl-enabled (internal_ssl)?"


def unreachable(
    error: Exception, base: str, timeout: float, if_no_tls: str = _IF_NO_TLS
) -> HubError:
    """Describe a failure below HTTP. The library's text may contain URLs, so it is not used.

    `if_no_tls` says what to look at if there was no TLS handshake.
    """
    if isinstance(error, requests.Timeout | Urllib3TimeoutError):
        return HubError(Cause.TIMEOUT, f"{base} did not answer within {timeout:g} s")
    if isinstance(error, requests.exceptions.SSLError):
        return HubError(Cause.CONNECTION, f"{base} {_tls_problem(error, if_no_tls)}")
    return HubError(Cause.CONNECTION, f"{base} cannot be reached: {_system_error(error)}")


def _tls_problem(error: BaseException, if_no_tls: str) -> str:
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "has a TLS certificate that is not trusted: see --ca-file"
    return f"failed the TLS handshake: {if_no_tls}"


def _system_error(error: BaseException) -> str:
    """Return the operating system's text for the error."""
    words = (cause.strerror for cause in _causes(error) if isinstance(cause, OSError))
    return next(filter(None, words), "the connection was lost")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, down to the root; libraries hide them in many places."""
    found: BaseException | None = error
    while found is not None:
        yield found
        inner = [part for part in found.args if isinstance(part, BaseException)]
        reason = getattr(found, "reason", None)
        inner += [reason] if isinstance(reason, BaseException) else []
        found = inner[-1] if inner else found.__cause__ or found.__context__


def refusal(
    operation: Operation, request: str, status: int, body: bytes, retry_after: float
) -> HubError:
    """Explain an unexpected status of the Hub; `request` is method and URL."""
    if status in (401, 403):
        return _forbidden(operation, request, status, body)
    if 300 <= status < 400:
        sentence = f"{request} was redirected: --url must be the Hub's API (it ends in /hub/api)"
    else:
        sentence = f"{request} was answered with HTTP {status}"
    return HubError(Cause.HTTP, sentence, status, retry_after)


def _forbidden(operation: Operation, request: str, status: int, body: bytes) -> HubError:
    """Distinguish a token that the Hub does not know from one that lacks a scope."""
    minting = operation is Operation.MINT_TOKEN and b"credentials" not in body
    if minting or (operation is not Operation.IDENTITY and b"scope" in body):
        sentence = f"{request} was refused: the token lacks a scope for it"
        return HubError(Cause.SCOPE, sentence, status)
    return HubError(
        Cause.AUTH,
        f"{request} was refused: the Hub does not know the token (wrong, expired or revoked)",
        status,
    )
