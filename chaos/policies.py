"""The policy file of a run, and who is exempt by it."""

import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .record import Record

_BROKEN = ("policies: [", "policies:\n  - name: x\n", "policies: {}\n", "\x00", "nonsense\n")
# Half of a file may be valid. It must not be taken for a version, having stood for less than half a
# second; a busy machine makes pauses longer.
_LONGEST_PAUSE = 0.3


class Policies:
    """Writes versions of the file, each in one of the ways in which files are written.

    `whole` is held while the file may not be read as it should: no exporter should start then.

    Args:
        path: of the file.
        record: is told who is exempt from now on.
        chance: decides.
        always: users who are exempt by every version.
        sometimes: users who are exempt by some.
        max_age: users who may be stopped at work, at that age in seconds.
    """

    def __init__(
        self,
        path: Path,
        record: Record,
        chance: random.Random,
        always: Sequence[str],
        sometimes: Sequence[str],
        max_age: Mapping[str, float],
    ) -> None:
        self.path, self.whole = path, threading.Lock()
        self._record, self._chance, self._max_age = record, chance, max_age
        self._always, self._sometimes = list(always), list(sometimes)
        self._version = 0
        self.exempt: list[str] = []
        self.rewrite()

    def rewrite(self) -> None:
        """Write a new version at once: into a new file, as editors do, or into the old one."""
        with self.whole:
            self._write(self._next_version())

    def rewrite_in_two(self) -> None:
        """Write a new version in two pieces; in the first one nobody is exempt."""
        with self.whole:
            text = self._next_version()
            cut = text.index("  - name: staff")
            with self.path.open("w") as file:
                file.write(text[:cut])
                file.flush()
                self._record.note("policy_file", valid=True, exempt=[], way="first piece")
                time.sleep(self._chance.uniform(0.02, _LONGEST_PAUSE))
                file.write(text[cut:])
                file.flush()
                self._tell("second piece")

    def break_for(self, seconds: float) -> None:
        """Write something invalid, and a valid version after a while."""
        with self.whole:
            self._record.note("policy_file", valid=False, exempt=[], way="broken")
            self.path.write_text(self._chance.choice(_BROKEN))
            time.sleep(seconds)
            self._write(self._next_version())

    def _write(self, text: str) -> None:
        if self._chance.random() < 0.5:
            fresh = self.path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.path)
            self._tell("new file")
        else:
            self._record.note("policy_file", valid=False, exempt=[], way="being written")
            self.path.write_text(text)
            os.utime(self.path)
            self._tell("same file")

    def _tell(self, way: str) -> None:
        self._record.note("policy_file", valid=True, exempt=self.exempt, way=way)

    def _next_version(self) -> str:
        """Return the text of a new version; it decides who is exempt."""
        self._version += 1
        some = [user for user in self._sometimes if self._chance.random() < 0.5]
        self.exempt = [*self._always, *some]
        aged = "".join(_policy(f"aged-{user}", user, f"max_age: {most:g}")
                       for user, most in self._max_age.items())  # fmt: skip
        filler = _policy(f"version-{self._version}", "nobody", "timeout: 1h")
        return (
            f"policies:\n{filler}{aged}{_policy('staff', ', '.join(self.exempt), 'exempt: true')}"
        )


def _policy(name: str, users: str, what: str) -> str:
    return f"  - name: {name}\n    match: {{users: [{users}]}}\n    {what}\n"
