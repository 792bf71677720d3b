"""One line of the notify file: a service of Apprise, for one person or for all."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..domain.messages import Words
from ..domain.settings import ConfigError
from ..domain.text import printable
from . import remarks, secrets
from .template import DEFAULT_SERVER, TargetError, Template, is_address

if TYPE_CHECKING:
    from apprise import NotifyBase

MISSING = "--notify-file needs the package apprise: pip install 'hub-idle-exporter[notify]'"
# In seconds. A mail server may take its time to greet: some let strangers wait on purpose.
_CONNECT, _READ = 15.0, 15.0
# Names to try a URL with: what Apprise makes of them shows where it puts a name.
_USER, _ADDRESS, _SERVER = "zq7user", "zq7user@example.org", "zq7server"
# Others read these messages too, and some services make links and calls of such characters.
_HARMLESS = str.maketrans({"@": "(at)", "<": "(", ">": ")", "[": "(", "]": ")", "`": "'"})


class Target:
    """A URL that was tried with names; raises TargetError, which never shows it, if it is unusable.

    Args:
        line: its line in the file.
        text: the URL, with `{user}` and `{server}` to be replaced.
    """

    def __init__(self, line: int, text: str) -> None:
        self.name, self.text, self._template = f"line {line}", text, Template(text)
        self.is_personal = self._template.is_personal
        self._expected = dict(self._tried())
        if not self._expected:
            raise TargetError("the service takes no name where {user} or {server} stands")

    def secrets(self) -> set[str]:
        """Return what must not be shown of the URL."""
        service = _service(self._template.filled(_USER, _SERVER))
        return secrets.of(self.text, _url(service), _url(service, privacy=True))

    def send(self, words: Words, user: str, server: str) -> str | None:
        """Deliver a message; say why, on one line, if it was not taken."""
        try:
            service = self._service_for(user, server)
            with remarks.collected() as found:
                words = words if self.is_personal else _for_all(words, user)
                if service.notify(title=words.title, body=words.body, body_format="text"):
                    return None
            return remarks.last_of(found) or "it was not taken"
        except Exception as error:  # noqa: BLE001 - a service may fail in any way
            return str(error) if isinstance(error, TargetError) else type(error).__name__

    def _service_for(self, user: str, server: str) -> "NotifyBase":
        """Make the service; raise TargetError if Apprise reads a name as more than a name."""
        service = _service(self._template.filled(user, server))
        expected = self._expected.get(self.is_personal and is_address(user))
        server = server or DEFAULT_SERVER
        if expected is None or _canonical(service) != expected.replace(_USER, user.lower()).replace(
            _SERVER, server.lower()
        ):
            raise TargetError("the service takes no such name")
        return service

    def _tried(self) -> Iterator[tuple[bool, str]]:
        """Yield what Apprise makes of the URL, with a plain name and with a mail address."""
        for user in (_USER, _ADDRESS) if self._template.takes_address else (_USER,):
            service = _service(self._template.filled(user, _SERVER))
            if len(service) != 1:
                raise TargetError("it has several recipients: give each a line of its own")
            found = _canonical(service)
            account = f"{service.host} {service.user} {service.password}"
            if user in account or _SERVER in account:
                raise TargetError("a name would choose its host, user or password")
            in_it = user in found or not self.is_personal
            if in_it and (_SERVER in found or not self._template.has_server):
                yield is_address(user), found.replace(user, _USER)


def _for_all(words: Words, user: str) -> Words:
    """Say whose server it is, in words that no service makes more of."""
    title = f"{printable(user)}: {words.title}"
    return Words(title.translate(_HARMLESS), words.body.translate(_HARMLESS))


def _service(url: str) -> "NotifyBase":
    """Make a service of Apprise that keeps nothing on disk and waits for nothing."""
    remarks.silence()
    try:
        from apprise import Apprise, AppriseAsset, PersistentStoreMode
    except ImportError:
        raise ConfigError(MISSING) from None
    asset = AppriseAsset(async_mode=False, storage_mode=PersistentStoreMode.MEMORY)
    service = Apprise.instantiate(url, asset=asset)
    if service is None:
        raise TargetError("Apprise cannot use this URL")
    service.request_rate_per_sec = 0
    service.socket_connect_timeout = min(service.socket_connect_timeout, _CONNECT)
    service.socket_read_timeout = min(service.socket_read_timeout, _READ)
    return service


def _canonical(service: "NotifyBase") -> str:
    """Return the URL that Apprise makes of what it has read."""
    return unquote(_url(service)).lower()


def _url(service: "NotifyBase", privacy: bool = False) -> str:
    return str(service.url(privacy=privacy))  # type: ignore[no-untyped-call]
