"""Make the lock files in `requirements/` anew: versions and hashes, no addresses.

    python3 tools/lock.py        # `make lock`

`uv` resolves for every platform and Python at once; it is installed into `.venv-lock` for that.
"""

import subprocess
import sys
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
TOOLS = REPO / ".venv-lock"
FLAGS = ["--universal", "--generate-hashes", "--no-annotate", "--no-header"]
PROJECT = {"run": [], "demo": ["--extra", "demo"], "dev": ["--extra", "dev"]}


def _compile(source: Path, target: Path, extra: list[str]) -> None:
    print(f"Locking {target.name} ...", flush=True)
    uv = [str(TOOLS / "bin" / "uv"), "pip", "compile", "--quiet", "--upgrade", *FLAGS]
    python = ["--python-version", "3.11", *extra]
    subprocess.run([*uv, *python, str(source), "-o", str(target)], check=True, cwd=REPO)


def main() -> int:
    """Lock the project's own extras, then every `.in` file beside them."""
    if not (TOOLS / "bin" / "uv").exists():
        venv.create(TOOLS, with_pip=True)
        subprocess.run([TOOLS / "bin" / "python", "-m", "pip", "install", "-q", "uv"], check=True)
    folder = REPO / "requirements"
    for name, extra in PROJECT.items():
        _compile(REPO / "pyproject.toml", folder / f"{name}.txt", extra)
    for source in sorted(folder.glob("*.in")):
        _compile(source, source.with_suffix(".txt"), [])
    return 0


if __name__ == "__main__":
    sys.exit(main())
