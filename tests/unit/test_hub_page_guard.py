"""Which requests the page inside the Hub takes for a person's own: what browsers say of them."""

from collections.abc import Mapping

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from hub_idle_exporter.serving.hub_page import guard
from hub_idle_exporter.serving.hub_page.service import Service

KEY, SESSION = b"k" * 32, "a session"
FORM = ("keep", "ana", "lab", "2026-11-26T14:05:00+00:00")
VIEW = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
OWN = {**VIEW, "Sec-Fetch-Site": "same-origin", "Origin": "https://hub.example"}


def request(headers: Mapping[str, str]) -> HTTPServerRequest:
    given = HTTPHeaders({"Host": "hub.example", **headers})
    return HTTPServerRequest(headers=given, start_line=RequestStartLine("GET", "/", "HTTP/1.1"))


@pytest.mark.parametrize("headers", [{}, VIEW, {"Sec-Fetch-Mode": "navigate"}])
def test_a_page_view_is_one(headers: Mapping[str, str]) -> None:
    """Also where the browser says nothing: by plain HTTP."""
    assert guard.is_page_view(request(headers))


@pytest.mark.parametrize(
    "headers",
    [
        {**VIEW, "Sec-Fetch-Mode": "cors"},
        {**VIEW, "Sec-Fetch-Dest": "iframe"},
        {**VIEW, "Sec-Fetch-Dest": "empty"},
        {**VIEW, "Service-Worker-Navigation-Preload": "true"},
        {"Service-Worker-Navigation-Preload": ""},
    ],
)
def test_what_a_script_or_a_frame_asks_for_is_no_page_view(headers: Mapping[str, str]) -> None:
    assert not guard.is_page_view(request(headers))


@pytest.mark.parametrize(
    "headers",
    [
        OWN,
        {"Origin": "http://hub.example"},
        {**OWN, "Host": "10.0.0.1", "X-Forwarded-Host": "hub.example, proxy"},
        {**OWN, "Host": "10.0.0.1", "Origin": "https://known.example"},
    ],
)
def test_a_form_of_the_page_itself(headers: Mapping[str, str]) -> None:
    """Under the host that the browser asked, that a proxy tells, or that the Hub knows."""
    assert guard.is_own_form(request(headers), {"known.example"})


@pytest.mark.parametrize(
    "headers",
    [
        VIEW,
        {**OWN, "Origin": "null"},
        {**OWN, "Origin": ""},
        {**OWN, "Origin": "https://evil.example"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {**OWN, "Sec-Fetch-Site": "same-site"},
        {**OWN, "Sec-Fetch-Site": "none"},
        {**OWN, "Sec-Fetch-Mode": "cors"},
    ],
)
def test_a_form_of_another_page_is_refused(headers: Mapping[str, str]) -> None:
    assert not guard.is_own_form(request(headers), frozenset({"known.example"}))


def test_a_form_token_is_of_one_session_and_one_change() -> None:
    token = guard.form_token(KEY, SESSION, *FORM)
    assert guard.is_form_token(token, KEY, SESSION, *FORM)
    assert not guard.is_form_token(token, b"x" * 32, SESSION, *FORM)
    assert not guard.is_form_token(token, KEY, "another session", *FORM)
    for number in range(len(FORM)):
        other = [*FORM[:number], "other", *FORM[number + 1 :]]
        assert not guard.is_form_token(token, KEY, SESSION, *other)
    assert not guard.is_form_token(token, KEY, SESSION, "keep", "analab", "", FORM[3])
    for odd in ("", "ü", "\ud800", token.upper()):
        assert not guard.is_form_token(odd, KEY, SESSION, *FORM)


def test_the_hub_tells_which_host_browsers_ask() -> None:
    public = {"JUPYTERHUB_PUBLIC_URL": "https://hub.example/jhub/services/idle-exporter/"}
    prefix = {"JUPYTERHUB_SERVICE_PREFIX": "/jhub/services/idle-exporter/"}
    assert Service.of(prefix).public_hosts == frozenset()
    assert Service.of({**prefix, **public}).public_hosts == {"hub.example"}


def test_where_the_hubs_own_pages_are() -> None:
    """With subdomains at another host than this page."""
    base = {"JUPYTERHUB_BASE_URL": "/jhub/"}
    assert Service.of(base).hub == "/jhub/hub/"
    host = {"JUPYTERHUB_HOST": "https://hub.example"}
    assert Service.of(base | host).hub == "https://hub.example/jhub/hub/"
    assert Service.of({}).hub == "/hub/"
