"""The fake Hub and a real one, brought into the same state, must give the same answers."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import (
    PAGINATION,
    FakeHub,
    FakeServer,
    Fault,
    after,
    before,
    close,
    closed_port,
    dated,
    drip,
    half_body,
    hang,
    html,
    redirect,
    retry_after,
    rewritten,
)
from real_hub import ENFORCE, OF_PROBER, RealHub

from hub_idle_exporter.demo import launch

NEVER = {"stop_until": "never"}
USERS = ["ana", "bo", "cy", "di", "we ird@ex.org", "ünï"]
STAFF = ["ana", "ünï"]
SLOW_STOP = 0.3

pytestmark = pytest.mark.slow("the tests' own Hubs")


@dataclass(frozen=True)
class Pair:
    """A fake and a real Hub with the same users, groups and servers."""

    fake: FakeHub
    real: RealHub

    def start(self, user: str, server: str = "", **asked: Any) -> None:
        """Start a server on both; what `asked` says is done by the real spawner's options."""
        waits = None if "start_until" in asked else 30
        self.real.start_server(user, server, asked, wait=waits)
        stops: dict[str, Any] = {"stop_fails": bool(asked.get("stop_fails"))}
        stops |= {"stop_takes": 1e6} if "stop_until" in asked else {}
        pending = "spawn" if waits is None else None
        target = FakeServer(port=0)
        self.fake.add_server(
            user, server, idle=0, user_options=asked, pending=pending, target=target, **stops
        )
        target.close()

    def both(
        self,
        method: str,
        path: str,
        scopes: Sequence[str] | None = None,
        body: object = None,
        accept: str | None = None,
    ) -> tuple[Any, Any]:
        """Return both Hubs' answers (status, JSON or text) with times and addresses made equal."""
        tokens = (
            (self.fake.token, self.real.token)
            if scopes is None
            else (self.fake.add_token(scopes), self.real.add_token(scopes))
        )
        headers = {} if accept is None else {"Accept": accept}
        answers = [
            requests.request(
                method,
                f"{url}{path}",
                json=body,
                headers=headers | {"Authorization": f"token {token}"},
                timeout=30,
            )
            for url, token in zip((self.fake.url, self.real.url), tokens, strict=True)
        ]
        return _comparable(answers[0]), _comparable(answers[1])


def _comparable(response: requests.Response) -> Any:
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}", "TIME", response.text)
    text = re.sub(r"http://[\w.]+:\d+", "ORIGIN", text)
    if not text.startswith(("{", "[")):
        return response.status_code, text
    return response.status_code, _plain(json.loads(text))


