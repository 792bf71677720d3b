"""The documentation against the code: its tables, code blocks, links and commands."""

import ast
import dataclasses
import json
import re
import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import poll_states
import pytest
import yaml
from documentation import PAGES, ROOT, block, blocks, text
from exporter_process import fields
from jupyterhub.auth import Authenticator
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

import bench.report
from hub_idle_exporter import COMMANDS, cli, policy_file
from hub_idle_exporter.domain.census import census_of
from hub_idle_exporter.domain.gate import GateReading, GateState
from hub_idle_exporter.domain.policy import Policy, Rules
from hub_idle_exporter.domain.poll_state import LatestState, Snapshot
from hub_idle_exporter.domain.scopes import Scope
from hub_idle_exporter.domain.settings import PollSettings
from hub_idle_exporter.metrics import Metrics
from hub_idle_exporter.policy_file import parse
from hub_idle_exporter.serving import connections, passwords, web_config
from hub_idle_exporter.serving.crowd import Limits
from hub_idle_exporter.serving.rendering import MOST_FILTERED

PACKAGE = ROOT / "hub_idle_exporter"
DEFAULT = Policy("default", 3600.0)


def table(page: str, heading: str) -> list[list[str]]:
    """Give the cells of the table that begins with this heading, without its first two rows."""
    lines = text(page).splitlines()
    assert lines.count(heading) == 1, f"{page} has one table {heading}"
    rows = []
    for line in lines[lines.index(heading) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def quoted(cell: str) -> list[str]:
    """Give what is in backquotes."""
    return re.findall(r"`([^`]*)`", cell)


def prose(page: str) -> str:
    """Give a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.DOTALL | re.MULTILINE)


# ---- options ------------------------------------------------------------------------------------

CONFIGURATION = "docs/configuration.md"
OPTIONS_TABLE = table(CONFIGURATION, "| option | default | meaning |")


def options() -> list[click.Option]:
    """Give the options that people see, without those of single commands."""
    return [
        parameter
        for parameter in cli.cli.params
        if isinstance(parameter, click.Option)
        and not parameter.hidden
        and parameter.envvar is not None
    ]


def row_of(option: click.Option) -> list[str]:
    return next(row for row in OPTIONS_TABLE if quoted(row[0])[0] == option.opts[0])


def test_the_options_are_all_there_in_their_order() -> None:
    assert [quoted(row[0])[0] for row in OPTIONS_TABLE] == [one.opts[0] for one in options()]


@pytest.mark.parametrize("option", options(), ids=lambda option: str(option.name))
def test_an_option_has_its_default_variable_and_other_name(option: click.Option) -> None:
    row = row_of(option)
    shown = None if row[1] == "none" else quoted(row[1])[0]
    assert shown == option.default
    name = option.opts[0].removeprefix("--")
    variables = option.envvar
    assert isinstance(variables, list)
    assert variables[0] == "HUB_IDLE_EXPORTER_" + re.sub("[-.]", "_", name).upper()
    for other in [*option.opts[1:], *(f"${variable}" for variable in variables[1:])]:
        assert other in "".join(row)


@pytest.mark.parametrize(
    "option",
    [one for one in options() if "|" in one.type.name and one.type.name != "true|false"],
    ids=lambda option: str(option.name),
)
def test_the_values_of_an_option_are_all_named(option: click.Option) -> None:
    assert quoted(row_of(option)[2]) == option.type.name.split("|")


def test_a_fixed_variable_is_listed_and_read() -> None:
    """Each variable without our prefix that the page names is read somewhere in the package."""
    listed = [quoted(row[0])[0] for row in table(CONFIGURATION, "| variable | used for |")]
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert [name for name in listed if f'"{name}"' not in code] == []
    others = {name for one in options() for name in one.envvar[1:]}  # type: ignore[index]
    assert others <= set(listed)


OF_OTHER_PROGRAMS = {
    "--query.replica-label",  # Thanos
    "--metric-annotations-allowlist", "--metric-labels-allowlist",  # kube-state-metrics
    "--docker_only", "--env_metadata_whitelist",  # cAdvisor
    "--Culling",  # of no program: docs/second-opinion.md
    "--build", "--build-arg", "--cap-drop", "--detach", "--env", "--file", "--format", "--name",
    "--network", "--publish", "--read-only", "--restart", "--rm", "--security-opt", "--tag",
    "--user", "--volume", "--volumes",  # docker
    "--filename", "--from-file", "--namespace", "--output", "--server-side",  # kubectl
    "--values",  # helm
    "--upgrade", "--no-deps", "--version", "--wheel-dir",  # tools/lock.py, pip, Python
    "--header", "--request", "--silent",  # curl
    "--no-create-home", "--shell", "--system",  # useradd
    *(f"--MappingKernelManager.cull_{one}" for one in ("idle_timeout", "interval", "connected")),
    "--now", "--pipe", "--property", "--quiet", "--wait", "--grep",  # systemctl and its like
    "--fail",  # curl
    "--force", "--python", "--yes",  # pipx, uv, pip
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_no_option_is_mentioned_that_does_not_exist(page: str) -> None:
    known = {name for one in cli.cli.params for name in one.opts} | {"--no-enforce", "--help"}
    said = re.sub(r"--IdleCuller\.\*|--cull_every=\d+", "", text(page))
    mentioned = set(re.findall(r"(?<![\w-])--[A-Za-z][\w.-]*\w", said))
    assert mentioned - OF_OTHER_PROGRAMS <= known


def test_the_idle_cullers_options_all_have_a_row() -> None:
    rows = table("docs/migration.md", "| jupyterhub-idle-culler | its default | here |")
    shown = "".join(row[0] for row in rows)
    for name in (
        "api-page-size", "concurrency", "config", "cull-admin-users", "cull-default-servers",
        "cull-every", "cull-named-servers", "cull-users", "generate-config",
        "internal-certs-location", "max-age", "remove-named-servers", "ssl-enabled", "timeout",
        "url",
    ):  # fmt: skip
        assert f"`--{name}" in shown
    assert "cull_arbiter_hook" in shown


# ---- policies -----------------------------------------------------------------------------------


def test_the_keys_and_conditions_of_policies_are_all_there() -> None:
    keys = [quoted(row[0])[0] for row in table(CONFIGURATION, "| key | meaning |")]
    conditions = [quoted(row[0])[0] for row in table(CONFIGURATION, "| condition | holds when |")]
    assert keys == list(policy_file.KEYS)
    assert conditions == list(policy_file.CONDITIONS)


def test_the_examples_of_policy_files_are_valid() -> None:
    examples = [code for _, code in blocks("yaml") if code.startswith("policies:")]
    assert examples
    for code in examples:
        assert len(parse(code.encode(), "the docs", DEFAULT)) > 1


# ---- the port -----------------------------------------------------------------------------------


def test_the_keys_of_the_web_configuration_are_all_there() -> None:
    rows = table("docs/web.md", "| key of the file | meaning |")
    named = {name: meaning for cell, meaning in rows for name in quoted(cell)}
    headers = "http_server_config.headers"
    tls = {f"tls_server_config.{field.name}" for field in dataclasses.fields(web_config.TlsFiles)}
    assert set(named) == tls | {headers, "http_server_config.http2", "basic_auth_users"}
    assert set(quoted(named[headers])) == set(web_config.HEADERS)


def test_the_limits_of_the_port_are_those_of_the_code() -> None:
    said = dict(table("docs/web.md", "| limit of the port | |"))
    numbers = [[float(n) for n in re.findall(r"\d+", value)] for value in said.values()]
    limits = Limits()
    assert numbers == [
        [limits.total],
        [limits.per_address],
        [connections.HEAD_SECONDS],
        [Limits().head / 1024],
        [connections.BODY_SECONDS, connections.LARGEST_BODY / 1024],
        [connections.ANSWER_SECONDS],
        [limits.answers],
        [MOST_FILTERED],
    ]
    assert f"At most {passwords.MOST_PER_ADDRESS} passwords" in text("docs/web.md")
    assert f"and {passwords.MOST} in all" in text("docs/web.md")


def test_the_examples_of_web_configuration_are_valid() -> None:
    examples = [code for _, code in blocks("yaml") if code.startswith("tls_server_config:")]
    assert examples
    for code in examples:
        assert web_config.document_of(code.encode()).tls is not None


# ---- security -----------------------------------------------------------------------------------


def test_each_claim_about_security_has_a_test() -> None:
    rows = table("SECURITY.md", "| claim | test |")
    assert len(rows) > 10
    for claim, tests in rows:
        assert quoted(tests), claim
        for named in quoted(tests):
            file, _, test = named.partition("::")
            source = (ROOT / file).read_text()
            assert f"def {test}(" in source or not test, named


def test_each_fault_of_the_process_has_a_test() -> None:
    file = "tests/integration/test_process_faults.py"
    source = (ROOT / file).read_text()
    rows = table("docs/faults.md", "| fault | what comes of it | test |")
    named = [quoted(test)[0] for _, _, test in rows]
    assert set(named) == set(re.findall(r"^def (test_\w+)\(", source, re.MULTILINE))


def test_what_a_stolen_token_has_are_the_documented_scopes() -> None:
    documented = {row[0].strip("`") for row in table("docs/install.md", "| scope | needed for |")}
    said = set(quoted(text("SECURITY.md").partition("## What a stolen")[2]))
    assert documented - {"tokens"} <= said


# ---- metrics ------------------------------------------------------------------------------------

METRICS = "docs/metrics.md"
METRICS_TABLE = table(METRICS, "| metric | type | labels | meaning |")
ENUMERATED = ("state", "cause", "result", "reason", "operation", "safeguard")


@dataclass(frozen=True)
class Family:
    """A metric as it is exposed; `values` are those of labels that have a fixed set of them."""

    type: str
    labels: frozenset[str]
    values: frozenset[str]


def families(golden: str) -> dict[str, Family]:
    """Give the metrics of a golden file, which test_metrics.py compares with the code."""
    found = {}
    exposition = (ROOT / "tests" / "golden" / golden).read_text()
    for family in text_string_to_metric_families(exposition):  # type: ignore[no-untyped-call]
        labels = [sample.labels for sample in family.samples]
        found[f"{family.name}_total" if family.type == "counter" else family.name] = Family(
            "gauge histogram" if family.type == "gaugehistogram" else family.type,
            frozenset(name for one in labels for name in one),
            frozenset(one[name] for one in labels for name in ENUMERATED if name in one),
        )
    return found


FAMILIES = families("at-work.openmetrics")


def per_server(name: str) -> bool:
    return "user" in next(row[2] for row in METRICS_TABLE if quoted(row[0])[0] == name)


def test_the_metrics_are_all_there() -> None:
    shown = [quoted(row[0])[0] for row in METRICS_TABLE]
    assert len(shown) == len(set(shown))
    assert {name for name in shown if not per_server(name)} == set(FAMILIES)
    golden = (ROOT / "tests" / "golden" / "per-server.txt").read_text()
    lines = [line for line in golden.splitlines() if re.match(r'\w+\{server="[^"]*",user=', line)]
    assert {name for name in shown if per_server(name)} == {line.split("{")[0] for line in lines}


def test_the_metrics_of_the_process_are_all_there() -> None:
    sentence = re.search(
        r"The exporter's own process is (.+?)\.\n", text("docs/metrics.md"), re.DOTALL
    )
    assert sentence is not None
    collectors = ProcessCollector(registry=None), PlatformCollector(registry=None)
    families = [family for collector in collectors for family in collector.collect()]
    exposed = {sample.name for family in families for sample in family.samples}
    assert set(quoted(sentence[1])) == exposed


@pytest.mark.parametrize("row", METRICS_TABLE, ids=lambda row: row[0].strip("`"))
def test_a_metric_has_its_type_labels_and_values(row: list[str]) -> None:
    name = quoted(row[0])[0]
    if per_server(name):
        assert (row[1], quoted(row[2])) == ("gauge", ["user", "server"])
        assert "--per-server-metrics" in row[3]
        return
    family = FAMILIES[name]
    assert row[1] == family.type
    assert set(quoted(row[2])) == family.labels
    assert family.values <= set(quoted(row[3]))


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("| `state` of `jupyterhub_servers` | a server that |", "jupyterhub_servers"),
        ("| `state` of `enforcement` | means |", "hub_idle_exporter_enforcement"),
        (
            "| `cause` of `poll_failures` | the poll failed because |",
            "hub_idle_exporter_poll_failures_total",
        ),
        ("| `safeguard` | in place means that |", "hub_idle_exporter_safeguard"),
        (
            "| `result` of `busy_checks` | the server answered |",
            "hub_idle_exporter_busy_checks_total",
        ),
        (
            "| `cause` of `culls_withheld` | the server was not stopped because |",
            "hub_idle_exporter_culls_withheld_total",
        ),
        (
            "| `cause` of `cull_failures` | the stop failed because |",
            "hub_idle_exporter_cull_failures_total",
        ),
    ],
    ids=lambda value: value.strip("| ").split(" | ")[0] if "|" in value else "",
)
def test_each_value_of_a_label_is_explained(heading: str, name: str) -> None:
    explained = [quoted(row[0])[0] for row in table(METRICS, heading)]
    assert sorted(explained) == sorted(FAMILIES[name].values)


# ---- log events ---------------------------------------------------------------------------------

LOG_EVENTS = "docs/log-events.md"
EVENTS_TABLE = table(LOG_EVENTS, "| event | level | logged when | fields |")
LEVELS = {"debug", "info", "warning", "error"}
LOGGERS = {"log", "logger", "_log", "_logger"}
HANDED_ON = {"log_on_change", "_log_on_change"}  # helpers that get the event handed on
SNAKE_CASE = re.compile(r"[a-z]+(_[a-z]+)*")


@dataclass(frozen=True)
class Event:
    """One place where an event is logged; `level` None where only the run tells."""

    name: str
    level: str | None
    fields: frozenset[str]


def _name(node: ast.expr) -> str:
    """Give the last part of `name`, `self.name` or `module.name`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _level(node: ast.expr) -> str | None:
    """Give the level of `log.info` and the like, None for anything else."""
    if isinstance(node, ast.Attribute) and node.attr in LEVELS and _name(node.value) in LOGGERS:
        return node.attr
    return None


def events_of(source: str) -> Iterator[Event]:
    """Find each event that a module logs: a literal argument of a logger or of a helper."""
    tree = ast.parse(source)
    variables = {
        _name(node.targets[0]): _literals(node.value, {})
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        level, helper = _level(node.func), _name(node.func)
        if level is None and helper not in HANDED_ON | {"write"}:
            continue
        # A helper gets its topic first.
        arguments = node.args[1:] if helper in HANDED_ON else node.args[:1]
        levels = [level, *map(_level, node.args)]
        known_level = next((one for one in levels if one), None)
        named = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
        for argument in arguments:
            for name in _literals(argument, variables):
                yield Event(name, known_level, named)


def _literals(argument: ast.expr, variables: Mapping[str, list[str]]) -> list[str]:
    """Give the event names that an argument can be, also of `"one" if ... else "other"`."""
    if isinstance(argument, ast.IfExp):
        return [*_literals(argument.body, variables), *_literals(argument.orelse, variables)]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value] if SNAKE_CASE.fullmatch(argument.value) else []
    return variables.get(_name(argument), []) if isinstance(argument, ast.Name) else []


EVENTS = [event for path in PACKAGE.rglob("*.py") for event in events_of(path.read_text())]


@pytest.mark.parametrize(
    ("source", "name", "level"),
    [
        ('log.info("an_event", some=1)', "an_event", "info"),
        ('self._log.error("an_event", **audit)', "an_event", "error"),
        ('log_on_change("topic", why, log.error, "an_event", why=why)', "an_event", "error"),
        ('self._log_on_change("topic", 3, write, "an_event")', "an_event", None),
        ('write("an_event", error=text)', "an_event", None),
    ],
)
def test_events_are_found_however_they_are_logged(
    source: str, name: str, level: str | None
) -> None:
    assert [(event.name, event.level) for event in events_of(source)] == [(name, level)]


def test_an_event_in_a_variable_is_found() -> None:
    source = (
        'event = "one_event" if bad else "other_event"\n'
        'self._log_on_change("topic", 3, log.error, event)'
    )
    assert [event.name for event in events_of(source)] == ["one_event", "other_event"]


def test_the_log_events_are_all_there() -> None:
    shown = [quoted(row[0])[0] for row in EVENTS_TABLE]
    assert len(shown) == len(set(shown))
    assert sorted(shown) == sorted({event.name for event in EVENTS})


@pytest.mark.parametrize("row", EVENTS_TABLE, ids=lambda row: row[0].strip("`"))
def test_a_log_event_has_its_level_and_fields(row: list[str]) -> None:
    levels = row[1].split(", ")
    assert set(levels) <= LEVELS
    for event in EVENTS:
        if event.name == quoted(row[0])[0]:
            assert event.level is None or event.level in levels
            assert event.fields - {"level"} <= set(quoted(row[3])), "fields"


def test_the_example_of_the_log_has_what_the_audit_needs() -> None:
    lines = [line for line in text(LOG_EVENTS).splitlines() if line.startswith("level=")]
    known = {event.name for event in EVENTS}
    assert lines
    for line in lines:
        assert fields(line).keys() >= {"user", "server", "policy", "reason", "idle", "age"}
        assert fields(line)["event"] in known


# ---- scopes, commands ---------------------------------------------------------------------------


def test_the_scopes_are_all_there() -> None:
    rows = table("docs/install.md", "| scope | needed for |")
    assert [quoted(row[0])[0] for row in rows] == [str(scope) for scope in Scope]


# What a service needs to enforce, and the prober; with `read:users:groups` only for policies.
ENFORCING = {
    "list:users", "read:servers", "delete:servers", "proxy",
    "tokens!user=idle-prober", "tokens!service=idle-prober",
}  # fmt: skip
PROBER = {"access:servers", "delete:servers"}
HOOK = block("docs/probe-user.md", "post_auth_hook")


@dataclass(frozen=True)
class Shown:
    """A configuration of a Hub that people paste."""

    page: str
    scopes: Mapping[str, set[str]]  # by the name of the user or service that gets them
    hooks: list[str]  # the code that refuses the sign-in as the prober


def run(code: str) -> Config:
    """Run a Hub's configuration, which may extend what is there; give what it configures."""
    config = Config({"JupyterHub": {"load_roles": [], "services": []}})
    exec(code, {"c": config})  # noqa: S102
    return config


def shown_as_python(page: str, code: str) -> Shown:
    return Shown(page, scopes_of(run(code).JupyterHub.load_roles), [])


def shown_as_values(page: str, values: str) -> Shown:
    """Read values of Zero to JupyterHub's chart."""
    hub = yaml.safe_load(values)["hub"]
    hooks = [code for code in hub.get("extraConfig", {}).values() if "post_auth_hook" in code]
    return Shown(page, scopes_of(hub["loadRoles"].values()), hooks)


def scopes_of(roles: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    bearers = {
        name: set(role["scopes"])
        for role in roles
        for name in (*role.get("users", ()), *role.get("services", ()))
    }
    return {name: scopes - {Scope.READ_GROUPS} for name, scopes in bearers.items()}


VALUES = [f"deploy/zero-to-jupyterhub/{form}.yaml" for form in ("managed", "standalone")]
SHOWN = [
    *(shown_as_python(*one) for one in blocks("python") if '"users": ["idle-prober"]' in one[1]),
    *(shown_as_values(file, text(file)) for file in VALUES),
]


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.page)
def test_the_roles_grant_what_enforcing_needs_and_no_more(shown: Shown) -> None:
    assert shown.scopes == {"idle-exporter": ENFORCING, "idle-prober": PROBER}


def test_the_roles_are_on_the_pages_that_tell_how_to_install() -> None:
    pages = {shown.page for shown in SHOWN}
    assert pages == {"README.md", "docs/install.md", "docs/migration.md", *VALUES}


def test_the_demo_has_the_documented_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("exporter-token", "people-token", "password"):
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("DEMO_SECRETS", str(tmp_path))
    file = PACKAGE / "demo" / "jupyterhub_config.py"
    config = PyFileConfigLoader(file.name, str(file.parent)).load_config()
    scopes = scopes_of(config.JupyterHub.load_roles)
    assert scopes["idle-exporter"] == ENFORCING
    assert scopes["idle-prober"] == PROBER


@pytest.fixture
def littlest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for The Littlest JupyterHub, in a folder as it has there."""
    # It replaces this method, in the Hub's process.
    monkeypatch.setattr(Authenticator, "run_post_auth_hook", Authenticator.run_post_auth_hook)
    file = tmp_path / "jupyterhub_config.d" / "zz-idle-exporter.py"
    file.parent.mkdir()
    file.write_text(text("deploy/littlest-jupyterhub/idle_exporter.py"))
    return file


def test_the_file_for_the_littlest_jupyterhub_has_the_documented_roles(
    littlest_file: Path, tmp_path: Path
) -> None:
    file = littlest_file
    hub = PyFileConfigLoader(file.name, str(file.parent)).load_config().JupyterHub
    scopes = scopes_of(hub.load_roles.get_value([]))
    assert scopes == {"idle-exporter": ENFORCING, "idle-prober": PROBER}
    (service,) = hub.services.get_value([])
    assert (tmp_path / "idle-exporter-token").read_text() == service["api_token"]
    assert (tmp_path / "idle-exporter-token").stat().st_mode & 0o777 == 0o600
    _, module, *options = service["command"][1:]
    assert module == "hub_idle_exporter"
    assert cli.cli.make_context("hub-idle-exporter", cli.spelled_out(options))


def test_an_empty_token_file_of_the_littlest_jupyterhub_is_filled_once(
    littlest_file: Path, tmp_path: Path
) -> None:
    """A full disk leaves one; the Hub would then make a token that nobody else knows."""
    kept = tmp_path / "idle-exporter-token"
    kept.touch(mode=0o600)
    tokens = set()
    for _ in range(2):
        loader = PyFileConfigLoader(littlest_file.name, str(littlest_file.parent))
        tokens.add(loader.load_config().JupyterHub.services.get_value([])[0]["api_token"])
    assert tokens == {kept.read_text()}
    assert kept.read_text()


def test_the_hook_is_the_same_wherever_roles_are_shown() -> None:
    """The tests of real Hubs run the one of docs/probe-user.md."""
    for shown in SHOWN:
        here = [code for _, code in blocks("python", [shown.page]) if "post_auth_hook" in code]
        assert [*here, *shown.hooks] == [HOOK], shown.page
    file = text("deploy/littlest-jupyterhub/idle_exporter.py")
    assert file.endswith(HOOK[HOOK.index("async def") :])


def test_the_commands_are_all_there() -> None:
    shown = [quoted(row[0])[0] for row in table(CONFIGURATION, "| command | does |")]
    assert [line.split()[1] for line in shown[1:]] == list(COMMANDS)


# ---- code blocks --------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_is_a_configuration_of_a_hub(
    page: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "hubs")
    assert run(code), page


@pytest.mark.parametrize(("page", "code"), blocks("yaml"))
def test_yaml_is_yaml(page: str, code: str) -> None:
    assert yaml.safe_load(code), page


MAKE_TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
PROGRAMS = {"cp", "curl", "docker", "helm", "kubectl", "openssl", "pip", "sed", "sudo"}


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (page, line)
        for page, lines in blocks("sh")
        for line in lines.replace("\\\n", " ").splitlines()
    ],
)
def test_a_shell_command_exists(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "export":
        assert "=" in words[1], page
    elif words[0] == "make":
        assert set(words[1:]) <= set(MAKE_TARGETS)
    elif words[0] == "hub-idle-exporter":
        assert cli.cli.make_context("hub-idle-exporter", cli.spelled_out(words[1:]))
    elif words[:2] == ["docker", "run"]:
        ours = words[words.index("hub-idle-exporter") + 1 :]
        assert cli.cli.make_context("hub-idle-exporter", cli.spelled_out(ours))
    elif words[:2] == ["kubectl", "exec"]:
        ours = words[words.index("--") + 2 :]
        assert cli.cli.make_context("hub-idle-exporter", cli.spelled_out(ours))
    elif words[0] == ".venv/bin/python":
        paths = [word for word in words[1:] if "/" in word and not word.startswith("build/")]
        assert all((ROOT / path).exists() for path in paths)
    else:
        assert words[0] in PROGRAMS


@pytest.mark.parametrize("page", PAGES)
def test_make_has_what_is_mentioned(page: str) -> None:
    mentioned = set(re.findall(r"`make ([a-z-]+)`", prose(page)))
    assert mentioned <= set(MAKE_TARGETS)


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_is_mentioned_exists(page: str) -> None:
    """By its path in the repository or, as in the recipes, in the package."""
    files = [name for name in quoted(prose(page)) if re.fullmatch(r"[\w-]+/[\w./-]*\.\w+", name)]
    assert [one for one in files if not ((ROOT / one).exists() or (PACKAGE / one).exists())] == []


# ---- links and pictures -------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as a forge and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page.relative_to(ROOT).as_posix()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    links += re.findall(r'(?:src|srcset)="([^"]+)"', text(page))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.resolve()), link


def test_every_page_is_in_the_sites_contents() -> None:
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", text("docs/index.md"), re.DOTALL | re.M)
    listed = {line for tree in trees for line in tree.split() if not line.startswith(":")}
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if "docs/" in page}
    assert pages - {"index"} <= listed


def test_the_readme_is_short_and_its_picture_small() -> None:
    readme = text("README.md")
    assert len(readme.splitlines()) <= 150
    picture = re.findall(r"<picture>.*?</picture>", readme, re.DOTALL)
    assert len(picture) == 1
    assert readme.count("<img") == 1
    assert "![" not in readme
    dark, light = re.findall(r'(?:src|srcset)="([^"]+\.png)"', picture[0])
    assert "prefers-color-scheme: dark" in picture[0].partition(dark)[0]
    assert dark != light
    for name in (dark, light):
        _, height = struct.unpack(">II", (ROOT / name).read_bytes()[16:24])
        assert height <= 700


def test_the_glossary_is_short() -> None:
    glossary = text("CONTRIBUTING.md").partition("## Glossary\n")[2].partition("\n## ")[0]
    lines = [line for line in glossary.splitlines() if line]
    assert 0 < len(lines) <= 15
    for term in ("Hub", "Candidate", "Withheld", "Gate", "Prober", "Poll state"):
        assert f"**{term}**" in glossary


# ---- dashboards, alerts, cost, scale ------------------------------------------------------------


def test_the_panels_are_all_there() -> None:
    board = json.loads((ROOT / "grafana" / "dashboards" / "idle-servers.json").read_text())
    panels = [inner for one in board["panels"] for inner in (one, *one.get("panels", []))]
    shown = [row[0].strip("*") for row in table("docs/dashboards.md", "| panel | answers |")]
    assert shown == list(dict.fromkeys(panel["title"] for panel in panels))


def test_the_alerts_are_all_there() -> None:
    groups = yaml.safe_load((ROOT / "prometheus" / "rules.yml").read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    shown = [row[:2] for row in table("docs/dashboards.md", "| alert | severity | fires when |")]
    assert shown == [[rule["alert"], rule["labels"]["severity"]] for rule in alerts]


def test_the_runbook_addresses_of_the_alerts_are_valid() -> None:
    rules = (ROOT / "prometheus" / "rules.yml").read_text()
    addresses = re.findall(r"runbook_url: (\S+)", rules)
    assert addresses
    for address in addresses:
        path, _, anchor = address.partition("#")
        assert anchor in anchors(ROOT / path)


def goals_of(lines: list[str]) -> list[list[str]]:
    """Give the rows of all tables of goals in a page."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    return [row for row in rows if row[-1] in ("reached", "**missed**")]


def test_the_goals_are_those_of_the_benchmark() -> None:
    """The page of results states the limits that the benchmark applies now."""
    written = (ROOT / "bench" / "RESULTS.md").read_text().splitlines()
    wanted = {(what, limit) for what, limit, _, _ in bench.report.goals(EVERY_GOAL)}
    assert {(row[0], row[1]) for row in goals_of(written)} == wanted


def spread(**more: object) -> dict[str, Any]:
    return {"ours": {"median": 1.0, "peak": 1.0}, "median": 1.0, **more}


def poll(servers: int, registered: int) -> dict[str, Any]:
    figures = dict.fromkeys(
        ("cpu_seconds", "cpu_of_floor", "peer_cpu_of_ours", "memory_mb"), spread()
    )
    return {"servers": servers, "registered": registered, **figures}


# Results as the benchmark collects them, of everything that has a goal. The figures are made up.
EVERY_GOAL: dict[str, Any] = {
    "poll": [poll(n, n) for n in (1_000, 10_000)],
    "registered": [poll(1_000, n) for n in (1_000, 100_000)],
    "scrape": [
        {"while": doing, "per_server": per_server, "p99": 0.001}
        for doing, per_server in (
            ("at rest", False), ("polling every second", False), ("culling", False),
            ("at rest", True), ("polling every second", True),
        )
    ],
    "port": [
        {"dripping": n, "silent": 2 * n, "/metrics": {"p99": 0.01}, "/-/healthy": {"p99": 0.01}}
        for n in (0, 300)
    ],
    "drain": [
        {"servers": n, "stop_seconds": seconds, "requests": {}} | peer
        for n, seconds, peer in (
            (40, 1, {"peer_of_ours": 9.0}), (10, 10, {"peer_of_ours": 9.0}), (400, 1, {}),
        )
    ],
    "hub": [
        {"servers": 400, "registered": n, "ours_of_peer": spread()} for n in (400, 4_000)
    ],
    "unnoticed": {
        "polls": [
            {
                "servers": 1_000,
                "waits": {who: {"most": 0.01, "p999": 0.01} for who in ("ours", "peer")},
                "of_peer": {"ours": spread()},
                "at_work_of_peer": spread(),
            }
        ],
        "culls": {
            "culled": 200,
            "waits": {who: {"over_100_ms": 0} for who in ("ours", "bare stops")},
        },
    },
}  # fmt: skip


def test_what_it_costs_is_what_the_benchmark_wrote() -> None:
    """Each figure stands in the benchmark's own table."""
    rows = table("docs/cost.md", "| goal | wanted | measured | |")
    written = (ROOT / "bench" / "RESULTS.md").read_text().splitlines()
    assert len(rows) > 10
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written]
    assert [row for row in rows if row not in cells] == []
    measured = next(line for line in written if line.startswith("Measured"))
    assert measured.partition(" by ")[0] in text("docs/cost.md")


def series(policies: int) -> int:
    """Count the series after a successful poll of a Hub, with this many policies."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as the sidecar does
    rules = Rules((*(Policy(f"p{n}", 60.0) for n in range(policies - 1)), DEFAULT))
    state = poll_states.good(snapshot=Snapshot(0.0, census_of([], rules)))
    settings = PollSettings(DEFAULT)
    metrics = Metrics(
        CollectorRegistry(), LatestState(state), lambda _: GateReading(GateState.ON, ""), settings
    )
    return sum(len(family.samples) for family in metrics.collect())


def test_the_number_of_series_is_what_the_exporter_has() -> None:
    said = re.search(
        r"has (\d+) series .*? and (\d+) more for each", text("docs/scale.md"), re.DOTALL
    )
    assert said is not None
    assert [int(number) for number in said.groups()] == [series(1), series(2) - series(1)]
