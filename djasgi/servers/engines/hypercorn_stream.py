"""A request of HTTP/2 on hypercorn: its body waits for the application, nobody else."""

from __future__ import annotations

import copy
from typing import Any, cast

import hypercorn.protocol.h2
from hypercorn.config import Config
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream

from djasgi.servers.base import Message, Receive, Scope, Send


def unbounded(config: Config) -> Config:
    """`config` with queues at which nobody waits to put something in.

    hypercorn's connection would, and all its streams with it: for ever, when the
    application that ought to read waits for the connection itself.
    """
    own = copy.copy(config)
    own.max_app_queue_size = 0
    return own


class Stream(HTTPStream):
    """hypercorn's side of a request, which opens its window when a body is read.

    So what is kept of a body is bounded by the window (RFC 9113, section 5.2).
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._serve: Any = self.app
        self.app: Any = self._run
        self._receive: Receive
        self._unread: Message | None = None

    async def _run(self, scope: Scope, receive: Receive, send: Send, *_: Any) -> None:
        self._receive = receive
        await self._serve(scope, self.receive, send)

    async def handle(self, event: Event) -> None:
        if isinstance(event, StreamClosed):
            if not self.closed:
                self.closed = True
                await self.app_put({"type": "http.disconnect"})
        else:
            await super().handle(event)

    async def keep(self, data: bytes) -> None:
        """Keep a piece of the body until the application asks for it."""
        if self.closed:
            return
        if self._unread is None:
            body = bytearray(data)
            self._unread = {"type": "http.request", "body": body, "more_body": True}
            await self.app_put(cast("Any", self._unread))
        else:
            # A message for each frame would take more room than its bytes.
            self._unread["body"] += data

    async def receive(self) -> Message:
        message = await self._receive()
        if message is self._unread:
            self._unread = None
            message["body"] = bytes(message["body"])
            http2: Any = cast("Any", self.send).__self__
            await http2.open_window(self.stream_id, len(message["body"]))
        return message


# The name by which hypercorn's HTTP/2 makes it.
cast("Any", hypercorn.protocol.h2).HTTPStream = Stream