def _plain(value: Any) -> Any:
    """Take out what differs for no reason of ours: order of parameters, of groups."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key != "url"}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory, hub_python: Path) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    real = RealHub(directory, activity_interval=0, slow_stop_timeout=SLOW_STOP, python=hub_python)
    with FakeHub(".".join(map(str, real.version))) as fake, real:
        fake.users.clear()
        fake.slow_stop_timeout = SLOW_STOP
        for user in real.get("/users"):
            scopes = OF_PROBER if user["name"] == "idle-prober" else ()
            fake.add_user(user["name"], scopes=scopes)
        for name in USERS:
            fake.add_user(name, groups=["staff"] if name in STAFF else [])
            real.add_users([name], "staff" if name in STAFF else None)
        yield Pair(fake, real)


@pytest.fixture
def pair(hubs: Pair) -> Iterator[Pair]:
    """Both without servers, however the test before left them."""
    yield hubs
    (hubs.real.directory / "never").touch()
    hubs.real.stop_all()
    (hubs.real.directory / "never").unlink()
    for user in hubs.fake.users.values():
        for server in user.servers.values():
            server.stopped, server.ready, server.pending, server.started = True, False, None, None


def test_listing_answers_page_by_page(pair: Pair) -> None:
    for name in ("ana", "bo", "we ird@ex.org", "ünï"):
        pair.start(name)
    pair.start("bo", "two")
    for query in (
        "limit=3",
        "limit=3&offset=3",
        "limit=1000",
        "",
        "state=active&limit=2",
        "state=active&limit=2&offset=2",
        "state=ready",
        "state=inactive",
        "state=all",
        "limit=many",
    ):
        fake, real = pair.both("GET", f"/users?{query}", accept=PAGINATION)
        assert fake == real, query


def test_listing_without_the_accept_header_is_a_bare_list(pair: Pair) -> None:
    fake, real = pair.both("GET", "/users?limit=3")
    assert fake == real
    assert isinstance(real[1], list)


def test_a_pending_server_is_active_and_not_ready(pair: Pair) -> None:
    pair.start("ana", start_until="never")
    pair.start("bo")
    for state in ("active", "ready"):
        fake, real = pair.both("GET", f"/users?state={state}", accept=PAGINATION)
        assert fake == real, state
    assert real[1]["_pagination"]["total"] == 2
    assert len(real[1]["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("GET", "/users", ["read:servers"]),
        ("GET", "/proxy", ["list:users"]),
        ("DELETE", "/users/ana/server", ["list:users", "read:servers"]),
        ("DELETE", "/users/ana/server", ["delete:servers!group=staff"]),
        ("DELETE", "/users/bo/server", ["delete:servers!group=staff"]),
        ("DELETE", "/users/nobody/server", ["delete:servers"]),
        ("DELETE", "/users/nobody/server", ["delete:servers!group=staff"]),
        ("GET", "/users/bo", ["read:servers!group=staff"]),
        ("GET", "/users/nobody", ["read:servers"]),
        ("DELETE", "/users/idle-prober/tokens/a99999", ["tokens!user=idle-prober"]),
        ("DELETE", "/users/ana/tokens/a99999", ["tokens!user=bo"]),
        ("GET", "/nothing", ["list:users"]),
    ],
)
def test_refusals_have_the_same_words(
    pair: Pair, method: str, path: str, scopes: list[str]
) -> None:
    fake, real = pair.both(method, path, scopes)
    # The list of what would have been enough is long, and no program's business.
    cut = [re.sub(r"any of .*", "any of", str(answer)) for answer in (fake, real)]
    assert cut[0] == cut[1]


@pytest.mark.parametrize("path", ["/users", "/user", "/proxy", "/users/ana"])
def test_a_bad_token_is_403(pair: Pair, path: str) -> None:
    headers = {"Authorization": "token of-nobody"}
    fake, real = (
        requests.get(f"{url}{path}", headers=headers, timeout=30)
        for url in (pair.fake.url, pair.real.url)
    )
    assert fake.status_code == real.status_code == 403
    if path != "/user":
        said = [re.sub(r"any of .*", "any of", a.json()["message"]) for a in (fake, real)]
        assert said[0] == said[1]


def test_scopes_decide_which_keys_are_there(pair: Pair) -> None:
    for user, server in (("ana", ""), ("bo", ""), ("bo", "two")):
        pair.start(user, server)
    for scopes in (
        ["list:users"],
        ["list:users", "read:servers"],
        ["list:users", "read:users:groups"],
        ["list:users", "read:servers!group=staff"],
        ["list:users", "read:servers!user=bo"],
        ["list:users", "read:servers!server=bo/"],
        ["list:users!group=staff", "read:servers"],
        ["list:users!user=cy", "read:servers!group=staff"],
    ):
        fake, real = pair.both("GET", "/users", scopes, accept=PAGINATION)
        shown = [[_own(user) for user in side[1]["items"]] for side in (fake, real)]
        assert shown[0] == shown[1], scopes
        fake, real = pair.both("GET", "/users/ana", scopes)
        assert (fake[0], _own(fake[1])) == (real[0], _own(real[1])), scopes


def _own(user: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the owner of a token may always see of himself."""
    return {} if user.get("name") == "token-owner" else user


def test_the_self_check_shows_the_scopes(pair: Pair) -> None:
    fake, real = pair.both("GET", "/user")
    assert fake[1]["scopes"] == real[1]["scopes"]
    assert fake[1]["kind"] == real[1]["kind"] == "service"


@pytest.mark.parametrize("server", ["", "two"])
def test_a_stop_that_works(pair: Pair, server: str) -> None:
    pair.start("ana", server)
    before = _activities(pair, "ana", server)
    path = "/users/ana/servers/two" if server else "/users/ana/server"
    for _ in range(2):
        assert pair.both("DELETE", path) == ((204, ""), (204, ""))
    fake, real = pair.both("GET", "/users/ana?include_stopped_servers=1")
    assert fake == real
    assert all(b > a for a, b in zip(before, _activities(pair, "ana", server), strict=True))


