"""The people of the demo, and what each of them does on the Hub.

    python -m hub_idle_exporter.demo.people --url http://hub:8000/ --token-file FILE --limit 120

lets them come, work, leave and come back until SIGTERM or SIGINT. FILE contains the API token of a
service with the scope `tokens!group=people`.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .browser import Browser, BrowserError, Kernel


class Outcome(Enum):
    """The expected outcome of a server: kind and cause, as in the audit log."""

    STOPPED_IDLE = ("stopped", "idle")
    STOPPED_MAX_AGE = ("stopped", "max_age")
    WITHHELD_BUSY = ("withheld", "busy")
    WITHHELD_ACTIVE_AGAIN = ("withheld", "active_again")
    # Never a candidate, so it is not in the audit log.
    KEPT_IN_USE = ("kept", "in use")
    KEPT_EXEMPT = ("kept", "exempt")

    @property
    def kind(self) -> str:
        """Stopped, withheld at the last moment, or kept."""
        return self.value[0]

    @property
    def cause(self) -> str:
        """Why."""
        return self.value[1]

    @property
    def audited(self) -> bool:
        """Whether it must be in the audit log."""
        return self.kind != "kept"


class Desk:
    """What a person needs for their routine.

    Args:
        browser: the person's browser.
        server: the name of the person's server.
        limit: the idle limit that applies, in seconds.
        tell: called with what the person does now.
        closing: set when everybody leaves.
    """

    def __init__(
        self,
        browser: Browser,
        server: str,
        limit: float,
        tell: Callable[[str], None],
        closing: threading.Event,
    ) -> None:
        self.limit, self.tell = limit, tell
        self._browser, self._server, self._closing = browser, server, closing

    def run(self, code: str) -> Kernel:
        """Start the server if necessary, open a notebook and run a cell in it."""
        self._browser.start_server(self._server)
        kernel = self._browser.open_kernel(self._server)
        kernel.run(code)
        return kernel

    def pause(self, seconds: float) -> None:
        """Do nothing for a while; end early when everybody leaves."""
        self._closing.wait(seconds)


def _printing(seconds: float, every: float) -> str:
    lines = int(seconds / every)
    return f"import time\nfor line in range({lines}):\n    print(line)\n    time.sleep({every})"


def _computing(seconds: float) -> str:
    return (
        "import time\n"
        f"end = time.monotonic() + {seconds}\n"
        "while time.monotonic() < end:\n"
        "    sum(range(100_000))\n"
        "    time.sleep(0.5)"
    )


def work(desk: Desk) -> None:
    """Run a cell that prints steadily, and watch it."""
    kernel = desk.run(_printing(10 * desk.limit, every=2))
    desk.tell("runs a cell that prints a line every 2 s")
    kernel.watch()


def compute_silently(desk: Desk) -> None:
    """Run a cell that computes for a long time without printing, and close the tab."""
    seconds = 4 * desk.limit
    desk.run(_computing(seconds)).close()
    desk.tell(f"runs a cell that computes for {seconds:.0f} s and prints nothing")


def go_home(desk: Desk) -> None:
    """Run one cell and close the tab."""
    desk.run("print('hello')").close()
    desk.tell("runs one cell, closes the tab and leaves")


def come_back(desk: Desk) -> None:
    """Leave, and come back to work just before the limit."""
    go_home(desk)
    desk.pause(0.75 * desk.limit)
    kernel = desk.run(_printing(8 * desk.limit, every=2))
    desk.tell("is back just in time and goes on working")
    kernel.watch()


def leave_a_job(desk: Desk) -> None:
    """Leave a job running that prints a line now and then, well within the limit."""
    every = 0.4 * desk.limit
    desk.run(_printing(8 * desk.limit, every)).close()
    desk.tell(f"leaves a job that prints every {every:.0f} s; her server reports only every 300 s")


@dataclass(frozen=True)
class Person:
    """One person with one server; `ends` is its expected outcome."""

    name: str
    does: str
    routine: Callable[[Desk], None]
    ends: Outcome
    server: str = ""
    also_in: tuple[str, ...] = ()
    reports_seldom: bool = False

    @property
    def groups(self) -> tuple[str, ...]:
        """The person's groups on the Hub."""
        return ("people", *self.also_in)


