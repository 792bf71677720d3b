"""What people are told: a server that exporters send notices to, and that writes them down.

A notice is written down when it is there, before it is answered: an exporter may end in between.
"""

import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .record import Record

# At most; an exporter may be killed in between.
_ANSWER_SECONDS = 0.03
_DEFAULT_SERVER = "default"  # the name that a default server has in a notice


class Inbox:
    """Takes notices over HTTP, as Apprise sends them, on threads of its own.

    Args:
        record: is told what was received, from which exporter.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self.holds_until = 0.0  # answers wait until then
        self.refuses_until = 0.0

        class Handler(_Handler):
            inbox = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, exporter: str) -> str:
        """Return a line for the notify file of an exporter."""
        port = self._server.server_address[1]
        return f"json://127.0.0.1:{port}/{exporter}?:person={{user}}&:name={{server}}\n"

    def take(self, exporter: str, told: dict[str, Any]) -> int:
        """Write down a notice; return the status of the answer."""
        if time.monotonic() < self.refuses_until:
            return 503
        server = told["name"] if told["name"] != _DEFAULT_SERVER else ""
        about = _about(told["title"], told["message"])
        self._record.note("told", user=told["person"], server=server, by=exporter, about=about)
        time.sleep(max(random.uniform(0, _ANSWER_SECONDS), self.holds_until - time.monotonic()))
        return 200

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()


def _about(title: str, message: str) -> str:
    """Tell whether it is about a stop that is due, and by which limit, or one that was done."""
    if title.endswith("was stopped"):
        return "stopped"
    return "max_age" if "after their start" in message else "idle"


class _Handler(BaseHTTPRequestHandler):
    inbox: Inbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.inbox.take(self.path.strip("/"), json.loads(body)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: the record says it."""
