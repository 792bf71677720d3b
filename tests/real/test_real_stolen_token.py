"""What a stolen token of ours can do and cannot, on a real Hub with the roles of docs/install.md.

The table of SECURITY.md says the same.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from real_hub import PROBER, RealHub
from test_real_probe_user import HOOK, DocumentedHub

ANA = "ana"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, hub_python: Path) -> Iterator[DocumentedHub]:
    with DocumentedHub(tmp_path_factory.mktemp("hub"), hub_python, HOOK) as running:
        running.ensure_user(ANA)
        yield running


CANNOT: dict[str, tuple[str, str, object]] = {
    "create a user": ("POST", "/users/mallory", None),
    "make somebody an administrator": ("PATCH", f"/users/{ANA}", {"admin": True}),
    "delete a user": ("DELETE", f"/users/{ANA}", None),
    "start a server": ("POST", f"/users/{ANA}/server", None),
    "mint a token of anybody else": ("POST", f"/users/{ANA}/tokens", {}),
    "list the tokens of anybody else": ("GET", f"/users/{ANA}/tokens", None),
    "read or change groups": ("GET", "/groups", None),
    "read services": ("GET", "/services", None),
    "report activity": ("POST", f"/users/{ANA}/activity", {"last_activity": "2027-01-01"}),
    "shut the Hub down": ("POST", "/shutdown", None),
}


@pytest.mark.parametrize("what", CANNOT)
def test_what_a_stolen_token_cannot_do(hub: DocumentedHub, what: str) -> None:
    method, path, body = CANNOT[what]
    assert hub.api(method, path, body, token=hub.service_token).status_code in (403, 404)


def test_it_sees_no_secrets_of_a_user(hub: DocumentedHub) -> None:
    hub.start_server("bob")
    seen = hub.get("/users/bob", token=hub.service_token)
    assert "auth_state" not in seen
    (server,) = seen["servers"].values()
    assert server["ready"]
    assert "state" not in server  # of the spawner: an administrator sees it
    assert "state" in hub.get("/users/bob")["servers"][""]


def test_what_it_can_do_stop_and_open_every_server(hub: DocumentedHub) -> None:
    """Said plainly: by a token of the probe user, whose role opens every server."""
    hub.start_server(ANA)
    minted = hub.api(
        "POST",
        f"/users/{PROBER}/tokens",
        {"scopes": [f"access:servers!server={ANA}/"], "expires_in": 60},
        token=hub.service_token,
    )
    assert minted.status_code == 201
    assert opens(hub, minted.json()["token"]) == 200
    assert opens(hub, hub.service_token) in (403, 302)  # not by itself
    stopped = hub.api("DELETE", f"/users/{ANA}/server", token=hub.service_token)
    assert stopped.status_code in (202, 204)


def opens(hub: RealHub, token: str) -> int:
    """Ask ana's server for its status with a token."""
    url = f"{hub.public_url}/user/{ANA}/api/status"
    headers = {"Authorization": f"token {token}"}
    return requests.get(url, headers=headers, timeout=30, allow_redirects=False).status_code
