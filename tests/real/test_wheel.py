"""What is released, wheel and sdist: complete, and at work in an environment that has nothing else.

They are built here, by the build backend of requirements/dev.txt; a release names its own, in the
folder of the variable HUB_IDLE_EXPORTER_DIST. What the exporter needs comes from the lock file,
with hashes. What only the demo needs is 100 packages more: they are installed like this for a
release, and otherwise seen in the environment of the tests, which has them from a lock file, too.
"""

import os
import re
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import psutil
import pytest
from documentation import ROOT
from fake_hub import FakeHub

from hub_idle_exporter import __version__

pytestmark = pytest.mark.slow("the built wheel in an empty environment")

RELEASED = os.environ.get("HUB_IDLE_EXPORTER_DIST")
NAME = f"hub_idle_exporter-{__version__}"
# No variable of ours or of a Hub around us, and nothing of the checkout.
CLEAN = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ} | {
    "PIP_CACHE_DIR": str(ROOT / ".cache" / "pip"),
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and sdist; the wheel is built from the sdist."""
    if RELEASED:
        return Path(RELEASED).resolve()
    target = tmp_path_factory.mktemp("dist")
    options = ("--no-isolation", "--outdir", str(target), str(ROOT))
    subprocess.run([sys.executable, "-m", "build", *options], check=True, stdout=subprocess.DEVNULL)
    return target


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with what the lock file says, and the wheel."""
    directory = tmp_path_factory.mktemp("empty")
    python = directory / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    lock = ROOT / "requirements" / ("demo.txt" if RELEASED else "run.txt")
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], env=CLEAN, check=True)
    subprocess.run([*pip, "--no-index", str(wheel)], env=CLEAN, check=True)
    return python.parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command far from the checkout."""
    return subprocess.run(
        command, capture_output=True, text=True, env=CLEAN, cwd="/", timeout=120, check=False
    )


# ---- what is in them -----------------------------------------------------------------------------


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{NAME}.dist-info/METADATA").decode())


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "hub_idle_exporter"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {name for name in names if ".dist-info/" not in name} == set(tracked)
    assert f"{NAME}.dist-info/licenses/LICENSE" in names


def test_the_sdist_builds_the_wheel_and_has_docs_rules_and_dashboard(dist: Path) -> None:
    """It builds it, since the wheel here is made from it."""
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "docs/install.md"):
        assert name in names
    assert {"prometheus/rules.yml", "grafana/dashboards/idle-servers.json"} <= names
    assert not any(name.startswith(("tests/", ".venv", ".git/")) for name in names)


def test_the_metadata_say_what_a_package_index_shows(wheel: Path) -> None:
    said = metadata(wheel)
    assert (said["Version"], said["License-Expression"]) == (__version__, "BSD-3-Clause")
    assert said["Description-Content-Type"] == "text/markdown"
    links = re.findall(r'(?:\]\(|src="|srcset="|href=")([^)"]+)', str(said.get_payload()))
    assert links
    assert [link for link in links if not link.startswith(("https://", "http://", "#"))] == []
    urls = dict(url.split(", ") for url in said.get_all("Project-URL", []))
    assert urls.keys() == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}


# ---- at work -------------------------------------------------------------------------------------


def test_in_an_empty_environment_it_tells_its_version(bin_folder: Path) -> None:
    done = run(bin_folder / "hub-idle-exporter", "--version")
    assert (done.returncode, done.stdout.split()[-1:]) == (0, [__version__]), done.stderr
    where = run(bin_folder / "python", "-c", "import hub_idle_exporter as it; print(it.__file__)")
    assert where.stdout.startswith(str(bin_folder.parent))


def test_in_an_empty_environment_nothing_it_requires_is_missing(bin_folder: Path) -> None:
    done = run(sys.executable, "-m", "pip", "--python", bin_folder / "python", "check")
    assert done.returncode == 0, done.stdout


def test_in_an_empty_environment_it_checks_a_hub(
    bin_folder: Path, fake_hub: FakeHub, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(fake_hub.token)
    token.chmod(0o600)
    options = (f"--url={fake_hub.url}", f"--api-token-file={token}")
    done = run(bin_folder / "hub-idle-exporter", "check", *options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def demo(bin_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, with what it needs besides."""
    (packages,) = bin_folder.parent.glob("lib/python*/site-packages")
    if not RELEASED:
        (packages / "of-tests.pth").write_text(f"{Path(psutil.__file__).parents[1]}\n")
    process = subprocess.Popen(
        [bin_folder / "hub-idle-exporter", "demo"], stdout=subprocess.PIPE, text=True, env=CLEAN,
        cwd="/", start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_the_demo_of_the_wheel_culls(demo: subprocess.Popen[str]) -> None:
    """`make demo` plays it to the end; here the first stop shows that it has all its files."""
    assert demo.stdout is not None
    told = []
    for line in demo.stdout:
        told.append(line)
        if " STOPPED " in line:
            return
    pytest.fail("".join(told))
