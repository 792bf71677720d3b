"""The page at `/` in a real browser: how it looks, refreshes, and that everybody can read it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
import requests
from chromium import chromium
from conftest import tool_or_skip
from exporter_process import Exporter
from fake_hub import FakeHub, FakeServer, Jupyter
from legibility import CONTRAST, listen_to, violations
from page_readings import (
    CULLERS_ROLE,
    DEFAULT,
    HOUR,
    RULES,
    STATES,
    after_a_pass,
    reading,
    server,
)
from playwright.sync_api import Browser, Page, Route, expect

from hub_idle_exporter.domain.model import User
from hub_idle_exporter.domain.policy import Policy, Rules
from hub_idle_exporter.serving.answering import HTML
from hub_idle_exporter.serving.assets import CONTENT_SECURITY_POLICY
from hub_idle_exporter.serving.page import html
from hub_idle_exporter.serving.reading import Reading, ServerFilter
from hub_idle_exporter.serving.view import view_of

pytestmark = pytest.mark.slow("the page in a browser")
WIDTHS = (320, 390, 768, 1280, 1920)
READ_ALOUD = ((320, "dark"), (1280, "light"))  # axe-core takes a second
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HOSTILE = "<script>alert('policy')</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(tool_or_skip("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that enforces, with a hostile policy and long names, and has culled."""
    at = tmp_path_factory.mktemp("page")
    (at / "policies.yaml").write_text(
        f"policies:\n  - name: \"{HOSTILE}\"\n    match: {{groups: ['<b>*']}}\n    timeout: 90m\n"
        f"  - name: {'long-' * 40}\n    match: {{users: ['gpu-*']}}\n    exempt: true\n"
    )
    with FakeHub() as hub, FakeServer() as rest, FakeServer() as busy:
        busy.jupyter = Jupyter()
        busy.jupyter.add_kernel("busy")
        for number_ in range(40):
            hub.add_server(f"user-{number_}", idle=number_ * 400, age=90_000, target=busy)
        hub.add_user("mallory" * 12, groups=["<b>x"])
        hub.add_server("mallory" * 12, "<img src=x onerror=alert(1)>", idle=9000, target=rest)
        hub.add_server("new", pending="spawn", idle=None, age=3)
        options = ["--enforce", "--grace=0", "--interval=60s", "--per-server-metrics"]
        options.append(f"--policy-file={at / 'policies.yaml'}")
        with Exporter(hub.url, hub.token, options, directory=at) as exporter:
            exporter.wait_event("culled")
            yield exporter


@pytest.fixture(scope="module")
def unseen() -> Iterator[Exporter]:
    """An exporter whose Hub is down."""
    with FakeHub() as hub:
        hub.hang_up()
        options = ["--enforce", "--interval=60s"]
        with Exporter(hub.url, hub.token, options) as exporter:
            exporter.wait_event("poll_failed")
            yield exporter


