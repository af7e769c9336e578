"""How a server can meet an option, and what the modules of the servers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from djasgi.errors import UsageError, nearest
from djasgi.frozen import Frozen
from djasgi.kinds import Bind, Flag, Integer, Kind, Repeated, Seconds
from djasgi.options import Options

if TYPE_CHECKING:  # at run time they would slow down `--help`
    import asyncio
    import socket

    from djasgi.tls import Tls

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Native(Frozen):
    """The attribute of the server's own configuration that does exactly this.

    `flag` is the spelling on the server's own command line, empty if there is none. An
    option that is on or off has both spellings, `--on/--off`; either may be empty.
    """

    attribute: str
    flag: str = ""

    def arguments(self, value: Any, kind: Kind) -> list[str]:
        """The words on the server's own command line that ask for `value`."""
        return _arguments(self.flag, value, kind)


class Supplied(Frozen):
    """djasgi does it, with the same code for every server.

    `flag` as in `Native`: what comes nearest to it on the server's own command line.
    """

    by: str
    flag: str = ""

    def arguments(self, value: Any, kind: Kind) -> list[str]:
        """The words on the server's own command line that ask for `value`."""
        return _arguments(self.flag, value, kind)


class Adapted(Frozen):
    """Below ASGI, through the server's internals.

    `flag` as in `Native`: what comes nearest to it on the server's own command line.
    """

    how: str
    flag: str = ""

    def arguments(self, value: Any, kind: Kind) -> list[str]:
        """The words on the server's own command line that ask for `value`."""
        return _arguments(self.flag, value, kind)


class Refused(Frozen):
    """Cannot be done on this server."""

    why: str


Support = Native | Supplied | Adapted | Refused


def _arguments(flag: str, value: Any, kind: Kind) -> list[str]:
    if not flag or value in (None, "auto"):
        return []  # no server knows auto as a value
    if isinstance(kind, Flag):
        on, _, off = flag.partition("/")
        word = on if value else off
        return [word] if word else []
    if isinstance(kind, Repeated):
        return [word for item in value for word in (flag, kind.item.show(item))]
    return [flag, kind.show(value)]


_SOCKETS = Supplied("the supervisor binds the sockets")
_REPLACED = Supplied("the supervisor starts the next one first")
_TLS = "djasgi makes the TLS context"

SUPPLIED: Mapping[str, Support] = {
    "app": Supplied("discovery"),
    "project": Supplied("discovery"),
    "env": Supplied("environments"),
    "settings": Supplied("environments"),
    "env_file": Supplied("environments"),
    "factory": Supplied("djasgi imports the application"),
    "middleware": Supplied("layers around the application"),
    "server": Supplied("this choice"),
    "workers": Supplied("the supervisor starts the workers"),
    "threads": Supplied("a layer"),
    "handler": Supplied("put in the place of Django's before the import"),
    "loop": Supplied("the worker makes the loop"),
    "lifespan": Supplied("the worker runs the lifespan"),
    "native": Supplied("checked against the server's own configuration"),
    "host": _SOCKETS,
    "port": _SOCKETS,
    "bind": _SOCKETS,
    "uds": _SOCKETS,
    "uds_mode": _SOCKETS,
    "fd": _SOCKETS,
    "root_path": Supplied("a layer"),
    "proxy_headers": Supplied("a layer"),
    "forwarded_allow_ips": Supplied("a layer"),
    "header": Supplied("a layer"),
    "request_timeout": Supplied("a layer"),
    "limit_concurrency": Supplied("a layer"),
    "max_body_size": Supplied("a layer"),
    "health_path": Supplied("a layer"),
    "ready_path": Supplied("a layer"),
    "preload": Supplied("a process of its own imports once and forks"),
    "warmup": Supplied("each worker asks the application"),
    "boot_timeout": Supplied("the supervisor waits for the workers"),
    "hang_timeout": Supplied("workers beat, the supervisor listens"),
    "max_requests": _REPLACED,
    "max_requests_jitter": _REPLACED,
    "max_worker_memory": _REPLACED,
    "max_worker_lifetime": _REPLACED,
    "pid_file": Supplied("the supervisor writes it"),
    "drain_delay": Supplied("the supervisor waits"),
    "ssl_certfile": Supplied(_TLS),
    "ssl_keyfile": Supplied(_TLS),
    "ssl_keyfile_password_file": Supplied(_TLS),
    "ssl_ca_certs": Supplied(_TLS),
    "ssl_cert_reqs": Supplied(_TLS),
    "ssl_ciphers": Supplied(_TLS),
    "ssl_min_version": Supplied(_TLS),
    "access_log": Supplied("a layer"),
    "log_level": Supplied("one logging configuration"),
    "log_format": Supplied("one logging configuration"),
    "stream_grace": Supplied("a layer"),
}
"""What is met in the same way on every server. Their modules add the rest, and flags."""


