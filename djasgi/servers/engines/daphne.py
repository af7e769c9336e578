"""daphne's server on the worker's loop; `reactor.install` comes before importing this.

`Server.run` owns the reactor, and with it the process; it ends by dropping every
request. What it sets up before is done here, with protocols that can be drained.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import daphne.server
from daphne.ws_protocol import WebSocketFactory
from twisted.internet import reactor

from djasgi.options import Options
from djasgi.servers.base import (
    Application,
    Message,
    Receive,
    Requests,
    Scope,
    Send,
)
from djasgi.servers.engines.daphne_http import Channel, HttpFactory
from djasgi.servers.engines.daphne_websocket import WebSocket
from djasgi.servers.engines.draining import CLOSING, drain, settle
from djasgi.servers.engines.framing import Heads
from djasgi.servers.engines.reactor import adopt, halt, secured
from djasgi.tls import Tls

logger = logging.getLogger("daphne.server")

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


class Engine(daphne.server.Server):  # type: ignore[misc]  # daphne is not typed
    """daphne's server on given sockets."""

    def __init__(
        self,
        application: Application,
        options: Options,
        settings: Mapping[str, object],
    ) -> None:
        super().__init__(
            application,
            endpoints=["adopted"],
            signal_handlers=False,
            server_name="daphne" if options.server_header else "",
            **(_LIMITS_OF_ITS_OWN | dict(settings)),
        )
        self.options = options
        self.heads = Heads(options)
        self.draining = False
        self.connections: dict[Any, dict[str, Any]] = {}
        self.http_factory = HttpFactory(self)
        self.ws_factory = WebSocketFactory(self, server="")
        self.ws_factory.protocol = WebSocket
        self.ws_factory.setProtocolOptions(
            allowNullOrigin=True,
            versions=[13],
            autoPingInterval=options.ws_ping_interval,
            autoPingTimeout=options.ws_ping_timeout,
            closeHandshakeTimeout=CLOSING,
            echoCloseCodeReason=True,  # "typically" (RFC 6455, section 5.5.1)
            failByDrop=False,
            maxFramePayloadSize=options.ws_max_size,
            maxMessagePayloadSize=options.ws_max_size,
            openHandshakeTimeout=self.websocket_handshake_timeout,
        )
        # Its own rounds down to whole seconds: a time limit may be over at once.
        clock = SimpleNamespace(call_later=asyncio.get_running_loop().call_later)
        self.ws_factory._batched_timer = clock  # noqa: SLF001  # pinned
        self.ping_interval = sys.maxsize  # autobahn pings: daphne looks every 2 s
        self.handshake_of: Any = None
        self.handshake: Any = None
        self._secure = False
        self._told: set[Any] = set()
        if options.http2:
            from djasgi.servers.engines.daphne_http2 import negotiating

            self.http_factory.protocol = negotiating  # type: ignore[assignment]

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
        renewing = asyncio.get_running_loop().create_task(self.heads.renew())
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
            renewing.cancel()
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
        if isinstance(protocol, WebSocket):
            protocol.adapt(scope, secure=self._secure)
        else:
            protocol.adapt(scope)
        queue: asyncio.Queue[Message] = asyncio.Queue()
        self.run(protocol, scope, queue.get, partial(self.handle_reply, protocol))
        return queue

    def run(self, protocol: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, which answers to `protocol`."""
        task = asyncio.get_running_loop().create_task(
            self.application(scope, receive, send)
        )
        self.connections[protocol]["application_instance"] = task
        task.add_done_callback(partial(self._finished, protocol))

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        # daphne looks at the header fields before it takes them.
        if not isinstance(message.get("headers", ()), list | tuple):
            message = {**message, "headers": [*message["headers"]]}
        await super().handle_reply(protocol, message)

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
        for channel in self.http_factory.channels:
            channel.wind_down()
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
