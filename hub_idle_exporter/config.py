"""Turn options into checked `Settings`; an error names the value and what is allowed."""

import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .domain.durations import shown
from .domain.policy import DEFAULT, Policy
from .domain.settings import (
    BusyCheck,
    ConfigError,
    ConnectionSettings,
    CullSettings,
    LogSettings,
    PollSettings,
    Settings,
    SpareQuerySettings,
    UserSettings,
    WebSettings,
)

# Of jupyterhub-idle-culler 0 is the default, which lets the Hub choose.
DEFAULT_PAGE_SIZE = 200
_OF_OPINION = ("prometheus-url", "spare-query", "prometheus-token-file")
# Connections to the Hub in addition to those of the culling workers.
_MORE_CONNECTIONS = 4


def settings_from(
    options: Mapping[str, Any], once: bool = False, unknown_variables: Sequence[str] = ()
) -> Settings:
    """Build the settings from the parsed options (names with `_`); raise ConfigError.

    A single run (`once`) cannot know about past outages. It has no grace period, and stops only
    servers whose busy check found them idle, unless `--grace` is 0.
    """
    default = Policy(
        DEFAULT,
        options["timeout"],
        options["max_age"],
        notice=options["notice"],
        keep_max=options["keep_max"],
    )
    _check_promises(default, options, once)
    host, port = options["web_listen_address"]
    tls_directory = options["internal_certs_location"] if options["ssl_enabled"] else None
    return Settings(
        connection=_connection(options, tls_directory),
        poll=PollSettings(
            default=default,
            cull_default_servers=options["cull_default_servers"],
            cull_named_servers=options["cull_named_servers"],
            interval=options["interval"],
            per_server_metrics=options["per_server_metrics"],
        ),
        cull=CullSettings(
            enforce=options["enforce"],
            grace=0.0 if once else options["grace"],
            busy_check=BusyCheck(options["busy_check"]),
            probe_user=options["probe_user"],
            concurrency=options["concurrency"],
            max_culls=options["max_culls"],
            max_busy=options["max_busy"],
            max_unanswered=options["max_unanswered"],
            remove_named_servers=options["remove_named_servers"],
            only_if_asked=once and options["grace"] > 0,
            users=UserSettings(
                delete=options["cull_users"],
                timeout=options["user_timeout"],
                admins=bool(options["cull_admin_users"]),
            ),
        ),
        web=WebSettings(host, port, options["web_config_file"]),
        log=LogSettings(options["log_level"], options["log_format"]),
        token_file=options["api_token_file"],
        policy_file=options["policy_file"],
        state_file=options["state_file"],
        notify_file=options["notify_file"],
        spare_query=_spare_query(options),
        tls_directory=tls_directory,
        unknown_variables=tuple(unknown_variables),
    )


def _check_promises(default: Policy, options: Mapping[str, Any], once: bool) -> None:
    """Refuse a notice or a keep that could not be honoured."""
    notice, has_file = default.notice, options["state_file"] is not None
    found = default.limit_within_notice
    if found is not None:
        option, limit = found[0].replace("_", "-"), shown(found[1])
        raise ConfigError(
            f"--notice {shown(notice)}: it must be shorter than --{option}, which is {limit}"
        )
    if default.keep_max and not has_file:
        raise ConfigError("--keep-max needs --state-file: what people keep must survive a restart")
    if notice and once and options["enforce"] and not has_file:
        raise ConfigError("--once with --notice needs --state-file: nothing else remembers it")


def _spare_query(options: Mapping[str, Any]) -> SpareQuerySettings | None:
    """Read what is to be asked of whom; None without a second opinion."""
    given = [one for one in _OF_OPINION if options[one.replace("-", "_")] is not None]
    for needed in _OF_OPINION[:2]:
        if given and needed not in given:
            raise ConfigError(f"--{given[0]} needs --{needed}")
    if not given:
        return None
    return SpareQuerySettings(
        query=options["spare_query"],
        url=options["prometheus_url"],
        token_file=options["prometheus_token_file"],
        ca_file=options["ca_file"] and checked_authority(options["ca_file"]),
    )


def _connection(options: Mapping[str, Any], tls_directory: str | None) -> ConnectionSettings:
    certificate = key = authority = None
    if tls_directory is not None:
        certificate, key, authority = internal_tls(tls_directory)
    if options["ca_file"] is not None:
        authority = checked_authority(options["ca_file"])
    return ConnectionSettings(
        url=options["url"],
        timeout=options["request_timeout"],
        page_size=options["api_page_size"] or DEFAULT_PAGE_SIZE,
        max_share=options["max_hub_share"],
        list_seconds=options["interval"] / 2,
        ca_file=authority,
        client_certificate=(certificate, key) if certificate and key else None,
        max_connections=options["concurrency"] + _MORE_CONNECTIONS,
    )


