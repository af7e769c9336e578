"""uvicorn's protocols, without its `Server`.

`uvicorn.Server` takes over signals, polls ten times a second and waits without a bound
for connections that TLS keeps open; what remains of it is a dozen lines.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from asyncio.transports import BaseTransport
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast
from weakref import WeakSet

import httptools
import uvicorn
import uvicorn.lifespan.off
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)
from uvicorn.server import ServerState

from djasgi.options import Options
from djasgi.servers.base import Application, Requests
from djasgi.servers.engines import refusals
from djasgi.servers.engines.draining import CLOSING, drain
from djasgi.servers.engines.heads import (
    Field,
    handshake_problem,
    origin_form,
    problem,
    visible,
    wants_websocket,
)
from djasgi.servers.engines.refusals import refusal
from djasgi.servers.engines.transports import Transport, abort_later, stop_accepting
from djasgi.tls import Tls

SERVICE_RESTART = 1012


class Cycle(RequestResponseCycle):
    """uvicorn's side of a request, with the framing that the others have."""

    _bodiless = False
    _to_the_end = False

    def send(self, message: Any) -> Any:  # a coroutine, in one frame less
        if not self.response_started:
            message = self._started(message)
        elif self._bodiless:
            message = {**message, "body": b""}
        elif self._to_the_end and not message.get("more_body", False):
            self.expected_content_length = len(message.get("body", b""))
            cast("Any", self.transport).is_cut_short = False
        return super().send(message)

    def _started(self, message: Any) -> Any:
        if message["type"] != "http.response.start":
            return message
        names = {name.lower() for name, _ in message.get("headers", ())}
        if not _OWN.isdisjoint(names):
            # The application's stand alone.
            self.default_headers = [
                f for f in self.default_headers if f[0] not in names
            ]
            if b"transfer-encoding" in names:  # the framing is ours
                rest = [f for f in message["headers"] if f[0].lower() != _CODING]
                message = {**message, "headers": rest}
        if self.more_body:
            # What is left of the request is not waited for.
            self.keep_alive = False
            cast("Any", self.transport).has_unread = True
        status = message["status"]
        if status in _BODILESS:
            self._bodiless = True
            self.chunked_encoding = False
        elif (
            self.scope["http_version"] == "1.0"
            and self.scope["method"] != "HEAD"
            and b"content-length" not in names
        ):
            self._to_the_end = True
            cast("Any", self.transport).is_cut_short = True
            self.chunked_encoding = False
            self.expected_content_length = sys.maxsize
        return message


_OWN = {b"date", b"server", b"transfer-encoding"}
_CODING = b"transfer-encoding"
_BODILESS = (204, 304)

# The name by which uvicorn's protocol makes its cycles.
cast("Any", httptools_impl).RequestResponseCycle = Cycle


class _RefusedError(Exception):
    """Ends the parser's work on a head that breaks a rule."""