def test_a_stop_that_fails_is_forgotten_and_leaves_the_activity(pair: Pair) -> None:
    pair.start("ana", "two", stop_fails=True)
    before = _activities(pair, "ana", "two")
    assert pair.both("DELETE", "/users/ana/servers/two") == ((204, ""), (204, ""))
    for query in ("", "?include_stopped_servers=1"):
        fake, real = pair.both("GET", f"/users/ana{query}")
        assert fake == real
    assert real[1]["servers"]["two"]["stopped"] is True
    assert _activities(pair, "ana", "two") == before
    assert pair.fake.server("ana", "two").process_alive


def test_a_slow_stop_is_202_and_stays_pending(pair: Pair) -> None:
    pair.start("ana", **NEVER)
    for _ in range(2):
        assert pair.both("DELETE", "/users/ana/server") == ((202, ""), (202, ""))
    fake, real = pair.both("GET", "/users?state=active", accept=PAGINATION)
    assert fake == real
    assert real[1]["items"][0]["servers"][""]["pending"] == "stop"


def test_a_delete_cancels_a_spawn_from_5_on(pair: Pair) -> None:
    pair.start("ana", start_until="never")
    fake, real = pair.both("DELETE", "/users/ana/server")
    assert fake[0] == real[0] == (204 if pair.fake.release >= (5, 0) else 400)
    fake, real = pair.both("GET", "/users/ana?include_stopped_servers=1")
    assert fake == real


def test_removing(pair: Pair) -> None:
    pair.start("ana")
    pair.start("ana", "two")
    remove = {"remove": True}
    fake, real = pair.both("DELETE", "/users/ana/server", body=remove)
    assert fake == real
    assert real[0] == 400
    pair.both("DELETE", "/users/ana/servers/two")
    for status in (204, 404):
        fake, real = pair.both("DELETE", "/users/ana/servers/two", body=remove)
        assert fake == real
        assert real[0] == status


def test_tokens_for_probing(pair: Pair) -> None:
    path, wanted = "/users/idle-prober/tokens", ["access:servers!server=ana/"]
    pair.start("ana")
    for hub in (pair.fake, pair.real):
        headers = {"Authorization": f"token {hub.token}"}
        body = {"scopes": wanted, "expires_in": 60, "note": "probe"}
        made = requests.post(f"{hub.url}{path}", json=body, headers=headers, timeout=30)
        assert made.status_code == 201
        token = made.json()
        assert set(wanted) <= set(token["scopes"])
        assert token["note"] == "probe"
        gone = [
            requests.delete(f"{hub.url}{path}/{token['id']}", headers=headers, timeout=30)
            for _ in range(2)
        ]
        assert [answer.status_code for answer in gone] == [204, 404]
    too_wide = {"scopes": ["proxy"]}
    fake, real = pair.both("POST", path, body=too_wide)
    assert fake == real
    assert real[0] == 400
    for stranger in ("ana", "nobody"):
        fake, real = pair.both("POST", f"/users/{stranger}/tokens", body={"scopes": wanted})
        assert fake == real
        assert real[0] == 403


def test_tokens_are_listed_until_they_expire_and_their_ids_used_again(pair: Pair) -> None:
    for hub in (pair.fake, pair.real):
        _use_an_id_again(hub, pair.real.wait)


def _use_an_id_again(hub: FakeHub | RealHub, wait: Callable[..., object]) -> None:
    url = f"{hub.url}/users/idle-prober/tokens"
    headers = {"Authorization": f"token {hub.token}"}

    def minted(seconds: int, note: str) -> dict[str, Any]:
        body = {"scopes": [], "expires_in": seconds, "note": note}
        made = requests.post(url, json=body, headers=headers, timeout=30)
        assert made.status_code == 201
        return {key: made.json()[key] for key in ("id", "created", "expires_at", "scopes")}

    def listed() -> dict[str, Any]:
        answer = requests.get(url, headers=headers, timeout=30)
        assert answer.status_code == 200
        return {token["note"]: token for token in answer.json()["api_tokens"]}

    kept, short = minted(120, "kept"), minted(1, "short")
    assert all(scope.endswith("!user=idle-prober") for scope in kept["scopes"])
    wait(lambda: "short" not in listed(), 10, "expired")
    assert all(listed()["kept"][key] == kept[key] for key in ("id", "created", "expires_at"))
    again = minted(120, "again")
    assert again["id"] == short["id"] != kept["id"]
    for token in (again, kept):
        assert (
            requests.delete(f"{url}/{token['id']}", headers=headers, timeout=30).status_code == 204
        )


