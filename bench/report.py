"""The results for people: a table of the goals, and one table a part, in Markdown."""

from collections.abc import Callable, Iterator
from typing import Any

from .port import PATHS
from .real import SHARED

# From here on the Hub answers a stop 202, and it is followed: one request a second more.
_SLOW_STOP = 10
MANY = 1_000  # servers, at which waits are judged

Results = dict[str, Any]
Goal = tuple[str, str, float, bool]  # what, the goal, what was measured, whether it is reached


def markdown(results: Results) -> str:
    """Write everything that was measured."""
    lines = [*_machine(results), "", *_goals(results)]
    for part, write in _PARTS.items():
        if part in results:
            lines += ["", *write(results[part])]
    return "\n".join(lines) + "\n"


def another(results: Results) -> str:
    """Write what another run on the same machine reached: figures vary from run to run."""
    load = "; ".join(f"{part} {one} to {two}" for part, (one, two) in results["loads"].items())
    title = f"**Another run** on the same machine, its load by part: {load}."
    return "\n".join(["", title, "", *_goals(results), ""])


def _machine(results: Results) -> Iterator[str]:
    on = results["machine"]
    dates = results.get("dates", {})
    loads = "; ".join(
        f"{part} {one} to {two}" + (f" ({dates[part]})" if part in dates else "")
        for part, (one, two) in results["loads"].items()
    )
    yield (
        f"Measured {on['date']} by `make bench` on {on['cores']} cores ({on['processor']}), "
        f"{on['memory_gib']} GiB, {on['system']}, Python {on['python']}, JupyterHub "
        f"{on['jupyterhub']}, jupyterhub-idle-culler {on['jupyterhub-idle-culler']}; load average "
        f"of the machine by part, and when it was measured, if earlier: {loads}. Medians, in "
        "brackets the quartiles. Figures are to be compared within a row: the machine is another "
        "everywhere."
    )


# -- goals


def _goals(results: Results) -> Iterator[str]:
    yield "| goal | wanted | measured | |"
    yield "|---|---|---|---|"
    for what, wanted, measured, reached in goals(results):
        yield f"| {what} | {wanted} | {measured:.3g} | {'reached' if reached else '**missed**'} |"


def goals(results: Results) -> list[Goal]:
    """Compare what was measured with what was wanted."""
    found = [*_poll_goals(results.get("poll", [])), *_scrape_goals(results.get("scrape", []))]
    found += _registered_goal(results.get("registered", []))
    found += _port_goals(results.get("port", []))
    for row in results.get("drain", []):
        if "peer_of_ours" in row:
            stops = f"{row['servers']} stops of {row['stop_seconds']} s"
            found.append(
                _at_least(f"drain, {stops}: times faster than the peer", 8, row["peer_of_ours"])
            )
        if row["stop_seconds"] < _SLOW_STOP:
            what = f"requests to the Hub per culled server (of {row['servers']})"
            found.append(_at_most(what, 7, _asked(row)))
    for row in results.get("hub", []):
        where = f"{row['servers']} servers, {row['registered']} registered"
        found.append(
            _at_most(f"Hub CPU a poll, of the peer's ({where})", 0.6, row["ours_of_peer"]["median"])
        )
    found += _wait_goals(results.get("unnoticed"))
    return found


def _wait_goals(found: dict[str, Any] | None) -> Iterator[Goal]:
    for row in found["polls"] if found else ():
        if row["servers"] == MANY:
            ours, peer = row["waits"]["ours"], row["waits"]["peer"]
            of = f"of others during polls of {MANY:,} servers"
            yield _at_most(f"longest wait {of}, of the peer's", 1, ours["most"] / peer["most"])
            yield _at_most(f"longest wait {of}, ms", 20, ours["most"] * 1000)
            yield _at_most(f"p99.9 of waits {of}, ms", 15, ours["p999"] * 1000)
            cpu = row["of_peer"]["ours"]["median"]
            yield _at_most(f"Hub CPU a poll, of the peer's ({MANY:,} servers)", 0.6, cpu)
            busy = row["at_work_of_peer"]["median"]
            yield _at_most(f"Hub CPU a poll, of the peer's ({MANY:,} servers in use)", 0.6, busy)
    if found and found["culls"]:
        ours, bare = (found["culls"]["waits"][name] for name in ("ours", "bare stops"))
        what = f"waits of others over 100 ms during a cull of {found['culls']['culled']}"
        more = max(0, ours["over_100_ms"] - bare["over_100_ms"])
        yield _at_most(f"{what}, more than during bare stops", 0, more)


def _poll_goals(rows: list[dict[str, Any]]) -> Iterator[Goal]:
    by_size = {row["servers"]: row for row in rows}
    row = by_size.get(10_000)
    if row is None:
        return
    yield _at_most(
        "poll CPU of 10,000 servers, of the floor's", 2.2, row["cpu_of_floor"]["ours"]["median"]
    )
    yield _at_least(
        "poll CPU of 10,000 servers: times less than the peer",
        15,
        row["peer_cpu_of_ours"]["median"],
    )
    yield _at_most(
        "peak memory of a poll of 10,000 servers, MB", 120, row["memory_mb"]["ours"]["peak"]
    )
    smaller = by_size.get(1_000)
    if smaller:
        ours = [one["cpu_seconds"]["ours"]["median"] for one in (row, smaller)]
        yield _at_most("poll CPU of 10,000 servers, of 1,000 (linear)", 11, ours[0] / ours[1])


