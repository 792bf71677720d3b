"""The README against the code: its tables, examples, links and commands."""

import ast
import re
from enum import StrEnum
from pathlib import Path

import click
import pytest
from exporter_process import fields
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from hub_idle_exporter import COMMANDS, cli, log
from hub_idle_exporter.domain.census import take
from hub_idle_exporter.domain.gate import GateState
from hub_idle_exporter.domain.labels import Cause, CullFailure, ProbeResult, Withheld
from hub_idle_exporter.domain.policy import Policy, Rules, State
from hub_idle_exporter.domain.poll_state import Snapshot
from hub_idle_exporter.domain.scopes import Scope
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.policy_file import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DEFAULT = Policy("default", 3600.0)


def table(heading: str) -> list[list[str]]:
    """Give the cells of the table that begins with this heading, without its two first rows."""
    lines = README.splitlines()
    assert lines.count(heading) == 1, f"the README has one table {heading}"
    rows = []
    for line in lines[lines.index(heading) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def quoted(cell: str) -> list[str]:
    """Give what stands in backquotes."""
    return re.findall(r"`([^`]*)`", cell)


def blocks(language: str) -> list[str]:
    """Give the README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


# ---- options ------------------------------------------------------------------------------------

OPTIONS_TABLE = table("| option | default | meaning |")


def options() -> list[click.Option]:
    """Give the options that people see, but those of single commands."""
    return [
        parameter
        for parameter in cli.cli.params
        if isinstance(parameter, click.Option)
        and not parameter.hidden
        and parameter.envvar is not None
    ]


def test_the_options_are_all_there_in_their_order() -> None:
    assert [quoted(row[0])[0] for row in OPTIONS_TABLE] == [one.opts[0] for one in options()]


@pytest.mark.parametrize("option", options(), ids=lambda option: str(option.name))
def test_an_option_has_its_default_variable_and_other_name(option: click.Option) -> None:
    row = next(row for row in OPTIONS_TABLE if quoted(row[0])[0] == option.opts[0])
    shown = None if row[1] == "none" else quoted(row[1])[0]
    assert shown == option.default
    name = option.opts[0].removeprefix("--")
    variables = option.envvar
    assert isinstance(variables, list)
    assert variables[0] == "HUB_IDLE_EXPORTER_" + re.sub("[-.]", "_", name).upper()
    for other in [*option.opts[1:], *(f"${variable}" for variable in variables[1:])]:
        assert other in "".join(row)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--busy-check", ["auto", "require", "off"]),
        ("--log-level", list(log.LEVELS)),
        ("--log-format", list(log.FORMATS)),
    ],
)
def test_the_values_of_an_option_are_all_named(option: str, values: list[str]) -> None:
    row = next(row for row in OPTIONS_TABLE if quoted(row[0])[0] == option)
    assert quoted(row[2]) == values


def test_no_option_is_spoken_of_that_is_none() -> None:
    known = {name for one in cli.cli.params for name in one.opts} | {"--no-enforce"}
    others = {"--IdleCuller"}  # the idle culler's
    spoken = set(re.findall(r"(?<![\w-])--[A-Za-z][\w.-]*\w", README.replace("--IdleCuller.*", "")))
    assert spoken - others <= known


def test_the_idle_cullers_options_all_have_a_row() -> None:
    shown = "".join(
        row[0] for row in table("| jupyterhub-idle-culler 2.0.0 | its default | here |")
    )
    for name in (
        "api-page-size", "concurrency", "config", "cull-admin-users", "cull-default-servers",
        "cull-every", "cull-named-servers", "cull-users", "generate-config",
        "internal-certs-location", "max-age", "remove-named-servers", "ssl-enabled", "timeout",
        "url",
    ):  # fmt: skip
        assert f"`--{name}" in shown
    assert "cull_arbiter_hook" in shown


# ---- metrics ------------------------------------------------------------------------------------

METRICS_TABLE = table("| metric | type | labels | meaning |")
VALUES: dict[str, type[StrEnum]] = {
    "jupyterhub_servers": State,
    "hub_idle_exporter_poll_failures_total": Cause,
    "hub_idle_exporter_enforcement": GateState,
    "hub_idle_exporter_busy_checks_total": ProbeResult,
    "hub_idle_exporter_cull_failures_total": CullFailure,
    "hub_idle_exporter_culls_withheld_total": Withheld,
}


def families() -> dict[str, Metric]:
    """Give all metrics by the name under which they are queried."""
    metrics = Metrics(CollectorRegistry(), lambda: GateState.OFF, [DEFAULT])
    metrics.facts.snapshot = Snapshot("6.1.1", take([], Rules((DEFAULT,))))
    found = metrics.registry.collect()
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in found
    }


def per_server(name: str) -> bool:
    return name.endswith(("_last_activity_timestamp_seconds", "_started_timestamp_seconds"))


def test_the_metrics_are_all_there() -> None:
    shown = [quoted(row[0])[0] for row in METRICS_TABLE]
    assert len(shown) == len(set(shown))
    assert {name for name in shown if not per_server(name)} == set(families())
    assert len([name for name in shown if per_server(name)]) == 2


@pytest.mark.parametrize("row", METRICS_TABLE, ids=lambda row: row[0].strip("`"))
def test_a_metric_has_its_type_labels_and_values(row: list[str]) -> None:
    name = quoted(row[0])[0]
    if per_server(name):
        assert (row[1], quoted(row[2])) == ("gauge", ["user", "server"])
        assert "--per-server-metrics" in row[3]
        return
    family = families()[name]
    assert row[1].replace(" ", "") == family.type
    labels = {label for sample in family.samples for label in sample.labels}
    assert set(quoted(row[2])) == labels - ({"le"} if family.type == "histogram" else set())
    if name in VALUES:
        assert {str(value) for value in VALUES[name]} <= set(quoted(row[3]))


# ---- scopes, commands, examples -----------------------------------------------------------------


def test_the_scopes_are_all_there() -> None:
    rows = table("| scope | needed for |")
    assert [quoted(row[0])[0] for row in rows] == [str(scope) for scope in Scope]


def test_the_roles_grant_each_scope() -> None:
    roles = next(block for block in blocks("python") if "load_roles" in block)
    for scope in Scope:
        assert f'"{scope}' in roles


def test_the_commands_are_all_there() -> None:
    shown = [quoted(row[0])[0] for row in table("| command | does |")]
    assert [line.split()[1] for line in shown[1:]] == list(COMMANDS)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_in_the_readme_is_python(block: str) -> None:
    ast.parse(block)


def test_the_example_of_a_policy_file_works() -> None:
    examples = [block for block in blocks("yaml") if block.startswith("policies:")]
    assert examples
    for block in examples:
        assert len(parse(block.encode(), "README.md", DEFAULT)) > 1


def test_the_example_of_the_log_names_what_the_audit_needs() -> None:
    lines = [line for line in README.splitlines() if line.startswith("level=")]
    assert lines
    for line in lines:
        assert fields(line).keys() >= {"user", "server", "policy", "reason", "idle", "age"}


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert links
    for link in links:
        assert "://" in link or (ROOT / link).exists(), link


def test_make_has_what_the_readme_speaks_of() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(blocks("sh")))) <= targets


def test_what_it_costs_is_what_the_benchmark_wrote() -> None:
    """Each figure of the README stands in the benchmark's own table."""
    section = README.partition("## What it costs")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    written = (ROOT / "bench" / "RESULTS.md").read_text().splitlines()
    assert len(rows) > 10
    assert [row for row in rows if row not in written] == []
