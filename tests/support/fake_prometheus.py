"""A fake Prometheus over real HTTP: it answers the series that a test gives it.

with FakePrometheus() as prometheus:
    prometheus.says("ana", 0)
    prometheus.says("bo", 0.4, server="lab")
    prometheus.plan("POST", QUERY, answering(result_type="scalar", result=[1, "0"]), times=1)
"""

from typing import Any
from urllib.parse import parse_qs

from fake_hub import Fault, HttpFake, Reply, Request, always, reply

QUERY = "/api/v1/query"


class FakePrometheus(HttpFake):
    """Answers each query with the same series, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.series: list[tuple[dict[str, str], str]] = []

    def says(self, user: str, value: object, server: str = "", **labels: str) -> None:
        """Give one more series."""
        found = {"user": user, "server": server, **labels}
        self.series.append(({k: v for k, v in found.items() if v}, str(value)))

    def asked(self) -> list[str]:
        """Return the queries so far."""
        return [parse_qs(one.body.decode())["query"][0] for one in self.log("POST", QUERY)]

    def answer(self, request: Request) -> Reply:
        assert (request.method, request.path) == ("POST", QUERY)
        return answered([{"metric": m, "value": [self.now(), v]} for m, v in self.series])


def answered(result: object, result_type: str = "vector", **more: Any) -> Reply:
    """Build an answer of 200."""
    data = {"resultType": result_type, "result": result}
    return reply(200, {"status": "success", "data": data, **more})


def answering(result: object, result_type: str = "vector", **more: Any) -> Fault:
    """Answer this, whatever was asked."""
    return always(answered(result, result_type, **more))


def refusing(status: int, error: str = "no") -> Fault:
    """Refuse with a status and an error, as Prometheus does."""
    return always(reply(status, {"status": "error", "errorType": "bad_data", "error": error}))
