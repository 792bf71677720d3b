"""Commands and options: flags and environment → `Config` → what was asked for."""

import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import COMMANDS, __version__, sidecar
from .commands.check import check
from .commands.servers import list_servers
from .config import checked_address, checked_url, settings_from
from .domain.durations import ALLOWED, seconds_of
from .domain.settings import BusyCheck, ConfigError
from .log import FORMATS, LEVELS

PREFIX = "HUB_IDLE_EXPORTER_"
DEFAULT_URL = "http://127.0.0.1:8081/hub/api"
_LONGEST_SHOWN = 200
_BOOLEANS = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class Kind(click.ParamType[object]):
    """An option's type made of a function that raises ValueError saying what is allowed.

    An option of a `flag` kind may stand without a value: then it is true.
    """

    def __init__(self, name: str, parse: Callable[[str], object], flag: bool = False) -> None:
        self.name, self._parse, self.flag = name, parse, flag

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse, or end with one line that names option, value and what is allowed."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            allowed = str(error).removeprefix(f"{value!r} is not a duration: ")
            self.fail(f"{_presentable(value)!r}{_origin(param, ctx)}: {allowed}", param, ctx)


def _origin(param: click.Parameter | None, ctx: click.Context | None) -> str:
    """Name the environment variable that a value came from: nobody remembers having set it."""
    if param is None or ctx is None or param.name is None:
        return ""
    if ctx.get_parameter_source(param.name) is not ParameterSource.ENVIRONMENT:
        return ""
    variables = [name for name in param.envvar or () if os.environ.get(name)]
    return f" (from ${variables[0]})"


def _presentable(value: str) -> str:
    """Take passwords out of a URL, and an end to what is too long for a line."""
    masked = re.sub(r"//[^/]*@", "//***@", value)
    return masked if len(masked) <= _LONGEST_SHOWN else f"{masked[:_LONGEST_SHOWN]}..."


def _duration(least: float) -> Kind:
    def parse(value: str) -> float:
        seconds = seconds_of(value)
        if seconds < least:
            raise ValueError(f"allowed are {ALLOWED}, at least {least:g} s")
        return seconds

    return Kind("duration", parse)


def _whole(least: int, most: int) -> Kind:
    def parse(value: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise ValueError(f"allowed are whole numbers from {least} to {most}")
        return int(value)

    return Kind("number", parse)


def _boolean(value: str) -> bool:
    for truth, spellings in zip((True, False), _BOOLEANS, strict=True):
        if value.lower() in spellings:
            return truth
    raise ValueError("allowed are true and false")


def _one_of(*choices: str) -> Kind:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"allowed are {', '.join(choices)}")
        return value

    return Kind("|".join(choices), parse)


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("allowed is the name of a Hub user")
    return value


def _refused(instead: str, flag: bool = False) -> Kind:
    def parse(_value: str) -> None:
        raise ValueError(instead)

    return Kind("refused", parse, flag)


BOOLEAN = Kind("true|false", _boolean, flag=True)
FILE = Kind("file", str)


def _option(
    name: str, kind: Kind, text: str, default: str | None = None, *names: str, **more: Any
) -> Callable[[Any], Any]:
    """Declare an option that is also read from `HUB_IDLE_EXPORTER_` + its name."""
    variable = PREFIX + name.upper().replace("-", "_").replace(".", "_")
    also = more.pop("also", ())
    return click.option(
        f"--{name}",
        *(f"--{other}" for other in names),
        name.replace("-", "_").replace(".", "_"),
        type=kind,
        default=default,
        envvar=[variable, *also],
        show_envvar=False,
        show_default=default is not None,
        help=text,
        metavar=kind.name if "|" in kind.name else kind.name.upper(),
        **more,
    )


# The order is that of `--help` and of the README's table.
OPTIONS = [
    _option("url", Kind("url", checked_url), "The Hub's API.", DEFAULT_URL,
            also=("JUPYTERHUB_API_URL",)),
    _option("api-token-file", FILE, "File that holds the token, read again when the Hub refuses "
            "it. Otherwise $JUPYTERHUB_API_TOKEN or $JPY_API_TOKEN; never an argument."),
    _option("timeout", _duration(1), "Idle limit.", "1h"),
    _option("interval", _duration(1), "Time between polls.", "60s", "cull-every"),
    _option("enforce", BOOLEAN, "Cull servers past their limit; without it nothing is ever "
            "stopped and no user's server is contacted.", "false"),
    _option("max-age", _duration(0), "Also stop servers older than this, at work or not; "
            "0 for none.", "0"),
    _option("concurrency", _whole(1, 1000), "Stops under way at once.", "10"),
    _option("max-culls", _whole(0, 1_000_000), "Maximum culls per poll, the most idle first; "
            "0 for no limit.", "0"),
    _option("grace", _duration(0), "No stops for this long after the start and after an outage "
            "of the Hub.", "10m"),
    _option("busy-check", _one_of(*BusyCheck), "Ask a server itself before it is "
            "stopped: auto (where the token allows it), require, off.", "auto"),
    _option("probe-user", Kind("name", _name), "The Hub user who owns the tokens for asking.",
            "idle-prober"),
    _option("max-busy", _duration(1), "Cull a server even if busy, after this long "
            "without a break.",
            "24h"),
    _option("policy-file", FILE, "YAML file with policies."),
    _option("cull-default-servers", BOOLEAN, "Whether default servers may be stopped.", "true"),
    _option("cull-named-servers", BOOLEAN, "Whether named servers may be stopped.", "true"),
    _option("remove-named-servers", BOOLEAN, "Remove named servers once they are stopped.",
            "false"),
    _option("api-page-size", _whole(1, 10_000), "Users per page.", "200"),
    _option("request-timeout", _duration(1), "Longest wait for one answer of the Hub.", "60s"),
    _option("ssl-enabled", BOOLEAN, "The Hub uses internal_ssl.", "false"),
    _option("internal-certs-location", FILE, "Folder of the Hub's internal_ssl certificates.",
            "internal-ssl"),
    _option("ca-file", FILE, "Private certificate authority of the Hub."),
    _option("per-server-metrics", BOOLEAN, "Series by user and server name.", "false"),
    _option("web.listen-address", Kind("address", checked_address), "Where to serve /metrics; "
            ":9899 listens on all interfaces.", "127.0.0.1:9899"),
    _option("log-level", _one_of(*LEVELS), "Least severity that is logged.", "info"),
    _option("log-format", _one_of(*FORMATS), "How events are written.", "logfmt"),
]  # fmt: skip

