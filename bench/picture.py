"""The picture of what a poll costs, by size, with the floor and the peer."""

from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter  # type: ignore[import-not-found]

_SHOWN = {
    "peer": ("jupyterhub-idle-culler 2.0.0", "#b3541e", "s"),
    "ours": ("hub-idle-exporter", "#1f5fa8", "o"),
    "floor": ("floor: the same bytes, thrown away", "#777777", "^"),
}


def draw(sizes: list[dict[str, Any]], path: Path) -> None:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
