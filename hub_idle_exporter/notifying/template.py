"""Where the name of a user or a server may stand in an Apprise URL, and which names may.

Quoting a name is not enough: Apprise decodes the URL, then splits what it found at commas, spaces
and more, and looks for mail addresses in it. With Apprise 2.3.0 the user `mallory@evil.org` in
`?to={user}@example.org` is mailed at evil.org, and the user `b'carol` is mailed as carol.
"""

import re
from collections.abc import Iterator
from urllib.parse import quote

# A default server has no name; and where no recipient is left, Apprise may take one of its own.
DEFAULT_SERVER = "default"

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# `+` only here: mail to bob+x is bob's, so `+` in a name before `@example.org` would reach others.
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_BRACES = re.compile(r"\{[^{}]*\}|[{}]")
_PLACES = ("{user}", "{server}")
_AROUND = "(?:[A-Za-z0-9._~@-]|%40)*"
_PART = re.compile(rf"{_AROUND}\{{(?:user|server)\}}{_AROUND}")
_KEY = re.compile("to|:.+")
_COPIES = ("cc", "bcc")


class TargetError(ValueError):
    """A URL that cannot be used, or not for a name; `str()` says why, and never shows the URL."""


class Template:
    """A URL in which names are put; raises TargetError if that is not safe."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.is_personal, self.has_server = "{user}" in text, "{server}" in text
        for place in _BRACES.findall(text):
            if place not in _PLACES:
                raise TargetError("only {user} and {server} can be replaced: quote other braces")
        parts = list(_parts(text))
        for part, may_have_a_name in parts:
            if "{" in part and not (may_have_a_name and _PART.fullmatch(part)):
                raise TargetError(
                    "{user} and {server} may stand only in the path, in to= or in a field :key=, "
                    "one in each part, with letters, digits, - . _ ~ @ around it"
                )
        # A mail address is taken only as a whole: after it, anything would change the recipient.
        mentions = [part for part, _ in parts if "{user}" in part]
        self.takes_address = self.is_personal and set(mentions) == {"{user}"}

    def filled(self, user: str, server: str) -> str:
        """Return the URL with names in it; raise TargetError if one is not safe there."""
        taken = _PLAIN.fullmatch(user) or (self.takes_address and _ADDRESS.fullmatch(user))
        if self.is_personal and not taken:
            raise TargetError(_refusal("user"))
        if self.has_server and not _PLAIN.fullmatch(server or DEFAULT_SERVER):
            raise TargetError(_refusal("server"))
        return self.text.replace("{user}", quote(user, safe="")).replace(
            "{server}", server or DEFAULT_SERVER
        )


def is_address(name: str) -> bool:
    """Tell whether a name that can be put in is a mail address."""
    return "@" in name


def _refusal(whose: str) -> str:
    allowed = "letters, digits, - . _ are allowed, in a {user} that stands alone also an address"
    return f"the name of the {whose} has characters that a URL cannot hold safely: {allowed}"


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Split a URL; tell of each part whether a name may stand there.

    A name must never choose the service, the host, the account or the password.
    """
    found = re.fullmatch("([^:/?]*://[^/?]*)([^?]*)[?]?(.*)", text)
    if found is None:
        raise TargetError("it is not a URL")
    authority, path, query = found.groups()
    yield authority, False
    for segment in path.split("/"):
        yield segment, True
    for pair in re.split("[&;]", query):
        key, _, value = pair.partition("=")
        if key.lower() in _COPIES:
            raise TargetError("cc and bcc are not possible: give each recipient a line of its own")
        yield key, False
        yield value, _KEY.fullmatch(key) is not None