PEOPLE = (
    Person("ada", "works: her kernel prints", work, Outcome.KEPT_IN_USE),
    Person("ben", "computes, and prints nothing", compute_silently, Outcome.WITHHELD_BUSY),
    Person("cleo", "ran a cell and went home", go_home, Outcome.STOPPED_IDLE),
    Person("dora", "forgot her named server", go_home, Outcome.STOPPED_IDLE, server="thesis"),
    Person("emil", "away, and back just in time", come_back, Outcome.KEPT_IN_USE),
    Person(
        "fay",
        "left a job; the Hub learns late",
        leave_a_job,
        Outcome.WITHHELD_ACTIVE_AGAIN,
        reports_seldom=True,
    ),
    Person("gus", "went home, but is staff", go_home, Outcome.KEPT_EXEMPT, also_in=("staff",)),
    Person("tmp-hal", "works on a scratch server", work, Outcome.STOPPED_MAX_AGE),
)


def activity_interval(user: str) -> int:
    """Return the seconds between a server's reports of activity to the Hub.

    300 is JupyterHub's default, and makes people look idle who are not.
    """
    return 300 if any(user == person.name and person.reports_seldom for person in PEOPLE) else 3


class Company:
    """All people at once, each on their own thread.

    Args:
        hub_url: the Hub's public address, with a slash at the end.
        token: the token of a service with the scope `tokens!group=people`.
        limit: the idle limit that applies, in seconds; it sets the pace.
        tell: called with a person and what they do now, from any thread.
    """

    def __init__(
        self,
        hub_url: str,
        token: str,
        limit: float,
        tell: Callable[[Person, str], None],
    ) -> None:
        self._hub_url, self._token, self._limit, self._tell = hub_url, token, limit, tell
        self._closing = threading.Event()

    def come(self, again_and_again: bool = False) -> None:
        """Start everybody's routine, once or repeatedly, and return at once."""
        routine = self._repeatedly if again_and_again else self._once
        for person in PEOPLE:
            threading.Thread(target=routine, args=[person], name=person.name, daemon=True).start()

    def leave(self) -> None:
        """Make everybody leave; their servers keep running."""
        self._closing.set()

    def _once(self, person: Person) -> None:
        try:
            person.routine(self._desk(person))
        except BrowserError as error:
            if not self._closing.is_set():
                self._tell(person, f"cannot continue: {error}")

    def _repeatedly(self, person: Person) -> None:
        """Repeat the routine, with breaks that are sometimes long enough for a stop."""
        self._closing.wait(random.uniform(0, self._limit))  # noqa: S311 - no secret
        while not self._closing.is_set():
            self._once(person)
            self._closing.wait(random.uniform(0.5, 4) * self._limit)  # noqa: S311 - no secret

    def _desk(self, person: Person) -> Desk:
        service = Browser(self._hub_url, "people", self._token)
        browser = Browser(self._hub_url, person.name, service.token_for(person.name))

        def tell(what: str) -> None:
            self._tell(person, what)

        return Desk(browser, person.server, self._limit, tell, self._closing)


def main() -> int:
    """Simulate the people on a Hub elsewhere, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Simulated people for a JupyterHub.")
    parser.add_argument("--url", required=True, help="public address of the Hub")
    parser.add_argument("--token-file", required=True, type=Path, help="file with the API token")
    parser.add_argument(
        "--limit", type=float, default=120, help="idle limit of the Hub in seconds; sets the pace"
    )
    options = parser.parse_args()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    token = options.token_file.read_text().strip()
    company = Company(f"{options.url.rstrip('/')}/", token, options.limit, _print)
    company.come(again_and_again=True)
    ending.wait()
    company.leave()
    return 0


def _print(person: Person, what: str) -> None:
    print(f"{person.name} {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