_LATER = "deleting users comes with a later version: leave it out"
_NOT_HERE = "there is no configuration file: use the options, and --policy-file for policies"
REFUSED = [
    _option("web.config.file", _refused("TLS and passwords come with a later version: put a "
            "reverse proxy in front"), "Comes later.", hidden=True),
    _option("cull-users", _refused(_LATER, flag=True), "Comes later.", hidden=True),
    _option("cull-admin-users", _refused(_LATER, flag=True), "Comes later.", hidden=True),
    _option("config", _refused(_NOT_HERE), "The idle culler's.", hidden=True),
    _option("generate-config", _refused(_NOT_HERE, flag=True), "The idle culler's.", hidden=True),
]  # fmt: skip


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Write bare booleans and the idle culler's spellings as `--name=value`."""
    flags = {
        name
        for option in cli.params
        if isinstance(option.type, Kind) and option.type.flag
        for name in option.opts
    }
    given = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if name.startswith("--IdleCuller."):
            raise click.UsageError(f"{name}: traitlets are not read here: {_NOT_HERE}")
        if name == "--no-enforce" and not equals:
            argument = "--enforce=false"
        elif name in flags and not equals:
            argument = f"{name}=true"
        given.append(argument)
    return given


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS + REFUSED):
        command = option(command)
    return command


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each option is also read from HUB_IDLE_EXPORTER_ + its name in capitals, with - and "
    ". as _ (HUB_IDLE_EXPORTER_TIMEOUT=2h). A true|false option by itself (--enforce) is true; "
    "--no-enforce is --enforce=false.",
)
@click.argument("command", required=False, type=_one_of(*COMMANDS), metavar="[COMMAND]")
@click.option("--once", is_flag=True, help="Poll once (and cull once, with --enforce), and end.")
@click.option("--json", "as_json", is_flag=True, help="With `servers`: as JSON.")
@_with_options
@click.version_option(__version__, prog_name="hub-idle-exporter")
def cli(command: str | None, once: bool, as_json: bool, **options: Any) -> int:
    """Watch a JupyterHub's idle servers for Prometheus and, with --enforce, stop them.

    Without COMMAND the sidecar runs until it is told to end. `check` is a preflight that changes
    nothing, `servers` a table of all servers with verdicts, `demo` a JupyterHub to try it on.
    """
    if as_json and command != "servers":
        raise click.UsageError("--json goes with the command `servers`")
    if once and command is not None:
        raise click.UsageError("--once goes with the sidecar, not with a command")
    if command is not None:  # these are ended as every command is
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if command == "demo":
        from .demo import run as run_demo  # it needs the extra

        return run_demo()
    _refuse_culler_config()
    settings = settings_from(options, once)
    if command == "check":
        return check(settings, os.environ)
    if command == "servers":
        return list_servers(settings, os.environ, as_json)
    run = sidecar.run_once if once else sidecar.run
    return run(settings, os.environ)


def _refuse_culler_config() -> None:
    """End where the idle culler would have read a file that nobody reads here."""
    if Path("idle_culler_config.py").exists():
        raise click.UsageError(f"idle_culler_config.py is here, but {_NOT_HERE}; then remove it")


def main() -> None:
    """Run; mistakes of people end in one line and exit 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not know every user's letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = spelled_out(sys.argv[1:])
        code = cli.main(arguments, prog_name="hub-idle-exporter", standalone_mode=False)
    except click.ClickException as error:
        sys.exit(_complain(error.format_message()))
    except ConfigError as error:
        sys.exit(_complain(str(error)))
    except click.Abort:
        sys.exit(130)
    except OSError as error:  # nobody reads, or the disk is full
        sys.exit(_complain(f"standard output cannot be written to: {error.strerror}"))
    sys.exit(code or 0)


def _complain(sentence: str) -> int:
    click.echo(f"hub-idle-exporter: {sentence}", err=True)
    return 2
