"""The roles to paste into jupyterhub_config.py, if the token or the probe user lacks scopes.

They add to what is there: to the list of roles, and to what other roles grant. Filters that were
chosen are kept, so that nobody is told to grant more than was wanted.
"""

import re
from collections.abc import Iterable

from .requirements import PROBE_USER_SCOPES, Requirement, Severity
from .scopes import Granted, Scope

# Not the names in the documentation: a Hub that finds a role twice does not start.
SERVICE_ROLE, PROBER_ROLE = "idle-exporter-scopes", "idle-prober-scopes"
_ABOUT_USERS = (Scope.LIST_USERS, Scope.READ_GROUPS)
# A scope that is missing gets the filters of the first of these that is there.
_MODELS = (Scope.READ_SERVERS, Scope.DELETE_SERVERS, Scope.LIST_USERS)

Filters = frozenset[str]


def roles(
    service: str,
    needed: Iterable[Requirement],
    granted: Granted,
    probe_user: str,
    of_prober: Granted,
) -> str:
    """Return the roles that these settings need, as lines for the end of jupyterhub_config.py.

    Written with single quotes, which the log does not have to escape.

    Args:
        service: the service that gets them.
        needed: the scopes that it can use.
        granted: what its token may do already.
        probe_user: the user who owns the minted tokens.
        of_prober: what that user may do already.
    """
    wanted = {one.scope: one for one in needed if one.severity > Severity.NOTE}
    granted, of_prober = _without(granted, probe_user), _without(of_prober, probe_user)
    filters = {scope: _filters(scope, granted) for scope in Scope}
    filters[Scope.READ_GROUPS] = _of_groups(filters, granted, needed=Scope.READ_GROUPS in wanted)
    by_group = any(one.startswith("group=") for one in filters[Scope.DELETE_SERVERS])
    scopes: list[str] = []
    for scope in Scope:
        if scope in wanted:
            scopes += _granting(wanted[scope].grants, filters[scope])
        elif scope is Scope.READ_GROUPS and Scope.DELETE_SERVERS in wanted and by_group:
            scopes += _granting((scope,), filters[scope])  # to see who is in the group
        if scope is Scope.READ_SERVERS and filters[scope] and Scope.TOKENS in wanted:
            scopes.append(f"{scope}!user={probe_user}")  # whom the filter hides
    found = [_role(SERVICE_ROLE, "services", service, scopes)]
    if Scope.TOKENS in wanted:
        ours = _of_prober(of_prober, filters[Scope.DELETE_SERVERS])
        if Scope.DELETE_USERS in wanted:
            ours += _granting((Scope.DELETE_USERS,), filters[Scope.DELETE_USERS])
        found.append(_role(PROBER_ROLE, "users", probe_user, ours))
    return "\n".join(["c.JupyterHub.load_roles.extend([", *found, "])"])


def names_people(text: str, probe_user: str) -> bool:
    """Tell whether a filter in a text names a user or a server, of others than the probe user."""
    of_prober = re.escape(f"user={probe_user}")
    return re.search(rf"!(?!{of_prober}(?:['\s,;.)]|$))(user|server)=", text) is not None


def _without(granted: Granted, user: str) -> Granted:
    """Leave out what is granted for the probe user itself, which shows nothing that was wanted."""
    own = {f"user={user}"}
    return Granted({one: found - own for one, found in granted.filters.items() if found != own})


def _filters(scope: Scope, granted: Granted) -> Filters:
    """Return the filters that a scope has, or those of one that shows what was wanted."""
    if granted.has(scope):
        return granted.filters[scope]
    model = next((one for one in _MODELS if granted.has(one)), None)
    if model is None or scope in (Scope.PROXY, Scope.TOKENS):
        return frozenset()
    found = granted.filters[model]
    return _of_users(found) if scope in _ABOUT_USERS else found


def _of_users(filters: Filters) -> Filters:
    """Turn filters by server into filters by its user."""
    return frozenset(
        f"user={one.removeprefix('server=').partition('/')[0]}"
        if one.startswith("server=")
        else one
        for one in filters
    )


def _of_groups(filters: dict[Scope, Filters], granted: Granted, needed: bool) -> Filters:
    """Return the filters with which groups are seen of all whose groups decide.

    For policies that is everybody whose servers are seen, otherwise whoever may be stopped.
    """
    enough = _of_users(filters[Scope.READ_SERVERS if needed else Scope.DELETE_SERVERS])
    if not granted.has(Scope.READ_GROUPS):
        return enough
    there = granted.filters[Scope.READ_GROUPS]
    return there | enough if there and enough else frozenset()


def _of_prober(granted: Granted, stops: Filters) -> list[str]:
    """Return the scopes of the probe user, with filters of its own or else those of the service."""
    models = [*(granted.filters[one] for one in PROBE_USER_SCOPES if granted.has(one)), stops]
    return [
        text
        for scope in PROBE_USER_SCOPES
        for text in _granting((scope,), granted.filters.get(scope, models[0]))
    ]


def _granting(grants: Iterable[str], filters: Filters) -> list[str]:
    """Write scopes with filters; one that is written with a filter already stays as it is."""
    return [
        f"{grant}!{condition}" if condition else str(grant)
        for grant in grants
        for condition in (sorted(filters) if filters and "!" not in grant else [""])
    ]


def _role(name: str, kind: str, whose: str, scopes: list[str]) -> str:
    lines = [f"            {scope!r},\n" for scope in scopes]
    return (
        f"    {{\n        'name': {name!r},\n        {kind!r}: [{whose!r}],\n"
        f"        'scopes': [\n{''.join(lines)}        ],\n    }},"
    )
