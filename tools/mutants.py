"""Take each safety rule out of the code in turn, and see the test named after it fail.

    make mutants                     all of tests/support/mutant_list.py
    python tools/mutants.py gate     those whose rule, file or test holds the word

The package is copied below .cache for each mutant; the tree itself is not touched. Ends with 1
where a mutant survives its test, or where the tests fail without any mutant.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
PACKAGE = "hub_idle_exporter"
AT_ONCE = 2
TEST_SECONDS, ALL_SECONDS = 60, 600

sys.path.insert(0, str(ROOT / "tests" / "support"))
from mutant_list import MUTANTS, Mutant  # noqa: E402


class StaleError(Exception):
    """A mutant that cannot be applied: the list has to follow the code."""


def copied(below: Path) -> Path:
    """Copy the package into a directory of its own; give that directory."""
    place = Path(below) / PACKAGE
    shutil.copytree(ROOT / PACKAGE, place, ignore=shutil.ignore_patterns("__pycache__"))
    return place


def apply(mutant: Mutant, package: Path) -> None:
    """Change the copied file; raise StaleError where the old text is not there exactly once."""
    file = package / mutant.file
    text = file.read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise StaleError(f"{mutant.file} holds {mutant.old!r} {found} times")
    file.write_text(text.replace(mutant.old, mutant.new))


def run_tests(tests: Iterable[str], place: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """Run tests against the package in `place`, which Python finds first, being started there."""
    nodes = [str(ROOT / "tests" / test) for test in tests]
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--timeout={seconds}"]
    command = [sys.executable, "-m", "pytest", *options, f"--rootdir={ROOT}"]
    command += ["-c", str(ROOT / "pyproject.toml"), *nodes]
    try:
        return subprocess.run(
            command,
            cwd=place,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(place)},
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * seconds,  # a thread that a failed test left running
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 2, "", f"not over after {2 * seconds} s")


def verdict_on(mutant: Mutant, scratch: Path) -> str | None:
    """Try one mutant; None when its test fails as it should, else what is wrong."""
    with TemporaryDirectory(dir=scratch) as place:
        try:
            apply(mutant, copied(Path(place)))
        except StaleError as stale:
            return str(stale)
        done = run_tests([mutant.test], Path(place), TEST_SECONDS)
    if done.returncode == 0:
        return f"SURVIVES {mutant.test}"
    if done.returncode != 1:
        return f"cannot be tested by {mutant.test}:\n{done.stdout[-2000:]}{done.stderr[-500:]}"
    return None


def pass_unchanged(mutants: list[Mutant], scratch: Path) -> bool:
    """See that the tests pass without any mutant: else their failing would say nothing."""
    with TemporaryDirectory(dir=scratch) as place:
        copied(Path(place))
        tests = sorted({mutant.test for mutant in mutants})
        done = run_tests(tests, Path(place), ALL_SECONDS)
    if done.returncode != 0:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
        print("the tests fail without any mutant: mend that first")
    return done.returncode == 0


def main(words: list[str]) -> int:
    """Run the mutants that hold one of the words, all without any."""
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.rule} {m.file} {m.test}" for w in words)]  # fmt: skip  # noqa: E501
    scratch = ROOT / ".cache" / "mutants"
    scratch.mkdir(parents=True, exist_ok=True)
    begun, bad = time.monotonic(), 0
    if not pass_unchanged(chosen, scratch):
        return 1
    print(f"without any mutant all their tests pass, in {time.monotonic() - begun:.0f} s")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = pool.map(lambda mutant: verdict_on(mutant, scratch), chosen)
        for mutant, wrong in zip(chosen, results, strict=True):
            bad += wrong is not None
            print(f"{'ok ' if wrong is None else 'BAD'} {mutant.file:14} {mutant.rule}", flush=True)
            if wrong is not None:
                print(f"    {wrong}", flush=True)
    seconds = time.monotonic() - begun
    print(f"{len(chosen) - bad} of {len(chosen)} mutants are caught, in {seconds:.0f} s altogether")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
