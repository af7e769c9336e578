"""daphne's server on the worker's loop; `reactor.install` comes before importing this.

`Server.run` owns the reactor, and with it the process; it ends by dropping every
request. What it sets up before is done here, with protocols that can be drained.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import daphne.server
from autobahn.twisted.websocket import ConnectionDeny
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from twisted.internet import reactor
from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel

from djasgi.options import Options
from djasgi.servers.base import Application, Receive, Requests, Scope, Send
from djasgi.servers.engines.draining import CLOSING, drain, settle, unacknowledged
from djasgi.servers.engines.reactor import adopt, halt, secured
from djasgi.tls import Tls

logger = logging.getLogger("daphne.server")

SERVICE_RESTART = 1012

# daphne makes a loop for the case that it has to install a reactor.
daphne.server.twisted_loop.close()

_FOREVER = 10**9
_LIMITS_OF_ITS_OWN = {
    # Neither uvicorn nor hypercorn ends a connection or an application after a time.
    "application_close_timeout": _FOREVER,
    "websocket_connect_timeout": _FOREVER,
    "websocket_handshake_timeout": 0,
    "websocket_timeout": -1,
}


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Channel(HTTPChannel):  # type: ignore[misc]  # Twisted is not typed here
    """Twisted's side of a connection, with a limit for the head of a request.

    The time runs from the connection, then from the first byte of each further request,
    to the end of the head. Between requests it is the keep-alive time, and none while a
    request runs: Twisted starts its time anew with each byte, the body's too.
    """

    abortTimeout = CLOSING  # noqa: N815  # Twisted's name

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        super().connectionMade()
        self._abortingCall: Any = None
        self.heads = 0
        self.waiting = True
        self._begun = True
        self._savedTimeOut = self.factory.timeOut
        self.factory.channels.add(self)
        self.setTimeout(self.factory.header_timeout)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802  # Twisted's name
        self.factory.channels.discard(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        heads = self.heads
        LineReceiver.dataReceived(self, data)
        if self.waiting and not self._begun and heads == self.heads:
            self._begun = True
            self.setTimeout(self.factory.header_timeout)

    def allHeadersReceived(self) -> None:  # noqa: N802  # Twisted's name
        super().allHeadersReceived()
        self.heads += 1
        self.waiting = False
        self.setTimeout(None)

    def requestDone(self, request: Any) -> None:  # noqa: N802  # Twisted's name
        self.waiting = True
        self._begun = False
        if not self.factory.timeOut:
            self.persistent = False
        super().requestDone(request)

    def loseConnection(self) -> None:  # noqa: N802  # Twisted's name
        """Close; in a drain, after a response, as RFC 9112 has it in section 9.6.

        To close at once resets the connection if there is something to read, and the
        client may lose the end of the response. TLS waits for the client by itself.
        """
        if self.factory.server.draining and not self.isSecure():
            self._networkProducer.unregisterProducer()
            self.dataReceived = _forget  # type: ignore[method-assign]
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()
        if self.factory.server.draining:
            self._abort_later()

    def close_idle(self) -> None:
        """Close without waiting for the client, unless TLS asks its consent."""
        super().loseConnection()
        self._abort_later()

    def _abort_later(self) -> None:
        """Drop the connection if its client does not close it, and has got all."""

        def look() -> None:
            self._abortingCall = None
            plain = self.plain_transport()
            if plain in reactor.getWriters() or unacknowledged(plain):
                self._abort_later()
            else:
                self.transport.abortConnection()

        if self._abortingCall is None:
            self._abortingCall = self.callLater(CLOSING, look)

    def plain_transport(self) -> Any:
        """The transport below TLS, if there is TLS."""
        return getattr(self.transport, "transport", self.transport)


def _forget(data: bytes) -> None:
    """In place of `dataReceived`, after the last response."""


class Request(WebRequest):  # type: ignore[misc]  # daphne is not typed
    """daphne's request, with a Date header and an end when its application has ended."""

    error_template = "%(title)s"  # daphne's names the server

    def process(self) -> Any:
        channel = self.channel
        done = super().process()
        if self.transport is None:  # it belongs to a websocket now
            channel.factory.channels.discard(channel)
        return done

    def handle_reply(self, message: dict[str, Any]) -> None:
        super().handle_reply(message)
        if message["type"] == "http.response.start" and self.channel is not None:
            headers = self.responseHeaders
            if self.server.options.date_header and not headers.hasHeader(b"date"):
                headers.setRawHeaders(b"date", [_date(int(time.time()))])
            said = b",".join(headers.getRawHeaders(b"connection", ())).lower()
            if self.server.draining or b"close" in said.replace(b" ", b"").split(b","):
                headers.setRawHeaders(b"connection", [b"close"])
                self.channel.persistent = False

    def handle_exception(self, exception: BaseException | None) -> None:
        if not self._response_started:
            super().handle_exception(exception)
        elif self.channel is not None:
            # daphne would try to start a second response, and stop looking after
            # its applications when that raises.
            if self.clientproto == b"HTTP/1.0":
                # Its client would take what there is for all of it.
                self.channel.transport.abortConnection()
            else:
                self.channel.timeoutConnection()


