"""The fault matrix: the steps of a poll and a culling pass, and what may go wrong at each.

A step is a kind of request. A fault is done to each such request from then on, until it is healed.
"""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fake_hub as faults
import trustme
from culling_rig import HANG_SECONDS, Rig
from fake_hub import ENFORCE, MINT, FakeHub, FakeServer, Fault, Reply, Request, reply

USER, SERVER, PROBER = "ana", "gpu", "idle-prober"
VERSION = "6.1.1"
HUB_NAME, SERVER_NAME = "hub.example.org", "server.example.org"


@dataclass(frozen=True)
class Step:
    """A kind of request: to the Hub, or to the user's server; `after` so many others like it."""

    name: str
    method: str
    path: str
    to_server: bool = False
    only: Callable[[Request], bool] = lambda _request: True
    after: int = 0


def _asks(name: str, value: bool) -> Callable[[Request], bool]:
    return lambda request: (name in request.query) is value


def _notes(text: str) -> Callable[[Request], bool]:
    return lambda request: text in request.json()["note"]


def _offset(first: bool) -> Callable[[Request], bool]:
    return lambda request: (request.query.get("offset", "0") == "0") is first


def _removes(value: bool) -> Callable[[Request], bool]:
    return lambda request: bool(request.body.strip()) is value


_TOKENS, _NAMED = f"/users/{PROBER}/tokens", f"/users/{USER}/servers/{SERVER}"
STEPS = (
    Step("version", "GET", "/"),
    Step("identity", "GET", "/user"),
    Step("page 1", "GET", "/users", only=_offset(True)),
    Step("page n", "GET", "/users", only=_offset(False)),
    Step("probe user", "GET", f"/users/{PROBER}"),
    Step("lease", "POST", _TOKENS, only=_notes("lease")),
    Step("routes", "GET", "/proxy"),
    Step("mint to ask", "POST", _TOKENS, only=_notes("busy check")),
    Step("kernels", "GET", "*/kernels", to_server=True),
    Step("terminals", "GET", "*/terminals", to_server=True),
    Step("mint to stop", "POST", _TOKENS, only=_notes(": stop")),
    Step("look", "GET", f"/users/{USER}", only=_asks("include_stopped_servers", False)),
    Step("status", "GET", "*/status", to_server=True),
    Step("DELETE", "DELETE", _NAMED, only=_removes(False)),
    Step("verification", "GET", f"/users/{USER}", only=_asks("include_stopped_servers", True)),
    Step("old address", "GET", "*/status", to_server=True, after=1),
    Step("removal", "DELETE", _NAMED, only=_removes(True)),
)


