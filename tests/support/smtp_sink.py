"""A real mail server that keeps what it takes.

with SmtpSink() as sink:
    ... f"mailto://{sink.address}/?from=hub@example.org&to=ada@example.org"
    sink.wait_for(1)[0].subject
"""

import asyncio
import email
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from email.policy import default
from functools import partial
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has it from 3.11 on

PATIENCE = 30.0


@dataclass(frozen=True)
class Mail:
    """A mail as it was taken, `at` that time (seconds since 1970)."""

    sender: str
    recipients: list[str]
    message: Message
    at: float = field(default_factory=time.time)

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        """Give the content; a mail of several parts has none."""
        payload = self.message.get_payload(decode=True)
        assert isinstance(payload, bytes), self.message.as_string()
        return payload.decode().replace("\r\n", "\n").strip()


class SmtpSink:
    """A mail server on a free port, or on the one that is given.

    With an `account` it takes mail only from who signs in, with `tls` only after STARTTLS.
    `refuses` tells for a recipient whether it is refused for now, by the answer `refusal`. While
    `answers` is not set, a mail that was taken is not answered.
    """

    def __init__(
        self,
        port: int = 0,
        account: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._account, self._tls = account, tls
        self.mails: list[Mail] = []
        self.asked: list[str] = []
        self.refusal = "550 no such mailbox"
        self.answers = threading.Event()
        self.answers.set()
        self.refuses: Callable[[str], bool] = lambda _recipient: False
        self._wanted, self._arrived = port, threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Self":
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_raised: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_for(self, count: int) -> list[Mail]:
        """Wait until so many mails have arrived; give them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.mails) >= count, PATIENCE), self.mails
            return list(self.mails)

    def wait_asked(self, count: int) -> None:
        """Wait until so many recipients were named."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.asked) >= count, PATIENCE), self.asked

    async def _listen(self) -> asyncio.Server:
        session: Any = partial(
            SMTP,
            self,
            hostname="sink.example.org",
            loop=self._loop,
            auth_required=self._account is not None,
            auth_require_tls=False,
            authenticator=self._signs_in,
            tls_context=self._tls,
            require_starttls=self._tls is not None,
        )
        return await self._loop.create_server(session, "127.0.0.1", self._wanted)

    def _signs_in(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: Any
    ) -> AuthResult:
        account = (given.login.decode(), given.password.decode())
        return AuthResult(success=account == self._account, handled=False)

    async def _close(self) -> None:
        self._server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    async def handle_RCPT(  # noqa: N802 - its name in aiosmtpd
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        with self._arrived:
            self.asked.append(address)
            self._arrived.notify_all()
        if self.refuses(address):
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=default)
        with self._arrived:
            self.mails.append(Mail(str(envelope.mail_from), list(envelope.rcpt_tos), message))
            self._arrived.notify_all()
        while not self.answers.is_set():
            await asyncio.sleep(0.02)
        return "250 taken"
