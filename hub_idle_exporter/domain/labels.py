"""Label values of our metrics: the outcomes of requests, busy checks and stops."""

from enum import StrEnum


class Cause(StrEnum):
    """Why a request to the Hub, and so a poll, failed."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    HTTP = "http"
    AUTH = "auth"
    SCOPE = "scope"
    RESPONSE = "response"


class Operation(StrEnum):
    """A kind of request to the Hub."""

    VERSION = "version"
    IDENTITY = "identity"
    LIST_USERS = "list_users"
    GET_USER = "get_user"
    STOP_SERVER = "stop_server"
    REMOVE_SERVER = "remove_server"
    LIST_ROUTES = "list_routes"
    MINT_TOKEN = "mint_token"  # noqa: S105
    REVOKE_TOKEN = "revoke_token"  # noqa: S105
    LIST_TOKENS = "list_tokens"


class ProbeResult(StrEnum):
    """The result of a busy check."""

    IDLE = "idle"
    BUSY = "busy"
    ACTIVE = "active"
    NO_JUPYTER = "no_jupyter"
    FAILED = "failed"


class Withheld(StrEnum):
    """Why a candidate was not stopped after all."""

    ACTIVE_AGAIN = "active_again"
    BUSY = "busy"
    PROBE_FAILED = "probe_failed"
    PENDING = "pending"
    RESTARTED = "restarted"
    GONE = "gone"
    LIMIT = "limit"
    GATE = "gate"
    POLICY = "policy"
    LIST = "list"
    UNASKED = "unasked"
    STALE = "stale"


class Outcome(StrEnum):
    """What became of a candidate of a culling pass that was not withheld."""

    STOPPED = "stopped"
    FAILED = "failed"
    UNDER_WAY = "under_way"


class CullFailure(StrEnum):
    """Why a stop that was sent does not count as a cull."""

    HTTP = "http"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    NOT_STOPPED = "not_stopped"
    SLOW = "slow"


class WebRefusal(StrEnum):
    """Why a request to the web server was refused."""

    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - it is the name of a cause
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    CERTIFICATE = "certificate"  # none, or none of the allowed names
