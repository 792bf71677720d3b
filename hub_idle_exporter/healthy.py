"""Ask the exporter in this container whether it works: the health check of the image.

    python -m hub_idle_exporter.healthy

It is asked where `HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS` lets it listen, in plain HTTP, then by TLS.
`/-/healthy` needs no password and no client certificate. Nothing secret is sent, so the certificate
is not verified.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

ADDRESS = "HUB_IDLE_EXPORTER_WEB_LISTEN_ADDRESS"
_SECONDS = 2.0


def main() -> int:
    """Return 0 if the exporter says that it works."""
    host, _, port = (os.environ.get(ADDRESS) or "127.0.0.1:9899").rpartition(":")
    at = (host.strip("[]") or "127.0.0.1", int(port) if port.isdigit() else 0)
    plain = HTTPConnection(*at, timeout=_SECONDS)
    by_tls = HTTPSConnection(*at, timeout=_SECONDS, context=_unverified())
    return 0 if _answers(plain) or _answers(by_tls) else 1


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _answers(connection: HTTPConnection) -> bool:
    try:
        connection.request("GET", "/-/healthy")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
