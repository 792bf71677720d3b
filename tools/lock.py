"""Write the lock files in `requirements/`: versions and hashes, no addresses.

    python3 tools/lock.py              `make lock`: after a change of dependencies; other pins stay
    python3 tools/lock.py --upgrade    `make upgrade`: the newest version of everything

`uv` resolves for every platform and Python at once; it is installed into `.venv-lock` for that.
"""

import subprocess
import sys
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
TOOLS = REPO / ".venv-lock"
FLAGS = ["--universal", "--generate-hashes", "--no-annotate", "--no-header"]
# What the exporter is used and tested with goes back to Python 3.10; developing needs 3.11.
LOCKS = {
    "run": ("3.10", ["pyproject.toml", "--extra", "notify"]),  # what the image has
    "build": ("3.10", ["requirements/build.in"]),
    "demo": ("3.10", ["pyproject.toml", "--extra", "demo"]),
    "test": ("3.10", ["pyproject.toml", "--extra", "test"]),
    "dev": ("3.11", ["pyproject.toml", "--extra", "dev"]),
    "bench": ("3.11", ["pyproject.toml", "--extra", "demo", "requirements/bench.in"]),
    "audit": ("3.11", ["requirements/audit.in"]),
    "hub-3": ("3.10", ["requirements/hub-3.in"]),
    "hub-4": ("3.10", ["requirements/hub-4.in"]),
    "hub-5": ("3.10", ["requirements/hub-5.in"]),
    "hub-5.5": ("3.10", ["requirements/hub-5.5.in"]),
}


def _compile(name: str, python: str, sources: list[str], upgrade: bool) -> None:
    target = f"requirements/{name}.txt"
    print(f"Locking {target} ...", flush=True)
    uv = [str(TOOLS / "bin" / "uv"), "pip", "compile", "--quiet", *FLAGS]
    uv += ["--upgrade"] if upgrade else []
    uv += ["--python-version", python, *sources, "-o", target]
    subprocess.run(uv, check=True, cwd=REPO)


def main() -> int:
    """Write every lock file."""
    if not (TOOLS / "bin" / "uv").exists():
        venv.create(TOOLS, with_pip=True)
        subprocess.run([TOOLS / "bin" / "python", "-m", "pip", "install", "-q", "uv"], check=True)
    for name, (python, sources) in LOCKS.items():
        _compile(name, python, sources, "--upgrade" in sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
