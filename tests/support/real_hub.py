"""A real JupyterHub for the tests, with real single-user servers or with paper ones.

    with RealHub(directory, spawner="paper") as hub:
        hub.add_users(["ana", "bo"], group="staff")
        hub.start_server("ana", user_options={"stop_delay": 1})
        hub.backdate("ana", idle=3600, age=7200)
        assert hub.servers()["ana", ""]["ready"]          # as the Hub's API says
        assert hub.rows()["ana", ""].active               # as its database says
        hub.token                                         # of the service, all scopes it may need
        hub.add_token(["list:users"])                     # one with other scopes, any time

Paper servers are one `FakeServer` of this process (`hub.paper`) behind all routes. What
`user_options` can ask for: `hubs/spawners.py`. Starting, stopping and killing: `LocalHub`.
"""

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import requests
import websocket
from fake_hub import PAGINATION, FakeServer
from requests.adapters import HTTPAdapter

from hub_idle_exporter.demo.launch import LocalHub

HUBS = Path(__file__).parent / "hubs"
SERVICE = "hub-idle-exporter"
PROBER = "idle-prober"
MONITOR = ("list:users", "read:servers")
MINT = (f"tokens!user={PROBER}", f"tokens!service={PROBER}")
ENFORCE = (*MONITOR, "read:users:groups", "delete:servers", "proxy", *MINT)
OF_PROBER = ("access:servers", "delete:servers")
# Owner of the tokens that tests make with scopes of their own.
OWNER = "token-owner"
OWNED = ("admin:users", "admin:servers", "admin:groups", "tokens", "proxy", "access:servers")
Key = tuple[str, str]


@dataclass(frozen=True)
class Service:
    """A service of the Hub; with a command the Hub runs it, the scopes are its role's.

    `more` are further keys of its entry.
    """

    name: str = SERVICE
    scopes: Sequence[str] = ENFORCE
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    admin: bool = False
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    more: Mapping[str, Any] = field(default_factory=dict)

    def configuration(self) -> dict[str, Any]:
        """Return the entry of `JupyterHub.services`."""
        entry: dict[str, Any] = {"name": self.name, "api_token": self.token, "admin": self.admin}
        if self.command:
            entry |= {"command": list(self.command), "environment": dict(self.environment)}
        return entry | dict(self.more)

    def role(self) -> dict[str, Any]:
        """Return the entry of `JupyterHub.load_roles`."""
        return {"name": f"of-{self.name}", "services": [self.name], "scopes": list(self.scopes)}


@dataclass(frozen=True)
class Row:
    """A server as the Hub's database has it; times are aware and UTC."""

    user: str
    server: str
    active: bool  # it has a server record: running, spawning or stopping
    state: dict[str, Any]  # the spawner's: empty until its start() has returned
    started: datetime | None
    last_activity: datetime | None
    address: str | None  # where the server itself listens, with its base URL


