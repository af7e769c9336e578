"""hypercorn: how it meets each option, and how it serves.

It is not imported here but in its engine, so that its table can be shown at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from djasgi.kinds import Bind
from djasgi.options import Options
from djasgi.servers.base import (
    SUPPLIED,
    Adapted,
    Application,
    Native,
    Requests,
    Supplied,
    Support,
    checked,
)

if TYPE_CHECKING:  # at run time they would slow down `--help`
    import asyncio
    import socket

    from djasgi.tls import Tls

NAME = "hypercorn"

SUPPORT: Mapping[str, Support] = {
    **SUPPLIED,
    "workers": Supplied("the supervisor starts the workers", "--workers"),
    "loop": Supplied("the worker makes the loop", "--worker-class"),
    "root_path": Supplied("a layer", "--root-path"),
    "log_level": Supplied("one logging configuration", "--log-level"),
    "ssl_certfile": Supplied("djasgi makes the TLS context", "--certfile"),
    "ssl_keyfile": Supplied("djasgi makes the TLS context", "--keyfile"),
    "ssl_ca_certs": Supplied("djasgi makes the TLS context", "--ca-certs"),
    "ssl_ciphers": Supplied("djasgi makes the TLS context", "--ciphers"),
    "backlog": Native("backlog", "--backlog"),
    "keep_alive": Adapted("a timer in place of its idle task", "--keep-alive"),
    "header_timeout": Adapted("a timer in place of its idle task"),
    "http2": Adapted("chosen in the TLS handshake, and held to the same rules"),
    "max_head_size": Adapted("measured before h11 reads, which would read more"),
    "server_header": Adapted("its name without the protocol"),
    "date_header": Native("include_date_header"),
    "ws_max_size": Adapted("counted in bytes, where it counts characters"),
    "ws_ping_interval": Native("websocket_ping_interval", "--websocket-ping-interval"),
    "ws_ping_timeout": Adapted("djasgi waits for the answers to its pings"),
    "graceful_timeout": Adapted("djasgi drains the connections", "--graceful-timeout"),
    "linger": Adapted("djasgi closes idle connections later"),
}

LACKS = (
    "keep the old code when the new does not load",
    "finish requests when it stops several workers",
    "replace a worker that was killed",
    "exit with an error when the project does not import",
    "trust proxies by address",
)

_OWNED = {
    "application_path": "APP",
    "bind": "--bind",
    "insecure_bind": "--bind",
    "quic_bind": "",
    "backlog": "--backlog",
    "workers": "--workers",
    "worker_class": "--loop",
    "root_path": "--root-path",
    "include_server_header": "--server-header",
    "include_date_header": "--date-header",
    "keep_alive_timeout": "--keep-alive",
    "graceful_timeout": "--graceful-timeout",
    "h11_max_incomplete_size": "--max-head-size",
    "h2_max_header_list_size": "--max-head-size",
    "websocket_max_message_size": "--ws-max-size",
    "websocket_ping_interval": "--ws-ping-interval",
    "loglevel": "--log-level",
    "accesslog": "--access-log",
    "access_log_format": "--log-format",
    "errorlog": "--log-format, or LOGGING of the project",
    "logconfig": "--log-format, or LOGGING of the project",
    "logconfig_dict": "--log-format, or LOGGING of the project",
    "certfile": "--ssl-certfile",
    "keyfile": "--ssl-keyfile",
    "keyfile_password": "--ssl-keyfile-password-file",
    "ca_certs": "--ssl-ca-certs",
    "verify_mode": "--ssl-cert-reqs",
    "cert_reqs": "--ssl-cert-reqs",
    "ciphers": "--ssl-ciphers",
    "umask": "--uds-mode",
    "ssl_handshake_timeout": "--header-timeout",
    # Without effect in a worker of djasgi: accepting them would be pretending.
    "verify_flags": "",
    "alpn_protocols": "--http2",
    "alt_svc_headers": "--header",
    "daemon": "",
    "debug": "",
    "user": "",
    "group": "",
    "pid_path": "",
    "use_reloader": "",
    "logger_class": "",
    "log": "",
    "max_requests": "",
    "max_requests_jitter": "",
    "startup_timeout": "",
    "shutdown_timeout": "",
    "ssl_enabled": "",
    "statsd_host": "",
    "statsd_prefix": "",
    "dogstatsd_tags": "",
    "wsgi_max_body_size": "",
}


def native_application(name: str, *, call: bool) -> list[str] | None:
    """The word on hypercorn's command line for the application, or what makes it."""
    return [f"{name}()"] if call else [name]


def native_address(binds: Sequence[Bind]) -> list[str]:
    """The words on hypercorn's command line that listen on `binds`."""
    return [word for bind in binds for word in ("--bind", str(bind))]


def check_native(settings: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The values of `-o name=value`, by name. Raises UsageError."""
    from hypercorn.config import Config

    known = {
        name: Config.__annotations__.get(name) or type(value).__name__
        for name, value in vars(Config).items()
        if not name.startswith("_") and not callable(value)
    }
    return checked(NAME, settings, known, _OWNED)


def configuration(options: Options) -> dict[str, object]:
    """The attributes of `hypercorn.config.Config` for the options that are native."""
    return {
        "backlog": options.backlog,
        "include_date_header": options.date_header,
        "websocket_ping_interval": options.ws_ping_interval or None,
    }


def preload(options: Options) -> None:
    """Import hypercorn and its protocols: they leave nothing open."""
    import djasgi.servers.engines.hypercorn  # noqa: F401  # importing it is the purpose


def unforkable() -> str:
    """Nothing keeps it from being forked."""
    return ""


def prepare(options: Options, loop: asyncio.AbstractEventLoop) -> None:
    """Import hypercorn and its protocols."""
    import djasgi.servers.engines.hypercorn  # noqa: F401  # importing is the purpose


async def serve(
    application: Application,
    options: Options,
    sockets: Sequence[socket.socket],
    tls: Tls | None,
    *,
    ready: Callable[[], None],
    stop: asyncio.Event,
    linger: Callable[[], float],
    requests: Requests,
) -> None:
    """Serve until `stop` is set, then drain; see `djasgi.servers.base.Server`."""
    from djasgi.servers.engines.hypercorn import Engine

    settings = configuration(options) | check_native(options.native)
    engine = Engine(application, options, settings)
    await engine.serve(
        sockets, tls, ready=ready, stop=stop, linger=linger, requests=requests
    )
