"""What happens in the simulated histories of which pictures are drawn: thirteen scenarios."""

from collections.abc import Mapping
from dataclasses import dataclass, field

HOUR, DAY = 3600.0, 86400.0
# Minutes without the Hub, this long before the end.
SHORT_OUTAGE = (5.2 * HOUR, 5.1 * HOUR)


@dataclass(frozen=True)
class SimulatedHub:
    """A Hub with its exporter, and what happens to them; times are seconds before the end.

    `extra` are labels that Prometheus adds besides job and instance. `enforced_for` 0 is
    monitoring; without `asks` servers are stopped without being asked. `rolled_out`: when other
    pods replaced the exporter, each with an address of its own. With a `notice` people are told
    before a stop, and keep servers; nobody can be told `untold_for`. With a
    `second_opinion` a query says who computes.
    """

    people: int = 200
    instance: str = "hub:9899"
    extra: Mapping[str, str] = field(default_factory=dict)
    interval: int = 60
    timeout: float = HOUR
    enforced_for: float = 3 * HOUR
    asks: bool = True
    exporter_down_for: float = 0.0
    exporter_forgotten_for: float = 0.0
    rolled_out: tuple[float, ...] = ()
    hub_down_for: float = 0.0
    polls_hang_for: float = 0.0
    policy_broken_for: float = 0.0
    notice: float = 0.0
    untold_for: float = 0.0
    second_opinion: bool = False
    seed: int = 20

    @property
    def enforces(self) -> bool:
        """Tell whether servers are stopped at some time."""
        return self.enforced_for > 0

    @property
    def labels(self) -> str:
        """Give the extra labels as they stand behind others."""
        return "".join(f',{name}="{value}"' for name, value in self.extra.items())

    @property
    def own_instance(self) -> str:
        """Give the address at which the Hub's own metrics are."""
        return f"{self.instance.partition(':')[0]}:8081"

    def pod(self, before_end: float) -> int:
        """Count the pods that were replaced until then."""
        return sum(before_end <= when for when in self.rolled_out)

    def address(self, before_end: float) -> str:
        """Give the `instance` of the exporter that ran then."""
        return f"10.0.0.{self.pod(before_end)}:9899" if self.rolled_out else self.instance

    def is_away(self, before_end: float) -> bool:
        """Tell whether the Hub does not answer."""
        return before_end < self.hub_down_for or SHORT_OUTAGE[1] < before_end < SHORT_OUTAGE[0]


@dataclass(frozen=True)
class Scenario:
    """Hubs that one Prometheus watches, and the price that somebody typed."""

    hubs: tuple[SimulatedHub, ...]
    cost: str = "0.12"


def _one(cost: str = "0.12", **what: float) -> Scenario:
    return Scenario((SimulatedHub(**what),), cost)  # type: ignore[arg-type]


def _three() -> Scenario:
    """Give three Hubs in two clusters; two have the same address there, one exporter is down."""
    return Scenario(
        (
            SimulatedHub(extra={"cluster": "north", "hub": "physics"}),
            SimulatedHub(120, extra={"cluster": "south", "hub": "biology"}, enforced_for=0, seed=3),
            SimulatedHub(
                90,
                instance="maths:9899",
                extra={"cluster": "south", "hub": "maths"},
                timeout=4 * HOUR,
                exporter_down_for=HOUR,
                seed=7,
            ),
        )
    )


SCENARIOS = {
    "small": _one(notice=900.0, second_opinion=True),
    "hub-400": _one(people=530),
    "hub-10000": _one(people=13_500, interval=300),
    "exporter-down": _one(exporter_down_for=HOUR),
    "hub-down": _one(hub_down_for=HOUR),
    "no-servers": _one("", people=0),
    "monitoring": _one("", enforced_for=0),
    "three-hubs": _three(),
    "not-asking": _one(asks=False),
    "rolled-out": Scenario(
        (SimulatedHub(extra={"hub": "physics"}, rolled_out=(4 * HOUR, 0.5 * HOUR)),)
    ),
    "not-told": _one(notice=900.0, untold_for=0.8 * HOUR),
    "no-notices": _one(),
    "policy-broken": _one(policy_broken_for=0.7 * HOUR),
}
