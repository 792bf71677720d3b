"""`check`: check the configuration and change nothing; one line per finding."""

from collections.abc import Callable, Mapping, Sequence

import click

from ..deleting.listing import read_idle_users
from ..domain.blind_spots import blind_spots
from ..domain.durations import shown
from ..domain.idle_users import CANDIDATE
from ..domain.labels import Cause
from ..domain.lease import leases
from ..domain.policy import JudgedServer, Reason
from ..domain.poll_state import PollState, Snapshot
from ..domain.requirements import Subject
from ..domain.settings import BusyCheck, CullSettings, Settings, WebSettings
from ..hub.client import Hub
from ..hub.errors import HubError
from ..sidecar import assemble, prepared, web_config
from ..watched_file import FileError, exposed_to_others
from .check_opinion import check_opinion
from .check_page import check_page
from .check_promises import check_promises
from .report import Report

# Smaller differences are not reported: the Date header is exact only to the second.
_SKEW_SECONDS = 2.0
_MOST_SHOWN = 20
# How long the token is valid that is minted to see whether such tokens work, in seconds.
_TRIAL_SECONDS = 60


def check(settings: Settings, environ: Mapping[str, str]) -> int:
    """Check everything once; return 0 if the sidecar would work as configured, else 1."""
    sidecar = assemble(settings, prepared(settings, environ), only_reads=True)
    asks = settings.spare_query is not None
    state = sidecar.observer.observe(sidecar.latest.state, keep_all=asks)
    report = Report()
    _variables(report, settings)
    _exposed_files(report, settings)
    _policies(report, settings, state)
    check_promises(report, settings, state, sidecar.stopping.wait)
    check_page(report, state, environ)
    _web(report, settings.web, sidecar.stopping.wait)
    _hub(report, settings, state)
    _scopes(report, state)
    _other_findings(report, state)
    _probe_user(report, settings, state, sidecar.hub)
    _blind_spots(report, settings, state)
    _roles(state)
    if state.snapshot is not None:
        check_opinion(report, settings.spare_query, state)
        _servers(report, settings.cull, state, state.snapshot)
        if settings.cull.users.delete:
            _idle_users(report, settings.cull, state, sidecar.hub)
    click.echo(f"The sidecar {'would not' if report.failed else 'would'} work as configured.")
    return 1 if report.failed else 0


def _variables(report: Report, settings: Settings) -> None:
    for name in settings.unknown_variables:
        report.warning(f"${name} has no effect: no option has this variable")


def _exposed_files(report: Report, settings: Settings) -> None:
    for exposed in map(exposed_to_others, settings.secret_files):
        if exposed is not None:
            report.warning(exposed)


def _policies(report: Report, settings: Settings, state: PollState) -> None:
    if settings.policy_file is not None:
        names = ", ".join(policy.name for policy in state.rules.policies)
        report.good(f"policy file {settings.policy_file} is valid; policies: {names}")


def _web(report: Report, web: WebSettings, wait: Callable[[float], bool]) -> None:
    try:
        source = web_config(web, wait)
    except FileError as error:
        report.bad(str(error))
        return
    if source is not None:
        protection = ", ".join(source.value.protection) or "plain HTTP, open to all"
        report.good(f"{source.name} is valid: {protection}")


def _hub(report: Report, settings: Settings, state: PollState) -> None:
    """Report the Hub's version, its clock, and whose token this is."""
    if state.version is None:
        return
    report.good(f"JupyterHub {state.version} answers at {settings.connection.url}")
    _clock(report, state)
    if state.identity is not None:
        report.good(f"the token belongs to the {state.identity.kind} {state.identity.name}")


def _clock(report: Report, state: PollState) -> None:
    """Report the Hub's clock; if the difference is a finding, it is reported with the others."""
    skew = state.clock_skew
    if skew is None:
        report.bad("the Hub sends no readable Date header: idle times cannot be computed")
    elif any(one.subject is Subject.CLOCKS for one in state.findings):
        return
    elif abs(skew) > _SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        report.note(f"the Hub's clock is {abs(skew):.0f} s {side} ours; idle times use the Hub's")
    else:
        report.good("the Hub's clock and ours agree within 2 s")