class Requests(Protocol):
    """What a server needs of `djasgi.layers.requests.Requests`."""

    def drain(self, stream_grace: float) -> None:
        """Make each response the last of its connection; end streams after a time."""


class Server(Protocol):
    """The shape of the module of a server."""

    NAME: str
    SUPPORT: Mapping[str, Support]
    LACKS: tuple[str, ...]

    def native_application(self, name: str, *, call: bool) -> list[str] | None:
        """The words on the server's own command line for `module:attribute`.

        With `call` it is a function that makes the application. None if the server
        cannot call one.
        """

    def native_address(self, binds: Sequence[Bind]) -> list[str]:
        """The words on the server's own command line that listen on `binds`."""

    def check_native(self, settings: Sequence[tuple[str, str]]) -> dict[str, object]:
        """The values of `-o name=value`, by name.

        Raises UsageError for a name that the server's own configuration does not have,
        or that belongs to djasgi, and for a value of the wrong type.
        """

    def preload(self, options: Options) -> None:
        """Import what of the server may be imported before a fork."""

    def unforkable(self) -> str:
        """What the project has done that keeps this server from being forked; or ""."""

    def prepare(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        """Import the server, before the project's root enters `sys.path`.

        `loop` is the loop that will serve. Once in a process.
        """

    async def serve(
        self,
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
        """Serve on `sockets`, which are bound, and closed at the end.

        `requests` is `application`, or a layer in it. Calls `ready` once, when
        connections are accepted on all of the sockets. When `stop` has been set, asks
        `linger` once for how many seconds idle connections stay open, and returns when
        requests in flight have finished, or have been cancelled after
        `options.graceful_timeout` seconds.
        """


def checked(
    server: str,
    settings: Sequence[tuple[str, str]],
    known: Mapping[str, str],
    owned: Mapping[str, str],
) -> dict[str, object]:
    """`settings` of `-o`, validated and converted.

    `known` is the server's own configuration, name to annotation; `owned` what djasgi
    decides, name to the option that says it, empty when there is none.
    """
    values: dict[str, object] = {}
    for name, text in settings:
        if name in owned:
            option = owned[name]
            raise UsageError(
                f"-o {name}: {name} belongs to djasgi.",
                hint=f"Use {option}." if option else "Leave it out.",
            )
        if name not in known:
            near = nearest(name, [word for word in known if word not in owned])
            raise UsageError(
                f"-o {name}: {server} has no such setting.",
                hint=f"Did you mean {near}?"
                if near
                else f"See the documentation of {server}'s configuration.",
            )
        values[name] = converted(name, text, known[name])
    return values


def converted(name: str, text: str, annotation: str) -> object:
    """The value of `-o name=text` for a setting with this annotation.

    `annotation` is as in source code: `int | None`, `list[str]`. Raises UsageError.
    """
    kinds = [kind.strip() for kind in annotation.split("|")]
    if "None" in kinds and text.lower() == "none":
        return None
    try:
        for kind in kinds:
            match kind:
                case "bool":
                    return Flag().parse(text)
                case "int":
                    return Integer(0).parse(text)
                case "float":
                    return Seconds(maximum=float(2**31)).parse(text)
                case "str":
                    return text
                case "list[str]":
                    return [part.strip() for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(
            f"-o {name}={text}: {error}.", hint="Give such a value, or leave it out."
        ) from None
    raise UsageError(
        f"-o {name}: a value of this kind ({annotation}) cannot be written as text.",
        hint="Leave it out.",
    )
