"""`python -m bench`: measure, print a table, write JSON, Markdown and the picture."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ROOT, picture, polls, port, real, report, scrapes, unnoticed, users
from .figures import machine

_JSON = ROOT / ".cache" / "bench.json"
_MARKDOWN = ROOT / "bench" / "RESULTS.md"
_PICTURES = ROOT / "docs" / "images"


def _parts(quick: bool, long: bool) -> dict[str, Callable[[], Any]]:
    polling = polls.QUICK if quick else polls.FULL
    scraping = scrapes.QUICK if quick else scrapes.FULL
    hub = real.QUICK if quick else real.FULL
    crowd = port.QUICK if quick else port.FULL
    listing = users.QUICK if quick else users.FULL
    return {
        "poll": lambda: polls.sizes(polling),
        "registered": lambda: polls.registered(polling),
        "scrape": lambda: scrapes.latencies(scraping),
        "port": lambda: port.crowded(crowd),
        "hub": lambda: real.hub_cpu(hub),
        "unnoticed": lambda: unnoticed.waits(unnoticed.QUICK if quick else unnoticed.FULL),
        "users": lambda: users.listings(listing),
        "drain": lambda: real.drains(real.LONG if long else hub.drains),
        "soak": lambda: polls.soak(polling),
    }


def _arguments() -> argparse.Namespace:
    names = list(_parts(quick=True, long=False))
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about six minutes")
    parser.add_argument("--long", action="store_true", help="drains the peer of more, for an hour")
    parser.add_argument("--only", action="append", choices=names, help="a part; may be repeated")
    parser.add_argument("--json", type=Path, default=_JSON, help="default: %(default)s")
    parser.add_argument("--beside", type=Path, help="JSON of another run: its goals are shown too")
    parser.add_argument("--keep", action="store_true", help="keep the other parts of the JSON")
    parser.add_argument(
        "--publish", action="store_true", help="write bench/RESULTS.md, docs/images"
    )
    return parser.parse_args()


def main() -> int:
    """Run the parts that are wanted; exit 1 where a goal was missed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = _arguments()
    results: dict[str, Any] = {"loads": {}, "dates": {}}
    if arguments.keep:
        results |= json.loads(arguments.json.read_text())
        before = results["machine"]["date"]
        results["dates"] = dict.fromkeys(results["loads"], before) | results["dates"]
    results |= {"machine": machine(), "quick": arguments.quick}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    for name, measure in _parts(arguments.quick, arguments.long).items():
        if arguments.only is None or name in arguments.only:
            begun, load = time.monotonic(), os.getloadavg()[0]
            results[name] = measure()
            results["loads"][name] = [round(load, 1), round(os.getloadavg()[0], 1)]
            results["dates"].pop(name, None)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    text = report.markdown(results)
    if arguments.beside:
        text += report.another(json.loads(arguments.beside.read_text()))
    print(text)
    pictures = _PICTURES if arguments.publish else arguments.json.parent
    if "poll" in results:
        picture.draw_cost(results["poll"], pictures / "cost.svg")
    if "unnoticed" in results:
        picture.draw_waits(results["unnoticed"], pictures / "waits.svg")
    if arguments.publish:
        _MARKDOWN.write_text(text)
    return 0 if all(reached for *_, reached in report.goals(results)) else 1


if __name__ == "__main__":
    sys.exit(main())
