"""The recipes of docs/second-opinion.md, evaluated by a real Prometheus over series of true shape.

Each query is read from the page, and its answer by the exporter's own code: what is compared is
what the exporter would take as the value of each server. 0: it may be stopped.
"""

import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import exported_series as exported
import in_process
import pytest
import requests
import yaml
from conftest import tool_or_skip
from documentation import block, blocks, text
from exported_series import Said
from fake_hub import FakeHub, HttpFake, Reply, Request, reply
from process_exporter import ProcessExporter
from prometheus_history import STEP, History, remember
from prometheus_process import PrometheusServer, Scraped
from server_process import wait_until
from traitlets.config import Config

from hub_idle_exporter.domain.promql import selectors
from hub_idle_exporter.domain.spare_query import Opinion, Series, read_answer

PAGE = "docs/second-opinion.md"
DEAD = 135  # seconds after the last sample: 15 more than the guard allows
World = Callable[[History], None]
WORLDS: list[World] = [
    exported.kubernetes, exported.docker, exported.units, exported.process_units,
    exported.accounts, exported.arguments, exported.resource_usage,
]  # fmt: skip


def recipe(heading: str, number: int = 0) -> str:
    """Give a query below a heading of the page."""
    part = re.split(rf"^#+ {re.escape(heading)}$", text(PAGE), flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", part, maxsplit=1, flags=re.MULTILINE)[0]
    found: list[str] = re.findall(r"^```promql\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return found[number]


def filled(form: str, first: str, second: str = "") -> str:
    return form.replace("FIRST", f"({first})").replace("SECOND", f"({second})")


BY_CPU = recipe("Kubernetes: CPU of pods")
BY_GPU = recipe("Kubernetes: NVIDIA GPUs")
BY_CONTAINER = recipe("Docker")
BY_ARGUMENTS = recipe("One account for all")
BY_ACCOUNT = recipe("Accounts on one machine")
EITHER, BOTH = (recipe("Combine two recipes", number) for number in (0, 1))
ALL_UP = recipe("Several targets")
LOOKS_BACK = recipe("The whole limit after the work")


@dataclass(frozen=True)
class Case:
    """A query, about which servers, and what it is to say of each."""

    query: str
    world: World
    said: Said


RECIPES = {
    "CPU of pods": Case(BY_CPU, exported.kubernetes, exported.KUBERNETES),
    "CPU of pods, by labels": Case(
        recipe("With labels instead of annotations"), exported.kubernetes, exported.BY_LABELS
    ),
    "CPU or network": Case(
        recipe("Kubernetes: CPU or network"), exported.kubernetes, exported.WITH_NETWORK
    ),
    "GPU": Case(BY_GPU, exported.kubernetes, exported.GPU),
    "GPU, honor_labels": Case(BY_GPU.replace("exported_", ""), exported.kubernetes, exported.GPU),
    "Docker": Case(BY_CONTAINER, exported.docker, exported.DOCKER),
    "units, cAdvisor": Case(
        recipe("systemd and The Littlest JupyterHub"), exported.units, exported.UNITS
    ),
    "units, process-exporter": Case(
        recipe("systemd and The Littlest JupyterHub", 1),
        exported.process_units,
        exported.PROCESS_UNITS,
    ),
    "accounts": Case(BY_ACCOUNT, exported.accounts, exported.ACCOUNTS),
    "one account": Case(BY_ARGUMENTS, exported.arguments, exported.ARGUMENTS),
    "jupyter-resource-usage": Case(
        recipe("jupyter-resource-usage"), exported.resource_usage, exported.ARGUMENTS
    ),
}
COMBINED = {
    "CPU or GPU": Case(
        filled(EITHER, BY_CPU, BY_GPU), exported.kubernetes, exported.CPU_OR_GPU
    ),
    "CPU and GPU": Case(
        filled(BOTH, BY_CPU, BY_GPU), exported.kubernetes, dict.fromkeys(exported.KUBERNETES)
        | {("kim", ""): 1, ("lea", ""): 0, ("max", ""): 1},
    ),
    "a target is down": Case(
        filled(ALL_UP, BY_CONTAINER), exported.docker, dict.fromkeys(exported.DOCKER)
    ),
    "looks back": Case(
        filled(LOOKS_BACK, BY_ACCOUNT).replace("[1h:", "[10m:"), exported.accounts,
        exported.ACCOUNTS | {("fay", ""): 1},
    ),
    "all targets are up": Case(
        filled(ALL_UP, BY_CONTAINER).replace("== 0", "== 2"), exported.docker, exported.DOCKER
    ),
}  # fmt: skip
EVERY = RECIPES | COMBINED


# What is scraped: users' servers with jupyter-resource-usage.
USERS_SERVERS = [("ana@example.com", ""), ("Ünïcode", ""), ("a-b", "gpu box")]


class Usage(HttpFake):
    """These servers, at their paths; the one with a name is at work."""

    def answer(self, request: Request) -> Reply:
        path = unquote(request.path).removesuffix("/metrics")
        if path not in {f"/user/{user}/{name}".rstrip("/") for user, name in USERS_SERVERS}:
            return reply(404)
        percent = 80 if path.endswith("/gpu box") else 0.4
        measured = f"total_cpu_usage {percent}\nmax_cpu_usage 200\n"
        return reply(200, measured, Content_Type="text/plain; version=0.0.4")

    def pods(self) -> list[dict[str, Any]]:
        """Give what a Prometheus finds of the pods on Kubernetes: these, and the Hub's."""
        meta = "__meta_kubernetes_pod_"
        shared = {f"{meta}phase": "Running", f"{meta}container_port_name": "notebook-port"}
        found = [{f"{meta}label_component": "hub", **shared}]
        for user, server in USERS_SERVERS:
            whose = {"username": user} | ({"servername": server} if server else {})
            names = {f"{meta}annotation_hub_jupyter_org_{key}": name for key, name in whose.items()}
            found.append({f"{meta}label_component": "singleuser-server", **shared, **names})
        address = self.origin.removeprefix("http://")
        return [{"targets": [address], "labels": labels} for labels in found]

    def job(self) -> dict[str, Scraped]:
        """Give the scrape job of the page; the Kubernetes API is not there to find the pods."""
        (job,) = yaml.safe_load(block(PAGE, "job_name: jupyter-servers", "yaml"))["scrape_configs"]
        assert job.pop("kubernetes_sd_configs")
        return {job.pop("job_name"): Scraped("", more={**job, "static_configs": self.pods()})}


class Remembering(PrometheusServer):
    """A Prometheus with the past of all worlds, half an hour apart, and one of just now."""

    def __init__(self, program: str, promtool: str, directory: Path, usage: Usage) -> None:
        start = int(time.time()) // STEP * STEP
        self.worlds = {world: start - 1800 * (n + 1) for n, world in enumerate(WORLDS)}
        histories = [History(at) for at in sorted(self.worlds.values())]
        for world, history in zip(reversed(WORLDS), histories, strict=True):
            world(history)
        directory.mkdir(parents=True, exist_ok=True)
        remember(promtool, directory / "data", *histories, machine_now(start))
        super().__init__(program, directory, usage.job())

    def opinion(self, query: str, world: World, later: int = 0) -> Opinion:
        """Ask as the exporter does, at the end of what is remembered of a world, or later."""
        return Opinion.of(query, 0.0, self.series(query, self.worlds[world] + later))

    def series(self, query: str, at: float | None = None) -> list[Series]:
        """Evaluate a query at a moment, or now."""
        asked = {"query": query} | ({"time": str(at)} if at is not None else {})
        response = requests.post(f"{self.url}/api/v1/query", asked, timeout=30)
        return read_answer(response.status_code, response.content)


def machine_now(start: int) -> History:
    """A machine with accounts, as it is now; one exporter has not been read for a while."""
    history = History(start)
    exported.processes(history, "ana")
    exported.processes(history, "bob", exported.BUSY)
    exported.processes(history, "root", exported.BUSY)
    history.gauge("gpu_jobs", {"user": "ana"}, 0, until=-150)
    return history


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remembering]:
    programs = tool_or_skip("prometheus"), tool_or_skip("promtool")
    directory = tmp_path_factory.mktemp("recipes")
    with Usage() as usage, Remembering(*programs, directory, usage) as server:
        yield server


def values(opinion: Opinion, case: Case) -> Said:
    return {server: opinion.value(*server) for server in case.said}


def may_be_stopped(opinion: Opinion, case: Case) -> list[tuple[str, str]]:
    return [server for server, value in values(opinion, case).items() if value == 0]


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_says_who_is_at_work(prometheus: Remembering, name: str) -> None:
    case = EVERY[name]
    opinion = prometheus.opinion(case.query, case.world)
    assert values(opinion, case) == case.said


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_speaks_of_nobody_else(prometheus: Remembering, name: str) -> None:
    """Not of the Hub's own pod, of other units, or of a name that it cannot read."""
    case = EVERY[name]
    opinion = prometheus.opinion(case.query, case.world)
    found = {(user, server) for user, those in opinion.values.items() for server in those}
    assert found <= set(case.said)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seconds", [DEAD, 400])
def test_a_dead_exporter_never_reads_as_idle(
    prometheus: Remembering, name: str, seconds: int
) -> None:
    case = EVERY[name]
    assert may_be_stopped(prometheus.opinion(case.query, case.world, seconds), case) == []


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_the_guard_that_knows(prometheus: Remembering, name: str) -> None:
    """Without it, what was measured before is the answer."""
    case = RECIPES[name]
    unguarded = case.query.replace("time() - 120", "time() - 1000")
    assert may_be_stopped(prometheus.opinion(unguarded, case.world, DEAD), case)


@pytest.mark.parametrize("name", RECIPES)
def test_without_bool_nobody_is_idle(prometheus: Remembering, name: str) -> None:
    case = RECIPES[name]
    filtering = case.query.replace("> bool ", "> ")
    assert may_be_stopped(prometheus.opinion(filtering, case.world), case) == []


@pytest.mark.parametrize("name", RECIPES)
def test_check_finds_what_a_recipe_reads(prometheus: Remembering, name: str) -> None:
    """By the names of its metrics, each of which has a fresh sample."""
    case = RECIPES[name]
    read = selectors(case.query)
    assert read
    for selector in read:
        at = prometheus.worlds[case.world]
        (newest,) = prometheus.instant(f"time() - max(timestamp({selector}))", at)
        assert float(newest["value"][1]) <= STEP, selector


def test_every_query_of_the_page_is_tried() -> None:
    forms = {EITHER, BOTH, ALL_UP, LOOKS_BACK}
    tried = {case.query for case in RECIPES.values()} | forms
    assert [query for _, query in blocks("promql", [PAGE]) if query not in tried] == []


# ---- `check` ------------------------------------------------------------------------------------


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    for user in ("ana", "bob", "cleo"):
        fake_hub.add_server(user, idle=7200)
    return fake_hub


def checked(prometheus: Remembering, hub: FakeHub, directory: Path, query: str) -> tuple[int, str]:
    arguments = ["check", f"--prometheus-url={prometheus.url}", f"--spare-query={query}"]
    done = in_process.run(arguments, directory, hub.url, hub.token)
    assert done.err == ""
    return done.code, done.out.replace(prometheus.url, "http://prometheus:9090")


def without_numbers(lines: str) -> list[str]:
    return [re.sub(r"\d+ s old", "N s old", line) for line in lines.splitlines()]


def test_check_says_what_the_page_shows(
    prometheus: Remembering, hub: FakeHub, tmp_path: Path
) -> None:
    code, said = checked(prometheus, hub, tmp_path, BY_ACCOUNT)
    assert code == 0
    shown = without_numbers(block(PAGE, "is answered by", "text"))
    assert [line for line in without_numbers(said) if line in shown] == shown
    assert "would be stopped with --enforce: 1 past the idle limit" in said


def test_check_refuses_a_query_without_user(
    prometheus: Remembering, hub: FakeHub, tmp_path: Path
) -> None:
    query = "sum by (groupname) (namedprocess_namegroup_num_procs) > bool 1000"
    code, said = checked(prometheus, hub, tmp_path, query)
    assert code == 1
    assert "PROBLEM  --spare-query: none of its series has a label `user`" in said


def test_check_warns_of_old_samples(prometheus: Remembering, hub: FakeHub, tmp_path: Path) -> None:
    code, said = checked(prometheus, hub, tmp_path, 'gpu_jobs{user!=""} > bool 0')
    assert code == 0
    assert re.search(r'warning +the newest sample of gpu_jobs{user!=""} is 1\d\d s old', said)


def test_check_reports_an_error_of_a_query(
    prometheus: Remembering, hub: FakeHub, tmp_path: Path
) -> None:
    code, said = checked(prometheus, hub, tmp_path, "sum by (user) (nothing")
    assert code == 1
    assert "PROBLEM  --spare-query: http://prometheus:9090: HTTP 400: " in said
    assert "would be stopped for being idle" in said


# ---- the configurations of the page -------------------------------------------------------------


CONFIGURATIONS = {
    "{{.Cgroups}}": re.compile(r"\[/.*\]"),
    "{{.Username}}": re.compile(re.escape(pwd.getpwuid(os.getuid()).pw_name)),
    "{{.Matches.user}}/{{.Matches.server}}": re.compile("ana@example.com/gpu box"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_process_exporter_groups_as_the_page_says(tmp_path: Path, name: str) -> None:
    configuration = block(PAGE, name, "yaml")
    program = tool_or_skip("prometheus-process-exporter")
    names = ["--Culling.user=ana@example.com", "--Culling.server=gpu box", "--Culling.end="]
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()", *names]
    with (
        subprocess.Popen(waits, stdin=subprocess.PIPE),
        ProcessExporter(program, tmp_path, configuration) as exporter,
    ):
        wait_until(
            lambda: any(map(CONFIGURATIONS[name].fullmatch, exporter.groups() or ())), 20, "found"
        )


def test_the_hook_names_user_and_server_on_the_command_line() -> None:
    """As process-exporter reads them back, with the page's own pattern."""
    config = Config()
    exec(block(PAGE, "def name_the_server"), {"c": config})  # noqa: S102
    spawner = SimpleNamespace(user=SimpleNamespace(name="ana@example.com"), name="gpu box", args=[])
    config.Spawner.pre_spawn_hook(spawner)
    (group,) = yaml.safe_load(block(PAGE, "Matches.user", "yaml"))["process_names"]
    found = re.search(group["cmdline"][0], " ".join(["jupyterhub-singleuser", *spawner.args]))
    assert found is not None
    assert found.groupdict() == {"user": "ana@example.com", "server": "gpu box"}


def test_the_scrape_job_names_the_servers(prometheus: Remembering) -> None:
    """It is the last test: Prometheus finds its targets only after some seconds."""
    query = recipe("jupyter-resource-usage")

    def said() -> dict[tuple[str, str], float | None]:
        found = Opinion.of(query, 0.0, prometheus.series(query))
        return {server: found.value(*server) for server in USERS_SERVERS}

    wait_until(lambda: None not in said().values(), 30, "scraped")
    assert said() == {server: float(server[1] == "gpu box") for server in USERS_SERVERS}
