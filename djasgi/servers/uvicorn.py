"""uvicorn: how it meets each option, and how it serves.

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
    Refused,
    Requests,
    Supplied,
    Support,
    checked,
)

if TYPE_CHECKING:  # at run time they would slow down `--help`
    import asyncio
    import socket

    from djasgi.tls import Tls

NAME = "uvicorn"

SUPPORT: Mapping[str, Support] = {
    **SUPPLIED,
    "factory": Supplied("djasgi imports the application", "--factory/"),
    "workers": Supplied("the supervisor starts the workers", "--workers"),
    "loop": Supplied("the worker makes the loop", "--loop"),
    "lifespan": Supplied("the worker runs the lifespan", "--lifespan"),
    "env_file": Supplied("environments", "--env-file"),
    "proxy_headers": Supplied("a layer", "--proxy-headers/--no-proxy-headers"),
    "header": Supplied("a layer", "--header"),
    "access_log": Supplied("a layer", "--access-log/--no-access-log"),
    "log_level": Supplied("one logging configuration", "--log-level"),
    "ssl_certfile": Supplied("djasgi makes the TLS context", "--ssl-certfile"),
    "ssl_keyfile": Supplied("djasgi makes the TLS context", "--ssl-keyfile"),
    "ssl_ca_certs": Supplied("djasgi makes the TLS context", "--ssl-ca-certs"),
    "ssl_ciphers": Supplied("djasgi makes the TLS context", "--ssl-ciphers"),
    "backlog": Native("backlog", "--backlog"),
    "keep_alive": Adapted(
        "djasgi looks at the connections from time to time", "--timeout-keep-alive"
    ),
    "header_timeout": Adapted("djasgi looks at the connections from time to time"),
    "limit_concurrency": Supplied("a layer", "--limit-concurrency"),
    "http2": Refused("httptools, its parser, has none"),
    "max_head_size": Adapted("measured as its parser reads, which has no limit"),
    "server_header": Native("server_header", "--server-header/--no-server-header"),
    "date_header": Native("date_header", "--date-header/--no-date-header"),
    "ws_max_size": Native("ws_max_size", "--ws-max-size"),
    "ws_ping_interval": Native("ws_ping_interval", "--ws-ping-interval"),
    "ws_ping_timeout": Native("ws_ping_timeout", "--ws-ping-timeout"),
    "graceful_timeout": Adapted(
        "djasgi drains the connections", "--timeout-graceful-shutdown"
    ),
    "linger": Adapted("djasgi closes idle connections later"),
}

LACKS = (
    "keep the old code when the new does not load",
    "cut a client that never finishes the head of its request",
    "trust a proxy that comes through a unix socket",
    "listen on several addresses",
)

_OWNED = {
    "app": "APP",
    "factory": "--factory",
    "host": "--host",
    "port": "--port",
    "uds": "--uds",
    "fd": "--fd",
    "backlog": "--backlog",
    "workers": "--workers",
    "loop": "--loop",
    "lifespan": "--lifespan",
    "env_file": "--env-file",
    "root_path": "--root-path",
    "proxy_headers": "--proxy-headers",
    "forwarded_allow_ips": "--forwarded-allow-ips",
    "server_header": "--server-header",
    "date_header": "--date-header",
    "headers": "--header",
    "limit_concurrency": "--limit-concurrency",
    "ws_max_size": "--ws-max-size",
    "ws_ping_interval": "--ws-ping-interval",
    "ws_ping_timeout": "--ws-ping-timeout",
    "timeout_keep_alive": "--keep-alive",
    "timeout_graceful_shutdown": "--graceful-timeout",
    "log_level": "--log-level",
    "log_config": "--log-format, or LOGGING of the project",
    "access_log": "--access-log",
    "ssl_certfile": "--ssl-certfile",
    "ssl_keyfile": "--ssl-keyfile",
    "ssl_keyfile_password": "--ssl-keyfile-password-file",
    "ssl_ca_certs": "--ssl-ca-certs",
    "ssl_cert_reqs": "--ssl-cert-reqs",
    "ssl_ciphers": "--ssl-ciphers",
    "ssl_version": "--ssl-min-version",
    # Without effect in a worker of djasgi: accepting them would be pretending.
    "ssl_context_factory": "",
    "use_colors": "",
    "interface": "",
    "http": "",
    "http2": "--http2",
    "ws": "",
    "ws_max_queue": "",
    "h11_max_incomplete_event_size": "",
    "limit_max_requests": "",
    "limit_max_requests_jitter": "",
    "timeout_notify": "",
    "callback_notify": "",
    "timeout_worker_healthcheck": "",
    "reload": "",
    "reload_dirs": "",
    "reload_delay": "",
    "reload_includes": "",
    "reload_excludes": "",
}


def native_application(name: str, *, call: bool) -> list[str] | None:
    """The words on uvicorn's command line for the application, or what makes it."""
    return ["--factory", name] if call else [name]


def native_address(binds: Sequence[Bind]) -> list[str]:
    """The words on uvicorn's command line for the first of `binds`: it takes one."""
    match binds[0]:
        case Bind(family="unix", path=path):
            return ["--uds", path]
        case Bind(family="fd", fd=fd):
            return ["--fd", str(fd)]
        case Bind(host=host, port=port):
            return ["--host", host, "--port", str(port)]


def check_native(settings: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The values of `-o name=value`, by name. Raises UsageError."""
    import inspect

    import uvicorn

    parameters = inspect.signature(uvicorn.Config).parameters
    known = {name: str(parameters[name].annotation) for name in parameters}
    return checked(NAME, settings, known, _OWNED)


def configuration(options: Options) -> dict[str, object]:
    """The keywords of `uvicorn.Config` for the options that are native."""
    return {
        "backlog": options.backlog,
        "timeout_keep_alive": options.keep_alive,
        "server_header": options.server_header,
        "date_header": options.date_header,
        "ws_max_size": options.ws_max_size,
        "ws_ping_interval": options.ws_ping_interval or None,
        "ws_ping_timeout": options.ws_ping_timeout or None,
    }


def preload(options: Options) -> None:
    """Import uvicorn and its protocols: they leave nothing open."""
    import djasgi.servers.engines.uvicorn  # noqa: F401  # importing it is the purpose


def unforkable() -> str:
    """Nothing keeps it from being forked."""
    return ""


def prepare(options: Options, loop: asyncio.AbstractEventLoop) -> None:
    """Import uvicorn and its protocols."""
    import djasgi.servers.engines.uvicorn  # noqa: F401  # importing it is the purpose


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
    from djasgi.servers.engines.uvicorn import Engine

    settings = configuration(options) | check_native(options.native)
    engine = Engine(application, options, settings)
    await engine.serve(
        sockets, tls, ready=ready, stop=stop, linger=linger, requests=requests
    )
