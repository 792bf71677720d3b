"""Which requests are refused because no person made them on this page.

Without subdomains a user's server is a page of the same origin: its script can send requests with
the cookies of whoever looks at it. What browsers say about a request, and no script can change,
tells most of them apart.
"""

import hashlib
import hmac
from collections.abc import Set
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

# A page that opens this one in a window cannot read it there, whatever it sends itself.
HEADERS = {
    "Cross-Origin-Opener-Policy": "noopener-allow-popups",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # With `no-referrer` browsers send `Origin: null` with the page's own forms.
    "Referrer-Policy": "same-origin",
}


def is_page_view(request: HTTPServerRequest) -> bool:
    """Tell whether a browser shows the answer as a page, as far as it says.

    Browsers say nothing by plain HTTP, unless the host is this machine.
    """
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    destination = request.headers.get("Sec-Fetch-Dest", "document")
    return (mode, destination) == ("navigate", "document")


def is_own_form(request: HTTPServerRequest, hosts: Set[str]) -> bool:
    """Tell whether a form was sent by a page of this origin, under one of the hosts that it has."""
    if not is_page_view(request):
        return False
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    # No page of another origin can set a header: what a proxy says is as good as the host.
    forwarded = request.headers.get("X-Forwarded-Host", "").split(",")[0].strip()
    origin = urlsplit(request.headers.get("Origin", ""))
    return bool(origin.netloc) and origin.netloc in {request.host, forwarded, *hosts}


def form_token(key: bytes, session: str) -> str:
    """Return what the forms of one session carry, and nobody else knows."""
    return hmac.new(key, b"form " + session.encode(), hashlib.sha256).hexdigest()


def is_form_token(given: str, key: bytes, session: str) -> bool:
    """Tell whether a form carries the token of its session."""
    return hmac.compare_digest(given.encode(), form_token(key, session).encode())
