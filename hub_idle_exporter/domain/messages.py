"""What people are told about their server, in words: durations only, never a time of day or a zone.

The words go to the person whose server it is. They do not say whose it is: where others read along,
`notifying` adds that.
"""

from dataclasses import dataclass

from .durations import in_words
from .policy import Reason
from .text import printable

_SAVE = "Save your work now: what is only in memory is lost when the server stops."
_AGAIN = "You can start it again at any time."


@dataclass(frozen=True)
class Words:
    """A message in plain text; the title is one line."""

    title: str
    body: str


def due_words(server: str, reason: Reason, limit: float, left: float, keep_at: str) -> Words:
    """Say that a server will be stopped, when, why, and how to prevent it.

    Args:
        server: its name, "" for the default server.
        reason: the limit that it will be past.
        limit: that limit, in seconds.
        left: seconds until the stop.
        keep_at: the address of the page where it can be kept; "" if there is none.
    """
    when, named = _when(left), _named(server)
    return Words(
        f"{named} will be stopped {when}",
        _lines(f"{_due_because(named, reason, limit)} It will be stopped {when}.",
               _due_advice(reason, keep_at), _SAVE),
    )  # fmt: skip


def stopped_words(server: str, reason: Reason, idle: float | None, keep_at: str) -> Words:
    """Say that a server was stopped, why, and how to prevent it next time.

    Args:
        server: its name, "" for the default server.
        reason: the limit that it was past.
        idle: for how many seconds it was idle, if that is known.
        keep_at: the address of the page where it can be kept; "" if there is none.
    """
    named = _named(server)
    return Words(
        f"{named} was stopped",
        _lines(f"{named} was stopped{_stopped_because(reason, idle)}. {_AGAIN}",
               _next_time(reason, keep_at)),
    )  # fmt: skip


def _when(left: float) -> str:
    """Round down, but for a second: nobody is stopped sooner than this says."""
    return f"in {in_words((left + 1) // 60 * 60)}" if left >= 60 else "in less than a minute"


def _named(server: str) -> str:
    return f'Your server "{printable(server)}"' if server else "Your server"


def _lines(*paragraphs: str) -> str:
    return "\n\n".join(filter(None, paragraphs))


def _due_because(named: str, reason: Reason, limit: float) -> str:
    if reason is Reason.MAX_AGE:
        return f"Servers are stopped {in_words(limit)} after their start, also while they are used."
    return f"{named} is not in use, and servers are stopped after {in_words(limit)} without use."


def _due_advice(reason: Reason, keep_at: str) -> str:
    if reason is Reason.MAX_AGE:
        return f"Using it does not prevent that. {_AGAIN}"
    keep = f", or keep it for longer at {keep_at}" if keep_at else ""
    return f"If you still need it, use it: open it and run something{keep}."


def _stopped_because(reason: Reason, idle: float | None) -> str:
    if reason is Reason.MAX_AGE:
        return ": it had been running for as long as servers may"
    return ", because it was not in use" + (f" for {in_words(idle)}" if idle is not None else "")


def _next_time(reason: Reason, keep_at: str) -> str:
    if reason is Reason.MAX_AGE or not keep_at:
        return ""
    return f"If you need it for longer next time, keep it before you leave: {keep_at}"
