"""`check` about the second opinion: whom it knows, whom it does not, and how fresh it is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import in_process
import pytest
from fake_hub import FakeHub, Fault, closed_port
from fake_prometheus import QUERY, FakePrometheus, answering, refusing

ASKED = 'max by (user, server) (busy{user!=""} > bool 0)'
TOKEN = "a-token-for-prometheus"


@dataclass
class Check:
    """Runs `check` and keeps what it said."""

    hub: FakeHub
    prometheus: FakePrometheus
    directory: Path
    code: int = -1
    text: str = ""

    def run(self, *arguments: str, url: str = "") -> "Check":
        asked = [f"--prometheus-url={url or self.prometheus.origin}", f"--spare-query={ASKED}"]
        command = ["check", *asked, *arguments]
        done = in_process.run(command, self.directory, self.hub.url, self.hub.token)
        assert done.err == ""
        self.code, self.text = done.code, done.out
        return self

    def said(self, kind: str, about: str) -> list[str]:
        """Give the sentences of a kind (ok, note, warning, PROBLEM) with a text in them."""
        lines = re.findall(rf"^{kind} +(.*)$", self.text, re.MULTILINE)
        return [line for line in lines if about in line]


@pytest.fixture
def check(fake_hub: FakeHub, tmp_path: Path) -> Iterator[Check]:
    """Ana's two servers, and bo's, all past their limit."""
    for user, server in (("ana", ""), ("ana", "lab"), ("bo", "")):
        fake_hub.add_server(user, server, idle=7200)
    with FakePrometheus() as prometheus:
        yield Check(fake_hub, prometheus, tmp_path)


def test_the_servers_are_counted_by_what_is_said_of_them(check: Check) -> None:
    check.prometheus.says("ana", 0)
    check.prometheus.says("ana", 0.4, server="lab")
    assert check.run().code == 0
    assert check.said("ok", "--spare-query") == [
        f"--spare-query is answered by {check.prometheus.origin}; servers: 3, idle: 1, in use: 1, "
        "without a series: 1"
    ]
    assert check.said("warning", "without a series") == [
        "without a series, so never stopped for being idle: bo"
    ]
    assert check.said("ok", "would be stopped")[0].startswith("1 would be stopped with --enforce")
    assert check.said("note", "spared") == [
        "spared by --spare-query: 2, see `hub-idle-exporter servers`"
    ]


def test_series_that_match_no_running_server_are_named(check: Check) -> None:
    for user, server in (("ana", ""), ("ana", "gpu"), ("ana-40example", ""), ("an", "lab")):
        check.prometheus.says(user, 0, server=server)
    assert check.run().code == 0
    (note,) = check.said("note", "match no running server")
    assert ": ana/gpu, ana-40example, an/lab (names that are escaped" in note


def test_only_some_of_many_are_named(check: Check) -> None:
    check.prometheus.says("ana", 0)
    for number in range(40):
        check.prometheus.says(f"stranger-{number:02}", 0)
    (note,) = check.run().said("note", "match no running server")
    assert "stranger-09 and 30 more (" in note
    assert "stranger-10" not in note


def test_a_named_server_that_is_judged_by_its_users_others_is_named(check: Check) -> None:
    """The query tells servers apart, and nothing measures this one."""
    check.prometheus.says("ana", 0)
    check.prometheus.says("bo", 0)
    assert check.run().said("warning", "of their own") == []
    check.prometheus.says("cleo", 1, server="gpu")
    assert check.run().said("warning", "of their own") == [
        "without a series of their own, so judged by what is said of all servers of their user: "
        "ana/lab"
    ]


def test_servers_of_policies_without_the_query_are_left_out(check: Check) -> None:
    policies = "policies: [{name: bo, match: {users: [bo]}, spare_query: false}]"
    (check.directory / "policies.yml").write_text(policies)
    check.prometheus.says("ana", 0)
    check.run("--policy-file=policies.yml")
    assert "servers: 2, idle: 2, in use: 0, without a series: 0" in check.text
    assert check.said("warning", "without a series") == []


def test_a_query_whose_series_have_no_user_is_refused(check: Check) -> None:
    check.prometheus.series.append(({"pod": "jupyter-ana"}, "0"))
    assert check.run().code == 1
    (problem,) = check.said("PROBLEM", "")
    assert problem.startswith("--spare-query: none of its series has a label `user`")


def test_an_empty_answer_is_a_problem_while_servers_run(check: Check) -> None:
    assert check.run().code == 1
    (problem,) = check.said("PROBLEM", "")
    assert problem.startswith("--spare-query has no series now, so no server whose policy")
    assert check.said("ok", "is answered by") == []


def test_an_empty_answer_is_none_while_no_server_runs(check: Check) -> None:
    check.hub.users.clear()
    assert check.run().code == 0
    assert check.said("note", "no series now")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refusing(400, "parse error"), "HTTP 400: parse error"),
        (answering([1, "0"], "scalar"), "the query returns a scalar, not a vector"),
        (answering([], warnings=["a store is missing"]), "it warns: a store is missing"),
    ],
)
def test_a_query_that_fails_is_a_problem(check: Check, fault: Fault, said: str) -> None:
    check.prometheus.plan("POST", QUERY, fault)
    assert check.run().code == 1
    assert check.said("PROBLEM", "") == [
        f"--spare-query: {check.prometheus.origin}: {said}; no server whose policy uses the query "
        "would be stopped for being idle"
    ]
    assert "0 would be stopped with --enforce" in check.text


def test_a_prometheus_that_is_not_there_is_a_problem(check: Check) -> None:
    with closed_port() as port:
        assert check.run(url=f"http://127.0.0.1:{port}").code == 1
    (problem,) = check.said("PROBLEM", "--spare-query: ")
    assert "Connection refused" in problem


@pytest.mark.parametrize(("age", "kind"), [(9, "ok"), (120, "ok"), (121, "warning")])
def test_the_age_of_the_newest_sample_is_told(check: Check, age: int, kind: str) -> None:
    check.prometheus.says("ana", 0)
    found = answering([{"metric": {}, "value": [1, str(age)]}])
    check.prometheus.plan("POST", QUERY, found, after=1)
    assert check.run().code == 0
    told = f'the newest sample of busy{{user!=""}} is {age} s old'
    assert check.said(kind, "newest sample") == [told]
    assert check.prometheus.asked()[1:] == ['time() - max(timestamp(busy{user!=""}))']


def test_a_metric_without_a_sample_is_a_warning(check: Check) -> None:
    check.prometheus.says("ana", 0)
    check.prometheus.plan("POST", QUERY, answering([]), after=1)
    check.run()
    assert check.said("warning", "no sample") == ['there is no sample of busy{user!=""} now']


def test_an_age_that_is_refused_is_told_and_no_problem(check: Check) -> None:
    check.prometheus.says("ana", 0)
    check.prometheus.plan("POST", QUERY, refusing(422, "too many samples"), after=1)
    assert check.run().code == 0
    (note,) = check.said("note", "age")
    assert note.endswith("HTTP 422: too many samples")


def test_the_token_for_prometheus_is_sent_and_never_shown(check: Check) -> None:
    file = check.directory / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    check.prometheus.plan("POST", QUERY, refusing(403, f"no {TOKEN} here"))
    check.run(f"--prometheus-token-file={file}")
    assert {one.token for one in check.prometheus.log("POST", QUERY)} == {TOKEN}
    assert TOKEN not in check.text
    assert check.said("PROBLEM", "HTTP 403")


def test_a_hostile_name_stays_on_its_line(check: Check) -> None:
    check.prometheus.says("evil\nok       all is well\x1b[2J", 0)
    check.run()
    assert "\x1b" not in check.text
    assert check.said("ok", "all is well") == []
