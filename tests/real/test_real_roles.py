"""The roles that `check` prints, pasted behind a configuration that is there: on a real Hub."""

import re
from collections.abc import Sequence

import pytest
from conftest import MakeHub, RunCommand
from real_hub import MONITOR, PROBER, RealHub, Service

# What people have who paste the roles: those of the documentation before stop tokens, and those of
# somebody who culls the servers of one group.
OLDER = (*MONITOR, "delete:servers", "proxy", f"tokens!user={PROBER}")
OF_A_GROUP = ("list:users", "read:servers!group=physics", "delete:servers!group=physics")
SERVICE = "idle-exporter"


def paste(hub: RealHub, printed: str) -> str:
    """Put the printed lines at the end of the Hub's configuration, and start it again."""
    (lines,) = re.findall(r"^c\.JupyterHub\.load_roles.*?^\]\)$", printed, re.MULTILINE | re.DOTALL)
    hub.stop_hub()
    hub.extra_config = lines
    hub.start()
    return str(lines)


@pytest.mark.slow("roles pasted into a real Hub")
@pytest.mark.parametrize(
    ("scopes", "of_prober", "stopped"),
    [
        (OLDER, ["access:servers"], {"ana", "bo"}),
        (OF_A_GROUP, None, {"ana"}),
    ],
    ids=["older", "of a group"],
)
def test_the_printed_roles_are_enough_and_wipe_out_nothing(
    make_hub: MakeHub,
    run_command: RunCommand,
    scopes: Sequence[str],
    of_prober: list[str] | None,
    stopped: set[str],
) -> None:
    """The documented roles have the names of the service and of the prober; so have these."""
    roles = [{"name": SERVICE, "services": [SERVICE], "scopes": list(scopes)}]
    if of_prober is not None:
        roles += [{"name": PROBER, "users": [PROBER], "scopes": of_prober}]
    hub = make_hub(services=(Service(SERVICE, ()),), prober=False, roles=roles, activity_interval=0)
    hub.add_users(["ana"], group="physics")
    hub.add_users(["bo"], group="art")
    for user in ("ana", "bo"):
        hub.start_server(user)
    before = run_command(hub, "check", "--enforce")
    assert before.returncode == 1
    pasted = paste(hub, before.stdout)
    assert ("!group=physics" in pasted) == (scopes is OF_A_GROUP)
    after = run_command(hub, "check", "--enforce")
    assert (after.returncode, "load_roles" in after.stdout) == (0, False), after.stdout
    for user in ("ana", "bo"):
        hub.backdate(user, idle=7200, age=9000)
    done = run_command(hub, "--once", "--enforce")
    assert done.returncode == 0, done.stderr
    assert {user for user, _ in hub.servers()} == {"ana", "bo"} - stopped