class HttpFactory(HTTPFactory):  # type: ignore[misc]  # daphne is not typed
    """Makes the channels of the connections, and knows them."""

    protocol = Channel
    noisy = False

    def __init__(self, server: Engine) -> None:
        super().__init__(server)
        self.channels: set[Channel] = set()
        self.timeOut = server.options.keep_alive
        self.header_timeout = server.options.header_timeout or None

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  # Twisted's name
        channel = super().buildProtocol(addr)
        channel.requestFactory = Request
        return channel

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802  # Twisted's name
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Nothing: Twisted formats a line of a log that nobody reads."""


class WebSocket(WebSocketProtocol):  # type: ignore[misc]  # daphne is not typed
    """daphne's websocket, which can be told to go."""

    _leaving = False

    def serverSend(self, content: Any, binary: bool = False) -> None:  # noqa: N802
        # autobahn applies the limit for received messages to those that are sent.
        limit: int = self.factory.maxMessagePayloadSize
        self.maxMessagePayloadSize = 0
        try:
            super().serverSend(content, binary)
        finally:
            self.maxMessagePayloadSize = limit

    def handle_reply(self, message: dict[str, Any]) -> None:
        if not self._leaving:
            super().handle_reply(message)

    def wind_down(self, *, refuse: bool) -> None:
        """Close with 1012; with `refuse` also what the application has not accepted."""
        if self._leaving:
            return
        if self.state == self.STATE_OPEN:
            # Not sendClose: autobahn has it refuse 1012.
            self.sendCloseFrame(code=SERVICE_RESTART, isReply=False)
        elif refuse and hasattr(self, "handshake_deferred"):
            deferred = self.handshake_deferred
            del self.handshake_deferred
            if not deferred.called:
                deferred.errback(ConnectionDeny(code=503, reason="Service Unavailable"))
            self.server.protocol_disconnected(self)
        else:
            return
        self.muted = self._leaving = True
        self.application_queue.put_nowait(
            {"type": "websocket.disconnect", "code": SERVICE_RESTART}
        )


