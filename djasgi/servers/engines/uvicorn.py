"""uvicorn's protocols, without its `Server`.

`uvicorn.Server` takes over signals, polls ten times a second and waits without a bound
for connections that TLS keeps open; what remains of it is a dozen lines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast
from weakref import WeakSet

import uvicorn
import uvicorn.lifespan.off
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)
from uvicorn.server import ServerState

from djasgi.options import Options
from djasgi.servers.base import Application, Requests
from djasgi.servers.engines.draining import drain
from djasgi.servers.engines.framing import Heads
from djasgi.servers.engines.transports import abort_later, stop_accepting
from djasgi.servers.engines.uvicorn_http import Connection
from djasgi.servers.engines.uvicorn_websocket import WebSocket, close_websocket
from djasgi.tls import Tls


class Patience:
    """Cuts clients that do not finish the head of a request, or send none for long.

    It looks at the connections from time to time, which costs a request nothing; a timer
    for each would be noticeable. A head has its time from the connection, then from the
    first byte of each further request. It may come late by a twentieth of the shorter
    limit, or by half a second if that is less.
    """

    def __init__(self, state: ServerState, heads: float, keep_alive: float) -> None:
        """Both in seconds. `heads` of 0 is no limit; with `keep_alive` of 0 the
        connection closes itself, and is never idle.
        """
        self.state = state
        self.heads = heads
        self.keep_alive = keep_alive
        # Since when a connection waits, and for what: the request after this cycle.
        self._waiting: dict[Connection, tuple[float, Any]] = {}

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        shortest = min(filter(None, (self.heads, self.keep_alive)), default=0.0)
        while shortest:
            await asyncio.sleep(min(max(shortest / 20, 0.02), 0.5))
            self._cut(loop.time())

    def _cut(self, now: float) -> None:
        waiting: dict[Connection, tuple[float, Any]] = {}
        for connection in self.state.connections:
            if not isinstance(connection, Connection):
                continue
            if connection.idle_since is not None:
                if now - connection.idle_since >= self.keep_alive:
                    connection.transport.close()
                continue
            # uvicorn declares its cycle as never None; it is, until the first request.
            cycle: Any = connection.cycle
            if not self.heads or (cycle is not None and not cycle.response_complete):
                continue  # a request runs
            since, before = self._waiting.get(connection, (now, cycle))
            if before is not cycle:
                since = now
            if now - since >= self.heads:
                connection.transport.close()
            waiting[connection] = (since, cycle)
        self._waiting = waiting


class Engine:
    """uvicorn's protocols on given sockets."""

    def __init__(
        self,
        application: Application,
        options: Options,
        settings: Mapping[str, object],
    ) -> None:
        self.options = options
        self.state = ServerState()
        self.config = uvicorn.Config(
            # As a factory: uvicorn calls whatever it gets without arguments, to see.
            lambda: application,
            factory=True,
            interface="asgi3",
            http="httptools",
            ws=WebSocket,
            lifespan="off",
            workers=1,
            proxy_headers=False,
            forwarded_allow_ips="",
            log_config=None,
            access_log=False,
            **cast("dict[str, Any]", settings),
        )
        self.config.load()
        self.arriving: WeakSet[Connection] = WeakSet()
        self.heads = Heads(options)
        self.state.default_headers = self.heads.fields
        self._draining = False
        self._told: set[WebSocketsSansIOProtocol] = set()

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
        loop = asyncio.get_running_loop()
        patience = Patience(
            self.state, self.options.header_timeout, self.config.timeout_keep_alive
        )
        aides = [
            loop.create_task(self.heads.renew()),
            loop.create_task(patience.watch()),
        ]
        log = logging.getLogger("uvicorn.error")
        log.addFilter(_not_ours)
        try:
            servers = [await self._listen(sock, tls) for sock in sockets]
            ready()
            await stop.wait()
            requests.drain(self.options.stream_grace)
            self._draining = True
            await stop_accepting(servers, sockets)
            await drain(
                self,
                self.options.graceful_timeout,
                linger(),
                self.options.stream_grace,
            )
        finally:
            for aide in aides:
                aide.cancel()
            log.removeFilter(_not_ours)
            for sock in sockets:
                sock.close()

    async def _listen(self, sock: socket.socket, tls: Tls | None) -> asyncio.Server:
        keywords: dict[str, Any] = {}
        if tls:
            keywords["ssl"] = tls.context
            keywords["ssl_handshake_timeout"] = self.options.header_timeout or None
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(self),
            sock=sock,
            backlog=self.config.backlog,
            **keywords,
        )

    def is_draining(self) -> bool:
        return self._draining

    def _http(self) -> Iterator[Connection]:
        for connection in self.state.connections:
            if isinstance(connection, Connection):
                yield connection

    def close_websockets(self, *, refuse: bool) -> None:
        for websocket in list(self.state.connections):
            if (
                isinstance(websocket, WebSocketsSansIOProtocol)
                and websocket not in self._told
                and (refuse or websocket.handshake_complete)
                # Else the application is answering in place of a handshake.
                and websocket.initial_response is None
            ):
                self._told.add(websocket)
                close_websocket(websocket, self.options)

    def idle(self) -> Iterator[Connection]:
        yield from self.arriving
        for connection in self._http():
            cycle: Any = connection.cycle  # as in Patience
            if (
                (cycle is None or cycle.response_complete)
                and not connection.transport.is_closing()
                and not connection.transport.get_write_buffer_size()
            ):
                yield connection

    def close(self, connection: Connection) -> None:
        if connection in self.arriving:
            self.arriving.discard(connection)
        else:
            inner = cast("Any", connection.transport).inner
            inner.close()
            abort_later(inner)

    def busy(self) -> bool:
        return bool(self.state.connections or self.state.tasks or self.arriving)

    def cut(self) -> int:
        for task in self.state.tasks:
            task.cancel()
        return len(self.state.tasks)

    def abort(self) -> None:
        for connection in list(self.state.connections):
            connection.transport.abort()


def _not_ours(record: logging.LogRecord) -> bool:
    """Whether a record is about something else than what djasgi has seen to.

    What a client sends is no affair of the log, and a drain cancels applications.
    """
    return record.msg != _SEEN_TO and not (
        record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    )


_SEEN_TO = "Invalid UTF-8 sequence received from client."
