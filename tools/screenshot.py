"""Draw the dashboard over simulated histories: pictures for the docs, or every scenario.

    python tools/screenshot.py RENDERER [FOLDER]                the pictures of docs and README
    python tools/screenshot.py RENDERER FOLDER all|SCENARIO...  scenarios, to look at

RENDERER is a folder with a built dashboard renderer (`serve.py`, `shot.mjs`, `dist/`), which draws
Grafana's JSON with Grafana's own component libraries; where it comes from: docs/dashboards.md.
Needs Prometheus with promtool, Chromium and Node. All else is in a temporary folder and ended.
"""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import history
import requests
from scenarios import SCENARIOS, Scenario

from hub_idle_exporter.demo.launch import free_ports

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tests" / "support"))

from chromium import chromium  # noqa: E402

DASHBOARD = REPO / "grafana" / "dashboards" / "idle-servers.json"
CACHE = REPO / ".cache"
ROW_PIXELS, FRAME_PIXELS = 38, 130
WIDTHS = (1280, 1920)
SPARE_QUERY = "jupyterhub_server_spare_query_value"
FOLDED = "folded"
WHOLE = "whole"


@dataclass(frozen=True)
class Picture:
    """One picture; rows are folded, or all unfolded."""

    name: str
    width: int
    theme: str = "dark"
    rows: str = FOLDED


PICTURES = (
    Picture("dashboard", 1280),
    Picture("dashboard-light-1280", 1280, "light"),
    Picture("dashboard-1280", 1280, rows=WHOLE),
    Picture("dashboard-1920", 1920, rows=WHOLE),
)


# The README's pictures: the open part of the dashboard, at most 700 pixels high.
OVERVIEWS = {"overview-dark": "dashboard", "overview-light": "dashboard-light-1280"}
OVERVIEW_TOP, OVERVIEW_WIDTH, OVERVIEW_HEIGHT = 132, 1280, 694


class ScreenshotError(Exception):
    """What could not be drawn, and why."""


@contextmanager
def running(command: list[str], folder: Path, ready: str) -> Iterator[None]:
    """Run a server until the end of the block; it answers `ready` within half a minute."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ScreenshotError(f"{command[0]} did not start")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def write_history(folder: Path, scenario: Scenario) -> None:
    """Make Prometheus' blocks of the hours before now."""
    text = folder / "history.om"
    with text.open("w") as output:
        output.writelines(history.history(time.time(), scenario.hubs))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", text.name, "data"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def as_drawn(board: dict[str, Any], rows: str, cost: str) -> dict[str, Any]:
    """Give the dashboard with a price typed, and its rows folded or not."""
    # The renderer knows no $__range, and no text that is pasted as it is.
    text = json.dumps(board).replace("$__range", "6h").replace("${spare_query:raw}", SPARE_QUERY)
    drawn: dict[str, Any] = json.loads(text)
    for variable in drawn["templating"]["list"]:
        if variable["name"] == "cost":
            variable["query"] = cost
    if rows == WHOLE:
        drawn["panels"] = list(_unfolded(drawn))
    return drawn


