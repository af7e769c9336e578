"""A websocket on hypercorn: what it tells the application, and when it gives up."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, cast

from hypercorn.protocol import ws_stream
from hypercorn.protocol.events import Data, StreamClosed
from hypercorn.protocol.ws_stream import (
    ASGIWebsocketState,
    FrameTooLargeError,
    WebsocketBuffer,
    WSStream,
)
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

_TOO_BIG = 1009
_NO_CODE = 1005
_ABNORMAL = 1006
_INTERNAL_ERROR = 1011


class Deflate(PerMessageDeflate):
    """Compression that inflates no more of a message than it may have.

    Measured after it was inflated, a small one could fill the memory.
    """

    most: ClassVar[int]
    """Bytes of a message."""

    def frame_inbound_payload_data(self, proto: Any, data: Any) -> bytes | CloseReason:
        if not (self._inbound_compressed and self._inbound_is_compressible):
            return bytes(data)
        decompressor: Any = self._decompressor
        try:
            inflated: bytes = decompressor.decompress(bytes(data), self.most + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        over = decompressor.unconsumed_tail or len(inflated) > self.most
        return CloseReason.MESSAGE_TOO_BIG if over else inflated


# The name by which hypercorn makes its extension.
cast("Any", ws_stream).PerMessageDeflate = Deflate


class Messages(WebsocketBuffer):
    """hypercorn's buffer of a message, which measures in bytes, text too."""

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length)
        self._size = 0

    def extend(self, event: Message[Any]) -> None:
        size = len(event.data)
        if isinstance(event, TextMessage) and not event.data.isascii():
            size = len(event.data.encode())
        self._size += size
        if self._size > self.max_length:
            raise FrameTooLargeError
        super().extend(event)

    def clear(self) -> None:
        super().clear()
        self._size = 0

    def to_message(self) -> dict[str, Any]:
        message = super().to_message()
        return {name: value for name, value in message.items() if value is not None}


class WebSocket(WSStream):
    """hypercorn's websocket, which reports how the client has closed it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        options = self.config.options  # type: ignore[attr-defined]
        self.buffer = Messages(options.ws_max_size)
        self.ended_early: Callable[[], None] = lambda: None
        self._ping_interval = options.ws_ping_interval
        self._ping_timeout = options.ws_ping_timeout or None
        self._pong = asyncio.Event()
        self._early: list[Data] = []
        self._told = False

    async def handle(self, event: Any) -> None:
        if isinstance(event, StreamClosed) and self._told:
            self.closed = True  # the application knows why
        elif isinstance(event, Data) and self.state is ASGIWebsocketState.HANDSHAKE:
            # Frames that did not wait for the answer; hypercorn refuses them.
            self._early.append(event)
        else:
            await super().handle(event)

    async def _accept(self, message: Any) -> None:
        await super()._accept(message)
        while self._early and not self.closed:
            await self.handle(self._early.pop(0))

    async def _handle_events(self) -> None:
        try:
            for event in self.connection.events():
                await self._handle_event(event)
                if self.closed:
                    return
        except RemoteProtocolError as error:
            closing: Any = error.event_hint
            if closing is not None:
                await self._fail(closing.code, closing.reason or "")

    async def _handle_event(self, event: Any) -> None:
        match event:
            case Message():
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    await self._fail(_TOO_BIG, "")
                else:
                    if event.message_finished:
                        await self._put(self.buffer.to_message())
                        self.buffer.clear()
            case Ping():
                await self._send_wsproto_event(event.response())
            case Pong():
                self._pong.set()
            case CloseConnection() if self.connection.state == ConnectionState.OPEN:
                # The client has not closed: its frames are broken.
                await self._fail(event.code, "")
            case CloseConnection():
                if self.connection.state == ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                await self._tell(event.code or _NO_CODE, event.reason or "")
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _fail(self, code: int, reason: str) -> None:
        """Close because of what the client has sent."""
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self._tell(code, reason)
        self.closed = True
        self.ended_early()

    async def _send_pings(self) -> None:
        """Ping, and give the client up that does not answer.

        hypercorn does not look at the answers, and pings at once.
        """
        timeout = self._ping_timeout
        while not self.closed:
            await self.context.sleep(self._ping_interval)
            self._pong.clear()
            await self._send_wsproto_event(Ping())
            try:
                async with asyncio.timeout(timeout):
                    await self._pong.wait()
            except TimeoutError:
                await self._send_wsproto_event(CloseConnection(code=_INTERNAL_ERROR))
                await self._tell(_ABNORMAL, "")
                self.closed = True
                self.ended_early()

    async def _tell(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            await self._put(
                {"type": "websocket.disconnect", "code": int(code), "reason": reason}
            )

    async def _put(self, message: dict[str, Any]) -> None:
        assert self.app_put is not None, "there is a handshake"  # noqa: S101
        await self.app_put(message)
