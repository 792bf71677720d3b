"""`check`: check the configuration and change nothing; one line per finding."""

import json
from collections.abc import Mapping

import click

from ..domain.durations import shown
from ..domain.policy import JudgedServer
from ..domain.poll_state import PollState, Snapshot
from ..domain.requirements import Finding, Severity
from ..domain.settings import BusyCheck, Settings
from ..hub.client import Hub
from ..hub.errors import HubError
from ..log import printable
from ..sidecar import assemble, prepared

# Smaller differences are not reported: the Date header is exact only to the second.
_SKEW_SECONDS = 2.0
_MOST_SHOWN = 20
# A server that does not exist: a token for it gives access to nothing.
_NO_SERVER = "hub-idle-exporter-check"

_ROLES = """\
c.JupyterHub.load_roles = [
    {{"name": "idle-exporter", "services": ["{service}"],
     "scopes": {scopes}}},
    {{"name": "idle-prober", "users": ["{prober}"], "scopes": ["access:servers"]}},
]"""


def check(settings: Settings, environ: Mapping[str, str]) -> int:
    """Check everything once; return 0 if the sidecar would work as configured, else 1."""
    sidecar = assemble(settings, prepared(settings, environ))
    state = sidecar.observer.observe(sidecar.latest.state)
    report = _Report()
    _policies(report, settings, state)
    _hub(report, settings, state)
    _scopes(report, settings, state)
    _asking(report, settings, state, sidecar.hub)
    _other_findings(report, state)
    if state.snapshot is not None:
        _servers(report, settings, state.snapshot)
    click.echo(f"The sidecar {'would not' if report.failed else 'would'} work as configured.")
    return 1 if report.failed else 0


class _Report:
    """Prints findings one by one, and remembers whether any of them is a problem."""

    def __init__(self) -> None:
        self.failed = False

    def good(self, sentence: str) -> None:
        click.echo(f"ok       {printable(sentence)}")

    def note(self, sentence: str) -> None:
        click.echo(f"note     {printable(sentence)}")

    def bad(self, sentence: str) -> None:
        self.failed = True
        click.echo(f"PROBLEM  {printable(sentence)}")

    def unmet(self, finding: Finding) -> None:
        """Print a requirement that is not met, by how serious that is."""
        if finding.severity >= Severity.SUSPENDS:
            self.bad(str(finding))
        elif finding.severity is Severity.WARNING:
            click.echo(f"warning  {printable(f'{finding}; {finding.consequence}')}")
        else:
            self.note(str(finding))


def _policies(report: _Report, settings: Settings, state: PollState) -> None:
    if settings.policy_file is not None:
        names = ", ".join(policy.name for policy in state.rules.policies)
        report.good(f"policy file {settings.policy_file} is valid; policies: {names}")


def _hub(report: _Report, settings: Settings, state: PollState) -> None:
    """Report the Hub's version, its clock, and whose token this is."""
    if state.version is None:
        return
    report.good(f"JupyterHub {state.version} answers at {settings.connection.url}")
    skew = state.clock_skew
    if skew is None:
        report.bad("the Hub sends no readable Date header: idle times cannot be computed")
    elif abs(skew) > _SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        report.note(f"the Hub's clock is {abs(skew):.0f} s {side} ours; idle times use the Hub's")
    else:
        report.good("the Hub's clock and ours agree within 2 s")
    if state.identity is not None:
        report.good(f"the token belongs to the {state.identity.kind} {state.identity.name}")


def _scopes(report: _Report, settings: Settings, state: PollState) -> None:
    """Report each scope, and print the roles if one is missing that these settings need."""
    granted = state.granted
    if granted is None:  # the Hub did not say
        return
    lacks = {one.scope: one for one in state.findings if one.scope is not None}
    for scope in (one.scope for one in state.requirements):
        if scope in lacks:
            report.unmet(lacks[scope])
        else:
            filters = ", ".join(f"!{condition}" for condition in granted.filters[scope])
            report.good(f"scope {scope}{f' (only {filters})' if filters else ''}")
    if any(one.severity > Severity.NOTE for one in lacks.values()):
        _roles(settings, state)


def _asking(report: _Report, settings: Settings, state: PollState, hub: Hub) -> None:
    """Report whether the busy check is possible, by minting a token for no existing server."""
    if settings.cull.busy_check is BusyCheck.OFF:
        report.note("--busy-check is off: servers are not asked before they are stopped")
    if not state.asks_servers:
        return
    problem = _minting_problem(hub, settings.cull.probe_user)
    if problem is None:
        report.good("the busy check is possible: a token for it was minted and revoked")
        return
    report.bad(f"the busy check fails, so no idle server would be stopped: {problem}")
    _roles(settings, state)


def _minting_problem(hub: Hub, prober: str) -> str | None:
    try:
        minted = hub.mint_token(prober, _NO_SERVER, "")
        hub.revoke_token(prober, minted.id)
    except HubError as error:
        return f"{error}; does the user {prober} exist, with a role that has access:servers?"
    return None


def _roles(settings: Settings, state: PollState) -> None:
    """Print the roles that these settings need, ready for the Hub's configuration."""
    needed = (one for one in state.requirements if one.severity > Severity.NOTE)
    scopes = json.dumps([grant for one in needed for grant in one.grants])
    service = state.identity.name if state.identity else "idle-exporter"
    click.echo("These roles are enough:")
    click.echo(_ROLES.format(service=service, prober=settings.cull.probe_user, scopes=scopes))


def _other_findings(report: _Report, state: PollState) -> None:
    """Print all other findings, and why the Hub could not be read, if so."""
    for finding in state.findings:
        if finding.scope is None:
            report.unmet(finding)
    if state.error is not None and state.error.finding is None:
        report.bad(state.error.sentence)


def _servers(report: _Report, settings: Settings, snapshot: Snapshot) -> None:
    if snapshot.hidden_users:
        report.note(f"the servers of {snapshot.hidden_users} users are hidden from the token")
    if snapshot.unreadable:
        names = ", ".join(snapshot.some_unreadable)
        report.note(
            f"users who cannot be decoded and are left out: {len(snapshot.unreadable)} ({names}); "
            "their servers are not counted and not stopped"
        )
    candidates = snapshot.census.candidates
    report.good(f"{snapshot.census.total} servers seen")
    if not settings.cull.enforce:
        when = "with --enforce"
    elif report.failed:
        when = "if it were not for the problems above"
    else:
        when = "now"
    report.good(f"{len(candidates)} would be stopped {when}, the idle ones unless found in use")
    for candidate in candidates[:_MOST_SHOWN]:
        click.echo(f"         {printable(_described(candidate))}")


def _described(candidate: JudgedServer) -> str:
    name = f"{candidate.user}/{candidate.server}" if candidate.server else candidate.user
    idle = "unknown" if candidate.idle is None else shown(candidate.idle)
    return f"{name}: {candidate.reason}, idle {idle}, policy {candidate.policy.name}"
