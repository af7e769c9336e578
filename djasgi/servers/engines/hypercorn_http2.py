"""HTTP/2 on hypercorn."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes
from hypercorn.events import Closed, RawData
from hypercorn.protocol.events import EndBody, Response, StreamClosed
from hypercorn.protocol.h2 import H2Protocol

from djasgi.options import Options
from djasgi.servers.engines import http2, refusals
from djasgi.servers.engines.heads import visible
from djasgi.servers.engines.hypercorn_stream import Stream, unbounded


class _Gone:
    """In place of a stream that has been answered; what still comes is forgotten."""

    idle = True

    async def handle(self, event: Any) -> None:
        pass


class _Streams(dict[int, Any]):
    def __missing__(self, stream_id: int) -> _Gone:
        return _Gone()


class Http2(H2Protocol):
    """hypercorn's side of a connection with HTTP/2."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.options: Options = self.config.options  # type: ignore[attr-defined]
        self.config = unbounded(self.config)
        self.streams = _Streams()
        self._ended: set[int] = set()
        self._resets = http2.Resets()
        self._writer: asyncio.StreamWriter = self.context.writer  # type: ignore[attr-defined]
        self.told = False
        self.flooded = False
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: self.config.h2_max_concurrent_streams,
                codes.MAX_HEADER_LIST_SIZE: self.options.max_head_size,
                codes.ENABLE_CONNECT_PROTOCOL: 0,
            },
        )
        most = self.options.max_head_size + http2.ROOM
        self.connection.decoder.max_header_list_size = most

    async def take_leave(self) -> None:
        """Say which requests have been answered, before the connection is closed."""
        try:
            self.connection.close_connection()
        except h2.exceptions.ProtocolError:
            return  # closed already
        await self._flush()

    async def wind_down(self) -> None:
        """Ask the client to open another connection for what it begins from now on."""
        if not self.closed:
            await self.send(RawData(data=http2.notice()))

    async def handle(self, event: Any) -> None:
        if self.flooded and isinstance(event, RawData):
            return
        await super().handle(event)
        if isinstance(event, Closed):
            # Nothing is sent any more; an application that still answers would wait.
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                await self._take(event)
            elif isinstance(event, h2.events.StreamReset) and (
                not self._resets.one_more()
            ):
                await self._break_off()
                return
            else:
                await super()._handle_events([event])
        await self._flush()

    async def _take(self, event: h2.events.DataReceived) -> None:
        """Give a piece of a body to its stream, which opens its window when it is read.

        That of the connection is opened at once: who waits keeps nobody waiting.
        """
        size, stream_id = event.flow_controlled_length, event.stream_id
        stream = self.streams.get(stream_id)
        if not isinstance(stream, Stream):
            self.connection.acknowledge_received_data(size, stream_id)
            return
        if size:
            self.connection.increment_flow_control_window(size)
        await stream.keep(event.data)
        self._open(stream_id, size - len(event.data))  # padding

    async def _send_data(self, stream_id: int) -> None:
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:
            # The response is complete: what is left of the request need not come
            # (RFC 9113, section 8.1).
            with suppress(h2.exceptions.ProtocolError):  # nothing is left
                self.connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)
                await self._flush()

    async def open_window(self, stream_id: int, size: int) -> None:
        """Let the client send so many bytes more of a body."""
        self._open(stream_id, size)
        await self._flush()

    def _open(self, stream_id: int, size: int) -> None:
        if size and not self.closed:
            with suppress(h2.exceptions.ProtocolError, KeyError):  # it has ended
                self.connection.increment_flow_control_window(size, stream_id)

    async def _break_off(self) -> None:
        """Close the connection of a client that resets too many streams."""
        self.flooded = True
        self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        # Not by way of send(), which waits until the client has read.
        self._writer.write(self.connection.data_to_send())
        await self.handle(Closed())
        await self.send(Closed())

    async def _flush(self) -> None:
        if self._writer.transport.is_closing():
            self.connection.data_to_send()  # asyncio warns of what cannot leave
        else:
            await super()._flush()

    async def _priority_updated(self, event: Any) -> None:
        """Nothing: obsolete (RFC 9113, section 5.3.2), and 1000 of them raise."""

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        head = http2.Head(list(request.headers or ()), self.options)
        stream_id = request.stream_id
        if head.problem is not None:
            await self._refuse(stream_id, head.problem)
            return
        request.headers = [
            (b":method", head.method),
            (b":path", head.target),
            (b":authority", head.fields[0][1]),
            *visible(head.fields[1:]),
        ]
        await super()._create_stream(request)

    async def _refuse(self, stream_id: int, status: HTTPStatus) -> None:
        refusals.log(status, self.client, "https", self.options)
        fields, body = http2.refusal(status, self.options)
        try:
            self.connection.send_headers(stream_id, fields)
        except h2.exceptions.ProtocolError:
            return  # the client has reset it
        self.connection.send_data(stream_id, body, end_stream=True)
        await self._flush()

    async def stream_send(self, event: Any) -> None:
        if isinstance(event, Response):
            fields = http2.response_fields(
                event.status_code, event.headers, self.options
            )
            try:
                self.connection.send_headers(event.stream_id, fields)
            except h2.exceptions.ProtocolError:
                return  # the client has gone
            await self._flush()
            return
        if isinstance(event, EndBody):
            self._ended.add(event.stream_id)
            if event.stream_id in self.streams:
                self._resets.answered()
        elif isinstance(event, StreamClosed) and event.stream_id not in self._ended:
            await self._cut(event.stream_id)
        elif isinstance(event, StreamClosed):
            self._ended.discard(event.stream_id)
        await super().stream_send(event)

    async def _cut(self, stream_id: int) -> None:
        """Say that a response is not complete; the client would wait for its end."""
        try:
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        except h2.exceptions.ProtocolError:
            return
        await self._flush()
