"""Label values of our metrics: the outcomes of requests, busy checks and stops."""

from .str_enum import StrEnum


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
    LIST_IDLE_USERS = "list_idle_users"
    DELETE_USER = "delete_user"


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
    IN_USE = "in_use"
    QUERY_FAILED = "query_failed"
    KEPT = "kept"
    NOTICE = "notice"


# What the second opinion withholds a stop by.
OF_OPINION = (Withheld.IN_USE, Withheld.QUERY_FAILED)


class QueryResult(StrEnum):
    """The result of an evaluation of the spare query."""

    OK = "ok"
    FAILED = "failed"


class UserKept(StrEnum):
    """Why a user past `--user-timeout` is not deleted: what protects it, or what came up."""

    UNKNOWN = "unknown"
    OWN = "own"
    HIDDEN = "hidden"
    SERVER = "server"
    ADMIN = "admin"
    EXEMPT = "exempt"
    SCOPE = "scope"
    PROTECTED = "protected"
    # found right before the deletion
    ACTIVE_AGAIN = "active_again"
    GONE = "gone"
    LOOK_FAILED = "look_failed"
    POLICY = "policy"
    STALE = "stale"
    GATE = "gate"
    LIST = "list"
    LIMIT = "limit"
    FAILURES = "failures"


# What a listing of idle users finds of each.
LISTED = (
    UserKept.UNKNOWN,
    UserKept.OWN,
    UserKept.HIDDEN,
    UserKept.SERVER,
    UserKept.ADMIN,
    UserKept.EXEMPT,
    UserKept.SCOPE,
    UserKept.PROTECTED,
)


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


class NotificationEvent(StrEnum):
    """What a person is told about a server."""

    DUE = "due"  # it will be stopped
    STOPPED = "stopped"


class NotificationResult(StrEnum):
    """The result of an attempt to tell a person."""

    SENT = "sent"
    FAILED = "failed"
