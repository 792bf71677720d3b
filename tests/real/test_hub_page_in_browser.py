"""The page inside a real Hub in a real browser: how it is used, read, and attacked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from chromium import chromium
from conftest import older_hub_python, tool_or_skip
from fake_hub import always, reply
from hub_pages import ADMIN, NAME, Inside, hub_with_page, inside
from legibility import CONTRAST, listen_to, violations
from playwright.sync_api import Browser, BrowserContext, Page, expect
from real_hub import RealHub

from hub_idle_exporter.domain.keeping import Keep
from hub_idle_exporter.domain.labels import Outcome, Withheld

pytestmark = pytest.mark.slow("a browser at real JupyterHubs")

SCRIPT = "<script>alert(1)<b>"
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(tool_or_skip("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    with hub_with_page(tmp_path_factory.mktemp("hub-page")) as running:
        yield running


@pytest.fixture
def page(hub: RealHub) -> Iterator[Inside]:
    with inside(hub) as served:
        yield served


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    yield opened
    opened.close()


def signs_in(tab: Page, served: Inside, user: str) -> None:
    """Let somebody come to the page, sign in at the Hub, and be led back."""
    tab.goto(served.url)
    tab.get_by_label("Username").fill(user)
    tab.get_by_role("button", name="Sign in").click()
    tab.wait_for_url(served.url)


# ---- using it -----------------------------------------------------------------------------------


def uses(served: Inside, context: BrowserContext) -> None:
    """Sign in, keep and release a server, and sign out."""
    served.desk.add("ana", idle=1800)
    tab = context.new_page()
    complaints, _ = listen_to(tab)
    signs_in(tab, served, "ana")
    tab.get_by_role("button", name="Keep your server for 8 h").click()
    expect(tab.get_by_role("status")).to_have_text("Done: your server is kept.")
    tab.reload()
    expect(tab.get_by_role("status")).to_have_count(0)
    expect(tab.get_by_text("for another 8")).to_be_visible()
    tab.get_by_role("button", name="Release your server").click()
    expect(tab.get_by_role("status")).to_have_text("Done: your server is not kept any more.")
    assert [call[0] for call in served.desk.calls] == ["keep", "release"]
    assert complaints == []
    tab.get_by_role("link", name="Logout").click()
    tab.wait_for_url("**/hub/login**")
    tab.goto(served.url)
    expect(tab.get_by_label("Username")).to_be_visible()
    assert not [one for one in context.cookies() if one["name"] == f"service-{NAME}"]


def test_somebody_keeps_a_server(page: Inside, context: BrowserContext) -> None:
    uses(page, context)


def test_it_is_in_the_menu_of_the_hub(page: Inside, context: BrowserContext) -> None:
    tab = context.new_page()
    signs_in(tab, page, "ana")
    tab.get_by_role("link", name="Home", exact=True).click()
    tab.get_by_role("button", name="Services").click()
    tab.get_by_role("link", name=NAME).click()
    expect(tab).to_have_url(page.url)


def test_it_works_without_javascript(page: Inside, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    uses(page, context)
    context.close()


def test_on_an_older_hub(browser: Browser, tmp_path: Path) -> None:
    more = {"python": older_hub_python("5.5"), "base_url": "/jhub/"}
    with hub_with_page(tmp_path, **more) as older, inside(older) as served:
        context = browser.new_context()
        uses(served, context)
        context.close()


def test_an_administrator_finds_a_server_and_keeps_it(
    page: Inside, context: BrowserContext
) -> None:
    for number in range(120):
        page.desk.add(f"user-{number:03}", idle=60.0 * number)
    page.desk.add("gpu-1", idle=9000)
    tab = context.new_page()
    complaints, _ = listen_to(tab)
    signs_in(tab, page, ADMIN)
    tab.get_by_role("link", name="Next").click()
    expect(tab.get_by_text("Page 2 of 3")).to_be_visible()
    tab.get_by_role("link", name="User").click()
    expect(tab.get_by_role("columnheader", name="User")).to_have_attribute("aria-sort", "ascending")
    tab.locator("select[name=policy]").select_option("gpu")
    tab.get_by_role("button", name="Filter").click()
    rows = tab.locator("section[aria-labelledby=all] tbody tr")
    expect(rows).to_have_count(1)
    rows.get_by_role("button", name="Keep the server of gpu-1").click()
    expect(tab.get_by_role("status")).to_have_text("Done: the server of gpu-1 is kept.")
    expect(rows).to_have_count(1)  # the filter is still there
    tab.get_by_label("kept", exact=True).check()
    tab.locator("select[name=policy]").select_option("")
    tab.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(1)
    assert page.desk.calls == [("keep", ADMIN, "gpu-1", "")]
    assert complaints == []


# ---- reading it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
@pytest.mark.parametrize("user", ["ana", ADMIN])
def test_everybody_can_read_it(
    page: Inside, browser: Browser, user: str, width: int, scheme: Scheme
) -> None:
    at_work(page, user)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, locale="de-DE"
    )
    tab = context.new_page()
    signs_in(tab, page, user)
    tab.get_by_role("button", name="for 8 h").first.click()
    expect(tab.get_by_role("status")).to_be_visible()
    complaints, _ = listen_to(tab)
    tab.reload()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(CONTRAST) == []
    assert violations(tab) == []
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(33, 37, 41)"
    assert dark is (scheme == "dark")
    assert tab.evaluate("document.querySelector('header img').naturalWidth") > 0
    assert "UTC" not in tab.locator("time").first.inner_text(), "in the clock of who reads"
    assert complaints == []
    context.close()


def at_work(page: Inside, user: str) -> None:
    """Fill the desk with what there is to see, hostile names among it."""
    desk = page.desk
    desk.add(user, idle=2700)
    kept = desk.add(user, "thesis", idle=18_000)
    desk.servers[user, "thesis"] = replace(kept, keep=Keep(desk.now + 9000, ADMIN))
    announced = desk.add(user, SCRIPT, idle=3500)
    desk.servers[user, SCRIPT] = replace(announced, announced=True)
    desk.add("mallory" * 20, SCRIPT)
    desk.add("staff-sue")
    desk.add_entry(user, Outcome.STOPPED, "old")
    desk.add_entry(user, Withheld.BUSY, "x" * 80, "1 of 2 kernels busy")


def test_it_is_as_dark_as_the_hubs_pages(page: Inside, browser: Browser) -> None:
    """Whoever has chosen light or dark there, by the button, has it here, too."""
    context = browser.new_context(color_scheme="light")
    tab = context.new_page()
    tab.goto(f"{page.hub.public_url}hub/login")
    tab.get_by_role("button", name="Toggle dark mode").click()
    grounds = []
    for place in (f"{page.hub.public_url}hub/login", page.url):
        tab.goto(place)
        if place == page.url:
            signs_in(tab, page, "ana")
        grounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(33, 37, 41)"] * 2
    context.close()


# ---- attacking it: a user's server is a page of the same origin ---------------------------------

READS = """async (url) => {
  const found = {};
  const later = (ms) => new Promise((done) => setTimeout(done, ms));
  const token = (doc) => Boolean(doc && doc.querySelector("input[name=token]"));
  const loaded = async (what) => { // until it shows something else than what it began with
    for (let n = 0; n < 100; n++) {
      await later(20);
      try {
        if (what.closed) return false;
        const doc = what.contentDocument || what.document;
        if (doc && doc.URL.startsWith(url) && doc.readyState === "complete") return token(doc);
      } catch { return false; }
    }
    return false;
  };
  for (const mode of ["cors", "no-cors", "same-origin"]) {
    const answer = await fetch(url, { mode });
    found[mode] = answer.ok || (await answer.text()).includes("token");
  }
  for (const [kind, source] of [["iframe", "src"], ["object", "data"], ["embed", "src"]]) {
    const frame = document.createElement(kind);
    frame[source] = url;
    const done = new Promise((go) => { frame.onload = frame.onerror = go; });
    document.body.append(frame);
    await Promise.race([done, later(1000)]);
    try { found[kind] = token(frame.contentDocument); } catch { found[kind] = false; }
    frame.remove();
  }
  const popup = window.open(url);
  found.popup = await loaded(popup);
  const blank = window.open("about:blank");
  blank.opener = null;
  blank.location = url;
  found.blank = await loaded(blank);
  return found;
}"""
WORKER = """
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  if (PRELOAD) await self.registration.navigationPreload.enable();
  await self.clients.claim();
})()));
self.addEventListener("fetch", (event) => {
  if (!event.request.url.includes("/services/")) return;
  event.respondWith((async () => {
    const answer = (await event.preloadResponse) || (await fetch(event.request));
    self.read = (await answer.clone().text()).includes('name="token"') ? "read" : "refused";
    return answer;
  })());
});
self.addEventListener("message", (event) => event.source.postMessage(self.read));
"""
ASKS_WORKER = """async () => {
  const registration = await navigator.serviceWorker.ready;
  return new Promise((done) => {
    navigator.serviceWorker.onmessage = (event) => done(event.data);
    registration.active.postMessage("?");
  });
}"""


@pytest.fixture
def admins(page: Inside, context: BrowserContext) -> BrowserContext:
    """An administrator's browser, signed in at the page."""
    page.desk.add(ADMIN)
    page.desk.add("mallory")
    tab = context.new_page()
    signs_in(tab, page, ADMIN)
    expect(tab.locator("input[name=token]").first).to_be_attached()
    tab.close()
    return context


