"""`python -m chaos`: one run, its account, and exit 1 where something happened that must not."""

import argparse
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from hub_idle_exporter.demo.launch import LaunchError

from . import ROOT, account
from . import __doc__ as about
from .record import Evidence
from .stage import HarnessError, Plan, Stage
from .verdict import verdict

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BELOW = ROOT / ".cache" / "chaos"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m chaos", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="of trouble; default: 10")
    parser.add_argument("--seed", type=int, help="repeats the people and the trouble of a run")
    parser.add_argument(
        "--keep", type=Path, help="a new folder for the record and all logs, left there"
    )
    parser.add_argument("options", nargs="*", help="after `--`: more options of the exporters")
    return parser.parse_args()


def _new_directory(keep: Path | None) -> Path:
    """Make the folder of a run."""
    if keep is None:
        _BELOW.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(prefix="run-", dir=_BELOW))
    keep.mkdir(parents=True)
    return keep.resolve()


def _run(plan: Plan, directory: Path) -> Evidence:
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - begun:4.0f} s] {what}", flush=True)

    stage = Stage(plan, directory, say)
    with stage.open():
        evidence = stage.run()
        _ignore_signals()
    return evidence


def _judged(evidence: Evidence) -> int:
    """Print the account; return the exit code."""
    violations = verdict(evidence)
    print(account.account(evidence, violations))
    if not account.saw_enough(evidence):
        print(f"saw too little: fewer than {account.ENOUGH_CULLS} culls. Run longer.")
    return 1 if violations or not account.saw_enough(evidence) else 0


def _end(number: int, _frame: object) -> None:
    """End the run."""
    _ignore_signals()
    sys.exit(128 + number)


def _ignore_signals() -> None:
    """Let nothing disturb the tidying up."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    """Run, judge, tidy up."""
    arguments = _arguments()
    for number in _ENDING:
        signal.signal(number, _end)
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    plan = Plan(arguments.minutes, seed, tuple(arguments.options))
    print(f"chaos: seed {seed}, {plan.minutes:g} minutes of trouble", flush=True)
    directory, code = _new_directory(arguments.keep), 0
    try:
        code = _judged(_run(plan, directory))
    except (HarnessError, LaunchError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        code = 2
    finally:
        if code == 0 and arguments.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    if code or arguments.keep:
        print(f"record and logs are in {directory}")
    return code


if __name__ == "__main__":
    sys.exit(main())
