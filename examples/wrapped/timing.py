"""ASGI middleware: a callable that holds the application it wraps."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class ServerTiming:
    """Tells the browser's developer tools how long an answer took.

    https://www.w3.org/TR/server-timing/
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                milliseconds = (time.perf_counter() - begun) * 1000
                header = (b"server-timing", b"app;dur=%.1f" % milliseconds)
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await self.app(scope, receive, send_timed)
