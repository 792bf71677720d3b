"""The only place that sends a query to a Prometheus, or to what speaks its HTTP API."""

from contextlib import closing

import requests
from requests.utils import default_headers
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from ..domain.settings import SpareQuerySettings
from ..domain.spare_query import QueryError, Series, read_answer
from ..hub.bounded import BoundedAdapter, read_whole
from ..hub.errors import HubError, unreachable
from ..hub.token import Token

# A hundred thousand series by user and server; more would fill the memory of a small pod.
_LARGEST_ANSWER = 16 << 20
_IF_LARGE = "make the query return fewer series, by user and server alone"
_HEADERS = {
    **default_headers(),
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    # Kept open until the next poll, a connection is closed by many a server or proxy just then.
    "Connection": "close",
}


class Prometheus:
    """A Prometheus; safe to use from many threads.

    No redirect is followed, no cookie kept, no proxy or .netrc of the environment used.

    Args:
        settings: its address, and how long it may take.
        token: the bearer token; None without one.
    """

    def __init__(self, settings: SpareQuerySettings, token: Token | None) -> None:
        self._url, self._seconds = settings.url, settings.timeout
        self._ca_file, self._token = settings.ca_file, token

    def ask(self, query: str) -> list[Series]:
        """Evaluate a query now (`POST /api/v1/query`); raise QueryError if it has no answer."""
        sent = self._token.bearer if self._token else None
        try:
            status, body = self._exchange(query, sent)
            if status in (401, 403) and self._token is not None and self._token.reread():
                status, body = self._exchange(query, self._token.bearer)
        except HubError as error:
            raise QueryError(str(error)) from None
        except (OSError, HTTPError) as error:
            failed = unreachable(error, self._url, self._seconds, "is it http://?")
            raise QueryError(str(failed)) from None
        try:
            return read_answer(status, body, self._token.mask if self._token else str)
        except QueryError as error:
            raise QueryError(f"{self._url}: {error}") from None

    def _exchange(self, query: str, authorization: str | None) -> tuple[int, bytes]:
        headers = _HEADERS if authorization is None else _HEADERS | {"Authorization": authorization}
        # Whole numbers: Prometheus takes no "0.5s".
        asked = {"query": query, "timeout": f"{self._seconds * 1000:.0f}ms"}
        where = f"{self._url}/api/v1/query"
        request = requests.Request("POST", where, headers=headers, data=asked).prepare()
        with (
            closing(BoundedAdapter()) as adapter,
            adapter.send(
                request,
                timeout=Timeout(self._seconds, self._seconds, self._seconds),  # type: ignore[arg-type]
                stream=True,
                verify=self._ca_file or True,
            ) as answer,
        ):
            body = read_whole(answer, self._url, _IF_LARGE, _LARGEST_ANSWER)
            return answer.status_code, body
