"""What the answers of a Prometheus say of servers, as tables: only a 0 of its own lets one go."""

import json
from math import inf, isnan, nan
from typing import Any

import pytest

from hub_idle_exporter.domain.labels import Withheld
from hub_idle_exporter.domain.spare_query import Opinion, QueryError, Series, read_answer

IN_USE, QUERY_FAILED = Withheld.IN_USE, Withheld.QUERY_FAILED
Labels = dict[str, str]
ANA: Labels = {"user": "ana"}
ODD_LABELS: list[Any] = [None, [], "ana", {"user": 1}, {"user": None}, {"user": ["ana"]}]


def sample(value: Any, labels: Any = ANA, **more: Any) -> dict[str, Any]:
    return {"metric": labels, "value": [1_800_000_000.123, value], **more}


def body(result: Any, kind: Any = "vector", **more: Any) -> bytes:
    answer = {"status": "success", "data": {"resultType": kind, "result": result}}
    return json.dumps(answer | more).encode()


def problem(answer: bytes, status: int = 200) -> str:
    with pytest.raises(QueryError) as caught:
        read_answer(status, answer)
    return str(caught.value)


def opinion(*said: tuple[Labels, float]) -> Opinion:
    return Opinion.of("q", 0.0, [Series(labels, value) for labels, value in said])


def cause(given: Opinion, user: str = "ana", server: str = "") -> Withheld | None:
    spared = given.spares(user, server)
    return None if spared is None else spared.cause


# ---- answers that can be used -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0", 0.0), ("-0", 0.0), ("+0", 0.0), ("0.000", 0.0), (".0", 0.0), ("0.", 0.0)),
        *(("0e7", 0.0), ("0E-300", 0.0), ("1", 1.0), ("-1.5", -1.5), ("4.9e-324", 4.9e-324)),
        *(("1e308", 1e308), ("1e999", inf), ("9" * 5000, inf)),
        *(("+Inf", inf), ("-Inf", -inf), ("Infinity", inf)),
    ],
)
def test_a_value_is_the_number_that_is_written(text: str, value: float) -> None:
    assert read_answer(200, body([sample(text)])) == [(ANA, value)]


@pytest.mark.parametrize("text", ["NaN", "nan", "-nan"])
def test_a_value_that_is_no_number_is_none(text: str) -> None:
    ((_, value),) = read_answer(200, body([sample(text)]))
    assert isnan(value)


@pytest.mark.parametrize(
    "text", ["1e-400", "-3e-99999", "0.0" + "0" * 400 + "1", "0_0", "\u0660", " 0"]
)
def test_only_what_is_written_as_0_is_0(text: str) -> None:
    """Python reads all of these as 0, and a server would be stopped."""
    ((_, value),) = read_answer(200, body([sample(text)]))
    assert isnan(value)


@pytest.mark.parametrize(
    "given",
    [
        {"metric": ANA},
        {"metric": ANA, "value": None},
        {"metric": ANA, "histogram": [1, {"count": "0", "sum": "0"}]},
    ],
)
def test_a_histogram_is_no_number(given: dict[str, Any]) -> None:
    ((_, value),) = read_answer(200, body([given]))
    assert isnan(value)


def test_an_empty_vector_is_an_answer() -> None:
    assert read_answer(200, body([])) == []


def test_a_series_without_any_label_is_read() -> None:
    assert read_answer(200, body([sample("0", {})])) == [({}, 0.0)]


@pytest.mark.parametrize(
    "more",
    [
        {"infos": ["metric might not be a counter"]},
        {"warnings": ["PromQL info: metric might not be a counter"]},  # of Prometheus 2.53
        {"warnings": []},
        {"warnings": None},
        {"isPartial": False},
        {"stats": {"seriesFetched": "1"}, "surprise": [1]},
    ],
)
def test_what_is_no_warning_does_no_harm(more: dict[str, Any]) -> None:
    assert read_answer(200, body([sample("0")], **more)) == [(ANA, 0.0)]


