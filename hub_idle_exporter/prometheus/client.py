"""The only place that sends a query to a Prometheus, or to what speaks its HTTP API."""

import requests
from requests.utils import default_headers
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

from ..domain.settings import SpareQuerySettings
from ..domain.spare_query import QueryError, Series, read_answer
from ..hub.bounded import BoundedAdapter, read_whole
from ..hub.errors import HubError, unreachable
from ..hub.token import Token

_HEADERS = {**default_headers(), "Accept": "application/json", "Accept-Encoding": "identity"}


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
        self._adapter = BoundedAdapter()

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
            raise QueryError(str(unreachable(error, self._url, self._seconds))) from None
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
        with self._adapter.send(
            request,
            timeout=Timeout(*[self._seconds] * 3),  # type: ignore[arg-type]
            stream=True,
            verify=self._ca_file or True,
        ) as answer:
            return answer.status_code, read_whole(answer, self._url, "let the query give less")
