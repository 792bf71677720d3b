"""Fixtures: fake and real Hubs, the exporter as a process, tools that may be missing.

`fake_hub`, and `paper_hub`, `real_hub` for the whole session (with whatever other tests left
running; `clean_paper_hub`, `clean_real_hub`: with nothing running), `make_hub(...)` for a Hub of
one's own, `run_exporter(hub, "--timeout=1h")`, `run_command(hub, "check")`, `require_tool(name)`.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import exporter_process
import pytest
import structlog
from culling_rig import MakeRig, Rig
from exporter_process import Exporter
from fake_hub import FakeHub, Jupyter
from real_hub import RealHub
from run_summary import RunSummary

MakeHub = Callable[..., RealHub]
RunExporter = Callable[..., Exporter]
RunCommand = Callable[..., subprocess.CompletedProcess[str]]
GIVEN = "the Hub's"
REPO = Path(__file__).parents[1]
# What takes longest begins, so that all else runs beside it.
LONGEST = (
    "test_rules",
    "test_image",
    "test_real_outage",
    "test_other_hubs",
    "test_migration",
    "test_zero_to_jupyterhub",
    "test_systemd",
    "test_littlest_jupyterhub",
    "test_demo",
    "test_wheel",
    "test_install",
    "test_real_culling",
    "test_process",
    "test_real_policies",
    "test_real_stops",
    "test_properties",
    "test_drop_in",
    "test_service_form",
    "test_hub_page_in_browser",
    "test_page_in_browser",
    "test_real_probe_user",
    "test_compose",
    "test_culler",
    "test_servers",
)
ORDER = (*LONGEST, "real", "observability", "integration", "unit")


class AnyHub(Protocol):
    """What the exporter is run against."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the real Hubs be of another version."""
    parser.addoption(
        "--hub",
        metavar="DIRECTORY",
        help="virtual environment whose JupyterHub the real Hubs run (default: this one)",
    )


