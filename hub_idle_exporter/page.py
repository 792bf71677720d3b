"""The page at `/`: what the Hub looks like now, for people. No user names."""

from .config import Config
from .gatekeeper import Gatekeeper
from .metrics import Metrics
from .poller import Poller


class Page:
    """Renders the page from what is there, without asking the Hub."""

    def __init__(
        self, poller: Poller, gatekeeper: Gatekeeper, metrics: Metrics, config: Config
    ) -> None:
        self._poller, self._gatekeeper = poller, gatekeeper
        self._metrics, self._config = metrics, config

    def render(self) -> str:
        """Give the page as HTML."""
        return '<!doctype html><title>hub_idle_exporter</title><a href="/metrics">Metrics</a>\n'
