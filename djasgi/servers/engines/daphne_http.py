"""HTTP/1 on daphne: Twisted's connections, held to the rules."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import Any

from daphne.http_protocol import HTTPFactory
from twisted.internet import reactor
from twisted.internet.abstract import FileDescriptor
from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel

from djasgi.options import Options
from djasgi.servers.engines import refusals
from djasgi.servers.engines.daphne_request import OF_A_HANDSHAKE, Request
from djasgi.servers.engines.deadline import Deadline
from djasgi.servers.engines.draining import CLOSING, unacknowledged
from djasgi.servers.engines.heads import (
    NOT_IN_A_LINE,
    TOKEN,
    handshake_problem,
    origin_form,
    problem,
    visible,
    wants_websocket,
)
from djasgi.servers.engines.plain import Plain, plain_request

_MOST_DIGITS = 18
_OF_TWISTED = {*OF_A_HANDSHAKE, b"content-length", b"transfer-encoding", b"expect"}
"""What Twisted, or autobahn, has to know of a head."""


class Channel(HTTPChannel):  # type: ignore[misc]  # Twisted is not typed here
    """Twisted's side of a connection, with a limit for the head of a request.

    The time runs from the connection, then from the first byte of each further request,
    to the end of the head. Between requests it is the keep-alive time, and none while a
    request runs: Twisted starts its time anew with each byte, the body's too.
    """

    abortTimeout = CLOSING  # noqa: N815  # Twisted's name
    timeOut: Any  # noqa: N815  # Twisted's name
    maxHeaders = sys.maxsize  # noqa: N815  # the rules have the limit
    refused = False
    has_unread = False
    websocket: Any = None

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        self._deadline = Deadline(self.timeoutConnection)
        self._peer = self.transport.getPeer()
        self._host = self.transport.getHost()
        self.addresses = tuple(map(address, (self._peer, self._host)))
        self._is_secure: bool = super().isSecure()
        # TLS has no such thing to write to: it passes the bytes on as they are.
        direct = isinstance(self.transport, FileDescriptor)
        self._descriptor = self.transport if direct else None
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
        self._deadline.cancel()

    def hand_over(self) -> None:
        """The connection is another protocol's from now on."""
        self.factory.channels.discard(self)
        self._deadline.cancel()

    def setTimeout(self, period: float | None) -> Any:  # noqa: N802  # Twisted's name
        before: Any = self.timeOut
        self.timeOut = period
        self._deadline.set(period)
        return before

    # Twisted makes them anew for each request, and asks the system.

    def getPeer(self) -> Any:  # noqa: N802  # Twisted's name
        return self._peer

    def getHost(self) -> Any:  # noqa: N802  # Twisted's name
        return self._host

    def isSecure(self) -> bool:  # noqa: N802  # Twisted's name
        return self._is_secure

    def write(self, data: bytes) -> None:
        """Send at once what can be: to wait for the reactor costs two system calls."""
        there = self._descriptor
        if (
            there is None
            or not there.connected
            or there.disconnecting
            or there._aborting  # noqa: SLF001  # pinned
            or there._writeDisconnecting  # noqa: SLF001  # pinned
            or there._tempDataLen  # noqa: SLF001  # pinned
            or there.dataBuffer
        ):
            super().write(data)
            return
        sent = there.writeSomeData(data)
        if sent != len(data):
            # An error shows when the reactor tries it again.
            super().write(data if isinstance(sent, Exception) else data[sent:])

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        if self._is_between_requests():
            request = plain_request(data, self.options.max_head_size)
            if request is not None:
                self._take(request)
                return
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

    def _is_between_requests(self) -> bool:
        """Whether nothing runs, and there is nothing of a request."""
        return (
            self.waiting
            and not self.refused
            and self.line_mode
            and self.persistent
            and not self._buffer
            and not self._head_size
            and not self.paused
            and not self.transport.disconnecting
        )

    def _take(self, plain: Plain) -> None:
        """Let the application answer, as if Twisted had read the request."""
        request = self.requestFactory(self, False)
        self.requests.append(request)
        request.fields = plain.fields
        self.persistent = plain.keep_alive
        self.heads += 1
        self.waiting = False
        self.setTimeout(None)
        self._handlingRequest = True
        self.setRawMode()
        version = b"HTTP/" + plain.version.encode()
        request.requestReceived(plain.method, plain.target, version)

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
        request.fields = visible(fields)
        if self._path[:1] != b"/":
            self._path, request.fields = origin_form(self._path, request.fields)
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
        client = self.addresses[0]
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


def address(of: Any) -> tuple[str, int] | None:
    """As the application sees it: a unix socket has none."""
    return (of.host, of.port) if hasattr(of, "port") else None


def _forget(data: bytes) -> None:
    """In place of what reads, after the last response."""


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
