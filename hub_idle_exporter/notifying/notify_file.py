"""The notify file: one Apprise URL a line, read again when it changes."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ..watched_file import FileError, WatchedFile, read
from . import secrets
from .target import Target
from .template import TargetError


class NotifyFile(WatchedFile[bytes | str, tuple[Target, ...]]):
    """The targets of a file, those of its last valid version.

    Args:
        path: the file.
        wait: waits for some seconds; returns True, at once, when the exporter is to end.
    """

    def __init__(self, path: Path, wait: Callable[[float], bool]) -> None:
        super().__init__("notify file", path, (), wait)
        self._secrets: frozenset[str] = frozenset()

    def find(self) -> bytes | str:
        """Read the file, or say what is wrong with it."""
        return read(self.path)

    def parse(self, found: bytes | str) -> tuple[Target, ...]:
        """Return the targets; raise FileError, which names the line and never shows its URL."""
        if isinstance(found, str):
            raise FileError(f"{self.name} {found}")
        try:
            targets = tuple(_targets(found.decode("utf-8-sig")))
        except UnicodeError:
            raise FileError(f"{self.name} is not a text file (UTF-8)") from None
        except TargetError as error:
            raise FileError(f"{self.name}: {error}") from None
        if not targets:
            raise FileError(f"{self.name} has no URL: write one on each line")
        # Those of earlier versions too: a delivery may be under way.
        self._secrets = self._secrets.union(*(target.secrets() for target in targets))
        return targets

    def mask(self, text: str) -> str:
        """Mask the URLs, and the secrets in them, in a text."""
        return secrets.mask(text, self._secrets)


def _targets(text: str) -> Iterator[Target]:
    for number, line in enumerate(text.splitlines(), start=1):
        url = line.strip()
        if url and not url.startswith("#"):
            try:
                yield Target(number, url)
            except TargetError as error:
                raise TargetError(f"line {number}: {error}") from None
