"""What stands in the documentation, for the tests that run it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")))
]


def text(page: str) -> str:
    """Give a page, named by its path in the repository."""
    return (ROOT / page).read_text()


def blocks(language: str, pages: list[str] = PAGES) -> list[tuple[str, str]]:
    """Give page and text of each code block of a language."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [(page, block) for page in pages for block in pattern.findall(text(page))]


def block(page: str, part: str, language: str = "python") -> str:
    """Give the one block of a page in that language that has this text in it."""
    found = [one for _, one in blocks(language, [page]) if part in one]
    assert len(found) == 1, f"{page} has {len(found)} blocks with {part!r}"
    return found[0]
