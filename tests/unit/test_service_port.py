"""The port of the page inside the Hub: who wants one, and where it listens."""

import socket
from collections.abc import Mapping

import pytest

from hub_idle_exporter import service_port
from hub_idle_exporter.demo.launch import free_ports

PAGE = {
    "JUPYTERHUB_SERVICE_NAME": "idle-exporter",
    "JUPYTERHUB_SERVICE_PREFIX": "/services/idle-exporter/",
}


@pytest.mark.parametrize("arguments", [[], ["--enforce"], ["--no-such-option"], ["--once"]])
def test_a_service_with_a_url_has_a_page(arguments: list[str]) -> None:
    assert service_port.is_wanted(arguments, PAGE)


@pytest.mark.parametrize("arguments", [["check"], ["servers", "--json"], ["--help"]])
def test_what_ends_by_itself_has_none(arguments: list[str]) -> None:
    assert not service_port.is_wanted(arguments, PAGE)


@pytest.mark.parametrize("name", PAGE)
def test_neither_a_service_without_a_url_nor_a_terminal_of_a_users_server_has_one(
    name: str,
) -> None:
    """There the prefix is that of the user's server, and its port taken."""
    assert not service_port.is_wanted([], PAGE | {name: ""})


def at(host: str, port: int) -> Mapping[str, str]:
    return PAGE | {"JUPYTERHUB_SERVICE_URL": f"http://{host}:{port}"}


def test_it_listens_where_the_hub_says() -> None:
    (port,) = free_ports(1)
    with service_port.opened(at("127.0.0.1", port)) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)
        with pytest.raises(OSError, match="Address already in use"):
            service_port.opened(at("127.0.0.1", port))
        assert service_port.opened_early([], at("127.0.0.1", port)) is None


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_others_is_listened_for_everywhere(host: str) -> None:
    """A name of the machine that only others know, a load balancer: the proxy has to reach it."""
    (port,) = free_ports(1)
    with (
        service_port.opened(at(host, port)),
        socket.create_connection(("127.0.0.1", port), timeout=10),
    ):
        pass
