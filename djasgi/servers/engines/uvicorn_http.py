"""uvicorn's side of a connection and its requests, held to the rules of all servers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextvars import Context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from djasgi.servers.engines import refusals
from djasgi.servers.engines.framing import Response
from djasgi.servers.engines.heads import (
    Field,
    handshake_problem,
    is_visible,
    origin_form,
    problem,
    remember,
    visible,
    wants_websocket,
)
from djasgi.servers.engines.refusals import refusal
from djasgi.servers.engines.transports import Transport

if TYPE_CHECKING:
    from djasgi.servers.engines.uvicorn import Engine


class _Unheard:
    """In place of an event that nobody has waited for yet; one costs more than this."""

    def set(self) -> None:
        pass

    def clear(self) -> None:
        pass


class Cycle(Response, RequestResponseCycle):
    """uvicorn's side of a request, with the framing that the others have."""

    # In the class, not for each request: most of them never change.
    logger = logging.getLogger("uvicorn.error")
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    message_event: Any = _Unheard()

    def __init__(self, connection: Connection, *, keep_alive: bool) -> None:
        # Without super's, which sets all that stands in the class.
        self.engine = connection.engine
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.on_response = connection.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = connection.expect_100_continue
        self.body = bytearray()

    def start(self, connection: Connection) -> None:
        """Let the application answer, in a task of its own."""
        context = Context() if connection.resets_context else None
        run = self.run_asgi(connection.app)
        self.tasks = connection.tasks
        self.task = connection.loop.create_task(run, context=context)
        self.tasks.add(self.task)

    async def run_asgi(self, app: Any) -> None:
        # As super's, without what the layer around all others has seen to; and the task
        # is forgotten here, since a callback for it costs a turn of the loop.
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:  # as SystemExit: it ends a request only
            self.logger.exception("exception in the application")
            if not self.response_started:
                await self.send_500_response()
        finally:
            self.tasks.discard(self.task)
            self.on_response = _nothing
            if self.held:
                self.write_held()
        if not self.response_complete and not self.disconnected:
            self.transport.close()

    def receive(self) -> Any:
        if isinstance(self.message_event, _Unheard):
            self.message_event = asyncio.Event()
            if self.body or not self.more_body or self.disconnected:
                self.message_event.set()
        return super().receive()

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            self._write_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._write_head(message["status"], message.get("headers", ()))

    def _write_head(self, status: int, headers: Iterable[Field]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        if self.more_body:
            # What is left of the request is not waited for.
            self.keep_alive = False
            cast("Any", self.transport).has_unread = True
        scope: Any = self.scope
        self.begin(
            status,
            headers,
            scope["method"],
            scope["http_version"],
            self.engine.heads,
        )
        if self.to_the_end:
            cast("Any", self.transport).is_cut_short = True
        self.engine.heads.hold(self)

    def write_held(self) -> None:
        if not self.transport.is_closing():
            super().write_held()

    def transmit(self, data: bytes) -> None:
        if not self.disconnected:
            self.transport.write(data)

    def _write_body(self, body: bytes, more_body: bool) -> None:
        self.write_body(body, more_body)
        if more_body:
            return
        self.check_length()
        if self.to_the_end:
            cast("Any", self.transport).is_cut_short = False
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _nothing() -> None:
    pass


_PLAIN_NAMES: dict[bytes, bytes] = {}
"""Names of header fields in lower case, without those that the application does not see."""


class _RefusedError(Exception):
    """Ends the parser's work on a head that breaks a rule."""


class Connection(HttpToolsProtocol):
    """uvicorn's side of a connection, which is known before its TLS handshake ends."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.config, engine.state, {})
        self.engine = engine
        self._max_head_size = engine.options.max_head_size
        self.resets_context = getattr(engine.config, "reset_contextvars", False)
        self.idle_since: float | None = None
        """When the last response was complete, while there is nothing of a request."""
        self._problem: HTTPStatus | None = None
        self._owed: HTTPStatus | None = None
        self._complete: Any = None  # the header fields of the last complete head
        self._before: Any = None  # those of the head that data has begun with
        self._chunk = 0
        self._is_unclean = False  # fields of the head are not all for the application
        self._unfinished = 0
        engine.arriving.add(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.engine.arriving.discard(self)
        careful: Any = Transport(transport, self.engine.is_draining)
        super().connection_made(careful)
        if self.server is not None and self.server[1] is None:
            self.server = None  # a unix socket, which has no port

    def on_message_begin(self) -> None:
        # As super's, with what is known by now, and what a layer sets left out.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def data_received(self, data: bytes) -> None:
        self.idle_since = None
        if self._owed is not None:
            return
        before = self._before = self.headers
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

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = _PLAIN_NAMES.get(name) or self._lower(name)
        if value[-1:].isspace():
            self._is_unclean = True
        elif lower == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((lower, value))

    def _lower(self, name: bytes) -> bytes:
        lower = name.lower()
        if is_visible(lower):
            remember(_PLAIN_NAMES, name, lower)
        else:
            self._is_unclean = True
        return lower

    def on_headers_complete(self) -> None:
        parser = self.parser
        fields = self._complete = self.headers
        method = parser.get_method()
        version = parser.get_http_version()
        found = problem(method, self.url, version, fields)
        most = self._max_head_size
        whole = self._chunk <= most and fields is not self._before
        if not whole and self._head_size() > most:
            found = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        handshake = parser.should_upgrade() and self._is_handshake()
        if handshake and found is None:
            found = handshake_problem(fields)
        if found is not None:
            self._problem = found
            raise _RefusedError
        # Another list: trailers go to the first.
        shown = _cleaned(fields) if self._is_unclean else fields.copy()
        self._is_unclean = False
        if self.url[:1] != b"/":
            self.url, shown = origin_form(self.url, shown)
        path, _, query = self.url.partition(b"?")
        text = path.decode("ascii")
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self.scheme,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": self.root_path,
            "headers": shown,
            "client": self.client,
            "server": self.server,
            "state": {},
        }
        self.scope = scope
        if not handshake:
            self._begin(
                Cycle(self, keep_alive=version == "1.1" and parser.should_keep_alive())
            )

    def _begin(self, cycle: Cycle) -> None:
        """Let the application answer, after the requests before on the connection."""
        before: Any = self.cycle  # declared as never None; it is, until the first
        self.cycle = cycle
        if before is None or before.response_complete:
            cycle.start(self)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _head_size(self) -> int:
        size = len(self.parser.get_method()) + len(self.url) + 14
        return size + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle: Any = self.pipeline.pop()[0]
            cycle.start(self)
        elif self._owed is not None:
            self._answer(self._owed)
        elif self.timeout_keep_alive:
            self.idle_since = self.loop.time()
        else:
            self.transport.close()

    def refuse(self, status: HTTPStatus) -> None:
        """Answer a request that is none, in its turn, and end the connection."""
        cycle: Any = self.cycle  # as in _begin
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
        options = self.engine.options
        refusals.log(status, self.client, self.scheme or "http", options)
        self.transport.write(refusal(status, options))
        cast("Any", self.transport).close_after_response()


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
