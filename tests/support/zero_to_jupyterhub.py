"""What Zero to JupyterHub's chart makes of its values, in the order in which it does.

Services and roles are dictionaries by name; tokens of services come from the Secret `hub`;
`hub.config` is followed by the entries of `hub.extraConfig` in the order of their names.
"""

import secrets
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]


def secret(values: Values) -> dict[str, str]:
    """Make what the chart keeps in the Secret `hub`."""
    names = [f"hub.services.{name}.apiToken" for name in values["hub"]["services"]]
    return {name: secrets.token_hex(32) for name in names}


def configuration(values: Values, kept: Mapping[str, str]) -> str:
    """Write lines for jupyterhub_config.py. Services and roles of the test itself stay."""
    assert values["cull"] == {"enabled": False}, "its own culler would be a service, too"
    hub = values["hub"]
    services = [
        {"name": name} | service | {"api_token": kept[f"hub.services.{name}.apiToken"]}
        for name, service in hub["services"].items()
    ]
    roles = [{"name": name} | role for name, role in hub["loadRoles"].items()]
    lines = [f"c.JupyterHub.services += {services!r}", f"c.JupyterHub.load_roles += {roles!r}"]
    lines += [f"c[{name!r}].update({one!r})" for name, one in hub.get("config", {}).items()]
    lines += [f"exec({code!r})" for _, code in sorted(hub.get("extraConfig", {}).items())]
    return "\n".join(lines)
