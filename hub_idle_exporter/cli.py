"""The command line: flags and environment → `Settings` → the command."""

import io
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import COMMANDS, __version__, culler_options, managed, service_port, sidecar
from .commands.check import check
from .commands.servers import list_servers, watch_servers
from .commands.users import list_idle_users
from .config import checked_address, checked_query, checked_url, settings_from
from .domain.durations import ALLOWED, seconds_of
from .domain.settings import BusyCheck, ConfigError, Settings, WebSettings
from .domain.text import printable
from .log import FORMATS, LEVELS

PREFIX = "HUB_IDLE_EXPORTER_"
DEFAULT_URL = "http://127.0.0.1:8081/hub/api"
_LONGEST_SHOWN = 200
_BOOLEANS = ("true", "1", "yes", "on", "t"), ("false", "0", "no", "off", "f")


class Kind(click.ParamType[object]):
    """The type of an option, made from a function that raises ValueError saying what is allowed.

    A `flag` may be given without a value, which means true.
    """

    def __init__(self, name: str, parse: Callable[[str], object], flag: bool = False) -> None:
        self.name, self._parse, self.flag = name, parse, flag

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse, or exit with one line: the option, the value, and what is allowed."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{_presentable(value)!r}{_origin(param, ctx)}: {error}", param, ctx)


def _origin(param: click.Parameter | None, ctx: click.Context | None) -> str:
    """Name the environment variable that a value came from: it may have been set long ago."""
    if param is None or ctx is None or param.name is None:
        return ""
    if ctx.get_parameter_source(param.name) is not ParameterSource.ENVIRONMENT:
        return ""
    variables = [name for name in param.envvar or () if os.environ.get(name)]
    return f" (from ${variables[0]})"


def _presentable(value: str) -> str:
    """Mask passwords in a URL, and cut a value that is too long for one line."""
    masked = re.sub(r"//[^/]*@", "//***@", value)
    return masked if len(masked) <= _LONGEST_SHOWN else f"{masked[:_LONGEST_SHOWN]}..."


def _duration(least: float) -> Kind:
    def parse(value: str) -> float:
        seconds = seconds_of(value)
        if seconds < least:
            raise ValueError(f"must be {ALLOWED}; at least {least:g} s")
        return seconds

    return Kind("duration", parse)


