"""The requests and websockets that are running: counted, and led to an end in a drain."""

from __future__ import annotations

import asyncio
from typing import Any

from djasgi.layers.asgi import App, Message, Receive, Scope, Send

_MOMENT = 0.1
"""Seconds between the start of a response and a body that comes in one piece, at most."""


class Requests:
    """Counts what is running; `drain` makes each response the last of its connection.

    `total` is the requests and websockets since the start, `active` those that run.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.total = 0
        self.stream_grace: float | None = None  # None while nothing drains
        self._running: set[object] = set()

    @property
    def active(self) -> int:
        return len(self._running)

    def drain(self, stream_grace: float) -> None:
        """From now on serve only what is there, and what still comes on connections.

        HTTP/1 responses that start carry `Connection: close`. The application sees
        `http.disconnect` when its response has been streaming for `stream_grace`
        seconds more; if it then ends without finishing, an event stream is finished in
        its place, so that the browser reconnects, and anything else is left unfinished,
        for the server to cut. Websockets are the server's affair.
        """
        self.stream_grace = max(stream_grace, _MOMENT)
        for exchange in self._running:
            if isinstance(exchange, _Exchange) and exchange.start is not None:
                exchange.limit(self.stream_grace)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.total += 1
        if scope["type"] != "http":
            await self._websocket(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        self._running.add(exchange)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.ended or _is_cancelled():
                raise
        finally:
            self._running.discard(exchange)
            if exchange.timer is not None:
                exchange.timer.cancel()
        if exchange.ended:
            await exchange.finish()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = object()
        self._running.add(running)
        try:
            await self.app(scope, receive, send)
        finally:
            self._running.discard(running)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Exchange:
    """One request, its response, and how far that is."""

    # In the class, not for each request: most of them never change.
    _receiver: asyncio.Task[Any] | None = None
    _cancelling = 0
    start: Message | None = None
    complete = False
    ended = False
    timer: asyncio.TimerHandle | None = None

    def __init__(
        self, requests: Requests, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._requests = requests
        self._scope = scope
        self._receive = receive
        self._send = send

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            if not message.get("more_body", False):
                self.complete = True
        elif kind == "http.response.start":
            self.start = message
            grace = self._requests.stream_grace
            if grace is not None:
                if self._scope["http_version"].startswith("1"):
                    message = _last(message)
                self.limit(grace)
        await self._send(message)

    async def receive(self) -> Message:
        if self.ended:
            return {"type": "http.disconnect"}
        self._receiver = asyncio.current_task()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self._was_interrupted():
                raise
            return {"type": "http.disconnect"}
        finally:
            self._receiver = None

    def _was_interrupted(self) -> bool:
        """Whether it was `end` that has cancelled `receive`, and nobody else too."""
        if not self.ended or self._receiver is None:
            return False
        return self._receiver.uncancel() <= self._cancelling

    def limit(self, seconds: float) -> None:
        """Let the response, which has started, stream for so long."""
        self.timer = asyncio.get_running_loop().call_later(seconds, self.end)

    def end(self) -> None:
        """Let the application see `http.disconnect`, also where it waits already."""
        if self.complete:
            return
        self.ended = True
        if self._receiver is not None:
            # A task for each message, to be able to leave it, would cost far more.
            self._cancelling = self._receiver.cancelling()
            self._receiver.cancel()

    async def finish(self) -> None:
        """End what the application has left unfinished, if that is no lie."""
        if self.complete or self.start is None:
            return
        headers = {bytes(k).lower(): bytes(v) for k, v in self.start.get("headers", ())}
        kind = headers.get(b"content-type", b"").lower()
        if kind.startswith(b"text/event-stream") and b"content-length" not in headers:
            await self._send(
                {"type": "http.response.body", "body": b"", "more_body": False}
            )


def _last(start: Message) -> Message:
    """`start`, saying that the connection closes after it (RFC 9112, section 9.6)."""
    headers = [
        (name, value)
        for name, value in start.get("headers", ())
        if name.lower() != b"connection"
    ]
    return {**start, "headers": [*headers, (b"connection", b"close")]}
