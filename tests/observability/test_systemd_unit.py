"""The files of deploy/systemd as far as they can be checked without a machine that boots."""

import re
import shlex
import subprocess
from configparser import ConfigParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from conftest import tool_or_skip
from documentation import ROOT, blocks, text

from hub_idle_exporter import cli

PAGE = "docs/systemd.md"
FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "hub-idle-exporter.service"
OPTIONS = FOLDER / "options.env"


def unit(content: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(content)
    return parser


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as on a machine where the command is."""
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/usr/local/bin/hub-idle-exporter", "/bin/true"))
    return file


def test_systemd_finds_nothing_wrong_with_the_unit(installed: Path) -> None:
    verify = [tool_or_skip("systemd-analyze"), "verify", "--man=no", str(installed)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, installed.name in done.stderr) == (0, False), done.stderr


def test_it_is_no_more_exposed_than_the_page_says(installed: Path) -> None:
    """By the rules of any systemd; `tests/real/test_systemd.py` compares those of 252."""
    (score,) = re.findall(r"exposure of ([\d.]+) ", text(PAGE))
    most = round(float(score) * 10)
    command = [tool_or_skip("systemd-analyze"), "security", "--offline=true", "--no-pager"]
    rate = [*command, f"--threshold={most}", str(installed)]
    done = subprocess.run(rate, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_starts_the_command_with_options_that_exist() -> None:
    program, *arguments = shlex.split(unit(UNIT.read_text())["Service"]["ExecStart"])
    assert program == "/usr/local/bin/hub-idle-exporter"
    assert cli.cli.make_context("hub-idle-exporter", cli.spelled_out(arguments))


def test_the_file_of_options_is_valid_and_monitors(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        name for one in cli.cli.params if isinstance(one, click.Option) for name in one.envvar or ()
    }
    lines = OPTIONS.read_text().replace("#HUB_", "HUB_").splitlines()
    options = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert options.keys() <= known
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    assert cli.cli.make_context("hub-idle-exporter", []).params["enforce"] is False


def test_a_usage_error_ends_it_as_the_unit_expects() -> None:
    done = CliRunner().invoke(cli.cli, ["--timeout=soon"])
    service = unit(UNIT.read_text())["Service"]
    assert str(done.exit_code) == service["RestartPreventExitStatus"] == "2"


@pytest.mark.parametrize(("_page", "addition"), blocks("ini", [PAGE]))
def test_systemd_takes_the_additions_of_the_page(
    installed: Path, _page: str, addition: str
) -> None:
    installed.write_text(installed.read_text() + addition)
    test_systemd_finds_nothing_wrong_with_the_unit(installed)
