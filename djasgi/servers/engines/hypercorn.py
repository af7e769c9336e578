"""hypercorn's connections, without its `worker_serve`.

`worker_serve` waits without a bound for its listeners on Python 3.12 and later, and
runs a lifespan of its own; what remains of it is a dozen lines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast
from weakref import WeakSet

import h11
import hypercorn.config
import hypercorn.protocol
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Closed, RawData
from hypercorn.protocol.ws_stream import ASGIWebsocketState
from wsproto.events import CloseConnection

from djasgi.options import Options
from djasgi.servers.base import Application, Requests
from djasgi.servers.engines import refusals
from djasgi.servers.engines.deadline import Deadline
from djasgi.servers.engines.draining import drain
from djasgi.servers.engines.framing import Heads
from djasgi.servers.engines.hypercorn_http import Http1, Wrapper
from djasgi.servers.engines.hypercorn_http2 import Http2
from djasgi.servers.engines.hypercorn_websocket import Deflate, WebSocket
from djasgi.servers.engines.transports import (
    abort_later,
    close_after_response,
    reset,
    stop_accepting,
)
from djasgi.tls import Tls

logger = logging.getLogger("hypercorn.error")

SERVICE_RESTART = 1012


# The names by which hypercorn makes what speaks HTTP/1 and HTTP/2.
cast("Any", hypercorn.protocol).H11Protocol = Http1
cast("Any", hypercorn.protocol).H2Protocol = Http2


class Config(hypercorn.config.Config):
    """hypercorn's configuration, with what djasgi decides."""

    errorlog = logger
    options: Options
    keep_alive_max_requests = sys.maxsize
    server_header = False

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        headers = super().response_headers(protocol)
        if self.server_header:
            headers.append((b"server", b"hypercorn"))
        return headers


class Context(WorkerContext):
    """hypercorn's context, one for each connection: so its ping task can be ended.

    hypercorn lets it sleep out its interval, and the connection stays open meanwhile.
    """

    def __init__(self, heads: Heads, writer: asyncio.StreamWriter) -> None:
        super().__init__(None)
        self.heads = heads
        self.writer = writer
        self.pinging: asyncio.Task[Any] | None = None

    async def sleep(self, wait: float) -> None:  # type: ignore[override]  # static there
        self.pinging = asyncio.current_task()
        await asyncio.sleep(wait)


class Wait:
    """The time that a connection waits for a request; the place of `AsyncioSingleTask`.

    hypercorn calls `restart` when it begins to wait, and `stop` when a head is
    complete. It starts a task each time, which costs more, and which keeps a connection
    that its client has closed, with its descriptor, until the keep-alive time is over.
    """

    def __init__(self, connection: Connection, options: Options) -> None:
        self.heads = 0
        self.waiting = False
        self._connection = connection
        self._head = options.header_timeout or None
        self._keep_alive = options.keep_alive
        self._begun = False
        self._is_over = False
        self._group: TaskGroup | None = None
        self._deadline = Deadline(self.end)

    async def restart(self, task_group: TaskGroup, action: Callable[..., Any]) -> None:
        if self._is_over:
            return  # an application that has ended after its connection
        self._group = task_group
        self._begun = self.heads == 0
        self.waiting = True
        self._deadline.set(self._head if self._begun else self._keep_alive)

    async def stop(self) -> None:
        self.head()

    def head(self) -> None:
        """A head is complete."""
        self.heads += 1
        self.waiting = False
        self._deadline.set(None)

    def begin(self) -> None:
        """The first byte of a further request: now the head has its own limit."""
        if not self._begun:
            self._begun = True
            self._deadline.set(self._head)

    def end(self) -> None:
        """Close the connection, which waits for a request."""
        assert self._group is not None, "run() has begun with restart()"  # noqa: S101
        self.cancel()
        self._group.spawn(self._connection._initiate_server_close)  # noqa: SLF001  # pinned

    def cancel(self) -> None:
        """The connection is over."""
        self._is_over = True
        self.waiting = False
        self._deadline.cancel()


