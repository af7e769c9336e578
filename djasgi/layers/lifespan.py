"""Startup and shutdown of the application (ASGI specification, lifespan protocol)."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, Literal

from djasgi.errors import ProjectError
from djasgi.layers.asgi import App, Message, Receive, Scope, Send

logger = logging.getLogger("djasgi")

Mode = Literal["auto", "on", "off"]

# An application that was cancelled gets this long for its finally blocks, in seconds.
_CANCEL_GRACE = 1.0


class Lifespan:
    """Runs the application's lifespan in one task, from startup to shutdown.

    One task, because context variables and the cancel scopes of anyio must be left
    where they were entered.

    `auto`: an application that raises before it has called `receive`, as Django's
    does, or returns without having said that it has started, has no lifespan, and
    nothing is said about it. One that raises after it has received `lifespan.startup`
    has failed to start. `on`: having no lifespan is an error as well. `off`: the
    application is not asked.
    """

    def __init__(self, app: App, mode: Mode) -> None:
        self.app = app
        self.mode = mode
        self.state: dict[str, Any] = {}
        self.supported = False
        self._task: asyncio.Task[None] | None = None
        self._startup_received = False
        self._failure: str | None = None
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stop_received = False
        self._stopped = asyncio.Event()
        self._idle = asyncio.Event()

    async def startup(self) -> None:
        """Wait until the application has started.

        Raises ProjectError if it fails to, or has no lifespan in mode `on`.
        """
        if self.mode == "off":
            return
        if has_no_lifespan(self.app):
            self._unsupported("")
            return
        self._task = asyncio.create_task(self._run(), name="lifespan")
        try:
            await _first(self._task, self._started)
            if self._failure is not None:
                # Frameworks send the message and then raise: let them.
                await asyncio.wait({self._task}, timeout=_CANCEL_GRACE)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        await self._settle()

    async def shutdown(self, timeout: float) -> None:  # noqa: ASYNC109 - the caller's bound
        """Tell the application to shut down and wait for it, at most `timeout` seconds.

        What goes wrong is logged: at this point nothing else can be done about it.
        """
        if self._task is None or self._task.done():
            return
        self._task.remove_done_callback(_ended_early)
        self._stopping.set()
        try:
            async with asyncio.timeout(timeout):
                await _first(self._task, self._stopped)
                # What it does after it has said so, its finally blocks say.
                await _first(self._task, self._idle)
        except TimeoutError:
            logger.error(  # noqa: TRY400 - where the timeout came from says nothing
                "The application did not shut down within %g s (lifespan.shutdown)",
                timeout,
            )
        if self._failure is not None:
            logger.error("The application failed to shut down: %s", self._failure)
        elif (error := _error(self._task)) is not None:
            logger.error("The application failed to shut down", exc_info=_own(error))
        await self._cancel()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self.app(scope, self._receive, self._send)
        except (SystemExit, KeyboardInterrupt) as error:
            # These would go through the event loop and end the worker unexplained.
            failure = RuntimeError(f"{type(error).__name__}: {error}")
            raise failure.with_traceback(error.__traceback__) from None

    async def _receive(self) -> Message:
        if not self._startup_received:
            self._startup_received = True
            return {"type": "lifespan.startup"}
        if not self._stop_received:
            await self._stopping.wait()
            self._stop_received = True
            return {"type": "lifespan.shutdown"}
        # An application that asks for more only waits to be cancelled.
        self._idle.set()
        nothing: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await nothing

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self.supported = True
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = message.get("message", "")
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.shutdown.failed":
                self._failure = message.get("message", "") or "it did not say why"
                self._stopped.set()
            case kind:
                raise RuntimeError(f"unexpected lifespan message {kind!r}")

    async def _settle(self) -> None:
        """Decide what the end of the startup means."""
        assert self._task is not None  # noqa: S101 - startup() has made it
        error = _error(self._task)
        if self.supported and self._failure is None:
            self._task.add_done_callback(_ended_early)
        elif self._failure is not None:
            await self._cancel()
            raise _failed(self._failure or _formatted(error))
        elif self._startup_received and (error is not None or self._task.cancelled()):
            raise _failed(_formatted(error) or "It was cancelled, by itself.")
        else:
            self._unsupported(_formatted(error))

    def _unsupported(self, details: str) -> None:
        if self.mode == "on":
            raise ProjectError(
                "The application has no lifespan (--lifespan on).",
                hint="Django's own has none: use --lifespan auto, or wrap it in one "
                "that does.",
                details=details,
            )

    async def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CANCEL_GRACE)
        if self._task is not None:
            _error(self._task)  # retrieved, or asyncio reports it at exit


class State:
    """Gives every connection a shallow copy of the lifespan's state."""

    def __init__(self, app: App, state: Mapping[str, Any]) -> None:
        self.app = app
        self.state = state

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] in ("http", "websocket"):
            scope["state"] = dict(self.state)
        return self.app(scope, receive, send)


def has_no_lifespan(app: App) -> bool:
    """Whether `app` is known to raise for a lifespan scope.

    True for Django's handler and for a router of Channels without that type. Not
    asking them keeps the exception from error trackers, which patch these classes.
    """
    call = type(app).__call__
    django = sys.modules.get("django.core.handlers.asgi")
    if django is not None and call is django.ASGIHandler.__call__:
        return True
    channels = sys.modules.get("channels.routing")
    return (
        channels is not None
        and call is channels.ProtocolTypeRouter.__call__
        and "lifespan" not in getattr(app, "application_mapping", {})
    )


async def _first(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait for the end of `task` or for `event`, without ending either."""
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


def _ended_early(task: asyncio.Task[None]) -> None:
    if (error := _error(task)) is not None:
        logger.error(
            "The application's lifespan failed while it was serving",
            exc_info=_own(error),
        )


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _failed(details: str) -> ProjectError:
    return ProjectError(
        "The application failed to start (lifespan.startup).",
        hint="Mend what it says, or start without it: --lifespan off.",
        details=details.rstrip(),
    )


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def _own(error: BaseException | None) -> ExcInfo | None:
    """`error` with the frames of the application, without ours."""
    if error is None:
        return None
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return type(error), error, frames


def _formatted(error: BaseException | None) -> str:
    own = _own(error)
    return "" if own is None else "".join(traceback.format_exception(*own)).rstrip()
