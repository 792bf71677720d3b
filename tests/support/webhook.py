"""A real web server that takes notices as JSON, refuses them or lets the sender wait.

with Webhook() as hook:
    ... f"json://{hook.address}/tell/{{user}}"
    hook.wait_for(1)
"""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

PATIENCE = 30.0


@dataclass(frozen=True)
class Posted:
    """A notice that arrived."""

    path: str
    body: dict[str, Any]


class Webhook:
    """Answers with `status`; while `answers` is not set the sender waits."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)

    def __enter__(self) -> "Self":
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def wait_for(self, count: int) -> list[Posted]:
        """Wait until so many notices have arrived, taken or not; give them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.posted) >= count, PATIENCE)
            return list(self.posted)

    def _take(self, posted: Posted) -> int:
        with self._arrived:
            self.posted.append(posted)
            self._arrived.notify_all()
        self.answers.wait(PATIENCE)
        return self.status

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                status = take(Posted(self.path, json.loads(self.rfile.read(length))))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None: ...

        return Handler
