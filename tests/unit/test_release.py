"""One version and one address of the project, in all files that name them."""

import json
import re
import subprocess
import sys

import pytest
from documentation import PAGES, ROOT, text
from release_notes import newest_section

from hub_idle_exporter import __version__

# What may name a tag of our images, or be a kustomization that sets it.
WITH_TAGS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("docker-compose.yml", "README.md", "docs/**/*.md", "deploy/**/*.*")
    for path in sorted(ROOT.glob(pattern))
]
TAG = re.compile(r"hub-idle-exporter(?:-demo)?:v?(\d+\.\d+[\w.]*)|newTag: \W?v?(\d+\.\d+[\w.]*)")
(HOME,) = re.findall(r'^Homepage = "(.+)"$', text("pyproject.toml"), re.MULTILINE)


def tags(file: str) -> set[str]:
    """Give the versions of our images that a file names."""
    return {first or second for first, second in TAG.findall(text(file))}


def test_every_image_has_the_version_of_the_package() -> None:
    named = {file: tags(file) for file in WITH_TAGS if tags(file)}
    assert "docker-compose.yml" in named
    assert named == {file: {__version__} for file in named}


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    changelog = text("CHANGELOG.md")
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])
    for name in re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE):
        assert f"\n[{name}]: {HOME}/" in changelog
    assert f"compare/v{__version__}...HEAD" in changelog


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    changelog = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-01-31\n\n### Added\n\n- this\n"
    older = "\n## [1.1.0] - 2025-12-24\n\n- that\n\n[1.2.0]: https://example.org\n"
    assert newest_section(changelog + older) == ("1.2.0", "### Added\n\n- this")
    assert newest_section("## [Unreleased]\n\n- this\n") == ("", "")


@pytest.mark.parametrize(("tag", "code"), [(f"v{__version__}", 0), ("v0.0.1", 1), ("main", 1)])
def test_a_tag_that_is_not_this_version_is_not_released(tag: str, code: int) -> None:
    command = [sys.executable, str(ROOT / "tools" / "release_notes.py"), tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, bool(done.stdout)) == (code, code == 0), done.stderr


def test_all_files_name_the_same_address_of_the_project() -> None:
    """It may have to be changed before the first release."""
    project = HOME.removeprefix("https://github.com")
    everything = "".join(text(file) for file in ("pyproject.toml", *PAGES))
    assert set(re.findall(r"github\.com(/[\w-]+/hub[_-]idle[_-]exporter)", everything)) == {project}
    assert set(re.findall(r"usercontent\.com(/[\w-]+/[\w-]+)", everything)) == {project}
    assert f"-R {project[1:]}" in text("SECURITY.md")


def test_what_builds_the_package_is_locked() -> None:
    """Images are built with these, not with what is newest."""
    (requires,) = re.findall(r"^requires = (.*)$", text("pyproject.toml"), re.MULTILINE)
    listed = [line for line in text("requirements/build.in").splitlines() if line[0] != "#"]
    assert listed == json.loads(requires)
