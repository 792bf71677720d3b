"""Draw the page at `/` as a picture for the docs.

    python tools/screenshot_page.py [FILE] [WIDTH] [light|dark]

The page is that of a real exporter process, enforcing on the tests' fake Hub, whose servers and
people are made up with a fixed seed; it has polled and culled for some seconds when it is drawn.
"""

import random
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chromium import chromium  # noqa: E402
from exporter_process import Exporter  # noqa: E402
from fake_hub import FakeHub, FakeServer, Jupyter  # noqa: E402

HOUR = 3600.0
POLICIES = """\
policies:
  - name: staff
    match: {groups: [staff]}
    exempt: true
  - name: gpu
    match: {user_options: {profile: "gpu-*"}}
    timeout: 2h
    max_age: 1d
  - name: scratch
    match: {users: ["tmp-*"]}
    timeout: 15m
"""
OPTIONS = ("--enforce", "--grace=0", "--interval=5s", "--timeout=1h", "--max-culls=9")


def people(hub: FakeHub, busy: FakeServer, at_rest: FakeServer, in_use: FakeServer) -> None:
    """Run a small Hub's servers: most in use, some forgotten, a few computing in silence."""
    dice = random.Random(7)  # noqa: S311 - a made-up Hub
    for number in range(96):
        idle = dice.choice([dice.uniform(0, 900), dice.uniform(0, 3400), dice.uniform(0, 700)])
        hub.add_server(f"user-{number}", idle=idle, age=idle + dice.uniform(0, 9 * HOUR))
    for number in range(48):
        idle = dice.lognormvariate(9.6, 1.0) + HOUR
        target = (busy, at_rest, at_rest, in_use if number % 3 else at_rest)[number % 4]
        hub.add_server(f"gone-{number}", idle=idle, age=idle * 1.3, target=target,
                       stop_fails=number == 9)  # fmt: skip
    for number in range(9):
        hub.add_user(f"staff-{number}", groups=["staff"])
        hub.add_server(f"staff-{number}", idle=dice.uniform(60, 30 * HOUR), age=40 * HOUR)
    for number in range(14):
        hub.add_server(f"gpu-{number}", idle=dice.uniform(60, 5 * HOUR), age=20 * HOUR,
                       user_options={"profile": "gpu-large"}, target=busy)  # fmt: skip
    for number in range(11):
        hub.add_server(f"tmp-{number}", idle=dice.uniform(0, 1200), age=HOUR, target=at_rest)
    for number in range(4):
        hub.add_server(f"new-{number}", pending="spawn", idle=None, age=10)


def draw(file: Path, width: int, scheme: Literal["light", "dark"], executable: str) -> None:
    """Run everything, and draw the page once there is something to see on it."""
    with ExitStack() as stack:
        hub, at = stack.enter_context(FakeHub()), stack.enter_context(TemporaryDirectory())
        busy, at_rest, in_use = (stack.enter_context(FakeServer()) for _ in range(3))
        busy.jupyter, in_use.jupyter = Jupyter(), Jupyter(last_activity=time.time())
        busy.jupyter.add_kernel("busy")
        people(hub, busy, at_rest, in_use)
        policies = Path(at) / "policies.yaml"
        policies.write_text(POLICIES)
        exporter = Exporter(hub.url, hub.token, [*OPTIONS, f"--policy-file={policies}"])
        stack.enter_context(exporter)
        exporter.wait_event("culled", count=10)
        exporter.wait_polls(1)
        browser = stack.enter_context(chromium(executable))
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.goto(f"{exporter.address}/")
        page.screenshot(path=file, full_page=True)


def main() -> None:
    """Draw what the arguments ask for."""
    asked = dict(enumerate(sys.argv[1:]))
    file = Path(asked.get(0, ROOT / "docs" / "images" / "page.png"))
    executable = shutil.which("chromium")
    if executable is None:
        sys.exit("screenshot_page: chromium is not installed: apt-get install chromium")
    file.parent.mkdir(parents=True, exist_ok=True)
    scheme = cast(Literal["light", "dark"], asked.get(2, "light"))
    draw(file, int(asked.get(1, 1280)), scheme, executable)
    print(file)


if __name__ == "__main__":
    main()