def _whole(least: int, most: int) -> Kind:
    def parse(value: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(value)

    return Kind("number", parse)


def _boolean(value: str) -> bool:
    for truth, spellings in zip((True, False), _BOOLEANS, strict=True):
        if value.lower() in spellings:
            return truth
    raise ValueError("must be true or false")


def _one_of(*choices: str) -> Kind:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return Kind("|".join(choices), parse)


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be the name of a Hub user")
    return value


class Refused(Kind):
    """The type of an option that is not taken: whatever its value is, it says what to use."""

    def __init__(self, instead: str) -> None:
        super().__init__("refused", str, flag=True)
        self._instead = instead

    def convert(
        self, _value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Exit with one line."""
        name = param.opts[0] if param else "this option"
        raise click.UsageError(f"{name}{_origin(param, ctx)}: {self._instead}")


BOOLEAN = Kind("true|false", _boolean, flag=True)
FILE = Kind("file", str)


def _variable(option: str) -> str:
    """Return the name of the variable that an option can be set by."""
    return PREFIX + option.upper().replace("-", "_").replace(".", "_")


def _option(
    name: str, kind: Kind, text: str, default: str | None = None, *names: str, **more: Any
) -> Callable[[Any], Any]:
    """Declare an option that can also be set by `HUB_IDLE_EXPORTER_` + its name."""
    also = more.pop("also", ())
    return click.option(
        f"--{name}",
        *(f"--{other}" for other in names),
        name.replace("-", "_").replace(".", "_"),
        type=kind,
        default=default,
        envvar=[_variable(name), *also],
        show_envvar=False,
        show_default=default is not None,
        help=text,
        metavar=kind.name if "|" in kind.name else kind.name.upper(),
        **more,
    )


# In the order of `--help` and of the table in docs/configuration.md.
OPTIONS = [
    _option("url", Kind("url", checked_url), "URL of the Hub's API.", DEFAULT_URL,
            also=("JUPYTERHUB_API_URL",)),
    _option("api-token-file", FILE, "File with the API token. It is read again when the Hub "
            "refuses the token. Without it: $JUPYTERHUB_API_TOKEN or $JPY_API_TOKEN."),
    _option("timeout", _duration(1), "Idle limit.", "1h"),
    _option("interval", _duration(1), "Time between polls.", "60s", "cull-every"),
    _option("enforce", BOOLEAN, "Stop servers past their limit. Without it nothing is stopped, "
            "and no user's server is contacted.", "false"),
    _option("max-age", _duration(0), "Also stop servers older than this, even if in use; "
            "0 for no limit.", "0"),
    _option("concurrency", _whole(1, 1000), "Maximum number of stops in flight.", "10"),
    _option("max-culls", _whole(0, 1_000_000), "Maximum stops per poll, most idle first; "
            "0 for no limit.", "0"),
    _option("grace", _duration(0), "Grace period: no stops for this long after the start, after "
            "an outage of the Hub, and after another exporter was enforcing.", "10m"),
    _option("busy-check", _one_of(*BusyCheck), "Ask each server whether it is busy before "
            "it is stopped: require (or stop nothing), auto (if the token allows it), off.",
            "require"),
    _option("probe-user", Kind("name", _name), "Hub user who owns the minted tokens: they ask a "
            "server, stop it, and elect one exporter. Nobody may sign in as it.", "idle-prober"),
    _option("max-busy", _duration(1), "Cull a server even if busy, once it has been busy for "
            "this long without a break.", "24h"),
    _option("max-unanswered", _duration(0), "Judge a server by last_activity alone, once it has "
            "given no usable answer for this long; 0 for never.", "0"),
    _option("prometheus-url", Kind("url", checked_url), "URL of a Prometheus that is asked for a "
            "second opinion. Needs --spare-query."),
    _option("spare-query", Kind("promql", checked_query), "PromQL query whose series, by user and "
            "server, say who is at work: a server is stopped for being idle only if all its series "
            "are 0."),
    _option("prometheus-token-file", FILE, "File with the bearer token for that Prometheus."),
    _option("policy-file", FILE, "YAML file with policies."),
    _option("notice", _duration(0), "Announce an idle server this long before it is stopped, and "
            "stop none that was not announced; 0 for no notice.", "0"),
    _option("keep-max", _duration(0), "How long people may keep a server of their own at a time, "
            "on the page inside the Hub; 0 for not at all. Needs --state-file.", "0"),
    _option("state-file", FILE, "SQLite file for what must survive a restart: what people keep, "
            "and what was announced."),
    _option("notify-file", FILE, "File with Apprise URLs, one a line, through which people are "
            "told before their server is stopped, and after."),
    _option("cull-default-servers", BOOLEAN, "Whether default servers may be stopped.", "true"),
    _option("cull-named-servers", BOOLEAN, "Whether named servers may be stopped.", "true"),
    _option("remove-named-servers", BOOLEAN, "Remove a named server from the Hub, two "
            "minutes after its stop was verified.", "false"),
    _option("cull-users", BOOLEAN, "Also find users idle past --user-timeout and, with "
            "--enforce, delete them: this cannot be undone.", "false"),
    _option("cull-admin-users", BOOLEAN, "Whether administrators of the Hub may be "
            "deleted too; without it they are kept."),
    _option("user-timeout", _duration(86400), "Idle limit of users, at least a day.", "30d"),
    _option("api-page-size", _whole(0, 10_000), "Maximum users per page when users are listed; 0 "
            "for the default.", "200"),
    _option("max-hub-share", _whole(1, 100), "Maximum share of the Hub's time for reading lists, "
            "in percent: there is a pause after each page. 100: no pauses.", "25"),
    _option("request-timeout", _duration(1), "Timeout of one request to the Hub, with its whole "
            "answer.", "60s", also=("JUPYTERHUB_REQUEST_TIMEOUT",)),
    _option("ssl-enabled", BOOLEAN, "The Hub uses internal_ssl.", "false"),
    _option("internal-certs-location", FILE, "Folder with the Hub's internal_ssl certificates.",
            "internal-ssl"),
    _option("ca-file", FILE, "File with the private CAs (PEM) that signed the certificates of "
            "the Hub and of that Prometheus."),
    _option("per-server-metrics", BOOLEAN, "Export series by user and server name.", "false"),
    _option("web.listen-address", Kind("address", checked_address), "Address to serve /metrics "
            "and the page on; :9899 listens on all interfaces.", "127.0.0.1:9899"),
    _option("web.config.file", FILE, "File with TLS, passwords and headers for that address, in "
            "the format of Prometheus exporters."),
    _option("log-level", _one_of(*LEVELS), "Lowest level that is logged.", "info"),
    _option("log-format", _one_of(*FORMATS), "Format of the log.", "logfmt"),
]  # fmt: skip

REFUSED = [
    _option(name, Refused(instead), "Of jupyterhub-idle-culler.", hidden=True)
    for name, instead in culler_options.REFUSED.items()
]


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Write bare booleans, `--no-enforce` and what idle-culler takes as `--name=value`."""
    ours = [one for one in cli.params if isinstance(one, click.Option)]
    names = {name for option in ours for name in option.opts}
    flags = {
        name
        for option in ours
        if isinstance(option.type, Kind) and option.type.flag
        for name in option.opts
    }
    given = ["--enforce=false" if one == "--no-enforce" else one for one in arguments]
    return culler_options.spelled_as_ours(given, names, flags)


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS + REFUSED):
        command = option(command)
    return command


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each option can also be set by a variable: HUB_IDLE_EXPORTER_ and its name in "
    "capitals, with _ for - and . (HUB_IDLE_EXPORTER_TIMEOUT=2h). A true|false option without a "
    "value (--enforce) is true; --no-enforce is --enforce=false.",
)
@click.argument("command", required=False, type=_one_of(*COMMANDS), metavar="[COMMAND]")
@click.option("--once", is_flag=True, help="Poll once (and cull once, with --enforce), then exit.")
@click.option("--json", "as_json", is_flag=True, help="With `servers`: print JSON.")
@click.option("--watch", "watching", is_flag=True, help="With `servers`: print the table again "
              "every --interval, until Ctrl-C.")  # fmt: skip
