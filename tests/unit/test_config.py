"""Options, environment and token: what is allowed arrives, what is not is named in one line."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
import requests
from certipy import Certipy  # type: ignore[import-untyped]

from hub_idle_exporter import cli
from hub_idle_exporter.config import settings_from, shown_settings
from hub_idle_exporter.domain.settings import ConfigError, Settings
from hub_idle_exporter.hub.token import Token, find_token


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("HUB_IDLE_EXPORTER_", "JUPYTER", "JPY_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def parsed(*arguments: str) -> Settings:
    """Give the configuration that these arguments, and the environment, make."""
    context = cli.cli.make_context("hub-idle-exporter", cli.spelled_out(arguments))
    options = dict(context.params)
    for other in ("command", "as_json", "watching", "of_users"):
        options.pop(other)
    return settings_from(options, options.pop("once"))


def token_of(settings: Settings, environ: Mapping[str, str]) -> Token:
    return find_token(settings.token_file, environ)


def value_of(settings: Settings, name: str) -> object:
    """Find an option's value in the configuration."""
    poll, cull, connection = settings.poll, settings.cull, settings.connection
    opinion = settings.spare_query
    places: dict[str, object] = {
        "url": connection.url,
        "api-token-file": settings.token_file,
        "timeout": poll.default.timeout,
        "interval": poll.interval,
        "enforce": cull.enforce,
        "max-age": poll.default.max_age,
        "concurrency": cull.concurrency,
        "max-culls": cull.max_culls,
        "grace": settings.cull.grace,
        "busy-check": cull.busy_check,
        "probe-user": cull.probe_user,
        "max-busy": cull.max_busy,
        "max-unanswered": cull.max_unanswered,
        "prometheus-url": opinion and opinion.url,
        "spare-query": opinion and opinion.query,
        "prometheus-token-file": opinion and opinion.token_file,
        "policy-file": settings.policy_file,
        "notice": poll.default.notice,
        "state-file": settings.state_file,
        "notify-file": settings.notify_file,
        "cull-default-servers": poll.cull_default_servers,
        "cull-named-servers": poll.cull_named_servers,
        "remove-named-servers": cull.remove_named_servers,
        "cull-users": cull.users.delete,
        "cull-admin-users": cull.users.admins,
        "user-timeout": cull.users.timeout,
        "api-page-size": connection.page_size,
        "max-hub-share": connection.max_share,
        "request-timeout": connection.timeout,
        "ca-file": connection.ca_file,
        "per-server-metrics": poll.per_server_metrics,
        "web.listen-address": (settings.web.host, settings.web.port),
        "web.config.file": settings.web.config_file,
        "log-level": settings.log.level,
        "log-format": settings.log.format,
        "ssl-enabled": settings.tls_directory is not None,
    }
    return places[name]


# The contract's table: option, default, another value as it is written, and as it arrives.
TABLE: list[tuple[str, object, str, object]] = [
    ("url", "http://127.0.0.1:8081/hub/api", "https://hub.example/x/", "https://hub.example/x"),
    ("api-token-file", None, "token", "token"),
    ("timeout", 3600.0, "90m", 5400.0),
    ("interval", 60.0, "1", 1.0),
    ("enforce", False, "true", True),
    ("max-age", 0.0, "2d", 172800.0),
    ("concurrency", 10, "3", 3),
    ("max-culls", 0, "7", 7),
    ("grace", 600.0, "0", 0.0),
    ("busy-check", "require", "auto", "auto"),
    ("probe-user", "idle-prober", "ünï", "ünï"),
    ("max-busy", 86400.0, "1h30m", 5400.0),
    ("max-unanswered", 0.0, "6h", 21600.0),
    ("policy-file", None, "policies.yaml", "policies.yaml"),
    ("notice", 0.0, "15m", 900.0),
    ("state-file", None, "state.sqlite", "state.sqlite"),
    ("notify-file", None, "notify.txt", "notify.txt"),
    ("cull-default-servers", True, "false", False),
    ("cull-named-servers", True, "false", False),
    ("remove-named-servers", False, "true", True),
    ("cull-users", False, "true", True),
    ("cull-admin-users", False, "true", True),
    ("user-timeout", 2592000.0, "90d", 7776000.0),
    ("api-page-size", 200, "50", 50),
    ("max-hub-share", 25, "5", 5),
    ("request-timeout", 60.0, "1.5", 1.5),
    ("per-server-metrics", False, "true", True),
    ("web.listen-address", ("127.0.0.1", 9899), "[::1]:0", ("::1", 0)),
    ("web.config.file", None, "web.yml", "web.yml"),
    ("log-level", "info", "debug", "debug"),
    ("log-format", "logfmt", "json", "json"),
]


