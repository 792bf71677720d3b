"""A drop-in for jupyterhub-idle-culler: its command lines mean the same here, or are refused."""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import older_hub_python
from culler_lines import (
    BOOLEANS,
    Effect,
    Line,
    combinations,
    effects_of,
    pairs,
    single_lines,
)

from hub_idle_exporter import cli
from hub_idle_exporter.config import settings_from
from hub_idle_exporter.domain.settings import Settings

# Which of our settings is which of that culler's.
SAME: dict[str, Callable[[Settings], object]] = {
    "url": lambda ours: ours.connection.url,
    "inactive_limit": lambda ours: ours.poll.default.timeout,
    "cull_every": lambda ours: ours.poll.interval,
    "max_age": lambda ours: ours.poll.default.max_age,
    "concurrency": lambda ours: ours.cull.concurrency,
    "api_page_size": lambda ours: ours.connection.page_size,
    "ssl_enabled": lambda ours: ours.tls_directory is not None,
    "cull_users": lambda ours: ours.cull.users.delete,
    "cull_admin_users": lambda ours: ours.cull.users.admins,
    "cull_default_servers": lambda ours: ours.poll.cull_default_servers,
    "cull_named_servers": lambda ours: ours.poll.cull_named_servers,
    "remove_named_servers": lambda ours: ours.cull.remove_named_servers,
}
OTHER_DEFAULTS = ("url", "inactive_limit", "cull_every", "api_page_size", "cull_admin_users")
GIVEN_AS = {"inactive_limit": "timeout"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HUB_IDLE_EXPORTER_", "JUPYTER", "JPY_")):
            monkeypatch.delenv(name)


def ours(line: Line) -> Settings | str | None:
    """Return our settings, one line on what is refused, or None where help is printed."""
    try:
        context = cli.cli.make_context("hub-idle-exporter", cli.spelled_out(["--enforce", *line]))
        return settings_from(context.params)
    except click.exceptions.Exit:
        return None
    except click.ClickException as error:
        return error.format_message()


@functools.cache
def ours_of_many(line: tuple[str, ...]) -> Settings | str | None:
    """Remember what we make of a line, since both versions are asked about most of them."""
    return ours(list(line))


def given_in(line: Line) -> set[str]:
    return {part.partition("=")[0].lstrip("-").replace("-", "_") for part in line}


def disagreement(line: Line, theirs: Effect) -> str | None:
    """Say what we make of a line that is not what they do, nor one sentence; None: all is well."""
    found = ours_of_many(tuple(line))
    if isinstance(found, str):
        return f"not one sentence: {found!r}" if "\n" in found or not found.strip() else None
    if found is None or theirs is None:
        return None  # help; or they take no such line, and we may
    for name, value_of in SAME.items():
        given = GIVEN_AS.get(name, name) in given_in(line)
        if not given and name in OTHER_DEFAULTS:
            continue
        expected: Any = theirs[name]
        if name == "api_page_size" and not expected:
            expected = 200  # the Hub chooses there, we do here
        if value_of(found) != expected:
            return f"{name} is {value_of(found)!r}, and theirs {expected!r}"
    return None


def assert_agreement(lines: list[Line], theirs: list[Effect]) -> None:
    wrong = {
        " ".join(line): said
        for line, effect in zip(lines, theirs, strict=True)
        if (said := disagreement(line, effect)) is not None
    }
    assert not wrong


def is_ignored_by_2(line: Line) -> bool:
    """Tell whether version 2.0 passes over an option without a word: 1.4 and we take it."""
    return any(re.match(r"-[a-z]\w|--\w*_", part) for part in line)


CULLERS = {"1.4": "4", "2.0": "5"}  # which of the older Hubs has which version


@pytest.mark.slow("command lines of the idle culler")
@pytest.mark.parametrize("version", CULLERS)
def test_every_line_of_the_idle_culler_means_the_same_or_is_refused_in_one_sentence(
    version: str, tmp_path: Path
) -> None:
    """Each option in each spelling, each two of them, and all subsets of the options."""
    python = older_hub_python(CULLERS[version])
    lines = [*single_lines(), *pairs(), *combinations()]
    if version == "2.0":
        lines = [line for line in lines if not is_ignored_by_2(line)]
    theirs = effects_of(lines, python, tmp_path)
    assert sum(effect is not None for effect in theirs) > len(lines) / 4
    assert_agreement(lines, theirs)


@pytest.mark.slow("command lines of the idle culler")
def test_every_subset_of_its_options_as_hubs_write_them_is_taken() -> None:
    """What z2jh, TLJH and its documentation write, whichever options there are."""
    for line in combinations():
        found = ours(line)
        assert isinstance(found, Settings), (line, found)
        words = {
            part.partition("=")[0][2:].replace("-", "_"): part.partition("=")[2] for part in line
        }
        for name in BOOLEANS:
            if name in words:
                assert SAME[name](found) is (words[name] == "true")
        assert found.poll.default.timeout == 3600


REFUSED = {
    "--config=culler.py": "--policy-file",
    "--generate-config": "--policy-file",
    "--logging=debug": "--log-level",
    "--log_file_prefix=x": "standard error",
    "--log-to-stderr": "standard error",
    "--IdleCuller.timeout=5": "use --timeout",
    "--IdleCuller.cull_arbiter_hook=x": "--policy-file",
    "--cull-users=no": "--cull-users",
    "--cull-named-servers=": "must be true or false",
    "--cull-named-servers=off": "1.4 would read this as true",
    "--concurrency=0": "from 1 to 1000",
    "--timeout=0": "at least 1 s",
    "--max-age=-5": "--max-age",
    "--cull-every=0": "at least 1 s",
}


@pytest.mark.parametrize(("argument", "instead"), REFUSED.items())
def test_what_is_refused_says_what_to_use(argument: str, instead: str) -> None:
    said = ours([argument])
    assert isinstance(said, str)
    assert instead in said


def test_a_value_apart_from_a_true_or_false_is_refused_since_its_versions_disagree() -> None:
    for name, word in (("--cull-users", "false"), ("--cull-users", "no"), ("--enforce", "yes")):
        said = ours([name, word])
        assert isinstance(said, str)
        assert f"write {name}={word}" in said


def test_words_that_its_versions_read_differently_are_taken_from_our_own_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HUB_IDLE_EXPORTER_CULL_NAMED_SERVERS", "off")
    found = ours([])
    assert isinstance(found, Settings)
    assert not found.poll.cull_named_servers


def test_cull_admin_users_alone_means_nothing(tmp_path: Path) -> None:
    for line in (["--cull-admin-users=false"], ["--cull-admin-users"]):
        found = ours(line)
        assert isinstance(found, Settings)
        assert not found.cull.users.delete


def test_its_timeout_of_requests_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_REQUEST_TIMEOUT", "90")
    found = ours([])
    assert isinstance(found, Settings)
    assert found.connection.timeout == 90