def evil(page: Inside, path: str, content: str, **headers: str) -> str:
    """Let mallory's server serve something; return its address."""
    page.hub.ensure_user("mallory")
    if not page.hub.server("mallory").get("ready"):
        page.hub.start_server("mallory")
    answer = reply(200, content, **headers)
    page.hub.paper.plan("GET", f"/user/mallory/{path}", always(answer))
    return f"{page.hub.public_url}user/mallory/{path}"


@pytest.mark.parametrize("opener", ["", "same-origin"])
def test_a_users_page_cannot_read_an_administrators(
    page: Inside, admins: BrowserContext, opener: str
) -> None:
    """Neither by its scripts nor in frames and windows, whatever it says of itself."""
    headers = {"Content_Type": "text/html"}
    if opener:
        headers["Cross_Origin_Opener_Policy"] = opener
    tab = admins.new_page()
    tab.goto(evil(page, f"page-{opener}", "<!doctype html><title>evil</title>", **headers))
    found = tab.evaluate(READS, page.url)
    assert len(found) == 8
    assert [way for way, worked in found.items() if worked] == []


@pytest.mark.parametrize("preload", ["false", "true"])
def test_a_service_worker_of_a_users_server_cannot_read_it(
    page: Inside, admins: BrowserContext, preload: str
) -> None:
    """One for the whole origin, which a server may ask for."""
    start = evil(page, "start", "<!doctype html><title>evil</title>", Content_Type="text/html")
    worker = WORKER.replace("PRELOAD", preload)
    more = {"Content_Type": "text/javascript", "Service_Worker_Allowed": "/"}
    script = evil(page, f"worker-{preload}.js", worker, **more)
    tab = admins.new_page()
    tab.goto(start)
    register = "(url) => navigator.serviceWorker.register(url, {scope: '/'}).then(() => 0)"
    tab.evaluate(register, script)
    tab.evaluate("() => navigator.serviceWorker.ready.then(() => 0)")
    seen = admins.new_page()
    answer = seen.goto(page.url)
    assert answer is not None
    assert answer.from_service_worker, "it stands between"
    assert answer.status == 403
    assert tab.evaluate(ASKS_WORKER) == "refused"


def test_a_form_of_a_users_page_changes_nothing(page: Inside, admins: BrowserContext) -> None:
    """Sent as a person would send it, from the same origin, with the server's true start."""
    started = page.desk.servers["mallory", ""].judged.seen.started
    assert started is not None
    fields = {"user": "mallory", "server": "", "started": started.isoformat(), "token": "x"}
    inputs = "".join(f"<input name={name} value='{value}'>" for name, value in fields.items())
    form = f"<form method=post action={page.url}keep>{inputs}<button>Win</button></form>"
    tab = admins.new_page()
    tab.goto(evil(page, "form", form, Content_Type="text/html"))
    tab.evaluate("(url) => history.pushState(null, '', url)", page.url)  # a false referrer
    tab.get_by_role("button").click()
    expect(tab.get_by_text("This form did not come from this page")).to_be_visible()
    assert page.desk.calls == []