@click.option("--users", "of_users", is_flag=True, help="With `servers`: list the users idle past "
              "--user-timeout instead.")  # fmt: skip
@_with_options
@click.version_option(__version__, prog_name="hub-idle-exporter")
def cli(
    command: str | None,
    once: bool,
    as_json: bool,
    watching: bool,
    of_users: bool,
    **options: Any,
) -> int:
    """Export a JupyterHub's idle servers to Prometheus and, with --enforce, stop them.

    Without COMMAND, run until SIGTERM or SIGINT. `check` checks the configuration and changes
    nothing. `servers` lists all servers with their verdicts. `demo` runs a JupyterHub to try it on.
    """
    for flag, given in (("--json", as_json), ("--watch", watching), ("--users", of_users)):
        if given and command != "servers":
            raise click.UsageError(f"{flag} works only with the command `servers`")
    if watching and (as_json or of_users):
        raise click.UsageError(
            f"--watch cannot be combined with {'--json' if as_json else '--users'}"
        )
    if once and command is not None:
        raise click.UsageError("--once cannot be combined with a command")
    if command is not None:  # the usual signal handling of a command
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if command == "demo":
        from .demo import run as run_demo  # needs the extra `demo`

        return run_demo()
    _refuse_culler_config()
    settings = settings_from(options, once, _unknown_variables())
    if command == "check":
        return check(settings, os.environ)
    if command == "servers":
        return _list(settings, as_json, watching, of_users)
    take = click.get_current_context().obj
    if take is not None:
        take(settings)
        return 0
    run = sidecar.run_once if once else sidecar.run
    return run(settings, os.environ)


