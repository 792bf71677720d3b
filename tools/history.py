"""Write hours of plausible history as OpenMetrics, for pictures of the dashboard.

    python tools/history.py FILE [SCENARIO [END]]     END: seconds since 1970, now unless given

Hubs are made up: people come, work, go away or come back. Judging, counting and the names of all
metrics are the exporter's own code; only the Hubs, the culler's luck and the process's own metrics
are simulated, with a fixed seed. What happens is in `scenarios.py`.
"""

import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from scenarios import DAY, HOUR, SCENARIOS, SimulatedHub

from hub_idle_exporter.domain import census
from hub_idle_exporter.domain.gate import ClockReading, GateReading, GateState
from hub_idle_exporter.domain.idle_users import IdleUsers, JudgedUser
from hub_idle_exporter.domain.keeping import Keep, Start
from hub_idle_exporter.domain.labels import (
    Cause,
    CullFailure,
    NotificationEvent,
    NotificationResult,
    Operation,
    Outcome,
    ProbeResult,
    QueryResult,
    UserKept,
    Withheld,
)
from hub_idle_exporter.domain.model import Server, User
from hub_idle_exporter.domain.notices import (
    Announcement,
    NoticeKey,
    Undelivered,
    deadline,
    due_soon,
    key_of,
    standing,
    stop_from,
)
from hub_idle_exporter.domain.policy import Globs, JudgedServer, Match, Policy, Reason, Rules
from hub_idle_exporter.domain.poll_state import LatestState, PollError, PollState, Snapshot
from hub_idle_exporter.domain.probe_user import Safeguards
from hub_idle_exporter.domain.scopes import Granted, Scope
from hub_idle_exporter.domain.settings import CullSettings, PollSettings
from hub_idle_exporter.domain.spare_query import Opinion, Series
from hub_idle_exporter.metrics import Metrics

SCRAPE = 30
LENGTH = 7.5 * HOUR  # an hour and a half more than is shown, for queries that look back
GRACE = 600.0
# A target that is gone is forgotten at once by Prometheus, which OpenMetrics cannot say: its last
# samples count for five minutes. So a new pod is scraped when they no longer do.
FORGOTTEN_AFTER = 300

POLICIES = (
    Policy("staff", HOUR, exempt=True, match=Match(groups=Globs(["staff"]))),
    Policy(
        "gpu",
        2 * HOUR,
        DAY,
        match=Match(user_options=(("profile", Globs(["gpu-*"])),)),
        own_timeout=True,
    ),
    Policy("scratch", 0.25 * HOUR, match=Match(users=Globs(["tmp-*"])), own_timeout=True),
    Policy("default", HOUR),
)
# How many of a hundred people are of each kind.
KINDS = {"staff": 6, "gpu": 13, "scratch": 11, "default": 70}


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
            started=datetime.fromtimestamp(started, timezone.utc),
            last_activity=datetime.fromtimestamp(last_activity, timezone.utc),
            user_options=msgspec.Raw(msgspec.json.encode(self.options)),
        )