# These need each other.
OPINION = {
    "prometheus-url": ("https://prometheus.example/x/", "https://prometheus.example/x"),
    "spare-query": ("cpu > bool 0.1", "cpu > bool 0.1"),
    "prometheus-token-file": ("token", "token"),
}


def variable(name: str) -> str:
    return "HUB_IDLE_EXPORTER_" + name.upper().replace("-", "_").replace(".", "_")


@pytest.mark.parametrize(("name", "default", "written", "arrived"), TABLE)
class TestEachOption:
    def test_default(self, name: str, default: object, written: str, arrived: object) -> None:
        assert value_of(parsed(), name) == default

    def test_flag(self, name: str, default: object, written: str, arrived: object) -> None:
        assert value_of(parsed(f"--{name}={written}"), name) == arrived

    def test_variable(
        self, name: str, default: object, written: str, arrived: object,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setenv(variable(name), written)
        assert value_of(parsed(), name) == arrived

    def test_a_flag_wins_over_a_variable(
        self, name: str, default: object, written: str, arrived: object,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setenv(variable(name), "§ no value of anything §")
        assert value_of(parsed(f"--{name}={written}"), name) == arrived

    def test_an_empty_variable_is_unset(
        self, name: str, default: object, written: str, arrived: object,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setenv(variable(name), "")
        assert value_of(parsed(), name) == default

    @pytest.mark.parametrize("command", [None, "check", "servers"])
    def test_before_and_after_the_command(
        self, name: str, default: object, written: str, arrived: object, command: str | None
    ) -> None:
        words = [command] if command else []
        before, after = parsed(f"--{name}={written}", *words), parsed(*words, f"--{name}={written}")
        assert before == after
        assert value_of(before, name) == arrived


def test_the_table_is_all_there_is() -> None:
    apart = {"ssl-enabled", "internal-certs-location", "ca-file"}  # they need files
    apart |= {"keep-max", *OPINION}  # they need another option
    shown = {
        parameter.opts[0].removeprefix("--")
        for parameter in cli.cli.params
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
    }
    assert (
        shown - {"once", "json", "watch", "users", "version"} == {row[0] for row in TABLE} | apart
    )


def test_the_second_opinion_is_read_from_options_and_from_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parsed().spare_query is None
    by_options = parsed(*(f"--{name}={written}" for name, (written, _) in OPINION.items()))
    for name, (written, _) in OPINION.items():
        monkeypatch.setenv(variable(name), written)
    for name, (_, arrived) in OPINION.items():
        assert value_of(by_options, name) == value_of(parsed(), name) == arrived
    assert shown_settings(by_options)["spare_query"] == "cpu > bool 0.1"


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        (["spare-query"], "--spare-query needs --prometheus-url"),
        (["prometheus-url"], "--prometheus-url needs --spare-query"),
        (["prometheus-token-file"], "--prometheus-token-file needs --prometheus-url"),
        (["prometheus-url", "prometheus-token-file"], "--prometheus-url needs --spare-query"),
    ],
)
def test_half_a_second_opinion_is_refused_and_not_ignored(given: list[str], needed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(*(f"--{name}={OPINION[name][0]}" for name in given))
    assert str(caught.value) == needed


@pytest.mark.parametrize("query", [" ", "\n", "up{user='\udcff'}"])
def test_a_query_that_cannot_be_sent_is_refused(query: str) -> None:
    with pytest.raises(click.UsageError, match="must be a PromQL query, in UTF-8"):
        parsed(f"--spare-query={query}", "--prometheus-url=http://prometheus.example")


@pytest.mark.parametrize("option", ["--ca-file", "--internal-certs-location"])
@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(option: str, name: str) -> None:
    with pytest.raises(ConfigError):
        parsed("--ssl-enabled", f"{option}={name}")


def test_values_may_stand_apart_from_their_option() -> None:
    assert value_of(parsed("--timeout", "2h", "check", "--interval", "5"), "timeout") == 7200


@pytest.mark.parametrize(
    ("arguments", "enforce"),
    [
        (["--enforce"], True),
        (["--no-enforce"], False),
        (["--enforce", "--no-enforce"], False),
        (["--no-enforce", "--enforce"], True),
        (["--enforce=false"], False),
        (["--enforce=True"], True),
        (["--enforce=1"], True),
        ([], False),
    ],
)
def test_enforcing_is_off_unless_asked_for(arguments: list[str], enforce: bool) -> None:
    assert parsed(*arguments).cull.enforce is enforce


def test_by_default_nobody_is_stopped_whose_server_was_not_asked() -> None:
    """Whoever comes from the idle culler with that culler's roles must not become blind."""
    settings = parsed("--enforce")
    assert value_of(settings, "busy-check") == "require"
    assert value_of(settings, "max-unanswered") == 0, "never by its silence"


def test_no_enforce_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_IDLE_EXPORTER_ENFORCE", "true")
    assert parsed().cull.enforce
    assert not parsed("--no-enforce").cull.enforce


def test_unknown_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_IDLE_EXPORTER_COLOUR", "blue")
    monkeypatch.setenv("HUB_IDLE_EXPORTER_ONCE", "true")
    assert parsed() == parsed()


def test_cull_every_is_the_interval() -> None:
    assert parsed("--cull-every=90").poll.interval == 90


# ---- where the Hub is ---------------------------------------------------------------------------


def test_the_hubs_own_variable_names_its_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_URL", "http://10.0.0.1:8081/hub/api")
    assert parsed().connection.url == "http://10.0.0.1:8081/hub/api"
    monkeypatch.setenv("HUB_IDLE_EXPORTER_URL", "http://10.0.0.2/hub/api")
    assert parsed().connection.url == "http://10.0.0.2/hub/api"
    assert parsed("--url=http://10.0.0.3/hub/api").connection.url == "http://10.0.0.3/hub/api"


def test_the_hubs_own_variable_set_and_empty_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_URL", "")
    assert parsed().connection.url == "http://127.0.0.1:8081/hub/api"


def test_listening_on_a_port_alone_is_listening_everywhere() -> None:
    settings = parsed("--web.listen-address=:9899")
    assert settings.web.host in ("::", "0.0.0.0")  # noqa: S104
    assert settings.web.port == 9899


# ---- the token ----------------------------------------------------------------------------------


def test_the_token_comes_from_the_environment() -> None:
    assert token_of(parsed(), {"JUPYTERHUB_API_TOKEN": "new"}).header == "token new"
    assert token_of(parsed(), {"JPY_API_TOKEN": "old"}).header == "token old"
    both = {"JUPYTERHUB_API_TOKEN": "new", "JPY_API_TOKEN": "old"}
    assert token_of(parsed(), both).header == "token new"


def test_a_variable_that_is_set_and_empty_is_unset() -> None:
    environ = {"JUPYTERHUB_API_TOKEN": "", "JPY_API_TOKEN": "old"}
    assert token_of(parsed(), environ).header == "token old"


def test_a_file_wins_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("\n filed \n\n")
    config = parsed(f"--api-token-file={file}")
    assert token_of(config, {"JUPYTERHUB_API_TOKEN": "new"}).header == "token filed"


@pytest.mark.parametrize("environ", [{}, {"JUPYTERHUB_API_TOKEN": " ", "JPY_API_TOKEN": ""}])
def test_no_token_says_where_to_put_one(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"JUPYTERHUB_API_TOKEN.*--api-token-file"):
        token_of(parsed(), environ)


@pytest.mark.parametrize("value", ["s3cret with spaces", "s3cret\nline", "s3crét", "s3cret\x00"])
def test_a_token_that_cannot_be_sent_is_refused_unseen(value: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(value)
    for config, environ in (
        (parsed(), {"JUPYTERHUB_API_TOKEN": value}),
        (parsed(f"--api-token-file={file}"), {}),
    ):
        with pytest.raises(ConfigError, match="is not a token: it has") as caught:
            token_of(config, environ)
        assert "s3cr" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    empty = tmp_path / "empty"
    empty.touch()
    for path in (tmp_path, tmp_path / "nowhere", binary, empty):
        with pytest.raises(ConfigError, match=str(path)):
            token_of(parsed(f"--api-token-file={path}"), {"JUPYTERHUB_API_TOKEN": "other"})


def test_the_effective_configuration_shows_no_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret")
    shown = shown_settings(parsed(f"--api-token-file={file}", "--enforce", "--timeout=90m"))
    assert "s3cret" not in repr(shown)
    assert (shown["enforce"], shown["timeout"]) == (True, "1h30m")


# ---- internal_ssl -------------------------------------------------------------------------------


def test_internal_ssl_names_the_files_that_the_hub_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "internal-ssl"  # the default, below the working directory
    with pytest.raises(ConfigError, match=r"--ssl-enabled: .*hub-internal.crt is missing"):
        parsed("--ssl-enabled")
    certipy = Certipy(store_dir=str(folder), remove_existing=True)
    certipy.create_ca("hub-ca")
    certipy.create_signed_pair("hub-internal", "hub-ca")
    with pytest.raises(ConfigError, match=r"hub-ca_trust.crt is missing"):
        parsed("--ssl-enabled=true")
    shutil.copy(folder / "hub-ca" / "hub-ca.crt", folder / "hub-ca_trust.crt")
    connection = parsed("--ssl-enabled").connection
    assert connection.ca_file == "internal-ssl/hub-ca_trust.crt"
    assert connection.client_certificate == (
        "internal-ssl/hub-internal/hub-internal.crt",
        "internal-ssl/hub-internal/hub-internal.key",
    )


def test_a_private_authority_is_looked_for_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--ca-file"):
        parsed(f"--ca-file={tmp_path / 'nowhere'}")
    file = tmp_path / "ca.pem"
    shutil.copy(requests.utils.DEFAULT_CA_BUNDLE_PATH, file)
    assert parsed(f"--ca-file={file}").connection.ca_file == str(file)


def test_a_limit_of_0_is_shown_in_words() -> None:
    shown = shown_settings(parsed())
    assert (shown["max_unanswered"], shown["max_culls"], shown["max_age"]) == (
        "never", "no limit", "none",
    )  # fmt: skip
    assert shown_settings(parsed("--max-unanswered=90m"))["max_unanswered"] == "1h30m"


def test_every_option_is_shown_in_the_log_of_the_start() -> None:
    options = {
        (parameter.name or "").replace("api_token_file", "api_token")
        for parameter in cli.cli.params
        if isinstance(parameter, click.Option) and parameter.envvar and not parameter.hidden
    }
    assert shown_settings(parsed()).keys() == options


# ---- what people are promised -------------------------------------------------------------------

BROKEN_PROMISES: dict[str, tuple[list[str], str]] = {
    "a notice as long as the limit": (
        ["--notice=1h"],
        "--notice 1h: it must be shorter than --timeout, which is 1h",
    ),
    "a notice as long as the maximum age": (
        ["--notice=30m", "--max-age=30m"],
        "--notice 30m: it must be shorter than --max-age, which is 30m",
    ),
    "keeps that nothing remembers": (
        ["--keep-max=8h"],
        "--keep-max needs --state-file: what people keep must survive a restart",
    ),
    "a single run that forgets what it announced": (
        ["--once", "--enforce", "--notice=15m"],
        "--once with --notice needs --state-file: nothing else remembers it",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_PROMISES)
def test_what_could_not_be_promised_is_one_sentence(kind: str) -> None:
    arguments, sentence = BROKEN_PROMISES[kind]
    with pytest.raises(ConfigError) as caught:
        parsed(*arguments)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ["--notice=59m", "--max-age=1h"],
        ["--keep-max=8h", "--state-file=state.sqlite"],
        ["--once", "--enforce", "--notice=15m", "--state-file=state.sqlite"],
        ["--once", "--notice=15m"],
        ["--notice=15m"],
    ],
)
def test_what_can_be_promised_is_taken(arguments: list[str]) -> None:
    parsed(*arguments)


def test_pauses_take_half_an_interval_at_most() -> None:
    assert parsed("--interval=1s").connection.list_seconds == 0.5
    assert parsed("--interval=5m").connection.list_seconds == 150.0
