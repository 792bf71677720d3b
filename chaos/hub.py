"""The Hub of a run: the tests' real Hub, with its proxy as a process of its own.

So a Hub that is killed leaves the proxy, the servers and the exporters up, as on Kubernetes.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import requests
from real_hub import ENFORCE, HUBS, PROBER, RealHub, Service

from . import ROOT

_CONFIG = f"""
import sys
sys.path.append({str(ROOT)!r})
c.JupyterHub.spawner_class = "chaos.hubside.spawner.ChaosSpawner"
c.ConfigurableHTTPProxy.should_start = False
c.JupyterHub.proxy_check_interval = 5
"""
_REPORT_SECONDS = 3
_SLOW_STOP_SECONDS = 4
_PROXY_SECONDS = 20


class ChaosHub(RealHub):
    """One Hub and its proxy; both can be killed, paused and started again.

    Args:
        directory: of the Hub.
        record: where its spawner and its servers write down what happens.
    """

    def __init__(self, directory: Path, record: Path) -> None:
        self._proxy_token = secrets.token_hex(16)
        scopes = (*ENFORCE, f"tokens!service={PROBER}")
        prober = {"name": PROBER, "users": [PROBER], "scopes": ["access:servers", "delete:servers"]}
        super().__init__(
            directory,
            services=[Service(scopes=scopes)],
            roles=[prober],
            prober=False,
            config=f"{_CONFIG}c.ConfigurableHTTPProxy.auth_token = {self._proxy_token!r}\n",
            activity_interval=_REPORT_SECONDS,
            slow_stop_timeout=_SLOW_STOP_SECONDS,
            environment={"CHAOS_RECORD": str(record)},
        )
        self._proxy: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the proxy and the Hub."""
        self.start_proxy()
        self.start()

    def start_proxy(self) -> None:
        """Start the proxy, and return when its API answers; raise TimeoutError when it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "proxy.log").open("ab") as log:
            self._proxy = subprocess.Popen(
                self._proxy_command(),
                env=self.environment | {"CONFIGPROXY_AUTH_TOKEN": self._proxy_token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PROXY_SECONDS
        while not self._proxy_answers():
            if time.monotonic() > deadline:
                raise TimeoutError("the proxy did not start: see proxy.log")
            time.sleep(0.05)

    def _proxy_command(self) -> list[str]:
        host, ports = "127.0.0.1", self.ports
        return [
            *(self.python, str(HUBS / "proxy.py")),
            *("--ip", host, "--port", str(ports.public)),
            *("--api-ip", host, "--api-port", str(ports.proxy_api)),
            *("--error-target", f"http://{host}:{ports.hub}/hub/error"),
        ]

    def _proxy_answers(self) -> bool:
        url = f"http://127.0.0.1:{self.ports.proxy_api}/api/routes"
        headers = {"Authorization": f"token {self._proxy_token}"}
        try:
            return self._http.get(url, headers=headers, timeout=2).ok
        except requests.RequestException:
            return False

    def kill_proxy(self) -> None:
        """Kill the proxy: nobody reaches the Hub or their server through it any more."""
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.wait()

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
        self.kill_proxy()
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
