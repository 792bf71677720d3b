"""The series that a query reads are named: `check` asks how old each of them is."""

import pytest

from hub_idle_exporter.domain.promql import selectors


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("up", ["up"]),
        ("up > bool 0.1", ["up"]),
        ("{user='ana'}", ["{user='ana'}"]),
        ('cpu{user!="", pod=~"jupyter-.*"}', ['cpu{user!="", pod=~"jupyter-.*"}']),
        ("cpu { a='b' }", ["cpu{ a='b' }"]),
        ("job:cpu:rate5m", ["job:cpu:rate5m"]),
        ("rate(cpu[5m])", ["cpu"]),
        ("max_over_time(rate(cpu{a='b'}[5m])[10m:1m])", ["cpu{a='b'}"]),
        ("cpu offset 5m", ["cpu"]),
        ("cpu @ start() + cpu @ end()", ["cpu"]),
        ("cpu @ 1609746000", ["cpu"]),
        ("sum by (user, server) (cpu)", ["cpu"]),
        ("sum(cpu) by (user)", ["cpu"]),
        ("SUM BY (user) (cpu)", ["cpu"]),
        ("topk(3, cpu)", ["cpu"]),
        ("count_values('value', cpu)", ["cpu"]),
        ("cpu * on (pod) group_left (user) labels", ["cpu", "labels"]),
        ("a and b or c unless ignoring (x) d", ["a", "b", "c", "d"]),
        ("label_replace(cpu, 'user', '$1', 'pod', 'jupyter-(.*)')", ["cpu"]),
        ("timestamp(cpu) > time() - 120", ["cpu"]),
        ("1e3 + Inf - NaN + 0x1F", []),
        ("vector(0)", []),
        ("time()", []),
        ('"a string with a_name in it"', []),
        ("cpu # and a comment\n+ mem", ["cpu", "mem"]),
        ('cpu{path="/a}b"}', ['cpu{path="/a}b"}']),
        (r'cpu{path="a\"b"} + mem', [r'cpu{path="a\"b"}', "mem"]),
        ("cpu{path=`a\\`} + mem", ["cpu{path=`a\\`}", "mem"]),
        ("a / a + a{b='c'}", ["a", "a{b='c'}"]),
        ("by_user", ["by_user"]),
        ("sum_over_time(cpu[1h])", ["cpu"]),
        ("", []),
    ],
)
def test_each_series_is_named_once(query: str, found: list[str]) -> None:
    assert selectors(query) == found


@pytest.mark.parametrize(
    "broken", ["cpu{", "cpu{a='b", "((((", "[5m", "'", "\\", "}{", "a" * 10_000]
)
def test_a_broken_query_breaks_nothing(broken: str) -> None:
    assert isinstance(selectors(broken), list)
