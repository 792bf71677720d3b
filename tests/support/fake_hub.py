"""A fake JupyterHub over real HTTP, for faults and for scale.

    with FakeHub() as hub:
        target = FakeServer()                     # what stands at the end of the proxy's route
        hub.add_user("ana", groups=["staff"])
        hub.add_server("ana", idle=3600, age=7200, target=target)
        token = hub.add_token(["list:users", "read:servers!group=staff"])  # owner: a service
        hub.plan("GET", "/users", html(), after=1, times=2)   # the 2nd and 3rd answer are faults
        requests.get(f"{hub.url}/users", headers={"Authorization": f"token {token}"})
        assert hub.log("DELETE") == []

State (`hub.users`, their `servers`, `hub.tokens`, `hub.version`, `hub.clock_offset`, ...) may be
changed at any time by assigning; change `user_options` by assigning a new one, not in place. Times
are seconds since the epoch, idle and age are seconds before the Hub's now. A fault is a callable
(request, answer) -> Reply, where `answer()` is what the Hub would have said. How a true Hub
answers is taken from JupyterHub's source; test_harness.py compares the two.
"""

import gzip
import itertools
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import formatdate
from fnmatch import fnmatchcase
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

PAGINATION = "application/jupyterhub-pagination+json"
SUBSCOPES = {
    "admin:users": ["users", "admin:auth_state", "delete:users", "read:roles:users"],
    "users": ["read:users", "list:users", "users:activity"],
    "read:users": ["read:users:name", "read:users:groups", "read:users:activity"],
    "users:activity": ["read:users:activity"],
    "list:users": ["read:users:name"],
    "read:users:groups": ["read:users:name"],
    "read:users:activity": ["read:users:name"],
    "admin:servers": ["admin:server_state", "servers"],
    "servers": ["read:servers", "start:servers", "delete:servers"],
    "read:servers": ["read:users:name"],
    "tokens": ["read:tokens"],
}
_SERVER_ERROR = "Internal Server Error"
ADMIN = ["admin:users", "admin:servers", "tokens", "proxy", "access:servers", "read:metrics"]
MONITOR = ["list:users", "read:servers"]
PROBER = "idle-prober"
ENFORCE = [*MONITOR, "read:users:groups", "delete:servers", "proxy", f"tokens!user={PROBER}"]


# ---- requests, replies, faults ------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `path` is still quoted and, on the Hub, below `/hub/api`."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float  # time.monotonic()
    closing: threading.Event = field(repr=False, compare=False, default_factory=threading.Event)

    @property
    def token(self) -> str:
        """The token of the Authorization header, or ""."""
        return re.sub(r"^(token|bearer)\s+", "", self.headers.get("authorization", ""), flags=re.I)

    def json(self) -> Any:
        return json.loads(self.body) if self.body.strip() else None


@dataclass(frozen=True)
class Reply:
    """One answer. `date` None sends no Date header; `cut` sends so many bytes, then closes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    date: str | None = "now"
    cut: int | None = None
    drip: float = 0.0  # seconds between single bytes of the body


Fault = Callable[[Request, Callable[[], Reply]], Reply]


def reply(status: int = 200, body: object = b"", **headers: str) -> Reply:
    """Build a reply; a body that is neither bytes nor str is sent as JSON."""
    if isinstance(body, str):
        body = body.encode()
    if not isinstance(body, bytes):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json"} | headers
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def always(answered: Reply) -> Fault:
    """Answer this, whatever was asked."""
    return lambda request, answer: answered


def html(status: int = 200) -> Fault:
    """Answer as a login page in front of the Hub does."""
    page = "<!doctype html><html><title>Sign in</title></html>"
    return always(reply(status, page, Content_Type="text/html"))


def retry_after(status: int, seconds: object) -> Fault:
    """Answer 429 or 503 with Retry-After."""
    return always(reply(status, "come back later", Retry_After=str(seconds)))


def redirect(url: str, status: int = 302) -> Fault:
    """Send the client elsewhere."""
    return always(reply(status, "", Location=url))


def half_body(share: float = 0.5) -> Fault:
    """Give the true answer, but lose the connection within the body."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        whole = answer()
        return replace(whole, cut=int(len(whole.body) * share))

    return fault


def close() -> Fault:
    """Close the connection without a word."""
    return always(Reply(cut=-1))