def test_a_token_without_scopes_given_may_do_all_that_its_owner_may(pair: Pair) -> None:
    path = "/users/idle-prober/tokens"
    fake, real = pair.both("POST", path, body={"expires_in": 1})
    wide = [
        {scope for scope in answer[1]["scopes"] if not scope.endswith("!user=idle-prober")}
        for answer in (fake, real)
    ]
    assert wide == [set(OF_PROBER), set(OF_PROBER)]


def test_the_probe_user_looks_the_same_before_anybody_signed_in(pair: Pair) -> None:
    fake, real = pair.both("GET", "/users/idle-prober?include_stopped_servers=1")
    for key in ("last_activity", "started", "stopped", "ready", "pending", "user_options"):
        assert fake[1]["servers"][""][key] == real[1]["servers"][""][key]


def test_routes_of_the_proxy(pair: Pair) -> None:
    for name in ("ana", "we ird@ex.org", "ünï"):
        pair.start(name)
    pair.start("ünï", "two")
    pair.start("bo", start_until="never")
    whole = pair.both("GET", "/proxy")
    assert _routes(whole[0][1]) == _routes(whole[1][1])
    fake, real = pair.both("GET", "/proxy?limit=2&offset=2", accept=PAGINATION)
    assert fake[1]["_pagination"] == real[1]["_pagination"]
    assert _routes(fake[1]["items"]) == _routes(real[1]["items"])


def _routes(routes: dict[str, Any]) -> dict[str, Any]:
    """Leave out when the Hub's own route was last used."""
    return {spec: route for spec, route in routes.items() if spec != "/"}


def test_version_and_clock(pair: Pair) -> None:
    answers = [requests.get(f"{hub.url}/", timeout=30) for hub in (pair.fake, pair.real)]
    assert answers[0].json() == answers[1].json() == {"version": pair.fake.version}
    assert {a.headers["X-JupyterHub-Version"] for a in answers} == {pair.fake.version}
    assert all(answer.headers["Date"].endswith(" GMT") for answer in answers)


def test_backdated_servers_look_idle_everywhere(pair: Pair) -> None:
    pair.start("ana")
    pair.real.backdate("ana", idle=3600, age=7200)
    server, row = pair.real.server("ana"), pair.real.rows()["ana", ""]
    route = pair.real.get("/proxy")["/user/ana/"]["data"]["last_activity"] + "Z"
    now = time.time()
    assert row.last_activity is not None
    assert row.started is not None
    for shown, seconds in (
        (_epoch(server["last_activity"]), 3600),
        (_epoch(route), 3600),
        (row.last_activity.timestamp(), 3600),
        (_epoch(server["started"]), 7200),
        (row.started.timestamp(), 7200),
    ):
        assert abs(now - shown - seconds) < 30


def _activities(pair: Pair, user: str, server: str) -> list[float]:
    """Return the server's last activity on the fake and the real Hub."""
    fake = pair.fake.server(user, server).last_activity
    assert isinstance(fake, float)
    return [fake, _epoch(pair.real.server(user, server)["last_activity"])]


