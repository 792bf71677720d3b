"""Make a virtual environment from a lock file, once; callers at the same time wait for each other.

    python3 tools/environment.py DIRECTORY LOCKFILE [--no-project] [--python=INTERPRETER]

Everything it writes is in DIRECTORY and `.cache/`. Standard library only: it runs before
anything is installed. INTERPRETER may be without pip; the one that runs this has it then.
"""

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from lock import LOCKS

REPO = Path(__file__).resolve().parent.parent
CACHE = REPO / ".cache"


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=REPO.joinpath)
    parser.add_argument("lock_file", type=REPO.joinpath)
    parser.add_argument("--no-project", action="store_true")
    parser.add_argument("--python", default="")
    return parser.parse_args()


def _fingerprint(asked: argparse.Namespace) -> str:
    """Change whenever the environment has to be made anew."""
    files = [asked.lock_file.read_bytes(), (REPO / "pyproject.toml").read_bytes()]
    parts = [*files, sys.version.encode(), asked.python.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _pip(asked: argparse.Namespace, *arguments: str) -> None:
    environment = os.environ | {
        "PIP_CACHE_DIR": str(CACHE / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    inside = str(asked.directory / "bin" / "python")
    pip = (
        [sys.executable, "-m", "pip", "--python", inside] if asked.python else [inside, "-m", "pip"]
    )
    subprocess.run([*pip, "install", "--quiet", *arguments], check=True, env=environment)


def _make(asked: argparse.Namespace) -> None:
    print(f"Preparing {asked.directory.name} from {asked.lock_file.name} (once) ...", flush=True)
    if asked.python:
        command = [asked.python, "-m", "venv", "--clear", str(asked.directory)]
        has_pip = subprocess.run(
            [asked.python, "-c", "import ensurepip"], stderr=subprocess.DEVNULL
        )
        subprocess.run([*command, *(["--without-pip"] if has_pip.returncode else [])], check=True)
    else:
        venv.create(asked.directory, with_pip=True, clear=True)
    _pip(asked, "--require-hashes", "--no-deps", "-r", str(asked.lock_file))
    if not asked.no_project:
        _pip(asked, "--no-deps", "--editable", str(REPO))


def main() -> int:
    """Bring the environment up to date; say what failed in one line."""
    asked = _asked()
    least, _ = LOCKS[asked.lock_file.stem]
    if not asked.python and sys.version_info < tuple(map(int, least.split("."))):
        print(f"This needs Python {least} or newer; name one with make PYTHON=...")
        return 1
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{asked.directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = asked.directory / ".fingerprint", _fingerprint(asked)
        if stamp.exists() and stamp.read_text() == wanted:
            return 0
        try:
            _make(asked)
        except subprocess.CalledProcessError as error:
            print(f"Could not prepare {asked.directory.name}: pip ended with {error.returncode}.")
            return 1
        stamp.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