class Engine(daphne.server.Server):  # type: ignore[misc]  # daphne is not typed
    """daphne's server on given sockets."""

    def __init__(
        self,
        application: Application,
        options: Options,
        settings: Mapping[str, object],
    ) -> None:
        def by_position(scope: Scope, receive: Receive, send: Send) -> Any:
            # daphne calls by keyword: an application may name its parameters freely.
            return application(scope, receive, send)

        super().__init__(
            by_position,
            endpoints=["adopted"],
            signal_handlers=False,
            server_name="daphne" if options.server_header else "",
            **(_LIMITS_OF_ITS_OWN | dict(settings)),
        )
        self.options = options
        self.draining = False
        self.connections: dict[Any, dict[str, Any]] = {}
        self.http_factory = HttpFactory(self)
        self.ws_factory = WebSocketFactory(self, server=self.server_name)
        self.ws_factory.protocol = WebSocket
        self.ws_factory.setProtocolOptions(
            allowNullOrigin=True,
            autoPingInterval=options.ws_ping_interval,
            autoPingTimeout=options.ws_ping_timeout,
            closeHandshakeTimeout=CLOSING,
            failByDrop=False,
            maxFramePayloadSize=options.ws_max_size,
            maxMessagePayloadSize=options.ws_max_size,
            openHandshakeTimeout=self.websocket_handshake_timeout,
        )
        # Its own rounds down to whole seconds: a time limit may be over at once.
        clock = SimpleNamespace(call_later=asyncio.get_running_loop().call_later)
        self.ws_factory._batched_timer = clock  # noqa: SLF001  # pinned
        self.ping_interval = sys.maxsize  # autobahn pings: daphne looks every 2 s
        self._secure = False
        self._told: set[Any] = set()

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        tls: Tls | None,
        *,
        ready: Callable[[], None],
        stop: asyncio.Event,
        linger: Callable[[], float],
        requests: Requests,
    ) -> None:
        self._secure = tls is not None
        factory = secured(tls, self.http_factory) if tls else self.http_factory
        reactor.startRunning(installSignalHandlers=False)
        try:
            reactor.callLater(1, self.application_checker)
            reactor.callLater(2, self.timeout_checker)
            backlog = self.options.backlog
            ports = [adopt(sock, factory, backlog) for sock in sockets]
            ready()
            await stop.wait()
            requests.drain(self.options.stream_grace)
            self.draining = True
            for port in ports:
                port.stopListening()
            await settle()
            await drain(
                self,
                self.options.graceful_timeout,
                linger(),
                self.options.stream_grace,
            )
        finally:
            await halt()
            for sock in sockets:
                sock.close()

    def create_application(self, protocol: Any, scope: Scope) -> Any:
        # The client's header Daphne-Root-Path would set it.
        scope["root_path"] = ""
        scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
        scope["state"] = {}
        for name in ("client", "server"):
            if scope[name] is not None:
                scope[name] = tuple(scope[name])
        if scope["type"] == "websocket":
            scope["scheme"] = "wss" if self._secure else "ws"
            scope["http_version"] = "1.1"
        queue = super().create_application(protocol, scope)
        task = self.connections.get(protocol, {}).get("application_instance")
        if task is not None:
            task.add_done_callback(partial(self._finished, protocol))
        return queue

    def _finished(self, protocol: Any, task: asyncio.Task[None]) -> None:
        """At once what daphne's `application_checker` does once a second."""
        details = self.connections.get(protocol, {})
        if details.get("application_instance") is not task:
            return
        del details["application_instance"]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("Exception inside application: %s", error, exc_info=error)
        if "disconnected" not in details:  # nor answered, or still open
            protocol.handle_exception(error)
        if "disconnected" in details:
            del self.connections[protocol]

    def _running(self) -> list[asyncio.Task[None]]:
        return [
            details["application_instance"]
            for details in self.connections.values()
            if "application_instance" in details
        ]

    def _websockets(self) -> list[WebSocket]:
        return [
            protocol
            for protocol, details in self.connections.items()
            if isinstance(protocol, WebSocket) and "disconnected" not in details
        ]

    def close_websockets(self, *, refuse: bool) -> None:
        for websocket in self._websockets():
            websocket.wind_down(refuse=refuse)

    def idle(self) -> Iterator[Channel]:
        writing = set(reactor.getWriters())
        for channel in self.http_factory.channels - self._told:
            if channel.waiting and channel.plain_transport() not in writing:
                yield channel

    def close(self, channel: Channel) -> None:
        self._told.add(channel)
        channel.close_idle()

    def busy(self) -> bool:
        return bool(self.http_factory.channels or self._running() or self._websockets())

    def cut(self) -> int:
        running = self._running()
        for task in running:
            task.cancel()
        return len(running)

    def abort(self) -> None:
        for channel in list(self.http_factory.channels):
            channel.transport.abortConnection()
        for websocket in self._websockets():
            websocket.transport.abortConnection()
