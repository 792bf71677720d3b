"""Look for known vulnerabilities of what is installed from the lock files, and list it (SBOM).

    make audit          all lock files; the list is that of requirements/run.txt, build/sbom.json

Ends with 1 where a dependency of the exporter itself has a known vulnerability, or where pip-audit
fails; those of the tests and the demo are told. Where the service that knows vulnerabilities cannot
be reached, nothing was looked up: that is told, and is a failure with AUDIT=strict.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOCKS = REPO / "requirements"
RUN = LOCKS / "run.txt"
SBOM = REPO / "build" / "sbom.json"


def audited(lock: Path) -> list[dict[str, Any]] | None:
    """Return what pip-audit says of each dependency; None if it fails, but not for the network."""
    pip_audit = str(BIN / "pip-audit")
    command = [pip_audit, "--disable-pip", "--require-hashes", "-f", "json", "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        if "requests.exceptions." in done.stderr:
            return []
        print(f"audit: pip-audit fails for {lock.name}:\n{done.stderr}")
        return None
    return found


def vulnerable(lock: Path, looked_up: list[dict[str, Any]]) -> int:
    """Print what was found; return how many dependencies have a known vulnerability."""
    found = [one for one in looked_up if one["vulns"]]
    for one in found:
        names = ", ".join(vulnerability["id"] for vulnerability in one["vulns"])
        print(f"audit: {lock.name}: {one['name']} {one['version']}: {names}")
    return len(found)


def write_sbom() -> None:
    """Write which Python packages the image has, with versions and hashes (CycloneDX)."""
    SBOM.parent.mkdir(exist_ok=True)
    command = [str(BIN / "cyclonedx-py"), "requirements", str(RUN), "--pyproject", "pyproject.toml"]
    subprocess.run([*command, "--output-reproducible", "-o", str(SBOM)], check=True, cwd=REPO)


def main() -> int:
    """Audit, and write the list."""
    write_sbom()
    failed = False
    for lock in [RUN, *sorted(set(LOCKS.glob("*.txt")) - {RUN})]:
        found = audited(lock)
        if found is None:
            failed = True
            continue
        looked_up = [one for one in found if "skip_reason" not in one]
        number = vulnerable(lock, looked_up)
        print(
            f"audit: {lock.name}: {len(looked_up)} of {len(found)} looked up, {number} vulnerable"
        )
        strict = os.environ.get("AUDIT") == "strict" and len(looked_up) < max(1, len(found))
        failed |= lock == RUN and (number > 0 or strict)
        if not looked_up:
            print("audit: the service that knows vulnerabilities is not within reach")
            break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