def _scopes(report: Report, state: PollState) -> None:
    """Report each scope."""
    granted = state.granted
    if granted is None:  # the Hub did not say
        return
    lacks = {one.scope: one for one in state.findings if one.scope is not None}
    for scope in (one.scope for one in state.requirements):
        if scope in lacks:
            report.unmet(lacks[scope])
        else:
            filters = ", ".join(f"!{condition}" for condition in sorted(granted.filters[scope]))
            report.good(f"scope {scope}{f' (only {filters})' if filters else ''}")


def _other_findings(report: Report, state: PollState) -> None:
    """Report all other findings, and why the Hub could not be read, if so."""
    for finding in state.findings:
        if finding.scope is None:
            report.unmet(finding)
    if state.error is not None and state.error.finding is None:
        report.bad(state.error.sentence)


def _probe_user(report: Report, settings: Settings, state: PollState, hub: Hub) -> None:
    """Report whether tokens of the probe user work, by using one, and what protects people."""
    if not settings.cull.enforce or state.snapshot is None:
        return
    name = settings.cull.probe_user
    about_user = (Subject.PROBE_USER, Subject.PROBE_USER_ROLE)
    if state.probe_user and not any(one.subject in about_user for one in state.findings):
        report.good(
            f"the user {name} has the scopes it needs, and nobody was seen to sign in as it"
        )
    if state.safeguards.lease:
        problem = _token_problem(hub, name)
        if problem is None:
            report.good(f"tokens of the user {name} work: one was minted, used and revoked")
        else:
            report.bad(problem)
    if state.safeguards.lease:
        _lease(report, hub, name)
    if settings.cull.busy_check is not BusyCheck.REQUIRE:
        for sentence in state.safeguards.lacks:
            report.warning(f"{sentence} (--busy-check={settings.cull.busy_check})")


def _lease(report: Report, hub: Hub, probe_user: str) -> None:
    """Tell that an exporter of this Hub stops servers now: it may be the one that is checked."""
    try:
        held = leases(hub.tokens(probe_user).tokens)
    except HubError:
        return  # tokens do not work, which is told already
    if held:
        report.note(
            "an exporter of this Hub holds the lease and stops servers now; another one waits "
            "until that one ends"
        )


def _token_problem(hub: Hub, name: str) -> str | None:
    """Say why a token of the probe user does not work; None if it does."""
    try:
        minted = hub.mint_token(name, [], _TRIAL_SECONDS, "check")
        try:
            hub.owner_of(minted.token)
        finally:
            hub.revoke_token(name, minted.id)
    except HubError as error:
        if error.cause is Cause.AUTH:
            return (
                f"the Hub refuses tokens of the user {name} that it has just made: its "
                "authenticator rejects that user (refresh_user). See `Keep its tokens valid` in "
                "the documentation"
            )
        return f"tokens of the user {name} do not work: {error}"
    return None


def _blind_spots(report: Report, settings: Settings, state: PollState) -> None:
    """Warn about what the exporter would not see, or not heed, when it stops servers."""
    for sentence in blind_spots(settings.cull, state.rules):
        report.warning(sentence)


def _roles(state: PollState) -> None:
    """Print the roles that are needed, if other roles would help."""
    if state.roles:
        click.echo(
            "These roles are enough. Put them at the end of jupyterhub_config.py, in place of any "
            "that you pasted there before, and restart the "
            f"Hub:\n{state.roles}"
        )


