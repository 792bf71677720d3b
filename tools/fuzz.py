"""Run the fuzz tests round after round, each with another seed, for so many minutes.

    make fuzz MINUTES=10
    python tools/fuzz.py 10

Ends with 1 at the first finding; the seed of its round is printed, and finds it again.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
EXAMPLES = 400
TESTS = ["tests/integration/test_fuzz.py", "tests/unit/test_policy_file.py"]


def main() -> int:
    """Fuzz until the time is up."""
    minutes = float(sys.argv[1])
    until, seed = time.monotonic() + 60 * minutes, int(time.time())
    rounds = 0
    while time.monotonic() < until:
        seed, rounds = seed + 1, rounds + 1
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(
            [*command, f"--hypothesis-seed={seed}", "--timeout=900"],
            cwd=REPO, env=os.environ | {"FUZZ_EXAMPLES": str(EXAMPLES)}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            print(done.stdout)
            print(f"found in round {rounds}: --hypothesis-seed={seed}")
            return 1
        print(f"round {rounds}: {EXAMPLES} examples of each test, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
