"""Passwords against bcrypt hashes: slow for who guesses, quick for who scrapes again and again."""

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

import bcrypt

# A wrong password is answered after whole seconds: the time tells nothing about the hash.
WRONG_SECONDS = 1.0
# So many passwords are checked at once: of one address, and in all. The first one of an address is
# checked in any case, so that no number of others can keep it out.
MOST_PER_ADDRESS = 8
MOST = 64
_MOST_REMEMBERED = 100
_LONGEST = 72  # bytes: bcrypt takes no more into account


class Verdict(Enum):
    """What a check found."""

    RIGHT = "right"
    WRONG = "wrong"
    TOO_MANY = "too many attempts at once"
    GONE = "not checked: the client has hung up"


@dataclass
class _Attempts:
    """The passwords of one address that are being checked: how many, and whose turn it is."""

    number: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Passwords:
    """Checks passwords, one at a time, on a thread of its own; right ones are remembered."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._attempts: dict[str, _Attempts] = {}
        self._turn = asyncio.Lock()
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="web-password")
        self._checker.submit(int)  # starts it now: later there may be no thread to be had

    async def check(
        self,
        users: Mapping[str, str],
        user: str,
        password: bytes,
        address: str,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Verdict:
        """Check a password against the hash of a user; a wrong one takes longer.

        For a user who does not exist the hash that takes longest is computed, and none for a client
        who `is_gone` when it is their turn.
        """
        hashed = users.get(user) or max(users.values(), key=_cost)
        fingerprint = self._fingerprint(user, hashed, password)
        if user in users and fingerprint in self._right:
            self._right.move_to_end(fingerprint)
            return Verdict.RIGHT
        with self._attempt(address) as turn:
            if turn is None:
                return Verdict.TOO_MANY
            begun = time.monotonic()
            async with turn, self._turn:
                if is_gone():
                    return Verdict.GONE
                right = await self._matches(hashed, password) and user in users
            if not right:
                await asyncio.sleep(WRONG_SECONDS - (time.monotonic() - begun) % WRONG_SECONDS)
                return Verdict.WRONG
        self._remember(fingerprint)
        return Verdict.RIGHT

    @contextmanager
    def _attempt(self, address: str) -> Iterator[asyncio.Lock | None]:
        """Count an attempt while it lasts; give the turn of its address, None for too many."""
        attempts = self._attempts.get(address, _Attempts())
        too_many = sum(one.number for one in self._attempts.values()) >= MOST
        if attempts.number >= MOST_PER_ADDRESS or (attempts.number and too_many):
            yield None
            return
        attempts.number += 1
        self._attempts[address] = attempts
        try:
            yield attempts.turn
        finally:
            attempts.number -= 1
            if attempts.number == 0:
                del self._attempts[address]

    async def _matches(self, hashed: str, password: bytes) -> bool:
        loop = asyncio.get_running_loop()
        arguments = password[:_LONGEST], hashed.encode()
        return await loop.run_in_executor(self._checker, bcrypt.checkpw, *arguments)

    def _remember(self, fingerprint: bytes) -> None:
        self._right[fingerprint] = None
        if len(self._right) > _MOST_REMEMBERED:
            self._right.popitem(last=False)

    def _fingerprint(self, user: str, hashed: str, password: bytes) -> bytes:
        """Return what is kept instead of a password; nobody can compute it without our key."""
        parts = user.encode(errors="surrogateescape"), hashed.encode(), password
        told = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, told, "sha256")


def _cost(hashed: str) -> int:
    """Return what a hash costs to compute, as the power of two that it names."""
    return int(hashed.split("$")[2])
