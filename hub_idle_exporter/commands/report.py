"""The report of `check`: one line a finding, and whether any of them is a problem."""

import shutil
import sys

import click

from ..domain.columns import wrapped
from ..domain.requirements import Finding, Severity
from ..domain.text import printable

_INDENT = " " * 9


class Report:
    """Prints findings one by one, and remembers whether any of them is a problem."""

    def __init__(self) -> None:
        self.failed = False

    def good(self, sentence: str) -> None:
        """Print what is as it should be."""
        self._say("ok", sentence)

    def note(self, sentence: str) -> None:
        """Print what is good to know."""
        self._say("note", sentence)

    def warning(self, sentence: str) -> None:
        """Print what works, but perhaps not as somebody expects."""
        self._say("warning", sentence)

    def bad(self, sentence: str) -> None:
        """Print what keeps the exporter from its work."""
        self.failed = True
        self._say("PROBLEM", sentence)

    def more(self, text: str) -> None:
        """Print a line that belongs to the one before."""
        self._say("", text)

    def _say(self, kind: str, sentence: str) -> None:
        """Print one line, wrapped on a terminal alone: elsewhere a line is a finding."""
        line = f"{kind:<9}{printable(sentence)}"
        on_terminal = sys.stdout.isatty()
        room = shutil.get_terminal_size().columns
        click.echo(wrapped(line, room, _INDENT) if on_terminal else line)

    def unmet(self, finding: Finding) -> None:
        """Print a requirement that is not met, by how serious that is."""
        if finding.severity >= Severity.KEEPS_USERS:
            self.bad(str(finding))
        elif finding.severity is Severity.WARNING:
            self.warning(str(finding))
        else:
            self.note(str(finding))
