"""Write hours of plausible history as OpenMetrics, for pictures of the dashboard.

    python tools/history.py FILE [END]        END: seconds since 1970, now unless given

A small Hub is made up: people come, work, go away or come back. Judging, counting and the names
of all metrics are the exporter's own code; only the Hub and the culler's luck are simulated, with
a fixed seed. For three of the hours culling is off, then it is switched on.
"""

import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from hub_idle_exporter.domain import census
from hub_idle_exporter.domain.gate import ClockReading, GateReading, GateState
from hub_idle_exporter.domain.labels import Cause, CullFailure, Operation, ProbeResult, Withheld
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.policy import Globs, Match, Policy, Reason, Rules
from hub_idle_exporter.domain.poll_state import LatestState, PollError, PollState, Snapshot
from hub_idle_exporter.domain.probe_user import Safeguards
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import CullSettings, PollSettings
from hub_idle_exporter.metrics import Metrics

SCRAPE, POLL = 15, 60
HOUR, DAY = 3600.0, 86400.0
LENGTH = 7.5 * HOUR  # an hour and a half more than is shown, for queries that look back
ENFORCED_FOR = 3 * HOUR
GRACE = 600.0
OUTAGE = (5.2 * HOUR, 5.1 * HOUR)  # before the end
EXPORTER = 'job="hub-idle-exporter",instance="hub:9899"'
HUB = 'job="jupyterhub",instance="hub:8081"'

POLICIES = (
    Policy("staff", HOUR, exempt=True, match=Match(groups=Globs(["staff"]))),
    Policy("gpu", 2 * HOUR, DAY, match=Match(user_options=(("profile", Globs(["gpu-*"])),))),
    Policy("scratch", 0.25 * HOUR, match=Match(users=Globs(["tmp-*"]))),
    Policy("default", HOUR),
)
KINDS = {"staff": 12, "gpu": 26, "scratch": 22, "default": 140}


@dataclass
class Person:
    """Somebody with at most one server; times are seconds since 1970."""

    user: User
    options: dict[str, str]
    started: float | None = None
    active_until: float = 0.0
    back_at: float = 0.0
    computes_until: float = 0.0

    def server(self, now: float) -> Server:
        """Give the server as the Hub would list it."""
        started = self.started or now
        last_activity = max(started, min(now, self.active_until))
        return Server(
            ready=now - started > 25,
            pending=None if now - started > 25 else "spawn",
            started=datetime.fromtimestamp(started, UTC),
            last_activity=datetime.fromtimestamp(last_activity, UTC),
            user_options=msgspec.Raw(msgspec.json.encode(self.options)),
        )


def people(chance: random.Random, start: float) -> list[Person]:
    """Make everybody, some with servers from hours and days before."""
    everybody = []
    for kind, number in KINDS.items():
        for place in range(number):
            name = f"tmp-{place}" if kind == "scratch" else f"{kind}-{place}"
            user = User(name, False, ("staff",) if kind == "staff" else ())
            person = Person(user, {"profile": "gpu-a100"} if kind == "gpu" else {})
            if chance.random() < 0.55:
                person.started = start - chance.expovariate(1 / (9 * HOUR)) - 600
                if chance.random() < 0.12:
                    person.started -= chance.uniform(1, 9) * DAY
                left = chance.uniform(0, min(start - person.started, 14 * HOUR))
                person.active_until = start - left if chance.random() < 0.6 else start + left / 4
                person.back_at = start + chance.expovariate(1 / (7 * HOUR))
            else:
                person.back_at = start + chance.expovariate(1 / (5 * HOUR))
            everybody.append(person)
    return everybody


def live(person: Person, chance: random.Random, now: float) -> None:
    """Let somebody come back, work, compute silently, go away or stop their server."""
    if now >= person.back_at:
        person.started = person.started or now
        person.active_until = now + chance.expovariate(1 / (0.8 * HOUR))
        person.back_at = person.active_until + chance.expovariate(1 / (4 * HOUR)) + 600
        if chance.random() < 0.07:
            person.computes_until = person.active_until + chance.uniform(1.2, 4) * HOUR
    elif person.started and now > person.active_until and chance.random() < 0.0008:
        person.started = None