def shown_settings(settings: Settings) -> dict[str, object]:
    """Return the effective settings by option, for the log and the page; without the token."""
    poll, cull, connection = settings.poll, settings.cull, settings.connection
    return {
        "url": connection.url,
        "api_token": f"file {settings.token_file}"
        if settings.token_file
        else "environment, masked",
        "enforce": cull.enforce,
        "timeout": shown(poll.default.timeout),
        "max_age": shown(poll.default.max_age) if poll.default.max_age else "none",
        "interval": shown(poll.interval),
        "grace": shown(cull.grace),
        "busy_check": str(cull.busy_check),
        "probe_user": cull.probe_user,
        "max_busy": shown(cull.max_busy),
        "max_unanswered": shown(cull.max_unanswered) if cull.max_unanswered else "never",
        "concurrency": cull.concurrency,
        "max_culls": cull.max_culls or "no limit",
        **_shown_opinion(settings.spare_query),
        "policy_file": settings.policy_file or "none",
        "notice": shown(poll.default.notice) if poll.default.notice else "none",
        "keep_max": shown(poll.default.keep_max) if poll.default.keep_max else "none",
        "state_file": settings.state_file or "none",
        "notify_file": settings.notify_file or "none",
        "cull_default_servers": poll.cull_default_servers,
        "cull_named_servers": poll.cull_named_servers,
        "remove_named_servers": cull.remove_named_servers,
        "cull_users": cull.users.delete,
        "cull_admin_users": cull.users.admins,
        "user_timeout": shown(cull.users.timeout),
        "per_server_metrics": poll.per_server_metrics,
        "api_page_size": connection.page_size,
        "max_hub_share": connection.max_share,
        "request_timeout": shown(connection.timeout),
        "ssl_enabled": settings.tls_directory is not None,
        "internal_certs_location": settings.tls_directory or "none",
        "ca_file": connection.ca_file or "system",
        "web_listen_address": f"{settings.web.host}:{settings.web.port}",
        "web_config_file": settings.web.config_file or "none",
        "log_level": settings.log.level,
        "log_format": settings.log.format,
    }


def _shown_opinion(opinion: SpareQuerySettings | None) -> dict[str, object]:
    return {
        "prometheus_url": opinion.url if opinion else "none",
        "spare_query": opinion.query if opinion else "none",
        "prometheus_token_file": (opinion and opinion.token_file) or "none",
    }


def checked_query(value: str) -> str:
    """Check what can be checked of a PromQL query; raise ValueError saying what is allowed."""
    try:
        sent = value.encode()
    except UnicodeError:  # bytes on the command line that are no text
        sent = b""
    if not sent.strip():
        raise ValueError("must be a PromQL query, in UTF-8")
    return value


def checked_url(value: str) -> str:
    """Check the URL of an API; raise ValueError saying what is allowed."""
    try:
        parts = urlsplit(value)
        host = (parts.hostname or "").encode("idna")  # refuses what cannot be looked up
        usable = parts.scheme in ("http", "https") and host and parts.port != 0
    except ValueError:
        usable = False
    blank = not value.isprintable() or " " in value
    if not usable or blank or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be http(s)://HOST[:PORT]/PATH without user, query or fragment")
    return value.rstrip("/")


def checked_address(value: str) -> tuple[str, int]:
    """Split `[HOST]:PORT`; raise ValueError saying what is allowed. No host: all interfaces."""
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be HOST:PORT or :PORT, with a port up to 65535")
    host = host.removeprefix("[").removesuffix("]")
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - `:9899` says so
    return host or everywhere, int(port)


def internal_tls(directory: str) -> tuple[str, str, str]:
    """Return the paths of certificate, key and CA that the Hub created for internal_ssl."""
    pair = Path(directory, "hub-internal", "hub-internal")
    files = (f"{pair}.crt", f"{pair}.key", str(Path(directory, "hub-ca_trust.crt")))
    for file in files:
        if not _is_file(file):
            raise ConfigError(
                f"--ssl-enabled: {file} is missing; set --internal-certs-location to the folder "
                "of the Hub's internal_ssl certificates (c.JupyterHub.internal_certs_location)"
            )
    _tls_context(*files, f"--internal-certs-location {directory}")
    return files


def checked_authority(file: str) -> str:
    """Check a file with CA certificates; raise ConfigError if it has none."""
    if not _is_file(file):
        raise ConfigError(f"--ca-file: {file} does not exist, or is not a file")
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ca-file: {file} has no usable certificate (PEM): {error}") from None
    return file


def _is_file(file: str) -> bool:
    try:
        return Path(file).is_file()
    except (OSError, ValueError):  # no file can have this name
        return False


def server_tls(tls_directory: str | None) -> ssl.SSLContext | None:
    """Build the TLS context for the busy check with internal_ssl; None without it."""
    if tls_directory is None:
        return None
    files = internal_tls(tls_directory)
    return _tls_context(*files, f"--internal-certs-location {tls_directory}")


def _tls_context(certificate: str, key: str, authority: str, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: the certificates cannot be used: {error}") from None
    return context
