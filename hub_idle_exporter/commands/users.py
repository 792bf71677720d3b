"""`servers --users`: print the users who are idle past --user-timeout, with their verdicts."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import click

from ..deleting.listing import read_idle_users
from ..domain.columns import cut, width
from ..domain.durations import roughly, shown
from ..domain.idle_users import CANDIDATE, IdleUsers, JudgedUser
from ..domain.poll_state import PollState
from ..domain.scopes import Scope
from ..domain.settings import CullSettings, Settings
from ..domain.text import printable
from ..hub.errors import HubError
from ..sidecar import assemble, prepared
from .server_table import Row, aligned
from .servers import columns, problem_of, tell

_SHORTEST_NAME = 8
_NOBODY = "No users are idle past --user-timeout."


def list_idle_users(settings: Settings, environ: Mapping[str, str], as_json: bool) -> int:
    """Print the users and return 0, or print one line on what went wrong and return 1."""
    cull = replace(settings.cull, enforce=False, users=replace(settings.cull.users, delete=True))
    listing = replace(settings, cull=cull)
    sidecar = assemble(listing, prepared(listing, environ), only_reads=True)
    state = sidecar.observer.observe(sidecar.latest.state)
    try:
        problem = _problem(state)
        found = None if problem else read_idle_users(sidecar.hub, state, cull)
    except HubError as error:
        problem, found = str(error), None
    if found is None:
        click.echo(f"hub-idle-exporter: {problem}", err=True)
        return 1
    notes = _gaps(found)
    if as_json:
        click.echo(json.dumps([_row(one) for one in found.users], indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_table(found.users, columns(sys.stdout))))
        notes = [*_on_candidates(found, settings.cull), *notes]
    tell(notes)
    return 0


def _problem(state: PollState) -> str | None:
    if state.snapshot is None:
        return problem_of(state)
    if state.sees_activity:
        return None
    lacking = (one for one in state.findings if one.scope is Scope.READ_ACTIVITY)
    return "; ".join(map(str, lacking))


def _row(one: JudgedUser) -> dict[str, object]:
    """Return one row; idle in seconds, None if unknown."""
    idle = None if one.idle is None else round(one.idle, 1)
    return {"user": one.name, "idle": idle, "verdict": _verdict(one), "why": one.why}


def _verdict(one: JudgedUser) -> str:
    return "keep" if one.kept else CANDIDATE


def _table(users: Sequence[JudgedUser], room: int | None) -> list[str]:
    """Lay a table out; on a terminal that is too narrow names are cut."""
    if not users:
        return [_NOBODY]
    written = shown if room is None else roughly
    rows = [
        {
            "user": printable(one.name),
            "idle": "?" if one.idle is None else written(one.idle),
            "verdict": _verdict(one),
            "why": one.why,
        }
        for one in users
    ]
    return aligned(rows if room is None else _narrowed(rows, room))


def _narrowed(rows: Sequence[Row], room: int) -> list[Row]:
    widest = max(map(width, aligned(rows)))
    name = max(width(row["user"]) for row in rows)
    left = max(_SHORTEST_NAME, name - max(0, widest - room))
    return [row | {"user": cut(row["user"], left)} for row in rows]


def _on_candidates(found: IdleUsers, cull: CullSettings) -> list[str]:
    """Say what becomes of candidates."""
    notes = []
    if found.candidates:
        notes.append(
            "A candidate is looked at again right before it is deleted, which needs --enforce and "
            "--cull-users and cannot be undone."
        )
    if not cull.users.delete:
        notes.append("Without --cull-users nobody is deleted.")
    return notes


def _gaps(found: IdleUsers) -> list[str]:
    """Say who may be missing."""
    notes = []
    if not found.complete:
        notes.append("The list of users changed too much while it was read; it may have gaps.")
    if found.unreadable:
        notes.append(f"Users who cannot be decoded, and are left out: {found.unreadable}")
    return notes
