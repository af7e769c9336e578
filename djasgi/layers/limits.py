"""Limits of a request: how many at once, how large, and how long until an answer."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

from djasgi.layers.answers import answer
from djasgi.layers.asgi import App, Message, Receive, Scope, Send

logger = logging.getLogger("djasgi")

RETRY_AFTER = (b"retry-after", b"1")
"""Seconds (RFC 9110, section 10.2.3): another worker may have time at once."""


_UNTIL_CANCELLED = 1.0
"""Seconds for an application to end by itself when it has been answered for."""


class LimitConcurrency:
    """Answers with 503 while `limit` requests are running.

    An idle connection is no request, nor is a websocket, which may stay for hours.
    """

    def __init__(self, app: App, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.running >= self.limit:
            await answer(scope, send, HTTPStatus.SERVICE_UNAVAILABLE, RETRY_AFTER)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1


class _TooLargeError(Exception):
    """More of a body has come than is allowed."""


class MaxBodySize:
    """Answers with 413 to a request whose body has more than `limit` bytes.

    A length that the client states is refused before the application is called; without
    one, the application's `receive` raises when there is too much.
    """

    def __init__(self, app: App, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self.limit:
                await self._refuse(scope, send)
                return
        body = _Body(receive, send, self.limit)
        try:
            await self.app(scope, body.receive, body.send)
        except _TooLargeError:
            if body.started:
                raise
        if body.too_large and not body.started:
            await self._refuse(scope, send)

    @staticmethod
    async def _refuse(scope: Scope, send: Send) -> None:
        # The rest of the body is not read.
        await answer(
            scope, send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, (b"connection", b"close")
        )


class _Body:
    __slots__ = ("_left", "_receive", "_send", "started", "too_large")

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._left = limit
        self.started = self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.too_large = True
                raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        self.started = True
        await self._send(message)


class RequestTimeout:
    """Answers with 503 when the response has not begun after `seconds`.

    The time starts anew with each part of the body: what the client takes is not the
    application's. The application then receives `http.disconnect`, which Django takes
    for the sign to cancel the view, and is cancelled if it does not end by itself. A
    thread in which it works goes on.
    """

    def __init__(self, app: App, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Timed(scope, receive, send, self.seconds).run(self.app)
        else:
            await self.app(scope, receive, send)


class _Timed:
    """One request, and the time that is left until its response must begin."""

    _answering: asyncio.Task[None] | None = None
    _cancelled = False
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, seconds: float
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()

    async def run(self, app: App) -> None:
        self._task = asyncio.current_task()
        self._restart()
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._cancelled or self._task is None or self._task.uncancel():
                raise
        finally:
            self._stop()
            if self._answering is not None:
                await self._answering

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and self._timer is not None:
            self._restart()
        return message

    async def send(self, message: Message) -> None:
        if self._answering is None:
            self._stop()
            await self._send(message)

    def _restart(self) -> None:
        self._stop()
        self._timer = self._loop.call_later(self._seconds, self._expire)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        logger.warning("no response within %g s: answered with 503", self._seconds)
        # The server says http.disconnect to the application when this is sent.
        self._answering = self._loop.create_task(
            answer(self._scope, self._send, HTTPStatus.SERVICE_UNAVAILABLE)
        )
        self._timer = self._loop.call_later(_UNTIL_CANCELLED, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()
