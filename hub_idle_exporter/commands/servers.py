"""`servers`: poll once and print all servers with their verdicts, most idle first."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from ..domain.durations import shown
from ..domain.policy import JudgedServer
from ..domain.settings import Settings
from ..domain.text import printable
from ..sidecar import assemble, prepared

_COLUMNS = ("user", "server", "state", "idle", "age", "policy", "verdict", "why")


def list_servers(settings: Settings, environ: Mapping[str, str], as_json: bool) -> int:
    """Print the servers and return 0, or print one line on what went wrong and return 1."""
    # Nothing is stopped here, so no token has to be minted for it.
    listing = replace(settings, cull=replace(settings.cull, enforce=False))
    sidecar = assemble(listing, prepared(listing, environ))
    state = sidecar.observer.observe(sidecar.latest.state, keep_all=True)
    if state.snapshot is None:
        problem = state.error.sentence if state.error else "the Hub could not be read"
        click.echo(f"hub-idle-exporter: {problem}", err=True)
        return 1
    judged = sorted(state.snapshot.census.named, key=lambda one: -(one.idle or 0.0))
    rows = [_row(one) for one in judged]
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else _table(rows))
    if hidden := state.snapshot.hidden_users:
        click.echo(f"The servers of {hidden} users are hidden from the token.", err=True)
    if unreadable := state.snapshot.unreadable:
        names = printable(", ".join(state.snapshot.some_unreadable))
        left_out = f"Users who cannot be decoded and are left out: {len(unreadable)} ({names})."
        click.echo(left_out, err=True)
    return 0


def _row(one: JudgedServer) -> dict[str, Any]:
    """Return one row; idle and age in seconds, None if unknown."""
    return {
        "user": one.user,
        "server": one.server,
        "state": str(one.state),
        "idle": _rounded(one.idle),
        "age": _rounded(one.age),
        "policy": one.policy.name,
        "verdict": "stop" if one.reason else "keep",
        "why": one.why,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "No servers are running."
    lines = [[column.upper() for column in _COLUMNS], *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_aligned(line, widths) for line in lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    durations = {key: "?" if row[key] is None else shown(row[key]) for key in ("idle", "age")}
    named = {"server": row["server"] or "(default)"}
    return [printable(str((row | durations | named)[column])) for column in _COLUMNS]  # type: ignore[operator]


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip()
