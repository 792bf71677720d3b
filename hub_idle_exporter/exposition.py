"""How metrics are written: as text or OpenMetrics, compressed, and facts only once per poll."""

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_END = b"# EOF\n"  # of a text in the format OpenMetrics
# What there is. Of anything else clients could make up as many as they like.
_CONTENT_TYPE = re.compile(
    r"(text/plain|application/openmetrics-text); version=(0\.0\.4|1\.0\.0); charset=utf-8"
    r"(; escaping=(allow-utf-8|underscores|dots|values))?"
)
_MOST_FORMATS = 2  # kept rendered: text and OpenMetrics
_GZIP = 31  # zlib's number for a gzip stream
_GZIP_LEVEL = 6

Families = Callable[[], Iterable[Metric]]
Encoder = Callable[[Collector], bytes]


@dataclass(frozen=True)
class Exposition:
    """An answer to a scrape; `encoding` is `gzip` or empty."""

    content_type: str
    encoding: str
    body: bytes


class _Collected(Collector):
    """Families in the shape that the library's encoders take."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families()


def encoder_for(accept: str) -> tuple[Encoder, str]:
    """Choose text or OpenMetrics by an `Accept` header; return encoder and content type.

    Who asks for a version that does not exist gets plain text: the library would claim to speak it.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (ValueError, TypeError):  # it is no version at all
        return choose_encoder("")
    return (encode, content_type) if _CONTENT_TYPE.fullmatch(content_type) else choose_encoder("")


def encoded(encode: Encoder, families: Families) -> bytes:
    """Write families in a format."""
    return encode(_Collected(families))


class Text:
    """A text in one format, compressed at most once."""

    def __init__(self, plain: bytes) -> None:
        self._plain = plain

    @cached_property
    def _compressed(self) -> "tuple[bytes, zlib._Compress]":
        compressor = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)
        return compressor.compress(self._plain), compressor

    def followed_by(self, rest: bytes, compressed: bool) -> bytes:
        """Append what changes from scrape to scrape; the compressor is copied and continued."""
        if not compressed:
            return self._plain + rest
        begun, compressor = self._compressed
        compressor = compressor.copy()
        return begun + compressor.compress(rest) + compressor.flush()


class FactsText:
    """The facts of one poll as text, rendered once for each format.

    Only the first two are kept. `asked` are those that were scraped.
    """

    def __init__(self, families: Families, formats: Iterable[str] = ()) -> None:
        self.asked: dict[str, None] = {}
        self._families = families
        self._texts = {content_type: self._render(content_type) for content_type in formats}

    def text(self, content_type: str) -> Text:
        """Return the text in a format (MIME)."""
        text = self._texts.get(content_type) or self._render(content_type)
        if content_type not in self.asked and len(self.asked) < _MOST_FORMATS:
            self.asked[content_type] = None
            self._texts[content_type] = text
        return text

    def _render(self, content_type: str) -> Text:
        encode, _ = encoder_for(content_type)
        return Text(encoded(encode, self._families).removesuffix(_END))
