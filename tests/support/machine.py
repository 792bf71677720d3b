"""A Debian of its own, booted by systemd in a container that shares this machine's network.

    with Machine({"/checkout": REPO}) as machine:
        machine.run("systemctl is-active cron")
        machine.show("cron.service", "ActiveState")

Whatever it writes is gone when it ends: its tree is an overlay on one that `tools/debian_root.py`
made. Needs root, debootstrap and systemd-nspawn.
"""

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import control_group
import psutil
from documentation import ROOT

# Bookworm: Python 3.11, systemd 252.
SUITE = "bookworm"
PACKAGES = ("dbus", "openssl", "pipx", "python3-venv", "sudo", "systemd-sysv")
CLEAN = (
    "env", "-i", "HOME=/root", "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)  # fmt: skip


def _debian() -> str:
    """Make the tree, once, and return where it is."""
    command = [sys.executable, str(ROOT / "tools" / "debian_root.py"), SUITE, *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class CannotBootError(Exception):
    """This machine does not let containers boot; the message is what systemd-nspawn said."""


class Machine:
    """One booted Debian.

    Args:
        shared: folders of this machine that it can read, by their place in it.
    """

    def __init__(self, shared: Mapping[str, Path]) -> None:
        self._name = f"test-{secrets.token_hex(4)}"
        self._first = 0  # process, as this machine numbers it
        # It ends with this process. Read-only: several may lie on the same tree at once.
        self._command = [
            "setpriv", "--pdeathsig=KILL", "systemd-nspawn", "--quiet", "--boot", "--console=pipe",
            "--read-only", "--volatile=overlay", "--keep-unit", "--register=no",
            "--link-journal=no", f"--machine={self._name}",
            f"--directory={_debian()}",
            *(f"--bind-ro={here.resolve()}:{there}" for there, here in shared.items()),
        ]  # fmt: skip

    def __enter__(self) -> "Machine":
        self._nspawn = subprocess.Popen(
            control_group.inside(self._name, self._command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        if self._nspawn.poll() is None:
            for child in psutil.Process(self._nspawn.pid).children():
                child.kill()  # its first process: all others end with it
            if not self._first:
                self._nspawn.kill()
        self._nspawn.communicate(timeout=30)
        control_group.remove(self._name)

    def _boot(self) -> None:
        self.wait(self._begun, 30, "a first process")
        self.wait(self._is_up, 60, "booted")

    def _begun(self) -> bool:
        if self._nspawn.poll() is not None:
            assert self._nspawn.stdout is not None
            raise CannotBootError(self._nspawn.stdout.read().strip())
        children = psutil.Process(self._nspawn.pid).children()
        # Before, it is a copy of systemd-nspawn.
        self._first = next((one.pid for one in children if one.name() == "systemd"), 0)
        return bool(self._first)

    def _is_up(self) -> bool:
        asked = self.run("systemctl is-system-running", check=False)
        return asked.stdout.strip() in ("running", "degraded")

    def run(
        self, script: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run lines of a shell as root; AssertionError with all they said if one fails."""
        done = subprocess.run(
            ["nsenter", f"--target={self._first}", "--all", "--wd", *CLEAN,
             "bash", "-euo", "pipefail", "-c", script],
            capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run(f"systemctl show --property={name} --value {unit}").stdout.strip()

    def journal(self, unit: str) -> str:
        """Return what a unit logged."""
        return self.run(f"journalctl --unit={unit} --output=cat --no-pager").stdout

    def wait(self, holds: Callable[[], object], timeout: float, what: str) -> None:
        """Ask until something holds; AssertionError after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, f"not {what} in {timeout} s"
            time.sleep(0.1)
