"""See what open JupyterLab tabs do to `last_activity`: the table of docs/browser-tabs.md.

    python tools/browser_tabs.py DIRECTORY [SECONDS]

DIRECTORY is a virtual environment with jupyterhub, jupyterlab, ipykernel and
configurable-http-proxy. A real Hub runs there, and Debian's Chromium opens a notebook for each
person. Every 20 s it prints how old the activity of each server and kernel is, in seconds.
"""

import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]
from chromium import chromium  # noqa: E402
from documentation import block  # noqa: E402
from real_hub import RealHub  # noqa: E402

PEOPLE = ("in-front", "hidden", "closed", "ended", "ended-hidden")
# What the page of the documentation lets servers do, sooner, for those whose kernels end.
CONFIG = f"""
c.Spawner.default_url = "/lab"
{block("docs/browser-tabs.md", "cull_connected").replace("c.Spawner.args.extend(", "ending = (")}
ending = [one.replace("=3600", "=30").replace("=300", "=5") for one in ending]


def hook(spawner):
    if spawner.user.name.startswith("ended"):
        spawner.args = [*spawner.args, *ending]


c.Spawner.pre_spawn_hook = hook
"""
HIDE = """() => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => true});
  Object.defineProperty(document, "visibilityState", {configurable: true, get: () => "hidden"});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def open_notebook(browser: Browser, hub: RealHub, name: str) -> Page:
    """Sign in, and start a notebook from the launcher."""
    page = browser.new_context().new_page()
    page.goto(f"{hub.public_url}hub/login")
    page.fill("#username_input", name)
    page.fill("#password_input", "any")
    page.click("#login_submit")
    page.wait_for_selector(".jp-Launcher", timeout=90_000)
    page.click('.jp-LauncherCard[data-category="Notebook"]')
    page.wait_for_selector(".jp-Notebook", timeout=90_000)
    return page


def ages(hub: RealHub, name: str) -> str:
    """Write how old the activity of a server and its kernels is, by the Hub and by itself."""
    token = hub.api("POST", f"/users/{name}/tokens", {"expires_in": 60}).json()["token"]
    base = f"{hub.get('/proxy')[f'/user/{name}/']['target']}/user/{name}/api/"

    def told(path: str) -> Any:
        url, headers = f"{base}{path}?no_track_activity=1", {"Authorization": f"token {token}"}
        return requests.get(url, headers=headers, timeout=20).json()

    now = time.time()

    def age(stamp: str) -> int:
        return round(now - datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp())

    kernels = [age(one["last_activity"]) for one in told("kernels")]
    by_hub, by_itself = hub.server(name)["last_activity"], told("status")["last_activity"]
    return f"{name:14} Hub {age(by_hub):4}  server {age(by_itself):4}  kernels {kernels}"


def watch(hub: RealHub, browser: Browser, seconds: int) -> None:
    """Open all tabs, hide and close some, and print what becomes of them."""
    pages = {name: open_notebook(browser, hub, name) for name in PEOPLE}
    for name in ("hidden", "ended-hidden"):
        pages[name].evaluate(HIDE)
    pages["closed"].context.close()
    for after in range(20, seconds + 1, 20):
        pages["in-front"].wait_for_timeout(20_000)
        print(f"-- {after} s", *(ages(hub, name) for name in PEOPLE), sep="\n", flush=True)


def main() -> int:
    """Run it."""
    python = Path(sys.argv[1]) / "bin" / "python"
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 180
    with (
        TemporaryDirectory() as scratch,
        RealHub(Path(scratch), "jupyter", activity_interval=5, python=python, config=CONFIG) as hub,
        chromium(shutil.which("chromium") or "chromium") as browser,
    ):
        for name in PEOPLE:
            hub.start_server(name)
        watch(hub, browser, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