def people(number: int, chance: random.Random, start: float) -> list[Person]:
    """Make everybody, some with servers from hours and days before."""
    everybody = []
    for kind, percent in KINDS.items():
        for place in range(number * percent // 100):
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


class Crowd:
    """What people keep, and what they are told, where that is on."""

    def __init__(self, of: SimulatedHub) -> None:
        self.of, self.chance = of, random.Random(of.seed + 1)  # noqa: S311
        self.keeps: dict[Start, Keep] = {}
        self.announced: dict[NoticeKey, Announcement] = {}
        self.failing: dict[NoticeKey, float] = {}

    def keep_some(self, judged: Iterable[JudgedServer], now: float) -> None:
        """Let some keep their server for eight hours, while they use it."""
        for one in judged:
            if self.of.notice and not one.reason and self.chance.random() < 0.0008:
                self.keeps[one.start] = Keep(now + 8 * HOUR, one.user)

    def tell(
        self, judged: Iterable[JudgedServer], now: float, before_end: float, metrics: Metrics
    ) -> None:
        """Announce what is due; each attempt fails while nobody can be told."""
        due = [soon for one in judged for soon in ([one] if one.reason else due_soon(one))]
        keys = {key_of(one, one.reason) for one in due if one.reason}
        self.failing = {key: since for key, since in self.failing.items() if key in keys}
        for one in due:
            if (
                one.policy.notice
                and one.reason
                and not standing(self.announced, one, one.reason, now)
            ):
                self._announce(one, one.reason, now, before_end < self.of.untold_for, metrics)

    def _announce(
        self, one: JudgedServer, reason: Reason, now: float, fails: bool, metrics: Metrics
    ) -> None:
        key = key_of(one, reason)
        if fails or (key not in self.failing and self.chance.random() < 0.05):
            if key not in self.failing or self.chance.random() < 0.1:
                metrics.count_notification(NotificationEvent.DUE, NotificationResult.FAILED)
            self.failing.setdefault(key, now)
            return
        self.failing.pop(key, None)
        until = deadline(one, reason, now)
        self.announced[key] = Announcement.made(until, one.policy.notice, now)
        metrics.count_notification(NotificationEvent.DUE, NotificationResult.SENT)

    def was_told(self, one: JudgedServer, now: float) -> bool:
        """Tell whether a candidate may be stopped by now."""
        if one.reason is not Reason.IDLE or not one.policy.notice:
            return True
        made = standing(self.announced, one, Reason.IDLE, now)
        return made is not None and stop_from(made, one.policy.notice) <= now

    def tell_of_stop(self, outcome: Outcome | Withheld, metrics: Metrics) -> None:
        """Tell that a server was stopped, unless that failed."""
        if self.of.notice and outcome is Outcome.STOPPED:
            metrics.count_notification(NotificationEvent.STOPPED, NotificationResult.SENT)

    def undelivered(self) -> Undelivered:
        """Say who could not be told."""
        return Undelivered(len(self.failing), min(self.failing.values(), default=None))


@dataclass
class Sidecar:
    """The exporter's own judging and counting over a made-up Hub."""

    of: SimulatedHub
    end: float
    start: float

    def __post_init__(self) -> None:
        self.chance = random.Random(self.of.seed)  # noqa: S311
        self.crowd = Crowd(self.of)
        self.everybody = people(self.of.people, self.chance, self.start)
        self.idle_users = self.of.people // 12
        self.kept_users: dict[UserKept | None, int] = {
            UserKept.EXEMPT: self.of.people // 25,
            UserKept.ADMIN: 2,
        }
        self._begin(0)

    def _begin(self, pod: int) -> None:
        """Start as a process that knows nothing yet."""
        self.pod = pod
        self.gate = GateReading(GateState.OFF, "")
        granted = Granted.of([f"{scope}" for scope in Scope])
        # In monitor mode there is nothing to guard.
        safeguards = Safeguards(
            asks_servers=self.of.asks and self.of.enforces,
            stop_tokens=self.of.enforces,
            lease=self.of.enforces,
        )
        state = PollState.at_start(Rules(self.policies), CullSettings(enforce=self.of.enforces))
        self.latest = LatestState(
            replace(state, version="6.1.1", granted=granted, safeguards=safeguards)
        )
        settings = PollSettings(
            self.policies[-1],
            interval=self.of.interval,
            per_server_metrics=self.of.second_opinion,
        )
        self.metrics = Metrics(CollectorRegistry(), self.latest, lambda _: self.gate, settings)
        self.metrics.undelivered = self.crowd.undelivered
        self.last_success = self.grace_until = self.users_listed = 0.0

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Give the policies, with this Hub's own limit for all others."""
        policies = (*POLICIES[:-1], replace(POLICIES[-1], timeout=self.of.timeout))
        return tuple(replace(policy, notice=self.of.notice) for policy in policies)

    def poll(self, now: float) -> None:
        """Read, judge, count and, where it is on, cull."""
        for person in self.everybody:
            live(person, self.chance, now)
        if self.of.pod(self.end - now) != self.pod:
            self._begin(self.of.pod(self.end - now))
        self.metrics.polls.inc()
        if self.of.is_away(self.end - now):
            self._fail(now)
        else:
            self._succeed(now)
        self._read_the_policy_file(self.end - now)

    def _fail(self, now: float) -> None:
        clocks, error = ClockReading(now, now), PollError(Cause.CONNECTION, "it is away")
        self.latest.state = self.latest.state.failed(error, clocks)
        self.metrics.poll_failures.labels(Cause.CONNECTION).inc()
        if self.of.enforces:
            self.gate = GateReading(GateState.SUSPENDED, "", GRACE)
            self.grace_until = now + GRACE

    def _succeed(self, now: float) -> None:
        before = self.latest.state
        listed = [
            msgspec.structs.replace(person.user, servers={"": person.server(now)})
            for person in self.everybody
            if person.started
        ]
        opinion = self._second_opinion(now) if self.of.second_opinion else None
        judge = replace(before.judge, keeps=self.crowd.keeps, opinion=opinion)
        judged = list(census.judge_all(judge, listed, now))
        self.crowd.keep_some(judged, now)
        taken = census.census_of(judged, before.rules, keep_all=self.of.second_opinion)
        state = replace(before, opinion=opinion).succeeded(
            Snapshot(now, taken), ClockReading(now, now)
        )
        since = now - self.last_success if self.last_success else 0.0
        idle = census.idle_server_seconds(taken.past_limit, since, 3 * self.of.interval)
        for policy, seconds in idle.items():
            self.metrics.idle_server_seconds.labels(policy).inc(seconds)
        self.last_success = now
        self._request(Operation.LIST_USERS, 0.12)
        self.latest.state = replace(
            state,
            duration=self.chance.lognormvariate(-2, 0.25) * (1 + len(listed) / 1000),
            clock_skew=0.21 + self.chance.gauss(0, 0.03),
        )
        self._switch(now)
        if self.gate.state is GateState.ON:
            self.crowd.tell(judged, now, self.end - now, self.metrics)
            self._cull(taken, now)
        if now >= self.users_listed + HOUR:
            self._list_users(now)

    def _second_opinion(self, now: float) -> Opinion:
        """Say of whom it is known that they compute, by how many CPUs; of a few people nothing."""
        failed = self.chance.random() < 0.03
        self.metrics.count_query(QueryResult.FAILED if failed else QueryResult.OK)
        if failed:
            return Opinion("", now, problem="it did not answer")
        answer = (
            Series({"user": one.user.name}, self._cpus(now < one.computes_until and place % 2 == 0))
            for place, one in enumerate(self.everybody)
            if one.started and place % 20
        )
        return Opinion.of("", now, answer)

    def _cpus(self, computes: bool) -> float:
        return round(self.chance.uniform(0.3, 2), 2) if computes else 0.0

    def _list_users(self, now: float) -> None:
        """Find idle users, of whom there are more and more, and delete them where that is on."""
        self.users_listed = now
        self.idle_users += self.chance.randrange(self.of.people // 60 + 1)
        if self.gate.state is GateState.ON:
            failed = sum(self.chance.random() < 0.1 for _ in range(self.idle_users))
            self.metrics.users_deleted.inc(self.idle_users - failed)
            self.metrics.deletion_failures.labels(Cause.HTTP).inc(failed)
            self.idle_users = failed
        verdicts = {None: self.idle_users, **self.kept_users}
        found = (
            JudgedUser(f"{kept}-{place}", 40 * DAY, kept, "")
            for kept, count in verdicts.items()
            for place in range(count)
        )
        self.latest.users_listed(IdleUsers(now, tuple(found)))

    def _switch(self, now: float) -> None:
        before_end = self.end - now
        if not self.of.enforces or before_end > self.of.enforced_for:
            self.gate = GateReading(GateState.OFF, "")
            return
        if self.gate.state is GateState.OFF:
            self.grace_until = now + GRACE
        left = max(0.0, self.grace_until - now)
        self.gate = GateReading(GateState.GRACE if left else GateState.ON, "", left)

    def _read_the_policy_file(self, before_end: float) -> None:
        if before_end < self.of.policy_broken_for and self.latest.state.policy_error is None:
            self.metrics.reload_failures.inc()
            self.latest.state = replace(self.latest.state, policy_error="line 7: no such key")

    def _request(self, operation: Operation, seconds: float) -> None:
        self.metrics.observe_request(operation, self.chance.lognormvariate(0, 0.5) * seconds)

    def _cull(self, taken: census.Census, now: float) -> None:
        self._request(Operation.LIST_TOKENS, 0.015)  # the lease
        by_name = {person.user.name: person for person in self.everybody}
        self.metrics.journal.begin_pass(now, taken.candidates, ())
        for candidate in taken.candidates:
            person = by_name[candidate.user]
            reason = candidate.reason or Reason.IDLE
            self._request(Operation.GET_USER, 0.015)
            outcome: Outcome | Withheld
            if not self.crowd.was_told(candidate, now):
                outcome = Withheld.NOTICE
                self.metrics.withheld.labels(outcome).inc()
            elif candidate.spared and not candidate.would_stop:
                outcome = candidate.spared.cause
                self.metrics.withheld.labels(outcome).inc()
            elif reason is Reason.MAX_AGE or (outcome := self._ask(person, now)) is Outcome.STOPPED:
                outcome = self._stop(person, candidate.policy.name, reason)
                self.crowd.tell_of_stop(outcome, self.metrics)
            self.metrics.journal.ended(now, candidate, outcome)

    def _ask(self, person: Person, now: float) -> Outcome | Withheld:
        if not self.of.asks:
            return Outcome.STOPPED
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
            return Outcome.STOPPED
        self.metrics.busy_checks.labels(asked).inc()
        self.metrics.withheld.labels(cause).inc()
        return cause

    def _stop(self, person: Person, policy: str, reason: Reason) -> Outcome:
        self.metrics.attempts.labels(policy, reason).inc()
        self._request(Operation.STOP_SERVER, 1.5)
        person.started, luck = None, self.chance.random()
        if luck < 0.02:
            self.metrics.cull_failures.labels(CullFailure.SLOW).inc()
            return Outcome.FAILED
        self.metrics.culls.labels(policy, reason).inc()
        self.metrics.cull_duration.observe(self.chance.lognormvariate(0.9, 0.6))
        return Outcome.STOPPED

    def scraped(self, now: float) -> Iterator[str]:
        """Write what one scrape gives."""
        before_end = self.end - now
        if before_end < self.of.exporter_forgotten_for or self._is_new(before_end):
            return
        address = self.of.address(before_end)
        labels = f'job="hub-idle-exporter",instance="{address}"{self.of.labels}'
        down = before_end < self.of.exporter_down_for
        yield f"up{{{labels}}} {int(not down)} {now:.0f}\n"
        if not down:
            yield from samples(self.metrics.registry.collect(), labels, now)
            lived = now - self.start
            yield f"process_cpu_seconds_total{{{labels}}} {0.004 * lived:.3f} {now:.0f}\n"
            memory = 52e6 + 2e6 * self.chance.random() + 2000 * len(self.everybody)
            yield f"process_resident_memory_bytes{{{labels}}} {memory:.0f} {now:.0f}\n"
        if not self.of.is_away(before_end):
            drift = 9 + int(now - self.start) // 3600
            running = sum(person.started is not None for person in self.everybody) + drift
            hub = f'job="jupyterhub",instance="{self.of.own_instance}"{self.of.labels}'
            yield f"jupyterhub_running_servers{{{hub}}} {running} {now:.0f}\n"

    def _is_new(self, before_end: float) -> bool:
        return any(0 <= when - before_end < FORGOTTEN_AFTER for when in self.of.rolled_out)


def samples(families: Iterable[Metric], labels: str, when: float) -> Iterator[str]:
    """Write what a scrape gave, with the labels that Prometheus adds."""
    for family in families:
        if family.name.startswith(("process_", "python_")):
            continue  # those of this script say nothing
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            own = "".join(f',{name}="{value}"' for name, value in sample.labels.items())
            yield f"{sample.name}{{{labels}{own}}} {sample.value} {when:.0f}\n"


def history(end: float, hubs: Iterable[SimulatedHub], length: float = LENGTH) -> Iterator[str]:
    """Give the lines of OpenMetrics of the `length` seconds before the end, oldest first."""
    sidecars = [Sidecar(hub, end, end - length) for hub in hubs]
    for tick in range(int(length) // SCRAPE + 1):
        now = end - length + tick * SCRAPE
        for sidecar in sidecars:
            hangs = end - now < sidecar.of.polls_hang_for
            if tick * SCRAPE % sidecar.of.interval == 0 and not hangs:
                sidecar.poll(now)
            yield from sidecar.scraped(now)
    yield "# EOF\n"


if __name__ == "__main__":
    name = sys.argv[2] if len(sys.argv) > 2 else next(iter(SCENARIOS))
    end_of_history = float(sys.argv[3]) if len(sys.argv) > 3 else time.time()
    with Path(sys.argv[1]).open("w") as output:
        output.writelines(history(end_of_history, SCENARIOS[name].hubs))
