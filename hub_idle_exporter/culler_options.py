"""The command lines of jupyterhub-idle-culler 1.4 and 2.0: written as ours, or refused in words.

What differs between its two versions, and what would mean something else here, is refused.
"""

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest

import click

CONFIG_FILE = "idle_culler_config.py"
NO_CONFIG = "there is no configuration file: use the options, and --policy-file for policies"
_TO_STDERR = "the log goes to standard error: use --log-level and --log-format"
# Options that are not taken: what to use instead. The last ones are those of its log, in 1.4.
REFUSED = {
    "config": NO_CONFIG,
    "generate-config": NO_CONFIG,
    "logging": "use --log-level=debug, info, warning or error",
    "log-to-stderr": _TO_STDERR,
    "log-file-prefix": _TO_STDERR,
    "log-file-max-size": _TO_STDERR,
    "log-file-num-backups": _TO_STDERR,
    "log-rotate-mode": _TO_STDERR,
    "log-rotate-when": _TO_STDERR,
    "log-rotate-interval": _TO_STDERR,
}
# Its options that are true or false, and the words that both of its versions read alike: 1.4 takes
# all others for true.
_BOOLEANS = frozenset(
    f"--{name}"
    for name in (
        "cull-admin-users", "cull-default-servers", "cull-named-servers", "cull-users",
        "remove-named-servers", "ssl-enabled",
    )
)  # fmt: skip
_LONGEST_SHOWN = 80
_READ_ALIKE = ("true", "1", "yes", "on", "t", "false", "0", "f")


def spelled_as_ours(
    arguments: Sequence[str], names: Collection[str], flags: Collection[str]
) -> list[str]:
    """Write arguments the way our parser reads them; raise click.UsageError for what is refused.

    Taken are `--cull_every=60` and `-timeout=600` (1.4), and true or false without a value.

    Args:
        arguments: of the command line.
        names: our options, each as `--name`.
        flags: those of them that are true or false.
    """
    given = [_our_spelling(argument, names) for argument in arguments]
    written = []
    for argument, following in zip_longest(given, given[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        if name in flags and not equals:
            if following.lower() in (*_READ_ALIKE, "no", "off"):
                raise click.UsageError(f"{name} {following}: write {name}={following}")
            argument = f"{name}=true"
        elif name in _BOOLEANS and value.lower() not in _READ_ALIKE:
            raise click.UsageError(
                f"Invalid value for '{name}': {value[:_LONGEST_SHOWN]!r}: must be true or false; "
                "jupyterhub-idle-culler 1.4 would read this as true"
            )
        written.append(argument)
    return written


def _our_spelling(argument: str, names: Collection[str]) -> str:
    name, equals, value = argument.partition("=")
    trait = re.fullmatch(r"--[A-Z]\w*\.(\w+)", name)
    if trait:
        option = f"--{trait[1].replace('_', '-')}"
        instead = f"use {option}" if option in names else NO_CONFIG
        raise click.UsageError(f"{name}: traitlets are not supported: {instead}")
    ours = f"--{name.lstrip('-').replace('_', '-')}"
    return f"{ours}{equals}{value}" if name.startswith("-") and ours in names else argument
