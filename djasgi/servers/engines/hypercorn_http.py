"""HTTP/1 and what an application sees of it, on hypercorn."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import h11
from h11._readers import READERS
from h11._receivebuffer import ReceiveBuffer
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Closed, RawData
from hypercorn.protocol import events
from hypercorn.protocol.events import Body, Request, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection

from djasgi.options import Options
from djasgi.servers.base import Application, Message, Scope
from djasgi.servers.engines import refusals
from djasgi.servers.engines.framing import Heads, Response
from djasgi.servers.engines.heads import (
    Field,
    handshake_problem,
    origin_form,
    problem,
    subprotocols,
    visible,
    wants_websocket,
)
from djasgi.servers.engines.hypercorn_websocket import WebSocket
from djasgi.servers.engines.plain import Plain, plain_request

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n)|\n[ \t]")
"""What a head must not have: control characters, a bare LF or CR, a folded line."""

_LENGTH = re.compile(rb"(?i)\ncontent-length:[ \t]*([^\r]*?)[ \t]*\r")
_CODING = re.compile(rb"(?i)\ntransfer-encoding:")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FRAMING = (b"transfer-encoding",)

_HIGH_WATER = 65_536
"""Bytes that wait for a client before asyncio says so (asyncio: Streaming Protocols)."""


class Buffer(ReceiveBuffer):
    """h11's buffer, which lets less pass than h11."""

    def __init__(self, connection: h11.Connection, max_head_size: int) -> None:
        super().__init__()
        self._connection = connection
        self._max_head_size = max_head_size

    def maybe_extract_lines(self) -> list[bytearray] | None:
        data = self._data
        if self._connection.their_state is h11.IDLE:
            while data[:2] == b"\r\n":
                del data[:2]  # RFC 9112, section 2.2
            if data == b"\r":
                return None
        searched = max(0, self._multiple_lines_search - 2)
        if data[:2] == b"\r\n":
            return super().maybe_extract_lines()
        end = data.find(b"\r\n\r\n", searched)
        size = end + 4 if end >= 0 else len(data)
        if size > self._max_head_size:
            raise h11.RemoteProtocolError("head too large", error_status_hint=431)
        if end < 0:
            if _CONTROL.search(data.rstrip(b"\r"), searched):
                raise h11.RemoteProtocolError("no line of a head")
            self._multiple_lines_search = max(0, len(data) - 4)
            return None
        head = self._extract(size)
        if _CONTROL.search(head):
            raise h11.RemoteProtocolError("control character in a head")
        if len(_CODING.findall(head)) > 1:
            raise h11.RemoteProtocolError("more than one Transfer-Encoding")
        lengths = _LENGTH.findall(head)
        # h11 takes several that agree for one.
        if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
            raise h11.RemoteProtocolError("more than one Content-Length")
        return head[:-4].split(b"\r\n")

    def maybe_extract_next_line(self) -> bytearray | None:
        line = super().maybe_extract_next_line()
        if line is not None and not _CHUNK.fullmatch(line) and line != b"\r\n":
            raise h11.RemoteProtocolError("no chunk size")
        return line

    def is_next_line_obviously_invalid_request_line(self) -> bool:
        return (
            self._data != b"\r"
            and super().is_next_line_obviously_invalid_request_line()
        )


