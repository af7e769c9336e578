"""HTTP/1 on daphne: Twisted's connections and daphne's requests, held to the rules."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import daphne.http_protocol
from daphne.http_protocol import HTTPFactory, WebRequest
from twisted.internet import reactor
from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel, Request as TwistedRequest

from djasgi.options import Options
from djasgi.servers.base import Message, Scope
from djasgi.servers.engines import refusals
from djasgi.servers.engines.draining import CLOSING, unacknowledged
from djasgi.servers.engines.framing import Response
from djasgi.servers.engines.heads import (
    NOT_IN_A_LINE,
    TOKEN,
    Field,
    handshake_problem,
    origin_form,
    problem,
    visible,
    wants_websocket,
)

# Of these some are letters in UTF-8; what no value may have, the rules refuse.
daphne.http_protocol.INVALID_HEADER_VALUE_BYTES = frozenset()

_MOST_DIGITS = 18
_OF_A_HANDSHAKE = (b"host", b"upgrade", b"connection")
_OF_TWISTED = {*_OF_A_HANDSHAKE, b"content-length", b"transfer-encoding", b"expect"}
"""What Twisted, or autobahn, has to know of a head."""


class Channel(HTTPChannel):  # type: ignore[misc]  # Twisted is not typed here
    """Twisted's side of a connection, with a limit for the head of a request.

    The time runs from the connection, then from the first byte of each further request,
    to the end of the head. Between requests it is the keep-alive time, and none while a
    request runs: Twisted starts its time anew with each byte, the body's too.
    """

    abortTimeout = CLOSING  # noqa: N815  # Twisted's name
    maxHeaders = sys.maxsize  # noqa: N815  # the rules have the limit
    refused = False
    has_unread = False
    websocket: Any = None

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        super().connectionMade()
        self._abortingCall: Any = None
        self.options: Options = self.factory.server.options
        self.heads = 0
        self.waiting = True
        self.MAX_LENGTH = self.options.max_head_size
        self.totalHeadersSize = self.options.max_head_size
        self._head_size = 0
        self.length: int | None = 0
        self._path = b""
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
        # Twisted waits for the CRLF that a client who ends lines with LF never sends.
        if (
            self.line_mode
            and self._buffer
            and NOT_IN_A_LINE.search(self._buffer.removesuffix(b"\r"))
        ):
            self.refuse(HTTPStatus.BAD_REQUEST)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802  # Twisted's name
        if not line and not self._head_size:
            return  # RFC 9112, section 2.2
        self._head_size += len(line) + 2
        if self._head_size > self.options.max_head_size:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif NOT_IN_A_LINE.search(line) or line[:1] in (b" ", b"\t"):
            self.refuse(HTTPStatus.BAD_REQUEST)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802  # Twisted's name
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802  # Twisted's name
        name, colon, value = line.partition(b":")
        if self.refused:
            return False
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self.refuse(HTTPStatus.NOT_IMPLEMENTED)  # 400 to Twisted
            return False
        if name.lower() == b"content-length" and len(value.strip()) > _MOST_DIGITS:
            self.refuse(HTTPStatus.BAD_REQUEST)  # Python refuses to count so far
            return False
        lower = name.lower()
        if lower in _OF_TWISTED or lower[:14] == b"sec-websocket-":
            if not super().headerReceived(line):
                return False
        elif not colon or not TOKEN.fullmatch(name):
            self.refuse(HTTPStatus.BAD_REQUEST)
            return False
        self.requests[-1].fields.append((lower, value.strip(b" \t")))
        return True

    def allHeadersReceived(self) -> None:  # noqa: N802  # Twisted's name
        if self.refused:
            return
        self._head_size = 0
        request = self.requests[-1]
        fields = request.fields
        version = self._version.decode().rpartition("/")[2]
        found = problem(self._command, self._path, version, fields)
        request.handshake = wants_websocket(self._command, version, fields)
        if found is None and request.handshake:
            found = handshake_problem(fields)
        if found is not None:
            self.refuse(found)
            return
        if self._path[:1] != b"/":
            self._path, request.fields = origin_form(self._path, fields)
        super().allHeadersReceived()
        self.heads += 1
        self.waiting = False
        self.setTimeout(None)
        limit = self.options.max_body_size
        if limit and self.length is not None and self.length > limit:
            # The layer refuses it by its Content-Length: it need not come.
            self.length = 0
            self._leave_unread()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        if self.websocket is not None:
            self.websocket.dataReceived(data)
            return
        super().rawDataReceived(data)
        limit = self.options.max_body_size
        if limit and not self._handlingRequest and not self.refused and self.requests:
            content = self.requests[-1].content
            if content is not None and content.tell() > limit:
                # Enough for the layer to refuse it.
                self._leave_unread()
                self.allContentReceived()

    def _leave_unread(self) -> None:
        self.persistent = False
        self.has_unread = True

    def allContentReceived(self) -> None:  # noqa: N802  # Twisted's name
        if not self.refused:
            super().allContentReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:  # noqa: N802
        said = b",".join(request.requestHeaders.getRawHeaders(b"connection", ()))
        tokens = {token.strip() for token in said.lower().split(b",")}
        return version == b"HTTP/1.1" and b"close" not in tokens

    def writeHeaders(self, version: bytes, *rest: Any) -> None:  # noqa: N802
        # A server's own version, whatever the client's (RFC 9110, section 6.2).
        super().writeHeaders(b"HTTP/1.1", *rest)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        self.refuse(HTTPStatus.BAD_REQUEST)

    def refuse(self, status: HTTPStatus) -> None:
        """Answer a request that is none, and end the connection."""
        if self.refused:
            return
        self.refused = True
        self.setTimeout(None)
        self.lineReceived = _forget  # type: ignore[assignment,method-assign]
        self.rawDataReceived = _forget  # type: ignore[method-assign]
        peer = self.transport.getPeer()
        client = (peer.host, peer.port) if hasattr(peer, "port") else None
        scheme = "https" if self.isSecure() else "http"
        refusals.log(status, client, scheme, self.options)
        self.transport.write(refusals.refusal(status, self.options))
        self.loseConnection()

    def requestDone(self, request: Any) -> None:  # noqa: N802  # Twisted's name
        self.waiting = True
        self._begun = False
        if not self.factory.timeOut:
            self.persistent = False
        super().requestDone(request)

    def loseConnection(self) -> None:  # noqa: N802  # Twisted's name
        """Close; with something still to come, as RFC 9112 has it in section 9.6.

        To close at once resets the connection if there is something to read, and the
        client may lose the end of the response. TLS waits for the client by itself.
        """
        carefully = self.factory.server.draining or self.refused or self.has_unread
        if carefully and not self.isSecure():
            self._networkProducer.unregisterProducer()
            self.dataReceived = _forget  # type: ignore[method-assign]
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()
        if carefully:
            self._abort_later()

    def wind_down(self) -> None:
        """There is nothing to tell a client of HTTP/1 before its next response."""

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
    """In place of what reads, after the last response."""


class Request(Response, WebRequest):  # type: ignore[misc]  # daphne is not typed
    """daphne's request, with the framing that the others have.

    Of HTTP/1 it is told to the application, and answered, without daphne and Twisted,
    which between them cost more than all the rest.
    """

    _response_started: bool
    _has_length = False
    handshake = False

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.fields: list[Field] = []

    def requestReceived(  # noqa: N802  # Twisted's name
        self, command: bytes, path: bytes, version: bytes
    ) -> None:
        # Without super's forms: they are the application's to read, and to refuse.
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
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
            if lower not in _OF_A_HANDSHAKE and lower[:14] != b"sec-websocket-":
                headers.removeHeader(name)
        self.server.handshake_of = self
        self.server.handshake = None
        done = super().process()
        self.server.handshake_of = None
        if self.transport is None:  # it belongs to a websocket now
            channel.factory.channels.discard(channel)
            channel.websocket = self.server.handshake
        return done

    def _begin_application(self) -> None:
        self.request_start = time.time()
        peers: list[tuple[str, int] | None] = [
            (address.host, address.port) if hasattr(address, "port") else None
            for address in (self.client, self.host)
        ]
        self.client_addr, self.server_addr = peers
        self.application_queue: asyncio.Queue[Message] = asyncio.Queue()
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
            "headers": visible(self.fields),
            "client": self.client_addr,
            "server": self.server_addr,
            "state": {},
        }
        size = self.server.request_buffer_size
        more_body = True
        while more_body:
            body = self.content.read(size)
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
            self.finish()

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


class HttpFactory(HTTPFactory):  # type: ignore[misc]  # daphne is not typed
    """Makes the channels of the connections, and knows them."""

    protocol = Channel
    noisy = False

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.channels: set[Any] = set()  # that speak HTTP/1, or HTTP/2
        self.timeOut = server.options.keep_alive
        self.header_timeout = server.options.header_timeout or None

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  # Twisted's name
        channel = super().buildProtocol(addr)
        channel.requestFactory = Request
        return channel

    def log(self, request: Any) -> None:
        """Nothing: Twisted formats a line of a log that nobody reads."""