@dataclass
class Sidecar:
    """The exporter's own judging and counting over the made-up Hub."""

    chance: random.Random
    everybody: list[Person]
    end: float
    state: GateState = GateState.OFF
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        state = PollState.at_start(Rules(POLICIES), CullSettings(enforce=True))
        granted = Granted.of([f"{scope}" for scope in Scope])
        whole = Safeguards(asks_servers=True, stop_tokens=True, lease=True)
        self.latest = LatestState(
            replace(state, version="6.1.1", granted=granted, safeguards=whole)
        )
        settings = PollSettings(POLICIES[-1], interval=POLL)
        self.metrics = Metrics(
            self.registry, self.latest, lambda _state: GateReading(self.state, ""), settings
        )
        self.last_success = 0.0

    def poll(self, now: float) -> None:
        """Read, judge, count and, where it is on, cull."""
        metrics, before = self.metrics, self.latest.state
        metrics.polls.inc()
        before_end, clocks = self.end - now, ClockReading(now, now)
        if OUTAGE[1] < before_end < OUTAGE[0]:
            self.latest.state = before.failed(PollError(Cause.CONNECTION, "it is away"), clocks)
            metrics.poll_failures.labels(Cause.CONNECTION).inc()
            return
        listed = [
            msgspec.structs.replace(person.user, servers={"": person.server(now)})
            for person in self.everybody
            if person.started
        ]
        judged = census.judge_all(before.judge, listed, now)
        taken = census.census_of(judged, before.rules)
        state = before.succeeded(Snapshot(now, taken), clocks)
        since = now - self.last_success if self.last_success else 0.0
        idle = census.idle_server_seconds(taken.past_limit, since, 3 * POLL)
        for policy, seconds in idle.items():
            metrics.idle_server_seconds.labels(policy).inc(seconds)
        self.last_success = now
        self._request(Operation.LIST_USERS, 0.12)
        self.latest.state = replace(
            state,
            duration=self.chance.lognormvariate(-2, 0.25),
            clock_skew=0.21 + self.chance.gauss(0, 0.03),
        )
        self._switch(before_end)
        if self.state is GateState.ON:
            self._cull(taken, now)

    def _switch(self, before_end: float) -> None:
        if before_end < ENFORCED_FOR - GRACE:
            self.state = GateState.ON
        elif before_end < ENFORCED_FOR:
            self.state = GateState.GRACE

    def _request(self, operation: Operation, seconds: float) -> None:
        self.metrics.observe_request(operation, self.chance.lognormvariate(0, 0.5) * seconds)

    def _cull(self, taken: census.Census, now: float) -> None:
        self._request(Operation.LIST_TOKENS, 0.015)  # the lease
        by_name = {person.user.name: person for person in self.everybody}
        for candidate in taken.candidates:
            person, verdict = by_name[candidate.user], candidate
            reason = verdict.reason or Reason.IDLE
            self._request(Operation.GET_USER, 0.015)
            if reason is Reason.MAX_AGE or self._may_stop(person, now):
                self._stop(person, verdict.policy.name, reason)

    def _may_stop(self, person: Person, now: float) -> bool:
        for operation in (Operation.MINT_TOKEN, Operation.REVOKE_TOKEN):
            self._request(operation, 0.02)
        luck = self.chance.random()
        if now < person.computes_until:
            asked, cause = ProbeResult.BUSY, Withheld.BUSY
        elif luck < 0.04:
            asked, cause = ProbeResult.FAILED, Withheld.PROBE_FAILED
        elif luck < 0.12:
            asked, cause = ProbeResult.ACTIVE, Withheld.ACTIVE_AGAIN
            person.active_until = now
        else:
            self.metrics.busy_checks.labels(ProbeResult.IDLE).inc()
            return True
        self.metrics.busy_checks.labels(asked).inc()
        self.metrics.withheld.labels(cause).inc()
        return False

    def _stop(self, person: Person, policy: str, reason: Reason) -> None:
        self.metrics.attempts.labels(policy, reason).inc()
        self._request(Operation.STOP_SERVER, 1.5)
        person.started, luck = None, self.chance.random()
        if luck < 0.03:
            failure = CullFailure.NOT_STOPPED if luck < 0.01 else CullFailure.SLOW
            self.metrics.cull_failures.labels(failure).inc()
            return
        self.metrics.culls.labels(policy, reason).inc()
        self.metrics.cull_duration.observe(self.chance.lognormvariate(0.9, 0.6))


def samples(families: Iterable[Metric], when: float) -> Iterator[str]:
    """Write what a scrape gave, with the labels that Prometheus adds."""
    for family in families:
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = "".join(f',{name}="{value}"' for name, value in sample.labels.items())
            yield f"{sample.name}{{{EXPORTER}{labels}}} {sample.value} {when:.0f}\n"


def history(end: float) -> Iterator[str]:
    """Give the lines of OpenMetrics, oldest first."""
    chance = random.Random(20)  # noqa: S311
    start = end - LENGTH
    everybody = people(chance, start)
    sidecar = Sidecar(chance, everybody, end)
    for tick in range(int(LENGTH) // SCRAPE + 1):
        now = start + tick * SCRAPE
        if tick % (POLL // SCRAPE) == 0:
            for person in everybody:
                live(person, chance, now)
            sidecar.poll(now)
        yield f"up{{{EXPORTER}}} 1 {now:.0f}\n"
        yield from samples(sidecar.registry.collect(), now)
        drift = 9 + tick // 240
        running = sum(person.started is not None for person in everybody)
        yield f"jupyterhub_running_servers{{{HUB}}} {running + drift} {now:.0f}\n"
    yield "# EOF\n"


if __name__ == "__main__":
    end_of_history = float(sys.argv[2]) if len(sys.argv) > 2 else time.time()
    with Path(sys.argv[1]).open("w") as output:
        output.writelines(history(end_of_history))
