"""Exporters on a real JupyterHub in trouble: do they stop nobody at work, and count what is true?

    make chaos                            ten minutes
    python -m chaos --minutes 2 --seed 7  shorter; the same people and the same trouble again
    python -m chaos --keep DIR            leave the record and all logs in DIR
    python -m chaos -- --busy-check=off   what follows `--` are more options for the exporters

People, servers and spawner write down what really happened, each on their own, in one file (the
record). The exporters write their logs and count. Afterwards the two are compared (`verdict.py`).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The Hub is that of the tests.
sys.path.insert(0, str(ROOT / "tests" / "support"))
