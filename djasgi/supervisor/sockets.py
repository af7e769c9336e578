"""The sockets that are listened on: bound or inherited, told of in errors, given back.

They are bound here and listen later: until then a client is refused at once, instead of
waiting for an application that may never start.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from errno import (
    EACCES,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EBADF,
    EMFILE,
    ENFILE,
    EPERM,
)
from types import TracebackType
from typing import Any, Self

from djasgi.errors import ListenError
from djasgi.frozen import Frozen
from djasgi.kinds import Bind
from djasgi.supervisor.descriptors import (
    descriptors_exhausted,
    occupy_standard_descriptors,
)
from djasgi.supervisor.unix_sockets import UnixPath, open_unix

ATTEMPTS = 10


class Bound(Frozen):
    """One socket, what was asked for, and what that came to."""

    socket: socket.socket
    asked: Bind
    bind: Bind
    path: UnixPath | None = None

    def close(self) -> None:
        self.socket.close()
        if self.path is not None:
            self.path.remove()

    def hand_over(self) -> dict[str, Any]:
        """This socket for the next supervisor, as JSON."""
        return {
            "fd": self.socket.fileno(),
            "asked": vars(self.asked),
            "bind": vars(self.bind),
            "path": vars(self.path) if self.path is not None else None,
        }


def _taken_over(state: Mapping[str, Any]) -> Bound:
    sock = socket.socket(fileno=state["fd"])
    sock.set_inheritable(False)
    path = UnixPath(**state["path"]) if state["path"] else None
    return Bound(sock, Bind(**state["asked"]), Bind(**state["bind"]), path)


class Listeners:
    """The sockets of one run; a context manager that closes them."""

    def __init__(
        self, backlog: int, scheme: str, inherited: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._backlog = backlog
        self._scheme = scheme
        self._bound: list[Bound] = []
        self._inherited = [_taken_over(state) for state in inherited]
        self._owner = os.getpid()

    @classmethod
    def revived(cls, inherited: Sequence[Mapping[str, Any]]) -> Self:
        """The sockets of the run before, as they were, when the new plan is refused."""
        listeners = cls(0, "http", inherited)
        listeners.revert()
        return listeners

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Those that the workers of this run serve."""
        return tuple(bound.socket for bound in self._bound)

    @property
    def addresses(self) -> tuple[str, ...]:
        """One for each bind, for people: a URL, or `unix:` and the path."""
        return tuple(dict.fromkeys(map(self._address, self._bound)))

    @property
    def moved(self) -> bool:
        """Whether others are bound than in the run before, if there was one."""
        return bool(self._inherited) and {*self._bound} != {*self._inherited}

    def listen(self) -> None:
        """Let clients connect. May be repeated; the first one need not be ours.

        Raises ListenError when another program has begun to listen there since.
        """
        for bound in self._bound:
            try:
                bound.socket.listen(self._backlog)
            except OSError as error:
                raise _tcp_error(_place(bound), error) from error

    def close(self) -> None:
        """Close the sockets and remove the unix paths that are still ours.

        In a child the paths are the parent's. May be repeated.
        """
        for bound in self._all():
            if os.getpid() == self._owner:
                bound.close()
            else:
                bound.socket.close()
        self._bound.clear()
        self._inherited.clear()

    def open(self, binds: Sequence[Bind], uds_mode: int) -> None:
        """Bind or take over all of `binds`. Raises ListenError."""
        for bind in dict.fromkeys(binds):
            if again := self._again(bind):
                self._bound += again
                if bind.family == "unix":
                    os.chmod(bind.path, uds_mode)  # noqa: PTH101  # as it was bound
            elif bind.family == "tcp":
                self._bound += _open_tcp(bind, binds, self._names())
            elif bind.family == "unix":
                sock, path = open_unix(bind.path, uds_mode)
                self._bound.append(Bound(sock, bind, bind, path))
            else:
                self._bound.append(Bound(_inherit(bind.fd), bind, bind))
        for bound in self._bound:
            # Shared by the workers: who loses the race for a client must not wait.
            bound.socket.setblocking(False)

    def hand_over(self) -> list[dict[str, Any]]:
        """All sockets, for the next supervisor."""
        return [bound.hand_over() for bound in self._all()]

    def descriptors(self) -> list[int]:
        """Of all sockets."""
        return [bound.socket.fileno() for bound in self._all()]

    def commit(self) -> None:
        """Close those of the run before that nobody asks for any more."""
        for bound in self._inherited:
            if bound not in self._bound:
                bound.close()
        self._inherited.clear()

    def leave(self) -> None:
        """In a child: close those that are not served any more, and only here.

        As long as anybody has one open, clients can connect to it, and wait.
        """
        for bound in self._inherited:
            if bound not in self._bound:
                bound.socket.close()
        self._inherited.clear()

    def revert(self) -> None:
        """Close what is new, and go on with the sockets of the run before, if any."""
        if not self._inherited:
            return
        for bound in self._bound:
            if bound not in self._inherited:
                bound.close()
        self._bound = [*self._inherited]

    def let_go(self) -> None:
        """Leave the sockets open for others to take over, whatever becomes of this."""
        for bound in self._all():
            bound.socket.detach()
        self._bound.clear()
        self._inherited.clear()

    def _all(self) -> list[Bound]:
        return [*self._bound, *(b for b in self._inherited if b not in self._bound)]

    def _again(self, bind: Bind) -> list[Bound]:
        """The sockets that the run before has bound for the same."""
        return [
            bound
            for bound in self._inherited
            if bound.asked == bind and (bound.path is None or bound.path.is_ours())
        ]

    def _names(self) -> set[Any]:
        return {bound.socket.getsockname() for bound in self._bound}

    def _address(self, bound: Bound) -> str:
        if bound.bind.family == "unix":
            return str(bound.bind)
        name = bound.socket.getsockname()
        if bound.socket.family == socket.AF_UNIX:
            return f"unix:{os.fsdecode(name)}"
        host = bound.bind.host or name[0]
        return f"{self._scheme}://{Bind('tcp', host=host, port=name[1])}"


