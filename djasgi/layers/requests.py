"""The requests and websockets that are running: counted, given threads, led to an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from djasgi.disconnect import Receiver, Watch
from djasgi.layers.answers import answer
from djasgi.layers.asgi import App, Message, Receive, Scope, Send
from djasgi.layers.socket import Socket

if TYPE_CHECKING:
    from djasgi.threads.leases import Leases

logger = logging.getLogger("djasgi")

_INTERNAL_SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR
_OURS = {str(path) for path in Path(__file__).parent.glob("*.py")}

_MOMENT = 0.1
"""Seconds between the start of a response and a body that comes in one piece, at most."""


class Requests:
    """Counts what is running; `drain` makes each response the last of its connection.

    `total` is the requests and websockets since the start, `active` those that run.
    Each has a lease on a thread while it runs, if there are `leases`. A layer for that
    alone would double what this one costs.
    """

    def __init__(self, app: App, leases: Leases | None = None) -> None:
        self.app = app
        self._leases = leases
        self.total = 0
        self.stream_grace: float | None = None  # None while nothing drains
        self._running: set[Exchange | Socket] = set()

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
            if isinstance(exchange, Exchange) and exchange.start is not None:
                exchange.limit(self.stream_grace)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and end in its place what it leaves unfinished.

        It always returns, unless it is cancelled: how an application fails is told to
        the client and to the log in the same way under every server, and a server cuts
        a response that has started and is not complete.
        """
        self.total += 1
        exchange: Exchange | Socket
        kind = scope["type"]
        if kind == "http":
            exchange = Exchange(self, scope, receive, send)
        else:
            exchange = Socket(scope, receive, send)
        self._running.add(exchange)
        lease = None if self._leases is None else self._leases.begin(kind)
        error: BaseException | None = None
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not exchange.ended or _is_cancelled():
                await exchange.fail()
                raise
        except (Exception, SystemExit, KeyboardInterrupt) as raised:  # noqa: BLE001
            # An application may raise anything; the last two would go through the event
            # loop and take the other requests of the worker with them.
            error = raised
        finally:
            self._running.discard(exchange)
            if lease is not None:
                lease.end()
            if exchange.timer is not None:
                exchange.timer.cancel()
        if error is not None:
            _report_error(error)
            await exchange.fail()
        elif exchange.ended:
            await exchange.finish()
        elif not exchange.complete:
            if not exchange.gone:
                _report_end(scope, exchange)
            await exchange.fail()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report_error(error: BaseException) -> None:
    logger.error(
        "exception in the application", exc_info=(type(error), error, _frames(error))
    )


def _report_end(scope: Scope, exchange: Exchange | Socket) -> None:
    if exchange.start is None:
        logger.error("the application returned without a response")
    elif scope["type"] == "http":
        logger.error("the application returned without the end of its response")


def _frames(error: BaseException) -> TracebackType | None:
    """The traceback from the application on: without what is always around it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    return frames


class Exchange(Receiver):
    """One request, its response, and how far that is."""

    # In the class, not for each request: most of them never change.
    _watch: Watch | None = None
    _receiver: asyncio.Task[Any] | None = None
    _cancelling = 0
    start: Message | None = None
    complete = False
    ended = False
    gone = False
    timer: asyncio.TimerHandle | None = None

    def __init__(
        self, requests: Requests, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._requests = requests
        self._scope = scope
        self._receive = receive
        self._send = send

    def send(self, message: Message) -> Awaitable[None]:
        # No coroutine of its own: every message of every response goes through here.
        kind = message["type"]
        if kind == "http.response.body":
            if self.start is None or self.complete:
                raise _unexpected(kind)
            if not message.get("more_body", False):
                self.complete = True
        elif kind == "http.response.start":
            if self.start is not None:
                raise _unexpected(kind)
            self.start = message
            grace = self._requests.stream_grace
            if grace is not None:
                if self._scope["http_version"].startswith("1"):
                    message = _last(message)
                self.limit(grace)
        else:
            raise _unexpected(kind)
        return self._send(message)

    async def receive(self) -> Message:
        if self.ended:
            return {"type": "http.disconnect"}
        self._receiver = asyncio.current_task()
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._was_interrupted():
                raise
            return {"type": "http.disconnect"}
        finally:
            self._receiver = None
        if message["type"] == "http.disconnect":
            self.gone = True
        return message

    def watch(self, told: Callable[[Message], None]) -> Watch:
        self._watch = Watch(self._next(), told)
        if self.ended:
            self._watch.end({"type": "http.disconnect"})
        return self._watch

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
        return message

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
        if self._watch is not None:
            self._watch.end({"type": "http.disconnect"})
        if self._receiver is not None:
            # A task for each message, to be able to leave it, would cost far more.
            self._cancelling = self._receiver.cancelling()
            self._receiver.cancel()

    async def fail(self) -> None:
        """Answer with 500, if there is nothing of an answer yet."""
        if self.start is None:
            await answer(
                self._scope,
                self.send,
                _INTERNAL_SERVER_ERROR,
                (b"connection", b"close"),
            )

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


def _unexpected(kind: str) -> RuntimeError:
    return RuntimeError(f"Unexpected ASGI message {kind!r}.")


def _last(start: Message) -> Message:
    """`start`, saying that the connection closes after it (RFC 9112, section 9.6)."""
    headers = [
        (name, value)
        for name, value in start.get("headers", ())
        if name.lower() != b"connection"
    ]
    return {**start, "headers": [*headers, (b"connection", b"close")]}
