"""Twisted's reactor on a loop that is not its own: installed, given sockets, stopped."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.main import installReactor
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    STDLibLogObserver,
    globalLogBeginner,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from djasgi.errors import ProjectError
from djasgi.tls import Tls

_REACTOR = "twisted.internet.reactor"

_VERIFY = {
    ssl.CERT_NONE: SSL.VERIFY_NONE,
    ssl.CERT_OPTIONAL: SSL.VERIFY_PEER,
    ssl.CERT_REQUIRED: SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class Reactor(AsyncioSelectorReactor):  # type: ignore[misc]  # Twisted is not typed here
    """Twisted's asyncio reactor, which does not stop the loop at its end."""

    def crash(self) -> None:
        # Past AsyncioSelectorReactor.crash, which stops the loop.
        super(AsyncioSelectorReactor, self).crash()


_TO_COME = Reactor.__new__(Reactor)
_waiting: list[ModuleType] = []


@contextmanager
def to_come() -> Iterator[None]:
    """Import within this what wants the reactor, in a process that is to be forked.

    A reactor holds descriptors that forks would share. `install` gives the modules
    theirs in each fork.
    """
    sys.modules[_REACTOR] = cast("ModuleType", _TO_COME)
    try:
        yield
    finally:
        del sys.modules[_REACTOR]
        _waiting.extend(
            module
            for module in [*sys.modules.values()]
            if getattr(module, "__dict__", {}).get("reactor") is _TO_COME
        )


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Install a reactor over `loop`, and send Twisted's errors to `logging`.

    Raises ProjectError when there is a reactor already.
    """
    if _REACTOR in sys.modules:
        raise ProjectError(
            "A Twisted reactor is installed already.",
            hint="Something imported daphne or a reactor before djasgi did.",
        )
    reactor = Reactor(loop)
    installReactor(reactor)
    for module in _waiting:
        module.reactor = reactor  # type: ignore[attr-defined]  # it has one
    errors = LogLevelFilterPredicate(defaultLogLevel=LogLevel.error)
    show_warning = warnings.showwarning
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(STDLibLogObserver("twisted"), [errors])],
        redirectStandardIO=False,
        discardBuffer=True,
    )
    # Twisted makes Python's warnings part of its log, of which only errors are shown.
    warnings.showwarning = show_warning


def adopt(sock: socket.socket, factory: Any, backlog: int) -> Any:
    """A Twisted port that accepts on `sock`, which is closed: the port has its own."""
    from twisted.internet import reactor

    sock.setblocking(False)
    sock.listen(backlog)
    if sock.family == socket.AF_UNIX:
        port = unix.Port._fromListeningDescriptor(  # noqa: SLF001  # pinned
            reactor, sock.fileno(), factory
        )
        # Twisted would set the mode of the file to 0666 and remove it at the end, and
        # shut the socket down, which other workers share. An abstract name has no file.
        port._bindPath = b"\0"  # noqa: SLF001  # pinned
        port._shouldShutdown = False  # noqa: SLF001  # pinned
        port.backlog = backlog
    else:
        port = tcp.Port._fromListeningDescriptor(  # noqa: SLF001  # pinned
            reactor, sock.fileno(), sock.family, factory
        )
    port.startListening()
    sock.close()
    return port


async def halt() -> None:
    """Stop the reactor; what it still has is disconnected and cancelled."""
    from twisted.internet import reactor

    if not reactor.running:
        return  # by the application
    stopped = asyncio.Event()
    reactor.addSystemEventTrigger("after", "shutdown", stopped.set)
    reactor.stop()
    await stopped.wait()
    for call in reactor.getDelayedCalls():
        call.cancel()


def secured(tls: Tls, factory: Any) -> Any:
    """`factory` behind TLS, with everything that `tls.context` says."""
    return TLSMemoryBIOFactory(_Creator(_context(tls)), False, factory)


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: N802
        return SSL.Connection(self._context)


def _context(tls: Tls) -> SSL.Context:
    password = (tls.password or "").encode()
    ciphers = [
        cipher["name"]
        for cipher in tls.context.get_ciphers()
        if cipher["protocol"] != "TLSv1.3"
    ]
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(int(tls.context.minimum_version))
    context.set_options(int(tls.context.options))
    context.set_cipher_list(":".join(ciphers).encode())
    # Always given: without it OpenSSL asks on the terminal.
    context.set_passwd_cb(lambda *_: password)
    context.use_certificate_chain_file(str(tls.certfile))
    context.use_privatekey_file(str(tls.keyfile or tls.certfile))
    context.check_privatekey()
    context.set_verify(_VERIFY[tls.context.verify_mode], None)
    if tls.ca_certs is not None:
        context.load_verify_locations(str(tls.ca_certs))
        context.load_client_ca(str(tls.ca_certs))
    # OpenSSL resumes no session with a client certificate without it.
    context.set_session_id(b"djasgi")
    known = (b"h2", b"http/1.1") if tls.http2 else (b"http/1.1",)
    context.set_alpn_select_callback(
        lambda _, offered: next(
            (name for name in known if name in offered), SSL.NO_OVERLAPPING_PROTOCOLS
        )
    )
    return context
