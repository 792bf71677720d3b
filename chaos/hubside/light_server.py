"""One person's server: what a Jupyter server says of itself, without Jupyter.

A process of its own that starts in a moment. It answers `/api/status`, `/api/kernels` and
`/api/terminals` below its prefix, reports activity to the Hub, and writes what its person does into
the record at the moment from which it would say so itself.

What its person does comes as `POST <prefix>chaos` with `{"do": "active" | "busy" | "rest"}` or
`{"do": "hang", "seconds": 5}`. Settings are the `user_options` of its start:

report_every    seconds between reports to the Hub; 0 for none: the Hub never learns
asks_hub        tokens are checked with the Hub, as a real server does; otherwise any will do
thinks          seconds between an answer and its sending
slow            seconds before each answer
returns, times  so many times its person comes back, `returns` seconds after /api/status was asked
skew            seconds its clock is ahead
"""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from .noting import note

OPTIONS: dict[str, Any] = json.loads(os.environ.get("CHAOS_OPTIONS", "{}"))
USER, SERVER = os.environ["JUPYTERHUB_USER"], os.environ["JUPYTERHUB_SERVER_NAME"]
ADDRESS = os.environ["JUPYTERHUB_SERVICE_URL"]


def option(name: str) -> float:
    """Return one of the settings, 0 where it is not given."""
    return float(OPTIONS.get(name, 0))


def stamp(seconds: float) -> str:
    """Write a time as Jupyter does, by this server's own clock."""
    return (
        datetime.fromtimestamp(seconds + option("skew"), timezone.utc)
        .isoformat()
        .replace("+00:00", "Z")
    )


def write_down(what: str, **told: Any) -> float:
    """Append an event of this server to the record."""
    record = os.environ["CHAOS_RECORD"]
    return note(record, what, user=USER, server=SERVER, pid=os.getpid(), **told)


class Desk:
    """What this server knows of its person."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.started = self.last_activity = time.time()
        self.kernel = "idle"
        self.hangs_until = 0.0
        self._returns = int(option("times"))

    def do(self, what: str) -> None:
        """Let the person be active, or a kernel begin or end; it is written down and said at once.

        Both ends of a computation count as activity, as in Jupyter.
        """
        with self._lock:
            self.kernel = {"busy": "busy", "rest": "idle"}.get(what, self.kernel)
            self.last_activity = write_down(what)

    def says(self, path: str) -> object:
        """Return what an address answers, None for 404."""
        with self._lock:
            last_activity = stamp(self.last_activity)
            kernel: dict[str, Any] = {"id": "1", "name": "python3", "connections": 0}
            kernel |= {"execution_state": self.kernel, "last_activity": last_activity}
            status: dict[str, Any] = {"kernels": 1, "connections": 0}
            status |= {"started": stamp(self.started), "last_activity": last_activity}
        answers = {"api/status": status, "api/kernels": [kernel], "api/terminals": []}
        return answers.get(path, {"version": "light"})

    def asked(self) -> None:
        """Come back because somebody looked, where this person does so."""
        if self._returns > 0:
            self._returns -= 1
            threading.Timer(option("returns"), self.do, ["active"]).start()


class Handler(BaseHTTPRequestHandler):
    """Answers for the one desk."""

    protocol_version = "HTTP/1.1"
    desk = Desk()

    def do_GET(self) -> None:
        time.sleep(max(option("slow"), self.desk.hangs_until - time.time()))
        path = unquote(urlsplit(self.path).path).removeprefix(unquote(urlsplit(ADDRESS).path))
        if path.startswith("api/") and not self._opens():
            self._reply(403, {"message": "Forbidden"})
            return
        answer = self.desk.says(path)
        if path == "api/status":
            write_down("asked")
            time.sleep(option("thinks"))
        self._reply(200, answer)
        if path == "api/status":
            self.desk.asked()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["do"] == "hang":
            self.desk.hangs_until = time.time() + asked["seconds"]
        else:
            self.desk.do(asked["do"])
        self._reply(200, {})

    def _opens(self) -> bool:
        if not OPTIONS.get("asks_hub"):
            return True
        url = f"{os.environ['JUPYTERHUB_API_URL']}/user"
        request = urllib.request.Request(url)
        request.add_header("Authorization", self.headers.get("Authorization", "token none"))
        try:
            with OPENER.open(request, timeout=60) as answer:
                scopes = set(json.load(answer)["scopes"])
        except OSError:
            return False
        return bool(scopes & {"access:servers", f"access:servers!server={USER}/{SERVER}"})

    def _reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + option("skew"))

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: the record says it."""


# No proxy of the environment between us and the Hub.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def report(desk: Desk) -> None:
    """Report activity to the Hub for ever; what the Hub does not take is lost."""
    told = 0.0
    while True:
        time.sleep(option("report_every"))
        if desk.last_activity != told:
            told = desk.last_activity
            moment = stamp(told)
            body = {"servers": {SERVER: {"last_activity": moment}}, "last_activity": moment}
            request = urllib.request.Request(
                os.environ["JUPYTERHUB_ACTIVITY_URL"], json.dumps(body).encode(), method="POST"
            )
            request.add_header("Authorization", f"token {os.environ['JUPYTERHUB_API_TOKEN']}")
            request.add_header("Content-Type", "application/json")
            try:
                OPENER.open(request, timeout=5).close()
            except OSError:
                told = 0.0


def end(number: int, _frame: object) -> None:
    """Write down that it was told to end, and end."""
    write_down("exit", signal=number)
    os._exit(0)


def main() -> None:
    """Serve until told to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    parts = urlsplit(ADDRESS)
    server = ThreadingHTTPServer((parts.hostname or "127.0.0.1", parts.port or 0), Handler)
    server.daemon_threads = True
    if option("report_every"):
        threading.Thread(target=report, args=[Handler.desk], daemon=True).start()
    write_down("listening", url=ADDRESS)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
