"""The series that a PromQL query reads: just enough of the language to name them. Pure.

Source: Prometheus documentation, "Querying basics" and "Operators".
"""

import re

_STRING = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
_TOKEN = re.compile(
    rf"""
    (?P<skip> {_STRING} | \#[^\n]* | \[[^\]]*\] | [0-9][\w.]*
        | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\) )
    | (?P<name> [A-Za-z_:][\w:]*)? \s* (?P<matchers> \{{ (?:{_STRING}|[^{{}}"'`])* \}} )
    | (?P<word> [A-Za-z_:][\w:]*) (?P<call> \s*\( )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OPERATORS = {"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan", "start", "end"}
_GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_AGGREGATIONS = {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values"}
_CHOICES = {"bottomk", "topk", "quantile", "limitk", "limit_ratio"}
_KEYWORDS = _OPERATORS | _GROUPINGS | _AGGREGATIONS | _CHOICES


def selectors(query: str) -> list[str]:
    """Name the series that a query reads, each once, in order, without ranges and offsets."""
    found = dict[str, None]()
    for token in _TOKEN.finditer(query):
        if token["matchers"]:
            found[f"{token['name'] or ''}{token['matchers']}"] = None
        elif token["word"] and not token["call"] and token["word"].lower() not in _KEYWORDS:
            found[token["word"]] = None
    return list(found)
