"""What the unit of deploy/systemd forbids, tried from inside; prints what could be done.

Run by a machine's own Python: `python3 sandbox_attempts.py`. As root without a sandbox all is.
"""

import ctypes
import mmap
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER = 0x10000000
OURS = Path("/etc/hub-idle-exporter")
IN_MEMORY = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC


def unshare() -> None:
    """Make a namespace of users, which needs no privilege."""
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
        raise PermissionError("unshare")


ATTEMPTS: dict[str, Callable[[], object]] = {
    "write to /etc": lambda: (OURS / "written").write_text(""),
    "write to /opt": lambda: Path("/opt/written").write_text(""),
    "write to /var": lambda: Path("/var/lib/written").write_text(""),
    "read home folders": lambda: list(Path("/root").iterdir()),
    "read the token's file": lambda: (OURS / "token").read_text(),
    "see other processes": lambda: Path("/proc/1/cmdline").read_text(),
    "become root": lambda: os.setuid(0),
    "raw sockets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "other address families": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "memory written and executed": lambda: mmap.mmap(-1, 4096, prot=IN_MEMORY),
    "namespaces": unshare,
}


def possible(attempt: Callable[[], object]) -> bool:
    """Tell whether nothing refused it."""
    try:
        attempt()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    found = [name for name, attempt in ATTEMPTS.items() if possible(attempt)]
    sys.stdout.write(f"possible: {found}\n")
    # These it needs.
    Path(os.environ.get("CREDENTIALS_DIRECTORY", OURS), "token").read_text()
    Path(tempfile.gettempdir(), "written").write_text("")
