"""What the process arranges for itself, before it does anything else."""

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE = 4  # of Linux, see prctl(2)


def arrange() -> None:
    """Hide the memory, and open the standard streams that are closed.

    Memory and environment hold the token: there are no core dumps, and other processes of the same
    user cannot read them (of whoever runs servers as its own user, that is every user). Where a
    standard stream is closed, the next file or connection that is opened gets its number, and
    whatever is written to the stream.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":  # where a program takes the dumps, the limit does not count
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as it runs
