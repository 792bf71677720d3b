"""What `check` says about keeps, notices and the file that remembers them."""

import os
from pathlib import Path

from ..domain.durations import shown
from ..domain.policy import Policy
from ..domain.poll_state import PollState
from ..domain.settings import Settings
from .report import Report


def check_promises(report: Report, settings: Settings, state: PollState) -> None:
    """Report what people are promised, and whether that would survive a restart."""
    if settings.state_file is not None:
        _state_file(report, Path(settings.state_file), state)
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
