"""The port of the page inside the Hub, for a service that a Hub started with a `url`.

A Hub that starts such a service ends if the port does not answer in time. So it is opened before
anything else, with nothing but the standard library.
"""

import errno
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from . import COMMANDS

_BACKLOG = 4096  # or less, as the system is configured
# With one of these the process does something else than to run, and ends.
_OTHERWISE = {*COMMANDS, "--help", "-h", "--version"}


def is_wanted(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether this process is a service with a page inside the Hub.

    A terminal of a user's server has a prefix too, but no name of a service.
    """
    is_service = environ.get("JUPYTERHUB_SERVICE_NAME") and environ.get("JUPYTERHUB_SERVICE_PREFIX")
    return bool(is_service) and not _OTHERWISE & set(arguments)


def opened_early(arguments: Sequence[str], environ: Mapping[str, str]) -> socket.socket | None:
    """Open the port if it is wanted and free; else it is for later."""
    with suppress(OSError, ValueError):
        return opened(environ) if is_wanted(arguments, environ) else None
    return None


def opened(environ: Mapping[str, str]) -> socket.socket:
    """Listen where `JUPYTERHUB_SERVICE_URL` says; raise OSError, or ValueError for a bad port.

    Its host may be a name that others know this machine by: then on all interfaces.
    """
    url = urlsplit(environ.get("JUPYTERHUB_SERVICE_URL", ""))
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        return _listening(url.hostname or "127.0.0.1", port)
    except OSError as error:
        if not isinstance(error, socket.gaierror) and error.errno != errno.EADDRNOTAVAIL:
            raise
        return _listening("::" if socket.has_dualstack_ipv6() else "0.0.0.0", port)  # noqa: S104


def _listening(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = found[0]
    return socket.create_server(
        address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::"
    )