@pytest.fixture(scope="session")
def hub_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of the real Hubs."""
    directory = pytestconfig.getoption("--hub")
    return Path(directory, "bin", "python") if directory else Path(sys.executable)


def pytest_configure(config: pytest.Config) -> None:
    """Say at the end what was left out; let a run that is terminated clean up as after Ctrl-C."""
    config.pluginmanager.register(RunSummary(config))

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """Let no test write to the log another test has set up: its stream is closed."""
    yield
    structlog.reset_defaults()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by how long files take: xdist hands them out in this order."""

    def place(item: pytest.Item) -> int:
        names = (item.path.stem, item.path.parent.name)
        return next(ORDER.index(name) for name in names if name in ORDER)

    items.sort(key=place)


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    """A fake Hub without users but the prober."""
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def make_rig(fake_hub: FakeHub) -> Iterator[MakeRig]:
    """Make sidecars' inner parts against the fake Hub: the arguments of Rig."""
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(fake_hub, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.__exit__()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """One with the usual settings."""
    return make_rig()


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The events of the log so far."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture(scope="session")
def paper_hub(tmp_path_factory: pytest.TempPathFactory, hub_python: Path) -> Iterator[RealHub]:
    """A real Hub whose servers are paper."""
    directory = tmp_path_factory.mktemp("paper-hub")
    # Without looking at the proxy by itself: `backdate` is not to be undone.
    with RealHub(directory, "paper", activity_interval=0, python=hub_python) as hub:
        yield hub


@pytest.fixture(scope="session")
def real_hub(tmp_path_factory: pytest.TempPathFactory, hub_python: Path) -> Iterator[RealHub]:
    """A real Hub with real Jupyter servers, who report activity every second."""
    directory = tmp_path_factory.mktemp("real-hub")
    with RealHub(directory, "jupyter", activity_interval=1, python=hub_python) as hub:
        yield hub


def cleaned(paper_hub: RealHub) -> RealHub:
    """Stop everything on a Hub of paper, and let every server answer as idle again."""
    paper_hub.stop_all()
    paper_hub.revoke_leases()
    paper_hub.paper.heal()
    paper_hub.paper.requests.clear()
    paper_hub.paper.jupyter = Jupyter()
    paper_hub.paper.at.clear()
    return paper_hub


@pytest.fixture
def clean_paper_hub(paper_hub: RealHub) -> RealHub:
    """The session's Hub of paper with nothing running, every server answering as idle."""
    return cleaned(paper_hub)


@pytest.fixture
def clean_real_hub(real_hub: RealHub) -> RealHub:
    """The session's Hub of real servers with nothing running."""
    real_hub.stop_all()
    real_hub.revoke_leases()
    return real_hub


@pytest.fixture
def make_hub(tmp_path: Path, hub_python: Path) -> Iterator[MakeHub]:
    """Start Hubs of one's own: the arguments of RealHub but for its directory."""
    numbers = count(1)
    with ExitStack() as stack:

        def make(*arguments: Any, start: bool = True, **options: Any) -> RealHub:
            directory = tmp_path / f"hub-{next(numbers)}"
            hub = RealHub(directory, *arguments, **{"python": hub_python} | options)
            stack.callback(hub.close)
            if start:
                hub.start()
            return hub

        yield make


@pytest.fixture
def run_exporter(tmp_path: Path) -> Iterator[RunExporter]:
    """Start `python -m hub_idle_exporter` against a Hub; ended, and searched for its token, after.

    run_exporter(hub, "--timeout=1h", token=..., url=..., environment={...}, python=...); a token
    or url of None is not given to it.
    """
    with ExitStack() as stack:

        def run(
            hub: AnyHub | None,
            *arguments: str,
            token: str | None = GIVEN,
            url: str | None = GIVEN,
            environment: Mapping[str, str] | None = None,
            python: Path | str = sys.executable,
        ) -> Exporter:
            address, secret = _given(hub, url, token)
            exporter = Exporter(address, secret, arguments, environment, tmp_path, str(python))
            return stack.enter_context(exporter)

        yield run


@pytest.fixture
def run_command(tmp_path: Path) -> RunCommand:
    """Run a command that ends by itself and return it with its texts; else as `run_exporter`."""

    def run(
        hub: AnyHub | None,
        *arguments: str,
        token: str | None = GIVEN,
        url: str | None = GIVEN,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        address, secret = _given(hub, url, token)
        return exporter_process.run_command(
            address, secret, arguments, environment, timeout, tmp_path
        )

    return run


def _given(hub: AnyHub | None, url: str | None, token: str | None) -> tuple[str | None, str | None]:
    if hub is not None:
        url = hub.url if url == GIVEN else url
        token = hub.token if token == GIVEN else token
    return (None if url == GIVEN else url), (None if token == GIVEN else token)


def tool_or_skip(name: str) -> str:
    """Return a tool's path; without it skip the test visibly, or fail it where all must be there.

    They must be where the variable CI or HUB_IDLE_EXPORTER_REQUIRE_TOOLS is set.
    """
    path = shutil.which(name)
    if path is None:
        skip_or_fail(f"{name} is not installed")
    return path


def skip_or_fail(said: str) -> NoReturn:
    """Skip the test visibly, or fail it where all tools must be there; see `tool_or_skip`."""
    if os.environ.get("CI") or os.environ.get("HUB_IDLE_EXPORTER_REQUIRE_TOOLS"):
        pytest.fail(said)
    pytest.skip(said)


def fetched_by(tool: str, *arguments: str) -> str:
    """Return what a program of `tools/` prints; as `tool_or_skip` where it says why it cannot."""
    command = [sys.executable, str(REPO / "tools" / tool), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        skip_or_fail(finished.stderr.strip())
    return finished.stdout.strip()


def older_hub_python(version: str) -> Path:
    """Return the interpreter of an older JupyterHub ("3", "4", "5", "5.5"); as `tool_or_skip`."""
    python = REPO / f".venv-hub{version}" / "bin" / "python"
    if not python.exists():
        said = f"no JupyterHub {version}: run `make hubs`"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return python


def of_make_pythons(environment: str) -> Path:
    """Return the interpreter of an environment that `make pythons` makes; without it skip.

    Even where all tools must be there: not each Python is available everywhere.
    """
    python = REPO / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no {environment}: run `make pythons`")
    return python


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """See `tool_or_skip`."""
    return tool_or_skip