def test_thousands_of_series_are_read_in_their_order() -> None:
    given = [sample(f"{number}", {"user": f"user-{number}"}) for number in range(5000)]
    found = read_answer(200, body(given))
    assert [value for _, value in found] == [float(number) for number in range(5000)]


# ---- answers that cannot ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("scalar", [1, "0"]),
        ("string", [1, "0"]),
        ("matrix", [{"metric": ANA, "values": [[1, "0"]]}]),
        ("Vector", [sample("0")]),
        ("", [sample("0")]),
        ("streams", [sample("0")]),
    ],
)
def test_what_is_no_vector_is_no_answer(kind: str, result: Any) -> None:
    assert problem(body(result, kind)) == f"the query returns a {kind}, not a vector"


def test_a_warning_is_no_answer() -> None:
    said = problem(body([sample("0")], warnings=["no store matched", "and\nmore"]))
    assert said == "it warns: no store matched; and\\nmore"


def test_a_partial_answer_is_none() -> None:
    """VictoriaMetrics gives what it has when a part of its storage is away, without a warning."""
    assert "partial" in problem(body([sample("0")], isPartial=True))


@pytest.mark.parametrize("status", [201, 204, 206, 307, 400, 401, 403, 404, 422, 500, 503])
def test_any_status_but_200_is_no_answer(status: int) -> None:
    assert problem(body([sample("0")]), status) == f"HTTP {status}: success"


@pytest.mark.parametrize("status", [200, 400, 503])
def test_an_error_is_said(status: int) -> None:
    answer = {"status": "error", "errorType": "bad_data", "error": "1:6: parse\terror"}
    assert problem(json.dumps(answer).encode(), status) == f"HTTP {status}: 1:6: parse\\terror"


def test_an_error_with_series_is_an_error() -> None:
    assert problem(body([sample("0")], status="error")) == "HTTP 200: error"


@pytest.mark.parametrize("data", [None, {}, [], "", {"resultType": "vector"}, {"result": []}])
def test_without_a_result_there_is_no_answer(data: Any) -> None:
    assert problem(json.dumps({"status": "success", "data": data}).encode())


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"null", b"[]", b'"OK"', b"0", b"<html>", b"{", b"\xff\xfe", b"OK"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"data":{}}', b'{"status":1,"data":null}'),
        body([sample("0")]) + b"x",
        body([sample("0")])[:-1],
        body([sample("0")], warnings="partial"),
        body([sample("0")], warnings=[1]),
        body([sample("0")], isPartial="yes"),
        body([sample("0")], error=["no"]),
        body([sample("0")], 1),
    ],
)
def test_what_a_prometheus_does_not_send_is_no_answer(answer: bytes) -> None:
    assert problem(answer) == "HTTP 200, and not the answer of a Prometheus"


@pytest.mark.parametrize(
    "result",
    [
        *({}, "0", 0, None, [None], ["0"], [[1, "0"]], [{}], [{"value": [1, "0"]}]),
        *([sample("0", labels)] for labels in ODD_LABELS),
        *(
            [{"metric": ANA, "value": value}]
            for value in ([], [1], ["1", "0"], [1, "0", 2], "0", {"0": "0"}, [None, "0"])
        ),
        [sample("0"), sample("idle", {"user": "bo"})],
    ],
)
def test_a_vector_with_anything_odd_in_it_is_no_answer(result: Any) -> None:
    """Nobody knows whose series the odd one would have been."""
    assert problem(body(result)) == "its vector cannot be read"


@pytest.mark.parametrize("value", [0, None, True, "", "idle", "0x0", "1,0", "0 0", [], {}])
def test_a_value_that_is_no_text_of_a_number_is_no_answer(value: Any) -> None:
    assert problem(body([sample(value)])) == "its vector cannot be read"


def test_deeply_nested_series_are_no_answer() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    answer = b'{"status":"success","data":{"resultType":"vector","result":' + deep + b"}}"
    assert problem(answer)