def _place(bound: Bound) -> Bind:
    """What `bound` listens on, where a name or port 0 was asked for as well."""
    if bound.socket.family == socket.AF_UNIX:
        return bound.bind
    name = bound.socket.getsockname()
    return Bind("tcp", host=name[0], port=name[1])


def open_listeners(
    binds: Sequence[Bind],
    *,
    uds_mode: int,
    backlog: int,
    scheme: str = "http",
    inherited: Sequence[Mapping[str, Any]] = (),
) -> Listeners:
    """The sockets for `binds`: bound, non-blocking, close-on-exec, not listening.

    A name is bound to its first address of each family, `::` to that of IPv4 as well, and
    port 0 is the same free port for all addresses of its name. A unix socket gets the
    permissions `uds_mode`; its getsockname() is the temporary name it was bound under.
    What is `inherited` from the run before is used again where it is asked for again.
    Raises ListenError, with nothing left open, for everything that the system refuses.
    """
    occupy_standard_descriptors()
    listeners = Listeners(backlog, scheme, inherited)
    try:
        listeners.open(binds, uds_mode)
    except BaseException:
        if inherited:
            listeners.revert()
            listeners.let_go()
        else:
            listeners.close()
        raise
    return listeners


def _open_tcp(bind: Bind, binds: Sequence[Bind], taken: set[Any]) -> list[Bound]:
    addresses = _wildcard(bind, binds) if bind.host == "::" else _resolve(bind)
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        try:
            sockets = _bind_all(addresses, taken)
        except OSError as error:
            if bind.port == 0 and error.errno == EADDRINUSE and attempts:
                continue  # the port that was free for one family is not for the other
            raise _tcp_error(bind, error) from error
        shown = bind
        if bind.host == "::" and all(sock.family == socket.AF_INET for sock in sockets):
            shown = bind.replaced(host="0.0.0.0")  # a machine without IPv6
        return [Bound(sock, bind, shown) for sock in sockets]


