"""`servers`: one poll, and a table of all servers with verdicts, the most idle first."""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from ..config import Config
from ..domain.census import Judged, judge_all
from ..domain.durations import shown
from ..domain.policy import Judge
from ..hub.client import HubError
from ..log import printable
from ..poller import look
from ..sidecar import Sidecar, prepared

_COLUMNS = ("user", "server", "state", "idle", "age", "policy", "verdict", "why")


def list_servers(config: Config, environ: Mapping[str, str], as_json: bool) -> int:
    """Print the servers; give 0, or 1 with a line on what went wrong."""
    sidecar = Sidecar(config, prepared(config, environ), threading.Event(), memory=False)
    try:
        sight = look(sidecar.hub)
    except HubError as error:
        click.echo(f"hub-idle-exporter: {error}", err=True)
        return 1
    judge = Judge(sidecar.poller.rules, sight.granted)
    judged = judge_all(judge, sight.listing.users.values(), sight.listing.now)
    rows = [_row(one) for one in sorted(judged, key=lambda one: -(one.verdict.idle or 0.0))]
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else _table(rows))
    if sight.listing.unseen:
        click.echo(f"{sight.listing.unseen} users are out of the token's sight.", err=True)
    return 0


def _row(one: Judged) -> dict[str, Any]:
    """Give one server; idle and age in seconds, None where unknown."""
    verdict = one.verdict
    return {
        "user": one.user,
        "server": one.server,
        "state": str(verdict.state),
        "idle": _rounded(verdict.idle),
        "age": _rounded(verdict.age),
        "policy": verdict.policy.name,
        "verdict": "stop" if verdict.reason else "keep",
        "why": f"past its {verdict.reason} limit" if verdict.reason else f"{verdict.spared}",
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