def _unfolded(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give all panels, as if each row had been clicked at."""
    lower = 0
    for panel in board["panels"]:
        inner = panel.get("panels", [])
        for one in (panel, *inner):
            one["gridPos"]["y"] += lower
            yield one | {"panels": [], "collapsed": False} if one is panel and inner else one
        lower += max((_bottom(one) for one in inner), default=0) - (_bottom(panel) if inner else 0)


def _bottom(panel: dict[str, Any]) -> int:
    return int(panel["gridPos"]["y"] + panel["gridPos"]["h"])


def rows_of(board: dict[str, Any]) -> int:
    """Give the height of a dashboard in rows of its grid."""
    return max(_bottom(panel) for panel in board["panels"])


def draw(renderer: Path, url: str, picture: Picture, rows: int, target: Path) -> list[str]:
    """Draw one picture; give the panels without data. A query that fails is an error."""
    command = ["node", "shot.mjs", f"{url}?theme={picture.theme}", str(target)]
    finished = subprocess.run(
        [*command, str(picture.width), str(rows * ROW_PIXELS + FRAME_PIXELS)],
        cwd=renderer,
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(finished.stdout) if finished.stdout else {"errors": [finished.stderr]}
    if said["errors"] or not target.exists():
        raise ScreenshotError(f"{target.name}: {said['errors']}")
    missing: list[str] = said["missing"]
    print(f"{target}  without data: {missing}" if missing else target)
    return missing


def cut_overviews(folder: Path) -> None:
    """Cut the README's pictures out of those of the dashboard."""
    executable = shutil.which("chromium")
    if executable is None:
        raise ScreenshotError("chromium is not installed: apt-get install chromium")
    with chromium(executable) as browser:
        for name, source in OVERVIEWS.items():
            data = base64.b64encode((folder / f"{source}.png").read_bytes()).decode()
            page = browser.new_page(viewport={"width": OVERVIEW_WIDTH, "height": OVERVIEW_HEIGHT})
            page.set_content(
                f'<body style="margin: -{OVERVIEW_TOP}px 0 0">'
                f'<img src="data:image/png;base64,{data}">'
            )
            page.wait_for_function("document.images[0].complete")
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")


def main(arguments: list[str]) -> int:
    """Draw them all."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    renderer = Path(arguments[0]).resolve()
    target = Path(arguments[1] if len(arguments) > 1 else REPO / "docs" / "images").resolve()
    if not (renderer / "dist" / "index.html").exists():
        print(f"{renderer}: no built renderer here (dist/index.html)", file=sys.stderr)
        return 2
    target.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(exist_ok=True)
    try:
        if len(arguments) > 2:
            draw_scenarios(renderer, target, arguments[2:])
        else:
            draw_for_docs(renderer, target)
    except ScreenshotError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def draw_for_docs(renderer: Path, target: Path) -> None:
    """Draw the pictures of docs and README; each panel of them has data."""
    missing = draw_all(renderer, target, SCENARIOS["small"], PICTURES)
    if missing:
        raise ScreenshotError(f"panels without data: {missing}")
    cut_overviews(target)


def draw_scenarios(renderer: Path, target: Path, names: list[str]) -> None:
    """Draw scenarios in both widths and themes, and unfolded."""
    for name in SCENARIOS if names == ["all"] else names:
        pictures = [
            Picture(f"{name}-{theme}-{width}", width, theme)
            for width in WIDTHS
            for theme in ("dark", "light")
        ]
        whole = Picture(f"{name}-whole", WIDTHS[0], rows=WHOLE)
        draw_all(renderer, target, SCENARIOS[name], [*pictures, whole])


def draw_all(
    renderer: Path, target: Path, scenario: Scenario, pictures: Sequence[Picture]
) -> set[str]:
    """Draw pictures over one history; give the panels that have no data."""
    board = json.loads(DASHBOARD.read_text())
    missing = set[str]()
    with tempfile.TemporaryDirectory(dir=CACHE) as folder, prometheus(folder, scenario) as source:
        for picture in pictures:
            drawn = as_drawn(board, picture.rows, scenario.cost)
            served = Path(folder) / "dashboard.json"
            served.write_text(json.dumps(drawn))
            (port,) = free_ports(1)
            url = f"http://127.0.0.1:{port}/"
            serve = [sys.executable, "serve.py", str(port), source, str(served)]
            with running(serve, renderer, f"{url}dashboard.json"):
                path = target / f"{picture.name}.png"
                missing |= set(draw(renderer, url, picture, rows_of(drawn), path))
    return missing


@contextmanager
def prometheus(folder: str, scenario: Scenario) -> Iterator[str]:
    """Let Prometheus answer for a scenario's history; give its address."""
    write_history(Path(folder), scenario)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    store = [
        "prometheus",
        "--config.file=/dev/null",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(store, Path(folder), f"{url}/-/ready"):
        yield url


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
