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

HEADERS = {
    # A page that opens this one in a window cannot read it there. With the better known
    # `same-origin` it can if it sends that itself.
    "Cross-Origin-Opener-Policy": "noopener-allow-popups",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # With `no-referrer` browsers send `Origin: null` with the page's own forms.
    "Referrer-Policy": "same-origin",
}


def is_page_view(request: HTTPServerRequest) -> bool:
    """Tell whether a browser shows the answer as a page, as far as it says.

    Browsers say nothing by plain HTTP, unless the host is this machine. A service worker of a
    user's server may be given the page in advance, as if it was only shown, and read it: with a
    header that cannot be left out.
    """
    if "Service-Worker-Navigation-Preload" in request.headers:
        return False
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


def form_token(key: bytes, session: str, *form: str) -> str:
    """Return what a form carries, and nobody else knows: one session's, for one change of a server.

    A service worker of a user's server can read what a form sends. It gets a token for nothing else
    than what was asked for anyway.
    """
    fields = "".join(f"{len(field)}:{field}" for field in ("form", session, *form))
    return hmac.new(key, fields.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def is_form_token(given: str, key: bytes, session: str, *form: str) -> bool:
    """Tell whether a form carries its token."""
    expected = form_token(key, session, *form)
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())
