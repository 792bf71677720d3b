"""Wires together everything that stops servers."""

import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..clocks import steady
from ..domain.poll_state import LatestState
from ..domain.settings import CullSettings
from ..hub.client import Hub
from ..metrics import Metrics
from ..people.promises import Promises
from ..prometheus.second_opinion import SecondOpinion
from .audit import Audit
from .clearance import Clearance
from .culler import Culler
from .gatekeeper import Gatekeeper
from .later import Later
from .lease import Election
from .permits import Permits
from .probe import Prober
from .removal import Remover
from .stopping import Stopper

# Sightings of a busy server that are further apart do not count as one: nobody looked in between.
_INTERVALS_APART = 3
# The end of the process does not wait longer than this for the Hub to take back the lease.
_RELEASE_SECONDS = 3.0


@dataclass(frozen=True)
class Enforcement:
    """What stops servers, and what decides whether this exporter is the one that does."""

    culler: Culler
    election: Election
    audit: Audit
    promises: Promises

    def start(self) -> None:
        """Start the threads."""
        self.culler.start()
        self.election.start()

    def release(self) -> None:
        """Let another exporter stop servers; log the stops that the Hub has not answered by then.

        The Hub is not waited for if it takes too long to answer.
        """
        releasing = threading.Thread(target=self.election.release, name="release", daemon=True)
        with suppress(RuntimeError):  # no thread is left: then the lease expires by itself
            releasing.start()
            releasing.join(_RELEASE_SECONDS)
        self.audit.cut_short()


def enforcement_of(
    hub: Hub,
    gatekeeper: Gatekeeper,
    promises: Promises,
    latest: LatestState,
    metrics: Metrics,
    settings: CullSettings,
    interval: float,
    tls: ssl.SSLContext | None,
    later: Later,
    stopping: threading.Event,
    clock: Callable[[], float] = steady,
    second_opinion: SecondOpinion | None = None,
) -> Enforcement:
    """Wire it together.

    Args:
        hub: the Hub whose servers are stopped.
        gatekeeper: asked before each stop.
        promises: what people keep, and who was told of a stop.
        latest: the newest poll state.
        metrics: where outcomes are counted.
        settings: whether and how servers are stopped.
        interval: seconds between polls.
        tls: for servers behind internal_ssl.
        later: runs what is due later.
        stopping: set when the sidecar shuts down.
        clock: our clock.
        second_opinion: knows who is at work; None without one.
    """
    owner, audit = settings.probe_user, Audit(metrics)
    election = Election(hub, owner, latest, gatekeeper, stopping, clock)
    permits = Permits(hub, owner, clock)
    clearance = Clearance(
        hub=hub,
        prober=Prober(hub, owner, tls, clock=clock),
        permits=permits,
        gatekeeper=gatekeeper,
        promises=promises,
        latest=latest,
        metrics=metrics,
        settings=settings,
        longest_gap=_INTERVALS_APART * interval,
        stopping=stopping,
        clock=clock,
    )
    remover = None
    if settings.remove_named_servers:
        remover = Remover(hub, permits, gatekeeper, latest, later, clock)
    stopper = Stopper(hub, election, promises.keeper, audit, stopping, clock)
    culler = Culler(
        hub=hub,
        clearance=clearance,
        stopper=stopper,
        remover=remover,
        promises=promises,
        later=later,
        trail=audit,
        gatekeeper=gatekeeper,
        second_opinion=second_opinion,
        settings=settings,
        stopping=stopping,
        clock=clock,
    )
    return Enforcement(culler, election, audit, promises)
