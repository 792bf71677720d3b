"""Print the section of CHANGELOG.md for a tag, as notes of the release.

    python3 tools/release_notes.py v1.0.0

Ends with 1 if the tag is not the version of the package, or the changelog does not begin with it.
Standard library only: it runs before anything is installed.
"""

import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
_SECTION = r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d\n(.*?)(?=^## |^\[|\Z)"


def version() -> str:
    """Return the version of the package."""
    text = (REPO / "hub_idle_exporter" / "__init__.py").read_text()
    return str(re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0])


def newest_section(changelog: str) -> tuple[str, str]:
    """Return the version that a changelog begins with, and what it says of it."""
    found = re.search(_SECTION, changelog, re.DOTALL | re.MULTILINE)
    return (found[1], found[2].strip()) if found else ("", "")


def main() -> int:
    """Compare, and print."""
    tag = sys.argv[1]
    released, notes = newest_section((REPO / "CHANGELOG.md").read_text())
    if tag == f"v{version()}" == f"v{released}":
        print(notes)
        return 0
    print(
        f"The tag is {tag}, hub_idle_exporter/__init__.py says {version()},"
        f" and CHANGELOG.md begins with {released or 'no version'}: all three must be the same.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
