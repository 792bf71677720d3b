"""The page inside a real Hub: who gets in, who may do what, and what is refused."""

import hashlib
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from conftest import MakeHub
from hub_pages import (
    ADMIN,
    ADMINS,
    EVERYBODY,
    NAME,
    Form,
    Inside,
    elsewhere,
    hub_with_page,
    inside,
    signed_in,
    start_with_page,
)
from real_hub import RealHub
from tornado.web import decode_signed_value

from hub_idle_exporter.demo.launch import free_ports
from hub_idle_exporter.domain.labels import Cause, Outcome, Withheld
from hub_idle_exporter.hub.errors import HubError
from hub_idle_exporter.serving.hub_page import guard

pytestmark = pytest.mark.slow("the page inside real JupyterHubs")

SCRIPT, MAIL = "<script>alert(1)<b>", "we ird@ex.org"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    with hub_with_page(tmp_path_factory.mktemp("hub-page"), base_url="/jhub/") as running:
        yield running


@pytest.fixture
def page(hub: RealHub) -> Iterator[Inside]:
    with inside(hub) as served:
        yield served


def sent(session: requests.Session, page: Inside, form: Form, **headers: str) -> requests.Response:
    """Send a form as a browser does; `headers` in place of what it would say."""
    address = urlsplit(page.url)
    origin = f"{address.scheme}://{address.netloc}"
    given = {"Origin": origin} | {name.replace("_", "-"): value for name, value in headers.items()}
    return session.post(f"{origin}{form.path}", form.fields, headers=given, timeout=30)