def _servers(report: Report, cull: CullSettings, state: PollState, snapshot: Snapshot) -> None:
    if snapshot.hidden_users:
        report.note(f"the servers of {snapshot.hidden_users} users are hidden from the token")
    if snapshot.unreadable:
        names = ", ".join(snapshot.some_unreadable)
        report.note(
            f"users who cannot be decoded and are left out: {len(snapshot.unreadable)} ({names}); "
            "their servers are not counted and not stopped"
        )
    if not snapshot.complete:
        report.note(
            "the list of users changed too much while it was read: the exporter would stop nothing "
            "at this poll"
        )
    total = snapshot.census.total
    report.good(f"{total} server{'' if total == 1 else 's'} seen")
    candidates = [one for one in snapshot.census.candidates if one.would_stop]
    spared = len(snapshot.census.candidates) - len(candidates)
    asked = _will_ask(cull, state)
    report.good(_would_be_stopped(candidates, cull, asked, report.failed))
    for candidate in candidates[:_MOST_SHOWN]:
        report.more(_described(candidate))
    if len(candidates) > _MOST_SHOWN:
        left = len(candidates) - _MOST_SHOWN
        report.more(f"... and {left} more: see `hub-idle-exporter servers`")
    if spared:
        report.note(f"spared by --spare-query: {spared}, see `hub-idle-exporter servers`")


def _will_ask(cull: CullSettings, state: PollState) -> bool:
    """Tell whether servers are asked before they are stopped; when not enforcing, if they would."""
    if cull.enforce and cull.busy_check is BusyCheck.AUTO:
        return state.safeguards.asks_servers
    return cull.busy_check is not BusyCheck.OFF


def _would_be_stopped(
    candidates: Sequence[JudgedServer], cull: CullSettings, asked: bool, failed: bool
) -> str:
    """Say how many would be stopped, and when; being in use protects from one limit only."""
    old = sum(one.reason is Reason.MAX_AGE for one in candidates)
    idle, parts = len(candidates) - old, []
    if idle:
        unless = "unless found in use" if asked else "without being asked whether they are in use"
        parts.append(f"{idle} past the idle limit, {unless}")
    if old:
        parts.append(f"{old} past the max age, even if in use")
    when = _when(cull, failed)
    return f"{len(candidates)} would be stopped {when}{': ' if parts else ''}{'; '.join(parts)}"


def _idle_users(report: Report, cull: CullSettings, state: PollState, hub: Hub) -> None:
    """Report who would be deleted, and what keeps other idle users."""
    if not state.sees_activity:
        return  # which is told already
    try:
        found = read_idle_users(hub, state, cull)
    except HubError as error:
        report.bad(f"idle users could not be listed: {error}")
        return
    kept = ", ".join(f"{one} {count}" for one, count in found.counts.items() if one != CANDIDATE)
    if cull.users.admins:
        report.warning("administrators of the Hub may be deleted too (--cull-admin-users)")
    if not found.complete:
        report.warning("the list of users changed too much while it was read; it may have gaps")
    tell = report.warning if found.candidates and cull.enforce else report.good
    tell(_would_be_deleted(len(found.candidates), cull, report.failed))
    for one in found.candidates[:_MOST_SHOWN]:
        report.more(f"{one.name}: idle {'unknown' if one.idle is None else shown(one.idle)}")
    if len(found.candidates) > _MOST_SHOWN:
        left = len(found.candidates) - _MOST_SHOWN
        report.more(f"... and {left} more: see `hub-idle-exporter servers --users`")
    if kept:
        report.note(f"idle users who are kept, by verdict: {kept}")


def _would_be_deleted(users: int, cull: CullSettings, failed: bool) -> str:
    limit = shown(cull.users.timeout)
    if not users:
        return f"no user is idle for {limit} and would be deleted"
    many = f"{users} user{'' if users == 1 else 's'} idle for {limit}"
    at_most = f" (at most {cull.max_culls} an hour)" if cull.max_culls else ""
    return f"{many} would be deleted{at_most}, which cannot be undone, {_when(cull, failed)}"


def _when(cull: CullSettings, failed: bool) -> str:
    if not cull.enforce:
        return "with --enforce"
    if failed:
        return "if it were not for the problems above"
    return f"now, after the grace period of {shown(cull.grace)}" if cull.grace else "now"


def _described(candidate: JudgedServer) -> str:
    name = f"{candidate.user}/{candidate.server}" if candidate.server else candidate.user
    idle = "unknown" if candidate.idle is None else shown(candidate.idle)
    return f"{name}: {candidate.reason}, idle {idle}, policy {candidate.policy.name}"
