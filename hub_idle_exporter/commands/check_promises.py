"""What `check` says about keeps, notices and the file that remembers them."""

import os
from collections.abc import Callable
from pathlib import Path

from ..domain.durations import shown
from ..domain.policy import Policy
from ..domain.poll_state import PollState
from ..domain.settings import ConfigError, Settings
from ..sidecar import notify_file
from .report import Report


def check_promises(
    report: Report, settings: Settings, state: PollState, wait: Callable[[float], bool]
) -> None:
    """Report what people are promised, and whether that would survive a restart.

    `wait` waits for some seconds: a file may be just being written.
    """
    if settings.state_file is not None:
        _state_file(report, Path(settings.state_file), state)
    if settings.notify_file is not None:
        _notify_file(report, settings.notify_file, wait)
    notices = _limits(state.rules.policies, "notice")
    if notices:
        report.good(f"stops are announced before: {notices}")
        if settings.state_file is None:
            report.note(
                "without --state-file a restart of the exporter announces all stops anew: nobody "
                "is stopped unannounced, but later"
            )
    keeps = _limits(state.rules.policies, "keep_max")
    if keeps:
        report.good(f"people may keep a server at a time: {keeps}")


def _limits(policies: tuple[Policy, ...], key: str) -> str:
    """List a limit by policy, where there is one."""
    found = {policy.name: getattr(policy, key) for policy in policies if not policy.exempt}
    return ", ".join(f"{shown(limit)} ({name})" for name, limit in found.items() if limit)


def _notify_file(report: Report, path: str, wait: Callable[[float], bool]) -> None:
    try:
        targets = notify_file(path, wait).value
    except ConfigError as error:
        report.bad(str(error))
        return
    personal = sum(target.is_personal for target in targets)
    who = f"{personal} of them to one person each" if personal else "none of them to one person"
    report.good(f"notify file {path} is valid: targets: {len(targets)}, {who}; nothing was sent")


def _state_file(report: Report, file: Path, state: PollState) -> None:
    if not file.exists():
        report.note(f"state file {file} is not there yet: the exporter creates it")
    else:
        kept, announced = len(state.keeps), len(state.announcements)
        report.good(f"state file {file} can be read: {kept} kept, {announced} announced")
    if not os.access(file.parent, os.W_OK):
        report.warning(
            f"the user who runs this check cannot write to {file.parent}: the one who runs the "
            "exporter must be able to"
        )