class Connection(HttpToolsProtocol):
    """uvicorn's side of a connection, which is known before its TLS handshake ends."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.config, engine.state, {})
        self._engine = engine
        self._max_head_size = engine.options.max_head_size
        self._problem: HTTPStatus | None = None
        self._owed: HTTPStatus | None = None
        self._complete: Any = None  # the header fields of the last complete head
        self._before: Any = None  # those of the head that data has begun with
        self._chunk = 0
        self._data = b""
        self._unfinished = 0
        engine.arriving.add(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._engine.arriving.discard(self)
        careful: Any = Transport(transport, self._engine.is_draining)
        super().connection_made(careful)
        if self.server is not None and self.server[1] is None:
            self.server = None  # a unix socket, which has no port

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._owed is not None:
            return
        before = self._before = self.headers
        self._data = data
        self._chunk = self._unfinished + len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse(self._problem or HTTPStatus.BAD_REQUEST)
        if self.headers is self._complete or self.headers is not before:
            self._unfinished = 0  # how much of a head that has just begun is not known
        else:
            self._unfinished = self._chunk
            if self._unfinished > self._max_head_size:
                self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _upgrade(self, rest: bytes) -> None:
        if self._is_handshake():
            self.handle_websocket_upgrade()
            if rest:
                protocol: Any = cast("Any", self.transport).inner.get_protocol()
                protocol.data_received(rest)
            return
        # To any other upgrade the parser ends its work, as if there were no body.
        self.cycle.more_body = True
        self.cycle.message_event.clear()
        resumed = _Resumed(self)
        self.parser = httptools.HttpRequestParser(resumed)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        resumed.begin(self.parser)
        self.data_received(rest)

    def _is_handshake(self) -> bool:
        return wants_websocket(
            self.parser.get_method(), self.parser.get_http_version(), self.headers
        )

    # What uvicorn asks; the answer is the rules' that all servers share.
    _should_upgrade = _is_handshake

    def on_headers_complete(self) -> None:
        fields = self._complete = self.headers
        method = self.parser.get_method()
        version = self.parser.get_http_version()
        found = problem(method, self.url, version, fields)
        most = self._max_head_size
        whole = self._chunk <= most and fields is not self._before
        if not whole and self._head_size() > most:
            found = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if found is None and self.parser.should_upgrade() and self._is_handshake():
            found = handshake_problem(fields)
        if found is not None:
            self._problem = found
            raise _RefusedError
        # Another list: trailers go to the first.
        shown = fields.copy() if whole and _is_plain(self._data) else _cleaned(fields)
        if self.url[:1] != b"/":
            self.url, shown = origin_form(self.url, shown)
        self.scope["headers"] = shown
        super().on_headers_complete()

    def _head_size(self) -> int:
        size = len(self.parser.get_method()) + len(self.url) + 14
        return size + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        closing = self.transport.is_closing()
        if self._owed is not None and self.cycle.response_complete and not closing:
            self._answer(self._owed)

    def refuse(self, status: HTTPStatus) -> None:
        """Answer a request that is none, in its turn, and end the connection."""
        cycle: Any = (
            self.cycle
        )  # declared as never None; it is, until the first request
        if self._owed is not None or self.transport.is_closing():
            return
        self._owed = status
        if cycle is None or cycle.response_complete:
            self._answer(status)
        elif cycle.more_body:  # what cannot be read is its body
            if cycle.response_started:
                cast("Any", self.transport).cut()
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                self._answer(status)

    def _answer(self, status: HTTPStatus) -> None:
        options = self._engine.options
        refusals.log(status, self.client, self.scheme or "http", options)
        self.transport.write(refusal(status, options))
        cast("Any", self.transport).close_after_response()


def _is_plain(data: bytes) -> bool:
    """Whether there is nothing that `_cleaned` would change in the heads in `data`.

    It is the quick look: what it finds may be in a value, where it does no harm.
    """
    return (
        b"_" not in data
        and b" \r\n" not in data
        and b"\t\r\n" not in data
        and b"root-path" not in data.lower()
    )


def _cleaned(fields: list[Field]) -> list[Field]:
    """What of `fields` the application sees; llhttp leaves what is before a line end."""
    return [(name, value.rstrip(b" \t")) for name, value in visible(fields)]


class _Resumed:
    """What a second parser calls, which goes on where the first has given up."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.replaying = True

    def begin(self, parser: Any) -> None:
        """Let `parser` know how the body is framed that comes next."""
        framing = b"".join(
            b"%b: %b\r\n" % field
            for field in self.connection.headers
            if field[0] in (b"content-length", b"transfer-encoding")
        )
        parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        self.replaying = False

    def on_message_begin(self) -> None:
        if not self.replaying:
            self.connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.replaying:
            self.connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.replaying:
            self.connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.replaying:
            self.connection.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.connection.on_body(body)

    def on_message_complete(self) -> None:
        self.connection.on_message_complete()


class WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket, which tells the application what the others tell it."""

    _early = b""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = CLOSING
        if self.server is not None and self.server[1] is None:
            self.server = None  # a unix socket, which has no port

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.close_sent:
            return  # refused
        self.scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete:
            # Before uvicorn's own, whose code is that of a close without a code.
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": 1006, "reason": ""}
            )
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:
            # Frames that did not wait for the answer; uvicorn breaks on them.
            self._early += data
            self.transport.pause_reading()
        else:
            super().data_received(data)

    async def send(self, message: Any) -> None:
        denied = self.initial_response
        if denied is not None and message["type"] == "websocket.http.response.body":
            self._deny(denied, message["body"])
            return
        # Otherwise uvicorn raises when the client has gone.
        with suppress(ClientDisconnected):
            await super().send(message)
        if self._early and self.handshake_complete:
            early, self._early = self._early, b""
            self.transport.resume_reading()
            if not self.close_sent:
                self.data_received(early)

    def _deny(self, start: Any, body: bytes) -> None:
        status, headers, _ = start
        fields = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]
        own = [f for f in self.default_headers if f[0] not in {k for k, _ in fields}]
        self.close_sent = self.handshake_complete = True
        self.transport.write(refusals.response(status, [*own, *fields], body))
        self.transport.close()


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
        timeout = self.options.header_timeout
        aides = [loop.create_task(self._renew_headers())]
        if timeout:
            aides.append(loop.create_task(Heads(self.state, timeout).watch()))
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
                _close_websocket(websocket, self.options)

    def idle(self) -> Iterator[Connection]:
        yield from self.arriving
        for connection in self._http():
            cycle: Any = connection.cycle  # as in Heads
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


def _close_websocket(websocket: WebSocketsSansIOProtocol, options: Options) -> None:
    if websocket.handshake_complete:
        websocket.shutdown()
        return
    websocket.queue.put_nowait(
        {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": ""}
    )
    websocket.transport.write(refusal(HTTPStatus.SERVICE_UNAVAILABLE, options))
    websocket.handshake_complete = websocket.close_sent = True
    websocket.transport.close()


def _not_ours(record: logging.LogRecord) -> bool:
    """Whether a record is about something else than what djasgi has seen to.

    Responses that are not complete are reported before they come to uvicorn, and a drain
    cancels applications.
    """
    return record.msg not in _SEEN_TO and not (
        record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    )


_SEEN_TO = (
    "ASGI callable returned without completing response.",
    "Invalid UTF-8 sequence received from client.",
)
