"""The page inside a real Hub: the service that the Hub runs, and who comes to look at it."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests
from real_hub import ENFORCE, MONITOR, RealHub, Service
from sign_in import Browser
from standing_desk import StandingDesk

from hub_idle_exporter import service_port
from hub_idle_exporter.demo.launch import free_ports
from hub_idle_exporter.serving.hub_page.front import Front
from hub_idle_exporter.serving.hub_page.ports import page_server
from hub_idle_exporter.serving.hub_page.service import Service as Described

NAME = "idle-exporter"
ADMIN = "root-user"
ADMINS = f"c.Authenticator.admin_users = {{{ADMIN!r}}}"
# Who may use the page: everybody. It takes the place of the Hub's own role of that name.
EVERYBODY = {"name": "user", "scopes": ["self", f"access:services!service={NAME}"]}
# The Hub looks after its services every 30 s.
OFTEN = """
from jupyterhub.services import service
from traitlets import Integer


class LooksOften(service._ServiceSpawner):
    poll_interval = Integer(1)


service._ServiceSpawner = LooksOften
"""
_REPO = Path(__file__).parents[2]


def page_service(
    *options: str,
    port: int = 0,
    web: int = 0,
    environment: Mapping[str, str] | None = None,
    enforce: bool = True,
) -> Service:
    """Return the sidecar as a service with a page, on free ports unless they are given."""
    listen = f"--web.listen-address=127.0.0.1:{web}"
    command = [sys.executable, "-m", "hub_idle_exporter", *options]
    if not any(option.startswith("--web.listen-address") for option in options):
        command.append(listen)
    url = f"http://127.0.0.1:{port or free_ports(1)[0]}"
    return Service(
        name=NAME,
        scopes=ENFORCE if enforce else MONITOR,
        command=command,
        environment={"PYTHONPATH": str(_REPO), **(environment or {})},
        more={"url": url, "oauth_no_confirm": True, "display": True},
    )


def page_url(hub: RealHub, path: str = "") -> str:
    """Return the public address of the page."""
    return f"{hub.public_url}services/{NAME}/{path}"


def looks(hub: RealHub, user: str = "ana", path: str = "") -> requests.Response:
    """Let somebody sign in at the Hub, and look at the page."""
    return signed_in(hub, user).get(page_url(hub, path), timeout=30)


def signed_in(hub: RealHub, user: str) -> requests.Session:
    """Return the session of somebody who is signed in at the Hub."""
    browser = Browser(hub.public_url)
    assert browser.sign_in(user, "") == 302
    return browser.session


@dataclass
class Inside:
    """The page in this process, over a desk of one's own, as a service of a Hub that runs."""

    hub: RealHub
    front: Front
    desk: StandingDesk
    port: int

    @property
    def url(self) -> str:
        """Return its public address."""
        return page_url(self.hub)

    def session(self, user: str) -> requests.Session:
        """Return the session of somebody who is signed in at the page, too."""
        session = signed_in(self.hub, user)
        assert session.get(self.url, timeout=30).status_code == 200
        return session


def elsewhere(port: int) -> Service:
    """Return the entry of a service that somebody else runs at a port."""
    url = f"http://127.0.0.1:{port}"
    return Service(NAME, (), more={"url": url, "oauth_no_confirm": True, "display": True})


@contextmanager
def inside(hub: RealHub, key: bytes = b"k" * 32) -> Iterator[Inside]:
    """Serve the page from this process, for the service `elsewhere`."""
    service = next(one for one in hub.services if one.name == NAME)
    environ = environment_of(hub, service)
    front, desk = Front(Described.of(environ)), StandingDesk(time.time())
    front.open(desk, lambda: None, key)
    server = page_server(front, service_port.opened(environ), environ)
    server.start()
    try:
        yield Inside(hub, front, desk, urlsplit(service.more["url"]).port or 0)
    finally:
        server.stop()


def start_with_page(hub: RealHub) -> RealHub:
    """Start a Hub with the page there: it would wait half a minute for a service of others."""
    with inside(hub):
        hub.start()
    return hub


@contextmanager
def hub_with_page(directory: Path, **more: Any) -> Iterator[RealHub]:
    """Run a Hub, with paper servers and an administrator, for the service `elsewhere`."""
    more |= {"services": [elsewhere(*free_ports(1))], "roles": [EVERYBODY], "config": ADMINS}
    hub = RealHub(directory, "paper", **more)
    try:
        yield start_with_page(hub)
    finally:
        hub.close()


def environment_of(hub: RealHub, service: Service) -> dict[str, str]:
    """Return what the Hub would tell a service that it runs."""
    return {
        "JUPYTERHUB_SERVICE_PREFIX": f"{hub.base_url}services/{service.name}/",
        "JUPYTERHUB_SERVICE_URL": service.more["url"],
        "JUPYTERHUB_BASE_URL": hub.base_url,
        "JUPYTERHUB_API_URL": hub.api_url,
        "JUPYTERHUB_API_TOKEN": service.token,
        "JUPYTERHUB_CLIENT_ID": f"service-{service.name}",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([f"access:services!service={service.name}"]),
    }


def exporters(hub: RealHub) -> list[psutil.Process]:
    """Return the exporters of the Hub that runs now."""
    found = psutil.Process(hub.pid).children()
    return [one for one in found if lives(one) and "hub_idle_exporter" in one.cmdline()]


def lives(process: psutil.Process) -> bool:
    """Tell whether a process runs: the Hub looks after those that ended only now and then."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


class Form(HTMLParser):
    """The form of a page for one server, as a browser would send it."""

    def __init__(self, html: str, action: str, user: str, server: str = "") -> None:
        super().__init__()
        self.path, self.fields = "", dict[str, str]()
        self._wanted = {"user": user, "server": server}
        self._action, self._begun = action, ("", dict[str, str]())
        self.feed(html)
        assert self.path, f"no form {action} for {self._wanted} in {html[-3000:]}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self._begun = (given.get("action", ""), {})
        elif tag == "input" and given.get("type") == "hidden":
            self._begun[1][given["name"]] = given["value"]

    def handle_endtag(self, tag: str) -> None:
        path, fields = self._begun
        ends = tag == "form" and path.endswith(f"/{self._action}")
        if ends and self._wanted.items() <= fields.items():
            self.path, self.fields = path, fields
