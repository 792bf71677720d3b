"""The pictures: what a poll costs by size, and what others at the Hub notice."""

from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter  # type: ignore[import-not-found]

from .report import MANY

_SHOWN = {
    "peer": ("jupyterhub-idle-culler 2.0.0", "#b3541e", "s"),
    "ours": ("hub-idle-exporter", "#1f5fa8", "o"),
    "floor": ("floor: a full list, thrown away", "#777777", "^"),
}

_WHO = {
    "nobody": ("nobody polls", "#777777"),
    "bare stops": ("bare stops", "#777777"),
    "ours": ("hub-idle-exporter", "#1f5fa8"),
    "200 a page, no pause": ("version 1.0", "#8fb3dc"),
    "peer": ("jupyterhub-idle-culler", "#b3541e"),
}


def draw_cost(sizes: list[dict[str, Any]], path: Path) -> None:
    """Draw CPU seconds a poll over the number of running servers; the files are SVG and PNG."""
    mpl.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "cost", "font.size": 11})
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    servers = [row["servers"] for row in sizes]
    for name, (label, colour, marker) in _SHOWN.items():
        spreads = [row["cpu_seconds"][name] for row in sizes]
        middle = [spread["median"] for spread in spreads]
        axes.plot(servers, middle, color=colour, marker=marker, label=label, linewidth=2)
        axes.fill_between(servers, [s["low"] for s in spreads], [s["high"] for s in spreads],
                          color=colour, alpha=0.2, linewidth=0)  # fmt: skip
        axes.annotate(_seconds(middle[-1]), (servers[-1], middle[-1]), color=colour,
                      textcoords="offset points", xytext=(9, -4))  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="running servers", ylabel="CPU time of one poll",
             xlim=(servers[0] * 0.8, servers[-1] * 2.2))  # fmt: skip
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _seconds(value)))
    axes.grid(which="major", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("What one poll costs (median; shaded: quartiles)", loc="left", fontsize=12)
    axes.legend(frameon=False, loc="upper left")
    _save(figure, path)


def draw_waits(found: dict[str, Any], path: Path) -> None:
    """Draw how long small requests of others wait, during polls and during a cull."""
    mpl.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "waits", "font.size": 11})
    polls = max(found["polls"], key=lambda row: (row["servers"] <= MANY, row["servers"]))
    panels = [(f"while {polls['servers']:,} servers are polled", polls["waits"])]
    if found["culls"]:
        title = f"while {found['culls']['culled']} of them are stopped"
        panels.append((title, found["culls"]["waits"]))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(10, 3.4), layout="constrained", sharex=True
    )
    longest = max(one["most"] for _, waits in panels for one in waits.values())
    for panel, (title, waits) in zip(axes if len(panels) > 1 else [axes], panels, strict=True):
        for place, (name, one) in enumerate(reversed(waits.items())):
            colour = _WHO[name][1]
            points = [one[share] * 1000 for share in ("p99", "p999", "most")]
            panel.plot(points, [place] * 3, color=colour, linewidth=2, zorder=1)
            for value, marker in zip(points, "|do", strict=True):
                panel.plot(value, place, marker=marker, color=colour, markersize=8, zorder=2)
            panel.annotate(f"{points[-1]:.0f} ms", (points[-1], place), color=colour,
                           textcoords="offset points", xytext=(8, -4))  # fmt: skip
        panel.set_yticks(range(len(waits)), [_WHO[name][0] for name in reversed(waits)])
        panel.set_title(title, loc="left", fontsize=11)
        panel.set(xlabel="an answer takes, ms", ylim=(-0.6, len(waits) - 0.4))
        panel.set(xlim=(0, longest * 1250), xticks=range(0, int(longest * 1250), 20))
        panel.grid(axis="x", color="#dddddd")
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle("What others at the Hub notice (bar: p99, diamond: p99.9, dot: longest)",
                    x=0.01, ha="left", fontsize=12)  # fmt: skip
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
