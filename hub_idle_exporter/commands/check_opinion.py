"""What `check` says about the second opinion: whom it knows, and how fresh it is."""

from collections.abc import Iterable, Sequence
from math import isnan, nan

from ..domain.policy import JudgedServer
from ..domain.poll_state import PollState
from ..domain.promql import selectors
from ..domain.settings import SpareQuerySettings
from ..domain.spare_query import Opinion, QueryError
from ..sidecar import prometheus_of
from .report import Report

_MOST_SHOWN = 10
_NOBODY = "no server whose policy uses the query would be stopped for being idle"
# A recipe's guard lets samples be so old; what is older speaks of the past.
_OLD_SECONDS = 120.0


def check_opinion(report: Report, settings: SpareQuerySettings | None, state: PollState) -> None:
    """Report what the spare query says of the servers that run."""
    opinion, snapshot = state.opinion, state.snapshot
    if settings is None or opinion is None or snapshot is None:
        return  # there is none, or it was not asked: the Hub could not be read
    if opinion.problem is not None:
        report.bad(f"--spare-query: {opinion.problem}; {_NOBODY}")
        return
    servers = [one for one in snapshot.census.named if one.policy.spare_query]
    if _names_users(report, opinion, servers):
        _servers(report, settings, opinion, servers)
        _judged_by_others(report, opinion, servers)
        _strangers(report, opinion, snapshot.census.named)
    _ages(report, settings)


def _names_users(report: Report, opinion: Opinion, servers: Sequence[JudgedServer]) -> bool:
    """Tell whether the answer can be about anybody; a query that gives no user never is."""
    if any(opinion.values):
        return True
    if opinion.values:
        report.bad(
            f"--spare-query: none of its series has a label `user`, so {_NOBODY}: see `A second "
            "opinion` in the documentation"
        )
    elif servers:
        report.bad(
            f"--spare-query has no series now, so {_NOBODY}: are the exporters behind it scraped, "
            "and is the name of the metric right?"
        )
    else:
        report.note("--spare-query has no series now, and no server runs that it could speak of")
    return False


def _servers(
    report: Report, settings: SpareQuerySettings, opinion: Opinion, servers: Sequence[JudgedServer]
) -> None:
    said = {one.key: opinion.value(*one.key) for one in servers}
    silent = [key for key, value in said.items() if value is None]
    idle = sum(value == 0 for value in said.values())
    in_use = len(said) - idle - len(silent)
    report.good(
        f"--spare-query is answered by {settings.url}; servers: {len(said)}, idle: {idle}, "
        f"in use: {in_use}, without a series: {len(silent)}"
    )
    if silent:
        report.warning(f"without a series, so never stopped for being idle: {_listed(silent)}")


def _judged_by_others(report: Report, opinion: Opinion, servers: Iterable[JudgedServer]) -> None:
    """Warn of named servers that nothing measures, where a query tells servers apart."""
    if not any(name for by_server in opinion.values.values() for name in by_server):
        return
    judged = [
        (user, server)
        for user, server in (one.key for one in servers)
        if server and "" in opinion.values.get(user, {}) and server not in opinion.values[user]
    ]
    if judged:
        report.warning(
            "without a series of their own, so judged by what is said of all servers of their "
            f"user: {_listed(judged)}"
        )


def _strangers(report: Report, opinion: Opinion, servers: Iterable[JudgedServer]) -> None:
    """Report series that are about nobody: a name may be escaped, or misspelled."""
    running = {one.key for one in servers}
    users = {user for user, _ in running}
    strange = [
        (user, server)
        for user, by_server in opinion.values.items()
        for server in by_server
        if (user not in users) or (server and (user, server) not in running)
    ]
    if strange:
        report.note(
            f"series of --spare-query that match no running server: {_listed(strange)} (names that "
            "are escaped or misspelled, or servers that are gone)"
        )


def _ages(report: Report, settings: SpareQuerySettings) -> None:
    """Report how old the newest sample is of each metric that the query reads."""
    prometheus = prometheus_of(settings)
    for selector in selectors(settings.query):
        try:
            found = prometheus.ask(f"time() - max(timestamp({selector}))")
        except QueryError as error:
            report.note(f"the age of {selector} is not known: {error}")
            continue
        age = found[0].value if found else nan
        if isnan(age):
            report.warning(f"there is no sample of {selector} now")
        else:
            say = report.good if abs(age) <= _OLD_SECONDS else report.warning
            say(f"the newest sample of {selector} is {age:.0f} s old")


def _listed(keys: Sequence[tuple[str, str]]) -> str:
    names = [f"{user}/{server}" if server else user or '""' for user, server in keys]
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
