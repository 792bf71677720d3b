"""What one person uses on the Hub: their own token and the public address, nothing else."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import quote

import requests
import websocket

_SPAWN_SECONDS = 120.0
_POLL_SECONDS = 0.3
_TOKEN_SECONDS = 86400
_CONNECTS_AGAIN = 3


class BrowserError(Exception):
    """A request failed, or a server did not start; the message names the user."""


@contextlib.contextmanager
def _explained(user: str) -> Iterator[None]:
    """Turn any error of a request into one that names the user."""
    try:
        yield
    except (requests.RequestException, websocket.WebSocketException, OSError) as error:
        raise BrowserError(f"{user}: {error}") from error


class Browser:
    """What a person does on a Hub from a browser: start a server, open a kernel, run cells.

    Args:
        hub_url: the Hub's public address, with a slash at the end.
        user: the person who uses it.
        token: a token of that user's.
    """

    def __init__(self, hub_url: str, user: str, token: str) -> None:
        self._hub_url, self._user = hub_url, user
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"token {token}"
        self._headers = [f"Authorization: token {token}"]

    def token_for(self, user: str) -> str:
        """Create a token with all permissions of another user, if our own token allows it."""
        path = f"hub/api/users/{quote(user, safe='')}/tokens"
        made = self._call("POST", path, accepted=(200, 201), body={"expires_in": _TOKEN_SECONDS})
        return str(made.json()["token"])

    def start_server(self, server: str = "") -> None:
        """Start the user's default server, or a named one, and return when it is ready.

        Raises:
            BrowserError: it did not get ready within two minutes.
        """
        me = f"hub/api/users/{quote(self._user, safe='')}"
        deadline = time.monotonic() + _SPAWN_SECONDS
        while not self._is_ready(me, server):
            if time.monotonic() > deadline:
                raise BrowserError(f"the server of {self._user} did not start in time")
            # 400: it is starting already, or still stopping.
            path = f"servers/{quote(server, safe='')}" if server else "server"
            self._call("POST", f"{me}/{path}", accepted=(201, 202, 400))
            time.sleep(_POLL_SECONDS)

    def open_kernel(self, server: str = "") -> Kernel:
        """Connect to the server's kernel as a notebook does; start one if there is none."""
        base = f"user/{quote(self._user, safe='')}/"
        if server:
            base += f"{quote(server, safe='')}/"
        there = self._call("GET", f"{base}api/kernels", accepted=(200,)).json()
        kernel = there[0] if there else self._call("POST", f"{base}api/kernels", (201,)).json()
        address = self._hub_url.replace("http", "ws", 1)
        url = f"{address}{base}api/kernels/{kernel['id']}/channels"
        return Kernel(self._connect(url), self._user)

    def _connect(self, url: str) -> websocket.WebSocket:
        """Connect to a kernel, as a browser does: again, where the proxy did not wait for it."""
        connect = partial(websocket.create_connection, url, header=self._headers, timeout=60)
        with _explained(self._user):
            for _ in range(_CONNECTS_AGAIN):
                with contextlib.suppress(websocket.WebSocketBadStatusException):
                    return connect()
            return connect()

    def _is_ready(self, me: str, server: str) -> bool:
        servers = self._call("GET", me, accepted=(200,)).json().get("servers", {})
        return bool(servers.get(server, {}).get("ready"))

    def _call(
        self, method: str, path: str, accepted: tuple[int, ...], body: object = None
    ) -> requests.Response:
        with _explained(self._user):
            response = self._session.request(method, self._hub_url + path, json=body, timeout=60)
        if response.status_code not in accepted:
            answer = f"{response.status_code} {response.text[:200]}"
            raise BrowserError(f"{self._user}: {method} {path}: {answer}")
        return response


class Kernel:
    """A notebook's connection to its kernel; the kernel keeps running when it is closed."""

    def __init__(self, connection: websocket.WebSocket, user: str) -> None:
        self._connection, self._user = connection, user
        self._session = uuid.uuid4().hex

    def run(self, code: str) -> None:
        """Run a cell and return when the kernel has started it."""
        message = _execute_request(self._session, code)
        with _explained(self._user):
            self._connection.send(json.dumps(message))
            self._receive_until("execute_input", message["header"]["msg_id"])

    def watch(self) -> None:
        """Read what the kernel prints until the connection ends: the tab stays open."""
        self._connection.settimeout(None)
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while self._connection.recv():
                pass

    def close(self) -> None:
        """Close the tab."""
        self._connection.close()

    def _receive_until(self, kind: str, parent: str) -> None:
        while True:
            message = json.loads(self._connection.recv())
            if (message["msg_type"], message["parent_header"].get("msg_id")) == (kind, parent):
                return


def _execute_request(session: str, code: str) -> dict[str, Any]:
    """Make a message of the Jupyter protocol that runs `code`."""
    return {
        "channel": "shell",
        "header": {
            "msg_id": uuid.uuid4().hex,
            "session": session,
            "username": "",
            "date": datetime.now(timezone.utc).isoformat(),
            "msg_type": "execute_request",
            "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        },
        "buffers": [],
    }
