"""Commands run inside the test's own process: as `main()` runs them, without the start-up time."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import structlog
from exporter_process import assert_secret, environment

from hub_idle_exporter import cli


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def run(
    arguments: Sequence[str],
    directory: Path,
    url: str | None = None,
    token: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Run `hub-idle-exporter ARGUMENTS` in a directory; its token may be in nothing it says."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _restored(directory),
        mock.patch.object(sys, "argv", ["hub-idle-exporter", *arguments]),
        mock.patch.dict(os.environ, environment(url, token, variables or {}), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = _exit_code()
    assert_secret([out.getvalue(), err.getvalue()], {token} if token else set())
    return Done(code, out.getvalue(), err.getvalue())


def _exit_code() -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int), ended.value.code
    return ended.value.code


@contextmanager
def _restored(directory: Path) -> Iterator[None]:
    """Put back what a command changes in its process."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    hook, before = threading.excepthook, Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
        threading.excepthook = hook
        structlog.reset_defaults()
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
