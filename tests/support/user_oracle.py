"""May a user be deleted for idleness? The issue told once more, in other words.

Written from the issue, contract.md and jupyterhub-facts.md alone; the code under test was not read,
and it shares no line with it. Everything comes in as the Hub sends it, decoded from JSON, with
times as text. Nothing brings a deleted user back: whatever is hidden or odd speaks for the user.
"""

from datetime import datetime

from oracle import Json, condition_holds, delete_reaches, elapsed, possible_policies

ABOUT_USERS = ("users", "groups", "admin")


def fate(user: Json, options: Json, scopes: list[str], own: frozenset[str], now: datetime) -> str:
    """Say what becomes of a user: active (surely below the limit), candidate, or kept."""
    idle = idle_seconds(user, now)
    if idle is None:
        return "kept"
    if idle < options["user_timeout"]:
        return "active"
    spared = (
        user["name"] in own
        or is_spared_admin(user, options)
        or any(exempts(policy, user) for policy in options["policies"])
        or not deletion_reaches(user, scopes)
        or not servers_let_go(user, options, scopes)
    )
    return "kept" if spared else "candidate"


def idle_seconds(user: Json, now: datetime) -> float | None:
    """Tell for how long neither the user nor a server of it did anything; None: nobody can tell.

    A user who never did anything counts from the day of creation. One whose activity is hidden may
    have been active since, so that the day of creation says nothing.
    """
    if "last_activity" not in user:
        return None
    servers = user["servers"].values() if isinstance(user.get("servers"), dict) else ()
    active = [elapsed(one.get("last_activity"), now) for one in (user, *servers)]
    known = [ago.total_seconds() for ago in active if ago is not None]
    created = elapsed(user.get("created"), now)
    return min(known) if known else None if created is None else created.total_seconds()


# ---- the user -----------------------------------------------------------------------------------


def is_spared_admin(user: Json, options: Json) -> bool:
    """Tell whether this is, or may be, an administrator, and those stay."""
    return options["cull_admin_users"] is not True and user.get("admin") is not False


def exempts(policy: Json, user: Json) -> bool:
    """Tell whether a policy may exempt the user, whatever servers there are.

    Only what is said about the user counts: where nothing is, everybody is exempt.
    """
    if not policy.get("exempt"):
        return False
    about = {key: wanted for key, wanted in policy["match"].items() if key in ABOUT_USERS}
    # The name of the server has no part in these conditions.
    return all(condition_holds(key, wanted, user, "") is not False for key, wanted in about.items())


def deletion_reaches(user: Json, scopes: list[str]) -> bool:
    """Tell whether the token is sure to be allowed to delete this user, or has no scope at all.

    Without `delete:users` it is a gate that stays shut. A filter by server covers no user.
    """
    held = [scope for scope in scopes if scope.split("!")[0] == "delete:users"]
    if not held or "delete:users" in held:
        return True
    filters = {scope.split("!", 1)[1] for scope in held}
    mine = {f"user={user['name']}", *(f"group={group}" for group in user.get("groups") or [])}
    return not filters.isdisjoint(mine)


# ---- the user's servers -------------------------------------------------------------------------


def servers_let_go(user: Json, options: Json, scopes: list[str]) -> bool:
    """Tell whether all servers are seen, are stopped, and might have been culled."""
    if not isinstance(user.get("servers"), dict):
        return False
    return all(
        is_stopped(server)
        and options["cull_named_servers" if name else "cull_default_servers"] is True
        and delete_reaches(user, name, scopes)
        and policy_lets_go(user, name, options)
        for name, server in user["servers"].items()
    )


def is_stopped(server: Json) -> bool:
    """Tell whether the Hub says so in full; anything less counts as running."""
    said = [server.get("stopped"), server.get("ready"), server.get("pending", "missing")]
    return said[0] is True and said[1] is False and said[2] is None


def policy_lets_go(user: Json, name: str, options: Json) -> bool:
    """Tell whether it is certain which policy is the server's, and that it exempts nothing."""
    possible = possible_policies(user, name, options)
    if "user_options" not in user["servers"][name]:
        # Hidden: they may be anything, both what no policy asks for and what each one does.
        possible += possible_policies(user, name, without_user_options(options))
    names = {policy["name"] for policy in possible}
    return len(names) == 1 and not any(policy.get("exempt") for policy in possible)


def without_user_options(options: Json) -> Json:
    """Tell the policies as if every condition about `user_options` held."""
    return options | {
        "policies": [
            policy | {"match": {k: v for k, v in policy["match"].items() if k != "user_options"}}
            for policy in options["policies"]
        ]
    }
