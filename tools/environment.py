"""Make a virtual environment from a lock file, once; callers at the same time wait for each other.

    python3 tools/environment.py DIRECTORY LOCKFILE [--no-project]

Everything it writes is in DIRECTORY and `.cache/`. Standard library only: it runs before
anything is installed.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CACHE = REPO / ".cache"


def _fingerprint(lock_file: Path) -> str:
    """Change whenever the environment has to be made anew."""
    parts = [lock_file.read_bytes(), (REPO / "pyproject.toml").read_bytes(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _pip(directory: Path, *arguments: str) -> None:
    environment = os.environ | {
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    python = str(directory / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *arguments], check=True, env=environment
    )


def _make(directory: Path, lock_file: Path, with_project: bool) -> None:
    print(f"Preparing {directory.name} from {lock_file.name} (once) ...", flush=True)
    venv.create(directory, with_pip=True, clear=True)
    _pip(directory, "--require-hashes", "--no-deps", "-r", str(lock_file))
    if with_project:
        _pip(directory, "--no-deps", "--editable", str(REPO))


def main() -> int:
    """Bring the environment up to date; say what failed in one line."""
    directory, lock_file = REPO / sys.argv[1], REPO / sys.argv[2]
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = directory / ".fingerprint", _fingerprint(lock_file)
        if stamp.exists() and stamp.read_text() == wanted:
            return 0
        try:
            _make(directory, lock_file, "--no-project" not in sys.argv)
        except subprocess.CalledProcessError as error:
            print(f"Could not prepare {directory.name}: pip ended with {error.returncode}.")
            return 1
        stamp.write_text(wanted)
    return 0


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - it runs with whatever python3 is
        sys.exit("hub_idle_exporter needs Python 3.10 or newer; name one with make PYTHON=...")
    sys.exit(main())
