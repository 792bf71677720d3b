"""The settings that the options make: checked, frozen, durations in seconds."""

from dataclasses import dataclass

from .policy import Policy
from .str_enum import StrEnum
from .text import printable


class ConfigError(ValueError):
    """A configuration that cannot work; `str()` is one printable line for people."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


class BusyCheck(StrEnum):
    """Whether a server is asked whether it is busy before it is stopped."""

    REQUIRE = "require"  # or nothing is stopped
    AUTO = "auto"  # if the token allows it
    OFF = "off"


@dataclass(frozen=True)
class ConnectionSettings:
    """Where the Hub is and how to talk to it."""

    url: str
    timeout: float = 60.0
    page_size: int = 200  # users, at most
    max_share: int = 25  # percent of the Hub's time that reading lists may take
    list_seconds: float = 30.0  # that a list may take with pauses; without, it may take longer
    ca_file: str | None = None
    client_certificate: tuple[str, str] | None = None  # certificate, key (internal_ssl)
    max_connections: int = 16


@dataclass(frozen=True)
class PollSettings:
    """How often the Hub is polled, and how its servers are judged."""

    default: Policy
    cull_default_servers: bool = True
    cull_named_servers: bool = True
    interval: float = 60.0
    per_server_metrics: bool = False
    lists_all: bool = False  # for the page inside the Hub

    @property
    def keeps_all(self) -> bool:
        """Tell whether all servers are kept from a poll, not only those past a limit."""
        return self.per_server_metrics or self.lists_all


@dataclass(frozen=True)
class UserSettings:
    """Whether users are deleted who were idle for `timeout` seconds, and administrators too."""

    delete: bool = False
    timeout: float = 30 * 86400.0
    admins: bool = False


@dataclass(frozen=True)
class CullSettings:
    """Whether and how servers are stopped; `max_culls` 0 is no limit, `max_unanswered` 0 is never.

    With `only_if_asked` a server is stopped only if its busy check found it idle: for `--once`,
    which cannot know about past outages.
    """

    enforce: bool = False
    grace: float = 600.0
    busy_check: BusyCheck = BusyCheck.REQUIRE
    probe_user: str = "idle-prober"
    concurrency: int = 10
    max_culls: int = 0
    max_busy: float = 86400.0
    max_unanswered: float = 0.0
    remove_named_servers: bool = False
    only_if_asked: bool = False
    users: UserSettings = UserSettings()


@dataclass(frozen=True)
class SpareQuerySettings:
    """The second opinion: a PromQL query, and the Prometheus that is asked."""

    query: str
    url: str
    token_file: str | None = None
    ca_file: str | None = None
    timeout: float = 10.0  # seconds, for an evaluation with its whole answer


@dataclass(frozen=True)
class WebSettings:
    """Where metrics and the page are served."""

    host: str = "127.0.0.1"
    port: int = 9899
    config_file: str | None = None


@dataclass(frozen=True)
class LogSettings:
    """What is logged, and how."""

    level: str = "info"
    format: str = "logfmt"


@dataclass(frozen=True)
class Settings:
    """Everything the sidecar needs; files as paths."""

    connection: ConnectionSettings
    poll: PollSettings
    cull: CullSettings
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    token_file: str | None = None
    policy_file: str | None = None
    state_file: str | None = None
    notify_file: str | None = None
    spare_query: SpareQuerySettings | None = None
    tls_directory: str | None = None  # the Hub's internal_ssl certificates
    unknown_variables: tuple[str, ...] = ()  # look like options, and are none

    @property
    def secret_files(self) -> tuple[str | None, ...]:
        """Give the files that nobody else should be able to read."""
        of_opinion = self.spare_query.token_file if self.spare_query else None
        return self.token_file, of_opinion, self.notify_file
