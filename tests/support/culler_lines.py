"""Command lines of jupyterhub-idle-culler, and what its two versions make of them.

    lines = [["--timeout=3600", "--cull-users"], ...]
    effects = effects_of(lines, python, directory)  # asks the version that this Python has

An effect is a dictionary of settings (as `cull_idle` is called), or None where it ends or crashes.
"""

import itertools
import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Line = list[str]
Effect = dict[str, Any] | None

# Each option as it may be written: first as documentation, distributions and Hubs write it.
FORMS: dict[str, list[Line]] = {
    "url": [["--url=http://hub:8081/hub/api"], ["--url", "http://hub:8081/hub/api"], ["--url="]],
    "timeout": [
        ["--timeout=3600"], ["--timeout", "3600"], ["-timeout=3600"], ["--timeout=1h"],
        ["--timeout=1_000"], ["--timeout=0"], ["--timeout=-1"], ["--timeout=60.0"], ["--timeout="],
        ["--timeout"],
    ],
    "cull_every": [
        ["--cull-every=600"], ["--cull_every=600"], ["--cull-every", "600"], ["--cull-every=0"],
    ],
    "max_age": [["--max-age=0"], ["--max-age=86400"], ["--max_age=86400"], ["--max-age=-5"]],
    "concurrency": [
        ["--concurrency=5"], ["--concurrency=0"], ["--concurrency=-1"], ["--concurrency", "5"],
    ],
    "api_page_size": [["--api-page-size=0"], ["--api-page-size=50"], ["--api_page_size=50"]],
    "internal_certs_location": [["--internal-certs-location=internal-ssl"]],
    "ssl_enabled": [["--ssl-enabled=false"], ["--ssl_enabled=0"]],
}  # fmt: skip
BOOLEANS = (
    "cull_users", "cull_admin_users", "cull_default_servers", "cull_named_servers",
    "remove_named_servers",
)  # fmt: skip
for _name in BOOLEANS:
    _dashed = f"--{_name.replace('_', '-')}"
    FORMS[_name] = [
        *([f"{_dashed}={word}"] for word in ("true", "false", "True", "False", "1", "0")),
        [_dashed], [f"--{_name}"], [f"--{_name}=false"], [f"-{_name}=false"],
        *([f"{_dashed}={word}"] for word in ("t", "f", "yes", "no", "on", "off", "", "n")),
        [_dashed, "true"], [_dashed, "false"],
    ]  # fmt: skip
# What only one of the versions knows, and what neither does.
OTHERS: list[Line] = [
    ["--config=culler.py"], ["--config", "culler.py"], ["--generate-config"], ["--logging=debug"],
    ["--log-to-stderr"], ["--log_file_prefix=culler.log"], ["--log-rotate-mode=time"],
    ["--IdleCuller.timeout=600"], ["--IdleCuller.cull_every", "60"], ["--IdleCuller.config_file=x"],
    ["--Application.log_level=10"], ["--IdleCuller.cull_arbiter_hook=x"], ["--debug"],
    ["--log-level=10"],
    ["--version"], ["--help"], ["--help-all"], ["-h"], ["-y"], ["--show-config"], ["--time=3600"],
    ["word"], ["--"], ["--no-cull-users"],
]  # fmt: skip


def single_lines() -> Iterator[Line]:
    yield []
    yield from (form for forms in FORMS.values() for form in forms)
    yield from OTHERS


def pairs() -> Iterator[Line]:
    """Each two forms; two of the same option in both orders, since the last one counts."""
    forms = [form for every in FORMS.values() for form in every]
    yield from (one + other for one, other in itertools.combinations([*forms, *OTHERS], 2))
    for same in FORMS.values():
        yield from (other + one for one, other in itertools.combinations(same, 2))


def combinations() -> Iterator[Line]:
    """All subsets of the options, each as it is usually written, with one value or another."""
    dice = random.Random(12)
    usual = {name: forms[:2] if name in BOOLEANS else forms[:1] for name, forms in FORMS.items()}
    for size in range(len(usual) + 1):
        for names in itertools.combinations(usual, size):
            yield [part for name in names for part in dice.choice(usual[name])]


def effects_of(lines: Sequence[Line], python: Path, directory: Path) -> list[Effect]:
    """Ask the idle culler that this interpreter has; it may leave a log in the directory."""
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("hubs") / "culler_effects.py")],
        input=json.dumps(lines), cwd=directory, capture_output=True, text=True, check=True,
        timeout=600,
    )  # fmt: skip
    found: list[Effect] = json.loads(done.stdout)
    return found