def hang(released: threading.Event) -> Fault:
    """Answer truly, but only once `released` is set (or the fake is closed)."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        while not released.wait(0.02) and not request.closing.is_set():
            pass
        return answer()

    return fault


def dated(date: str | None) -> Fault:
    """Give the true answer with another Date header; None: without one."""
    return lambda request, answer: replace(answer(), date=date)


def rewritten(change: Callable[[Any], Any]) -> Fault:
    """Change the JSON of the true answer: what `change` returns is sent."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        return replace(true, body=json.dumps(change(json.loads(true.body))).encode())

    return fault


def before(action: Callable[[], object]) -> Fault:
    """Do something (add a user, stop a server), then answer truly."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        action()
        return answer()

    return fault


def after(action: Callable[[], object]) -> Fault:
    """Work out the true answer, then do something, then send the answer."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        action()
        return true

    return fault


@dataclass
class _Plan:
    method: str
    path: str
    fault: Fault
    after: int
    times: int | None

    def takes(self, request: Request) -> bool:
        if self.method not in ("*", request.method) or not fnmatchcase(request.path, self.path):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
            return self.times >= 0
        return True


class HttpFake:
    """A threaded HTTP/1.1 server with a request log and planned faults; a context manager."""

    def __init__(self, port: int = 0, start: bool = True) -> None:
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # of this fake or of a test's fault
        self._arrived = threading.Condition()
        self._plans: list[_Plan] = []
        self.closing = threading.Event()
        self._http: _HttpServer | None = None
        self.port = port
        if start:
            self.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
        assert error is not None or not self.errors, f"while answering: {self.errors}"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Open the port (the same one again after `hang_up`)."""
        self._http = _HttpServer(("127.0.0.1", self.port), self)
        self.port = self._http.server_address[1]
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def hang_up(self) -> None:
        """Be down: refuse connections and cut the open ones, until `listen`."""
        if self._http is not None:
            self._http.stop()
            self._http = None

    def close(self) -> None:
        self.closing.set()
        self.hang_up()

    def plan(
        self, method: str, path: str, fault: Fault, *, after: int = 0, times: int | None = None
    ) -> None:
        """Let `fault` answer requests whose method ("*": any) and quoted path (glob) match.

        The first `after` matches are answered truly, the next `times` (None: all) by the fault;
        of several plans for one request the latest wins.
        """
        self._plans.append(_Plan(method, path, fault, after, times))

    def heal(self) -> None:
        """Forget all plans."""
        self._plans.clear()

    def log(self, method: str = "*", path: str = "*") -> list[Request]:
        """Return the requests so far that match, in order of arrival."""
        return [r for r in list(self.requests) if _matches(r, method, path)]

    def wait_for(
        self, method: str = "*", path: str = "*", count: int = 1, timeout: float = 10
    ) -> list[Request]:
        """Wait until `count` such requests have arrived; AssertionError after `timeout` s."""
        with self._arrived:
            seen = self._arrived.wait_for(lambda: len(self.log(method, path)) >= count, timeout)
        assert seen, f"no {count} requests {method} {path} in {timeout} s: {self.log()[-20:]}"
        return self.log(method, path)

    def relative(self, path: str) -> str | None:
        """Return the path as logged and planned, None when nothing is there."""
        return path

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def headers(self) -> dict[str, str]:
        return {}

    def now(self) -> float:
        return time.time()

    def take(self, request: Request) -> Reply:
        """Log a request and answer it, by a fault where one is planned."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
            plan = next((p for p in reversed(self._plans) if p.takes(request)), None)
        if plan is None:
            return self.answer(request)
        return plan.fault(request, lambda: self.answer(request))


