"""What the page inside the Hub says, in sentences for people."""

from dataclasses import dataclass

from ...domain.labels import Outcome
from ...domain.policy import Policy, Reason, State
from ...domain.text import printable
from ...journal import Entry
from ...people.desk import SAID_OF_OPINION, Visitor
from ..wording import FAILED, MEANINGS, about, spoken


@dataclass(frozen=True)
class Words:
    """What a page says that says one thing; `way_on` is where its link leads, for people."""

    title: str
    sentence: str
    detail: str = ""
    way_on: str = "Try again"


NOT_INSTALLED = Words(
    "This page cannot work yet.",
    "The Python of this service lacks the package jupyterhub, which people sign in with.",
    "pip install 'hub-idle-exporter[hub]'",
)
HUB_SILENT = Words(
    "JupyterHub does not answer.", "Who you are, or how your servers are, could not be asked."
)
NOT_ALLOWED = Words(
    "You may not use this page.",
    "Your account lacks the scope access:services for this service. An administrator of JupyterHub "
    "can grant it.",
)
NOT_FINISHED = Words(
    "You are not signed in.",
    "The sign-in was refused, or was begun by another browser, or this browser keeps no cookies.",
    way_on="Sign in",
)
STARTING = Words("One moment.", "The service that watches over idle servers is starting.")
NOT_WORKING = Words(
    "Idle servers are not watched now.",
    "Nothing is stopped, and nothing can be kept. Please tell an administrator of JupyterHub.",
)
FORGED = Words(
    "Nothing was changed.",
    "This form did not come from this page, or it is from before you signed in.",
    way_on="To your servers",
)
OF_OTHERS = Words(
    "Nothing was changed.",
    "Only administrators may keep or release servers of others.",
    way_on="To your servers",
)
SIGNED_OUT = Words(
    "Nothing was changed.", "Your session has ended: sign in, and try again.", way_on="Sign in"
)
NOT_KNOWN = "JupyterHub did not answer in time: look whether anything was changed."
NO_PAGE_VIEW = (
    "This is a page for people: it is neither framed, nor read by scripts. If you see this where "
    "the page should be, a script of somebody's server stands between: clear this site's data in "
    "your browser."
)
NOT_READY = "not ready: the log says why, and for administrators the page"


def cannot_start(why: str) -> Words:
    """Say to an administrator why the sidecar cannot start."""
    return Words(
        "The exporter cannot start.",
        "Nothing is polled, nothing is stopped, and nothing can be kept. A file is read again "
        "every few seconds until it can be used; after a change of the options restart the Hub.",
        why,
    )


def server_name(user: str, server: str, visitor: Visitor) -> str:
    """Name a server to somebody: `your server`, `your server "lab"`, `the server of ana`."""
    whose = "your server" if user == visitor.name else "the server"
    named = f' "{printable(server)}"' if server else ""
    return whose + named + ("" if user == visitor.name else f" of {printable(user)}")


def kept(user: str, server: str, visitor: Visitor) -> str:
    """Say that a server is kept now."""
    return f"Done: {server_name(user, server, visitor)} is kept."


def released(user: str, server: str, visitor: Visitor) -> str:
    """Say that a server is kept no longer."""
    return f"Done: {server_name(user, server, visitor)} is not kept any more."


STATES = {
    State.ACTIVE: "active",
    State.IDLE: "idle",
    State.PENDING: "starting or stopping",
}


def limit(policy: Policy) -> str:
    """Say when servers of a policy are stopped."""
    if policy.exempt:
        return "none"
    oldest = f", or {spoken(policy.max_age)} after the start" if policy.max_age else ""
    return f"{spoken(policy.timeout)} without activity{oldest}"


def became(entry: Entry) -> str:
    """Say what became of a server that was past its limit, without the time."""
    if entry.outcome is Outcome.STOPPED:
        return f"stopped {_after(entry)}"
    if entry.outcome is Outcome.FAILED:
        return f"could not be stopped: {FAILED[entry.cause]}" if entry.cause else "not stopped"
    if entry.outcome in SAID_OF_OPINION:
        return f"not stopped: {SAID_OF_OPINION[entry.outcome]}"
    why = f": {printable(entry.why)}" if entry.why else ""
    return f"not stopped, {MEANINGS[entry.outcome]}{why}"


def _after(entry: Entry) -> str:
    if entry.reason is Reason.MAX_AGE:
        return "since it was older than its limit"
    if entry.idle is None:
        return "since it was idle"
    return f"after {about(entry.idle)} without activity"
