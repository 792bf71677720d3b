"""A terminal on a user's real server, as JupyterLab opens it.

terminal = JupyterTerminal(hub, "ana", "lab")
terminal.type(f"make{ENTER}")
terminal.type(CTRL_C)
"""

import json
from contextlib import closing
from datetime import datetime, timezone
from urllib.parse import quote

import requests
import websocket
from real_hub import RealHub

CTRL_C, ENTER = "\x03", "\r"


class JupyterTerminal:
    """A terminal; what is typed is sent through the proxy, and the connection closed."""

    def __init__(self, hub: RealHub, user: str, server: str = "") -> None:
        self._hub, self._key = hub, (user, server)
        self._headers = {"Authorization": f"token {hub.user_token(user)}"}
        names = [quote(name, safe="@~") for name in (user, server) if name]
        self._url = f"{hub.public_url}user/{'/'.join(names)}"
        url = f"{self._url}/api/terminals"
        answer = requests.post(url, headers=self._headers, timeout=60)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        self._name: str = answer.json()["name"]

    def type(self, text: str) -> None:
        """Type something."""
        url = f"{self._url.replace('http', 'ws', 1)}/terminals/websocket/{self._name}"
        header = [f"{name}: {value}" for name, value in self._headers.items()]
        connection = websocket.create_connection(url, 30, header=header, suppress_origin=True)
        with closing(connection):
            connection.send(json.dumps(["stdin", text]))

    def quiet_for(self) -> float:
        """Return the seconds since it was last active, asked at the server without a trace."""
        url = f"{self._hub.rows()[self._key].address}api/terminals/{self._name}"
        answer = requests.get(f"{url}?no_track_activity=1", headers=self._headers, timeout=60)
        last = datetime.fromisoformat(answer.json()["last_activity"].replace("Z", "+00:00"))
        return (datetime.now(timezone.utc) - last).total_seconds()
