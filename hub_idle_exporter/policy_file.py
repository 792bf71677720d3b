"""The policy file: read it, validate it, and read it again when it changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import strict_yaml
from .domain.durations import seconds_of, shown
from .domain.policy import DEFAULT, Globs, Match, Policy
from .strict_yaml import MistakeError, Written, quoted
from .watched_file import FileError, WatchedFile, read


class PolicySource(WatchedFile[bytes | str, tuple[Policy, ...]]):
    """The policies of a file, those of its last valid version.

    Args:
        path: the file.
        default: the policy that comes last.
        may_keep: whether there is a state file, which `keep_max` needs.
        wait: waits for some seconds; returns True, at once, when the exporter is to end.
    """

    def __init__(
        self, path: Path, default: Policy, wait: Callable[[float], bool], may_keep: bool = True
    ) -> None:
        super().__init__("policy file", path, (default,), wait)
        self._default, self._may_keep = default, may_keep

    def find(self) -> bytes | str:
        """Read the file, or say what is wrong with it."""
        return read(self.path)

    def parse(self, found: bytes | str) -> tuple[Policy, ...]:
        """Return the policies; raise FileError."""
        if isinstance(found, str):
            raise FileError(f"{self.name} {found}")
        return parse(found, str(self.path), self._default, self._may_keep)


def parse(
    content: bytes, source: str, default: Policy, may_keep: bool = True
) -> tuple[Policy, ...]:
    """Turn a policy file's text into policies, `default` appended; raise FileError."""
    try:
        return (*_policies(strict_yaml.read(content), default, may_keep), default)
    except MistakeError as mistake:
        raise FileError(f"policy file {source}: {mistake}") from None


def _policies(document: Written, default: Policy, may_keep: bool) -> list[Policy]:
    values = document.mapping() if document.is_mapping else {}
    if "policies" not in values or not values["policies"].is_list:
        raise document.mistake("it must be a mapping with a list `policies`")
    document.refuse_unknown(["policies"])
    policies: dict[str, Policy] = {}
    for number, entry in enumerate(values["policies"].items(), start=1):
        entry = replace(entry, owner=f"policy number {number}", keys="")
        policy = _policy(entry, default)
        if policy.name in policies:
            raise entry.mistake(f"the name {quoted(policy.name)} is used twice")
        if policy.keep_max and not may_keep:
            raise entry.mistake("keep_max needs --state-file, which is not set")
        policies[policy.name] = policy
    return list(policies.values())


def _policy(entry: Written, default: Policy) -> Policy:
    """Read one policy; what it leaves out is as in the default."""
    name = entry.mapping().get("name")
    if name is not None:
        entry = replace(entry, owner=f"policy {quoted(name.text())}")
    values = entry.read_by(KEYS)
    for key in ("name", "match"):
        if key not in values:
            raise entry.mistake(f"it needs a key `{key}`")
    policy = replace(default, own_timeout="timeout" in values, **values)
    _check_notice(entry, policy)
    return policy


def _check_notice(entry: Written, policy: Policy) -> None:
    """Refuse a notice that would begin before the server does."""
    found = policy.limit_within_notice
    if found is not None:
        key, limit = found
        raise entry.mistake(
            f"its notice is {shown(policy.notice)}, which must be shorter than its {key}, "
            f"{shown(limit)}: give it a notice of its own, or `notice: 0`"
        )


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
    conditions = written.read_by(CONDITIONS)
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
    "notice": _duration,
    "keep_max": _duration,
    "spare_query": Written.boolean,
    "protect_terminals": Written.boolean,
}
CONDITIONS: dict[str, Callable[[Written], object]] = {
    "users": _globs,
    "groups": _globs,
    "servers": _globs,
    "user_options": _user_options,
    "named": Written.boolean,
    "admin": Written.boolean,
}