def _settings_of(arguments: Sequence[str]) -> Settings:
    """Read the settings of the sidecar; raise ConfigError if an option cannot be used."""
    if "--once" in arguments:
        raise ConfigError("--once: a service with a url must not end, or the Hub does")
    found: list[Settings] = []
    try:
        _invoke(arguments, found.append)
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from None
    return found[0]


def _web_settings_of(arguments: Sequence[str]) -> WebSettings:
    """Read where the sidecar is to listen, as far as that can be read: another option is wrong."""
    address, file = (_given(name, arguments) for name in ("web.listen-address", "web.config.file"))
    try:
        host, port = checked_address(address or "")
    except ValueError:
        return replace(WebSettings(), config_file=file)
    return WebSettings(host, port, file)


def _given(option: str, arguments: Sequence[str]) -> str | None:
    """Find the value of an option where nothing can be parsed."""
    for one, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = one.partition("=")
        if name == f"--{option}":
            return value if equals else following
    return os.environ.get(_variable(option))


def _invoke(arguments: Sequence[str], take: Callable[[Settings], None] | None = None) -> int:
    """Run the command line; with `take` the sidecar does not run, and its settings are taken."""
    name = "hub-idle-exporter"
    spelled = spelled_out(arguments)
    return cli.main(spelled, prog_name=name, standalone_mode=False, obj=take) or 0


def _unknown_variables() -> list[str]:
    """Name set variables that look like options: one may be misspelled, and so without effect."""
    declared = (option.envvar for option in cli.params if isinstance(option, click.Option))
    known = {name for names in declared for name in names or ()}
    similar = PREFIX.rstrip("_")
    return sorted(one for one in os.environ if one.upper().startswith(similar) and one not in known)


def _list(settings: Settings, as_json: bool, watching: bool, of_users: bool) -> int:
    if of_users:
        return list_idle_users(settings, os.environ, as_json)
    if watching:
        return watch_servers(settings, os.environ)
    return list_servers(settings, os.environ, as_json)


def _refuse_culler_config() -> None:
    """Refuse to start next to the idle culler's configuration, which would be ignored."""
    if Path(culler_options.CONFIG_FILE).exists():
        raise click.UsageError(
            f"{culler_options.CONFIG_FILE} is in this directory, but {culler_options.NO_CONFIG}; "
            "then remove the file"
        )


def main(listener: socket.socket | None = None) -> None:
    """Run the command line; report a usage error in one line and exit with 2.

    As a service with a page inside the Hub no error ends the process. `listener` is the port of
    that page if it is open already.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may not be able to encode every name
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    if service_port.is_wanted(arguments, os.environ):
        read = partial(_settings_of, arguments)
        code = managed.run(read, _web_settings_of(arguments), os.environ, listener)
        os._exit(code)  # the threads of the page may still wait for a Hub that does not answer
    try:
        code = _invoke(arguments)
    except click.ClickException as error:
        sys.exit(_complain(error.format_message()))
    except ConfigError as error:
        sys.exit(_complain(str(error)))
    except click.Abort:
        sys.exit(130)
    except OSError as error:  # the reader is gone, or the disk is full
        sys.exit(_complain(f"cannot write to standard output: {error.strerror}"))
    sys.exit(code)


def _complain(sentence: str) -> int:
    click.echo(f"hub-idle-exporter: {printable(sentence)}", err=True)
    return 2