def seen(session: requests.Session, page: Inside, query: str = "") -> str:
    answer = session.get(f"{page.url}{query}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.text


# ---- signing in ---------------------------------------------------------------------------------


def test_a_stranger_is_sent_to_sign_in(page: Inside) -> None:
    page.desk.add("ana")
    answer = requests.get(page.url, timeout=30)
    assert urlsplit(answer.url).path == "/jhub/hub/login"
    assert "Your server" not in answer.text


def test_the_many_cookies_of_a_large_sign_in_are_taken(page: Inside) -> None:
    session = page.session("ana")
    session.cookies.set("sso", "x" * 12_000, path="/")
    assert "Idle servers" in seen(session, page)


def test_people_see_their_own_servers_and_nobody_elses(page: Inside) -> None:
    page.desk.add("ana", idle=1800)
    page.desk.add("ana", "lab")
    page.desk.add("bob", "secret-project")
    page.desk.add_entry("bob", Outcome.STOPPED, "other-secret")
    page.desk.add_entry("ana", Outcome.STOPPED)
    page.desk.add_entry("ana", Withheld.BUSY, "lab", "1 of 2 kernels busy")
    html = seen(page.session("ana"), page).replace("\N{NO-BREAK SPACE}", " ")
    assert "1 h without activity" in html
    assert "in 30 min, at" in html
    assert "Your server: stopped after 1 h without activity, 2 h ago" in html
    assert "a kernel was busy, or a terminal was open: 1 of 2 kernels busy" in html
    assert "bob" not in html
    assert "secret" not in html
    assert "All servers" not in html


@pytest.mark.parametrize("name", [SCRIPT, MAIL])
def test_names_that_are_hard_to_write(page: Inside, name: str) -> None:
    page.desk.add(name)
    page.desk.add("bob", SCRIPT)
    session = page.session(name)
    form = Form(seen(session, page), "keep", name)
    assert "is kept." in sent(session, page, form).text
    assert page.desk.calls == [("keep", name, name, "")]
    assert "<script>alert" not in seen(session, page)
    assert "<script>alert" not in seen(page.session(ADMIN), page, f"?user={SCRIPT}")


def test_an_administrator_sees_all_and_keeps_for_others(page: Inside) -> None:
    page.desk.add("ana")
    page.desk.add("bob", "lab")
    page.desk.add_entry("bob", Withheld.BUSY, "lab", "1 of 2 kernels busy")
    session = page.session(ADMIN)
    html = seen(session, page)
    assert "All servers: 2" in html
    assert "1 of 2 kernels busy" in html
    answer = sent(session, page, Form(html, "keep", "bob", "lab"))
    assert "Done: the server &#34;lab&#34; of bob is kept." in answer.text
    assert f", by {ADMIN}" in answer.text
    assert "Done:" not in seen(session, page), "it is said once"
    sent(session, page, Form(answer.text, "release", "bob", "lab"))
    assert page.desk.calls == [("keep", ADMIN, "bob", "lab"), ("release", ADMIN, "bob", "lab")]


def test_the_session_ends_with_the_hubs(page: Inside) -> None:
    page.desk.add("ana")
    session = page.session("ana")
    html = seen(session, page)
    session.get(f"{page.hub.public_url}hub/logout", timeout=30)
    assert urlsplit(session.get(page.url, timeout=30).url).path == "/jhub/hub/login"
    session = page.session("ana")
    # A form from before is refused, and so is one without a session.
    assert sent(session, page, Form(html, "keep", "ana")).status_code == 403
    session.cookies.clear()
    assert sent(session, page, Form(html, "keep", "ana")).status_code == 403
    assert page.desk.calls == []


def test_the_pages_own_logout_ends_both(page: Inside) -> None:
    session = page.session("ana")
    stolen = {f"service-{NAME}": session.cookies[f"service-{NAME}"]}
    session.get(f"{page.url}logout", timeout=30)
    assert f"service-{NAME}" not in session.cookies
    answer = requests.get(page.url, cookies=stolen, allow_redirects=False, timeout=30)
    assert answer.status_code == 302, "the Hub has revoked its token"


def test_a_session_survives_a_restart_and_a_sign_in_begins_again(hub: RealHub) -> None:
    with inside(hub) as page:
        session = page.session("ana")
        begun = signed_in(hub, "bob")
        first = begun.get(page.url, allow_redirects=False, timeout=30)
        back = begun.get(
            _absolute(page.hub, first.headers["Location"]), allow_redirects=False, timeout=30
        )
    with inside(hub) as page:
        assert session.get(page.url, allow_redirects=False, timeout=30).status_code == 200
        # The Hub sends bob back with a state that only the earlier process knew.
        answer = begun.get(_absolute(hub, back.headers["Location"]), timeout=30)
        assert (answer.status_code, answer.url) == (200, page.url)
    with inside(hub, key=b"another key, so that no cookie can be read") as page:
        assert session.get(page.url, timeout=30).status_code == 200
        answer = begun.get(_absolute(hub, back.headers["Location"]), timeout=30)
        assert (answer.status_code, answer.url) == (200, page.url)


def _absolute(hub: RealHub, location: str) -> str:
    address = urlsplit(hub.public_url)
    return location if "//" in location else f"{address.scheme}://{address.netloc}{location}"


def test_a_sign_in_of_another_browser_is_not_taken_over(page: Inside) -> None:
    """A link with somebody's code does not sign anybody else in, nor does a replayed one."""
    mallory = signed_in(page.hub, "mallory")
    first = mallory.get(page.url, allow_redirects=False, timeout=30)
    back = mallory.get(
        _absolute(page.hub, first.headers["Location"]), allow_redirects=False, timeout=30
    )
    link = _absolute(page.hub, back.headers["Location"])
    victim = requests.Session()
    answer = victim.get(link, timeout=30)
    assert (answer.status_code, "You are not signed in" in answer.text) == (403, True)
    assert f"service-{NAME}" not in victim.cookies
    assert mallory.get(link, timeout=30).status_code == 200
    # Used up: who is signed in already is led to the page, everybody else gets nothing.
    assert mallory.get(link, timeout=30).url == page.url
    assert requests.get(link, timeout=30).status_code == 403


def test_a_sign_in_that_the_hub_or_they_refuse(page: Inside) -> None:
    session = signed_in(page.hub, "ana")
    first = session.get(page.url, allow_redirects=False, timeout=30)
    state = parse_qs(urlsplit(first.headers["Location"]).query)["state"][0]
    answer = session.get(
        f"{page.url}oauth_callback?error=access_denied&error_description=<b>&state={state}",
        timeout=30,
    )
    assert (answer.status_code, "You are not signed in" in answer.text) == (403, True)
    assert "<b>" not in answer.text


def test_those_who_only_wait_keep_nobody_from_the_page(page: Inside) -> None:
    """The limits of the port hold here, too."""
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(socket.create_connection(("127.0.0.1", page.port), timeout=30))
        assert requests.get(f"{page.url}-/healthy", timeout=30).status_code == 200
        assert page.session("ana")


def test_where_a_sign_in_leads_is_below_the_prefix(page: Inside) -> None:
    session = signed_in(page.hub, "ana")
    answer = session.get(f"{page.url}?user=a&next=//evil.example/", timeout=30)
    assert answer.url == f"{page.url}?user=a&next=//evil.example/"
    first = requests.get(page.url, allow_redirects=False, timeout=30)
    asked = parse_qs(urlsplit(first.headers["Location"]).query)
    assert asked["redirect_uri"] == [f"/jhub/services/{NAME}/oauth_callback"]
    assert asked["state"]
    assert asked["code_challenge_method"] == ["S256"]


def test_a_token_or_a_cookie_of_another_make_is_no_session(page: Inside) -> None:
    token = page.hub.user_token("ana")
    for more in (
        {"headers": {"Authorization": f"token {token}"}},
        {"params": {"token": token}},
        {"cookies": {f"service-{NAME}": token}},
    ):
        answer = requests.get(page.url, allow_redirects=False, timeout=30, **more)  # type: ignore[arg-type]
        assert answer.status_code == 302, more


def test_begun_sign_ins_do_not_pile_up(page: Inside) -> None:
    """Neither in the browser, whose requests would become too large, nor in memory."""
    session = requests.Session()
    for _ in range(12):
        session.get(page.url, allow_redirects=False, timeout=30)
    assert len([one for one in session.cookies if "oauth-state" in one.name]) <= 4


# ---- the Hub, the package, the desk -------------------------------------------------------------


def test_without_the_hub_it_says_so(make_hub: MakeHub) -> None:
    services = [elsewhere(*free_ports(1))]
    hub = start_with_page(make_hub("paper", services=services, roles=[EVERYBODY], start=False))
    with inside(hub) as page:
        page.desk.add("ana")
        session = page.session("ana")
        form = Form(seen(session, page), "keep", "ana")
        hub.kill()
        answer = session.get(page.url, timeout=30)
        assert (answer.status_code, "JupyterHub does not answer" in answer.text) == (502, True)
        assert sent(session, page, form).status_code == 502
        assert page.desk.calls == []


def test_who_may_not_use_the_service_is_told_by_the_hub(make_hub: MakeHub) -> None:
    """Without the role only administrators enter."""
    services = [elsewhere(*free_ports(1))]
    hub = start_with_page(make_hub("paper", services=services, config=ADMINS, start=False))
    with inside(hub) as page:
        assert signed_in(hub, "ana").get(page.url, timeout=30).status_code == 403
        assert page.session(ADMIN).get(page.url, timeout=30).status_code == 200


def test_without_jupyterhubs_package_it_says_what_to_install(
    page: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With status 200: a Hub that starts waits for such an answer."""
    monkeypatch.setitem(sys.modules, "jupyterhub.services.auth", None)  # as if it were not there
    answer = requests.get(page.url, timeout=30)
    assert answer.status_code == 200
    assert "pip install &#39;hub-idle-exporter[hub]&#39;" in answer.text


def test_a_desk_that_cannot_answer(page: Inside) -> None:
    page.desk.add("ana")
    session, admin = page.session("ana"), page.session(ADMIN)
    form = Form(seen(session, page), "keep", "ana")
    page.desk.refusal = "It is too late: this server is being stopped."
    assert "It is too late: this server is being stopped." in sent(session, page, form).text
    page.desk.refusal, page.desk.polled = "", False
    assert "The last poll of JupyterHub failed" in seen(admin, page)
    page.desk.error = HubError(Cause.TIMEOUT, "no answer")
    assert session.get(page.url, timeout=30).status_code == 502


def test_why_it_cannot_start_is_for_administrators(page: Inside) -> None:
    session, admin = page.session("ana"), page.session(ADMIN)
    page.front.fail("policy file /secret/place: broken")
    assert "/secret/place" in seen(admin, page)
    text = seen(session, page)
    assert "Please tell an administrator" in text
    assert "secret" not in text
    page.front.state = None
    assert "One moment." in seen(session, page)


def test_a_form_of_an_earlier_start_keeps_nothing(page: Inside) -> None:
    page.desk.add("ana", age=7200)
    session = page.session("ana")
    form = Form(seen(session, page), "keep", "ana")
    page.desk.add("ana", idle=5, age=5)
    assert "It was restarted meanwhile" in sent(session, page, form).text
    assert page.desk.servers["ana", ""].keep is None


# ---- forged requests ----------------------------------------------------------------------------


def test_a_form_for_somebody_elses_server_is_refused(page: Inside) -> None:
    """With the other's name put in, and with a form that an administrator has seen."""
    page.desk.add("ana")
    page.desk.add("mallory")
    mallory, admin = page.session("mallory"), page.session(ADMIN)
    form = Form(seen(mallory, page), "keep", "mallory")
    form.fields["user"] = "ana"
    assert sent(mallory, page, form).status_code == 403
    of_admin = Form(seen(admin, page), "keep", "ana")
    assert sent(mallory, page, of_admin).status_code == 403
    assert page.desk.calls == []


def test_a_form_with_a_true_token_for_somebody_elses_server_is_refused(page: Inside) -> None:
    """Nobody but its owner gets such a form: this one is signed here."""
    page.desk.add("ana")
    page.desk.add("mallory")
    mallory = page.session("mallory")
    form = Form(seen(mallory, page), "keep", "mallory")
    (cookie,) = (one for one in mallory.cookies if one.name == f"service-{NAME}")
    token = decode_signed_value(page.front.key, cookie.name, cookie.value or "")
    assert token is not None
    form.fields["user"] = "ana"
    said = ("keep", "ana", "", form.fields["started"])
    session = hashlib.sha256(token).hexdigest()
    form.fields["token"] = guard.form_token(page.front.key, session, *said)
    answer = sent(mallory, page, form)
    assert answer.status_code == 403
    assert "Only administrators may keep or release servers of others" in answer.text
    assert page.desk.calls == []


@pytest.mark.parametrize("field", ["token", "started", "server", "user"])
def test_a_token_is_for_one_form_only(page: Inside, field: str) -> None:
    """A script that has read what one form sends has nothing for another."""
    page.desk.add(ADMIN)
    page.desk.add("ana", "lab")
    session = page.session(ADMIN)
    form, other = (Form(seen(session, page), "keep", *key) for key in ((ADMIN,), ("ana", "lab")))
    form.fields[field] = other.fields[field] + ("" if field != "started" else "0")
    assert sent(session, page, form).status_code == 403
    form = Form(seen(session, page), "keep", ADMIN)
    form.path = form.path.replace("/keep", "/release")
    assert sent(session, page, form).status_code == 403
    assert page.desk.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Dest": "iframe"},
        {"Service_Worker_Navigation_Preload": "true"},
    ],
)
def test_a_form_that_another_page_or_a_script_has_sent(
    page: Inside, headers: Mapping[str, str]
) -> None:
    page.desk.add("ana")
    session = page.session("ana")
    form = Form(seen(session, page), "keep", "ana")
    assert sent(session, page, form, **headers).status_code == 403
    assert page.desk.calls == []
    usual = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate"}
    assert sent(session, page, form, **usual, Sec_Fetch_Dest="document").status_code == 200
    assert len(page.desk.calls) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "empty"},
        {"Service-Worker-Navigation-Preload": "anything"},
    ],
)
def test_a_script_cannot_read_the_page(page: Inside, headers: Mapping[str, str]) -> None:
    page.desk.add("ana")
    session = page.session("ana")
    for path in ("", "logout", "oauth_callback"):
        answer = session.get(f"{page.url}{path}", headers=headers, timeout=30)
        assert (answer.status_code, "token" in answer.text) == (403, False), path
    assert seen(session, page), "and nobody is signed out by it"


