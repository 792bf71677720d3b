"""The faults that the alerts are about, each with what must fire for it and nothing else.

The names say what happens to somebody's Hub. Minutes count from the start; a fault begins at 60.
"""

from alert_cases import (
    ATTEMPTS,
    CANDIDATES,
    CULLS,
    END,
    INTERVAL,
    LAST_SUCCESS,
    NOT_DELETED,
    QUERY_FAILED,
    QUERY_OK,
    SERVERS,
    STARTED,
    UNTOLD,
    UNTOLD_SINCE,
    UP,
    Case,
    Labels,
    Series,
    always,
    each,
    ends,
    facts,
    failures,
    good,
    grows_from,
    hubs,
    hubs_pods,
    own,
    pods,
    standing_by,
    steps,
    stops_nothing,
    then,
    turns,
    watching,
    withheld,
)

WARNING: Labels = {"severity": "warning"}
CRITICAL: Labels = {"severity": "critical"}
HOUR = 60


def _away(minute: int, changed: Series | None = None) -> Series:
    """All that an exporter says ends at a minute: of a good one, or of another."""
    return {name: ends(values, minute) for name, values in (good() | (changed or {})).items()}


def _dies(minute: int, changed: Series | None = None) -> Series:
    """It ends, and its target does not answer any more."""
    return _away(minute, changed) | {"up{}": then(1, minute, 0)}


def _no_facts(minute: int, until: int = END) -> Series:
    """Facts about the Hub are away while it cannot be read; only that is told."""
    away = {name: _gap(values, minute, until) for name, values in facts().items()}
    return away | {UP: f"1x{minute - 1} 0x{until - minute - 1} {always(1)}"}


def _gap(values: str, minute: int, until: int) -> str:
    value = values.partition("x")[0]
    return f"{value}x{minute - 1} stale _x{until - minute - 1} {values}"


def _unread(minute: int, cause: str) -> Series:
    """The Hub is not read from a minute on."""
    return {
        **_no_facts(minute),
        **turns("suspended", minute),
        **_counters_stop(minute),
        LAST_SUCCESS: f"0+60x{minute - 1} {always(60 * (minute - 1))}",
        failures(cause): grows_from(minute, 1),
    }


def _counters_stop(minute: int) -> Series:
    """Nobody is stopped, spared or asked any more."""
    return {name: f"0+1x{minute - 1} {always(minute - 1)}" for name in stops_nothing()}


def _by_interval(minutes: int) -> Series:
    """The good exporter, at another interval: all counters go by polls."""
    polls = END // minutes
    counts = steps(minutes, range(polls))
    return {
        INTERVAL: always(60 * minutes),
        LAST_SUCCESS: steps(minutes, (60 * minutes * number for number in range(polls))),
        own("polls_total"): counts,
        **dict.fromkeys([QUERY_OK, *stops_nothing()], counts),
    }


