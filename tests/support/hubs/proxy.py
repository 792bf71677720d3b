"""The Python configurable-http-proxy, which also lets a test say when a route was last used."""

from datetime import datetime
from typing import Any

from configurable_http_proxy.cli import main  # type: ignore[import-untyped]
from configurable_http_proxy.configproxy import PythonProxy  # type: ignore[import-untyped]

_add_route = PythonProxy.add_route


def _add_route_of_old(self: PythonProxy, path: str, data: dict[str, Any]) -> None:
    stamp = data.pop("last_activity", None)
    _add_route(self, path, data)
    if stamp is not None:
        self._routes.update(path, {"last_activity": datetime.fromisoformat(stamp)})


PythonProxy.add_route = _add_route_of_old
main()
