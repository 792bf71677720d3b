"""`servers`: print all servers with their verdicts, most idle first: once, or again and again."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, TextIO

import click

from ..clocks import read_clocks
from ..domain.columns import wrapped
from ..domain.durations import shown
from ..domain.policy import JudgedServer, Reason
from ..domain.poll_state import PollState, Snapshot
from ..domain.settings import BusyCheck, CullSettings, Settings
from ..domain.text import printable
from ..sidecar import Sidecar, assemble, prepared
from .server_table import table, verdict
from .watch import Frame, Look, watch

_UNREAD = "the Hub could not be read"


def list_servers(settings: Settings, environ: Mapping[str, str], as_json: bool = False) -> int:
    """Print the servers and return 0, or print one line on what went wrong and return 1."""
    sidecar = _listing(settings, environ)
    state = sidecar.observer.observe(sidecar.latest.state, keep_all=True)
    if state.snapshot is None:
        click.echo(f"hub-idle-exporter: {problem_of(state)}", err=True)
        return 1
    servers = state.snapshot.census.named
    notes = _left_out(state.snapshot)
    if as_json:
        click.echo(json.dumps([_row(one) for one in servers], indent=2, ensure_ascii=False))
    else:
        found = table(servers, columns(sys.stdout))
        click.echo("\n".join(found.lines))
        notes = [*_on_candidates(servers, settings.cull), *found.notes, *notes]
    tell(notes)
    return 0


def columns(stream: TextIO) -> int | None:
    """Return the width of a terminal; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def tell(notes: Sequence[str]) -> None:
    """Write notes to standard error: standard output has the table alone."""
    room = columns(sys.stderr)
    if room and notes:
        click.echo(err=True)
    for note in notes:
        click.echo(wrapped(note, room) if room else note, err=True)


def watch_servers(settings: Settings, environ: Mapping[str, str]) -> int:
    """Print the servers at each interval until interrupted; a failed poll is shown, too."""
    sidecar = _listing(settings, environ)
    state, read_at = sidecar.latest.state, ""

    def look() -> Look:
        nonlocal state, read_at
        sidecar.observer.reread_files()
        state = sidecar.observer.observe(state, keep_all=True)
        now = _clock_time(read_clocks().wall)
        if state.snapshot is None:
            pause = max(settings.poll.interval, state.error.retry_after if state.error else 0.0)
            return Look(partial(_failure, problem_of(state), now, read_at), pause, failed=True)
        read_at = now
        frame = partial(_frame, state, state.snapshot, settings, now)
        return Look(frame, settings.poll.interval)

    return watch(look, f"Reading the Hub at {settings.connection.url} ...")


def _listing(settings: Settings, environ: Mapping[str, str]) -> Sidecar:
    """Put together what lists servers: nothing is stopped, so no token is minted for that."""
    listing = replace(settings, cull=replace(settings.cull, enforce=False))
    return assemble(listing, prepared(listing, environ), only_reads=True)


def problem_of(state: PollState) -> str:
    """Say in one line why the Hub could not be read."""
    return printable(state.error.sentence if state.error else _UNREAD)


def _row(one: JudgedServer) -> dict[str, Any]:
    """Return one row; idle and age in seconds, None if unknown."""
    return {
        "user": one.user,
        "server": one.server,
        "state": str(one.state),
        "idle": _rounded(one.idle),
        "age": _rounded(one.age),
        "policy": one.policy.name,
        "verdict": verdict(one),
        "why": one.why,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


# ---- what the table does not tell --------------------------------------------------------------


def _on_candidates(servers: Sequence[JudgedServer], cull: CullSettings) -> list[str]:
    """Say what becomes of candidates: this command asks no server, the exporter does."""
    reasons = {one.reason for one in servers if one.would_stop}
    notes = []
    if Reason.IDLE in reasons:
        notes.append(_on_idle_ones(cull.busy_check))
    if Reason.MAX_AGE in reasons:
        notes.append("A candidate past its max age is stopped even if it is in use.")
    if any(one.reason is Reason.IDLE and one.policy.notice for one in servers):
        notes.append(
            "A candidate whose policy has a notice is stopped only when its stop was announced "
            "that long before."
        )
    if Reason.IDLE in reasons and cull.enforce and cull.busy_check is not BusyCheck.OFF:
        notes.append(
            "What the running exporter found when it last asked, for example that a candidate "
            "computes, is not known to this command: see the exporter's page, or cull_withheld in "
            "its log."
        )
    return notes


def _on_idle_ones(busy_check: BusyCheck) -> str:
    if busy_check is BusyCheck.OFF:
        return (
            "A candidate is past its limit. With --busy-check=off it is stopped without being "
            "asked whether it is in use."
        )
    if_it_can = " if it can (--busy-check=auto)" if busy_check is BusyCheck.AUTO else ""
    return (
        "A candidate is past its limit. This command asks no server whether it is in use; with "
        f"--enforce the exporter asks{if_it_can} right before each stop."
    )


def _left_out(snapshot: Snapshot) -> list[str]:
    """Say whose servers are not in the table."""
    notes = []
    if hidden := snapshot.hidden_users:
        notes.append(f"The servers of {hidden} users are hidden from the token.")
    if unreadable := snapshot.unreadable:
        names = printable(", ".join(snapshot.some_unreadable))
        notes.append(f"Users who cannot be decoded and are left out: {len(unreadable)} ({names}).")
    return notes


# ---- what is seen when watching ----------------------------------------------------------------


def _frame(
    state: PollState, snapshot: Snapshot, settings: Settings, now: str, room: int | None
) -> Frame:
    """Lay out what a poll found."""
    servers = snapshot.census.named
    candidates = sum(one.would_stop for one in servers)
    found = table(servers, room)
    notes = [
        *([printable(state.policy_error)] if state.policy_error else []),
        *_on_candidates(servers, settings.cull),
        *found.notes,
        *_left_out(snapshot),
    ]
    every = shown(settings.poll.interval)
    title = f"{now}  servers: {len(servers)}, candidates: {candidates}; every {every}"
    return Frame(title, found.lines, notes)


def _failure(problem: str, now: str, read_at: str, _room: int | None) -> Frame:
    """Lay out that a poll failed; what was known about servers is no longer shown."""
    last = f"It was last read at {read_at}." if read_at else "It has not been read yet."
    return Frame(f"{now}  {_UNREAD}: {problem}. {last}", [], [])


def _clock_time(wall: float) -> str:
    return datetime.fromtimestamp(wall, timezone.utc).strftime("%H:%M:%S UTC")
