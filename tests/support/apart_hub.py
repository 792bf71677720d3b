"""A real Hub with its proxy as a process of its own.

So a Hub that is killed leaves the proxy, and what that knows of activity, as on Kubernetes.
"""

import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import requests
from real_hub import HUBS, RealHub

_PROXY_SECONDS = 20


class ApartHub(RealHub):
    """One Hub and its proxy; the arguments are those of RealHub."""

    def __init__(self, directory: Path, *arguments: Any, config: str = "", **options: Any) -> None:
        self._proxy_token = secrets.token_hex(16)
        proxy = (
            "c.ConfigurableHTTPProxy.should_start = False\n"
            f"c.ConfigurableHTTPProxy.auth_token = {self._proxy_token!r}\n"
        )
        super().__init__(directory, *arguments, config=config + proxy, **options)
        self._proxy: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 60) -> None:
        """Start the Hub, and the proxy if it does not run."""
        if self._proxy is None:
            self.start_proxy()
        super().start(timeout)

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

    def close(self) -> None:
        """Stop everything."""
        self.kill_proxy()
        super().close()