def _epoch(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def test_enforcing_scopes_are_the_contracts() -> None:
    assert sorted(ENFORCE) == [
        "delete:servers",
        "list:users",
        "proxy",
        "read:servers",
        "read:users:groups",
        "tokens!service=idle-prober",
        "tokens!user=idle-prober",
    ]


def test_a_real_kernel_can_be_silently_busy(real_hub: RealHub) -> None:
    real_hub.start_server("hal")
    kernel = real_hub.start_kernel("hal")
    kernel.run_to_end("x = 1")
    assert kernel.state() == "idle"
    kernel.run("import time; time.sleep(1e6)")
    assert kernel.state() == "busy"
    kernel.interrupt()
    assert kernel.state() == "idle"
    assert real_hub.stop_server("hal") == 204


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        (html(), 200, {"Content-Type": "text/html"}, "Sign in"),
        (retry_after(503, 7), 503, {"Retry-After": "7"}, ""),
        (redirect("http://elsewhere.invalid/"), 302, {"Location": "http://elsewhere.invalid/"}, ""),
        (dated("yesterday"), 200, {"Date": "yesterday"}, "6.1.1"),
        (rewritten(lambda said: [said]), 200, {}, '[{"version": "6.1.1"}]'),
        (drip(0.001), 200, {}, "6.1.1"),
    ],
)
def test_faults_that_answer(
    fake_hub: FakeHub, fault: Fault, status: int, headers: dict[str, str], body: str
) -> None:
    fake_hub.plan("GET", "/", fault, after=1, times=1)
    truly, faulty, again = (
        requests.get(f"{fake_hub.url}/", timeout=10, allow_redirects=False) for _ in range(3)
    )
    assert truly.json() == again.json() == {"version": "6.1.1"}
    assert (faulty.status_code, body in faulty.text) == (status, True)
    assert headers.items() <= dict(faulty.headers).items()


@pytest.mark.parametrize("fault", [half_body(), half_body(0), close()])
def test_faults_that_break_off(fake_hub: FakeHub, fault: Fault) -> None:
    fake_hub.plan("GET", "/", fault, times=1)
    with pytest.raises(requests.RequestException):
        requests.get(f"{fake_hub.url}/", timeout=10)
    assert requests.get(f"{fake_hub.url}/", timeout=10).ok


def test_a_fault_can_leave_the_date_out(fake_hub: FakeHub) -> None:
    fake_hub.plan("GET", "/", dated(None))
    assert "Date" not in requests.get(f"{fake_hub.url}/", timeout=10).headers


def test_a_fault_can_hang_until_it_is_released(fake_hub: FakeHub) -> None:
    released = threading.Event()
    fake_hub.plan("GET", "/", hang(released))
    with pytest.raises(requests.Timeout):
        requests.get(f"{fake_hub.url}/", timeout=0.2)
    released.set()
    assert requests.get(f"{fake_hub.url}/", timeout=10).ok


def test_users_come_and_go_between_pages(fake_hub: FakeHub) -> None:
    fake_hub.add_servers(3)
    fake_hub.plan("GET", "/users", before(lambda: fake_hub.remove_user("u000000")), times=1)
    fake_hub.plan("GET", "/users", after(lambda: fake_hub.add_server("new")), times=1)
    headers = {"Authorization": f"token {fake_hub.token}"}
    url = f"{fake_hub.url}/users?state=active"
    found = [
        [user["name"] for user in requests.get(url, headers=headers, timeout=10).json()]
        for _ in range(3)
    ]
    everyone = ["u000000", "u000001", "u000002"]
    assert found == [everyone, [*everyone[1:], "new"], [*everyone[1:], "new"]]


def test_a_fake_that_hangs_up_is_down_until_it_listens(fake_hub: FakeHub) -> None:
    with requests.Session() as session:
        assert session.get(f"{fake_hub.url}/", timeout=10).ok
        fake_hub.hang_up()
        with pytest.raises(requests.ConnectionError):
            session.get(f"{fake_hub.url}/", timeout=10)
        fake_hub.listen()
        assert session.get(f"{fake_hub.url}/", timeout=10).ok


def test_a_closed_port_refuses() -> None:
    with closed_port() as port, pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/", timeout=10)


def test_what_goes_wrong_in_a_fault_is_not_swallowed() -> None:
    def wrong() -> None:
        raise ValueError("a mistake in a test")

    hub = FakeHub()
    hub.plan("GET", "/", before(wrong))
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{hub.url}/", timeout=10)
    with pytest.raises(AssertionError, match="a mistake in a test"), hub:
        pass


def test_a_port_that_was_chosen_is_chosen_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub opens it seconds later."""
    monkeypatch.setattr(launch, "_PORTS", range(19_000, 19_040))
    command = "from hub_idle_exporter.demo import launch as l; l._PORTS = range(19_000, 19_040); "
    command += "print(*l.free_ports(15), flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        assert len(theirs) == 15
        assert theirs.isdisjoint(launch.free_ports(15))
        other.communicate("\n")
