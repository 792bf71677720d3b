"""What an exporter with these settings does not see, or does not heed, when it stops servers."""

from .durations import shown
from .gate import UNTIL_ALL_REPORTED
from .policy import Policy, Rules
from .settings import BusyCheck, CullSettings

# Below this a server in use may look idle: the Hub learns about activity about every 300 s.
_SHORT_TIMEOUT = 600.0
TOO_SHORT = (
    "the Hub learns about activity only about every 5 minutes, so servers in use may look idle: "
    "use 10m or more"
)
CHOSEN_BY_USERS = "users choose user_options and server names, so anyone can exempt their server"


def is_short(policy: Policy) -> bool:
    """Tell whether servers in use may look idle by a policy."""
    return policy.timeout < _SHORT_TIMEOUT and not policy.exempt


def chosen_by_users(policies: tuple[Policy, ...]) -> list[str]:
    """Name the policies that exempt servers only by what users choose themselves.

    That is `user_options`, and the names of their servers.
    """
    return [
        policy.name
        for policy in policies
        if policy.exempt
        and (policy.match.user_options or policy.match.servers)
        and (policy.match.users, policy.match.groups, policy.match.admin) == (None, None, None)
    ]


def blind_spots(cull: CullSettings, rules: Rules) -> list[str]:
    """Return a sentence for each: which setting it is, and what it means for people."""
    found = [
        f"policy {one.name} has an idle limit of {shown(one.timeout)}: {TOO_SHORT}"
        for one in rules.policies
        if is_short(one)
    ]
    found += [f"policy {name}: {CHOSEN_BY_USERS}" for name in chosen_by_users(rules.policies)]
    return found + _of_enforcing(cull, rules) if cull.enforce else found


def _of_enforcing(cull: CullSettings, rules: Rules) -> list[str]:
    grace, busy = shown(cull.grace), shown(cull.max_busy)
    unanswered, usual = shown(cull.max_unanswered), CullSettings()
    aged = [_aged(one) for one in rules.policies if one.max_age and not one.exempt]
    terminals = [one.name for one in rules.policies if one.protect_terminals]
    sentences = {
        f"--grace={grace}: for {shown(UNTIL_ALL_REPORTED)} after an outage of the Hub people at "
        "work look idle, and whoever cannot be asked is stopped": (cull.grace < UNTIL_ALL_REPORTED),
        f"--max-busy={busy}: a server that computes for longer than that is stopped": (
            cull.max_busy < usual.max_busy
        ),
        f"--max-unanswered={unanswered}: a server that gives no usable answer for so long is "
        "judged by last_activity alone, and stopped although it may compute": (
            cull.max_unanswered > 0
        ),
        f"max age ({', '.join(aged)}): a server that is older is stopped even if it is in use": (
            bool(aged)
        ),
        f"--busy-check=off: no server is asked, so an open terminal does not protect it, whatever "
        f"protect_terminals says (policy {', '.join(terminals)})": (
            bool(terminals) and cull.busy_check is BusyCheck.OFF
        ),
    }
    return [sentence for sentence, holds in sentences.items() if holds]


def _aged(policy: Policy) -> str:
    return f"{shown(policy.max_age)} by policy {policy.name}"