def _wildcard(
    bind: Bind, binds: Sequence[Bind]
) -> list[tuple[socket.AddressFamily, Any]]:
    """All interfaces, as a socket for each family.

    One socket for both would show an IPv4 client as ::ffff:192.0.2.1. With IPv4 asked
    for on the same port, the other socket is there for it.
    """
    alone = not any(
        other.family == "tcp" and other.port == bind.port != 0 and other != bind
        for other in binds
    )
    both = [
        (socket.AF_INET6, ("::", bind.port, 0, 0)),
        (socket.AF_INET, ("0.0.0.0", bind.port)),
    ]
    return both if alone else both[:1]


def _resolve(bind: Bind) -> list[tuple[socket.AddressFamily, Any]]:
    """The first address of each family."""
    try:
        found = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ListenError(
            f"The host {bind.host} does not resolve: {why}.",
            hint="Use an address of this machine: --host 127.0.0.1",
        ) from error
    first: dict[socket.AddressFamily, Any] = {}
    for family, _, _, _, address in found:
        first.setdefault(family, address)
    return [*first.items()]


def _bind_all(
    addresses: Sequence[tuple[socket.AddressFamily, Any]],
    taken: set[Any],
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        if address in taken:
            continue
        if sockets:
            port = sockets[0].getsockname()[1]
            address = (address[0], port, *address[2:])  # noqa: PLW2901  # same port
        try:
            sockets.append(_bind_one(family, address))
        except OSError as error:
            if error.errno not in (EAFNOSUPPORT, EADDRNOTAVAIL):
                for sock in sockets:
                    sock.close()
                raise
            missing = error  # one family of a name will do
    if missing is not None and not sockets:
        raise missing
    return sockets


def _bind_one(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_error(bind: Bind, error: OSError) -> ListenError:
    match error.errno:
        case code if code == EADDRINUSE:
            return ListenError(
                f"{bind} is in use{_listener(bind)}.",
                hint="Stop that one, or choose another port with --port.",
            )
        case code if code in (EACCES, EPERM):
            return ListenError(
                f"No permission to listen on {bind}.",
                hint="Low ports need root or CAP_NET_BIND_SERVICE: try --port 8000",
            )
        case code if code == EADDRNOTAVAIL:
            return ListenError(
                f"{bind.host} is not an address of this machine.",
                hint="Use one that is, or --host 0.0.0.0 for all of them.",
            )
        case code if code in (EMFILE, ENFILE):
            return descriptors_exhausted()
    return ListenError(
        f"{bind} cannot be listened on: {error.strerror}.",
        hint="Choose another address with --bind.",
    )


def _listener(bind: Bind) -> str:
    from djasgi.supervisor import occupants

    return occupants.listener([a[0] for _, a in _resolve(bind)], bind.port)


def _inherit(number: int) -> socket.socket:
    """The socket that was opened by whoever started us, as descriptor `number`."""
    hint = "Pass a bound stream socket, as systemd does for a .socket unit."
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        what = "is not open" if error.errno == EBADF else "is not a socket"
        raise ListenError(f"File descriptor {number} {what}.", hint=hint) from error
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if sock.type != socket.SOCK_STREAM or sock.family not in families:
        sock.detach()
        raise ListenError(
            f"File descriptor {number} is not a TCP or unix stream socket.", hint=hint
        )
    if _connected(sock):
        sock.detach()
        raise ListenError(
            f"File descriptor {number} is a connection, not a listening socket.",
            hint="With inetd or systemd, hand over the listening socket (Accept=no).",
        )
    sock.set_inheritable(False)
    return sock


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