class Http(h11.Connection):
    """h11's connection, which reads requests, and is told of responses."""

    def __init__(self, max_head_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_size)
        self._receive_buffer = Buffer(self, max_head_size)

    def next_event(self) -> Any:
        if self.their_state is h11.MUST_CLOSE:
            # What comes after the last request is not answered; h11 complains of it
            # before that request is answered.
            self._receive_buffer.maybe_extract_at_most(len(self._receive_buffer))
        return super().next_event()

    def begin_response(self, *, keep_alive: bool) -> None:
        """Be told that the head of a response is made, instead of making it."""
        before = self.their_state
        self._cstate.process_event(h11.SERVER, h11.Response)
        if not keep_alive:
            self._cstate.process_keep_alive_disabled()
        self.client_is_waiting_for_100_continue = False
        if self.their_state is not before:
            self._reader = self._get_io_object(h11.CLIENT, None, READERS)

    def end_response(self) -> None:
        """Be told that the response is complete."""
        before = self.their_state
        self._cstate.process_event(h11.SERVER, h11.EndOfMessage)
        if self.their_state is not before:
            self._reader = self._get_io_object(h11.CLIENT, None, READERS)

    @property
    def waits(self) -> bool:
        """Whether there is nothing of a request yet."""
        return self.their_state is h11.IDLE and not self._receive_buffer

    def take(self, request: Plain) -> None:
        """Be told of a request, instead of reading it."""
        self._cstate.process_event(h11.CLIENT, h11.Request)
        self._request_method = request.method
        self.their_http_version = request.version.encode()
        if not request.keep_alive:
            self._cstate.process_keep_alive_disabled()
        self._cstate.process_event(h11.CLIENT, h11.EndOfMessage)
        self._reader = self._get_io_object(h11.CLIENT, None, READERS)

    @property
    def may_keep_alive(self) -> bool:
        """Whether the request lets the connection go on."""
        return self._cstate.keep_alive


class Stream(Response):
    """A request of HTTP/1 and its application, with the framing that the others have.

    In place of hypercorn's, which lets h11 make the response and costs more than all the
    rest; and which, when a response is complete, waits until the application has read
    what there is of the request: for ever, since the application waits for it.
    """

    def __init__(
        self,
        http1: Http1,
        method: bytes,
        target: bytes,
        version: str,
        fields: list[Field],
    ) -> None:
        path, _, query = target.partition(b"?")
        text = path.decode("ascii")
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": "https" if http1.ssl else "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": fields,
            "client": http1.client,
            "server": http1.server,
            "state": {},
        }
        self._http1 = http1
        self._closed = False
        self._begun = False
        self._messages: asyncio.Queue[Message] = asyncio.Queue(
            http1.config.max_app_queue_size
        )

    async def run(self, app: Application) -> None:
        """Let the application answer. `djasgi.layers.requests` has seen to its errors."""
        try:
            await app(self.scope, self._messages.get, self.send)
        finally:
            if self.held:
                self.write_held()
            if not self._closed:
                await self._http1.end(self)

    async def handle(self, event: Any) -> None:
        """Pass on to the application what h11 and hypercorn tell of the request."""
        if self._closed:
            return
        if isinstance(event, StreamClosed):
            self._closed = True
            await self._messages.put({"type": "http.disconnect"})
        elif isinstance(event, Body):
            body = bytes(event.data)
            await self._messages.put(
                {"type": "http.request", "body": body, "more_body": True}
            )
        else:
            await self._messages.put(_end_of_body())

    def end_body(self) -> None:
        """There is no body."""
        self._messages.put_nowait(_end_of_body())

    async def send(self, message: Message) -> None:
        if self._closed:
            return
        if self._begun:
            await self._write_body(
                message.get("body", b""), message.get("more_body", False)
            )
        else:
            self._begun = True
            self._begin(message["status"], message.get("headers", ()))

    def _begin(self, status: int, headers: Iterable[Field]) -> None:
        http1 = self._http1
        http: Any = http1.connection
        self.keep_alive = (
            http.may_keep_alive
            # What is left of the request is not waited for.
            and http.their_state is not h11.SEND_BODY
            and http1.keep_alive_requests < http1.config.keep_alive_max_requests
        )
        scope = self.scope
        version = scope["http_version"]
        self.begin(status, headers, scope["method"], version, http1.heads)
        http.begin_response(keep_alive=self.keep_alive)
        http1.heads.hold(self)

    def transmit(self, data: bytes) -> None:
        self._http1.write(data)

    async def _write_body(self, body: bytes, more_body: bool) -> None:
        http1 = self._http1
        self.write_body(body, more_body)
        await http1.drain()
        if more_body or self._closed:
            return
        self.check_length()
        http: Any = http1.connection
        http.end_response()
        self._closed = True
        # Of the request nothing is left to say; nor may what nobody reads be in the way.
        while not self._messages.empty():
            self._messages.get_nowait()
        self._messages.put_nowait({"type": "http.disconnect"})
        await http1.end(self)