def test_what_is_not_there_and_what_each_answer_says(page: Inside) -> None:
    session = page.session("ana")
    for path in ("metrics", "keep/", "x"):
        assert session.get(f"{page.url}{path}", timeout=30).status_code == 404
    for path in ("keep", "release"):
        assert session.get(f"{page.url}{path}", timeout=30).status_code == 405
    assert session.post(page.url, timeout=30).status_code == 405
    for path in ("", "x", "-/ready"):
        headers = session.get(f"{page.url}{path}", timeout=30).headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Opener-Policy"] == "noopener-allow-popups"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
    assert session.head(page.url, timeout=30).status_code == 200


# ---- the list of administrators -----------------------------------------------------------------


def test_ten_thousand_servers_in_pages(page: Inside) -> None:
    for number in range(10_000):
        page.desk.add(f"user-{number:05}", idle=float(number))
    session = page.session(ADMIN)
    first = seen(session, page, "?sort=user")
    assert "1\u201350 of 10,000" in first
    assert "Page 1 of 200" in first
    assert "user-00049" in first
    assert "user-00050" not in first
    assert "user-09999" in seen(session, page, "?sort=user&page=200")
    assert "user-09999" in seen(session, page, "?sort=user&reverse=1")
    assert "user-09999" in seen(session, page, "?sort=user&page=999999")
    filtered = seen(session, page, "?user=user-0777&sort=user")
    assert "1\u201310 of 10" in filtered
    form = Form(filtered, "keep", "user-07771")
    answer = sent(session, page, form)
    assert answer.url.endswith("?user=user-0777&sort=user"), "it leads back to the same list"
    assert "1\u20131 of 1<" in seen(session, page, "?kept=1")
    assert "No server matches." in seen(session, page, "?policy=gpu")
    assert len(first) < 200_000
