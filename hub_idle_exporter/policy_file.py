"""The policy file: read it, validate it, and read it again when it changes."""

import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import strict_yaml
from .clocks import read_clocks
from .domain.durations import seconds_of
from .domain.gate import ClockReading
from .domain.policy import DEFAULT, Globs, Match, Policy
from .domain.settings import ConfigError
from .log import printable
from .strict_yaml import MistakeError, Written, quoted

LARGEST = 1 << 20
# A file may be read while it is written, at the start also before it is there. Both in seconds.
_BETWEEN_READS = 0.5
_PATIENCE = 5.0


class PolicyError(ConfigError):
    """An invalid policy file; `str()` is one printable line with file, line, policy and key."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class PolicySource:
    """The policies of a file, and whether its current version is valid.

    `policies` are those of the last valid version. `error` says what is wrong with the current
    version, None if it is valid.

    Args:
        path: the file.
        default: the policy that comes last.
        wait: waits for some seconds; returns True, at once, when the exporter is to end.
    """

    def __init__(self, path: Path, default: Policy, wait: Callable[[float], bool]) -> None:
        self._path, self._default, self._wait = path, default, wait
        self._seen: bytes | str | None = None
        self.policies: tuple[Policy, ...] = (default,)
        self.error: str | None = None

    @classmethod
    def load(
        cls,
        path: Path,
        default: Policy,
        wait: Callable[[float], bool],
        clocks: Callable[[], ClockReading] = read_clocks,
    ) -> "PolicySource":
        """Read the file for the first time; raise PolicyError if it is invalid.

        An invalid file may be just being written, and a missing one be mounted in a moment. So it
        is read again for 5 s, unless it has not been modified for so long.
        """
        source = cls(path, default, wait)
        until = clocks().monotonic + _PATIENCE
        while not source.refresh() or source.error is not None:
            reading = clocks()
            over = reading.monotonic >= until or source._is_settled(reading.wall)
            if over or wait(_BETWEEN_READS):
                raise PolicyError(source.error or f"policy file {path} changes all the time")
        return source

    def refresh(self) -> bool:
        """Read the file again; tell whether it has changed since the last time.

        What is being written is left for the next time: it has changed when two reads, half a
        second apart, find the same.
        """
        found = _read(self._path)
        if found == self._seen or self._wait(_BETWEEN_READS) or _read(self._path) != found:
            return False
        self._seen = found
        try:
            self.policies = self._policies_in(found)
            self.error = None
        except PolicyError as error:
            self.error = str(error)
        return True

    def _policies_in(self, found: bytes | str) -> tuple[Policy, ...]:
        if isinstance(found, str):
            raise PolicyError(f"policy file {self._path} {found}")
        return parse(found, str(self._path), self._default)

    def _is_settled(self, now: float) -> bool:
        """Tell whether a file that is invalid has been like that for a while."""
        try:
            modified = self._path.stat().st_mtime
        except OSError:
            return False
        return self.error is not None and now - modified > _PATIENCE


def _read(path: Path) -> bytes | str:
    """Return the content of a file, or say what is wrong with it: a pipe or device has no end."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "is not a regular file"
            content = file.read(LARGEST + 1) or b""  # None where reading would have to wait
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return content if len(content) <= LARGEST else "is larger than 1 MiB"


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe would wait until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def parse(content: bytes, source: str, default: Policy) -> tuple[Policy, ...]:
    """Turn a policy file's text into policies, `default` appended; raise PolicyError."""
    try:
        return (*_policies(strict_yaml.read(content), default), default)
    except MistakeError as mistake:
        raise PolicyError(f"policy file {source}: {mistake}") from None


def _policies(document: Written, default: Policy) -> list[Policy]:
    values = document.mapping() if document.is_mapping else {}
    if "policies" not in values or not values["policies"].is_list:
        raise document.mistake("it must be a mapping with a list `policies`")
    _refuse_unknown(values, ["policies"])
    policies: dict[str, Policy] = {}
    for number, entry in enumerate(values["policies"].items(), start=1):
        entry = replace(entry, owner=f"policy number {number}", keys="")
        policy = _policy(entry, default)
        if policy.name in policies:
            raise entry.mistake(f"the name {quoted(policy.name)} is used twice")
        policies[policy.name] = policy
    return list(policies.values())


def _policy(entry: Written, default: Policy) -> Policy:
    """Read one policy; what it leaves out is as in the default."""
    name = entry.mapping().get("name")
    if name is not None:
        entry = replace(entry, owner=f"policy {quoted(name.text())}")
    values = _values(entry, KEYS)
    for key in ("name", "match"):
        if key not in values:
            raise entry.mistake(f"it needs a key `{key}`")
    return replace(default, **values)


def _values(written: Written, readers: Mapping[str, Callable[[Written], object]]) -> dict[str, Any]:
    values = written.mapping()
    _refuse_unknown(values, readers)
    return {key: readers[key](value) for key, value in values.items()}


def _refuse_unknown(values: Mapping[str, Written], known: Collection[str]) -> None:
    for key, value in values.items():
        if key not in known:
            allowed = ", ".join(f"`{one}`" for one in known)
            raise value.mistake(f"unknown key: only {allowed} can be given here")


def _name(written: Written) -> str:
    name = written.text()
    if name in ("", DEFAULT):
        raise written.mistake(f"{quoted(name)} is empty or reserved: choose another")
    return name


def _duration(written: Written) -> float:
    """Read what was written: YAML would take `010` for 8 seconds, and `1:30` for 90."""
    text = written.scalar()
    try:
        return seconds_of(text)
    except ValueError as error:
        raise written.mistake(f"{quoted(text)}: it {error}") from None


def _timeout(written: Written) -> float:
    seconds = _duration(written)
    if seconds < 1:
        raise written.mistake(f"{quoted(written.scalar())} is too short: at least 1s")
    return seconds


def _match(written: Written) -> Match:
    conditions = _values(written, CONDITIONS)
    if not conditions:
        raise written.mistake("it is empty: give at least one condition")
    return Match(**conditions)


def _globs(written: Written) -> Globs:
    patterns = tuple(item.text() for item in written.items())
    if not patterns:
        raise written.mistake("the list is empty")
    return Globs(patterns)


def _user_options(written: Written) -> tuple[tuple[str, Globs], ...]:
    options = tuple((key, _globs(value)) for key, value in written.mapping().items())
    if not options:
        raise written.mistake("it is empty")
    return options


# The keys of a policy and the conditions of its match, each with what reads it: the names are those
# of the fields of Policy and of Match.
KEYS: dict[str, Callable[[Written], object]] = {
    "name": _name,
    "match": _match,
    "timeout": _timeout,
    "max_age": _duration,
    "exempt": Written.boolean,
}
CONDITIONS: dict[str, Callable[[Written], object]] = {
    "users": _globs,
    "groups": _globs,
    "servers": _globs,
    "user_options": _user_options,
    "named": Written.boolean,
    "admin": Written.boolean,
}


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
