"""A token of the sidecar's own: where it comes from, how it is sent, and how it is masked."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..domain.settings import ConfigError

VARIABLES = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")
_LONGEST = 4096  # characters of a token's file


class Token:
    """A token; read again from its file when it is refused (rotation)."""

    def __init__(self, value: str, read: Callable[[], str]) -> None:
        self._value, self._read = value, read

    @classmethod
    def read_by(cls, read: Callable[[], str]) -> "Token":
        """Read the token for the first time; errors of `read` are passed on."""
        return cls(read(), read)

    def __repr__(self) -> str:
        return "Token(masked)"

    @property
    def header(self) -> str:
        """Return the `Authorization` header for the Hub."""
        return f"token {self._value}"

    @property
    def bearer(self) -> str:
        """Return the `Authorization` header for others than a Hub."""
        return f"Bearer {self._value}"

    def mask(self, text: str) -> str:
        """Mask the token in a text."""
        return text.replace(self._value, "***")

    def reread(self) -> bool:
        """Read the token again; tell whether it changed. An unreadable file keeps the old one."""
        try:
            fresh = self._read()
        except (OSError, ValueError):
            return False
        changed, self._value = fresh != self._value, fresh
        return changed


def find_token(token_file: str | None, environ: Mapping[str, str]) -> Token:
    """Find the token in its file or in the environment; raise ConfigError if there is none."""
    if token_file is not None:
        return token_in_file("--api-token-file", Path(token_file))
    for variable in VARIABLES:
        value = environ.get(variable, "").strip()
        if value:
            where = f"the environment variable {variable}"
            return Token.read_by(partial(checked_token, value, where))
    raise ConfigError("no API token: set $JUPYTERHUB_API_TOKEN, or use --api-token-file")


def token_in_file(option: str, path: Path) -> Token:
    """Read the token in the file of an option; raise ConfigError if it cannot be used."""
    where = f"{option} {path}"

    def read() -> str:
        with path.open() as file:  # perhaps one without end
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ConfigError(f"{where} has more than {_LONGEST} characters: it is no token")
        return checked_token(text.strip(), where)

    try:
        return Token.read_by(read)
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise ConfigError(f"{where} is not a text file") from None


def checked_token(value: str, where: str) -> str:
    """Refuse a value that cannot be sent in a header, without showing it."""
    if not value:
        raise ConfigError(f"{where} is empty: it must contain a token")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigError(
            f"{where} is not a token: it has spaces, line breaks or other invalid characters"
        )
    return value
