"""The exporter as a process of its own, as an administrator starts it.

    with Exporter(hub.url, hub.token, ["--timeout=1h"]) as exporter:
        exporter.wait_for(lambda metrics: metrics.value("jupyterhub_up") == 1)
        exporter.wait_event("culled", user="ana")
        assert exporter.stop() == 0

Whatever it wrote or served is looked through for the token when it ends.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from prometheus_client.parser import text_string_to_metric_families
from server_process import end

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

PACKAGE = "hub_idle_exporter"
_FOREIGN = ("JUPYTER", "JPY_", "HUB_IDLE_EXPORTER_")
_PAIR = re.compile(r'([^\s=]+)=("(?:[^"\\]|\\.)*"|\S*)')


class Metrics:
    """What /metrics said: samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return the sum of the samples with that name and at least these labels, or None."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def by(self, label: str, name: str, /, **labels: str) -> dict[str, float]:
        """Return the sums of such samples by the values of one label."""
        values = {s.labels[label] for s in self.samples if s.name == name and label in s.labels}
        sums = {value: self.value(name, **labels, **{label: value}) for value in sorted(values)}
        return {value: total for value, total in sums.items() if total is not None}


def environment(url: str | None, token: str | None, more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with the Hub's address and token, and no others'."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    given = {"JUPYTERHUB_API_URL": url, "JUPYTERHUB_API_TOKEN": token}
    return kept | {name: value for name, value in given.items() if value is not None} | dict(more)


class Exporter:
    """One running exporter; a context manager.

    Args:
        url: the Hub's API, None to give none.
        token: in the environment, None to give none.
        arguments: options; a free port is listened on unless they say where.
        variables: more of the environment.
        directory: where it is started.
    """

    def __init__(
        self,
        url: str | None,
        token: str | None,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        directory: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        self.secrets = {token} if token else set()
        self.lines: list[str] = []
        self.pages: list[str] = []
        self._said = threading.Condition()
        if not any(argument.startswith("--web.listen-address") for argument in arguments):
            arguments = [*arguments, "--web.listen-address=127.0.0.1:0"]
        self.process = subprocess.Popen(
            [python, "-m", PACKAGE, *arguments],
            cwd=directory,
            env=environment(url, token, variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    # -- the log

    @property
    def text(self) -> str:
        """All it wrote so far."""
        return "\n".join(list(self.lines))

    def wait_log(self, text: str, timeout: float = 20, count: int = 1) -> str:
        """Wait until `count` lines hold a text; return the last of them."""
        return self._wait_line(lambda line: text in line, repr(text), timeout, count)

    def wait_event(
        self, event: str, /, timeout: float = 20, count: int = 1, **values: str
    ) -> dict[str, str]:
        """Wait for the `count`th line (logfmt) of an event with these values; return it."""
        wanted = values | {"event": event}

        def matches(line: str) -> bool:
            return wanted.items() <= fields(line).items()

        return fields(self._wait_line(matches, str(wanted), timeout, count))

    def _wait_line(
        self, matches: Callable[[str], object], what: str, timeout: float, count: int
    ) -> str:
        def matching() -> list[str]:
            return [line for line in self.lines if matches(line)]

        def over() -> bool:
            return len(matching()) >= count or not self._reader.is_alive()

        with self._said:
            self._said.wait_for(over, timeout)
        found = matching()
        assert len(found) >= count, f"no {count} lines with {what} in {timeout} s:\n{self.text}"
        return found[count - 1]

    def events(self, event: str | None = None) -> list[dict[str, str]]:
        """Return the log's lines (logfmt) as dictionaries, of one event or all."""
        parsed = [fields(line) for line in list(self.lines)]
        return [line for line in parsed if event is None or line.get("event") == event]

    # -- HTTP

    @property
    def address(self) -> str:
        """Where it listens, without a slash at the end; waits for it."""
        return self.wait_event("listening")["address"].rstrip("/")

    def get(self, path: str = "/metrics", **more: str) -> requests.Response:
        """Ask it; keyword arguments are headers."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(f"{self.address}{path}", headers=headers, timeout=20)
        self.pages.append(response.text)
        return response

    def metrics(self) -> Metrics:
        """Return what /metrics says now."""
        return Metrics(self.get("/metrics").text)

    def wait_for(self, holds: Callable[[Metrics], object], timeout: float = 30) -> Metrics:
        """Ask /metrics until it holds; AssertionError with metrics and log after `timeout` s."""
        deadline = time.monotonic() + timeout
        while True:
            metrics = self.metrics()
            if holds(metrics):
                return metrics
            shown = [line for line in metrics.text.splitlines() if not line.startswith("#")]
            assert time.monotonic() < deadline, "\n".join([*shown, *self.lines])
            time.sleep(0.05)

    def wait_value(
        self, expected: float | None, name: str, /, timeout: float = 30, **labels: str
    ) -> Metrics:
        """Ask /metrics until a value (see `Metrics.value`) is the one expected."""
        return self.wait_for(lambda metrics: metrics.value(name, **labels) == expected, timeout)

    def wait_polls(self, more: int = 1, timeout: float = 30) -> Metrics:
        """Wait until so many further polls have ended, well or badly."""
        name = "hub_idle_exporter_polls_total"
        # The one under way now may have begun before the caller's change.
        target = (self.metrics().value(name) or 0) + more + 1
        return self.wait_for(lambda metrics: (metrics.value(name) or 0) >= target, timeout)

    # -- ending

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Send a signal and return the exit code; AssertionError when it lives on."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 30) -> int:
        """Return the exit code once it ends by itself."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.text}") from None
        self._reader.join(5)
        return code

    def close(self) -> None:
        """End it, by force if need be, and look for secrets in all it said."""
        end(self.process, patience=10)
        self._reader.join(5)
        assert self.process.stdout is not None
        if not self._reader.is_alive():
            self.process.stdout.close()
        assert_secret([self.text, *self.pages], self.secrets)


def run_command(
    url: str | None,
    token: str | None,
    arguments: Sequence[str],
    variables: Mapping[str, str] | None = None,
    timeout: float = 60,
    directory: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself (`check`, `servers`, `--once`); texts are separate."""
    done = subprocess.run(
        [sys.executable, "-m", PACKAGE, *arguments],
        cwd=directory,
        env=environment(url, token, variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert_secret([done.stdout, done.stderr], {token} if token else set())
    return done


def assert_secret(texts: Sequence[str], secrets: set[str]) -> None:
    """Raise AssertionError where a secret is in a text."""
    leaks = [text for text in texts for secret in secrets if secret in text]
    assert not leaks, f"a token was shown: {leaks[0][:2000]}"


def fields(line: str) -> dict[str, str]:
    """Return a logfmt line's keys and values."""
    pairs: list[tuple[str, str]] = _PAIR.findall(line)
    return {key: _unquoted(value) for key, value in pairs}


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def catches(process: subprocess.Popen[Any], number: signal.Signals) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
