"""Make a small Debian with debootstrap, once; callers at the same time wait for each other.

    python3 tools/debian_root.py SUITE [PACKAGE ...]      prints its directory

It lies in `.cache/roots/`. Copy it, or put an overlay on it: it is shared. Needs root and
debootstrap. Standard library only.
"""

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOTS = Path(__file__).resolve().parent.parent / ".cache" / "roots"


def debian_root(suite: str, packages: Sequence[str] = ()) -> Path:
    """Return the directory of a Debian of this suite that has these packages.

    Raises:
        subprocess.CalledProcessError: debootstrap failed; its standard output says why.
    """
    wanted = ",".join(sorted(packages))
    directory = ROOTS / f"{suite}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    ROOTS.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            _make(directory, suite, wanted)
    return directory


def _make(directory: Path, suite: str, packages: str) -> None:
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    include = [f"--include={packages}"] if packages else []
    what = [suite, str(unfinished), _mirror(), *_script(suite)]
    command = ["debootstrap", "--variant=minbase", *include, *what]
    try:
        _bootstrap(command)
    except subprocess.CalledProcessError:  # a download that failed; the others are not repeated
        _bootstrap(command)
    unfinished.rename(directory)


def _bootstrap(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _mirror() -> str:
    """Return the mirror that this machine installs from."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    those = ["Created-By: Packages", f"Codename: {suite}"]
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *those]
    mirrors = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    return mirrors[0]


def _script(suite: str) -> list[str]:
    """Name the script for a suite that is newer than debootstrap: all of Debian share one."""
    scripts = Path("/usr/share/debootstrap/scripts")
    return [] if (scripts / suite).exists() else [str(scripts / "sid")]


def main() -> int:
    """Make it; say what failed with debootstrap's last line."""
    suite, *packages = sys.argv[1:]
    try:
        print(debian_root(suite, packages))
    except subprocess.CalledProcessError as error:
        print(f"Could not make a Debian {suite}: {error.stdout.splitlines()[-1:]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
