"""The policy file: read it, validate it, and read it again when it changes."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from .domain.durations import seconds_of
from .domain.policy import DEFAULT, Globs, Match, Policy
from .domain.settings import ConfigError


class PolicyError(ConfigError):
    """An invalid policy file; `str()` is one line with file, policy and key."""


class _Matching(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    users: list[str] | str | None = None
    groups: list[str] | str | None = None
    servers: list[str] | str | None = None
    user_options: dict[str, list[str] | str] | None = None
    named: bool | None = None
    admin: bool | None = None


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    match: _Matching
    timeout: str | int | float | None = None
    max_age: str | int | float | None = None
    exempt: bool = False


class _UniqueKeys(yaml.SafeLoader):
    """Refuses duplicate keys: YAML silently uses the last one, which could drop an exemption."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merged = "tag:yaml.org,2002:merge"  # `<<: *other`: its keys may be overridden
        own = [key for key, _ in node.value if key.tag != merged]
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate key {twice[0]!r}", node.start_mark
            )
        return super().construct_mapping(node, deep)


class PolicySource:
    """The policies of a file, and whether its current version is valid.

    `policies` are those of the last valid version. `error` says what is wrong with the current
    version, None if it is valid.
    """

    def __init__(self, path: Path, default: Policy) -> None:
        self._path, self._default = path, default
        self._content: bytes | None = None  # None: it could not be read
        self.policies: tuple[Policy, ...] = (default,)
        self.error: str | None = None

    @classmethod
    def load(cls, path: Path, default: Policy) -> "PolicySource":
        """Read the file for the first time; raise PolicyError if it is invalid."""
        source = cls(path, default)
        source._content = _read(path)
        source.policies = parse(source._content, str(path), default)
        return source

    def refresh(self) -> bool:
        """Read the file again; tell whether it has changed since the last time."""
        before, self._content = self._content, None
        try:
            self._content = _read(self._path)
            if self._content != before:
                self.policies = parse(self._content, str(self._path), self._default)
                self.error = None
        except PolicyError as error:
            self.error = str(error)
        return self._content != before


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(f"policy file {path} cannot be read: {error.strerror}") from error


def parse(content: bytes, source: str, default: Policy) -> tuple[Policy, ...]:
    """Turn a policy file's text into policies, `default` appended; raise PolicyError."""
    try:
        document = yaml.load(content, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        sentence = " ".join(str(error).split())
        raise PolicyError(f"policy file {source} is not valid YAML: {sentence}") from None
    policies = tuple(
        _policy(entry, f"policy file {source}: {_called(entry, number)}", default)
        for number, entry in enumerate(_entries(document, source), start=1)
    )
    names = [policy.name for policy in policies]
    for name in names:
        if names.count(name) > 1:
            raise PolicyError(f"policy file {source}: policy {name!r}: the name is used twice")
    return (*policies, default)


def _entries(document: object, source: str) -> list[object]:
    if not isinstance(document, dict) or not isinstance(document.get("policies"), list):
        raise PolicyError(f"policy file {source}: it must be a mapping with a list `policies`")
    for key in document:
        if key != "policies":
            raise PolicyError(
                f"policy file {source}: unknown key {key!r}: only `policies` is allowed"
            )
    entries: list[object] = document["policies"]
    return entries


def _called(entry: object, number: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"policy {name!r}" if isinstance(name, str) else f"policy number {number}"


def _policy(raw: object, where: str, default: Policy) -> Policy:
    try:
        entry = msgspec.convert(raw, _Entry)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{where}: {_plain(error)}") from None
    if entry.name in ("", DEFAULT):
        raise PolicyError(f"{where}: name: {entry.name!r} is empty or reserved: choose another")
    timeout = _limit(entry.timeout, default.timeout, f"{where}: timeout")
    if timeout < 1:
        raise PolicyError(f"{where}: timeout: {entry.timeout!r} is too short: at least 1s")
    max_age = _limit(entry.max_age, default.max_age, f"{where}: max_age")
    match = _match(entry.match, f"{where}: match")
    return Policy(entry.name, timeout, max_age, entry.exempt, match)


def _plain(error: msgspec.ValidationError) -> str:
    """Put the key first where msgspec appends a path."""
    sentence, _, path = str(error).partition(" - at `$")
    key = path.strip("`").lstrip(".")
    return f"{key}: {sentence}" if key else sentence


def _limit(value: str | float | None, otherwise: float, where: str) -> float:
    if value is None:
        return otherwise
    try:
        return seconds_of(value)
    except ValueError as error:
        raise PolicyError(f"{where}: {value!r}: {error}") from None


def _match(given: _Matching, where: str) -> Match:
    if given == _Matching():
        raise PolicyError(f"{where}: it is empty: give at least one condition")
    options = given.user_options
    if options is not None and not options:
        raise PolicyError(f"{where}: user_options: it is empty")
    return Match(
        users=_globs(given.users, f"{where}: users"),
        groups=_globs(given.groups, f"{where}: groups"),
        servers=_globs(given.servers, f"{where}: servers"),
        user_options=tuple(
            (key, globs)
            for key, value in (options or {}).items()
            if (globs := _globs(value, f"{where}: user_options.{key}"))
        ),
        named=given.named,
        admin=given.admin,
    )


def _globs(value: list[str] | str | None, where: str) -> Globs | None:
    if value is None:
        return None
    patterns = [value] if isinstance(value, str) else value
    if not patterns:
        raise PolicyError(f"{where}: the list is empty")
    return Globs(patterns)


def chosen_by_users(policies: tuple[Policy, ...]) -> list[str]:
    """Name the policies that exempt servers only by what users choose themselves.

    That is `user_options`, and the names of their servers.
    """
    return [
        policy.name
        for policy in policies
        if policy.exempt
        and (policy.match.user_options or policy.match.servers)
        and (policy.match.users, policy.match.groups, policy.match.admin) == (None, None, None)
    ]