def _registered_goal(rows: list[dict[str, Any]]) -> Iterator[Goal]:
    if len(rows) > 1:
        # Of the floor's: each row is a run of its own, and the machine may be slower by then.
        ours = [row["cpu_of_floor"]["ours"]["median"] for row in rows]
        times = rows[-1]["registered"] // rows[0]["registered"]
        what = f"poll CPU, of the floor's, with {times}x registered users, of 1x"
        yield _at_most(what, 1.15, ours[-1] / ours[0])


def _scrape_goals(rows: list[dict[str, Any]]) -> Iterator[Goal]:
    for row in rows:
        if row["while"] != "50 at once":
            wanted = 150 if row["per_server"] else 10
            series = ", per-server series" if row["per_server"] else ""
            yield _at_most(
                f"/metrics p99 while {row['while']}{series}, ms", wanted, row["p99"] * 1000
            )


def _port_goals(rows: list[dict[str, Any]]) -> Iterator[Goal]:
    for row in rows:
        clients = row["dripping"] + row["silent"]
        for path in PATHS if clients else ():
            what = f"{path} p99 among {clients} clients that drip or are silent, ms"
            yield _at_most(what, 100, row[path]["p99"] * 1000)


def _at_most(what: str, wanted: float, measured: float) -> Goal:
    return what, f"≤ {wanted:g}", measured, measured <= wanted


def _at_least(what: str, wanted: float, measured: float) -> Goal:
    return what, f"≥ {wanted:g}", measured, measured >= wanted


def _asked(row: dict[str, Any]) -> float:
    """Count the requests that one culled server costs the Hub, beside what a pass costs."""
    return float(sum(n for purpose, n in row["requests"].items() if purpose != SHARED))


# -- parts


def _polls(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "**A poll**, CPU time of the process (the Hub is a fake one; one server in ten is idle; "
        "ours: the mean of four polls, in pages of 30 users, as at a real Hub)"
    )
    yield ""
    yield from _head("running", "registered", "floor", "ours", "peer", "ours / floor",
                     "peer / ours", "peak memory, ours", "peer")  # fmt: skip
    for row in rows:
        cpu, of_floor, memory = row["cpu_seconds"], row["cpu_of_floor"], row["memory_mb"]
        yield _row(
            f"{row['servers']:,}", f"{row.get('registered', row['servers']):,}",
            *(_ms(cpu[name]) for name in ("floor", "ours", "peer")),
            _times(of_floor["ours"]), _times(row["peer_cpu_of_ours"]),
            f"{memory['ours']['peak']:.0f} MB", f"{memory['peer']['peak']:.0f} MB",
        )  # fmt: skip