def _matches(request: Request, method: str, path: str) -> bool:
    return method in ("*", request.method) and fnmatchcase(request.path, path)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], fake: HttpFake) -> None:
        self.fake = fake
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self.connections.discard(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep what is wrong; clients that go away are not."""
        error = sys.exception()
        if error is not None and not (isinstance(error, OSError) or self.fake.closing.is_set()):
            self.fake.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def _handle(self) -> None:
        fake, url = self.server.fake, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = fake.relative(url.path)
        request = Request(
            self.command,
            url.path if path is None else path,
            {name: values[-1] for name, values in parse_qs(url.query, True).items()},
            {name.lower(): value for name, value in self.headers.items()},
            body,
            time.monotonic(),
            fake.closing,
        )
        missing = reply(404, {"status": 404, "message": "Not Found"})
        self._send(missing if path is None else fake.take(request))

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _handle  # noqa: N815

    def _send(self, answer: Reply) -> None:
        headers = {"Content-Length": str(len(answer.body))} | self.server.fake.headers()
        if answer.date is not None:
            now = formatdate(self.server.fake.now(), usegmt=True)
            headers["Date"] = now if answer.date == "now" else answer.date
        lines = [f"HTTP/1.1 {answer.status} {responses.get(answer.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in (headers | answer.headers).items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if answer.cut is not None:
            self.close_connection = True
            self.connection.sendall((head + answer.body[: answer.cut]) if answer.cut >= 0 else b"")
            self.connection.shutdown(socket.SHUT_RDWR)
        elif answer.drip:
            self._drip(head, answer)
        else:
            self.connection.sendall(head + answer.body)

    def _drip(self, head: bytes, answer: Reply) -> None:
        self.connection.sendall(head)
        for byte in answer.body:
            if self.server.fake.closing.wait(answer.drip):
                return
            self.connection.sendall(bytes([byte]))

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Keep quiet: the fake has its own log."""


# ---- the Hub's state ----------------------------------------------------------------------------


class _Watched:
    """Tell the owner that something was assigned, so that what it rendered is made anew."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.changed()

    def changed(self) -> None:
        raise NotImplementedError


@dataclass(eq=False)
class Server(_Watched):
    """A server as the Hub knows it; its user's name and its own (`""`: the default server)."""

    user: "User" = field(repr=False)
    name: str = ""
    ready: bool = True
    pending: str | None = None  # spawn, stop, check, rename
    stopped: bool = False
    started: float | str | None = None  # epoch seconds; a str is sent as it stands
    last_activity: float | str | None = None
    user_options: dict[str, Any] | None = None  # None: none given; {} while it is not stopped
    target: "FakeServer | None" = None
    route_activity: float | str | None = None  # in the proxy's data; None: as last_activity
    stop_fails: bool = False  # the spawner's stop() raises; the process lives on
    stop_takes: "float | threading.Event" = 0.0  # seconds, or until the event is set
    process_alive: bool = True  # what the Hub cannot see
    extra: dict[str, Any] = field(default_factory=dict)  # merged into what is sent

    def changed(self) -> None:
        self.__dict__["user"].changed()

    @property
    def routespec(self) -> str:
        spec = f"/user/{quote(self.user.name, safe='@~')}/"
        return f"{spec}{quote(self.name, safe='@~')}/" if self.name else spec


@dataclass(eq=False)
class User(_Watched):
    """A registered user; `scopes` are what the user's own roles hold (for tokens minted)."""

    name: str
    admin: bool = False
    groups: Sequence[str] = ()
    scopes: Sequence[str] = ()
    last_activity: float | str | None = None
    created: float | str | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    hub: "FakeHub | None" = field(default=None, repr=False)

    def changed(self) -> None:
        own = self.__dict__
        own["version"] = own.get("version", 0) + 1
        hub = own.get("hub")
        if hub is not None:
            hub.changes += 1


@dataclass
class Token:
    """An API token: of a service (`user` None) or of a user; `expires` is the Hub's time."""

    value: str
    id: str
    scopes: list[str]
    user: str | None = None
    service: str | None = None
    expires: float | None = None
    note: str = ""


class Refused(Exception):  # noqa: N818
    """An error answer of the Hub."""

    def __init__(self, status: int, message: str | None = None) -> None:
        self.reply = reply(status, {"status": status, "message": message})


def _expand(scopes: Iterable[str]) -> set[str]:
    """Return the scopes with all they imply, filters carried along."""
    expanded: set[str] = set()
    todo = list(scopes)
    while todo:
        scope = todo.pop()
        if scope not in expanded:
            expanded.add(scope)
            name, mark, limit = scope.partition("!")
            todo += [sub + mark + limit for sub in SUBSCOPES.get(name, [])]
    return expanded


def _time(value: float | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _View:
    """What one token may do to whom."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.expanded = _expand(token.scopes)
        self.filters: dict[str, list[str]] = {}
        for scope in self.expanded:
            name, _, limit = scope.partition("!")
            self.filters.setdefault(name, []).append(limit)

    def may(self, scope: str, user: User | None, server: str | None = None) -> bool:
        """Tell whether the scope is held and its filters let this user (and server) pass."""
        return any(self._passes(limit, user, server) for limit in self.filters.get(scope, []))

    def _passes(self, limit: str, user: User | None, server: str | None) -> bool:
        kind, _, value = limit.partition("=")
        if not limit or user is None:
            return not limit
        if kind == "group":
            return value in user.groups
        if kind == "server":
            return server is not None and value == f"{user.name}/{server}"
        return kind == "user" and user.name == (value or self.token.user)

    def key(self, user: User) -> tuple[bool, ...]:
        """Return what decides how a user is rendered, or () where that is not simple."""
        scopes = ("read:users:name", "read:servers", "read:users:groups", "read:users:activity")
        if any("server=" in limit for scope in scopes for limit in self.filters.get(scope, [])):
            return ()
        return tuple(self.may(scope, user) for scope in scopes)


# ---- the Hub ------------------------------------------------------------------------------------


class FakeHub(HttpFake):
    """The Hub; see the module's first lines. `url` is the API's base."""

    def __init__(self, version: str = "6.1.1", port: int = 0) -> None:
        self.version = version
        self.users: dict[str, User] = {}
        self.tokens: dict[str, Token] = {}
        self.revoked: list[Token] = []
        self.clock: Callable[[], float] = time.time
        self.clock_offset = 0.0  # seconds the Hub's clock is ahead
        self.page_limit = 50
        self.page_limit_max = 200
        self.slow_stop_timeout = 10.0
        self.next_origin = "http://hub.invalid:1"  # where `next.url` wrongly points
        self.routes: dict[str, dict[str, Any]] = {}  # more of the proxy's, by routespec
        self.changes = 0
        self._rendered: dict[tuple[str, tuple[bool, ...]], tuple[int, bytes]] = {}
        self._active: tuple[int, list[User]] = (-1, [])
        self._ids = itertools.count(1)
        self._state = threading.RLock()
        super().__init__(port)
        self.admin_token = self.add_token(ADMIN)
        self.add_user(PROBER, scopes=["access:servers"])
        # As on a real Hub: before 6.1 a service needs one scope more to mint, see `_may_mint`.
        before_6_1 = [f"tokens!service={PROBER}"] if self.release < (6, 1) else []
        self.token = self.add_token([*ENFORCE, *before_6_1])

    @property
    def url(self) -> str:
        return f"{self.origin}/hub/api"

    def now(self) -> float:
        """Return the Hub's time, epoch seconds."""
        return self.clock() + self.clock_offset

    def headers(self) -> dict[str, str]:
        return {"X-JupyterHub-Version": self.version}

    # -- building

    def add_user(
        self,
        name: str,
        admin: bool = False,
        groups: Sequence[str] = (),
        scopes: Sequence[str] = (),
    ) -> User:
        """Register a user."""
        user = User(name, admin, tuple(groups), tuple(scopes), hub=self)
        user.created = self.now()
        self.users[name] = user
        return user

    def add_server(
        self,
        user: str,
        name: str = "",
        idle: float | None = 3600,
        age: float | None = 7200,
        ready: bool = True,
        pending: str | None = None,
        user_options: dict[str, Any] | None = None,
        target: "FakeServer | None" = None,
        **more: Any,
    ) -> Server:
        """Run a server (of a user who is registered when new); None for an unknown time."""
        owner = self.users.get(user) or self.add_user(user)
        now = self.now()
        server = Server(
            owner,
            name,
            ready=ready and pending is None,
            pending=pending,
            started=None if age is None else now - age,
            last_activity=None if idle is None else now - idle,
            user_options=user_options,
            target=target,
            **more,
        )
        with self._state:
            owner.servers[name] = server
            owner.changed()
        if target is not None:
            target.serve(server.routespec, lambda token: self.may_access(token, user, name))
        return server

    def add_servers(self, count: int, idle: float = 3600, **more: Any) -> None:
        """Run `count` default servers of users named u000000, u000001, ..."""
        for number in range(count):
            self.add_server(f"u{number:06d}", idle=idle, **more)

    def remove_user(self, name: str) -> None:
        """Delete a user with all servers."""
        with self._state:
            self.users.pop(name).changed()

    def add_token(
        self,
        scopes: Sequence[str],
        user: str | None = None,
        service: str = "hub-idle-exporter",
        expires: float | None = None,
    ) -> str:
        """Make a token; without `user` it is the service's."""
        number = next(self._ids)
        value = f"{number:04d}" + "f4ke" * 7
        owner = None if user is not None else service
        self.tokens[value] = Token(value, f"a{number}", list(scopes), user, owner, expires)
        return value

    def server(self, user: str, name: str = "") -> Server:
        return self.users[user].servers[name]

    def may_access(self, token: str, user: str, server: str) -> bool:
        """Tell whether this token opens this user's server now."""
        known = self._token(token)
        owner = self.users.get(user)
        return known is not None and _View(known).may("access:servers", owner, server)

    # -- answering

    def relative(self, path: str) -> str | None:
        base, _, rest = path.partition("/hub/api")
        return None if base or not path.startswith("/hub/api") else rest or "/"

    def answer(self, request: Request) -> Reply:
        try:
            return self._dispatch(request)
        except Refused as refused:
            return refused.reply

    def _dispatch(self, request: Request) -> Reply:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match request.method, parts:
            case "GET", [""]:
                return reply(200, {"version": self.version})
            case "GET", ["user"]:
                return self._self(self._view(request))
            case "GET", ["users"]:
                return self._list(request, self._view(request))
            case "GET", ["users", name]:
                return self._user(request, self._view(request), name)
            case "DELETE", ["users", name, "server"]:
                return self._delete(request, self._view(request), name, "")
            case "DELETE", ["users", name, "servers", server]:
                return self._delete(request, self._view(request), name, server)
            case "POST", ["users", name, "tokens"]:
                return self._mint(request, self._view(request), name)
            case "DELETE", ["users", name, "tokens", token]:
                return self._revoke(self._view(request), name, token)
            case "GET", ["proxy"]:
                return self._proxy(request, self._view(request))
        raise self._not_found()

    def _token(self, value: str) -> Token | None:
        token = self.tokens.get(value)
        expired = token is not None and token.expires is not None and token.expires <= self.now()
        return None if expired else token

    def _view(self, request: Request) -> _View:
        token = self._token(request.token)
        if token is not None:
            return _View(token)
        if self.release < (4, 0) and request.path != "/user":
            return _View(Token("", "", []))  # nobody, who lacks every scope
        if self.release < (4, 1):
            raise Refused(403, "'_xsrf' argument missing from POST")
        raise Refused(403, "Missing or invalid credentials.")

    def _not_found(self) -> Refused:
        return Refused(404, None if self.release >= (6, 0) else "Not Found")

    def _need(self, view: _View, scope: str, user: User | None, server: str | None = None) -> None:
        """Refuse as the Hub does: 403 without the scope, 404 outside its filter."""
        if view.may(scope, user, server):
            return
        if scope in view.filters:
            raise Refused(404, "No access to resources or resources not found")
        raise Refused(
            403, f"Action is not authorized with current scopes; requires any of [{scope}]"
        )

    def _self(self, view: _View) -> Reply:
        token = view.token
        kind = "user" if token.user is not None else "service"
        model: dict[str, Any] = {"kind": kind, "name": token.user or token.service}
        model |= {"admin": False, "token_id": token.id, "session_id": None}
        if self.release >= (2, 0):
            model["scopes"] = sorted(view.expanded)
        return reply(200, model)

    @property
    def release(self) -> tuple[int, int]:
        """The version's first two numbers."""
        numbers = [int(part) for part in re.findall(r"\d+", self.version)[:2]]
        return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)

    # -- listing

    def _page(self, request: Request) -> tuple[bool, int, int]:
        """Return whether pages are understood, offset and limit."""
        paged = PAGINATION in request.headers.get("accept", "")
        try:
            offset = abs(int(request.query.get("offset", 0)))
            limit = abs(
                int(request.query.get("limit", self.page_limit if paged else self.page_limit_max))
            )
        except ValueError:
            message = "Invalid argument type, offset and limit must be integers"
            raise Refused(400, message) from None
        return paged, offset, max(1, min(limit, self.page_limit_max))

    def _pagination(self, request: Request, offset: int, limit: int, total: int) -> bytes:
        following = None
        if offset + limit < total:
            query = urlencode(request.query | {"offset": offset + limit, "limit": limit})
            url = f"{self.next_origin}/hub/api{request.path}?{query}"
            following = {"offset": offset + limit, "limit": limit, "url": url}
        page = {"offset": offset, "limit": limit, "total": total, "next": following}
        return json.dumps(page).encode()

    def _list(self, request: Request, view: _View) -> Reply:
        if "list:users" not in view.filters:
            self._need(view, "list:users", None)
        state = request.query.get("state")
        with self._state:
            users = self._candidates(state)
            if "" not in view.filters["list:users"]:
                users = [user for user in users if view.may("list:users", user)]
        if self.release < (2, 0):
            return self._json(b"[" + b",".join(self._render(u, view) for u in users) + b"]")
        paged, offset, limit = self._page(request)
        if state in ("active", "ready") and self.release < (5, 0):
            # These count and cut rows, one a server; a page names a user once, two pages twice.
            users = [user for user in users for s in user.servers.values() if not s.stopped]
        page = list(dict.fromkeys(users[offset : offset + limit]))
        if state == "ready":
            page = [user for user in page if any(s.ready for s in user.servers.values())]
        items = b"[" + b",".join(self._render(user, view) for user in page) + b"]"
        if not paged:
            return self._json(items)
        pagination = self._pagination(request, offset, limit, len(users))
        return self._json(b'{"items": ' + items + b', "_pagination": ' + pagination + b"}")

    def _json(self, body: bytes) -> Reply:
        return Reply(200, body, {"Content-Type": "application/json"})

    def _candidates(self, state: str | None) -> list[User]:
        if state is None:
            return list(self.users.values())
        if state == "inactive":
            return [user for user in self.users.values() if not _is_active(user)]
        if state not in ("active", "ready"):
            raise Refused(400, f"Unrecognized state filter: {state!r}")
        changes, users = self._active
        if changes != self.changes:
            changes = self.changes
            users = [user for user in self.users.values() if _is_active(user)]
            self._active = (changes, users)
        return users

    def _render(self, user: User, view: _View, stopped_too: bool = False) -> bytes:
        """Return the user's JSON, made once for each change and each kind of view."""
        key = view.key(user)
        version = user.__dict__["version"]
        if key and not stopped_too:
            known = self._rendered.get((user.name, key))
            if known is not None and known[0] == version:
                return known[1]
        body = json.dumps(self._user_model(user, view, stopped_too)).encode()
        if key and not stopped_too:
            self._rendered[user.name, key] = (version, body)
        return body

    def _user_model(self, user: User, view: _View, stopped_too: bool) -> dict[str, Any]:
        model: dict[str, Any] = {"kind": "user", "name": user.name}
        if view.may("read:users:name", user):
            model["admin"] = user.admin
            if self.release >= (6, 0):
                model["user_info"] = None
        if view.may("read:users:groups", user):
            model["groups"] = list(user.groups)
        if view.may("read:users:activity", user):
            model["last_activity"] = _time(user.last_activity)
        servers = {
            name: self._server_model(server)
            for name, server in list(user.servers.items())
            if (stopped_too or not server.stopped) and view.may("read:servers", user, name)
        }
        if servers or view.may("read:servers", user):
            model["servers"] = servers
        return model | user.extra

    def _server_model(self, server: Server) -> dict[str, Any]:
        owner, name = server.user.name, server.name
        user, own = quote(owner, safe="@~"), quote(name, safe="@~")
        at = f"{user}/servers/{own}" if name else f"{user}/server"
        model: dict[str, Any] = {
            "name": name,
            "last_activity": _time(server.last_activity),
            "started": _time(server.started),
            "pending": server.pending,
            "ready": server.ready,
            "stopped": server.stopped,
            "url": f"/user/{user}/{own + '/' if name else ''}",
            "user_options": server.user_options if server.stopped else server.user_options or {},
            "progress_url": f"/hub/api/users/{at}/progress",
        }
        if self.release >= (5, 0):
            model |= {"full_name": f"{owner}/{name}", "full_url": None, "full_progress_url": None}
        if self.release >= (6, 0):
            model["display_name"] = name
        return model | server.extra

    def _user(self, request: Request, view: _View, name: str) -> Reply:
        user = self.users.get(name)
        readable = [
            scope for scope in view.filters if scope.startswith(("read:users", "read:serv"))
        ]
        if not readable:
            scopes = "read:users, read:users:name, read:servers, read:users:groups"
            raise Refused(
                403, f"Action is not authorized with current scopes; requires any of [{scopes}]"
            )
        if user is None and not {"", *(f"user={name}",)}.isdisjoint(
            limit for scope in readable for limit in view.filters[scope]
        ):
            raise self._not_found()
        if user is None or not any(view.may(scope, user) for scope in readable):
            raise Refused(404, "No access to resources or resources not found")
        wanted = "include_stopped_servers" in request.query and self.release >= (3, 0)
        return self._json(self._render(user, view, stopped_too=wanted))

    # -- stopping

    def _delete(self, request: Request, view: _View, name: str, server_name: str) -> Reply:
        user = self.users.get(name)
        self._need(view, "delete:servers", user, server_name)
        if user is None:
            raise self._not_found() if self.release >= (5, 0) else Refused(500, _SERVER_ERROR)
        remove = bool((request.json() or {}).get("remove", False))
        server = user.servers.get(server_name)
        if server_name and server is None:
            raise Refused(404, f"{name} has no server named '{server_name}'")
        if remove and not server_name:
            raise Refused(400, "Cannot delete the default server")
        if server is None:
            return reply(204, "")
        if server.pending == "rename":
            raise Refused(400, "Cannot stop a server while it is being renamed")
        if server.pending == "spawn" and self.release < (5, 0):
            raise Refused(400, f"{name}:{server_name} is pending spawn, please wait")
        if server.pending != "stop" and not server.stopped:
            self._stop(server, request.closing, remove)
        elif remove and server.stopped:
            user.servers.pop(server_name)
            user.changed()
        return reply(202 if server.pending == "stop" else 204, "")

    def _stop(self, server: Server, closing: threading.Event, remove: bool) -> None:
        """Stop a server (cancelling its spawn), waiting at most `slow_stop_timeout` seconds."""
        with self._state:
            server.ready, server.pending = False, "stop"
        takes = server.stop_takes
        if takes == 0:
            self._stopped(server, remove)
            return
        worker = threading.Thread(
            target=self._stop_slowly, args=(server, takes, closing, remove), daemon=True
        )
        worker.start()
        worker.join(self.slow_stop_timeout)

    def _stop_slowly(
        self,
        server: Server,
        takes: float | threading.Event,
        closing: threading.Event,
        remove: bool,
    ) -> None:
        if isinstance(takes, threading.Event):
            while not takes.wait(0.01) and not closing.is_set():
                pass
        else:
            closing.wait(takes)
        self._stopped(server, remove)

    def _stopped(self, server: Server, remove: bool) -> None:
        """Write down a stop, or that it failed: then the Hub forgets, and activity stays."""
        with self._state:
            if not server.stop_fails:
                server.last_activity = server.user.last_activity = self.now()
                server.process_alive = False
            server.stopped, server.started = True, None
            server.pending = None
            if remove:
                server.user.servers.pop(server.name, None)
                server.user.changed()

    # -- tokens

    def _mint(self, request: Request, view: _View, name: str) -> Reply:
        user = self.users.get(name)
        if user is None or not self._may_mint(view, user):
            kind = "User" if view.token.user is not None else "Service"
            raise Refused(403, f"{kind} {name} not found or no permissions to generate tokens")
        body = request.json() or {}
        scopes = body.get("scopes") or list(user.scopes)
        held = _View(Token("", "", list(user.scopes), user=name))
        beyond = [scope for scope in scopes if not self._covered(scope, held)]
        if beyond:
            names = ",".join(beyond)
            message = f"Not assigning requested scopes {names} not held by User {name}"
            raise Refused(400, message)
        lifetime = body.get("expires_in")
        expires = None if lifetime is None else self.now() + lifetime
        value = self.add_token(scopes, user=name, expires=expires)
        token = self.tokens[value]
        token.note = body.get("note") or "Requested via api"
        model = {"user": name, "id": token.id, "kind": "api_token", "scopes": scopes, "roles": []}
        model |= {"created": _time(self.now()), "expires_at": _time(expires), "note": token.note}
        return reply(201, model | {"token": value})

    def _may_mint(self, view: _View, user: User) -> bool:
        """Before 6.1 a service's filters are taken for services' names, those of users fail."""
        if self.release >= (6, 1) or view.token.service is None:
            return view.may("tokens", user)
        return bool({"", f"service={user.name}"} & set(view.filters.get("tokens", [])))

    def _covered(self, scope: str, held: _View) -> bool:
        name, _, limit = scope.partition("!")
        if scope in held.expanded or name in held.expanded:
            return True
        kind, _, value = limit.partition("=")
        owner, _, server = value.partition("/") if kind == "server" else (value, "", None)
        return bool(limit) and held.may(name, self.users.get(owner), server)

    def _revoke(self, view: _View, name: str, token_id: str) -> Reply:
        user = self.users.get(name)
        self._need(view, "tokens", user)
        token = next((t for t in self.tokens.values() if t.id == token_id), None)
        if user is None or token is None or token.user != name:
            missing = f"No such token {token_id} for user {name}"
            raise Refused(404, missing if self.release >= (5, 0) else "Token not found None")
        self.revoked.append(self.tokens.pop(token.value))
        return reply(204, "")

    # -- the proxy

    def _proxy(self, request: Request, view: _View) -> Reply:
        self._need(view, "proxy", None)
        paged, offset, limit = self._page(request)
        routes = self._all_routes()
        names = sorted(routes)
        page = {name: routes[name] for name in names[offset : offset + limit]}
        if not paged:
            return reply(200, page)
        pagination = json.loads(self._pagination(request, offset, limit, len(routes)))
        return reply(200, {"items": page, "_pagination": pagination})

    def _all_routes(self) -> dict[str, dict[str, Any]]:
        hub = {"routespec": "/", "target": self.origin, "data": {"hub": True}}
        routes: dict[str, dict[str, Any]] = {"/": hub}
        with self._state:
            servers = [s for user in self.users.values() for s in user.servers.values()]
        for server in servers:
            if server.target is not None and server.ready:
                routes[server.routespec] = _route(server)
        return routes | self.routes


def _is_active(user: User) -> bool:
    return any(not server.stopped for server in user.servers.values())


def _route(server: Server) -> dict[str, Any]:
    """Return the route as the Hub shows it; the proxy's times have no zone."""
    assert server.target is not None
    seen = server.route_activity if server.route_activity is not None else server.last_activity
    stamp = seen if seen is None or isinstance(seen, str) else (_time(seen) or "").rstrip("Z")
    data = {"user": server.user.name, "server_name": server.name, "last_activity": stamp}
    return {"routespec": server.routespec, "target": server.target.origin, "data": data}


# ---- a user's own server ------------------------------------------------------------------------


@dataclass
class Jupyter:
    """What a Jupyter server says of itself; times are epoch seconds or a str sent as it stands."""

    last_activity: float | str = 0.0
    kernels: list[dict[str, Any]] = field(default_factory=list)
    terminals: list[dict[str, Any]] | None = field(default_factory=list)  # None: disabled, 404

    def add_kernel(
        self, state: str = "idle", last_activity: float | str = 0.0, connections: int = 0
    ) -> dict[str, Any]:
        """Run a kernel; the dict returned may be changed."""
        kernel: dict[str, Any] = {"id": f"kernel-{len(self.kernels)}", "name": "python3"}
        kernel |= {"execution_state": state, "last_activity": _time(last_activity)}
        kernel["connections"] = connections
        self.kernels.append(kernel)
        return kernel

    def add_terminal(self, last_activity: float | str = 0.0) -> dict[str, Any]:
        """Open a terminal."""
        if self.terminals is None:
            self.terminals = []
        terminal = {"name": str(len(self.terminals) + 1), "last_activity": _time(last_activity)}
        self.terminals.append(terminal)
        return terminal

    def says(self, path: str) -> object:
        """Return what one of the three addresses answers, None for 404."""
        states = [kernel.get("execution_state") for kernel in self.kernels]
        status: dict[str, Any] = {"started": _time(0), "last_activity": _time(self.last_activity)}
        status |= {"connections": len(states), "kernels": len(states)}
        answers = {"status": status, "kernels": self.kernels, "terminals": self.terminals}
        return answers.get(path)


class FakeServer(HttpFake):
    """What stands behind a route of the proxy; one may stand behind many routes.

    `jupyter` is what it says at every base, `at[routespec]` what it says at one; None there:
    no Jupyter, 404. Given to `add_server` it wants a token that opens that server (403 without),
    and knows no other bases (404: as Jupyter, for which `%40` is another base than `@`).
    Every request, header and fault (`plan`, paths whole: "/user/ana/api/status") as on the Hub.
    """

    def __init__(self, jupyter: Jupyter | None = None, port: int = 0) -> None:
        self.jupyter: Jupyter | None = jupyter or Jupyter()
        self.at: dict[str, Jupyter | None] = {}
        self.guard: Callable[[str, str], bool] | None = None  # (base, token), where none is given
        self._guards: dict[str, Callable[[str], bool]] = {}
        super().__init__(port)

    def serve(self, routespec: str, guard: Callable[[str], bool]) -> None:
        """Ask `guard` whether a token may come in below this base."""
        self._guards[routespec] = guard

    def answer(self, request: Request) -> Reply:
        base, _, path = request.path.rpartition("api/")
        jupyter = self.at.get(base, self.jupyter)
        if self._guards and base not in self._guards:
            jupyter = None
        elif base and not self._opens(base, request.token):
            return reply(403, {"message": "Forbidden", "reason": None})
        said = jupyter.says(path) if jupyter is not None and request.method == "GET" else None
        return reply(404, {"message": "Not Found"}) if said is None else reply(200, said)

    def _opens(self, base: str, token: str) -> bool:
        own = self._guards.get(base)
        if own is not None:
            return own(token)
        return self.guard is None or self.guard(base, token)


def huge(megabytes: int) -> Fault:
    """Answer 200 with so many megabytes of JSON."""
    return always(
        reply(200, b'["' + b"x" * (megabytes << 20) + b'"]', Content_Type="application/json")
    )


def bomb(megabytes: int) -> Fault:
    """Answer 200 with a small gzip body that unpacks to so many megabytes."""
    packed = gzip.compress(b'["' + b" " * (megabytes << 20) + b'"]')
    return always(reply(200, packed, Content_Type="application/json", Content_Encoding="gzip"))


def drip(seconds: float) -> Fault:
    """Answer truly, a byte every so many seconds."""
    return lambda request, answer: replace(answer(), drip=seconds)


@contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port at which connections are refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
