"""What a poll, a scrape and a drain cost, measured beside a floor and the peer in the same run.

    python -m bench                 everything, about an hour and a half
    python -m bench --quick         fewer sizes and rounds, about six minutes
    python -m bench --only poll     one part; --only may be given more than once

The floor is a full list, fetched with the same library and thrown away. The peer is
jupyterhub-idle-culler 2.0.0. Each of the three works in a process of its own and is told when
(`worker.py`); they take turns, so that what else the machine does meets all of them.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The Hubs are those of the tests: a fake one for scale, real ones for everything else.
sys.path.insert(0, str(ROOT / "tests" / "support"))