class RealHub(LocalHub):
    """One Hub; see the module's first lines.

    Args:
        directory: as in LocalHub.
        spawner: "paper" or "jupyter" (real `jupyterhub-singleuser` from the Hub's own Python).
        services: besides the tests' own administrator; the first one's token is `token`.
        roles: further entries of `load_roles`.
        config: further lines of configuration.
        python: interpreter of the Hub, of another version of JupyterHub for instance.
        activity_interval: seconds between the activity reports of servers and of the proxy.
        slow_stop_timeout: seconds after which a DELETE answers 202.
        prober: whether the Hub user for probes, with its role, is there.
    """

    def __init__(
        self,
        directory: Path,
        spawner: Literal["paper", "jupyter"] = "paper",
        *,
        services: Sequence[Service] = (Service(),),
        roles: Sequence[Mapping[str, Any]] = (),
        config: str = "",
        activity_interval: int = 300,
        slow_stop_timeout: float = 10,
        prober: bool = True,
        **launch: Any,
    ) -> None:
        self.spawner = spawner
        self.services = tuple(services)
        self.extra_roles = tuple(roles)
        self.extra_config = config
        self.activity_interval = activity_interval
        self.slow_stop_timeout = slow_stop_timeout
        self.prober = prober
        self.admin_token = secrets.token_hex(32)
        self.paper = FakeServer()
        self.paper.guard = self._opens
        self.paper.process = self._paper_started
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.mount("http://", HTTPAdapter(pool_maxsize=64))
        # The Python proxy writes times without a zone, local ones; the Hub takes them for UTC.
        environment = {"TESTS_HUBS": str(HUBS), "TZ": "UTC", "PYTHONPATH": str(HUBS / "quick")}
        environment |= dict(launch.pop("environment", {}))
        # Absolute, but not resolved: the link's place is what makes it a virtual environment's.
        python = Path(launch.pop("python", sys.executable)).absolute()
        self.version = version_of(python)
        super().__init__(directory, "", python=python, environment=environment, **launch)

    def start(self, timeout: float = 60) -> None:
        """Start with the configuration as it is now: attributes may be changed while stopped."""
        self._config = self.configuration()
        super().start(timeout)

    def close(self) -> None:
        """Stop the Hub and all it started."""
        self._http.close()
        self.stop(grace=5)
        self.paper.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The API's base, as `FakeHub.url`."""
        return self.api_url

    @property
    def token(self) -> str:
        """The first service's token."""
        return self.services[0].token

    @contextmanager
    def paused(self, seconds: float) -> Iterator[None]:
        """Pause the Hub's process; what is sent to it meanwhile waits in its sockets."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, os.kill, [self.pid, signal.SIGCONT])
        timer.start()
        try:
            yield
        finally:
            timer.join()

    # -- configuration

    def configuration(self) -> str:
        """Return the text of the Hub's configuration."""
        cls = "PaperSpawner" if self.spawner == "paper" else "JupyterSpawner"
        administrator = Service("test-admin", (), admin=True, token=self.admin_token)
        roles = [service.role() for service in self.services if service.scopes]
        roles += [{"name": OWNER, "users": [OWNER], "scopes": list(OWNED)}]
        if self.prober:
            roles += [{"name": PROBER, "users": [PROBER], "scopes": list(OF_PROBER)}]
        settings: dict[str, Any] = {
            "JupyterHub.spawner_class": f"spawners.{cls}",
            "JupyterHub.services": [s.configuration() for s in (administrator, *self.services)],
            "JupyterHub.load_roles": roles + [dict(role) for role in self.extra_roles],
            "JupyterHub.last_activity_interval": self.activity_interval,
            "JupyterHub.tornado_settings": {
                "slow_spawn_timeout": 0,
                "slow_stop_timeout": self.slow_stop_timeout,
            },
            "Spawner.environment": {
                "JUPYTERHUB_ACTIVITY_INTERVAL": str(self.activity_interval),
                "PYTHONPATH": str(HUBS / "quick"),
            },
            "Spawner.cmd": [self.python, "-m", "jupyterhub.singleuser"],
            "PaperSpawner.port": self.paper.port,
            "ConfigurableHTTPProxy.command": [self.python, str(HUBS / "proxy.py")],
        }
        lines = [f"load_subconfig({str(HUBS / 'base_config.py')!r})"]
        lines += [f"c.{name} = {value!r}" for name, value in settings.items()]
        return "\n".join([*lines, self.extra_config, ""])

    # -- the API, as administrator

    def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        accept: str | None = None,
    ) -> requests.Response:
        """Send one request to the Hub's API; `path` begins with a slash and is quoted."""
        headers = {"Authorization": f"token {token or self.admin_token}"}
        if accept is not None:
            headers["Accept"] = accept
        return self._http.request(
            method, f"{self.api_url}{path}", json=body, headers=headers, timeout=60
        )

    def get(self, path: str, token: str | None = None) -> Any:
        """Return what the API answers, decoded; AssertionError when not 200."""
        response = self.api("GET", path, token=token)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        return response.json()

    def add_users(self, names: Iterable[str], group: str | None = None) -> None:
        """Register users, and put them into a group made when needed."""
        wanted = list(names)
        self._shortcut("users", wanted)
        if group is not None:
            self.api("POST", f"/groups/{quote(group, safe='')}")
            path = f"/groups/{quote(group, safe='')}/users"
            assert self.api("POST", path, {"users": wanted}).status_code == 200

    def ensure_user(self, name: str) -> None:
        """Register a user who may be there already."""
        if self.api("GET", f"/users/{quote(name, safe='')}").status_code == 404:
            self.add_users([name])

    def start_server(
        self,
        user: str,
        server: str = "",
        user_options: Mapping[str, Any] | None = None,
        wait: float | None = 60,
    ) -> None:
        """Start a server of a user, registered when new; `wait` None returns while it spawns."""
        self.ensure_user(user)
        self._ask_to_start((user, server), user_options)
        if wait is not None:
            self.wait(lambda: self.server(user, server).get("ready"), wait, f"{user}/{server} up")

    def start_servers(
        self,
        keys: Iterable[Key],
        user_options: Mapping[str, Any] | None = None,
        parallel: int = 8,
        wait: float | None = 120,
    ) -> None:
        """Start many servers of registered users at once; `wait` seconds until all are ready."""
        wanted = list(keys)
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda key: self._ask_to_start(key, user_options), wanted))
        if wait is None:
            return

        def ready() -> bool:
            servers = self.servers()
            return all(servers.get(key, {}).get("ready") for key in wanted)

        self.wait(ready, wait, f"{len(wanted)} servers up")

    def _ask_to_start(self, key: Key, user_options: Mapping[str, Any] | None) -> None:
        # Said even when empty: without any the Hub takes those of the last start.
        options = dict(user_options or {})
        # Hubs before 6 take the whole body for the options.
        body = options if self.version < (6, 0) else {"user_options": options}
        response = self.api("POST", server_path(*key), body)
        assert response.status_code in (201, 202), f"{key}: {response.status_code} {response.text}"

    def start_as_it_is(self, path: str) -> None:
        """Start a server by a path that is sent as it is: `requests` would resolve %2E%2E."""
        headers = {"Authorization": f"token {self.admin_token}"}
        request = requests.Request("POST", self.api_url, headers=headers, json={}).prepare()
        request.url = self.api_url + path
        assert self._http.send(request, timeout=60).status_code in (201, 202)

    def stop_server(self, user: str, server: str = "", *, remove: bool = False) -> int:
        """Stop a server, as the user would; return the status of the answer."""
        body = {"remove": True} if remove else None
        return self.api("DELETE", server_path(user, server), body).status_code

    def stop_servers(self, keys: Iterable[Key], parallel: int = 8) -> None:
        """Stop many."""
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda key: self.stop_server(*key), list(keys)))

    def stop_all(self, timeout: float = 60) -> None:
        """Stop whatever runs; a pending spawn that this Hub does not cancel is waited for."""

        def stopped() -> bool:
            running = self.servers()
            keys = [key for key, server in running.items() if server["pending"] != "stop"]
            self.stop_servers(keys)
            return not running

        self.wait(stopped, timeout, "all servers stopped")

    def revoke_leases(self) -> None:
        """Let the next exporter enforce at once: one that ends during a stop leaves a lease."""
        tokens = f"/users/{PROBER}/tokens"
        for token in self.get(tokens)["api_tokens"]:
            self.api("DELETE", f"{tokens}/{token['id']}")

    def servers(self, token: str | None = None) -> dict[Key, dict[str, Any]]:
        """Return all running or pending servers by (user, server), as the API shows them."""
        found: dict[Key, dict[str, Any]] = {}
        offset: int | None = 0
        while offset is not None:
            path = f"/users?state=active&limit=200&offset={offset}"
            page = self.api("GET", path, token=token, accept=PAGINATION).json()
            for user in page["items"]:
                for name, server in user["servers"].items():
                    found[user["name"], name] = server
            following = page["_pagination"]["next"]
            offset = following["offset"] if following else None
        return found

    def server(self, user: str, server: str = "") -> dict[str, Any]:
        """Return one server as the API shows it, stopped too; {} when there is none."""
        path = f"/users/{quote(user, safe='')}?include_stopped_servers=1"
        found: dict[str, Any] = self.get(path)["servers"].get(server, {})
        return found

    def post_activity(self, user: str, server: str = "", at: datetime | None = None) -> None:
        """Report activity (now), as the user's server does."""
        stamp = (at or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body = {"servers": {server: {"last_activity": stamp}}, "last_activity": stamp}
        response = self.api("POST", f"/users/{quote(user, safe='')}/activity", body)
        assert response.status_code == 200, response.text

    def backdate(
        self, user: str, server: str = "", *, idle: float | None = None, age: float | None = None
    ) -> None:
        """Let the Hub believe the last activity, or the start, so many seconds ago."""
        self.backdate_all([(user, server)], idle=idle, age=age)

    def backdate_all(
        self, keys: Iterable[Key], *, idle: float | None = None, age: float | None = None
    ) -> None:
        """Backdate many servers in one request."""
        wishes = [{"user": u, "server": s, "idle": idle, "age": age} for u, s in keys]
        self._shortcut("backdate", wishes)

    def age_users(self, names: Iterable[str], *, idle: float | None, age: float) -> None:
        """Let the Hub believe that users were last active (None: never) and created so long ago."""
        self._shortcut("age", [{"user": name, "idle": idle, "age": age} for name in names])

    def users(self) -> dict[str, dict[str, Any]]:
        """Return all users by name, as the API shows them."""
        return {user["name"]: user for user in self.get("/users?limit=200")}

    def _shortcut(self, name: str, body: object) -> None:
        """Ask for what `hubs/shortcuts.py` does."""
        url = f"{self.api_url.removesuffix('/api')}/test/{name}"
        response = self._http.post(url, json=body, timeout=60)
        assert response.status_code == 200, response.text

    def user_token(self, user: str) -> str:
        """Make a token with all that a user may do."""
        return self._mint(user, {})

    def add_token(self, scopes: Sequence[str], expires_in: int | None = None) -> str:
        """Make a token with exactly these scopes, filters included."""
        return self._mint(OWNER, {"scopes": list(scopes), "expires_in": expires_in})

    def _mint(self, user: str, body: dict[str, Any]) -> str:
        self.ensure_user(user)
        response = self.api("POST", f"/users/{quote(user, safe='')}/tokens", body)
        assert response.status_code in (200, 201), response.text
        return str(response.json()["token"])

    def wait(self, holds: Callable[[], object], timeout: float, what: str) -> None:
        """Poll until something holds; AssertionError with the Hub's log after `timeout` s."""
        asked = time.monotonic()
        deadline = asked + timeout
        while not holds():
            now = time.monotonic()
            assert now < deadline, f"not {what} in {timeout} s\n{self.notable_log()}"
            # What is dear to ask is asked seldom: the Hub has better things to do.
            time.sleep(min(0.5, max(0.05, 3 * (now - asked))))
            asked = time.monotonic()

    def wait_log(self, text: str, timeout: float = 20) -> str:
        """Wait for a line with a text in the log of the Hub and its services; return the first."""

        def lines() -> list[str]:
            log = self.log_path.read_text(errors="replace")
            return [line for line in log.splitlines() if text in line]

        self.wait(lines, timeout, f"{text!r} in the log")
        return lines()[0]

    def notable_log(self, lines: int = 40) -> str:
        """Return the end of the Hub's log without the answered GETs."""
        notable = [line for line in self.log_tail(2000).splitlines() if " 200 GET " not in line]
        return "\n".join(notable[-lines:])

    def _opens(self, base: str, token: str) -> bool:
        """Tell, as a true server would ask the Hub, whether a token opens what is at `base`."""
        if self._paper_started(base) is None:
            return True  # its process has ended: nobody is there to refuse, and it answers 404
        answer = self.api("GET", "/user", token=token or "none")
        if answer.status_code != 200:
            return False
        scopes = set(answer.json()["scopes"])
        row = next((r for r in self.rows().values() if (r.address or "").endswith(base)), None)
        allowed = {"access:servers"}
        if row is not None:
            allowed |= {f"access:servers!user={row.user}"}
            allowed |= {f"access:servers!server={row.user}/{row.server}"}
        return bool(scopes & allowed)

    def _paper_started(self, base: str) -> float | None:
        """Tell when the paper server at `base` was started; None if it is not alive."""
        paper = self.directory / "paper" / quote(base, safe="")
        return float(paper.read_text() or 0) if paper.is_file() else None

    # -- the database

    def rows(self) -> dict[Key, Row]:
        """Return every server the database knows, stopped ones too, by (user, server)."""
        query = (
            "SELECT users.name, spawners.name, spawners.state, spawners.started,"
            " spawners.last_activity, servers.proto, servers.ip, servers.port, servers.base_url"
            " FROM spawners JOIN users ON users.id = spawners.user_id"
            " LEFT JOIN servers ON servers.id = spawners.server_id"
        )
        connection = sqlite3.connect(f"file:{quote(str(self.database_path))}?mode=ro", uri=True)
        try:
            rows = connection.execute(query).fetchall()
        finally:
            connection.close()
        return {(row[0], row[1]): _row(row) for row in rows}

    # -- real servers

    def start_kernel(self, user: str, server: str = "", direct: bool = False) -> "Kernel":
        """Run a kernel on a user's running server; `direct`: not through the proxy.

        The Python proxy sends %40 for the @ of a user's name, which Jupyter answers with 404:
        such users' kernels can only be had directly.
        """
        return Kernel(self, user, server, direct)


@cache
def version_of(python: Path) -> tuple[int, ...]:
    """Return the version of the JupyterHub that an interpreter has."""
    code = "from importlib.metadata import version; print(version('jupyterhub'))"
    text = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return tuple(int(part) for part in text.strip().split(".")[:3] if part.isdigit())


def server_path(user: str, server: str = "") -> str:
    """Return the API's path of a server."""
    path = f"/users/{quote(user, safe='')}/server"
    return f"{path}s/{quote(server, safe='')}" if server else path


def _row(row: Sequence[Any]) -> Row:
    user, server, state, started, last_activity, proto, ip, port, base_url = row
    active = base_url is not None
    return Row(
        user=user,
        server=server,
        active=active,
        state=json.loads(state) if state else {},
        started=_utc(started),
        last_activity=_utc(last_activity),
        address=f"{proto}://{ip or '127.0.0.1'}:{port}{base_url}" if active else None,
    )


def _utc(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored).replace(tzinfo=timezone.utc)


class Kernel:
    """A kernel on a user's real server; code is sent as a browser does, through the proxy."""

    def __init__(self, hub: RealHub, user: str, server: str = "", direct: bool = False) -> None:
        self.hub = hub
        self.user, self.server, self.direct = user, server, direct
        self.token = hub.user_token(user)
        self._headers = {"Authorization": f"token {self.token}"}
        response = self._request("POST", "")
        assert response.status_code == 201, f"{response.status_code} {response.text}"
        self.id: str = response.json()["id"]

    @property
    def internal_url(self) -> str:
        """The kernels' address at the server itself."""
        return f"{self.hub.rows()[self.user, self.server].address}api/kernels"

    @property
    def url(self) -> str:
        """The kernels' address as this one's user sees it."""
        if self.direct:
            return self.internal_url
        names = [quote(name, safe="@~") for name in (self.user, self.server) if name]
        return f"{self.hub.public_url}user/{'/'.join(names)}/api/kernels"

    def _request(self, method: str, path: str) -> requests.Response:
        url = f"{self.url}{path}"
        return requests.request(method, url, headers=self._headers, json={}, timeout=60)

    def state(self) -> str:
        """Return its execution state, asked at the server itself and without a trace."""
        url = f"{self.internal_url}/{self.id}?no_track_activity=1"
        return str(requests.get(url, headers=self._headers, timeout=60).json()["execution_state"])

    def listed(self) -> list[dict[str, Any]]:
        """Return all kernels of the server, asked as its user's browser asks."""
        kernels: list[dict[str, Any]] = self._request("GET", "").json()
        return kernels

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Keep a connection to it open, as a notebook in a browser does."""
        with closing(self._connection(30)):
            yield

    def run(self, code: str, timeout: float = 30) -> None:
        """Start code and return once the kernel is busy with it; the connection is closed.

        Silently busy: `import time; time.sleep(1e6)`; printing: the server sees what it prints.
        """
        with closing(self._connection(timeout)) as connection:
            sent = self._execute(connection, code)
            self._await_state(connection, sent, "busy")

    def run_to_end(self, code: str, timeout: float = 60) -> None:
        """Run code and return when it has ended."""
        with closing(self._connection(timeout)) as connection:
            sent = self._execute(connection, code)
            self._await_state(connection, sent, "idle")

    def interrupt(self) -> None:
        """Interrupt what runs, and wait until the kernel is idle."""
        assert self._request("POST", f"/{self.id}/interrupt").status_code == 204
        self.hub.wait(lambda: self.state() == "idle", 30, "kernel idle after an interrupt")

    def shutdown(self) -> None:
        """End the kernel; its server runs on."""
        self._request("DELETE", f"/{self.id}")

    def _connection(self, timeout: float) -> websocket.WebSocket:
        url = f"{self.url.replace('http', 'ws', 1)}/{self.id}/channels"
        header = [f"Authorization: token {self.token}"]
        return websocket.create_connection(url, timeout, header=header, suppress_origin=True)

    def _execute(self, connection: websocket.WebSocket, code: str) -> str:
        identity = secrets.token_hex(16)
        header = {"msg_id": identity, "msg_type": "execute_request", "username": self.user}
        header |= {
            "session": identity,
            "version": "5.3",
            "date": datetime.now(timezone.utc).isoformat(),
        }
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        connection.send(json.dumps(message | {"channel": "shell", "buffers": []}))
        return identity

    def _await_state(self, connection: websocket.WebSocket, sent: str, state: str) -> None:
        while True:
            message = json.loads(connection.recv())
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == state:
                return