def _flaky(minutes: int) -> Series:
    """A Hub that answers every third poll, at some interval."""
    polls = range(END // minutes)
    good_ones = [number // 3 for number in polls]
    return {
        INTERVAL: always(60 * minutes),
        own("polls_total"): steps(minutes, polls),
        failures("timeout"): steps(minutes, (number - number // 3 for number in polls)),
        LAST_SUCCESS: steps(minutes, (180 * minutes * (number // 3) for number in polls)),
        UP: steps(minutes, (number % 3 == 0 for number in polls)),
        own("enforcement", state="on"): steps(minutes, (number % 3 == 0 for number in polls)),
        own("enforcement", state="suspended"): steps(minutes, (number % 3 > 0 for number in polls)),
        **dict.fromkeys(stops_nothing(), steps(minutes, good_ones)),
    }


def _crash_loop(alive: int, dead: int) -> Series:
    """Up for some minutes, away for some, always in its grace period."""
    cycles = END // (alive + dead)
    changed = good() | {
        own("enforcement", state="on"): always(0),
        own("enforcement", state="grace"): always(1),
    }
    changed |= stops_nothing()
    told = {
        name: _told(values.partition("x")[0].partition("+")[0], alive, dead, cycles)
        for name, values in changed.items()
    }
    told["up{}"] = " ".join([f"1x{alive - 1}", f"0x{dead - 1}"] * cycles)
    told[STARTED] = " ".join(_told(str(1000 + number), alive, dead, 1) for number in range(cycles))
    told[LAST_SUCCESS] = " ".join(
        f"{60 * number * (alive + dead)}+60x{alive - 1} stale{_nothing(dead - 1)}"
        for number in range(cycles)
    )
    return told


def _told(value: str, alive: int, dead: int, cycles: int) -> str:
    return " ".join([f"{value}x{alive - 1} stale{_nothing(dead - 1)}"] * cycles)


def _nothing(minutes: int) -> str:
    return f" _x{minutes}" if minutes else ""


def _failing_probes(a_poll: int) -> Series:
    """From the hour on no server can be asked: so many at each poll, and no others are due."""
    return {
        **_counters_stop(60),
        CANDIDATES: then(3, 60, a_poll),
        own("busy_checks_total", result="failed"): grows_from(60, a_poll),
        withheld("probe_failed"): grows_from(60, a_poll),
    }


def _query_fails(minutes: int, minute: int) -> Series:
    """From a minute on the spare query fails at each poll, of so many minutes."""
    polls = minute // minutes
    return {
        QUERY_OK: f"{steps(minutes, range(polls))} {always(polls - 1)}",
        QUERY_FAILED: f"0x{minute - 1} {steps(minutes, range(1, (END - minute) // minutes))}",
        CANDIDATES: then(3, minute, 8),
        **{name: f"{steps(minutes, range(polls))} {always(polls - 1)}" for name in stops_nothing()},
        withheld("query_failed"): f"0x{minute - 1} "
        + steps(minutes, range(8, 8 * ((END - minute) // minutes), 8)),
    }


FAULTS = [
    Case("all is well", {}, silent=(30, 130, 250)),
    Case("all is well in monitor mode", watching(), silent=(30, 130, 250)),
    Case("nothing but another exporter's lease forbids stops", standing_by(), silent=(30, 130)),
    # -- people may be harmed
    Case(
        "servers are stopped without being asked",
        {
            own("busy_check"): then(1, 60, 0),
            own("safeguard", safeguard="busy_check"): then(1, 60, 0),
        },
        {"HubIdleServersNotAsked": CRITICAL},
        at=(61, 65, 200),
    ),
    Case(
        "servers are stopped without being asked, whenever their Hub answers",
        {
            **_flaky(1),
            own("busy_check"): always(0),
            own("safeguard", safeguard="busy_check"): always(0),
        },
        {"HubIdleServersNotAsked": CRITICAL, "HubIdleHubFlaky": WARNING},
        at=(100, 101, 102),
        silent=(),
    ),
    Case(
        "servers are not asked, but not stopped either",
        turns("suspended", 60)
        | {own("busy_check"): then(1, 60, 0), own("standby"): then(0, 60, 1)},
        silent=(61, 65, 200),
    ),
    Case(
        "a server was stopped and still runs",
        {own("cull_failures_total", cause="not_stopped"): then(0, 60, 1)},
        {"HubIdleServersNotStopping": CRITICAL},
        at=(61, 200, 400),
        silent=(50, 440),
    ),
    Case(
        "the exporter goes away after a server was stopped and still runs",
        _away(100, {own("cull_failures_total", cause="not_stopped"): then(0, 60, 1)}),
        {"HubIdleServersNotStopping": CRITICAL},
        at=(102,),
    ),
    # -- the exporter is away
    Case(
        "the exporter dies",
        _dies(60),
        {"HubIdleExporterDown": WARNING},
        at=(75, 100, 250),
        silent=(50, 65),
    ),
    Case(
        "two of three scrapes fail",
        {
            name: _told(values.partition("x")[0].partition("+")[0], 1, 2, 200)
            for name, values in good().items()
        }
        | {"up{}": "1 0 0 " * 400, LAST_SUCCESS: each(60)},
        {"HubIdleExporterDown": WARNING},
        at=(40, 41, 42, 43, 100, 101),
        silent=(3,),
    ),
    Case(
        "the exporter is started anew once",
        _away(60)
        | {
            "up{}": f"1x59 0x1 {always(1)}",
            **{
                name: f"{ends(values, 60)} _x1 {values}"
                for name, values in good().items()
                if name not in ("up{}", LAST_SUCCESS)
            },
            STARTED: f"1000x59 stale _x1 {always(4000)}",
            LAST_SUCCESS: f"0+60x59 stale _x1 {each(60, 3720)}",
        },
        silent=(61, 64, 70, 80, 120),
    ),
    Case(
        "the exporter crashes every five minutes",
        _crash_loop(4, 1),
        {"HubIdleExporterRestarting": WARNING},
        at=(62, 100, 250),
        silent=(12,),
    ),
    Case(
        "the exporter crashes again and again, and is away for eight minutes each time",
        _crash_loop(4, 8),
        {"HubIdleExporterRestarting": WARNING},
        at=(120, 245),
        silent=(3,),
    ),
    Case(
        "the exporter crashes for an hour",
        {STARTED: f"{steps(5, range(1000, 1012))} {always(1012)}"},
        {"HubIdleExporterRestarting": WARNING},
        at=(62, 100),
        silent=(12, 140),
    ),
    Case(
        "the exporter crashes every five minutes, between two scrapes",
        {
            **stops_nothing(),
            own("enforcement", state="on"): always(0),
            own("enforcement", state="grace"): always(1),
            STARTED: steps(5, range(1000, 1100)),
        },
        {"HubIdleExporterRestarting": WARNING},
        at=(62, 100, 250),
        silent=(12,),
    ),
    # -- the Hub cannot be read
    Case(
        "the Hub is away",
        _unread(60, "connection"),
        {"HubIdleHubUnreachable": WARNING},
        at=(75, 100, 150),
        silent=(50, 64),
    ),
    Case(
        "one poll of an hour fails",
        _by_interval(60)
        | _no_facts(300, 360)
        | {
            failures("timeout"): then(0, 300, 1),
            LAST_SUCCESS: steps(
                60, (3600 * (4 if number == 5 else number) for number in range(25))
            ),
            own("enforcement", state="on"): f"1x299 0x59 {always(1)}",
            own("enforcement", state="suspended"): f"0x299 1x59 {always(0)}",
        },
        silent=(280, 310, 355, 400),
    ),
    Case(
        "the Hub answers every third poll, of a minute",
        _flaky(1),
        {"HubIdleHubFlaky": WARNING},
        at=(100, 300),
        silent=(5,),
    ),
    Case(
        "the Hub answers every third poll, of an hour",
        _flaky(60),
        {"HubIdleHubFlaky": WARNING},
        at=(800,),
        silent=(200,),
    ),
    Case(
        "polls have stopped",
        _counters_stop(60)
        | {
            LAST_SUCCESS: f"0+60x59 {always(3540)}",
            own("polls_total"): f"0+1x59 {always(59)}",
            CANDIDATES: then(3, 60, 0),
        },
        {"HubIdleDataStale": WARNING},
        at=(75, 100),
        silent=(50, 63),
    ),
    Case(
        "polls every ten seconds, scraped every minute",
        {INTERVAL: always(10), LAST_SUCCESS: each(60, -50)},
        silent=(50, 100, 300),
    ),
    Case(
        "polls take two intervals",
        {LAST_SUCCESS: each(60, -110)},
        silent=(50, 100, 300),
    ),
    # -- scopes and suspension
    Case(
        "the token may not read servers any more",
        _unread(60, "scope") | {own("scope_granted", scope="read:servers"): then(1, 60, 0)},
        {"HubIdleScopeMissing": WARNING | {"scope": "read:servers"}},
        at=(75, 200),
        silent=(50, 63),
    ),
    Case(
        "the token may not stop servers any more",
        turns("suspended", 60)
        | _counters_stop(60)
        | {own("scope_granted", scope="delete:servers"): then(1, 60, 0)},
        {"HubIdleScopeMissing": WARNING | {"scope": "delete:servers"}},
        at=(75, 200),
        silent=(50, 63),
    ),
    Case(
        "the probe user is a Hub admin",
        turns("suspended", 60) | _counters_stop(60),
        {"HubIdleCullingSuspended": WARNING | {"state": "suspended"}},
        at=(80, 200),
        silent=(50, 70),
    ),
    Case(
        "the grace period never ends",
        turns("grace", 240) | _counters_stop(240),
        {"HubIdleCullingRarelyOn": WARNING},
        at=(360, 450),
        silent=(50, 270),
    ),
    Case(
        "the grace period ends after four hours, and culling is on again",
        {
            own("enforcement", state="on"): f"1x239 0x239 {always(1)}",
            own("enforcement", state="grace"): f"0x239 1x239 {always(0)}",
        },
        {"HubIdleCullingRarelyOn": WARNING},
        at=(460,),
        silent=(50, 558),
    ),
    Case(
        "the exporter is away for three and a half hours, and back with a grace of ten minutes",
        {name: _gap(values, 60, 270) for name, values in good().items()}
        | {
            "up{}": f"1x59 0x209 {always(1)}",
            own("enforcement", state="on"): f"1x59 stale _x209 0x9 {always(1)}",
            own("enforcement", state="grace"): f"0x59 stale _x209 1x9 {always(0)}",
            STARTED: f"1000x59 stale _x209 {always(16200)}",
            LAST_SUCCESS: f"0+60x59 stale _x209 {each(60, 16200)}",
        },
        {"HubIdleExporterDown": WARNING},
        at=(80, 260),
        silent=(50, 286, 300, 330),
    ),
    Case(
        "a grace period of ten minutes, with forty candidates, at an interval of 20 minutes",
        _by_interval(20)
        | {
            own("enforcement", state="on"): f"0x9 {always(1)}",
            own("enforcement", state="grace"): f"1x9 {always(0)}",
            CANDIDATES: f"40x19 {always(3)}",
        },
        silent=(100, 180, 260),
    ),
    Case(
        "a grace period of ten minutes, with forty candidates",
        {
            own("enforcement", state="on"): f"0x9 1x290 0x9 {always(1)}",
            own("enforcement", state="grace"): f"1x9 0x290 1x9 {always(0)}",
            own("grace_seconds"): f"600-60x9 0x290 600-60x9 {always(0)}",
            CANDIDATES: f"40x9 3x290 40x9 {always(3)}",
        },
        silent=(20, 60, 100, 200, 320, 400, 500),
    ),
    Case(
        "a grace period of three hours, after a start at four hours",
        {
            own("enforcement", state="on"): f"1x239 0x179 {always(1)}",
            own("enforcement", state="grace"): f"0x239 1x179 {always(0)}",
            own("grace_seconds"): f"0x239 10800-60x179 {always(0)}",
        },
        silent=(250, 330, 400, 430, 500),
    ),
    # -- stops
    Case(
        "every stop is refused",
        {
            CULLS: f"0+1x59 {always(59)}",
            own("cull_failures_total", cause="http"): grows_from(60, 1),
            CANDIDATES: then(3, 60, 6),
        },
        {"HubIdleCullsFailing": WARNING},
        at=(85, 200),
        silent=(50, 62),
    ),
    Case(
        "one slow stop of four",
        {
            CULLS: f"0x10 1x10 2x10 {always(3)}",
            ATTEMPTS: f"0x10 1x10 2x10 3x10 {always(4)}",
            CANDIDATES: always(1),
            own("cull_failures_total", cause="slow"): f"0x40 {always(1)}",
        },
        silent=(50, 90, 200),
    ),
    Case(
        "no server can be asked",
        _failing_probes(3),
        {"HubIdleEveryProbeFailing": WARNING},
        at=(120, 160, 300),
        silent=(50, 80),
    ),
    Case(
        "one broken server, alone",
        _failing_probes(1),
        silent=(90, 200, 300),
    ),
    Case(
        "one broken server among many",
        {
            CANDIDATES: then(3, 60, 4),
            own("busy_checks_total", result="failed"): grows_from(60, 1),
            withheld("probe_failed"): grows_from(60, 1),
        },
        silent=(90, 200, 300),
    ),
    Case(
        "more servers become idle than may be stopped",
        {CANDIDATES: then(3, 60, 8), withheld("limit"): grows_from(60, 5)},
        {"HubIdleCandidatesWaiting": WARNING},
        at=(170, 300),
        silent=(50, 120),
    ),
    *(
        Case(
            f"candidates are withheld for {cause}",
            {CANDIDATES: then(3, 60, 8), withheld(cause): grows_from(60, 5)},
            {"HubIdleCandidatesWaiting": WARNING},
            at=(170,),
        )
        for cause in ("probe_failed", "gate", "list", "stale")
    ),
    Case(
        "a hundred servers compute",
        {CANDIDATES: then(3, 60, 103), withheld("busy"): f"0+1x59 {each(101, 160)}"},
        silent=(120, 200, 300),
    ),
    *(
        Case(
            f"servers cannot be asked, at an interval of {minutes} minutes",
            _by_interval(minutes)
            | {
                CANDIDATES: then(3, 240, 8),
                own("busy_checks_total", result="failed"): "0x239 "
                + steps(minutes, range(0, 160, 8)),
                **{
                    name: f"{steps(minutes, range(240 // minutes))} {always(240 // minutes)}"
                    for name in stops_nothing()
                },
                withheld("probe_failed"): "0x239 " + steps(minutes, range(0, 160, 8)),
            },
            {"HubIdleEveryProbeFailing": WARNING},
            at=(420,),
            silent=(200,),
        )
        for minutes in (20, 60)
    ),
    *(
        Case(
            f"candidates wait, at an interval of {minutes} minutes",
            _by_interval(minutes) | {CANDIDATES: then(3, 240, 8)},
            {"HubIdleCandidatesWaiting": WARNING},
            at=(500,),
            silent=(200,),
        )
        for minutes in (20, 60)
    ),
    Case("all is well at an interval of an hour", _by_interval(60), silent=(250, 450)),
    Case(
        "all is well at an interval of a second",
        {
            INTERVAL: always(1),
            own("polls_total"): each(60),
            **dict.fromkeys(stops_nothing(), each(60)),
        },
        silent=(200, 250),
    ),
    # -- the second opinion
    Case(
        "the spare query fails at each poll",
        _query_fails(1, 60),
        {"HubIdleSpareQueryFailed": WARNING},
        at=(95, 170, 300),
        silent=(50, 72),
    ),
    Case(
        "the spare query fails at each poll, in monitor mode",
        watching() | {QUERY_OK: f"0+1x59 {always(59)}", QUERY_FAILED: grows_from(60, 1)},
        {"HubIdleSpareQueryFailed": WARNING},
        at=(95,),
    ),
    Case(
        "the spare query fails at each poll, of an hour",
        _by_interval(60) | _query_fails(60, 480),
        {"HubIdleSpareQueryFailed": WARNING},
        at=(680, 800),
        silent=(470, 500),
    ),
    Case(
        "the spare query fails once, after the start, at an interval of an hour",
        _by_interval(60)
        | {QUERY_OK: f"0x64 {steps(60, range(1, 24))}", QUERY_FAILED: then(0, 5, 1)},
        silent=(30, 60, 100),
    ),
    Case(
        "the spare query fails twice, at an interval of 20 minutes",
        _by_interval(20)
        | {
            QUERY_OK: f"{steps(20, range(12))} 11x39 {steps(20, range(12, 70))}",
            QUERY_FAILED: f"0x239 1x19 {always(2)}",
        },
        silent=(250, 300, 340, 400),
    ),
    Case(
        "the Prometheus that is asked starts anew, for eight minutes",
        {
            QUERY_OK: f"0+1x59 59x7 {each(1, 60)}",
            QUERY_FAILED: f"0x59 1+1x7 {always(8)}",
        },
        silent=(65, 75, 90, 120),
    ),
    Case(
        "no spare query",
        {QUERY_OK: always(0)},
        silent=(50, 100, 300),
    ),
    Case(
        "the second opinion spares a hundred servers all along",
        {CANDIDATES: then(3, 60, 103), withheld("in_use"): grows_from(60, 100)},
        silent=(120, 200, 300),
    ),
    # -- people who are told before
    Case(
        "nobody can be told any more",
        {
            CANDIDATES: then(3, 60, 8),
            withheld("notice"): grows_from(60, 5),
            UNTOLD: then(0, 60, 5),
            UNTOLD_SINCE: then(0, 60, 3600),
        },
        {"HubIdlePeopleNotTold": WARNING},
        at=(92, 170),
        silent=(50, 88),
    ),
    Case(
        "one person can never be told",
        {
            CANDIDATES: then(3, 60, 4),
            withheld("notice"): grows_from(60, 1),
            UNTOLD: then(0, 60, 1),
            UNTOLD_SINCE: then(0, 60, 3600),
        },
        {"HubIdlePeopleNotTold": WARNING},
        at=(92, 130),
        silent=(50, 88),
    ),
    Case(
        "the mail server is away for 25 minutes, at an interval of an hour",
        _by_interval(60)
        | {UNTOLD: f"0x59 4x24 {always(0)}", UNTOLD_SINCE: f"0x59 3600x24 {always(0)}"},
        silent=(70, 83, 90, 120),
    ),
    Case(
        "each notice is delivered at the second try",
        {UNTOLD: always(2), UNTOLD_SINCE: each(60, -30)},
        silent=(50, 100),
    ),
    Case(
        "at each poll two servers are kept, and of three the notice is not over",
        {
            CANDIDATES: then(3, 60, 8),
            withheld("kept"): grows_from(60, 2),
            withheld("notice"): grows_from(60, 3),
        },
        silent=(170,),
    ),
    Case(
        "five servers wait for the end of their notice, at an interval of an hour",
        _by_interval(60)
        | {CANDIDATES: then(3, 240, 8), withheld("notice"): f"0x239 {steps(60, range(0, 100, 5))}"},
        silent=(500,),
    ),
    # -- idle users, who are listed and deleted once an hour
    Case(
        "a user cannot be deleted",
        {NOT_DELETED: "0x59 " + steps(60, range(1, 24))},
        {"HubIdleUserDeletionsFailing": WARNING},
        at=(170, 200, 230, 290),
        silent=(50, 158),
    ),
    Case(
        "every deletion of one listing fails",
        {NOT_DELETED: f"0x59 0+10x9 {always(100)}"},
        silent=(62, 155, 160, 165, 200),
    ),
    # -- what it costs, and the rest
    Case(
        "more than half of the servers are idle, and nobody stops them",
        watching()
        | {
            hubs("servers", policy="default", state="active"): then(12, 60, 3),
            hubs("servers", policy="default", state="idle"): then(1, 60, 9),
            CANDIDATES: then(1, 60, 9),
        },
        {"HubIdleShareHigh": {"severity": "info"}},
        at=(190,),
        silent=(50, 150),
    ),
    Case(
        "most servers look idle and compute, as an exporter sees it that stands by",
        standing_by()
        | {
            hubs("servers", policy="default", state="idle"): always(40),
            CANDIDATES: always(40),
        },
        silent=(190,),
    ),
    Case(
        "idle servers that are exempt",
        watching()
        | {
            hubs("servers", policy="default", state="active"): always(8),
            hubs("servers", policy="default", state="idle"): always(4),
            CANDIDATES: always(4),
            hubs("servers", policy="staff", state="idle"): always(30),
            hubs("cull_candidates", policy="staff", reason="idle"): always(0),
            hubs("policy_exempt", policy="staff"): always(1),
        },
        silent=(190,),
    ),
    Case(
        "most servers are idle, beside exempt ones in use",
        watching()
        | {
            hubs("servers", policy="default", state="active"): always(4),
            hubs("servers", policy="default", state="idle"): always(8),
            CANDIDATES: always(8),
            hubs("servers", policy="staff", state="active"): always(30),
            hubs("cull_candidates", policy="staff", reason="idle"): always(0),
            hubs("policy_exempt", policy="staff"): always(1),
        },
        {"HubIdleShareHigh": {"severity": "info"}},
        at=(190,),
    ),
    Case(
        "most servers look idle and compute, and others are old",
        {
            hubs("servers", policy="default", state="idle"): always(40),
            CANDIDATES: always(40),
            withheld("busy"): each(38),
        },
        silent=(190,),
    ),
    Case(
        "most servers are too old, in monitor mode",
        watching()
        | {
            hubs("servers", policy="default", state="active"): always(40),
            hubs("cull_candidates", policy="default", reason="max_age"): always(40),
        },
        silent=(190,),
    ),
    *(
        Case(
            f"servers are stopped without {safeguard}",
            {own("safeguard", safeguard=safeguard): then(1, 60, 0)},
            {"HubIdleSafeguardMissing": WARNING | {"safeguard": safeguard}},
            at=(80, 300),
            silent=(50, 70),
        )
        for safeguard in ("lease", "stop_token")
    ),
    Case(
        "the policy file is broken for a day",
        {own("policy_file_valid"): then(1, 60, 0)},
        {"HubIdlePolicyFileBroken": WARNING},
        at=(70, 300, 600),
        silent=(50, 63),
    ),
    Case(
        "the policy file is broken and mended",
        {own("policy_file_valid"): f"1x59 0x59 {always(1)}"},
        {"HubIdlePolicyFileBroken": WARNING},
        at=(70, 110),
        silent=(50, 63, 121),
    ),
    Case(
        "the web configuration file is broken",
        {own("web_config_file_valid"): f"1x59 0x59 {always(1)}"},
        {"HubIdleWebConfigBroken": WARNING},
        at=(70, 110),
        silent=(50, 63, 121),
    ),
    Case(
        "the clocks differ by 45 seconds",
        {own("clock_skew_seconds"): f"-3x59 -45x59 {always(-3)}"},
        {"HubIdleClockSkew": WARNING},
        at=(75, 110),
        silent=(50, 67, 140),
    ),
]

_BEFORE_DEATH = {
    "its Hub is flaky": "the Hub answers every third poll, of a minute",
    "stops are refused": "every stop is refused",
    "no server can be asked": "no server can be asked",
    "servers wait": "more servers become idle than may be stopped",
    "the spare query fails": "the spare query fails at each poll",
    "a user cannot be deleted": "a user cannot be deleted",
}
_BY_NAME = {case.name: case for case in FAULTS}
FAULTS += [
    Case(
        f"the exporter dies while {what}",
        _dies(180, _BY_NAME[name].changed),
        {"HubIdleExporterDown": WARNING},
        at=(200, 230),
        silent=(4,),
    )
    for what, name in _BEFORE_DEATH.items()
]

FAULTS += [
    Case(
        "the exporter dies in a grace period that never ends",
        _dies(420, turns("grace", 240) | _counters_stop(240)),
        {"HubIdleExporterDown": WARNING},
        at=(450, 480),
        silent=(50, 270),
    )
]

# -- what is about a Hub, not about an exporter: alerts have other labels than the target's

_LATE = "_x59 " + always(1)


def of_a_hub(labels: Labels) -> list[Case]:
    """Give the faults whose alerts are by Hub or namespace; `labels` are those of the exporter."""
    place = {name: labels[name] for name in ("cluster", "namespace") if name in labels}
    of_job = {
        name: labels[name] for name in ("job", "cluster", "namespace", "hub") if name in labels
    }
    orphans = {"HubIdleOrphanPods": CRITICAL | place}
    second = labels | {"instance": "hub:9900", "hub": "second"}
    fills_up = [f"_x{minute - 1} {always(1)}" for minute in range(60, 300, 3)]
    return [
        Case(
            "service discovery forgets the exporter",
            _away(60),
            {"HubIdleExporterGone": WARNING | of_job},
            at=(80, 300),
            silent=(50, 70),
        ),
        Case(
            "something else answers in the exporter's place",
            _away(60) | {"up{}": always(1), STARTED: always(1000)},
            {"HubIdleExporterGone": WARNING | of_job},
            at=(80, 300),
            silent=(50, 70),
        ),
        Case(
            "a dead exporter is forgotten",
            _away(60) | {"up{}": "1x59 0x119 stale"},
            {"HubIdleExporterGone": WARNING | of_job},
            at=(200, 400),
            silent=(50, 187),
        ),
        Case(
            "another pod replaces the exporter",
            _away(60),
            more=(
                (
                    labels | {"instance": "other:9899"},
                    {
                        name: f"_x57 {values if name != LAST_SUCCESS else each(60, 3420)}"
                        for name, values in good().items()
                    },
                ),
            ),
            silent=(50, 62, 80, 300),
        ),
        # -- pods that the Hub does not know
        Case(
            "orphans",
            {},
            orphans,
            at=(110,),
            silent=(50, 80),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
        ),
        Case(
            "orphans, in monitor mode",
            watching(),
            orphans,
            at=(110,),
            silent=(50, 80),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
        ),
        Case(
            "orphans, at an interval of an hour",
            _by_interval(60),
            orphans,
            at=(250, 320),
            silent=(50, 150),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
        ),
        Case(
            "orphans, beside an exporter that stands by",
            {},
            orphans,
            at=(110,),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
            more=((labels | {"instance": "hub:9900"}, good() | standing_by()),),
        ),
        Case(
            "a pod lives on for some minutes",
            {},
            silent=(70, 80, 95, 120),
            added=pods(labels, [always(1)] * SERVERS + ["_x59 1x19 stale"]),
        ),
        Case(
            "a Hub fills up, seen two minutes late",
            {
                hubs("servers", policy="default", state="active"): f"{SERVERS - 1}x62 "
                + steps(3, range(SERVERS, SERVERS + 80))
                + f" {always(SERVERS + 79)}"
            },
            silent=(90, 150, 200, 290, 400),
            added=pods(labels, [*[always(1)] * SERVERS, *fills_up]),
        ),
        Case(
            "a Hub fills up, seen every hour",
            _by_interval(60)
            | {
                hubs("servers", policy="default", state="active"): f"{SERVERS - 1}x59 "
                + steps(60, range(SERVERS, SERVERS + 80, 20))
                + f" {always(SERVERS + 79)}"
            },
            silent=(100, 170, 220, 290, 400, 500),
            added=pods(labels, [*[always(1)] * SERVERS, *fills_up]),
        ),
        Case(
            "no kube-state-metrics",
            {},
            silent=(110,),
            added=dict.fromkeys(hubs_pods(labels), f"_x{END}"),
        ),
        Case(
            "kube-state-metrics says where it runs itself",
            {},
            silent=(110,),
            added={
                name.replace("}", ', exported_namespace="elsewhere"}'): life
                for name, life in pods(labels, [always(1)] * 9).items()
            },
        ),
        Case(
            "users who cannot be decoded have pods",
            {own("unreadable_users"): then(0, 60, 2)},
            silent=(110,),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
        ),
        Case(
            "users outside the filter of the token have pods",
            {own("scope_filtered", scope="read:servers"): always(1)},
            silent=(110,),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
        ),
        Case(
            "polls have stopped, and new pods start",
            _BY_NAME["polls have stopped"].changed,
            {"HubIdleDataStale": WARNING | labels},
            at=(110,),
            added=pods(labels, [always(1)] * SERVERS + [_LATE] * 2),
        ),
        Case(
            "two Hubs in one namespace",
            {},
            silent=(110,),
            added=pods(labels, [always(1)] * 2 * SERVERS) | pods(labels, [always(1)] * 2, "hub"),
            more=((second, good()),),
        ),
        Case(
            "two Hubs in one namespace, and one exporter dies",
            {},
            {"HubIdleExporterDown": WARNING | second},
            at=(110, 400),
            added=pods(labels, [always(1)] * 2 * SERVERS) | pods(labels, [always(1)] * 2, "hub"),
            more=((second, _dies(60)),),
        ),
    ]
