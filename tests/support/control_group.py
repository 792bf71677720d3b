"""A control group of one's own for a process that manages groups itself, as systemd does.

Two of them in one group would end each other's services.
"""

import contextlib
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")
# By the controllers that /proc/self/cgroup names: the hierarchies in which systemd works.
HIERARCHIES = {"": (MOUNTED / "unified", MOUNTED), "name=systemd": (MOUNTED / "systemd",)}


def groups(name: str) -> list[Path]:
    """Return where a group of that name lies, below this process's own."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        roots = [root for root in HIERARCHIES.get(controllers, ()) if root.is_dir()]
        found += [root / path.lstrip("/") / name for root in roots[:1]]
    return found


def inside(name: str, command: list[str]) -> list[str]:
    """Return a command that makes the group and starts another command in it."""
    entered = [f'mkdir "{group}" && echo $$ >"{group}/cgroup.procs"' for group in groups(name)]
    return ["sh", "-euc", "; ".join([*entered, 'exec "$@"']), "sh", *command]


def remove(name: str) -> None:
    """Remove the group, whose processes have ended."""
    for group in groups(name):
        for folder in (*sorted(group.rglob("*/"), reverse=True), group):
            with contextlib.suppress(OSError):
                folder.rmdir()