def _scrapes(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "**A scrape of `/metrics`**, with gzip (10,000 servers; floor: `/-/healthy` there)"
    yield ""
    yield from _head(
        "exporter", "series", "size", "compressed", "p50", "p99", "longest", "very first",
        "floor p50", "floor p99",
    )  # fmt: skip
    for row in rows:
        times = (row.get(key) for key in ("p50", "p99", "most", "first", "floor_p50", "floor_p99"))
        kind = "per server" if row["per_server"] else "normal"
        sizes = (row.get(key) for key in ("size", "compressed"))
        yield _row(
            row["while"],
            kind,
            *("" if size is None else f"{size / 1000:,.0f} kB" for size in sizes),
            *("" if seconds is None else f"{seconds * 1000:.1f} ms" for seconds in times),
        )


def _port(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "**The port in a crowd**: questions on new connections (1,000 servers, a poll every 5 s)"
    yield ""
    yield from _head("dripping", "silent", "path", "p50", "p99", "longest", "memory")
    for row in rows:
        for path in PATHS:
            times = (f"{row[path][key] * 1000:.1f} ms" for key in ("p50", "p99", "most"))
            yield _row(
                row["dripping"], row["silent"], f"`{path}`", *times, f"{row['memory_mb']:.0f} MB"
            )


def _hub(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "**CPU of the Hub itself** a poll (real JupyterHub; floor: full lists alone)"
    yield ""
    yield from _head("running", "registered", "floor", "ours", "peer", "peer at 200 a page",
                     "ours / peer", "ours / peer at 200")  # fmt: skip
    for row in rows:
        cpu = row["hub_cpu_seconds"]
        yield _row(
            row["servers"], row["registered"],
            *(_ms(cpu[name]) for name in ("floor", "ours", "peer", "peer_200_a_page")),
            _times(row["ours_of_peer"]), _times(row["ours_of_peer_at_200"]),
        )  # fmt: skip


def _waits(found: dict[str, Any]) -> Iterator[str]:
    yield (
        "**What others at the Hub notice**: how long an answer to a small request takes, one sent "
        "every 10 ms (real JupyterHub, one server in six is a named one; a poll every 2 s)"
    )
    yield ""
    yield from _head("running", "meanwhile", "p50", "p99", "p99.9", "longest",
                     "a poll of changes takes", "a full one", "longest", "Hub CPU a poll",
                     "of the peer's", "longest wait for the Hub's garbage collection")  # fmt: skip
    for row in found["polls"]:
        for name, waits in row["waits"].items():
            polled = name in row["full_seconds"]
            yield _row(
                f"{row['servers']:,}", f"polls: {name}", *_of_waits(waits),
                _ms(row["changes_seconds"][name]) if name in row["changes_seconds"] else "",
                _ms(row["full_seconds"][name]) if polled else "",
                f"{row['longest_poll'][name]:.2f} s" if polled else "",
                _ms(row["hub_cpu_seconds"][name]) if polled else "",
                _times(row["of_peer"][name]) if polled else "", _collecting(waits),
            )  # fmt: skip
    yield ""
    yield from _head("running, a fifth of whom report activity between two polls",
                     "Hub CPU a poll of ours", "of the peer's")  # fmt: skip
    for row in found["polls"]:
        yield _row(f"{row['servers']:,}", _ms(row["hub_cpu_at_work"]),
                   _times(row["at_work_of_peer"]))  # fmt: skip
    culls = found["culls"]
    yield ""
    yield from _head("running", "meanwhile", "p50", "p99", "p99.9", "longest", "over 50 ms",
                     "of", "duration", "longest wait for the Hub's garbage collection")  # fmt: skip
    for name, waits in culls["waits"].items() if culls else ():
        yield _row(
            f"{culls['servers']:,}", f"{culls['culled']} stops: {name}", *_of_waits(waits),
            waits["over_50_ms"], f"{waits['count']:,}", f"{culls['seconds'][name]['median']:.1f} s",
            _collecting(waits),
        )  # fmt: skip


def _of_waits(waits: dict[str, float]) -> Iterator[str]:
    for share in ("p50", "p99", "p999", "most"):
        yield f"{waits[share] * 1000:.1f} ms"


def _collecting(waits: dict[str, float | None]) -> str:
    longest = waits["while_collecting"]
    return "" if longest is None else f"{longest * 1000:.0f} ms"


def _users(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "**CPU of the Hub itself** a listing of idle users (real JupyterHub, nobody has a server)"
    yield ""
    yield from _head("registered", "idle", "ours", "ours, of a Hub that does not sort",
                     "peer, a pass with `--cull-users`", "peer / ours", "a poll of ours",
                     "duration, ours", "peer")  # fmt: skip
    for row in rows:
        cpu, wall = row["hub_cpu_seconds"], row["wall_seconds"]
        yield _row(
            f"{row['registered']:,}", row["idle"],
            *(_ms(cpu[name]) for name in ("ours", "ours_unsorted", "peer")),
            _times(row["peer_of_ours"]), _ms(cpu["poll"]), _ms(wall["ours"]), _ms(wall["peer"]),
        )  # fmt: skip


def _drains(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "**A drain** (real JupyterHub, concurrency 10; floor: the stops alone, ten at once)"
    yield ""
    yield from _head("servers", "a stop", "floor", "ours", "peer", "peer / ours",
                     "seconds of one server, of ten at once")  # fmt: skip
    for row in rows:
        ours, peer = row["seconds"]["ours"], row["seconds"].get("peer")
        shares = ", ".join(f"{name} {value:.2f}" for name, value in row["shares"].items())
        yield _row(
            row["servers"], f"{row['stop_seconds']} s", f"{row['floor_seconds']} s",
            f"{ours['median']:.1f} s", f"{peer['median']:.1f} s" if peer else "not run",
            f"{row['peer_of_ours']:.1f}" if peer else "", shares,
        )  # fmt: skip
    yield ""
    for row in rows:
        counts = "; ".join(f"{count:g} {purpose}" for purpose, count in row["requests"].items())
        stops = f"{row['servers']} stops of {row['stop_seconds']} s"
        yield f"Requests to the Hub per culled server, by its log, {stops}: {counts}."
        yield ""


def _soak(row: dict[str, Any]) -> Iterator[str]:
    yield f"**A soak** of {row['polls']:,} polls, enforcing, with a scrape each"
    yield ""
    yield from _head("after", "memory", "threads", "open files")
    for when, text in (("early", "a tenth"), ("late", "all")):
        at = row[when]
        yield _row(text, f"{at['rss']:.1f} MB", f"{at['threads']:g}", f"{at['files']:g}")


_PARTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "poll": _polls, "registered": _polls, "scrape": _scrapes, "port": _port, "hub": _hub,
    "unnoticed": _waits, "users": _users, "drain": _drains, "soak": _soak,
}  # fmt: skip


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield _row(*("--:" for _ in cells))


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _ms(spread: dict[str, float]) -> str:
    values = (spread[key] * 1000 for key in ("median", "low", "high"))
    return "{} ({}…{}) ms".format(*map(_three, values))


def _times(spread: dict[str, float]) -> str:
    return "{:.2f} ({:.2f}…{:.2f})".format(*(spread[key] for key in ("median", "low", "high")))


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
