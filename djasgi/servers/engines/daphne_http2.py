"""HTTP/2 on daphne: Twisted's connection, held to the rules."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

import h2.exceptions
import h2.settings
import twisted.web.http
from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.web._http2 import H2Connection

from djasgi.options import Options
from djasgi.servers.engines import http2, refusals
from djasgi.servers.engines.daphne_http import Channel, address
from djasgi.servers.engines.draining import CLOSING

_MOST_AT_ONCE = 100


class Http2(H2Connection):  # type: ignore[misc]  # Twisted is not typed here
    """Twisted's side of a connection with HTTP/2."""

    abortTimeout = CLOSING  # noqa: N815  # Twisted's name
    _told = False
    _flooded = False

    def connectionMade(self) -> None:  # noqa: N802  # Twisted's name
        self.options: Options = self.factory.server.options
        self._complete: set[int] = set()
        self._resets = http2.Resets()
        codes = h2.settings.SettingCodes
        self.conn.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: _MOST_AT_ONCE,
                codes.MAX_HEADER_LIST_SIZE: self.options.max_head_size,
            },
        )
        most = self.options.max_head_size + http2.ROOM
        self.conn.decoder.max_header_list_size = most
        # What has been made for HTTP/1 before the client said what it wants.
        for channel in [*self.factory.channels]:
            if channel.transport is self.transport:
                channel.hand_over()
        self.factory.channels.add(self)
        super().connectionMade()

    def connectionLost(self, *arguments: Any, **keywords: Any) -> None:  # noqa: N802
        self.factory.channels.discard(self)
        super().connectionLost(*arguments, **keywords)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        if not self._flooded:
            super().dataReceived(data)

    def timeoutConnection(self) -> None:  # noqa: N802  # Twisted's name
        if self.streams:  # nobody limits the time of a response
            self.setTimeout(self.timeOut)
        else:
            super().timeoutConnection()

    @property
    def waiting(self) -> bool:
        """Whether there is no request."""
        return not self.streams

    def plain_transport(self) -> Any:
        """The transport below TLS."""
        return getattr(self.transport, "transport", self.transport)

    def close_idle(self) -> None:
        if not self._flooded:
            super().timeoutConnection()

    def wind_down(self) -> None:
        """Ask the client to open another connection for what it begins from now on."""
        if not self._told:
            self._told = True
            self.transport.write(http2.notice())

    def _requestReceived(self, event: Any) -> None:  # noqa: N802  # Twisted's name
        if self._flooded:
            return
        head = http2.Head(event.headers, self.options)
        stream_id = event.stream_id
        if head.problem is not None:
            self._refuse(stream_id, head.problem)
            return
        event.headers = [(b":method", head.method), (b":path", head.target)]
        event.headers += head.fields
        super()._requestReceived(event)
        self.streams[stream_id]._request.fields = head.fields  # noqa: SLF001  # pinned
        limit = self.options.max_body_size
        length = next((v for k, v in head.fields if k == b"content-length"), b"0")
        if limit and int(length) > limit:
            self._finish(stream_id)

    def _refuse(self, stream_id: int, status: HTTPStatus) -> None:
        client = address(self.transport.getPeer())
        refusals.log(status, client, "https", self.options)
        fields, body = http2.refusal(status, self.options)
        try:
            self.conn.send_headers(stream_id, fields)
        except h2.exceptions.ProtocolError:
            return  # the client has reset it
        self.conn.send_data(stream_id, body, end_stream=True)
        self._tryToWriteControlData()

    def _requestDataReceived(self, event: Any) -> None:  # noqa: N802  # Twisted's name
        if self._flooded:
            return
        stream_id = event.stream_id
        if stream_id not in self.streams or stream_id in self._complete:
            # It has been answered already, or will be without this.
            self.conn.acknowledge_received_data(event.flow_controlled_length, stream_id)
            return
        super()._requestDataReceived(event)
        limit = self.options.max_body_size
        content = self.streams[stream_id]._request.content  # noqa: SLF001  # pinned
        if limit and content.tell() > limit:
            self._finish(stream_id)

    def _requestEnded(self, event: Any) -> None:  # noqa: N802  # Twisted's name
        if event.stream_id in self.streams and event.stream_id not in self._complete:
            self._finish(event.stream_id)

    def _finish(self, stream_id: int) -> None:
        """Give the request to the application, with what there is of its body."""
        self._complete.add(stream_id)
        self.streams[stream_id].requestComplete()

    def _requestAborted(self, event: Any) -> None:  # noqa: N802  # Twisted's name
        # Twisted's has a limit of its own, and goes on after it.
        if self._flooded:
            return
        if event.stream_id in self.streams:
            self._drop(event.stream_id)
        if not self._resets.one_more():
            self._break_off()

    def _drop(self, stream_id: int) -> None:
        self.streams[stream_id].connectionLost(Failure(ConnectionLost()))
        self._requestDone(stream_id)

    def _break_off(self) -> None:
        """Close the connection of a client that resets too many streams."""
        self._flooded = True
        self.setTimeout(None)
        for stream_id in list(self.streams):
            self._drop(stream_id)
        self.conn.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        if self._tryToWriteControlData():
            self._abortingCall = self.callLater(CLOSING, self.forceAbortClient)
            self.transport.loseConnection()

    def endRequest(self, stream_id: int) -> None:  # noqa: N802  # Twisted's name
        self._resets.answered()
        super().endRequest(stream_id)

    def _handlePriorityUpdate(self, event: Any) -> None:  # noqa: N802  # Twisted's name
        """Nothing: obsolete (RFC 9113, section 5.3.2), and 1000 of them raise."""

    def abortRequest(self, stream_id: int) -> None:  # noqa: N802  # Twisted's name
        # Twisted's says that there was no error.
        self.conn.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        if self._tryToWriteControlData():
            self._requestDone(stream_id)

    def _requestDone(self, stream_id: int) -> None:  # noqa: N802  # Twisted's name
        self._complete.discard(stream_id)
        super()._requestDone(stream_id)

    def writeHeaders(  # noqa: N802  # Twisted's name
        self, version: bytes, code: bytes, reason: bytes, headers: Any, stream_id: int
    ) -> None:
        fields = http2.response_fields(int(code), list(headers), self.options)
        try:
            self.conn.send_headers(stream_id, fields)
        except h2.exceptions.ProtocolError:
            return  # the client has gone
        self._tryToWriteControlData()


# The name by which Twisted makes it, once the client has asked for HTTP/2.
cast("Any", twisted.web.http).H2Connection = Http2


def negotiating() -> Any:
    """What speaks HTTP/1 or, when TLS has agreed on it, HTTP/2."""
    return twisted.web.http._GenericHTTPChannelProtocol(Channel())  # noqa: SLF001  # pinned