class Connection(TCPServer):
    """One connection."""

    context: Context
    idle_task: Wait  # type: ignore[assignment]  # it has what hypercorn calls

    def __init__(
        self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(
            cast("Any", engine.wrapper),
            asyncio.get_running_loop(),
            engine.config,
            Context(engine.heads, writer),
            cast("Any", {}),
            reader,
            writer,
        )
        self.idle_task = Wait(self, engine.options)
        self._engine = engine
        self._told = False
        self.arrival = cast("Arrival", writer.transport.get_protocol())

    def take(self, data: bytes) -> bool:
        """Let the application answer, if all that there is is a plain request.

        Else False. The task that reads need not wake up for it.
        """
        wait = self.idle_task
        if (
            self.arrival.has_data
            or not wait.waiting
            or self._engine.is_cut
            or self.config.read_timeout is not None  # which that task measures
        ):
            return False
        http1 = self._http()
        if not isinstance(http1, Http1) or not http1.take(data):
            return False
        wait.head()
        return True

    async def _read_data(self) -> None:
        wait = self.idle_task
        try:
            while not self.reader.at_eof():
                data = await self._read()
                if len(data) < MAX_RECV:
                    self.arrival.has_data = False
                heads = wait.heads
                await self.protocol.handle(RawData(data))
                if heads != wait.heads:
                    self._watch_websocket()
                elif wait.waiting and data and not isinstance(self._http(), Http2):
                    wait.begin()
        except (OSError, TimeoutError):
            pass
        await self.protocol.handle(Closed())
        wait.cancel()  # its task group may be over before the connection is
        # Else the connection, closed by its client, keeps its descriptor until the
        # ping interval is over, and the stop waits for it.
        if self.context.pinging is not None:
            self.context.pinging.cancel()

    async def _read(self) -> bytes:
        if self.config.read_timeout is None:
            return await self.reader.read(MAX_RECV)
        return await asyncio.wait_for(
            self.reader.read(MAX_RECV), self.config.read_timeout
        )

    def _http(self) -> Any:
        """None if the peer was gone before hypercorn had set it up."""
        return getattr(getattr(self, "protocol", None), "protocol", None)

    def _websocket(self) -> WebSocket | None:
        stream = getattr(self._http(), "stream", None)
        return stream if isinstance(stream, WebSocket) else None

    def has_application(self) -> bool:
        """Whether one runs; after the end of the connection that alone keeps it."""
        protocol = self._http()
        if isinstance(protocol, Http2):
            return bool(protocol.streams) or self.reader.at_eof()
        stream = getattr(protocol, "stream", None)
        return stream is not None or self.reader.at_eof()

    def _watch_websocket(self) -> None:
        stream = self._websocket()
        if stream is not None:
            stream.ended_early = self._close_soon

    def _close_soon(self) -> None:
        # After the close frame (RFC 6455, section 7.1.7): hypercorn waits for ever for the
        # answer, which wsproto cannot find behind a broken frame.
        self._told = True
        close_after_response(cast("asyncio.Transport", self.writer.transport))

    async def _close(self) -> None:
        transport = cast("asyncio.Transport", self.writer.transport)
        protocol = self._http()
        if isinstance(protocol, Http1):
            protocol.is_over = True
        # Never twice: asyncio then loses sight of a TLS connection.
        if not transport.is_closing():
            if self._is_cut_short():
                reset(transport)
            elif self._engine.draining or self._has_unread():
                close_after_response(transport)
            else:
                if transport.can_write_eof():
                    transport.write_eof()
                transport.close()
        try:
            await self.writer.wait_closed()
        except (OSError, asyncio.CancelledError):
            pass  # closed already
        finally:
            self.idle_task.cancel()

    async def _initiate_server_close(self) -> None:
        protocol = self._http()
        if isinstance(protocol, Http2) and not self.writer.is_closing():
            await protocol.take_leave()
        await self.protocol.handle(Closed())
        if not self.writer.is_closing():
            self.writer.close()

    def _is_cut_short(self) -> bool:
        """Whether the client would take what there is of a response for all of it."""
        http: Any = getattr(self._http(), "connection", None)
        return (
            isinstance(http, h11.Connection)
            and http.our_state is h11.SEND_BODY
            and http.their_http_version == b"1.0"
        )

    def _has_unread(self) -> bool:
        """Whether the client may still be sending what nobody reads."""
        protocol = self._http()
        if isinstance(protocol, Http2):
            return protocol.flooded
        if not isinstance(protocol, Http1):
            return False
        http: Any = protocol.connection
        return protocol.refused or (
            isinstance(http, h11.Connection) and http.their_state is h11.SEND_BODY
        )

    def is_idle(self) -> bool:
        return (
            self.idle_task.waiting
            and not self._told
            and not self.writer.transport.get_write_buffer_size()
        )

    def close(self) -> None:
        self._told = True
        self.idle_task.end()
        abort_later(cast("asyncio.Transport", self.writer.transport))

    def wind_down(self, *, refuse: bool) -> None:
        """Close what is a websocket; with HTTP/2, let nothing more begin."""
        protocol = self._http()
        if isinstance(protocol, Http2):
            # Once: the task group takes nothing more when it is cancelled.
            if not protocol.told:
                protocol.told = True
                self._task_group.spawn(protocol.wind_down)
        else:
            self.close_websocket(refuse=refuse)

    def close_websocket(self, *, refuse: bool) -> None:
        stream = self._websocket()
        if stream is None or self._told:
            return
        if refuse or stream.state is not ASGIWebsocketState.HANDSHAKE:
            self._told = True
            self._task_group.spawn(self._close_websocket, stream)

    async def _close_websocket(self, stream: WebSocket) -> None:
        if stream.state is ASGIWebsocketState.CONNECTED:
            await stream._send_wsproto_event(  # noqa: SLF001  # pinned
                CloseConnection(code=SERVICE_RESTART)
            )
        elif stream.state is ASGIWebsocketState.HANDSHAKE:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            data = refusals.refusal(status, self._engine.options)
            await self.protocol_send(RawData(data=data))
        stream.closed = True
        close_after_response(cast("asyncio.Transport", self.writer.transport))
        if stream.app_put is not None:
            await stream.app_put(
                {"type": "websocket.disconnect", "code": SERVICE_RESTART}
            )


class Arrival(asyncio.StreamReaderProtocol):
    """A connection that was accepted; it becomes a `Connection` after TLS's handshake."""

    connection: Connection | None = None
    has_data = False
    """Whether there is something that the task of the connection has not read."""

    def data_received(self, data: bytes) -> None:
        if self.connection is None or not self.connection.take(data):
            self.has_data = True
            super().data_received(data)


class Engine:
    """hypercorn's connections on given sockets."""

    def __init__(
        self,
        application: Application,
        options: Options,
        settings: Mapping[str, object],
    ) -> None:
        self.options = options
        self.wrapper = Wrapper(cast("Any", application))
        Deflate.most = options.ws_max_size
        self.config = Config()
        self.config.options = options
        self.config.server_header = options.server_header
        self.config.include_server_header = False
        for name, value in settings.items():
            setattr(self.config, name, value)
        self.heads = Heads(options)
        self.draining = False
        self.is_cut = False
        self._arriving: WeakSet[Arrival] = WeakSet()
        self._connections: dict[Connection, asyncio.Task[Any]] = {}

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
        renewing = asyncio.get_running_loop().create_task(self.heads.renew())
        try:
            servers = [await self._listen(sock, tls) for sock in sockets]
            ready()
            await stop.wait()
            requests.drain(self.options.stream_grace)
            self.draining = True
            await stop_accepting(servers, sockets)
            await drain(
                self,
                self.options.graceful_timeout,
                linger(),
                self.options.stream_grace,
            )
        finally:
            renewing.cancel()
            for sock in sockets:
                sock.close()

    async def _listen(self, sock: socket.socket, tls: Tls | None) -> asyncio.Server:
        keywords: dict[str, Any] = {}
        if tls:
            keywords["ssl"] = tls.context
            keywords["ssl_handshake_timeout"] = self.options.header_timeout or None
        return await asyncio.get_running_loop().create_server(
            self._arrival, sock=sock, backlog=self.config.backlog, **keywords
        )

    def _arrival(self) -> Arrival:
        arrival = Arrival(asyncio.StreamReader(), self._connected)
        self._arriving.add(arrival)
        return arrival

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this as a task"  # noqa: S101
        connection = Connection(self, reader, writer)
        self._connections[connection] = task
        arrival = connection.arrival
        arrival.connection = connection
        self._arriving.discard(arrival)
        try:
            await connection
        except* asyncio.CancelledError:
            pass  # by cut(); asyncio on 3.11 cannot take it from here
        except* OSError as errors:
            # Of the peer's making: a TLS connection that ends in the middle.
            logger.debug("connection lost: %s", errors.exceptions[0])
        except* Exception:
            logger.exception("Error in a connection")
        finally:
            del self._connections[connection]
            arrival.connection = None

    def close_websockets(self, *, refuse: bool) -> None:
        for connection in self._connections:
            connection.wind_down(refuse=refuse)

    def idle(self) -> Iterator[Connection | Arrival]:
        yield from self._arriving
        for connection in self._connections:
            if connection.is_idle() and not self.is_cut:
                yield connection

    def close(self, connection: Connection | Arrival) -> None:
        if isinstance(connection, Connection):
            connection.close()
        else:
            self._arriving.discard(connection)

    def busy(self) -> bool:
        return bool(self._connections or self._arriving)

    def cut(self) -> int:
        self.is_cut = True  # their task groups begin nothing any more
        running = sum(connection.has_application() for connection in self._connections)
        for task in self._connections.values():
            task.cancel()
        return running

    def abort(self) -> None:
        for connection in self._connections:
            connection.writer.transport.abort()