def _end_of_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class Http1(H11Protocol):
    """hypercorn's side of a connection with HTTP/1."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.options: Options = self.config.options  # type: ignore[attr-defined]
        context: Any = self.context  # djasgi.servers.engines.hypercorn.Context
        self.heads: Heads = context.heads
        self._writer: asyncio.StreamWriter = context.writer
        self.refused = False
        self.is_over = False
        """Whether the connection is being closed: nothing can be sent any more."""
        self.connection = Http(self.options.max_head_size)

    def write(self, data: bytes) -> None:
        """Send something of a response, if the connection is there."""
        if not (self.is_over or self._writer.transport.is_closing()):
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait while the client takes nothing; notice that it has gone."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > _HIGH_WATER:
            try:
                await self._writer.drain()
            except ConnectionError:
                await self.handle(Closed())

    async def stream_send(self, event: Any) -> None:
        if isinstance(event, events.Response) and event.status_code >= HTTPStatus.OK:
            await self._send_start(event)
        else:
            await super().stream_send(event)

    async def _send_start(self, event: events.Response) -> None:
        """The head of a response to a handshake; others do not come this way."""
        fields = [f for f in event.headers if f[0].lower() not in _FRAMING]
        names = {name.lower() for name, _ in fields}
        fields += [f for f in self.config.response_headers("h11") if f[0] not in names]
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            fields = [f for f in fields if f[0].lower() != b"connection"]
            fields.append((b"connection", b"close"))
        await self._send_h11_event(
            h11.Response(
                status_code=event.status_code,
                headers=fields,
                reason=refusals.phrase(event.status_code),
            )
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """In place of hypercorn's change to cleartext HTTP/2, which cannot be denied."""

    async def _create_stream(self, request: h11.Request) -> None:
        fields = list(request.headers)
        version = request.http_version.decode()
        target = request.target
        found = problem(request.method, target, version, fields)
        websocket = wants_websocket(request.method, version, fields)
        if found is None and websocket:
            found = handshake_problem(fields)
        if found is not None:
            await self._send_error_response(found)
            await self.send(Closed())
            return
        fields = visible(fields)
        if target[:1] != b"/":
            target, fields = origin_form(target, fields)
        if websocket:
            await self._create_websocket(target, version, fields)
        else:
            self._begin(Stream(self, request.method, target, version, fields))

    def take(self, data: bytes) -> bool:
        """Let the application answer, if `data` is a plain request. Else False."""
        http: Any = self.connection
        if not isinstance(http, Http) or not http.waits:
            return False
        request = plain_request(data, self.options.max_head_size)
        if request is None:
            return False
        http.take(request)
        method, target, version, fields, _ = request
        stream = Stream(self, method, target, version, fields)
        stream.end_body()
        self._begin(stream)
        return True

    def _begin(self, stream: Stream) -> None:
        self.stream = cast("Any", stream)  # to hypercorn it is like one of its own
        self.task_group.spawn(stream.run, cast("Any", self.app).app)
        self.keep_alive_requests += 1

    async def _create_websocket(
        self, target: bytes, version: str, fields: list[Field]
    ) -> None:
        self.stream = WebSocket(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.connection = H11WSConnection(cast("h11.Connection", self.connection))
        self.keep_alive_requests += 1
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=fields,
                http_version=version,
                method="GET",
                raw_path=target,
                state=self.connection_state,
            )
        )

    async def end(self, stream: Stream) -> None:
        """A response is over, or its application: wait for a request, or close."""
        if self.stream is cast("Any", stream):
            self.stream = None
        await self._maybe_recycle()

    async def _send_error_response(self, status_code: int) -> None:
        status = HTTPStatus(status_code)
        self.refused = True
        refusals.log(status, self.client, "https" if self.ssl else "http", self.options)
        await self.send(RawData(data=refusals.refusal(status, self.options)))
        await self._close_stream()


class Wrapper(ASGIWrapper):
    """hypercorn's call of the application, with the scope that the others give it."""

    async def __call__(self, scope: Any, receive: Any, send: Any, *_: Any) -> None:
        adapt(scope)
        await self.app(scope, receive, send)


def adapt(scope: Any) -> None:
    """Take from `scope` what only hypercorn has, and add what it does not read."""
    scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
    if scope["type"] == "http":
        del scope["extensions"]
    else:
        scope["subprotocols"] = subprotocols(scope["headers"])