@dataclass
class Scene:
    """What a fault may be done to: the Hub, the user's server, their certificates, our clock."""

    rig: Rig
    hub: FakeHub
    server: FakeServer
    names: "Names"
    certificates: (
        "Mapping[bool, Certificates]"  # of the servers (True) and the Hub; empty for plain HTTP
    )
    elsewhere: FakeServer
    state_path: Path
    released: threading.Event = field(default_factory=threading.Event)

    def fake(self, step: Step) -> FakeHub | FakeServer:
        return self.server if step.to_server else self.hub

    def heal(self) -> None:
        """End every fault."""
        self.released.set()
        self.names.unknown.clear()
        if self.state_path.is_dir():
            self.state_path.rmdir()
        self.hub.clock_offset = self.rig.wall_ahead = 0.0
        self.hub.version = VERSION
        self.rig.own_token = self.hub.token
        self.hub.tokens[self.hub.token].scopes[:] = ENFORCE
        for certificates in self.certificates.values():
            certificates.use("good")
        for fake in (self.hub, self.server):
            fake.heal()
            if fake._http is None:
                fake.listen()


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault; `make` gives what is done to a request of a step."""

    name: str
    make: Callable[[Scene, Step], Fault]
    tls: bool = False  # Hub and servers need TLS for it, as with internal_ssl
    patience: float = 20.0  # of a request to the Hub, in seconds
    state_file: bool = False  # the exporter has one

    def begin(self, scene: Scene, step: Step) -> None:
        """Let it happen at a step from now on."""
        fault, seen = self.make(scene, step), 0

        def at_this_step(request: Request, answer: Callable[[], Reply]) -> Reply:
            nonlocal seen
            if not step.only(request):
                return answer()
            seen += 1
            return fault(request, answer) if seen > step.after else answer()

        scene.fake(step).plan(step.method, step.path, at_this_step)


def _always(fault: Fault) -> Callable[[Scene, Step], Fault]:
    return lambda _scene, _step: fault


def _status(status: int) -> FaultKind:
    body = {"status": status, "message": "as planned"}
    return FaultKind(str(status), _always(faults.always(reply(status, body))))


def _without_answer(do: Callable[[Scene, Step], object]) -> Callable[[Scene, Step], Fault]:
    """Do something, then cut the connection."""

    def make(scene: Scene, step: Step) -> Fault:
        def fault(_request: Request, _answer: Callable[[], Reply]) -> Reply:
            do(scene, step)
            return Reply(cut=-1)

        return fault

    return make


def _refuse(scene: Scene, step: Step) -> None:
    scene.fake(step).hang_up()


def _forget_name(scene: Scene, step: Step) -> None:
    scene.names.unknown.add(SERVER_NAME if step.to_server else HUB_NAME)


def _certify(name: str) -> Callable[[Scene, Step], object]:
    def certify(scene: Scene, step: Step) -> None:
        scene.certificates[step.to_server].use(name)

    return certify


def _before(do: Callable[[Scene], object]) -> Callable[[Scene, Step], Fault]:
    """Do something once, then answer truly."""

    def make(scene: Scene, _step: Step) -> Fault:
        done = threading.Event()

        def once() -> None:
            if not done.is_set():
                done.set()
                do(scene)

        return faults.before(once)

    return make


def _rotate(scene: Scene) -> None:
    """Give us a new token, in its file, and let the old one be unknown."""
    old, scene.hub.token = scene.hub.token, scene.hub.add_token(ENFORCE)
    scene.rig.own_token = scene.hub.token
    del scene.hub.tokens[old]


def _revoke(scene: Scene) -> None:
    """Let our token be unknown; the new one comes later."""
    old, scene.hub.token = scene.hub.token, scene.hub.add_token(ENFORCE)
    del scene.hub.tokens[old]


def _take_away(*scopes: str) -> Callable[[Scene], object]:
    def take_away(scene: Scene) -> None:
        ours = scene.hub.tokens[scene.hub.token].scopes
        ours[:] = [scope for scope in ours if scope not in scopes]

    return take_away


def _become(version: str) -> Callable[[Scene], object]:
    return lambda scene: setattr(scene.hub, "version", version)


def _set_clock(of_the_hub: float = 0.0, ours: float = 0.0) -> Callable[[Scene], object]:
    def set_clock(scene: Scene) -> None:
        scene.hub.clock_offset, scene.rig.wall_ahead = of_the_hub, ours

    return set_clock


def _lose_state(scene: Scene) -> None:
    """Put in the place of the state file what cannot be one."""
    scene.state_path.unlink()
    scene.state_path.mkdir()


def _echo(request: Request, _answer: Callable[[], Reply]) -> Reply:
    """Say everything that was sent, as debug pages do; the token is everywhere."""
    told = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
    headers = {"X-JupyterHub-Version": request.token or "6.1.1", "Location": f"/?{request.token}"}
    body = {"message": told, "items": told, "servers": told, "started": told, "version": told}
    return Reply(500, json.dumps(body).encode(), headers)


def _redirect(scene: Scene, _step: Step) -> Fault:
    return faults.redirect(f"{scene.elsewhere.origin}/hub/api/users", 307)


FAULTS = (
    FaultKind("refused", _without_answer(_refuse)),
    FaultKind("reset", _always(faults.close())),
    FaultKind("unknown name (DNS)", _without_answer(_forget_name)),
    FaultKind("hangs", lambda scene, _step: faults.hang(scene.released), patience=HANG_SECONDS),
    FaultKind("drips", _always(faults.drip(0.05, head=True)), patience=HANG_SECONDS),
    FaultKind("half a body", _always(faults.half_body())),
    FaultKind("wrong content type", _always(faults.html())),
    FaultKind("empty", _always(faults.always(reply(200, "")))),
    FaultKind("huge", _always(faults.huge(65))),
    FaultKind("wrong types", _always(faults.always(reply(200, '{"items": 1, "servers": "x"}')))),
    *map(_status, (401, 403, 404, 409, 429)),
    FaultKind("429 with Retry-After", _always(faults.retry_after(429, 30))),
    *map(_status, (500, 502, 503)),
    FaultKind("503 with Retry-After", _always(faults.retry_after(503, 30))),
    _status(504),
    FaultKind("redirect elsewhere", _redirect),
    FaultKind("echoes what it was sent", _always(_echo)),
    FaultKind("TLS: expired", _without_answer(_certify("expired")), tls=True),
    FaultKind("TLS: wrong name", _without_answer(_certify("wrong name")), tls=True),
    FaultKind("TLS: unknown CA", _without_answer(_certify("unknown CA")), tls=True),
)
CHANGES = (
    FaultKind("token rotated", _before(_rotate)),
    FaultKind("token revoked", _before(_revoke)),
    FaultKind("scope taken away: delete:servers", _before(_take_away("delete:servers"))),
    FaultKind("scopes taken away: tokens", _before(_take_away(*MINT))),
    FaultKind("Hub upgraded", _before(_become("6.2.0"))),
    FaultKind("Hub downgraded", _before(_become("4.0.2"))),
    FaultKind("the Hub's clock an hour ahead", _before(_set_clock(of_the_hub=3600.0))),
    FaultKind("the Hub's clock an hour behind", _before(_set_clock(of_the_hub=-3600.0))),
    FaultKind("our clock an hour ahead", _before(_set_clock(ours=3600.0))),
    FaultKind("our clock an hour behind", _before(_set_clock(ours=-3600.0))),
    FaultKind("state file lost", _before(_lose_state), state_file=True),
)
KINDS = FAULTS + CHANGES


class Names:
    """Looks up our two host names, on this machine; those in `unknown` do not exist.

    `asked` are all that were looked up: each connection begins like that.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.asked: set[object] = set()
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, *arguments: Any, **options: Any) -> Any:
        self.asked.add(host)
        if host in self.unknown:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        here = "127.0.0.1" if host in (HUB_NAME, SERVER_NAME) else host
        return self._real(here, *arguments, **options)


class Certificates:
    """The certificate of a Hub or server with TLS, good at first; new connections see a change."""

    def __init__(self, folder: Path, name: str) -> None:
        good, foreign = trustme.CA(), trustme.CA()
        self.authority = str(folder / f"{name}.pem")
        good.cert_pem.write_to_path(self.authority)
        expired = datetime(2020, 1, 1, tzinfo=timezone.utc)
        self._issued = {
            "good": good.issue_cert(name),
            "wrong name": good.issue_cert("another.example.org"),
            "expired": good.issue_cert(name, not_after=expired),
            "unknown CA": foreign.issue_cert(name),
        }
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.use("good")

    def serve(self, fake: FakeHub | FakeServer) -> None:
        """Let a fake speak TLS."""
        assert fake._http is not None
        fake._http.socket = self._context.wrap_socket(fake._http.socket, server_side=True)

    def use(self, name: str) -> None:
        """Serve with this certificate from now on."""
        self._issued[name].configure_cert(self._context)


@contextmanager
def looked_up(names: Names) -> Iterator[None]:
    """Let the process look names up there."""
    socket.getaddrinfo = names.getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = names._real
