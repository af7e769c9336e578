"""uvicorn's protocols, without its `Server`.

`uvicorn.Server` takes over signals, polls ten times a second and waits without a bound
for connections that TLS keeps open; what remains of it is a dozen lines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any, cast

import uvicorn
import uvicorn.lifespan.off
import uvicorn.protocols.websockets.websockets_sansio_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from djasgi.options import Options
from djasgi.servers.base import Application
from djasgi.servers.engines.draining import CLOSING, drain
from djasgi.tls import Tls


class Heads:
    """Cuts the clients that do not finish the head of a request.

    It looks at the connections from time to time, which costs a request nothing; a timer
    for each head would be noticeable. The time runs from the connection, then from the
    first byte of each further request, and is exact to a twentieth.
    """

    def __init__(self, state: ServerState, timeout: float) -> None:
        self.state = state
        self.timeout = timeout
        # Since when a connection waits, and for what: the request after this cycle.
        self._waiting: dict[HttpToolsProtocol, tuple[float, Any]] = {}

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(max(self.timeout / 20, 0.02), 0.5))
            self._cut(loop.time())

    def _cut(self, now: float) -> None:
        waiting: dict[HttpToolsProtocol, tuple[float, Any]] = {}
        for connection in self.state.connections:
            if not isinstance(connection, HttpToolsProtocol):
                continue
            # uvicorn declares its cycle as never None; it is, until the first request.
            cycle: Any = connection.cycle
            if cycle is not None and not cycle.response_complete:
                continue  # a request runs
            if connection.timeout_keep_alive_task is not None:
                continue  # idle: the first byte ends this
            since, before = self._waiting.get(connection, (now, cycle))
            if before is not cycle:
                since = now
            if now - since >= self.timeout:
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
            ws="websockets-sansio",
            lifespan="off",
            workers=1,
            proxy_headers=False,
            forwarded_allow_ips="",
            log_config=None,
            access_log=False,
            **cast("dict[str, Any]", settings),
        )
        self.config.load()
        self._told: set[object] = set()

    async def serve(
        self,
        sockets: Sequence[socket.socket],
        tls: Tls | None,
        *,
        ready: Callable[[], None],
        stop: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        timeout = self.options.header_timeout
        aides = [loop.create_task(self._renew_headers())]
        if timeout:
            aides.append(loop.create_task(Heads(self.state, timeout).watch()))
        log = logging.getLogger("uvicorn.error")
        try:
            servers = [await self._listen(sock, tls) for sock in sockets]
            ready()
            await stop.wait()
            for server in servers:
                server.close()
            await drain(self, self.options.graceful_timeout)
        finally:
            for aide in aides:
                aide.cancel()
            log.removeFilter(_not_cancelled)
            for sock in sockets:
                sock.close()

    async def _listen(self, sock: socket.socket, tls: Tls | None) -> asyncio.Server:
        keywords: dict[str, Any] = {}
        if tls:
            keywords["ssl"] = tls.context
            keywords["ssl_handshake_timeout"] = self.options.header_timeout or None
        return await asyncio.get_running_loop().create_server(
            partial(
                HttpToolsProtocol,
                config=self.config,
                server_state=self.state,
                app_state={},
            ),
            sock=sock,
            backlog=self.config.backlog,
            **keywords,
        )

    async def _renew_headers(self) -> None:
        """What each response begins with; Date has a resolution of one second."""
        fixed = self.config.encoded_headers
        while True:
            now = time.time()
            date = (b"date", formatdate(now, usegmt=True).encode())
            self.state.default_headers = [
                *([date] if self.config.date_header else []),
                *fixed,
            ]
            await asyncio.sleep(1 - now % 1)

    def wind_down(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in self.state.connections - self._told:
            self._told.add(connection)
            connection.shutdown()
            if connection.transport.is_closing():
                loop.call_later(CLOSING, connection.transport.abort)

    def busy(self) -> bool:
        return bool(self.state.connections or self.state.tasks)

    def cut(self) -> int:
        logging.getLogger("uvicorn.error").addFilter(_not_cancelled)
        for task in self.state.tasks:
            task.cancel()
        return len(self.state.tasks)

    def abort(self) -> None:
        for connection in list(self.state.connections):
            connection.transport.abort()


def _not_cancelled(record: logging.LogRecord) -> bool:
    """Whether a record is about something else than the cancelling that we did."""
    return not (
        record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    )
