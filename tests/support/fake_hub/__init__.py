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

From the bottom up: `exchange` (requests and answers), `faults`, `http_fake` (the HTTP server with
its log and plans), `records` (users, servers, tokens), `scopes`, `user_server` (a user's own
server), `state` (what the Hub holds and how a test builds it), then the API over that state:
`access`, `listing` with `models`, `stopping`, `tokens`, `proxy`, and `hub`, which sends each
request to one of them.
"""

from .exchange import Fault, Reply, Request, reply
from .faults import (
    after,
    always,
    before,
    bomb,
    close,
    dated,
    drip,
    half_body,
    hang,
    html,
    huge,
    redirect,
    retry_after,
    rewritten,
)
from .http_fake import HttpFake, closed_port
from .hub import FakeHub
from .listing import PAGINATION
from .records import Server, Token, User
from .scopes import ADMIN, ENFORCE, MINT, MONITOR, OF_PROBER, PROBER, SUBSCOPES
from .user_server import FakeServer, Jupyter

__all__ = [
    "ADMIN",
    "ENFORCE",
    "MINT",
    "MONITOR",
    "OF_PROBER",
    "PAGINATION",
    "PROBER",
    "SUBSCOPES",
    "FakeHub",
    "FakeServer",
    "Fault",
    "HttpFake",
    "Jupyter",
    "Reply",
    "Request",
    "Server",
    "Token",
    "User",
    "after",
    "always",
    "before",
    "bomb",
    "close",
    "closed_port",
    "dated",
    "drip",
    "half_body",
    "hang",
    "html",
    "huge",
    "redirect",
    "reply",
    "retry_after",
    "rewritten",
]
