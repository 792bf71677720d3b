"""The workflows of the project's forge: valid, safe, and about targets and files that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from documentation import ROOT
from engine import BASE_PACKAGES
from lock import LOCKS
from machine import PACKAGES, SUITE
from pythons import DEBIAN, supported

FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
# Spelled with its release in a comment, as Dependabot does.
PINNED = re.compile(r"uses: ([\w/-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")


def said_by(*command: str | Path) -> str:
    """Return what a program says, if it is not content."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def jobs() -> list[dict[str, Any]]:
    """Give all jobs of all workflows."""
    loaded = [yaml.safe_load(path.read_text()) for path in WORKFLOWS]
    return [job for workflow in loaded for job in workflow["jobs"].values()]


def steps() -> list[dict[str, Any]]:
    return [step for job in jobs() for step in job.get("steps", [])]


def commands() -> str:
    """Give all that is run in them, one command a line."""
    return "\n".join(step["run"] for step in steps() if "run" in step)


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("dependabot", [FOLDER / "dependabot.yml"])],
    ids=["workflows", "dependabot"],
)
def test_they_are_what_the_forge_reads(schema: str, files: list[Path]) -> None:
    check = beside_python("check-jsonschema")
    assert said_by(check, "--builtin-schema", f"vendor.{schema}", *files) == ""


def test_zizmor_finds_nothing_unsafe() -> None:
    """No more rights than needed, no code from names that others choose, nothing unpinned."""
    options = ("--offline", "--persona=pedantic", "--no-progress", "--quiet")
    assert said_by(beside_python("zizmor"), *options, FOLDER) == ""


def test_actionlint_finds_nothing_wrong() -> None:
    """The workflow itself installs it; no package index has a package of it."""
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("actionlint is not installed")
    assert said_by(actionlint) == ""


def test_each_action_is_pinned_to_one_commit_and_says_which_release_that_is() -> None:
    used = "\n".join(re.findall(r"uses: [^.\s].*", "".join(p.read_text() for p in WORKFLOWS)))
    pinned = PINNED.findall(used)
    assert len(pinned) == len(used.splitlines())
    assert len(set(pinned)) == len({action for action, _, _ in pinned})


def test_each_job_has_a_limit_and_says_what_it_may_do() -> None:
    for job in jobs():
        assert "permissions" in job
        assert "uses" in job or job["timeout-minutes"] <= 90
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {}


def test_only_who_publishes_may_sign() -> None:
    """A job that runs code of the project, or of its dependencies, has no right to sign."""
    for job in jobs():
        if job["permissions"].get("id-token") == "write":
            assert not any("run" in step for step in job.get("steps", []))


def test_what_they_run_is_there() -> None:
    targets = re.findall(r"^([\w-]+)[^=\n]*:(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = re.findall(r"^make ([\w-]+)", commands(), re.MULTILINE)
    assert made
    assert set(made) <= set(targets)
    files = re.findall(r"(?<![\w/])((?:tools|tests|\.ci)/[\w/.]+)", commands())
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []
    called = re.findall(r"uses: \./(\S+)", "".join(path.read_text() for path in WORKFLOWS))
    assert [name for name in called if not (ROOT / name).is_file()] == []


def test_each_python_that_the_package_names_is_tested() -> None:
    """All of them at one go, and those with which the project is developed one by one."""
    least, _ = LOCKS["dev"]
    (matrix,) = (job["strategy"]["matrix"]["python"] for job in jobs() if "strategy" in job)
    assert matrix == supported()[supported().index(least) :]
    set_up = [str(step.get("with", {}).get("python-version")).split() for step in steps()]
    assert supported() in set_up
    assert f'requires-python = ">={supported()[0]}"' in (ROOT / "pyproject.toml").read_text()


def test_ci_makes_just_the_debians_that_tests_use() -> None:
    """Others would be made for nothing, and those of the tests while everything waits for them."""
    made = re.findall(r"tools/debian_root\.py (.*?) >", (ROOT / ".ci" / "run").read_text())
    used = [(SUITE, *PACKAGES), (DEBIAN["3.14"], *BASE_PACKAGES)]
    assert [tuple(one.split()) for one in made] == used
