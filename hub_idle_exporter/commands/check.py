"""`check`: a preflight that changes nothing, one line a finding, exit 0 when all is well."""

import json
import threading
from collections.abc import Callable, Mapping

import click

from ..config import Config
from ..domain.census import Judged, judge_all, take
from ..domain.durations import shown
from ..domain.policy import Judge
from ..domain.scopes import PURPOSE, Granted, Scope
from ..hub.client import HubError
from ..log import printable
from ..poller import (
    Sight,
    asking_needs,
    asking_scopes,
    can_ask,
    checked_version,
    look,
    obstacles,
)
from ..sidecar import Sidecar, prepared

# A skew that matters: the Date header alone is good for a second.
_SKEW_SECONDS = 2.0
_MOST_SHOWN = 20
# A server that cannot be: a token for it opens nothing.
_NO_SERVER = "hub-idle-exporter-check"

_ROLES = """\
c.JupyterHub.load_roles = [
    {{"name": "idle-exporter", "services": ["{service}"],
     "scopes": {scopes}}},
    {{"name": "idle-prober", "users": ["{prober}"], "scopes": ["access:servers"]}},
]"""


class _Report:
    """Prints findings as they come, and remembers whether one of them is a problem."""

    def __init__(self) -> None:
        self.failed = False

    def good(self, sentence: str) -> None:
        click.echo(f"ok       {printable(sentence)}")

    def note(self, sentence: str) -> None:
        click.echo(f"note     {printable(sentence)}")

    def bad(self, sentence: str) -> None:
        self.failed = True
        click.echo(f"PROBLEM  {printable(sentence)}")


class _Preflight:
    """The steps of `check`, each of which needs the ones before."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar, self._hub = sidecar, sidecar.hub
        self._terms = sidecar.config.terms
        self.report = _Report()
        self._service = "idle-exporter"

    def run(self) -> None:
        self._policies()
        try:
            self._hub_itself()
            granted = self._token()
            if self._scopes(granted):
                self._servers(look(self._hub))
        except HubError as error:
            self.report.bad(str(error))

    def _policies(self) -> None:
        if self._sidecar.source is not None:
            names = ", ".join(policy.name for policy in self._sidecar.source.policies)
            self.report.good(f"policy file {self._sidecar.config.policy_file}: {names}")

    def _hub_itself(self) -> None:
        version = checked_version(self._hub.ask_version())
        self.report.good(f"JupyterHub {version} answers at {self._sidecar.config.connection.url}")
        skew = self._sidecar.clock_skew
        if skew is None:
            self.report.bad(
                "the Hub sends no Date header that can be read; its clock is what is gone by"
            )
        elif abs(skew) > _SKEW_SECONDS:
            self.report.note(f"the Hub's clock is {skew:+.0f} s from ours; the Hub's is gone by")
        else:
            self.report.good("the Hub's clock and ours agree within 2 s")

    def _token(self) -> Granted:
        identity = self._hub.identity()
        self._service = identity.name or self._service
        self.report.good(f"the token belongs to the {identity.kind or 'owner'} {identity.name}")
        return Granted.of(identity.scopes)

    def _scopes(self, granted: Granted) -> bool:
        """Name each scope, whether it is there, and what for; tell whether the Hub can be read."""
        needed = self._needed()
        for scope in Scope:
            self._scope(scope, granted, scope in needed)
        self._asking(granted)
        return granted.has(Scope.LIST_USERS) and granted.has(Scope.READ_SERVERS)

    def _needed(self) -> list[Scope]:
        groups = [Scope.READ_GROUPS] if self._sidecar.poller.rules.need_groups else []
        stops = [Scope.DELETE_SERVERS] if self._terms.enforce else []
        return [Scope.LIST_USERS, Scope.READ_SERVERS, *groups, *stops]

    def _scope(self, scope: Scope, granted: Granted, needed: bool) -> None:
        if granted.has(scope):
            filters = ", ".join(f"!{condition}" for condition in granted.filters[scope])
            self.report.good(f"scope {scope}{' (only ' + filters + ')' if filters else ''}")
        elif needed:
            self.report.bad(f"scope {scope} is missing: it is needed {PURPOSE[scope]}")
        else:
            self.report.note(f"scope {scope} is not granted: it would serve {PURPOSE[scope]}")

    def _asking(self, granted: Granted) -> None:
        """Say whether servers can be asked before a stop, by minting a token for none."""
        version, enforce = self._hub.version or "", self._terms.enforce
        if self._terms.busy_check == "off":
            self.report.note("--busy-check off: servers are not asked before they are stopped")
        elif not can_ask(version, granted, self._terms):
            required = enforce and self._terms.busy_check == "require"
            complain = self.report.bad if required else self.report.note
            self._cannot_ask(complain, asking_needs(version, self._terms))
        elif not enforce:
            self.report.note("the token's scopes are enough to ask servers before they are stopped")
        elif (problem := self._minting_problem()) is not None:
            self._cannot_ask(self.report.bad, f"{problem}; so none would ever be stopped")
        else:
            self.report.good("servers can be asked whether they are busy before they are stopped")

    def _cannot_ask(self, complain: Callable[[str], None], problem: str) -> None:
        complain(f"servers cannot be asked before they are stopped: {problem}")
        asking = asking_scopes(self._hub.version or "", self._terms)
        scopes = json.dumps([*self._needed(), *asking])
        click.echo("These roles are enough:")
        prober = self._terms.probe_user
        click.echo(_ROLES.format(service=self._service, prober=prober, scopes=scopes))

    def _minting_problem(self) -> str | None:
        prober = self._terms.probe_user
        try:
            minted = self._hub.mint_token(prober, _NO_SERVER, "")
            self._hub.revoke_token(prober, minted.id)
        except HubError as error:
            return f"is there a user {prober} with a role access:servers? ({error})"
        return None

    def _servers(self, sight: Sight) -> None:
        rules, listing = self._sidecar.poller.rules, sight.listing
        for sentence in obstacles(sight, self._terms, rules):
            if "lacks the scope" not in sentence:  # these are named above
                self.report.bad(sentence)
        judged = judge_all(Judge(rules, sight.granted), listing.users.values(), listing.now)
        census = take(judged, rules)
        if listing.unseen:
            self.report.note(f"{listing.unseen} users are out of the token's sight")
        self.report.good(f"{len(judged)} servers seen")
        verb = "would be stopped now" if self._terms.enforce else "would be stopped with --enforce"
        self.report.good(f"{len(census.candidates)} {verb}, if they are idle when asked")
        for candidate in census.candidates[:_MOST_SHOWN]:
            click.echo(f"         {printable(_told(candidate))}")


def _told(candidate: Judged) -> str:
    verdict = candidate.verdict
    name = f"{candidate.user}/{candidate.server}" if candidate.server else candidate.user
    idle = "unknown" if verdict.idle is None else shown(verdict.idle)
    return f"{name}: {verdict.reason}, idle {idle}, policy {verdict.policy.name}"


def check(config: Config, environ: Mapping[str, str]) -> int:
    """Look at everything once; give 0 when the sidecar would work as configured, else 1."""
    sidecar = Sidecar(config, prepared(config, environ), threading.Event(), memory=False)
    preflight = _Preflight(sidecar)
    preflight.run()
    failed = preflight.report.failed
    click.echo(f"The sidecar {'would not' if failed else 'would'} work as configured.")
    return 1 if failed else 0
