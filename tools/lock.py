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
LOCKS = {
    "run": ["pyproject.toml"],
    "demo": ["pyproject.toml", "--extra", "demo"],
    "dev": ["pyproject.toml", "--extra", "dev"],
    "bench": ["pyproject.toml", "--extra", "demo", "requirements/bench.in"],
    "audit": ["requirements/audit.in"],
    "hub-3": ["requirements/hub-3.in"],
    "hub-4": ["requirements/hub-4.in"],
    "hub-5": ["requirements/hub-5.in"],
    "hub-5.5": ["requirements/hub-5.5.in"],
}


def _compile(name: str, sources: list[str], upgrade: bool) -> None:
    target = f"requirements/{name}.txt"
    print(f"Locking {target} ...", flush=True)
    uv = [str(TOOLS / "bin" / "uv"), "pip", "compile", "--quiet", *FLAGS]
    uv += ["--upgrade"] if upgrade else []
    python = ["--python-version", "3.11"]
    subprocess.run([*uv, *python, *sources, "-o", target], check=True, cwd=REPO)


def main() -> int:
    """Write every lock file."""
    if not (TOOLS / "bin" / "uv").exists():
        venv.create(TOOLS, with_pip=True)
        subprocess.run([TOOLS / "bin" / "python", "-m", "pip", "install", "-q", "uv"], check=True)
    for name, sources in LOCKS.items():
        _compile(name, sources, "--upgrade" in sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
