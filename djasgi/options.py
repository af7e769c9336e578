"""Every option, declared once.

The fields of `Options` are the declarations. From them are derived the command-line
parameters, the `DJASGI_*` variables, the keys of `[tool.djasgi]`, validation, `djasgi
explain` and the reference tables of the README. An option is declared by the piece of
work that implements it, never earlier.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from djasgi.frozen import Frozen
from djasgi.kinds import (
    Addresses,
    Attribute,
    Bind,
    BindAddress,
    Bytes,
    Choice,
    Dotted,
    FilePath,
    Flag,
    Header,
    Integer,
    Kind,
    Mode,
    Repeated,
    RootPath,
    Seconds,
    Setting,
    Size,
    Text,
    ThreadRange,
    UrlPath,
    Workers,
)

SERVERS = ("uvicorn", "hypercorn", "daphne")

SECTIONS = (
    "Project",
    "Server",
    "Workers",
    "Address",
    "HTTP",
    "Limits",
    "WebSocket",
    "TLS",
    "Logging",
    "Health",
    "Stopping",
)


class Spec(Frozen):
    """The declaration of one option."""

    name: str
    kind: Kind
    default: Any
    section: str
    help: str
    flags: tuple[str, ...]
    platform: str | None
    toml: bool
    argument: bool

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return "DJASGI_" + self.field.upper()

    @property
    def flag(self) -> str:
        """The spelling used in messages: `--keep-alive`, or `APP`."""
        return self.name.upper() if self.argument else self.flags[-1]

    def show(self, value: Any) -> str:
        """`value` as a user would type it, `none` when there is none."""
        if value is None or value == ():
            return "none"
        return "auto" if value == "auto" else self.kind.show(value)


OPTIONS: dict[str, Spec] = {}
"""The declarations, by field."""


class _Declared:
    """Becomes the `Spec` and the default of the field that it is assigned to."""

    def __init__(self, short: str, **details: Any) -> None:
        self.short = short
        self.details = details

    def __set_name__(self, owner: type, field: str) -> None:
        name = field.replace("_", "-")
        flags = () if self.details["argument"] else (self.short, f"--{name}")
        spec = Spec(name=name, flags=tuple(filter(None, flags)), **self.details)
        OPTIONS[field] = spec
        setattr(owner, field, spec.default)


def option(
    default: Any,
    kind: Kind,
    section: str,
    help: str,  # noqa: A002
    *,
    short: str = "",
    platform: str | None = None,
    toml: bool = True,
    argument: bool = False,
) -> Any:
    """A field of `Options`; its name becomes flag, variable and key."""
    return _Declared(
        short,
        default=default,
        kind=kind,
        section=section,
        help=help,
        platform=platform,
        toml=toml,
        argument=argument,
    )


class Options(Frozen):
    """The value of every option. Seconds and bytes, unless the help says otherwise."""

    app: str | None = option(
        None,
        Text("APP", "module:attribute, a module or a file"),
        "Project",
        "The application: module:attribute, module, module:factory() or a file. "
        "Found by itself when it is not given.",
        argument=True,
    )
    project: Path | None = option(
        None,
        FilePath(),
        "Project",
        "The directory with manage.py. Found by itself when it is not given.",
    )
    env: str | None = option(
        None,
        Text("NAME", "the name of an environment"),
        "Project",
        "The environment: its table in the configuration file, or the settings module "
        "of that name.",
        toml=False,
    )
    settings: str | None = option(
        None,
        Dotted(),
        "Project",
        "The settings module. Wins over the environment's.",
        platform="DJANGO_SETTINGS_MODULE",
    )
    env_file: Path | None = option(
        None,
        FilePath(),
        "Project",
        "A file of NAME=value lines for the project's environment. Never overrides "
        "what is already set.",
    )
    factory: bool = option(
        False, Flag(), "Project", "APP is a function that returns the application."
    )
    middleware: tuple[str, ...] = option(
        (),
        Repeated(Attribute()),
        "Project",
        "ASGI middleware around the application, outermost first. Repeatable.",
    )
    server: str = option(
        "uvicorn", Choice(*SERVERS), "Server", "The server that speaks to the clients."
    )
    workers: int | Literal["auto"] = option(
        1,
        Workers(),
        "Server",
        "Worker processes. 0 serves in this process; auto computes the number from the "
        "CPUs and the memory that this process may use.",
        platform="WEB_CONCURRENCY",
    )
    threads: tuple[int, int] = option(
        (1, 16),
        ThreadRange(),
        "Server",
        "Threads of each worker for synchronous code: N, or MIN:MAX as the load asks "
        "for. Websocket connections have as many of their own. 0 is one for each "
        "request, as Django makes them.",
    )
    handler: Literal["djasgi", "django"] = option(
        "djasgi",
        Choice("djasgi", "django"),
        "Server",
        "Django's ASGI handler: djasgi's goes to a thread and back once for a "
        "synchronous view, Django's own for each hook of each middleware.",
    )
    loop: str = option(
        "auto",
        Choice("auto", "uvloop", "asyncio"),
        "Server",
        "The event loop. auto is uvloop where it is installed.",
    )
    lifespan: Literal["auto", "on", "off"] = option(
        "auto",
        Choice("auto", "on", "off"),
        "Server",
        "ASGI lifespan events. on makes an application without them an error.",
    )
    native: tuple[tuple[str, str], ...] = option(
        (),
        Repeated(Setting()),
        "Server",
        "A native setting of the chosen server. Repeatable.",
        short="-o",
    )
    preload: str = option(
        "auto",
        Choice("auto", "on", "off"),
        "Workers",
        "Import the project once and fork the workers from it; auto does so for several "
        "workers, unless the import leaves threads or connections that forks would break.",
    )
    warmup: tuple[str, ...] = option(
        (),
        Repeated(UrlPath()),
        "Workers",
        "A page that each worker asks of the application before it is ready. Repeatable.",
    )
    boot_timeout: float = option(
        60.0,
        Seconds(0.1),
        "Workers",
        "How long the import of the project, and then the start of a worker, may take, "
        "in seconds.",
    )
    hang_timeout: float = option(
        30.0,
        Seconds(),
        "Workers",
        "How long the event loop of a worker may be blocked before the stacks of its "
        "threads are logged and it is replaced, in seconds; 0 is for ever. Threads that "
        "are all stuck for as long while calls wait are logged too.",
    )
    max_requests: int = option(
        0,
        Integer(0, 10**12),
        "Workers",
        "Requests after which a worker is replaced; 0 is never.",
    )
    max_requests_jitter: int = option(
        0,
        Integer(0, 10**12),
        "Workers",
        "Up to so many requests more, at random, so that workers are not replaced all "
        "at once.",
    )
    max_worker_memory: int = option(
        0,
        Size(),
        "Workers",
        "Resident memory above which a worker is replaced, such as 512M; 0 is any.",
    )
    max_worker_lifetime: float = option(
        0.0,
        Seconds(maximum=31_536_000),
        "Workers",
        "Age at which a worker is replaced, in seconds; 0 is never.",
    )
    pid_file: Path | None = option(
        None,
        FilePath(),
        "Workers",
        "A file for the process id of djasgi, removed at its end.",
    )
    host: str = option(
        "127.0.0.1", Text("HOST", "a host name or address"), "Address", "The host."
    )
    port: int = option(
        8000,
        Integer(0, 65_535),
        "Address",
        "The TCP port; 0 takes a free one.",
        platform="PORT",
    )
    bind: tuple[Bind, ...] = option(
        (),
        Repeated(BindAddress()),
        "Address",
        "Where to listen: HOST:PORT, [IPv6]:PORT, unix:PATH or fd://NUMBER. Repeatable.",
        short="-b",
    )
    uds: Path | None = option(
        None, FilePath(), "Address", "A unix socket to listen on."
    )
    uds_mode: int = option(
        0o660, Mode(), "Address", "Permissions of the unix socket, in octal."
    )
    fd: int | None = option(
        None,
        Integer(0, 1_000_000),
        "Address",
        "An inherited socket to listen on, by file descriptor.",
        platform="LISTEN_FDS",
    )
    backlog: int = option(
        2048,
        Integer(1, 65_535),
        "Address",
        "Connections that may wait to be accepted.",
    )
    root_path: str = option(
        "", RootPath(), "HTTP", "The prefix under which a proxy mounts the application."
    )
    proxy_headers: bool = option(
        True,
        Flag(),
        "HTTP",
        "Take client address and scheme from X-Forwarded-For and -Proto of trusted "
        "proxies.",
    )
    forwarded_allow_ips: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        Addresses(),
        "HTTP",
        "The trusted proxies: addresses and networks, separated by commas; * is "
        "whoever connects. Peers on a unix socket are always trusted.",
        platform="FORWARDED_ALLOW_IPS",
    )
    keep_alive: float = option(
        95.0,
        Seconds(),
        "HTTP",
        "How long an idle connection stays open, in seconds.",
    )
    header_timeout: float = option(
        10.0,
        Seconds(),
        "HTTP",
        "How long a client may take to send the head of a request, in seconds; 0 is no "
        "limit.",
    )
    http2: bool = option(
        False,
        Flag(),
        "HTTP",
        "Speak HTTP/2 with the clients that do, over TLS. Websockets stay with HTTP/1.",
    )
    server_header: bool = option(
        False, Flag(), "HTTP", "Send a Server header with the name of the server."
    )
    date_header: bool = option(True, Flag(), "HTTP", "Send a Date header.")
    header: tuple[tuple[str, str], ...] = option(
        (),
        Repeated(Header(), separator="\n"),
        "HTTP",
        "A header added to every response. Repeatable.",
    )
    request_timeout: float = option(
        0.0,
        Seconds(),
        "Limits",
        "How long the application may take to begin its response before 503 is sent in "
        "its place, in seconds; 0 is no limit.",
    )
    limit_concurrency: int = option(
        0,
        Integer(0, 1_000_000),
        "Limits",
        "Requests that a worker runs at once; more are answered with 503. 0 is any.",
    )
    max_body_size: int = option(
        0,
        Size(),
        "Limits",
        "The largest body of a request, such as 50M; a larger one is answered with 413. "
        "0 is any.",
    )
    max_head_size: int = option(
        65_536,
        Bytes(1024, 2**24),
        "Limits",
        "The largest head of a request, its first line and header fields, in bytes; a "
        "larger one is answered with 431.",
    )
    ws_max_size: int = option(
        1_048_576,
        Bytes(1, 2**31 - 1),
        "WebSocket",
        "The largest message that is accepted, in bytes.",
    )
    ws_ping_interval: float = option(
        20.0,
        Seconds(),
        "WebSocket",
        "Pings on an idle connection, in seconds; 0 is never.",
    )
    ws_ping_timeout: float = option(
        20.0,
        Seconds(),
        "WebSocket",
        "How long the answer to a ping may take, in seconds; 0 is for ever.",
    )
    ssl_certfile: Path | None = option(
        None, FilePath(), "TLS", "The certificate chain, PEM. Turns TLS on."
    )
    ssl_keyfile: Path | None = option(
        None,
        FilePath(),
        "TLS",
        "The private key, PEM, if it is not in the certificate.",
    )
    ssl_keyfile_password_file: Path | None = option(
        None, FilePath(), "TLS", "A file whose first line is the password of the key."
    )
    ssl_ca_certs: Path | None = option(
        None, FilePath(), "TLS", "The authorities that client certificates come from."
    )
    ssl_cert_reqs: str = option(
        "none",
        Choice("none", "optional", "required"),
        "TLS",
        "Whether clients present a certificate.",
    )
    ssl_ciphers: str | None = option(
        None,
        Text("CIPHERS", "an OpenSSL cipher list"),
        "TLS",
        "The ciphers up to TLS 1.2, an OpenSSL cipher list.",
    )
    ssl_min_version: str = option(
        "1.2", Choice("1.2", "1.3"), "TLS", "The oldest TLS version that is accepted."
    )
    access_log: bool = option(
        True, Flag(), "Logging", "Log every request, its path without the query."
    )
    log_level: str = option(
        "info",
        Choice("debug", "info", "warning", "error", "critical"),
        "Logging",
        "The least level of djasgi's and the server's own log lines.",
    )
    log_format: str = option(
        "text",
        Choice("text", "json"),
        "Logging",
        "Lines to read, or one JSON object a line.",
    )
    health_path: str | None = option(
        None,
        UrlPath(),
        "Health",
        "A path that answers 200 as long as a worker lives, whatever Django does.",
    )
    ready_path: str | None = option(
        None,
        UrlPath(),
        "Health",
        "A path that answers 200, and 503 once djasgi is about to stop.",
    )
    drain_delay: float = option(
        0.0,
        Seconds(),
        "Stopping",
        "How long everything still works after a stop was asked for, while --ready-path "
        "answers 503 so that load balancers look elsewhere, in seconds.",
    )
    graceful_timeout: float = option(
        20.0,
        Seconds(),
        "Stopping",
        "How long requests in flight may go on after a stop was asked for, in seconds.",
    )
    linger: float = option(
        2.0,
        Seconds(),
        "Stopping",
        "How long idle connections stay open meanwhile, in seconds, for clients that "
        "are about to use them again.",
    )
    stream_grace: float = option(
        5.0,
        Seconds(),
        "Stopping",
        "How long a streaming response may go on meanwhile, in seconds, before its "
        "application sees http.disconnect.",
    )
