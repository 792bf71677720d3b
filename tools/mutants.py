"""Take each safety rule out of the code in turn, and see the test named after it fail.

    make mutants                     all of tests/support/mutant_list.py
    python tools/mutants.py gate     those whose rule, file or test holds the word
    python tools/mutants.py --within=300
                                     in CI, where all tests have just passed: none is begun after
                                     300 s, and each day begins with others

The package is copied below .cache for each mutant; the tree itself is not touched. Ends with 1
where a mutant survives its test, or where the tests fail without any mutant.
"""

import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "hub_idle_exporter"
_WITHIN, _LATE = "--within=", "there was no time for it"
AT_ONCE = 4  # on two cores: many a test waits
TEST_SECONDS, ALL_SECONDS = 90, 600
_NO_END = -1  # the run was killed, or died
# All that the tests import and that is not ours is imported once, and the runs are forked from
# there: to import it takes longer than most of the tests.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "pytest",
        "xdist.plugin",
        "hypothesis.strategies",
        "requests",
        "structlog",
        "prometheus_client",
    ]
)

sys.path.insert(0, str(ROOT / "tests" / "support"))
from mutant_list import MUTANTS, Mutant  # noqa: E402


class StaleError(Exception):
    """A mutant that cannot be applied: the list has to follow the code."""


def copied(below: Path) -> Path:
    """Copy the package into a directory of its own, by links; give that directory."""
    return shutil.copytree(ROOT / PACKAGE, Path(below) / PACKAGE, copy_function=os.link)


def apply(mutant: Mutant, package: Path) -> None:
    """Change the copied file; raise StaleError where the old text is not there exactly once."""
    file = package / mutant.file
    text = file.read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise StaleError(f"{mutant.file} holds {mutant.old!r} {found} times")
    file.unlink()  # the link alone
    file.write_text(text.replace(mutant.old, mutant.new))


def run_tests(tests: Iterable[str], place: Path, seconds: int, *more: str) -> tuple[int, str]:
    """Run tests against the package in `place`; return the exit code and what was printed.

    What hypothesis tries is always the same, so that a mutant is not caught by luck.
    """
    nodes = [str(ROOT / "tests" / test) for test in tests]
    options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--timeout={seconds}"]
    options += [*more, f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml")]
    printed, ended = place / "printed", place / "ended"
    process = PROCESSES.Process(target=_tested, args=([*options, *nodes], place, printed, ended))
    process.start()
    process.join(2 * seconds)
    if process.is_alive():
        process.kill()
        process.join()
    # Not `process.exitcode`, which is now and then lost where several threads start processes.
    code = int(ended.read_text()) if ended.exists() else _NO_END
    return code, printed.read_text(errors="replace") if printed.exists() else ""


def _tested(arguments: list[str], place: Path, printed: Path, ended: Path) -> None:
    """Be the process of one run: Python finds the package in `place` first."""
    with printed.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(place)
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(place)}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(place))
    code = pytest.main(arguments)
    sys.stdout.flush()
    ended.write_text(str(int(code)))
    os._exit(code)  # a thread that a failed test left running keeps nobody waiting


def verdict_on(mutant: Mutant, scratch: Path) -> str | None:
    """Try one mutant; None when its test fails as it should, else what is wrong."""
    with TemporaryDirectory(dir=scratch) as place:
        try:
            apply(mutant, copied(Path(place)))
        except StaleError as stale:
            return str(stale)
        code, printed = run_tests([mutant.test], Path(place), TEST_SECONDS)
    if code == 0:
        return f"SURVIVES {mutant.test}"
    if code != 1:
        return f"cannot be tested by {mutant.test} ({code}):\n{printed[-2000:]}"
    return None


def pass_unchanged(mutants: list[Mutant], scratch: Path) -> bool:
    """See that the tests pass without any mutant: else their failing would say nothing."""
    with TemporaryDirectory(dir=scratch) as place:
        copied(Path(place))
        tests = sorted({mutant.test for mutant in mutants})
        code, printed = run_tests(
            tests, Path(place), ALL_SECONDS, f"-n{AT_ONCE}", "--dist=loadfile"
        )
    if code != 0:
        print(printed[-6000:])
        print("the tests fail without any mutant: mend that first")
    return code == 0


def main(words: list[str]) -> int:
    """Run the mutants that hold one of the words, all without any."""
    within = [float(word.removeprefix(_WITHIN)) for word in words if word.startswith(_WITHIN)]
    words = [word for word in words if not word.startswith(_WITHIN)]
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.rule} {m.file} {m.test}" for w in words)]  # fmt: skip  # noqa: E501
    scratch = ROOT / ".cache" / "mutants"
    scratch.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    if within:
        random.Random(datetime.now(timezone.utc).toordinal()).shuffle(chosen)  # noqa: S311
    elif not pass_unchanged(chosen, scratch):
        return 1
    else:
        print(f"without any mutant all their tests pass, in {time.monotonic() - begun:.0f} s")
    tried, bad = try_all(chosen, scratch, begun + within[0] if within else None)
    seconds = time.monotonic() - begun
    print(f"{tried - bad} of {tried} mutants are caught, in {seconds:.0f} s altogether")
    if tried < len(chosen):
        print(f"{len(chosen) - tried} others are for another day, or for `make mutants`")
    return 1 if bad else 0


def try_all(chosen: list[Mutant], scratch: Path, until: float | None) -> tuple[int, int]:
    """Try mutants, none that would begin after `until`; return how many were tried and are bad."""

    def verdict(mutant: Mutant) -> str | None:
        return _LATE if until and time.monotonic() > until else verdict_on(mutant, scratch)

    tried = bad = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for mutant, wrong in zip(chosen, pool.map(verdict, chosen), strict=True):
            if wrong == _LATE:
                continue
            tried, bad = tried + 1, bad + (wrong is not None)
            print(f"{'ok ' if wrong is None else 'BAD'} {mutant.file:14} {mutant.rule}", flush=True)
            if wrong is not None:
                print(f"    {wrong}", flush=True)
    return tried, bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
