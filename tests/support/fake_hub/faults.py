"""What may go wrong with an answer: each gives a `Fault` for `HttpFake.plan`."""

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .exchange import Fault, Reply, Request, reply


def always(answered: Reply) -> Fault:
    """Answer this, whatever was asked."""
    return lambda request, answer: answered


def html(status: int = 200) -> Fault:
    """Answer as a login page in front of the Hub does."""
    page = "<!doctype html><html><title>Sign in</title></html>"
    return always(reply(status, page, Content_Type="text/html"))


def retry_after(status: int, seconds: object) -> Fault:
    """Answer 429 or 503 with Retry-After."""
    return always(reply(status, "come back later", Retry_After=str(seconds)))


def redirect(url: str, status: int = 302) -> Fault:
    """Send the client elsewhere."""
    return always(reply(status, "", Location=url))


def half_body(share: float = 0.5) -> Fault:
    """Give the true answer, but lose the connection within the body."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        whole = answer()
        return replace(whole, cut=int(len(whole.body) * share))

    return fault


def close() -> Fault:
    """Close the connection without a word."""
    return always(Reply(cut=-1))


def hang(released: threading.Event) -> Fault:
    """Answer truly, but only once `released` is set (or the fake is closed)."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        while not released.wait(0.02) and not request.closing.is_set():
            pass
        return answer()

    return fault


def dated(date: str | None) -> Fault:
    """Give the true answer with another Date header; None: without one."""
    return lambda request, answer: replace(answer(), date=date)


def rewritten(change: Callable[[Any], Any]) -> Fault:
    """Change the JSON of the true answer: what `change` returns is sent."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        return replace(true, body=json.dumps(change(json.loads(true.body))).encode())

    return fault


def before(action: Callable[[], object]) -> Fault:
    """Do something (add a user, stop a server), then answer truly."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        action()
        return answer()

    return fault


def after(action: Callable[[], object]) -> Fault:
    """Work out the true answer, then do something, then send the answer."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        true = answer()
        action()
        return true

    return fault


def huge(megabytes: int) -> Fault:
    """Answer 200 with so many megabytes of JSON."""
    return always(
        reply(200, b'["' + b"x" * (megabytes << 20) + b'"]', Content_Type="application/json")
    )


def bomb(megabytes: int) -> Fault:
    """Answer 200 with a small gzip body that unpacks to so many megabytes."""

    def fault(request: Request, answer: Callable[[], Reply]) -> Reply:
        packed = gzip.compress(b'["' + b" " * (megabytes << 20) + b'"]')
        return reply(200, packed, Content_Type="application/json", Content_Encoding="gzip")

    return fault


def drip(seconds: float, head: bool = False) -> Fault:
    """Answer truly, a byte of the body every so many seconds; with `head` of the headers too."""
    return lambda request, answer: replace(answer(), drip=seconds, drip_head=head)