@pytest.fixture(scope="module")
def unsafe() -> Iterator[Exporter]:
    """An exporter that stops servers though it cannot ask them."""
    with FakeHub() as hub:
        hub.tokens[hub.token].scopes = [*CULLERS_ROLE]
        for number_ in range(3):
            hub.add_server(f"user-{number_}", idle=7200)
        options = ["--enforce", "--busy-check=auto", "--grace=0", "--interval=60s"]
        with Exporter(hub.url, hub.token, options) as exporter:
            exporter.wait_event("culled", count=3)
            yield exporter


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", ["seen", "unseen", "unsafe"])
def test_in_a_browser(
    browser: Browser,
    request: pytest.FixtureRequest,
    state: str,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    exporter: Exporter = request.getfixturevalue(state)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints, asked = listen_to(page)
    page.goto(f"{exporter.address}/")
    for unfolded in (False, True):
        if unfolded:
            unfold(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CONTRAST) == []
    assert (width, scheme) not in READ_ALOUD or violations(page) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
    assert dark is (scheme == "dark")
    page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [f"{exporter.address}/"]


def unfold(page: Page) -> None:
    """Open everything that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")


def shown(browser: Browser, given: Reading, **more: Any) -> Page:
    """Open a page made from a reading."""
    page = browser.new_page(**more)
    source = html(view_of(given))
    page.route("http://page/", lambda route: route.fulfill(body=source, content_type=HTML))
    page.goto("http://page/")
    return page


@pytest.mark.parametrize("state", STATES)
def test_everybody_can_read_it_in_every_state(browser: Browser, state: str) -> None:
    page = shown(browser, STATES[state]())
    unfold(page)
    assert violations(page) == []
    page.close()


def test_on_a_phone_the_usual_state_is_three_screens_high(browser: Browser) -> None:
    page = shown(browser, after_a_pass(), viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollHeight") <= 3 * 844
    page.close()


# ---- refreshing ---------------------------------------------------------------------------------


class Changing:
    """A page whose content changes when a test says so; it refreshes by its own script."""

    def __init__(self, browser: Browser, given: Reading) -> None:
        self.given, self.answers = given, True
        self.source: str | None = None  # instead of the page
        self.held = False
        self.waiting: list[Route] = []
        self.page = browser.new_page()
        self.page.clock.install()
        self.complaints, self.asked = listen_to(self.page)
        self.page.route("http://page/**", self._answer)
        self.page.goto("http://page/")

    def _answer(self, route: Route) -> None:
        if self.held:
            self.held = False
            self.waiting.append(route)
        elif self.answers:
            self._fulfil(route, html(view_of(self.given)) if self.source is None else self.source)
        else:
            route.abort()

    def _fulfil(self, route: Route, source: str) -> None:
        policy = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        route.fulfill(body=source, content_type=HTML, headers=policy)

    def release(self, source: str) -> None:
        """Let the answer arrive that has waited."""
        self._fulfil(self.waiting.pop(), source)

    def later(self) -> None:
        """Let the time pass after which the page is read again."""
        self.page.clock.run_for(60_000)

    def says(self, words: str) -> None:
        """Wait until the page says something."""
        self.page.get_by_text(words).first.wait_for()


@pytest.fixture
def changing(browser: Browser) -> Iterator[Changing]:
    open_page = Changing(browser, reading(per_server=True))
    yield open_page
    open_page.page.close()
    assert [one for one in open_page.complaints if "ERR_FAILED" not in one] == []


def test_it_refreshes_and_what_a_person_does_stays(changing: Changing) -> None:
    """Focus, selection, what is unfolded, and what is chosen in the filter."""
    page = changing.page
    page.locator("#list summary").click()
    page.get_by_label("Policy").select_option("gpu")
    page.locator("#list summary").focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    changing.given = reading([User("zoe", False, (), {"": server(7 * HOUR)})], per_server=True)
    changing.later()
    changing.says("zoe")
    assert page.title().startswith("1 idle of 1")
    assert page.locator("#list").get_attribute("open") is not None
    assert page.get_by_label("Policy").input_value() == "gpu"
    assert page.evaluate("document.activeElement.closest('details').id") == "list"
    assert page.evaluate("getSelection().toString()") == "JupyterHub idle servers"


def test_whatever_comes_and_goes_what_a_person_does_stays(changing: Changing) -> None:
    """Notices and parts of the page come and go with the state of the Hub."""
    page = changing.page
    page.locator("#part-polls summary").click()
    for state in STATES:
        changing.given = replace(
            STATES[state](), exporter_version=f"of {state}", asked=ServerFilter()
        )
        page.locator("#part-polls summary").focus()
        changing.later()
        changing.says(f"hub-idle-exporter of {state}.")
        assert page.evaluate("document.activeElement.closest('section')?.id") == "part-polls", state
        assert page.locator("#part-polls details").get_attribute("open") is not None, state
        assert page.get_by_role("button", name="Pause refreshing").is_visible(), state
    changing.given = reading(per_server=True)
    changing.later()
    changing.page.get_by_role("button", name="Pause refreshing").click()
    assert changing.page.get_by_role("button", name="Resume refreshing").is_visible()


def test_the_filter_follows_the_policies_and_keeps_what_is_chosen(changing: Changing) -> None:
    page = changing.page
    page.locator("#list summary").click()
    page.get_by_label("Policy").select_option("gpu")
    rules = Rules((Policy("new", HOUR), *RULES.policies))
    changing.given = reading(rules=rules, per_server=True, exporter_version="2")
    changing.later()
    changing.says("hub-idle-exporter 2.")
    options = page.get_by_label("Policy").locator("option").all_inner_texts()
    assert options == ["any", "new", "staff", "gpu", "default"]
    assert page.get_by_label("Policy").input_value() == "gpu"
    changing.given = reading(rules=Rules((DEFAULT,)), per_server=True, exporter_version="3")
    changing.later()
    changing.says("hub-idle-exporter 3.")
    assert page.get_by_label("Policy").input_value() == ""


@pytest.mark.parametrize(
    "other", ["<title>Sign in</title><form>", "", "half of it"], ids=["login", "empty", "cut off"]
)
def test_another_answer_is_not_taken_for_the_page_and_the_alarm_goes_on_working(
    changing: Changing, other: str
) -> None:
    """A proxy in front may answer 200 with its own page; then the exporter may die."""
    page, alarm = changing.page, "This page cannot be refreshed."
    source = html(view_of(reading()))
    changing.source = source[: len(source) // 2] if other == "half of it" else other
    changing.later()
    changing.says(alarm)
    assert page.get_by_role("heading", name="JupyterHub idle servers").is_visible()
    changing.source = None
    changing.later()
    page.get_by_text(alarm).wait_for(state="hidden")
    changing.answers = False
    changing.later()
    changing.says(alarm)
    assert page.get_by_role("button", name="Pause refreshing").is_visible()


def test_a_page_in_the_background_goes_on_telling_by_its_icon(changing: Changing) -> None:
    page = changing.page
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    changing.answers = False
    changing.later()
    expect(page).to_have_title(re.compile("^Not refreshed"))
    assert icon(page) == "b3261e"


# Lets the script go on with what has arrived; the page's clock stands still.
TURNS = """async () => {
  for (let turn = 0; turn < 50; turn++)
    await new Promise((done) => {
      const channel = new MessageChannel();
      channel.port1.onmessage = done;
      channel.port2.postMessage(0);
    });
}"""


def test_an_older_answer_does_not_replace_a_newer_one(changing: Changing) -> None:
    changing.held = True  # the next answer waits
    with changing.page.expect_request("http://page/"):
        changing.later()
    changing.given = reading(exporter_version="newer")
    changing.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    changing.says("hub-idle-exporter newer.")
    with changing.page.expect_event("requestfinished"):
        changing.release(html(view_of(reading(exporter_version="older"))))
    changing.page.evaluate(TURNS)
    assert "hub-idle-exporter newer." in changing.page.inner_text("footer")


def icon(page: Page) -> str:
    """Give the colour of the icon."""
    href = page.locator("link[rel=icon]").get_attribute("href") or ""
    return href.partition("fill='%23")[2][:6]


def test_after_any_number_of_states_it_looks_as_if_it_was_loaded_anew(changing: Changing) -> None:
    begins = icon(changing.page)
    for state in (*STATES, *sorted(STATES), "failed"):
        changing.given = replace(STATES[state](), exporter_version=f"of {state}")
        changing.later()
        changing.says(f"hub-idle-exporter of {state}.")
    refreshed = icon(changing.page), text(changing.page)
    assert refreshed[0] != begins
    changing.page.reload()
    assert refreshed == (icon(changing.page), text(changing.page))


def text(page: Page) -> list[str]:
    """Give all words, hidden ones too, but those of the filter, which belongs to the person."""
    page.evaluate("document.querySelectorAll('form, script').forEach((one) => one.remove())")
    return (page.locator("body").text_content() or "").split()


def test_it_refreshes_as_often_as_the_newest_page_says(changing: Changing) -> None:
    """The exporter may have been started again with another --interval."""
    assert changing.page.locator("body").get_attribute("data-refresh") == "60"
    changing.given = reading(interval=5.0, exporter_version="newer")
    changing.later()
    changing.says("hub-idle-exporter newer.")
    assert changing.page.locator("body").get_attribute("data-refresh") == "5"
    changing.given = reading(interval=5.0, exporter_version="newest")
    changing.page.clock.run_for(6_000)
    changing.says("hub-idle-exporter newest.")


def test_it_can_be_paused_and_resumed(changing: Changing) -> None:
    changing.page.get_by_role("button", name="Pause refreshing").click()
    asked = len(changing.asked)
    changing.given = reading(exporter_version="9.9.9")
    changing.later()
    assert len(changing.asked) == asked
    changing.page.get_by_role("button", name="Resume refreshing").click()
    changing.says("hub-idle-exporter 9.9.9")


def test_an_exporter_that_does_not_answer_is_told_until_it_does(changing: Changing) -> None:
    """Otherwise the last numbers would stand there as if they were current."""
    changing.answers = False
    changing.later()
    changing.says("This page cannot be refreshed.")
    assert (changing.page.title()[:13], icon(changing.page)) == ("Not refreshed", "b3261e")
    changing.answers = True
    changing.later()
    changing.page.get_by_text("This page cannot be refreshed.").wait_for(state="hidden")
    assert (changing.page.title()[:11], icon(changing.page)) == ("3 idle of 6", "2e8555")


def test_without_scripts_it_is_complete_and_renews_itself(browser: Browser, seen: Exporter) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{seen.address}/")
    assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "60"
    assert page.get_by_role("button", name="Pause refreshing").count() == 0
    assert page.get_by_role("region", name="Policies").get_by_role("table").is_visible()
    context.close()


def test_the_filter_works_and_stays_in_the_address(browser: Browser, seen: Exporter) -> None:
    page = browser.new_page()
    page.goto(f"{seen.address}/")
    page.locator("#list summary").click()
    page.get_by_label("State").select_option("candidate")
    page.get_by_label("Reason").select_option("idle")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/?state=candidate&policy=&reason=idle**")
    listed = page.locator("#list table tbody tr")
    assert listed.count() in (31, 32)  # before the next poll, with the one that was stopped
    assert set(page.locator("#list td[data-column=Verdict]").all_inner_texts()) == {
        "is past its idle limit"
    }
    answer = requests.get(f"{seen.address}/?state=stop", timeout=15)
    assert (answer.status_code, answer.text) == (
        400,
        "state must be one of candidate, active, idle, pending, not 'stop'\n",
    )
    page.close()


def test_page_and_metrics_agree_on_what_protects_people(
    browser: Browser, seen: Exporter, unsafe: Exporter
) -> None:
    for exporter, tone, shown in ((seen, "good", 1), (unsafe, "warn", 0)):
        page = browser.new_page()
        page.goto(f"{exporter.address}/")
        assert page.locator("#mode").get_attribute("class") == f"mode {tone}"
        assert page.locator("#unmet pre").count() == 1 - shown
        page.close()
        for one in ("busy_check", "stop_token", "lease"):
            value = exporter.metrics().value("hub_idle_exporter_safeguard", safeguard=one)
            assert value == shown, one
        assert exporter.metrics().value("hub_idle_exporter_enforcement", state="on") == 1


def test_hostile_names_are_only_read_in_a_browser(browser: Browser, seen: Exporter) -> None:
    page = browser.new_page()
    page.goto(f"{seen.address}/")
    assert page.locator("script").count() == 1  # the page's own
    assert page.locator("img").count() == 0
    assert page.get_by_role("rowheader", name=HOSTILE).count() >= 1
    page.close()


def test_a_browser_runs_nothing_but_the_pages_own_script(browser: Browser, seen: Exporter) -> None:
    """Even if something got into the page that it should not have escaped."""
    policy = requests.get(f"{seen.address}/", timeout=15).headers["Content-Security-Policy"]
    assert policy == CONTENT_SECURITY_POLICY
    assert "unsafe" not in policy
    page = browser.new_page()
    source = html(view_of(reading())).replace("<main>", f"<main>{HOSTILE}<b onclick='x()'>!</b>")
    headers = {"Content-Security-Policy": policy}
    page.route("http://page/", lambda route: route.fulfill(
        body=source, content_type=HTML, headers=headers))  # fmt: skip
    complaints, _ = listen_to(page)
    page.goto("http://page/")
    assert "policy" not in complaints  # what the script would have said
    assert any("Content Security Policy" in one for one in complaints)
    page.close()


@pytest.mark.parametrize("width", [320, 1280])
def test_tables_stay_tables_for_those_who_listen(
    browser: Browser, seen: Exporter, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{seen.address}/")
    unfold(page)
    policies = page.get_by_role("region", name="Policies").get_by_role("table")
    assert policies.get_by_role("columnheader").count() == 7
    assert policies.get_by_role("rowheader").all_inner_texts()[-1] == "default"
    assert page.get_by_role("heading", level=1).count() == 1
    page.close()
