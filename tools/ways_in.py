"""Follow each way in of docs/ from nothing, and print how long it took (`make ways`).

The idle limit of these tests is a few seconds and the grace is 0, so what is measured is
installing, starting and the steps of the pages, not waiting for people to go home.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
TIMES = REPO / ".tmp" / "ways-in.json"
COLUMNS = ("installed", "scraped", "culled")
HEAD = """
Seconds from nothing until

| way in | installed | first scrape | first verified stop |
|---|---|---|---|"""


def _row(way: dict[str, str]) -> str:
    return " | ".join(["", way["way"], *(str(way.get(name, "-")) for name in COLUMNS), ""]).strip()


def main() -> int:
    """Run the tests named `way_in` one after another, and print what they wrote down."""
    TIMES.parent.mkdir(exist_ok=True)
    TIMES.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "--quiet", "-k", "way_in", "tests"]
    variables = {"HUB_IDLE_EXPORTER_WAYS_IN": str(TIMES), "TMPDIR": str(TIMES.parent)}
    finished = subprocess.run(command, cwd=REPO, env=os.environ | variables, check=False)
    print(HEAD)
    for line in TIMES.read_text().splitlines() if TIMES.exists() else ():
        print(_row(json.loads(line)))
    return finished.returncode


if __name__ == "__main__":
    sys.exit(main())
