"""What is secret in the URL of a service."""

import re
from collections.abc import Collection
from urllib.parse import quote, unquote

# Shorter ones cannot be told from words: masking them would make the log unreadable.
_SHORTEST = 4
_LIKE_A_TOKEN = re.compile("(?=.*[0-9]).{8,}|.{20,}")


def of(text: str, whole: str, private: str) -> set[str]:
    """Return what must not be shown of a URL.

    Args:
        text: the URL as written.
        whole: the URL as Apprise reads it.
        private: the same with what Apprise itself takes for a secret masked.
    """
    hidden = _words(whole) - _words(private)
    found = {text, whole} | {one for one in hidden if len(one) >= _SHORTEST}
    found |= {one for one in _path_and_values(text) if _LIKE_A_TOKEN.fullmatch(one)}
    return found | {unquote(one) for one in found} | {quote(unquote(one), safe="") for one in found}


def mask(text: str, secrets: Collection[str]) -> str:
    """Mask them in a text, the longest first: one may contain another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _words(url: str) -> set[str]:
    return set(filter(None, re.split("[/:?&=@,;]+", url)))


def _path_and_values(text: str) -> set[str]:
    """Return the parts in which a webhook has its token; those with a name in them are none."""
    _, _, rest = text.partition("://")
    before, _, query = rest.partition("?")
    values = [pair.partition("=")[2] for pair in query.split("&")]
    return {one for one in before.split("/")[1:] + values if "{" not in one}
