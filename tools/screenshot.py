"""Draw the dashboard over a simulated history into docs/images, for the docs and the README.

    python tools/screenshot.py RENDERER [FOLDER]

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import history
import requests

from hub_idle_exporter.demo.launch import free_ports

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tests" / "support"))

from chromium import chromium  # noqa: E402

DASHBOARD = REPO / "grafana" / "dashboards" / "idle-servers.json"
CACHE = REPO / ".cache"
ROW_PIXELS, FRAME_PIXELS = 38, 130
FIRST_ROWS = 26


@dataclass(frozen=True)
class Picture:
    """One picture; `rows` of the dashboard's grid are in it, None for all."""

    name: str
    width: int
    rows: int | None = None
    theme: str = "dark"


PICTURES = (
    Picture("dashboard", 1280, FIRST_ROWS),
    Picture("dashboard-1280", 1280),
    Picture("dashboard-1920", 1920),
    Picture("dashboard-light-1280", 1280, FIRST_ROWS, "light"),
)


# The README's pictures: two rows of numbers and the first graphs, at most 700 pixels high.
OVERVIEWS = {"overview-dark": "dashboard", "overview-light": "dashboard-light-1280"}
OVERVIEW_TOP, OVERVIEW_WIDTH, OVERVIEW_HEIGHT = 94, 1280, 686


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


def write_history(folder: Path) -> None:
    """Make Prometheus' blocks of the hours before now."""
    text = folder / "history.om"
    with text.open("w") as output:
        output.writelines(history.history(time.time()))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", text.name, "data"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def rows_of(board: dict[str, Any]) -> int:
    """Give the height of a dashboard in rows of its grid."""
    places = [panel["gridPos"] for panel in board["panels"]]
    return max(int(place["y"] + place["h"]) for place in places)


def draw(renderer: Path, url: str, picture: Picture, rows: int, folder: Path) -> None:
    """Draw one picture; an error names the panels without data."""
    height = (picture.rows or rows) * ROW_PIXELS + FRAME_PIXELS
    target = folder / f"{picture.name}.png"
    command = ["node", "shot.mjs", f"{url}?theme={picture.theme}", str(target)]
    finished = subprocess.run(
        [*command, str(picture.width), str(height)],
        cwd=renderer,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise ScreenshotError(f"{target.name}: {finished.stdout[-1500:]}{finished.stderr[-500:]}")
    print(target)


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
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        try:
            draw_all(renderer, target, Path(scratch))
            cut_overviews(target)
        except ScreenshotError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def draw_all(renderer: Path, target: Path, scratch: Path) -> None:
    """Draw each picture over one history."""
    write_history(scratch)
    # The renderer knows no $__range.
    text = DASHBOARD.read_text().replace("$__range", "6h")
    (scratch / "dashboard.json").write_text(text)
    prometheus, drawn = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    store = [
        "prometheus",
        "--config.file=/dev/null",
        "--storage.tsdb.path=data",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address={prometheus.removeprefix('http://')}",
    ]
    serve = [sys.executable, "serve.py", drawn.rpartition(":")[2], prometheus]
    serve.append(str(scratch / "dashboard.json"))
    with (
        running(store, scratch, f"{prometheus}/-/ready"),
        running(serve, renderer, f"{drawn}/dashboard.json"),
    ):
        for picture in PICTURES:
            draw(renderer, f"{drawn}/", picture, rows_of(json.loads(text)), target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
