"""The wheels that the package needs, for an installation that asks no package index."""

import fcntl
import hashlib
import json
import re
import subprocess
from pathlib import Path

from documentation import ROOT

RUN = ROOT / "requirements" / "run.txt"
(REQUIRES,) = re.findall(r"^requires = (.*)$", (ROOT / "pyproject.toml").read_text(), re.M)
BUILD = [*json.loads(REQUIRES), "setuptools", "wheel", "pip"]  # the last three are pipx's own
CACHE = ROOT / ".cache" / "wheels"


def wheels(python: Path | str) -> Path:
    """Return a folder with all that `pip install .` needs on the Python of an interpreter."""
    code = "import sys; print(sys.version)"
    version = subprocess.run([python, "-c", code], check=True, capture_output=True).stdout
    folder = CACHE / hashlib.sha256(version + RUN.read_bytes() + REQUIRES.encode()).hexdigest()[:12]
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _download(folder, python)
    return folder


def _download(folder: Path, python: Path | str) -> None:
    unfinished = folder.with_suffix(".unfinished")
    command = [python, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += [f"--dest={unfinished}"]
    subprocess.run([*command, "--no-deps", "--require-hashes", "-r", str(RUN)], check=True)
    subprocess.run([*command, *BUILD], check=True)
    unfinished.rename(folder)
