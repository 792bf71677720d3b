"""What the handlers of all ports have in common: headers, answers of one line, errors."""

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from tornado.web import HTTPError, RequestHandler

PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "hub_idle_exporter",
}

log = structlog.get_logger()


class Answering(RequestHandler):
    """Answers GET and HEAD; a handler for more says so."""

    SUPPORTED_METHODS: tuple[str, ...] = ("GET", "HEAD")
    PROBLEMS: Mapping[HTTPStatus, str] = {
        HTTPStatus.NOT_FOUND: "Not found.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This method is not allowed here.",
        HTTPStatus.INTERNAL_SERVER_ERROR: "This failed; the log says why.",
    }

    def set_default_headers(self) -> None:
        """Set the headers that each answer has."""
        self.set_headers(HEADERS)

    def head(self) -> Any:
        """Answer as to GET; the library leaves the body out."""
        return self.get()

    def answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        """Send an answer."""
        self.set_status(status)
        self.set_header("Content-Type", content_type)
        self.finish(body)

    def answer_line(self, status: HTTPStatus, line: str) -> None:
        """Send an answer of one line."""
        self.answer(status, PLAIN, f"{line}\n".encode())

    def set_headers(self, headers: Mapping[str, str]) -> None:
        """Set some headers."""
        for name, value in headers.items():
            self.set_header(name, value)

    def compute_etag(self) -> None:
        """Have no ETag: nothing here is worth keeping."""

    def write_error(self, status_code: int, **_: Any) -> None:
        """Answer with one line."""
        status = HTTPStatus(status_code)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        self.answer_line(status, self.PROBLEMS.get(status, status.phrase))

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        """Log what went wrong in here; what is wrong with a request is no event."""
        if not isinstance(error, HTTPError):
            lines = "".join(traceback.format_exception(kind, error, trace))
            log.error("request_failed", path=self.request.path, error=lines)
