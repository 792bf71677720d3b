"""Test the exporter on each Python that it supports, besides the one that runs this.

    python tools/pythons.py [PYTEST ARGUMENTS]      `make pythons`: by default all unit tests

Interpreters are looked for on the PATH and among those of pyenv; what Debian has in another suite
is taken from there (as root, with debootstrap and patchelf). Each gets an environment of its own
(`.venv-py3.12` ...), which tests/real/test_other_pythons.py uses, too; the oldest also one with a
Hub, for tests/real/test_littlest_jupyterhub.py. One that is not available is named; where CI is
set, and Debian has it, that is a failure.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from debian_root import debian_root

REPO = Path(__file__).resolve().parent.parent
DEBIAN = {"3.13": "trixie", "3.14": "forky"}
# The Hub of The Littlest JupyterHub on Ubuntu 22.04.
HUBS = {"3.10": "5.5"}
# What is tested by what makes or checks it: that is for developing, and not in these environments.
OF_DEVELOPERS = ("docs", "workflows", "kubernetes", "chart_values")
WITHOUT = [f"--ignore=tests/unit/test_{one}.py" for one in OF_DEVELOPERS]
TESTS = ("tests/unit", *WITHOUT, "-m", "not slow")


def supported() -> list[str]:
    """Return the versions that pyproject.toml names ("3.10" ...)."""
    text = (REPO / "pyproject.toml").read_text()
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


def interpreter(version: str) -> Path | None:
    """Return a Python of this version, None if there is none."""
    on_path = shutil.which(f"python{version}")
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for candidate in [*([Path(on_path)] if on_path else []), *of_pyenv]:
        said = subprocess.run([candidate, "-V"], capture_output=True, text=True, check=False)
        if said.stdout.startswith(f"Python {version}."):
            return candidate
    return _of_debian(version)


def _of_debian(version: str) -> Path | None:
    """Let a Python of another suite run here: with its own C library, at the place it is now."""
    needed = ("debootstrap", "patchelf")
    if version not in DEBIAN or os.geteuid() or not all(map(shutil.which, needed)):
        return None
    root = debian_root(DEBIAN[version], ["ca-certificates", f"python{version}"])
    here = root / "usr" / "bin" / f"python{version}-here"
    if not here.exists():
        libraries = next((root / "usr" / "lib").glob("*-linux-gnu"))
        (loader,) = [*libraries.glob("ld-linux-*.so.*")]
        unfinished = here.with_suffix(".unfinished")
        shutil.copy(here.with_name(f"python{version}"), unfinished)
        places = ["--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(libraries)]
        subprocess.run(["patchelf", *places, str(unfinished)], check=True)
        unfinished.rename(here)
    return here


def test(version: str, python: Path, arguments: list[str]) -> bool:
    """Make its environment, and run tests in it."""
    _make(f".venv-py{version}", "test", python)
    if version in HUBS:
        _make(f".venv-hub{HUBS[version]}-{version}", f"hub-{HUBS[version]}", python, "--no-project")
    print(f"== Python {version}", flush=True)
    tests = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *(arguments or TESTS)]
    inside = REPO / f".venv-py{version}" / "bin" / "python"
    return subprocess.run([inside, *tests], cwd=REPO, check=False).returncode == 0


def _make(environment: str, lock: str, python: Path, *more: str) -> None:
    made = ["tools/environment.py", environment, f"requirements/{lock}.txt", f"--python={python}"]
    subprocess.run([sys.executable, *made, *more], cwd=REPO, check=True)


def main() -> int:
    """Test on all there are; then say on which, and which are missing."""
    others = [one for one in supported() if one != f"3.{sys.version_info.minor}"]
    found = {version: interpreter(version) for version in others}
    failed = [v for v, python in found.items() if python and not test(v, python, sys.argv[1:])]
    missing = [version for version, python in found.items() if python is None]
    tested = [version for version in others if version not in (*failed, *missing)]
    print(f"Python {', '.join(tested) or 'none'}: passed.")
    if failed:
        print(f"Python {', '.join(failed)}: FAILED.")
    if missing:
        print(f"Python {', '.join(missing)}: not tested, there is no such interpreter here.")
    had_to_be = os.environ.get("CI") and any(version in DEBIAN for version in missing)
    return 1 if failed or had_to_be else 0


if __name__ == "__main__":
    sys.exit(main())
