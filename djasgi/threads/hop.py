"""A hop to the thread of a request and back: `sync_to_async`, with fewer futures.

asgiref goes through an executor's future, asyncio's future of it, and one more that
shields it, which is most of what a hop costs. With a lease there is none of that to do.
What is called sees the same, and cancellation is the same: see `SyncToAsync.__call__`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from asgiref.sync import (
    AsyncToSync,
    SyncToAsync,
    ThreadSensitiveContext,
    _restore_context,
)

from djasgi.threads.lease import Current, Lease, current
from djasgi.threads.thread import Call


class LeasedContext(ThreadSensitiveContext):
    """The context in which asgiref runs each call on the lease of its request."""

    def __init__(self) -> None:
        super().__init__(executor=Current())


def usable_lease() -> Lease | None:
    """The lease on which `sync_to_async` would run a call now; None if it would not."""
    if (
        type(SyncToAsync.thread_sensitive_context.get(None)) is not LeasedContext
        or getattr(AsyncToSync.executors, "current", None) is not None
        # asgiref lets the call see the exception that is being handled.
        or sys.exc_info()[1] is not None
    ):
        return None
    return current.get()


async def hop(lease: Lease, function: Callable[..., Any], *args: Any) -> Any:
    """What `function(*args)` returns, called in the thread of `lease`.

    When the task is cancelled, so is what runs on the loop below `function`. If that
    puts up with it, `function` goes on to its end; otherwise its result is dropped.
    """
    __traceback_hide__ = True
    there = _There(asyncio.get_running_loop(), copy_context())
    lease.begin(Call(there.call, (function, *args), {}, there))
    try:
        await there.wait()
    except asyncio.CancelledError:
        if not await _survives(there.tasks) and not there.done:
            there.dropped = True
        if there.done or there.dropped:
            raise
        await there.wait()
    finally:
        _restore_context(there.context)
    return there.value()


async def _survives(tasks: list[asyncio.Task[Any]]) -> bool:
    """Cancel what runs on the loop below a call; whether there is something left."""
    if not tasks:
        return False
    task = tasks[0]
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
        return True
    return False


class _There:
    """A call in a thread; for the pool it is the future of the result."""

    __slots__ = (
        "context",
        "done",
        "dropped",
        "error",
        "loop",
        "result",
        "tasks",
        "waiter",
    )

    result: Any
    waiter: asyncio.Future[None]

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.loop = loop
        self.context = context
        self.done = self.dropped = False
        self.error: BaseException | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    # In the thread

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        __traceback_hide__ = True
        bridge = SyncToAsync.threadlocal
        bridge.main_event_loop = self.loop
        bridge.main_event_loop_pid = os.getpid()
        bridge.task_context = self.tasks
        return self.context.run(self._call, function, args)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        __traceback_hide__ = True
        _restore_context(self.context)
        return function(*args)

    def cancelled(self) -> bool:
        return self.dropped

    def set_running_or_notify_cancel(self) -> bool:
        return not self.dropped

    def set_result(self, result: Any) -> None:
        self.result = result
        self._tell()

    def set_exception(self, error: BaseException) -> None:
        self.error = error
        self._tell()

    def _tell(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(self._told)

    # On the loop

    def _told(self) -> None:
        self.done = True
        if not self.waiter.done():
            self.waiter.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Done when the call is. Cancelled, it says nothing of the call."""
        self.waiter = self.loop.create_future()
        return self.waiter

    def value(self) -> Any:
        """What the call returned. Raises what it raised."""
        __traceback_hide__ = True
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None
        return self.result
