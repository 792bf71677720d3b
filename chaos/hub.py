"""The Hub of a run: the tests' real Hub, with its proxy as a process of its own.

A Hub that is killed leaves the proxy, the servers and the exporters up, as on Kubernetes.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import requests
from apart_hub import ApartHub
from real_hub import ENFORCE, PROBER, Service

from . import ROOT

_CONFIG = f"""
import sys
sys.path.append({str(ROOT)!r})
c.JupyterHub.spawner_class = "chaos.hubside.spawner.ChaosSpawner"
c.JupyterHub.proxy_check_interval = 5
"""
_REPORT_SECONDS = 3
_SLOW_STOP_SECONDS = 4


class ChaosHub(ApartHub):
    """One Hub and its proxy; both can be killed, paused and started again.

    Args:
        directory: of the Hub.
        record: where its spawner and its servers write down what happens.
    """

    def __init__(self, directory: Path, record: Path) -> None:
        scopes = (*ENFORCE, f"tokens!service={PROBER}")
        prober = {"name": PROBER, "users": [PROBER], "scopes": ["access:servers", "delete:servers"]}
        super().__init__(
            directory,
            services=[Service(scopes=scopes)],
            roles=[prober],
            prober=False,
            config=_CONFIG,
            activity_interval=_REPORT_SECONDS,
            slow_stop_timeout=_SLOW_STOP_SECONDS,
            environment={"CHAOS_RECORD": str(record)},
        )

    def pause(self) -> None:
        """Stop the Hub in its tracks; what is sent to it waits."""
        self._signal_hub(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the Hub go on."""
        self._signal_hub(signal.SIGCONT)

    def close(self) -> None:
        """Stop everything, also what is paused."""
        with contextlib.suppress(ProcessLookupError):
            self.resume()
        super().close()

    def marked(self, more: dict[str, str]) -> dict[str, str]:
        """Return an environment by which a process is known as ours, and ended with the Hub."""
        return more | {"PATH": self.environment["PATH"], "TMPDIR": self.environment["TMPDIR"]}

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send one request; return its status (0: no answer) and what it says, if that is JSON."""
        try:
            response = self.api(method, path, body)
            return response.status_code, response.json() if response.content else None
        except (requests.RequestException, ValueError):
            return 0, None


def pause_process(pid: int) -> None:
    """Stop a process in its tracks."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)


def resume_process(pid: int) -> None:
    """Let a process go on."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
