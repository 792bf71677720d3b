"""What an exporter with these settings does not see, or does not heed, when it stops servers."""

from ..domain.durations import shown
from ..domain.policy import Policy, Rules
from ..domain.settings import CullSettings
from ..policy_file import chosen_by_users
from ..poller import CHOSEN_BY_USERS, TOO_SHORT, is_short

# After an outage of the Hub, until everybody's activity is known again.
_UNTIL_ALL_REPORTED = 330.0


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
    sentences = {
        f"--grace={grace}: for {shown(_UNTIL_ALL_REPORTED)} after an outage of the Hub people at "
        "work look idle, and whoever cannot be asked is stopped": (
            cull.grace < _UNTIL_ALL_REPORTED
        ),
        f"--max-busy={busy}: whoever computes for longer without a break is stopped": (
            cull.max_busy < usual.max_busy
        ),
        f"--max-unanswered={unanswered}: a server that gives no usable answer for so long is "
        "judged by last_activity alone, and stopped although it may compute": (
            cull.max_unanswered > 0
        ),
        f"max age ({', '.join(aged)}): a server that is older is stopped even if it is in use": (
            bool(aged)
        ),
    }
    return [sentence for sentence, holds in sentences.items() if holds]


def _aged(policy: Policy) -> str:
    return f"{shown(policy.max_age)} by policy {policy.name}"
