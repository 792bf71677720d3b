"""The port of the page inside the Hub."""

import socket
import ssl
from collections.abc import Mapping

from ..crowd import Limits
from ..port import Port
from ..server import WebServer
from .front import Front
from .handlers import application_of

# All of them come from the Hub's proxy, by one address, with all cookies that browsers have for it.
_LIMITS = Limits(total=500, per_address=500, answers=64, head=32 * 1024)


def page_server(front: Front, listener: socket.socket, environ: Mapping[str, str]) -> WebServer:
    """Return the web server for a port that is open already."""
    tls = _internal_tls(environ)
    port = Port("", 0, application_of(front), lambda: tls, _LIMITS)
    port.take(listener)
    return WebServer([port])


def _internal_tls(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return the TLS of a Hub with internal_ssl: only the Hub and its proxy are let in."""
    certificate, key = environ.get("JUPYTERHUB_SSL_CERTFILE"), environ.get("JUPYTERHUB_SSL_KEYFILE")
    if not certificate or not key:
        return None
    authority = environ.get("JUPYTERHUB_SSL_CLIENT_CA") or None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.load_cert_chain(certificate, key)
    if authority:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
