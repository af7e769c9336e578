"""A request on daphne, and its response: daphne's own, held to the rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import daphne.http_protocol
from daphne.http_protocol import WebRequest
from twisted.web.http import Request as TwistedRequest

from djasgi.servers.base import Message, Scope
from djasgi.servers.engines import refusals
from djasgi.servers.engines.framing import Response
from djasgi.servers.engines.heads import NOT_IN_A_LINE, Field, visible

# Of these some are letters in UTF-8; what no value may have, the rules refuse.
daphne.http_protocol.INVALID_HEADER_VALUE_BYTES = frozenset()

OF_A_HANDSHAKE = (b"host", b"upgrade", b"connection")


class Request(Response, WebRequest):  # type: ignore[misc]  # daphne is not typed
    """daphne's request, with the framing that the others have.

    Of HTTP/1 it is told to the application, and answered, without daphne and Twisted,
    which between them cost more than all the rest.
    """

    _has_length = False
    handshake = False

    def __init__(self, channel: Any, *arguments: Any, **keywords: Any) -> None:
        # As super's, which goes by way of a module that Twisted has made slow.
        TwistedRequest.__init__(self, channel, *arguments, **keywords)
        self.client_addr: tuple[str, int] | None = None
        self.server_addr: tuple[str, int] | None = None
        self.application_queue: Any = None
        self._response_started = False
        self.fields: list[Field] = []
        self.server = channel.factory.server
        self.server.protocol_connected(self)

    def requestReceived(  # noqa: N802  # Twisted's name
        self, command: bytes, path: bytes, version: bytes
    ) -> None:
        # Without super's forms: they are the application's to read, and to refuse.
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        if self.content is not None:
            self.content.seek(0)
        self.process()

    def process(self) -> Any:
        if self.handshake:
            return self._shake_hands()
        if self.clientproto == b"HTTP/2":
            return super().process()
        self._begin_application()
        return None

    def _shake_hands(self) -> Any:
        channel = self.channel
        headers = self.requestHeaders
        # autobahn splits lines at more than line ends: it gets what it needs.
        for name, _ in list(headers.getAllRawHeaders()):
            lower = name.lower()
            if lower not in OF_A_HANDSHAKE and lower[:14] != b"sec-websocket-":
                headers.removeHeader(name)
        self.server.handshake_of = self
        self.server.handshake = None
        done = super().process()
        self.server.handshake_of = None
        if self.transport is None:  # it belongs to a websocket now
            channel.hand_over()
            channel.websocket = self.server.handshake
        return done

    def _begin_application(self) -> None:
        self.request_start = time.time()
        self.client_addr, self.server_addr = self.channel.addresses
        self.application_queue = asyncio.Queue()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.clientproto[5:].decode(),
            "method": self.method.decode("ascii"),
            "scheme": "https" if self.isSecure() else "http",
            "path": unquote(self.path.decode("ascii")),
            "raw_path": self.path,
            "query_string": self.uri.partition(b"?")[2],
            "root_path": "",
            "headers": self.fields,
            "client": self.client_addr,
            "server": self.server_addr,
            "state": {},
        }
        size = self.server.request_buffer_size
        more_body = True
        while more_body:
            body = b"" if self.content is None else self.content.read(size)
            more_body = len(body) == size
            self.application_queue.put_nowait(
                {"type": "http.request", "body": body, "more_body": more_body}
            )
        self.server.run(self, scope, self.application_queue.get, self.send)

    def adapt(self, scope: Scope) -> None:
        """Give the application the head as it was sent, by HTTP/2."""
        scope["headers"] = visible(self.fields)
        scope["path"] = unquote(self.path.decode("ascii"))
        scope["raw_path"] = self.path

    async def send(self, message: Message) -> None:
        """What the application answers to a request of HTTP/1."""
        if self.finished or self.channel is None:
            return
        if self._response_started:
            self._write_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._response_started = True
            self._write_head(message["status"], message.get("headers", ()))

    def _write_head(self, status: int, headers: Iterable[Field]) -> None:
        channel, server = self.channel, self.server
        self.code = status
        self.keep_alive = channel.persistent and not server.draining
        method, version = self.method.decode("ascii"), self.clientproto[5:].decode()
        self.begin(status, headers, method, version, server.heads)
        channel.persistent = self.keep_alive
        self.startedWriting = 1
        server.heads.hold(self)

    def transmit(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel.write(data)

    def _write_body(self, body: bytes, more_body: bool) -> None:
        self.write_body(body, more_body)
        if not more_body:
            self.check_length()
            self.send_disconnect()
            TwistedRequest.finish(self)
            self.server.protocol_disconnected(self)

    def handle_reply(self, message: dict[str, Any]) -> None:
        """What the application answers to a request of HTTP/2."""
        if self.finished or self.channel is None:
            return
        if message["type"] == "http.response.start":
            message = self._checked(message)
        elif message["type"] == "http.response.body":
            message = self._measured(message)
        super().handle_reply(message)
        if message["type"] == "http.response.start" and self.channel is not None:
            headers = self.responseHeaders
            if self.server.options.date_header and not headers.hasHeader(b"date"):
                headers.setRawHeaders(b"date", [refusals.date()])
            # Twisted keeps the head until there is something of the body.
            TwistedRequest.write(self, b"")

    def _checked(self, message: dict[str, Any]) -> dict[str, Any]:
        fields = []
        for name, value in message.get("headers", ()):
            if NOT_IN_A_LINE.search(value) or NOT_IN_A_LINE.search(name):
                raise RuntimeError("Invalid HTTP header value.")
            lower = name.lower()
            if lower == b"transfer-encoding":
                continue  # the framing is ours
            if lower == b"content-length":
                self._left = int(value)
                self._has_length = True
            fields.append((name, value))
        status = message["status"]
        self._is_bodiless = self.method == b"HEAD" or status in (204, 304)
        return {**message, "headers": fields}

    def _measured(self, message: dict[str, Any]) -> dict[str, Any]:
        """Raise RuntimeError for a body that is not as long as was said."""
        if self._is_bodiless:
            return {**message, "body": b""}
        if self._has_length:
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            if self._left and not message.get("more_body", False):
                raise RuntimeError("Response content shorter than Content-Length")
        return message

    def handle_exception(self, exception: BaseException | None) -> None:
        if self.channel is None:
            return
        if self.clientproto == b"HTTP/2":
            self.channel.abortConnection()  # of the stream
            return
        if self.held:
            self.write_held()
        # Nobody is to take what there is of the response for all of it.
        if self.clientproto == b"HTTP/1.0" or not self._response_started:
            self.channel.transport.abortConnection()
        else:
            self.channel.timeoutConnection()
