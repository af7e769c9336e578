"""uvicorn's websocket, which tells the application what the others tell it."""

from __future__ import annotations

from asyncio.transports import BaseTransport
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)

from djasgi.options import Options
from djasgi.servers.engines import refusals
from djasgi.servers.engines.draining import CLOSING

SERVICE_RESTART = 1012


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


def close_websocket(websocket: WebSocketsSansIOProtocol, options: Options) -> None:
    if websocket.handshake_complete:
        websocket.shutdown()
        return
    websocket.queue.put_nowait(
        {"type": "websocket.disconnect", "code": SERVICE_RESTART, "reason": ""}
    )
    websocket.transport.write(refusals.refusal(HTTPStatus.SERVICE_UNAVAILABLE, options))
    websocket.handshake_complete = websocket.close_sent = True
    websocket.transport.close()
