"""How many examples the tests by hypothesis try: few in `make test`, many in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

_FEW = os.environ.get("EXAMPLES") == "few"
_MANY = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(usual: int) -> settings:
    """Try so many examples as a rule, a third of them where time is short."""
    return settings(
        max_examples=_MANY or (usual // 3 if _FEW else usual), deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