def test_what_is_quoted_is_masked_and_then_cut() -> None:
    """The other way round half of a token would be left at the cut."""
    error = {"status": "error", "error": "x" * 295 + "s3cret-token" + "y" * 300}
    with pytest.raises(QueryError) as caught:
        read_answer(401, json.dumps(error).encode(), lambda text: text.replace("s3cret-token", "*"))
    assert str(caught.value) == "HTTP 401: " + "x" * 295 + "*" + "y" * 4


# ---- what an answer says of a server ------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, 0.5, -1.0, 5e-324, 1e308, inf, -inf, nan])
def test_a_series_that_is_not_0_spares(value: float) -> None:
    assert cause(opinion((ANA, value))) is IN_USE


@pytest.mark.parametrize("value", [nan, -1.0, 1.0])
def test_why_it_is_spared_names_the_value(value: float) -> None:
    spared = opinion((ANA, value)).spares("ana", "")
    assert spared is not None
    assert spared.why == f"Prometheus says {value:g} for it"


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_a_series_that_is_0_does_not_spare(value: float) -> None:
    assert cause(opinion((ANA, value))) is None


@pytest.mark.parametrize(
    "labels",
    [{"user": "bo"}, {"user": "Ana"}, {"user": "ana "}, {"user": ""}, {}, {"User": "ana"}],
)
def test_a_server_without_a_series_is_spared(labels: Labels) -> None:
    given = opinion((labels, 0.0))
    assert (given.value("ana", ""), cause(given)) == (None, IN_USE)
    assert cause(opinion()) is IN_USE


def test_a_user_without_a_name_has_no_series() -> None:
    """Series without the label `user` would be theirs."""
    assert cause(opinion(({}, 0.0), ({"user": ""}, 0.0)), user="") is IN_USE


@pytest.mark.parametrize("labels", [ANA, ANA | {"server": ""}])
@pytest.mark.parametrize("server", ["", "lab"])
@pytest.mark.parametrize(("value", "spares"), [(0.0, None), (1.0, IN_USE), (nan, IN_USE)])
def test_a_series_without_server_speaks_for_all_of_its_user(
    labels: Labels, server: str, value: float, spares: Withheld | None
) -> None:
    assert cause(opinion((labels, value)), server=server) is spares


def test_a_series_with_a_server_speaks_for_no_other() -> None:
    given = opinion((ANA | {"server": "lab"}, 0.0), ({"user": "bo", "server": "gpu"}, 0.0))
    assert cause(given, server="lab") is None
    assert cause(given, server="gpu") is IN_USE
    assert cause(given, server="") is IN_USE


@pytest.mark.parametrize(
    ("of_all", "of_it", "spares"),
    [
        *((0.0, 0.0, None), (0.0, 1.0, IN_USE), (1.0, 0.0, IN_USE), (1.0, 1.0, IN_USE)),
        *((nan, 0.0, IN_USE), (0.0, nan, IN_USE), (-1.0, 0.0, IN_USE), (0.0, -1.0, IN_USE)),
    ],
)
def test_where_both_speak_of_a_server_both_must_say_0(
    of_all: float, of_it: float, spares: Withheld | None
) -> None:
    both = [(ANA, of_all), (ANA | {"server": "lab"}, of_it)]
    assert cause(opinion(*both), server="lab") is spares
    assert cause(opinion(*reversed(both)), server="lab") is spares


@pytest.mark.parametrize(
    ("values", "counts"), [((0, 0), 0.0), ((0, 2), 2.0), ((2, 0), 2.0), ((0, 0, -1, 3), -1.0)]
)
def test_of_many_series_of_a_server_any_that_is_not_0_counts(
    values: tuple[float, ...], counts: float
) -> None:
    said = [(ANA | {"container": f"{number}"}, value) for number, value in enumerate(values)]
    assert opinion(*said).value("ana", "") == counts


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_usable_answer_everybody_is_spared(value: float) -> None:
    failed = Opinion("q", values={"ana": {"": [value]}}, problem="HTTP 503: no")
    spared = failed.spares("ana", "")
    assert spared == (QUERY_FAILED, "Prometheus gave no usable answer: HTTP 503: no")
    assert cause(failed, "bo", "lab") is QUERY_FAILED
