"""The API's stop of a server: at once, slowly, never, or failing; and its deletion of a user."""

import threading

from .access import need, not_found
from .exchange import Refused, Reply, Request, reply
from .records import Server
from .scopes import View
from .state import HubState


def delete_server(
    hub: HubState, request: Request, view: View, name: str, server_name: str
) -> Reply:
    user = hub.users.get(name)
    need(view, "delete:servers", user, server_name)
    if user is None:
        raise not_found(hub) if hub.release >= (5, 0) else Refused(500, "Internal Server Error")
    remove = bool((request.json() or {}).get("remove", False))
    server = user.servers.get(server_name)
    if server_name and server is None:
        raise Refused(404, f"{name} has no server named '{server_name}'")
    if remove and not server_name:
        raise Refused(400, "Cannot delete the default server")
    if server is None:
        return reply(204, "")
    if server.pending == "rename":
        raise Refused(400, "Cannot stop a server while it is being renamed")
    if server.pending == "spawn" and hub.release < (5, 0):
        raise Refused(400, f"{name}:{server_name} is pending spawn, please wait")
    if server.pending != "stop" and not server.stopped:
        _stop(hub, server, request.closing, remove)
    elif remove and server.stopped:
        user.servers.pop(server_name)
        user.changed()
    return reply(202 if server.pending == "stop" else 204, "")


def delete_user(hub: HubState, view: View, name: str) -> Reply:
    """Delete a user, with the default server stopped first if that is ready."""
    user = hub.users.get(name)
    need(view, "delete:users", user)
    if user is None:
        raise not_found(hub)
    if view.token.user == name:
        raise Refused(400, "Cannot delete yourself!")
    if any(server.pending == "stop" for server in user.servers.values()):
        raise Refused(400, f"{name}'s server is in the process of stopping, please wait.")
    if any(
        not server.stopped and (key or not server.ready) for key, server in user.servers.items()
    ):
        raise Refused(500, "Internal Server Error")
    hub.remove_user(name)
    return reply(204, "")


def _stop(hub: HubState, server: Server, closing: threading.Event, remove: bool) -> None:
    """Stop a server (cancelling its spawn), waiting at most `slow_stop_timeout` seconds."""
    with hub.lock:
        server.ready, server.pending = False, "stop"
    takes = server.stop_takes
    if takes == 0:
        _stopped(hub, server, remove)
        return
    worker = threading.Thread(
        target=_stop_slowly, args=(hub, server, takes, closing, remove), daemon=True
    )
    worker.start()
    worker.join(hub.slow_stop_timeout)


def _stop_slowly(
    hub: HubState,
    server: Server,
    takes: float | threading.Event,
    closing: threading.Event,
    remove: bool,
) -> None:
    if isinstance(takes, threading.Event):
        while not takes.wait(0.01) and not closing.is_set():
            pass
    else:
        closing.wait(takes)
    _stopped(hub, server, remove)


def _stopped(hub: HubState, server: Server, remove: bool) -> None:
    """Write down a stop, or that it failed: then the Hub forgets, and activity stays."""
    with hub.lock:
        if not server.stop_fails:
            server.last_activity = server.user.last_activity = hub.now()
            server.process_alive = False
        server.stopped, server.started = True, None
        server.pending = None
        if remove:
            server.user.servers.pop(server.name, None)
            server.user.changed()
