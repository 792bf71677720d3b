"""One line an event, whatever a name holds; the token never in it."""

import io
import json
import sys
from collections.abc import Callable

import pytest
import structlog
from exporter_process import fields
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_idle_exporter import log
from hub_idle_exporter.domain.text import printable

HOSTILE = [
    "plain",
    "we ird@ex.org",
    "ünï 日本",
    "",
    " ",
    'quo"te',
    "back\\slash",
    'both\\" level=error event=culled user="root',
    "equals=sign",
    "new\nline ts=2026 level=info event=culled",
    "carriage\rreturn",
    "tab\tbed",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "nul\x00",
    "\u2028line separator\u2029",
    "\u202eright to left",
    "\x7f",
    "{}%s$(id)`id`",
    "</script>",
]


class Log:
    """The log of a process, caught."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, form: str, level: str = "debug") -> None:
        self.stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", self.stream)
        log.configure(level, form, lambda text: text.replace("s3cret", "***"))
        self.form = form

    def write(self, event: str, **values: object) -> dict[str, str]:
        """Log an event; give the one line as it would be read."""
        self.stream.seek(0)
        self.stream.truncate()
        structlog.get_logger().info(event, **values)
        text = self.stream.getvalue()
        assert text.endswith("\n")
        assert len(text.splitlines()) == 1, text
        assert text[:-1].isprintable()
        return json.loads(text) if self.form == "json" else fields(text)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Log]:
    def make(form: str, level: str = "debug") -> Log:
        return Log(monkeypatch, form, level)

    return make


@pytest.fixture(autouse=True)
def _as_before() -> object:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("form", log.FORMATS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_one_value_on_one_line(
    make: Callable[..., Log], form: str, name: str
) -> None:
    line = make(form).write("culled", user=name, server=name, idle=1.0, why=f"because of {name}")
    assert line["event"] == "culled"
    assert line["level"] == "info"
    assert line["user"] == line["server"] == printable(name)
    assert line["why"] == printable(f"because of {name}")
    assert set(line) == {"ts", "level", "event", "user", "server", "idle", "why"}


@pytest.mark.parametrize("form", log.FORMATS)
def test_lists_and_nothing_stay_on_one_line(make: Callable[..., Log], form: str) -> None:
    line = make(form).write("read", policies=HOSTILE, reason=None, on=True, seconds=1.23456789)
    assert line["event"] == "read"
    assert str(line["seconds"]) == "1.235"


@pytest.mark.parametrize("form", log.FORMATS)
def test_the_token_is_masked_wherever_it_is(make: Callable[..., Log], form: str) -> None:
    made = make(form)
    made.write("failed s3cret", error="GET ?token=s3cret failed", names=["s3cret"])
    assert "s3cret" not in made.stream.getvalue()


@pytest.mark.parametrize("level", log.LEVELS)
def test_levels(make: Callable[..., Log], level: str) -> None:
    made = make("logfmt", level)
    logger = structlog.get_logger()
    for each in log.LEVELS:
        getattr(logger, each)("said")
    shown = [fields(line)["level"] for line in made.stream.getvalue().splitlines()]
    assert shown == list(log.LEVELS)[list(log.LEVELS).index(level) :]


def test_a_line_begins_with_time_level_and_event(make: Callable[..., Log]) -> None:
    made = make("logfmt")
    made.write("culled", user="ana")
    assert [pair.partition("=")[0] for pair in made.stream.getvalue().split()] == [
        "ts", "level", "event", "user",
    ]  # fmt: skip
    assert made.stream.getvalue().split()[0].endswith("Z")


@settings(deadline=None)
@given(st.text())
def test_what_is_printable_is_one_line_and_nothing_is_lost(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
