"""daphne: how it meets each option, and how it serves.

It is not imported here but in its engine, so that its table can be shown at once, and
because importing it installs a Twisted reactor.
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
    Requests,
    Supplied,
    Support,
    checked,
)

if TYPE_CHECKING:  # at run time they would slow down `--help`
    import asyncio
    import socket

    from djasgi.tls import Tls

NAME = "daphne"

SUPPORT: Mapping[str, Support] = {
    **SUPPLIED,
    "root_path": Supplied("a layer", "--root-path"),
    "proxy_headers": Supplied("a layer", "--proxy-headers/"),
    "backlog": Adapted("djasgi listens, Twisted adopts the socket"),
    "keep_alive": Adapted("timeOut of Twisted's HTTP factory"),
    "header_timeout": Adapted("a timer in Twisted's HTTP channel"),
    "http2": Adapted("chosen in the TLS handshake, and held to the same rules"),
    "max_body_size": Adapted("a layer, and no more than that is read before it"),
    "max_head_size": Adapted("measured in Twisted's HTTP channel"),
    "server_header": Adapted("server_name, empty when off", "/--no-server-name"),
    "date_header": Adapted("added to the response, daphne sends none"),
    "ws_max_size": Adapted(
        "maxMessagePayloadSize of autobahn, for what is received only",
        "--websocket-max-message-size",
    ),
    "ws_ping_interval": Adapted("autoPingInterval of autobahn", "--ping-interval"),
    "ws_ping_timeout": Adapted("autoPingTimeout of autobahn", "--ping-timeout"),
    "graceful_timeout": Adapted("djasgi drains the connections"),
    "linger": Adapted("djasgi closes idle connections later"),
}

LACKS = (
    "reload without losing requests",
    "finish requests in flight when it stops",
    "run more than one worker",
    "send lifespan events",
    "trust proxies by address",
)

_OWNED = {
    "application": "APP",
    "endpoints": "--bind",
    "root_path": "--root-path",
    "server_name": "--server-header",
    "ping_interval": "--ws-ping-interval",
    "ping_timeout": "--ws-ping-timeout",
    "websocket_max_message_size": "--ws-max-size",
    "websocket_max_frame_size": "--ws-max-size",
    "proxy_forwarded_address_header": "--proxy-headers",
    "proxy_forwarded_port_header": "--proxy-headers",
    "proxy_forwarded_proto_header": "--proxy-headers",
    "verbosity": "--log-level",
    "action_logger": "--access-log",
    # Without effect in a worker of djasgi: accepting them would be pretending.
    "signal_handlers": "",
    "ready_callable": "",
}

# daphne gives no annotations, and None as the default of this one.
_ANNOTATIONS = {"http_timeout": "float | None"}


def native_application(name: str, *, call: bool) -> list[str] | None:
    """The word on daphne's command line for the application; it calls nothing."""
    return None if call else [name]


def native_address(binds: Sequence[Bind]) -> list[str]:
    """The words on daphne's command line that listen on the first of each family."""
    words: dict[str, list[str]] = {}
    for bind in binds:
        match bind:
            case Bind(family="unix", path=path):
                words.setdefault("unix", ["--unix-socket", path])
            case Bind(family="fd", fd=fd):
                words.setdefault("fd", ["--fd", str(fd)])
            case Bind(host=host, port=port):
                words.setdefault("tcp", ["--bind", host, "--port", str(port)])
    return [word for group in words.values() for word in group]


def check_native(settings: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The values of `-o name=value`, by name. Raises UsageError."""
    return checked(NAME, settings, _known() if settings else {}, _OWNED)


def _known() -> dict[str, str]:
    """The keywords of `daphne.server.Server`, read from its source.

    Importing it would install a reactor, in a process that has none to install.
    """
    import ast
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("daphne")
    assert found is not None, "daphne is a dependency"  # noqa: S101
    folders = found.submodule_search_locations or ()
    source = (Path(next(iter(folders))) / "server.py").read_text(encoding="utf-8")
    [server] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Server"
    ]
    [init] = [
        node
        for node in server.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    names = [argument.arg for argument in init.args.args][-len(init.args.defaults) :]
    known = {
        name: type(default.value).__name__
        if isinstance(default, ast.Constant)
        else "int"
        for name, default in zip(names, init.args.defaults, strict=True)
    }
    return known | {"application": "object"} | _ANNOTATIONS


def preload(options: Options) -> None:
    """Import daphne and its protocols, but for the reactor: each fork has its own."""
    from djasgi.servers.engines import reactor

    with reactor.to_come():
        _import(options)


def unforkable() -> str:
    """The reactor of the project, whose poll descriptor forks would share."""
    import sys

    installed = "twisted.internet.reactor" in sys.modules
    return "a Twisted reactor, installed" if installed else ""


def prepare(options: Options, loop: asyncio.AbstractEventLoop) -> None:
    """Install the Twisted reactor over `loop`, then import daphne.

    Raises ProjectError when another reactor has been installed.
    """
    from djasgi.servers.engines import reactor

    reactor.install(loop)
    _import(options)


def _import(options: Options) -> None:
    import sys

    # Twisted does without HTTP/2 where it cannot be imported, which takes a while.
    spared = "twisted.web._http2"
    spare = not options.http2 and spared not in sys.modules
    if spare:
        sys.modules[spared] = None  # type: ignore[assignment]  # documented
    try:
        import djasgi.servers.engines.daphne  # noqa: F401  # importing is the purpose
    finally:
        if spare:
            del sys.modules[spared]


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
    """Serve until `stop` is set, then drain; see `djasgi.servers.base.Server`.

    `prepare` must have been called with the running loop. Once in a process: Twisted's
    reactor cannot be started again.
    """
    from djasgi.servers.engines.daphne import Engine

    engine = Engine(application, options, check_native(options.native))
    await engine.serve(
        sockets, tls, ready=ready, stop=stop, linger=linger, requests=requests
    )
