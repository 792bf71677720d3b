"""What a Hub tells a service with a `url` about itself, in its environment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Service:
    """This service, as its Hub knows it.

    `prefix` is the path below which the page is, `hub` the path (with the host, if the Hub uses
    subdomains) of the Hub's own pages; both end with a slash. `public_hosts` are the hosts that
    browsers know this service by, as far as the Hub says so.
    """

    prefix: str
    hub: str
    api_url: str
    token: str = field(repr=False)
    client_id: str
    callback: str
    access_scopes: frozenset[str]
    public_hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Service":
        """Read the environment; what is missing there is empty."""
        prefix = f"/{environ.get('JUPYTERHUB_SERVICE_PREFIX', '').strip('/')}/".replace("//", "/")
        base = environ.get("JUPYTERHUB_BASE_URL") or "/"
        public = urlsplit(environ.get("JUPYTERHUB_PUBLIC_URL", "")).netloc
        return cls(
            prefix=prefix,
            hub=f"{environ.get('JUPYTERHUB_HOST', '')}{base.rstrip('/')}/hub/",
            api_url=environ.get("JUPYTERHUB_API_URL", ""),
            token=environ.get("JUPYTERHUB_API_TOKEN", ""),
            client_id=environ.get("JUPYTERHUB_CLIENT_ID", ""),
            callback=environ.get("JUPYTERHUB_OAUTH_CALLBACK_URL") or f"{prefix}oauth_callback",
            access_scopes=_scopes(environ.get("JUPYTERHUB_OAUTH_ACCESS_SCOPES", "")),
            public_hosts=frozenset({public} - {""}),
        )


def _scopes(text: str) -> frozenset[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return frozenset()
    return frozenset(found) if isinstance(found, list) else frozenset()
